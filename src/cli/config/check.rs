//! What the configuration and the command line say together is looked at here: each value may be right, and the whole wrong.

use anyhow::Result;

use super::pace::check_pace;
use super::show::show;
use crate::cli::exit::{Exit, Failure};
use crate::engine::settings::{Promote, QueueSettings, Settings};
use crate::ledger::record::are_kept;

fn wrong(message: impl std::fmt::Display) -> Result<()> {
    Err(Failure::new(Exit::Config, message).into())
}

/// Checks the settings of a run.
///
/// # Errors
/// A [`Failure`] that names the key.
pub(super) fn check(settings: &Settings) -> Result<()> {
    if let Some(hello) = &settings.hello
        && let Err(bad) = crate::smtp::command::check_hello(hello)
    {
        return wrong(format!(
            "our name for EHLO, {hello:?}, cannot be used: {bad}"
        ));
    }
    if settings.retry.min > settings.retry.max {
        return wrong(format!(
            "the first retry delay ({}) is longer than the longest ({})",
            show(settings.retry.min),
            show(settings.retry.max)
        ));
    }
    if settings.recipients_max == 0 || settings.sessions_per_site == 0 || settings.workers_max == 0
    {
        return wrong("max_recipients, max_sessions and max_workers must be at least 1");
    }
    if !(0.0..=1.0).contains(&settings.promote.share) {
        return wrong("promote_share must be between 0.0 and 1.0");
    }
    if settings.promote.queues_max > Promote::QUEUES_MAX {
        let most = Promote::QUEUES_MAX;
        return wrong(format!("promote_queues_max must be at most {most}"));
    }
    check_pace(settings)?;
    if !(1..=100).contains(&settings.fallback_after) {
        return wrong("fallback_after must be between 1 and 100");
    }
    check_queues(settings)
}

fn check_queues(settings: &Settings) -> Result<()> {
    let queues = settings.queues.len() as u32 + 1;
    if settings.workers_max < queues {
        return wrong(format!(
            "max_workers = {} is less than one for each of {queues} queues",
            settings.workers_max
        ));
    }
    let names = settings.queues.iter().map(|queue| queue.name.as_str());
    if !are_kept(names.chain(["general"])) {
        return wrong("the names of all queues together are longer than 64 KiB");
    }
    settings
        .queues
        .iter()
        .try_for_each(|queue| check_queue(queue, settings))
}

fn check_queue(queue: &QueueSettings, settings: &Settings) -> Result<()> {
    if queue.domains.is_empty() && queue.mx.is_empty() {
        return wrong(format!(
            "[queue.{}] names neither domains nor mx",
            queue.name
        ));
    }
    if queue.workers_max == Some(0) || queue.sessions_per_site == Some(0) {
        return wrong(format!(
            "[queue.{}]: a maximum of 0 would never send",
            queue.name
        ));
    }
    if queue
        .sessions_per_site
        .is_some_and(|own| own > settings.sessions_per_site)
    {
        return wrong(format!(
            "[queue.{}]: max_sessions is above the general max_sessions = {}, which holds for every site",
            queue.name, settings.sessions_per_site
        ));
    }
    if queue.name == "general" {
        return wrong("[queue.general]: this is the name of the queue that is always there");
    }
    Ok(())
}
