//! `mailer bounces`: what came back, read and understood; who is to be mailed no more goes to a suppression list.

use std::collections::{BTreeMap, HashSet};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;

use super::args::BouncesArgs;
use super::compose::unreadable as data_failure;
use super::exit::{Exit, Failure};
use super::say;
use crate::batch::{Input, each_message};
use crate::bounce::{self, Finding, Kind, Verp};
use crate::data;
use crate::mail::Mailbox;
use crate::report::summary::plural;
use crate::suppression::Suppression;

/// What all messages came to.
#[derive(Default)]
struct Totals {
    messages: u64,
    others: u64,
    nobody: u64,
    kinds: BTreeMap<Kind, u64>,
    added: u64,
}

/// Runs the command.
///
/// # Errors
/// A [`Failure`]: an input that cannot be read or is no mailbox, a list that cannot be read or written.
pub fn run(args: &BouncesArgs) -> Result<Exit> {
    let verp = verp(args)?;
    let mut list = args.add_to.as_deref().map(List::open).transpose()?;
    let mut out = csv::Writer::from_writer(io::stdout().lock());
    let mut totals = Totals::default();
    let mut outcome: Result<()> = out
        .write_record(["recipient", "kind", "status", "reason"])
        .map_err(unwritten);
    for path in &args.mailbox {
        let mut each = |message: &[u8]| {
            if outcome.is_ok() {
                outcome = take(message, verp.as_ref(), &mut out, &mut list, &mut totals);
            }
        };
        let read = each_message(Input::from_arg(path.as_os_str()), &mut each);
        read.map_err(|error| unread(path, &error))?;
    }
    outcome?;
    out.flush().map_err(|error| unwritten(error.into()))?;
    if let Some(list) = &mut list {
        totals.added = list.write()?;
    }
    say::complain(totals.line(args.add_to.as_deref()));
    Ok(Exit::Done)
}

/// The pattern, and whose its tokens are.
fn verp(args: &BouncesArgs) -> Result<Option<Verp>> {
    let Some(mut verp) = args.verp.clone() else {
        return Ok(None);
    };
    let Some(path) = &args.tokens else {
        if verp.needs_tokens() {
            let what = "--verp has {token}, and nothing says whose a token is";
            let hint = "give the file that `mailer compose --tokens` wrote: --tokens FILE";
            return Err(Failure::new(Exit::Usage, what).hint(hint).into());
        }
        return Ok(Some(verp));
    };
    let format = data::Format::Csv {
        delimiter: None,
        encoding: None,
    };
    let path = Some(path.clone());
    let mut rows = data::open(&data::Source::Text { path, format }).map_err(data_failure)?;
    while let Some(placed) = rows.next_row().map_err(data_failure)? {
        let row = &placed.row;
        let address = row.text("address").or_else(|| row.text("email"));
        let mailbox = address.and_then(|address| Mailbox::parse(address.as_bytes()).ok());
        let (Some(token), Some(mailbox)) = (row.text("token"), mailbox) else {
            let what = format!(
                "{} line {}: neither token nor address in it",
                rows.name(),
                placed.line
            );
            let hint = "its first line names the columns token and address";
            return Err(Failure::new(Exit::Data, what).hint(hint).into());
        };
        verp.add_token(&token, mailbox);
    }
    Ok(Some(verp))
}

fn take(
    message: &[u8],
    verp: Option<&Verp>,
    out: &mut csv::Writer<impl Write>,
    list: &mut Option<List>,
    totals: &mut Totals,
) -> Result<()> {
    totals.messages += 1;
    let Some(findings) = bounce::read(message, verp) else {
        totals.others += 1;
        return Ok(());
    };
    totals.nobody += u64::from(findings.is_empty());
    for finding in findings {
        *totals.kinds.entry(finding.kind).or_default() += 1;
        let (who, kind) = (finding.recipient.as_str(), finding.kind.name());
        out.write_record([who, kind, &finding.status, &finding.reason])
            .map_err(unwritten)?;
        if let Some(list) = list
            && finding.kind.suppresses()
        {
            list.add(&finding);
        }
    }
    Ok(())
}

