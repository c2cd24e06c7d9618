//! `mailer send --test-to`: the first messages of a batch, to one address, as they would reach their readers. No job is touched:
//! the samples are a batch of their own in a state directory that is gone afterwards.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::args::{JobArgs, ReadArgs, SendArgs, ShowArgs};
use super::batch::{self, Stdin};
use super::exit::{Exit, Failure};
use super::{say, send};
use crate::batch::{BatchReader, BatchStore, Content};
use crate::engine::settings::Settings;
use crate::mail::{Mailbox, ReversePath};
use crate::mbox::MboxFlavour;
use crate::report::summary::plural;

/// Sends samples to `to`.
///
/// # Errors
/// A [`Failure`].
pub fn run(args: &SendArgs, to: &Mailbox, mut settings: Settings) -> Result<Exit> {
    batch::check(&args.read)?;
    let scratch = tempfile::tempdir().map_err(|error| {
        let what = format!("cannot make a temporary directory: {error}");
        Failure::new(Exit::CantCreate, what)
    })?;
    let path = scratch.path().join("samples.mbox");
    let count = write(&args.read, to, args.sample.samples, &path, scratch.path())?;
    if count == 0 {
        let what = "there is no message in the batch that could be sent";
        return Err(Failure::new(Exit::Data, what)
            .hint("`mailer inspect` shows why")
            .into());
    }
    settings.state = scratch.path().join("state");
    let read = ReadArgs {
        batch: vec![path],
        command: "send",
        ..ReadArgs::default()
    };
    let show = ShowArgs {
        is_rehearsal: true,
        ..args.show.clone()
    };
    let job = JobArgs::default();
    let (exit, _) = send::send(&read, &job, &args.delivery, &show, settings)?;
    if exit == Exit::Done && !args.show.quiet {
        let samples = plural(count, "sample");
        say::complain(format!(
            "{samples} sent to {to}, and nothing to anybody else"
        ));
    }
    Ok(exit)
}

/// Writes the first `count` messages that can be sent, for `to`, into the mbox at `path`. Returns how many there were.
fn write(read: &ReadArgs, to: &Mailbox, count: u64, path: &Path, spool: &Path) -> Result<u64> {
    let store = Arc::new(BatchStore::new(batch::options(read, spool)?));
    let inputs = batch::inputs(read, &Stdin::Live)?;
    let mut reader = BatchReader::open(inputs, Arc::clone(&store)).map_err(batch::failure)?;
    let fail = |error: std::io::Error| {
        Failure::new(Exit::CantCreate, format!("{}: {error}", path.display()))
    };
    let mut out = BufWriter::new(File::create(path).map_err(fail)?);
    let mut content = Content::new();
    let mut written = 0;
    let mut last = None;
    while written < count
        && let Some(arrival) = reader.next_arrival().map_err(batch::failure)?
    {
        let is_new = last.replace(arrival.message) != Some(arrival.message);
        let can_be_sent = arrival.recipients.iter().any(|one| one.outcome.is_ok());
        if !is_new || !can_be_sent || store.load(arrival.message, &mut content).is_err() {
            continue;
        }
        put(&mut out, to, content.reverse_path(), content.bytes()).map_err(fail)?;
        written += 1;
    }
    out.flush().map_err(fail)?;
    Ok(written)
}

fn put(
    out: &mut impl Write,
    to: &Mailbox,
    reverse_path: &ReversePath,
    message: &[u8],
) -> std::io::Result<()> {
    writeln!(out, "From MAILER-DAEMON Thu Jan  1 00:00:00 1970")?;
    writeln!(out, "X-Envelope-From: {reverse_path}\nX-Envelope-To: {to}")?;
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if MboxFlavour::Rd.is_quoted(line) || line.starts_with(b"From ") {
            out.write_all(b">")?;
        }
        out.write_all(line)?;
    }
    out.write_all(b"\n")
}
