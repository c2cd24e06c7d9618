//! `mailer report`: what became of each recipient of a job, running or not; and the mail that failed, ready to be fed back.
//!
//! `--failed --to-dir DIR` writes `failed.csv`, the rows of all who failed, and `failed.mbox`, the messages (mboxrd) for those only
//! who surely have not got them: their envelopes are in X-Envelope-From and X-Envelope-To. What was in doubt once is not in
//! it, for it may have arrived; nor are bad addresses, and messages that are not what they were.
//!
//! The messages are written as they would have been sent, line ends aside: sent from there they are the same bytes, with the
//! same Date and Message-ID, whatever the batch was.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::args::{ReportArgs, ReportFormat};
use super::exit::{Exit, Failure};
use super::feed::Feed;
use super::job::view::View;
use super::target::Target;
use super::{job, say};
use crate::ledger::Outcome;
use crate::mail::MessageNo;
use crate::mail::verdict::printable;
use crate::report::rows::{Report, Row};
use crate::report::summary::plural;

/// Runs the command.
///
/// # Errors
/// A [`Failure`]: there is no such job, it cannot be read, or the report not written.
pub fn run(args: &ReportArgs) -> Result<Exit> {
    let (state, card) = job::find(&args.state, &args.job)?;
    let view = View::open(&state, card)?;
    if let Some(dir) = &args.to_dir {
        return feed_back(&view, dir);
    }
    let out = BufWriter::new(io::stdout().lock());
    let written = match args.format {
        ReportFormat::Csv => csv(&view, args.failed, out).map(|(out, _)| out),
        ReportFormat::Text => text(&view, args.failed, out),
    };
    match written?.and_then(|mut out| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Io,
            format!("cannot write to standard output: {error}"),
        )
        .into()),
        _ => Ok(Exit::Done),
    }
}

/// Writes the rows, and says how many there were. The outer error is the ledger's.
pub(super) fn csv<W: Write>(
    view: &View,
    failed_only: bool,
    out: W,
) -> Result<(io::Result<W>, u64)> {
    let mut rows = 0;
    let mut report = Report::begin(out);
    view.each(|message, recipient, outcome| {
        let Ok(open) = &mut report else { return };
        if failed_only && !view.is_failed(outcome.status) {
            return;
        }
        rows += 1;
        let text = view.store.recipient_text(recipient);
        let queue = outcome.last.as_ref().map(|last| last.via.queue);
        let written = open.row(&Row {
            message: message.ordinal(),
            recipient: &text,
            outcome,
            queue: queue.map_or("", |queue| view.ledger.queue_name(queue)),
        });
        if let Err(error) = written {
            report = Err(error);
        }
    })?;
    Ok((report.and_then(Report::finish), rows))
}

/// The same for people.
fn text<W: Write>(view: &View, failed_only: bool, mut out: W) -> Result<io::Result<W>> {
    let mut written = Ok(());
    view.each(|message, recipient, outcome| {
        let is_wanted = !failed_only || view.is_failed(outcome.status);
        if written.is_ok() && is_wanted {
            let address = view.store.recipient_text(recipient);
            let line = line(message, &address, outcome);
            written = writeln!(out, "{line}");
        }
    })?;
    Ok(written.map(|()| out))
}

fn line(message: MessageNo, address: &str, outcome: &Outcome) -> String {
    let address = printable(address, 300);
    let head = format!(
        "{:>6}  {:<9}  {address}",
        message.ordinal(),
        outcome.status.name()
    );
    match &outcome.last {
        Some(last) => format!("{head}  {}", job::reason(last)),
        None => head,
    }
}

/// Writes `failed.csv` and `failed.mbox` to `dir`.
fn feed_back(view: &View, dir: &Path) -> Result<Exit> {
    let (csv_path, mbox_path) = (dir.join("failed.csv"), dir.join("failed.mbox"));
    let inputs = view.card.inputs.iter().map(|stamp| stamp.path.clone());
    let inputs: Vec<PathBuf> = inputs.collect();
    refuse_inputs(&[&csv_path, &mbox_path], &inputs)?;
    let table = Target::open(&csv_path, &inputs)?;
    let mut mbox = Feed::new(&view.store, Target::open(&mbox_path, &inputs)?);
    let (table, rows) = csv(view, true, table)?;
    view.each(|message, recipient, outcome| {
        if view.surely_failed(outcome) {
            mbox.add(message, recipient);
        }
    })?;
    let (mbox, fed) = mbox.finish();
    // The messages first: a table without them misleads nobody.
    for (path, written) in [(&mbox_path, mbox), (&csv_path, table)] {
        written.and_then(Target::finish).map_err(|error| {
            let text = format!("{}: cannot write it: {error}", path.display());
            Failure::new(Exit::Io, text)
        })?;
    }
    let mut said = format!(
        "{}: {}; {}: {} to {}\n",
        csv_path.display(),
        plural(rows, "recipient"),
        mbox_path.display(),
        plural(fed.messages, "message"),
        plural(fed.recipients, "recipient")
    );
    if rows > fed.recipients {
        said.push_str(&format!(
            "{} only in failed.csv: the mail may have arrived, or the address or the message is not valid\n",
            plural(rows - fed.recipients, "recipient")
        ));
    }
    say::to_stdout(&said)?;
    Ok(Exit::Done)
}

/// The batch itself may be an earlier `failed.mbox`.
fn refuse_inputs(paths: &[&PathBuf], inputs: &[PathBuf]) -> Result<()> {
    let same = |path: &Path| {
        let path = path.canonicalize().ok()?;
        let mut inputs = inputs.iter().filter_map(|input| input.canonicalize().ok());
        inputs.find(|input| *input == path)
    };
    match paths.iter().find_map(|path| same(path)) {
        None => Ok(()),
        Some(input) => {
            let text = format!("{}: is the batch of the job", input.display());
            Err(Failure::new(Exit::Usage, text)
                .hint("name another directory with --to-dir")
                .into())
        }
    }
}
