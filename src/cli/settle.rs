//! `mailer settle`: a person has found out what became of mail in doubt.
//!
//! A server's log, or the recipient, says whether it arrived. Held mail waits for that for ever; mail in doubt would be sent
//! again by itself, once.

use anyhow::Result;

use super::args::SettleArgs;
use super::exit::{Exit, Failure};
use super::job::change;
use super::job::view::View;
use super::{job, say};
use crate::job::JobState;
use crate::mail::{RecipientNo, Status};
use crate::report::summary::plural;

/// Runs the command.
///
/// # Errors
/// A [`Failure`]: there is no such job, somebody works on it, or an address is not one to decide about: nothing is changed.
pub fn run(args: &SettleArgs) -> Result<Exit> {
    let (state, mut job) = job::take(&args.state, &args.job)?;
    let id = job.id().to_owned();
    if args.resend && job.card().state == JobState::Cancelled {
        let text = format!("job {id} is cancelled: nothing more of it is sent");
        return Err(Failure::new(Exit::Usage, text).into());
    }
    let view = View::open_held(&state, job.card().clone())?;
    let chosen = choose(&view, &args.to)?;
    if chosen.is_empty() {
        say::complain(format!("job {id}: nobody's mail is in doubt or held"));
        return Ok(Exit::Done);
    }
    // The ledger must not be read while it is folded.
    let View { store, ledger, .. } = view;
    drop(ledger);
    let (status, what) = if args.delivered {
        (Status::Delivered, "settled as delivered")
    } else {
        (Status::Queued, "queued to be sent again")
    };
    change::leave(job.dir(), store, status, &chosen)?;
    if args.resend {
        change::renew(&mut job)?;
    }
    change::refresh(&state, &mut job)?;
    let mut said = format!(
        "job {id}: {} {what}\n",
        plural(chosen.len() as u64, "recipient")
    );
    if args.resend {
        let resume = job::typed(&format!("resume {id}"), &args.state);
        said.push_str(&format!("next: {resume}\n"));
    }
    say::to_stdout(&said)?;
    Ok(Exit::Done)
}

/// Those in doubt or held, all or those with one of the addresses. Each address must be that of one.
fn choose(view: &View, addresses: &[String]) -> Result<Vec<RecipientNo>> {
    let mut chosen = Vec::new();
    let mut met = vec![false; addresses.len()];
    view.each(|_, recipient, outcome| {
        if !matches!(outcome.status, Status::InDoubt | Status::Held) {
            return;
        }
        let text = view.store.recipient_text(recipient);
        let at = addresses
            .iter()
            .position(|one| bare(one).eq_ignore_ascii_case(&text));
        if let Some(at) = at {
            met[at] = true;
        }
        if at.is_some() || addresses.is_empty() {
            chosen.push(recipient);
        }
    })?;
    match met.iter().position(|met| !met) {
        Some(at) if !is_repeated(addresses, at) => Err(Failure::new(
            Exit::Usage,
            format!(
                "{} is not in doubt or held in job {}",
                addresses[at], view.card.id
            ),
        )
        .hint("mailer status JOB lists who is")
        .into()),
        _ => Ok(chosen),
    }
}

/// The address without angle brackets.
fn bare(address: &str) -> &str {
    let inner = address.trim().strip_prefix('<');
    inner
        .and_then(|inner| inner.strip_suffix('>'))
        .unwrap_or(address.trim())
}

/// True if the address at `at` stands before it, too.
fn is_repeated(addresses: &[String], at: usize) -> bool {
    addresses[..at]
        .iter()
        .any(|one| bare(one).eq_ignore_ascii_case(bare(&addresses[at])))
}
