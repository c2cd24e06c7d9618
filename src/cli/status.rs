//! `mailer status`: how far a job has come, what is wrong, and what to type next. One screen, of a running job too.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use super::args::{StateArgs, StatusArgs};
use super::exit::Exit;
use super::job::due::Due;
use super::job::view::View;
use super::{job, say};
use crate::control::{Reply, Request, log, socket};
use crate::job::{JobCard, JobState, StateDir};
use crate::ledger::{Attempt, Outcome};
use crate::mail::verdict::printable;
use crate::mail::{MessageNo, RecipientNo, Status};
use crate::report::summary::plural;

/// Recipients in doubt or held that are listed.
const DOUBTFUL_SHOWN: usize = 10;
/// Sites whose errors are listed.
const SITES_SHOWN: usize = 10;
/// Orders that are listed.
const ORDERS_SHOWN: usize = 5;
/// Sites that are told apart.
const SITES_KEPT: usize = 20_000;

/// Runs the command.
///
/// # Errors
/// A [`Failure`](super::exit::Failure): there is no such job, or it cannot be read.
pub fn run(args: &StatusArgs) -> Result<Exit> {
    let found = match &args.job {
        Some(text) => Some(job::find(&args.state, text)?),
        None => latest(&args.state)?,
    };
    let Some((state, card)) = found else {
        say::complain("there is no job");
        return Ok(Exit::Done);
    };
    let view = View::open(&state, card)?;
    let gathered = Gathered::of(&view)?;
    let dir = state.job_dir(&view.card.id);
    let orders = orders(&view, &dir, &args.state);
    say::to_stdout(&screen(&view, &gathered, &orders, &args.state))?;
    Ok(Exit::Done)
}

/// The job that was made last, if there is any.
fn latest(args: &StateArgs) -> Result<Option<(StateDir, JobCard)>> {
    let Some(state) = job::look(args)? else {
        return Ok(None);
    };
    let mut listing = state.listing().map_err(job::failure)?;
    for (_, error) in &listing.unreadable {
        say::complain(error);
    }
    Ok(listing.cards.pop().map(|card| (state, card)))
}

/// What is shown, of all recipients.
#[derive(Default)]
struct Gathered {
    counts: [u64; Status::ALL.len()],
    sending: u64,
    /// By name: delivered, pending, failed.
    queues: BTreeMap<String, [u64; 3]>,
    doubtful: Vec<String>,
    doubtful_count: u64,
    /// By the name of the server, or the domain if none was talked to.
    sites: HashMap<String, Trouble>,
    next_retry: Option<i64>,
}

/// What a site said last to somebody whose mail it has not taken.
struct Trouble {
    recipients: u64,
    at: i64,
    said: String,
}

impl Gathered {
    fn of(view: &View) -> Result<Gathered> {
        let mut gathered = Gathered::default();
        if view.is_running() {
            gathered.sending = view.ledger.sending();
        }
        let mut due = Due::of(view);
        view.each(|message, recipient, outcome| {
            gathered.add(view, &mut due, (message, recipient), outcome);
        })?;
        Ok(gathered)
    }

    fn add(
        &mut self,
        view: &View,
        due: &mut Due,
        (message, recipient): (MessageNo, RecipientNo),
        outcome: &Outcome,
    ) {
        if let Some(at) = Status::ALL.iter().position(|each| *each == outcome.status) {
            self.counts[at] += 1;
        }
        let Some(last) = &outcome.last else { return };
        let queue = view.ledger.queue_name(last.via.queue);
        let column = match outcome.status {
            Status::Delivered | Status::Suppressed => 0,
            status if status.is_pending() => 1,
            _ => 2,
        };
        match self.queues.get_mut(queue) {
            Some(counts) => counts[column] += 1,
            None => {
                let mut counts = [0; 3];
                counts[column] = 1;
                self.queues.insert(queue.to_owned(), counts);
            }
        }
        if column == 0 {
            return;
        }
        let address = view.store.recipient_text(recipient);
        if matches!(outcome.status, Status::InDoubt | Status::Held) {
            self.doubtful_count += 1;
            if self.doubtful.len() < DOUBTFUL_SHOWN {
                self.doubtful
                    .push(doubtful(message, &address, outcome.status, last));
            }
        }
        if outcome.status.is_pending() {
            let next = due.after(last);
            self.next_retry = Some(self.next_retry.map_or(next, |known| known.min(next)));
        }
        self.note_trouble(&address, last);
    }

