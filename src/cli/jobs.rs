//! `mailer jobs`: all jobs, oldest first, a line each.
//!
//! The counts are those of the end of the latest run; `mailer status JOB` looks closer.

use std::fmt::Write;

use anyhow::Result;

use super::args::JobsArgs;
use super::exit::Exit;
use super::{job, say};
use crate::job::{JobCard, Listing, StateDir};
use crate::mail::Status;
use crate::mail::verdict::printable;

/// Runs the command. Ends with [`Exit::Data`] if a card is damaged.
///
/// # Errors
/// A [`Failure`](super::exit::Failure): the state directory cannot be used.
pub fn run(args: &JobsArgs) -> Result<Exit> {
    let Some(state) = job::look(&args.state)? else {
        return Ok(Exit::Done);
    };
    let listing = state.listing().map_err(job::failure)?;
    if !listing.cards.is_empty() {
        say::to_stdout(&table(&state, &listing))?;
    }
    for (_, error) in &listing.unreadable {
        say::complain(error);
        if let Some(hint) = error.hint() {
            say::to_stderr(&format!("hint: {hint}\n"));
        }
    }
    Ok(if listing.unreadable.is_empty() {
        Exit::Done
    } else {
        Exit::Data
    })
}

fn table(state: &StateDir, listing: &Listing) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<20}  {:<9}  {:>4}  {:>4}  {:>10}  {:>9}  {:>8}  {:>8}  NAME  FROM",
        "JOB", "STATE", "RUNS", "EXIT", "RECIPIENTS", "DELIVERED", "PENDING", "FAILED"
    );
    for card in &listing.cards {
        let _ = writeln!(out, "{}", line(card, is_running(state, card)));
    }
    out
}

fn is_running(state: &StateDir, card: &JobCard) -> bool {
    matches!(state.holder(&card.id), Ok(Some(_)))
}

fn line(card: &JobCard, is_running: bool) -> String {
    let count = |wanted: &dyn Fn(Status) -> bool| -> u64 {
        let wanted = Status::ALL.into_iter().filter(|status| wanted(*status));
        wanted
            .filter_map(|status| card.counts.get(status.name()))
            .sum()
    };
    let state = if is_running {
        "running"
    } else {
        card.state.name()
    };
    let exit = card.exit.map_or("-".to_owned(), |exit| exit.to_string());
    let name = card.name.as_deref().unwrap_or("-");
    format!(
        "{:<20}  {state:<9}  {:>4}  {exit:>4}  {:>10}  {:>9}  {:>8}  {:>8}  {}  {}",
        card.id,
        card.runs,
        card.recipients,
        count(&|status| status == Status::Delivered),
        count(&Status::is_pending),
        count(&|status| is_failure(status)),
        printable(name, 40),
        job::origin(card)
    )
}

fn is_failure(status: Status) -> bool {
    matches!(
        status,
        Status::Refused | Status::Expired | Status::Invalid | Status::Held
    )
}