/// A list in the making: what was in it, and what comes to it.
struct List<'a> {
    path: &'a Path,
    known: Suppression,
    seen: HashSet<String>,
    lines: csv::Writer<Vec<u8>>,
    /// Its last line has no end.
    is_open_line: bool,
    date: String,
}

impl<'a> List<'a> {
    fn open(path: &'a Path) -> Result<List<'a>> {
        let shown = path.display();
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|error| {
                Failure::new(
                    Exit::NoInput,
                    format!("{shown}: cannot read the suppression list: {error}"),
                )
            })?,
        };
        let mut known = Suppression::default();
        known
            .add(&shown.to_string(), &text, Timestamp::now())
            .map_err(|error| {
                Failure::new(Exit::Data, format!("{shown}: suppression list: {error}"))
            })?;
        if known.has_other_columns() {
            let what = format!(
                "{shown}: its first line names columns in another order than address,until,reason"
            );
            let hint = "give a list of its own, and send with both";
            return Err(Failure::new(Exit::Data, what).hint(hint.to_owned()).into());
        }
        Ok(List {
            path,
            known,
            seen: HashSet::new(),
            lines: csv::WriterBuilder::new()
                .flexible(true)
                // `#a@example.org` is an address: quoted, lest it be a remark.
                .comment(Some(b'#'))
                .from_writer(Vec::new()),
            is_open_line: text.last().is_some_and(|last| *last != b'\n'),
            date: Timestamp::now().strftime("%Y-%m-%d").to_string(),
        })
    }

    fn add(&mut self, finding: &Finding) {
        let who = finding.recipient.as_str();
        if self.known.verdict(&finding.recipient).is_some() || !self.seen.insert(who.to_lowercase())
        {
            return;
        }
        let Finding {
            kind,
            status,
            reason,
            ..
        } = finding;
        let parts = [kind.name(), &self.date, status, reason];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let why = parts.collect::<Vec<_>>().join(" ");
        // Into memory: it cannot fail.
        let _ = self.lines.write_record([who, "", &why]);
    }

    /// Appends what is new, in one write. Returns how many.
    fn write(&mut self) -> Result<u64> {
        let fail = |error: io::Error| {
            let what = format!(
                "{}: cannot write the suppression list: {error}",
                self.path.display()
            );
            Failure::new(Exit::CantCreate, what)
        };
        let lines = std::mem::replace(&mut self.lines, csv::Writer::from_writer(Vec::new()));
        let lines = lines
            .into_inner()
            .map_err(|error| fail(error.into_error()))?;
        if lines.is_empty() {
            return Ok(0);
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let mut file = options.open(self.path).map_err(fail)?;
        let start: &[u8] = if self.is_open_line { b"\n" } else { b"" };
        file.write_all(&[start, &lines].concat())
            .and_then(|()| file.sync_all())
            .map_err(fail)?;
        Ok(self.seen.len() as u64)
    }
}

impl Totals {
    fn line(&self, list: Option<&Path>) -> String {
        let mut parts: Vec<String> = Kind::ALL
            .iter()
            .filter_map(|kind| Some((kind.name(), self.kinds.get(kind)?)))
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        if self.nobody > 0 {
            parts.push(format!("{} name nobody", self.nobody));
        }
        if self.others > 0 {
            parts.push(format!("{} neither bounce nor complaint", self.others));
        }
        let messages = plural(self.messages, "message");
        let found = if parts.is_empty() {
            "nothing in it".to_owned()
        } else {
            parts.join(", ")
        };
        match list {
            Some(path) => format!(
                "{messages}: {found}; {} added to {}",
                self.added,
                path.display()
            ),
            None => format!("{messages}: {found}"),
        }
    }
}

fn unread(path: &Path, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::InvalidData => Exit::Data,
        _ => Exit::NoInput,
    };
    Failure::new(exit, format!("{}: {error}", path.display()))
}

fn unwritten(error: csv::Error) -> anyhow::Error {
    Failure::new(Exit::Io, format!("cannot write: {error}")).into()
}