    fn note_trouble(&mut self, address: &str, last: &Attempt) {
        let site = if last.via.mx.is_empty() {
            let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
            printable(domain, 255)
        } else {
            last.via.mx.to_string()
        };
        if self.sites.len() >= SITES_KEPT && !self.sites.contains_key(&site) {
            return;
        }
        let trouble = self.sites.entry(site).or_insert_with(|| Trouble {
            recipients: 0,
            at: i64::MIN,
            said: String::new(),
        });
        trouble.recipients += 1;
        if last.at >= trouble.at {
            trouble.at = last.at;
            trouble.said = job::reason(last);
        }
    }

    fn count(&self, status: Status) -> u64 {
        let at = Status::ALL.iter().position(|each| *each == status);
        at.map_or(0, |at| self.counts[at])
    }
}

fn doubtful(message: MessageNo, address: &str, status: Status, last: &Attempt) -> String {
    let ip = last.via.ip.map(|ip| format!("[{ip}]")).unwrap_or_default();
    format!(
        "{:<8}  {}  message {}, {} at {}{ip}",
        status.name(),
        printable(address, 300),
        message.ordinal(),
        job::local_time(last.at),
        last.via.mx
    )
}

/// What the operator has ordered: what is paused now, and the latest lines of the journal.
fn orders(view: &View, dir: &Path, args: &StateArgs) -> String {
    let mut out = String::new();
    // A run that does not answer is shown without.
    if view.is_running()
        && let Ok(Reply::Show(shown)) = socket::ask(dir, &Request::Show { sites: Some(0) })
    {
        let held: u64 = shown.queues.iter().map(|queue| queue.held).sum();
        let queues = shown.queues.iter().filter(|queue| queue.is_paused);
        let names = queues.map(|queue| format!("queue {}", queue.name));
        let names: Vec<String> = names.chain(shown.paused).collect();
        if !names.is_empty() {
            let resume = job::typed(&format!("ctl {} resume", view.card.id), args);
            let _ = writeln!(
                out,
                "paused: {} ({} held); to go on: {resume}",
                printable(&names.join(", "), 300),
                plural(held, "recipient")
            );
        }
    }
    let lines = log::latest(dir, ORDERS_SHOWN);
    if !lines.is_empty() {
        out.push_str("latest orders:\n");
        list(&mut out, &lines, lines.len() as u64);
    }
    out
}

/// The screen.
fn screen(view: &View, gathered: &Gathered, orders: &str, args: &StateArgs) -> String {
    let mut out = String::new();
    head(&mut out, view);
    table(&mut out, view, gathered);
    queues(&mut out, gathered);
    if gathered.doubtful_count > 0 {
        out.push_str("may have been delivered:\n");
        list(&mut out, &gathered.doubtful, gathered.doubtful_count);
    }
    troubles(&mut out, gathered);
    out.push_str(orders);
    let next = next_commands(view, gathered, args);
    for (at, line) in next.iter().enumerate() {
        let label = if at == 0 { "next:" } else { "     " };
        let _ = writeln!(out, "{label} {line}");
    }
    out
}

fn head(out: &mut String, view: &View) {
    let card = &view.card;
    let state = if view.is_running() {
        "running"
    } else {
        card.state.name()
    };
    let name = card.name.as_deref().map(|name| printable(name, 80));
    let name = name.map_or(String::new(), |name| format!(" ({name})"));
    let _ = writeln!(out, "job {}{name}: {state}", card.id);
    let command = printable(&card.command.join(" "), 300);
    let _ = writeln!(out, "  from     {}  ({command})", job::origin(card));
    let _ = write!(
        out,
        "  made     {}, {}",
        job::local_time(card.created_ms),
        plural(u64::from(runs(view)), "run")
    );
    if let Some(ended) = card.ended_ms {
        let exit = card.exit.map_or("?".to_owned(), |exit| exit.to_string());
        let _ = write!(
            out,
            ", the last that ended: {}, exit status {exit}",
            job::local_time(ended)
        );
    }
    out.push('\n');
    if let Some(by) = &view.running {
        let by = by
            .as_ref()
            .map_or("another process".to_owned(), |by| by.to_string());
        let _ = writeln!(out, "  run by   {by}");
    }
    let over = view.card.state != JobState::Open;
    if let Some(at) = card.finished_ms.filter(|_| over) {
        let _ = writeln!(out, "  {:<9}{}", card.state.name(), job::local_time(at));
    }
}

