//! `mailer retry`: failed mail of a job is queued again, because its reason is gone.
//!
//! Mail that was in doubt once stays marked so: if it comes to be in doubt again it is held.

use anyhow::Result;

use super::args::RetryArgs;
use super::exit::{Exit, Failure};
use super::job::change;
use super::job::view::View;
use super::{job, say};
use crate::job::JobState;
use crate::ledger::Outcome;
use crate::mail::verdict::printable;
use crate::mail::{Domain, Mailbox, RecipientNo, Status};
use crate::report::summary::plural;

/// Runs the command.
///
/// # Errors
/// A [`Failure`]: there is no such job, somebody works on it, it is cancelled, or a domain is none.
pub fn run(args: &RetryArgs) -> Result<Exit> {
    let domains = domains(&args.to)?;
    let (state, mut job) = job::take(&args.state, &args.job)?;
    let id = job.id().to_owned();
    if job.card().state == JobState::Cancelled {
        let text = format!("job {id} is cancelled: nothing more of it is sent");
        let hint = job::typed(&format!("report {id} --failed --to-dir DIR"), &args.state);
        let hint = format!("write out its messages, and send those: {hint}");
        return Err(Failure::new(Exit::Usage, text).hint(hint).into());
    }
    let view = View::open_held(&state, job.card().clone())?;
    let chosen = choose(&view, args.refused, &domains)?;
    if chosen.is_empty() {
        say::complain(format!("job {id}: there is no such mail"));
        return Ok(Exit::Done);
    }
    // The ledger must not be read while it is folded.
    let View { store, ledger, .. } = view;
    drop(ledger);
    change::leave(job.dir(), store, Status::Queued, &chosen)?;
    change::renew(&mut job)?;
    change::refresh(&state, &mut job)?;
    say::to_stdout(&format!(
        "job {id}: {} queued again\nnext: {}\n",
        plural(chosen.len() as u64, "recipient"),
        job::typed(&format!("resume {id}"), &args.state)
    ))?;
    Ok(Exit::Done)
}

fn domains(texts: &[String]) -> Result<Vec<Domain>> {
    let domain = |text: &String| {
        let domain = Domain::parse(text.trim().trim_start_matches('@'));
        domain.map_err(|fault| {
            let text = format!("--to {}: {fault}", printable(text, 300));
            Failure::new(Exit::Usage, text)
                .hint("a domain like example.org")
                .into()
        })
    };
    texts.iter().map(domain).collect()
}

fn choose(view: &View, refused_only: bool, domains: &[Domain]) -> Result<Vec<RecipientNo>> {
    let mut chosen = Vec::new();
    view.each(|_, recipient, outcome| {
        if is_meant(outcome, refused_only) && is_at(view, recipient, domains) {
            chosen.push(recipient);
        }
    })?;
    Ok(chosen)
}

fn is_meant(outcome: &Outcome, refused_only: bool) -> bool {
    match outcome.status {
        Status::Refused | Status::Expired => true,
        Status::Deferred => !refused_only,
        _ => false,
    }
}

fn is_at(view: &View, recipient: RecipientNo, domains: &[Domain]) -> bool {
    domains.is_empty() || {
        let text = view.store.recipient_text(recipient);
        Mailbox::parse_addr_spec(text.as_bytes())
            .is_ok_and(|mailbox| domains.contains(mailbox.domain()))
    }
}
