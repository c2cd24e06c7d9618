//! `mailer inspect`: what was understood of each message, for people or as JSON, an object a line.

use std::io::{self, BufWriter, Write};

use anyhow::Result;
use serde_json::{Value, json};

use super::args::InspectArgs;
use super::batch;
use super::exit::{Exit, Failure};
use super::say;
use crate::batch::{Inspected, inspect};
use crate::mail::verdict::printable;
use crate::report::summary::plural;

/// Runs the command. Ends with [`Exit::Failures`] if anything in the batch is invalid.
///
/// # Errors
/// A [`Failure`]: the batch cannot be read, or standard output not written.
pub fn run(args: &InspectArgs) -> Result<Exit> {
    let options = batch::options(&args.read, &std::env::temp_dir())?;
    let inputs = batch::inputs(&args.read, &batch::Stdin::Live)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut outcome = Ok(());
    let mut totals = Totals::default();
    inspect(inputs, options, |message| {
        totals.add(&message);
        if outcome.is_ok() {
            outcome = if args.json {
                writeln!(out, "{}", as_json(&message))
            } else {
                show(&mut out, &message)
            };
        }
    })
    .map_err(batch::failure)?;
    if outcome.is_ok() && !args.json {
        outcome = writeln!(out, "{}", totals.line());
    }
    match outcome.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(Failure::new(Exit::Io, format!("cannot write: {error}")).into()),
        Ok(()) => {}
    }
    if totals.invalid > 0 {
        say::complain(format!(
            "{} in the batch",
            plural(totals.invalid, "problem")
        ));
    }
    Ok(if totals.invalid > 0 {
        Exit::Failures
    } else {
        Exit::Done
    })
}

#[derive(Default)]
struct Totals {
    messages: u64,
    recipients: u64,
    invalid: u64,
    warnings: u64,
}

impl Totals {
    fn add(&mut self, message: &Inspected) {
        self.messages += 1;
        self.recipients += message.recipients.len() as u64;
        self.warnings += message
            .problems
            .iter()
            .filter(|problem| problem.is_warning())
            .count() as u64;
        self.invalid += message
            .problems
            .iter()
            .filter(|problem| !problem.is_warning())
            .count() as u64;
        self.invalid += u64::from(message.load_error.is_some());
    }

    fn line(&self) -> String {
        format!(
            "{}, {}, {}, {}",
            plural(self.messages, "message"),
            plural(self.recipients, "recipient"),
            plural(self.invalid, "problem"),
            plural(self.warnings, "warning")
        )
    }
}

fn show(out: &mut impl Write, message: &Inspected) -> io::Result<()> {
    let source = printable(&message.source, 400);
    let bytes = message.bytes;
    writeln!(
        out,
        "{}  {source} at byte {}, {}",
        message.message,
        message.offset,
        plural(bytes, "byte")
    )?;
    match &message.reverse_path {
        Some(path) => writeln!(out, "    from <{}>", printable(path, 400))?,
        None => writeln!(out, "    from nobody")?,
    }
    for recipient in &message.recipients {
        match &recipient.problem {
            None => writeln!(out, "    to   <{}>", printable(&recipient.address, 400))?,
            Some(_) if recipient.address.is_empty() => {}
            Some(_) => writeln!(out, "    not  {}", printable(&recipient.address, 400))?,
        }
    }
    if let (Some(size), Some(digest)) = (message.sent_bytes, &message.sha256) {
        let eight_bit = if message.eight_bit { ", 8-bit" } else { "" };
        writeln!(
            out,
            "    sends {}{eight_bit}, SHA-256 {digest}",
            plural(size, "byte")
        )?;
    }
    for problem in &message.problems {
        let kind = if problem.is_warning() {
            "warning"
        } else {
            "problem"
        };
        writeln!(out, "    {kind}: {}", printable(&problem.to_string(), 1000))?;
    }
    if let Some(error) = &message.load_error {
        writeln!(out, "    problem: {}", printable(error, 1000))?;
    }
    Ok(())
}

fn as_json(message: &Inspected) -> Value {
    let recipients: Vec<Value> = message
        .recipients
        .iter()
        .map(|recipient| {
            let problem = recipient.problem.as_ref().map(ToString::to_string);
            json!({ "address": recipient.address, "problem": problem })
        })
        .collect();
    let problems: Vec<Value> = message
        .problems
        .iter()
        .map(|problem| {
            json!({
                "text": problem.to_string(),
                "line": problem.line,
                "offset": problem.offset,
                "warning": problem.is_warning(),
            })
        })
        .collect();
    json!({
        "message": message.message,
        "source": message.source,
        "offset": message.offset,
        "bytes": message.bytes,
        "reverse_path": message.reverse_path,
        "recipients": recipients,
        "sent_bytes": message.sent_bytes,
        "sha256": message.sha256,
        "eight_bit": message.eight_bit,
        "problems": problems,
        "load_error": message.load_error,
    })
}
