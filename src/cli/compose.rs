//! `mailer compose`: a template and rows become messages, as an mbox that `mailer send` takes.
//!
//! INVARIANT: a row makes a whole message or none. A row that makes none ends the command, unless it is written aside.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::args::{ComposeArgs, DataArgs, DataFormat};
use super::exit::{Exit, Failure};
use super::{job, say};
use crate::data::{self, BadRow, DataError, Format, Placed, Rows, Source};
use crate::merge::{Composed, Options, Row, RowError, Template, TokenKey};
use crate::report::summary::plural;

mod mbox;
mod preview;

/// Runs the command.
///
/// # Errors
/// A [`Failure`]: a template or data that cannot be read or used, a bad row, an output that cannot be written.
pub fn run(args: &ComposeArgs) -> Result<Exit> {
    let mut merge = Merge::open(args)?;
    if let Some(count) = args.preview {
        return preview::show(&mut merge, count, args.html.as_deref());
    }
    let mut out = Output::open(args, merge.at)?;
    let mut totals = Totals::default();
    let mut known: HashSet<u128> = HashSet::new();
    while let Some(next) = merge.next()? {
        let (placed, composed) = match next {
            Ok(composed) => composed,
            Err((row, bad)) => {
                totals.bad += 1;
                out.bad(&merge, row.as_ref(), &bad, totals.written)?;
                continue;
            }
        };
        if !known.insert(xxhash_rust::xxh3::xxh3_128(composed.key.as_bytes())) {
            totals.repeated(&placed, &composed.key);
            continue;
        }
        out.message(&composed)?;
        totals.written += 1;
    }
    out.finish()?;
    totals.tell(args.skip_bad.as_deref());
    Ok(if totals.bad > 0 {
        Exit::Failures
    } else {
        Exit::Done
    })
}

/// A template and its rows.
struct Merge {
    template: Template,
    rows: Box<dyn Rows>,
    /// The time of the messages.
    at: Timestamp,
    is_checked: bool,
}

type Outcome = std::result::Result<(Placed, Composed), (Option<Row>, BadRow)>;

impl Merge {
    fn open(args: &ComposeArgs) -> Result<Merge> {
        let files = data::template::read(&args.template).map_err(|error| {
            let exit = match error.kind() {
                io::ErrorKind::InvalidData => Exit::Data,
                _ => Exit::NoInput,
            };
            Failure::new(exit, error)
        })?;
        let at = date(args)?;
        let options = Options {
            job: args.merge.job.clone(),
            seed: seed(args),
            date: jiff::ZonedDateTime::new(at, TimeZone::system())
                .strftime("%a, %-d %b %Y %H:%M:%S %z")
                .to_string(),
            key: args.merge.key.clone(),
            verp: args.merge.verp.clone(),
            token_key: args.merge.token_key.as_deref().map(token_key).transpose()?,
        };
        let template = Template::compile(files, options).map_err(unusable)?;
        let rows = data::open(&source(&args.data)).map_err(unreadable)?;
        let mut merge = Merge {
            template,
            rows,
            at,
            is_checked: false,
        };
        if let Some(columns) = merge.rows.columns() {
            merge.template.check(columns).map_err(unusable)?;
            merge.is_checked = true;
        }
        Ok(merge)
    }

    /// The next row; `None` behind the last.
    fn next_row(&mut self) -> Result<Option<std::result::Result<Placed, BadRow>>> {
        match self.rows.next_row() {
            Ok(None) => Ok(None),
            Ok(Some(placed)) => {
                if !self.is_checked {
                    self.template.check(&placed.row.columns).map_err(unusable)?;
                    self.is_checked = true;
                }
                Ok(Some(Ok(placed)))
            }
            Err(DataError::Row(bad)) => Ok(Some(Err(bad))),
            Err(error) => Err(unreadable(error).into()),
        }
    }

    /// The next message; `None` behind the last row.
    fn next(&mut self) -> Result<Option<Outcome>> {
        Ok(match self.next_row()? {
            None => None,
            Some(Err(bad)) => Some(Err((None, bad))),
            Some(Ok(placed)) => Some(match self.template.compose(placed.row.clone()) {
                Ok(composed) => Ok((placed, composed)),
                Err(error) => {
                    let bad = bad_row(&placed, error);
                    Err((Some(placed.row), bad))
                }
            }),
        })
    }
}