/// Runs that were begun: the ledger counts what `settle` and `retry` wrote, too.
fn runs(view: &View) -> u32 {
    view.card.runs.max(view.ledger.run().min(1))
}

fn table(out: &mut String, view: &View, gathered: &Gathered) {
    let so_far = if view.store.is_read_to_end() {
        ""
    } else {
        " as far as the batch was read"
    };
    let recipients = plural(view.recipients(), "recipient");
    let messages = plural(view.store.message_count() as u64, "message");
    let _ = writeln!(out, "{recipients} of {messages}{so_far}");
    let shown = Status::ALL.into_iter().zip(gathered.counts);
    for (status, count) in shown.filter(|(_, count)| *count > 0) {
        let share = 100.0 * count as f64 / view.recipients().max(1) as f64;
        let sending = match status {
            Status::Queued if gathered.sending > 0 => {
                format!("  ({} being sent to)", gathered.sending)
            }
            _ => String::new(),
        };
        let _ = writeln!(
            out,
            "  {:<11}{count:>9}  {share:>5.1} %{sending}",
            status.name()
        );
    }
    if let Some(at) = gathered
        .next_retry
        .filter(|_| view.card.state == JobState::Open)
    {
        let when = if at <= job::now_ms() {
            "due now".to_owned()
        } else {
            format!("about {}", job::local_time(at))
        };
        let _ = writeln!(out, "next retry: {when}");
    }
}

fn queues(out: &mut String, gathered: &Gathered) {
    if gathered.queues.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "{:<24}{:>9}{:>9}{:>9}",
        "by queue", "delivered", "pending", "failed"
    );
    for (queue, [delivered, pending, failed]) in &gathered.queues {
        let queue = printable(if queue.is_empty() { "-" } else { queue }, 22);
        let _ = writeln!(out, "  {queue:<22}{delivered:>9}{pending:>9}{failed:>9}");
    }
}

fn list(out: &mut String, lines: &[String], count: u64) {
    for line in lines {
        let _ = writeln!(out, "  {line}");
    }
    let more = count - lines.len() as u64;
    if more > 0 {
        let _ = writeln!(out, "  and {more} more");
    }
}

fn troubles(out: &mut String, gathered: &Gathered) {
    let mut sites: Vec<_> = gathered.sites.iter().collect();
    if sites.is_empty() {
        return;
    }
    sites.sort_by(|a, b| (b.1.recipients, a.0).cmp(&(a.1.recipients, b.0)));
    out.push_str("last error of each server or domain:\n");
    let lines = sites.iter().take(SITES_SHOWN).map(|(site, trouble)| {
        let site = if site.is_empty() { "-" } else { site };
        format!("{:>6}  {site}: {}", trouble.recipients, trouble.said)
    });
    let lines: Vec<String> = lines.collect();
    list(out, &lines, sites.len() as u64);
}

/// What a person can type now.
fn next_commands(view: &View, gathered: &Gathered, args: &StateArgs) -> Vec<String> {
    let id = &view.card.id;
    let typed = |command: &str| job::typed(command, args);
    if let Some(by) = &view.running {
        let stop = by.as_ref().map(|by| format!("to stop it: kill {}", by.pid));
        return stop.into_iter().collect();
    }
    let mut next = Vec::new();
    if view.card.state == JobState::Open {
        next.push(typed(&format!("resume {id}")));
    }
    if gathered.count(Status::Held) > 0 {
        let settle = typed(&format!("settle {id} --delivered|--resend --to ADDRESS"));
        next.push(format!("{settle}  (once it is known)"));
    }
    let refused = gathered.count(Status::Refused) + gathered.count(Status::Expired);
    let left = match view.card.state {
        JobState::Cancelled => gathered.count(Status::Queued) + gathered.count(Status::Deferred),
        _ => 0,
    };
    if refused + left > 0 {
        next.push(typed(&format!("report {id} --failed --to-dir DIR")));
    }
    if refused > 0 && view.card.state != JobState::Cancelled {
        let retry = typed(&format!("retry {id} --refused"));
        next.push(format!("{retry}  (if the reason is gone)"));
    }
    next
}