fn bad_row(placed: &Placed, error: RowError) -> BadRow {
    BadRow {
        number: placed.row.number,
        line: placed.line,
        error,
    }
}

/// Where everything goes.
struct Output {
    messages: Box<dyn Write>,
    /// What it is called.
    name: String,
    tokens: Option<csv::Writer<File>>,
    bad: Option<csv::Writer<File>>,
    has_bad_header: bool,
    /// The date of the separator lines.
    separator_date: String,
}

impl Output {
    fn open(args: &ComposeArgs, at: Timestamp) -> Result<Output> {
        let table = |path: &PathBuf| create(path).map(csv::Writer::from_writer);
        let out = args.out.as_ref().filter(|path| path.as_os_str() != "-");
        let (messages, name): (Box<dyn Write>, String) = match out {
            Some(path) => (Box::new(create(path)?), path.display().to_string()),
            None if io::stdout().is_terminal() => {
                let what = "the messages would go to the terminal";
                let hint = "look at some with --preview, or send them: ... | mailer send -";
                return Err(Failure::new(Exit::Usage, what).hint(hint).into());
            }
            None => (Box::new(io::stdout()), "standard output".to_owned()),
        };
        let mut tokens = args.tokens.as_ref().map(table).transpose()?;
        if let Some(tokens) = &mut tokens {
            let path = args.tokens.as_deref().unwrap_or(Path::new(""));
            tokens
                .write_record(["token", "address"])
                .map_err(|error| unwritten(&path.display().to_string(), error.into()))?;
        }
        Ok(Output {
            messages: Box::new(BufWriter::with_capacity(256 * 1024, messages)),
            name,
            tokens,
            bad: args.skip_bad.as_ref().map(table).transpose()?,
            has_bad_header: false,
            separator_date: at.strftime("%a %b %e %H:%M:%S %Y").to_string(),
        })
    }

    fn message(&mut self, composed: &Composed) -> Result<()> {
        mbox::write(&mut self.messages, composed, &self.separator_date)
            .map_err(|error| unwritten(&self.name, error))?;
        if let (Some(tokens), Some(token)) = (&mut self.tokens, &composed.token) {
            let address = composed
                .recipients
                .first()
                .map_or("", |first| first.as_str());
            tokens
                .write_record([token.as_str(), address])
                .map_err(|error| unwritten("--tokens", error.into()))?;
        }
        Ok(())
    }

    /// Writes a bad row aside; without a place for it, it is an error.
    fn bad(&mut self, merge: &Merge, row: Option<&Row>, bad: &BadRow, written: u64) -> Result<()> {
        let Some(out) = &mut self.bad else {
            // What was composed before it is complete: whoever reads it gets that.
            self.messages
                .flush()
                .map_err(|error| unwritten(&self.name, error))?;
            let what = format!("{} {bad}", merge.rows.name());
            let hint = format!(
                "mend the row, or leave out such rows with --skip-bad FILE; {} came before it",
                plural(written, "message")
            );
            return Err(Failure::new(Exit::Data, what).hint(hint).into());
        };
        let columns = merge.rows.columns();
        let names = columns.map(|columns| columns.names()).unwrap_or_default();
        let fail = |error: csv::Error| unwritten("--skip-bad", error.into());
        if !self.has_bad_header {
            self.has_bad_header = true;
            let own = ["row", "line", "column", "problem"];
            out.write_record(own.into_iter().chain(names.iter().map(|name| &**name)))
                .map_err(fail)?;
        }
        let own = [
            bad.number.to_string(),
            bad.line.to_string(),
            bad.error.column.clone().unwrap_or_default(),
            bad.error.what.clone(),
        ];
        let value =
            |name: &std::sync::Arc<str>| row.and_then(|row| row.text(name)).unwrap_or_default();
        out.write_record(own.into_iter().chain(names.iter().map(value)))
            .map_err(fail)
    }

    fn finish(mut self) -> Result<()> {
        self.messages
            .flush()
            .map_err(|error| unwritten(&self.name, error))?;
        for table in [&mut self.tokens, &mut self.bad].into_iter().flatten() {
            table
                .flush()
                .map_err(|error| unwritten("a table of rows", error))?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Totals {
    written: u64,
    bad: u64,
    repeated: u64,
    first_repeated: Option<String>,
}

impl Totals {
    fn repeated(&mut self, placed: &Placed, key: &str) {
        self.repeated += 1;
        self.first_repeated
            .get_or_insert_with(|| format!("{key} in row {}", placed.row.number));
    }

    fn tell(&self, aside: Option<&Path>) {
        if self.bad > 0 {
            let aside = aside
                .map(|path| path.display().to_string())
                .unwrap_or_default();
            let rows = plural(self.bad, "bad row");
            say::complain(format!("{rows} left out: see {aside}"));
        }
        if let Some(first) = &self.first_repeated {
            let rows = plural(self.repeated, "row");
            say::complain(format!(
                "{rows} left out whose key had been there before, the first {first}"
            ));
        }
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(|error| {
        let what = format!("{}: cannot write it: {error}", path.display());
        Failure::new(Exit::CantCreate, what).into()
    })
}

fn unwritten(name: &str, error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        let what = "whoever reads the messages has ended";
        return Failure::new(Exit::Io, what).into();
    }
    Failure::new(Exit::Io, format!("{name}: cannot write: {error}")).into()
}

fn unusable(error: crate::merge::TemplateError) -> Failure {
    let failure = Failure::new(Exit::Data, &error);
    match error.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// An error of data as the program's.
pub(super) fn unreadable(error: DataError) -> Failure {
    match error {
        DataError::Row(bad) => Failure::new(Exit::Data, bad),
        DataError::Source { what, is_missing } => {
            let exit = if is_missing {
                Exit::NoInput
            } else {
                Exit::Data
            };
            Failure::new(exit, what)
        }
    }
}

fn source(args: &DataArgs) -> Source {
    if let Some(path) = &args.sqlite {
        return Source::Sqlite {
            path: path.clone(),
            query: args.query.clone().unwrap_or_default(),
        };
    }
    if let Some(url) = &args.postgres {
        return Source::Postgres {
            url: url.clone(),
            password: std::env::var("PGPASSWORD").ok(),
            query: args.query.clone().unwrap_or_default(),
        };
    }
    let path = args.data.clone().filter(|path| path.as_os_str() != "-");
    let extension = path.as_deref().and_then(Path::extension);
    let is_json = match args.format {
        Some(format) => format == DataFormat::Jsonl,
        None => extension.is_some_and(|extension| {
            ["jsonl", "ndjson", "json"]
                .iter()
                .any(|known| extension == *known)
        }),
    };
    let format = if is_json {
        Format::JsonLines
    } else {
        Format::Csv {
            delimiter: args.delimiter,
            encoding: args.encoding.clone(),
        }
    };
    Source::Text { path, format }
}

/// The name of the job; without one, something that no other run has.
fn seed(args: &ComposeArgs) -> String {
    match &args.merge.job {
        Some(job) => job.clone(),
        None => {
            let now = Timestamp::now().as_nanosecond();
            format!("\0{now} {} {}", std::process::id(), fastrand::u64(..))
        }
    }
}

/// The time of the messages.
fn date(args: &ComposeArgs) -> Result<Timestamp> {
    let now = Timestamp::now();
    match (&args.merge.date, &args.merge.job) {
        (Some(date), _) => Ok(*date),
        (None, None) => Ok(now),
        (None, Some(_)) if args.preview.is_some() => Ok(now),
        (None, Some(name)) => {
            let state = job::state_path(&args.state)?;
            let fail = |error: io::Error| Failure::new(Exit::CantCreate, error);
            let kept = data::first_time(&state, name, &now.to_string()).map_err(fail)?;
            kept.trim().parse().map_err(|_| {
                let what = format!("{}/composed/{name}: it holds no time", state.display());
                Failure::new(Exit::Data, what)
                    .hint("delete it, or give --date")
                    .into()
            })
        }
    }
}

fn token_key(path: &Path) -> Result<TokenKey> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        Failure::new(
            Exit::NoInput,
            format!("{shown}: cannot read the token key: {error}"),
        )
        .hint(format!(
            "make one: openssl rand -hex 32 > {shown}; chmod 600 {shown}"
        ))
    })?;
    super::secret::private(path, "token key")?;
    TokenKey::new(&bytes).ok_or_else(|| {
        let what = format!(
            "{shown}: a token key has at least {} characters",
            TokenKey::OCTETS_MIN
        );
        Failure::new(Exit::Data, what)
            .hint(format!("make one: openssl rand -hex 32 > {shown}"))
            .into()
    })
}
