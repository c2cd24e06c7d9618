//! From flags to an opened batch, and from the batch's errors to the program's.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tempfile::NamedTempFile;

use super::args::{Flavour, ReadArgs};
use super::exit::{Exit, Failure};
use crate::batch::{BatchError, BatchErrorKind, BatchReader, BatchStore, Input, ReadOptions};
use crate::job::Job;
use crate::mail::ReversePath;
use crate::mbox::MboxFlavour;

/// A job's batch.
pub struct Batch {
    /// Reads it; `None` if an earlier run has read it to its end.
    pub reader: Option<BatchReader>,
    /// What is known of it.
    pub store: Arc<BatchStore>,
    /// Standard input or a pipe is part of it: more may be long in coming.
    pub is_live: bool,
}

/// Opens the batch of a job: the one that the flags name, and what earlier runs have read of it. Without any named,
/// standard input, if it is not a terminal.
///
/// # Errors
/// A [`Failure`]: usage, missing files, bad data.
pub fn open(args: &ReadArgs, stdin: &Stdin, job: &Job, is_new: bool) -> Result<Batch> {
    let options = ReadOptions {
        date: job.card().date.clone(),
        ..options(args, job.dir())?
    };
    let store = match is_new {
        true => BatchStore::create_in(options, job.dir()).map_err(|error| {
            let text = format!("{}: cannot make a file there: {error}", job.dir().display());
            Failure::new(Exit::CantCreate, text).hint("name another directory with --state DIR")
        })?,
        false => BatchStore::reopen(options, job.dir()).map_err(failure)?,
    };
    let store = Arc::new(store);
    let reader = match job.card().name {
        Some(_) => {
            let inputs = inputs(args, stdin)?;
            Some(BatchReader::open_named(inputs, Arc::clone(&store)).map_err(failure)?)
        }
        None if store.is_read_to_end() => None,
        None => {
            let inputs = inputs(args, stdin)?;
            Some(BatchReader::open(inputs, Arc::clone(&store)).map_err(failure)?)
        }
    };
    Ok(Batch {
        reader,
        store,
        is_live: stdin.is_live() && is_stream(args),
    })
}

/// True if standard input or a pipe is part of the batch.
pub fn is_stream(args: &ReadArgs) -> bool {
    reads_stdin(args) || args.batch.iter().any(|path| is_pipe(path))
}

/// Where standard input is read from.
#[derive(Debug)]
pub enum Stdin {
    /// From the process's own.
    Live,
    /// From a copy of it, since it can be read only once.
    Copied(NamedTempFile),
}

impl Stdin {
    fn is_live(&self) -> bool {
        matches!(self, Stdin::Live)
    }

    fn input(&self) -> Result<Input> {
        match self {
            Stdin::Live => Ok(Input::stdin()),
            Stdin::Copied(file) => {
                let file = file.reopen().map_err(copy_failure)?;
                Ok(Input::Stream("standard input".to_owned(), Box::new(file)))
            }
        }
    }
}

/// Copies standard input to a file in `spool`, if it is part of the batch.
///
/// # Errors
/// [`Exit::Io`].
pub fn copy_stdin(args: &ReadArgs, spool: &Path) -> Result<Stdin> {
    if let Some(path) = args.batch.iter().find(|path| is_pipe(path)) {
        let text = format!(
            "{}: a pipe cannot be read twice, as --strict does",
            path.display()
        );
        return Err(Failure::new(Exit::Usage, text)
            .hint("send it on standard input")
            .into());
    }
    if !reads_stdin(args) {
        return Ok(Stdin::Live);
    }
    let mut file = NamedTempFile::new_in(spool).map_err(copy_failure)?;
    io::copy(&mut io::stdin().lock(), &mut file).map_err(copy_failure)?;
    Ok(Stdin::Copied(file))
}

fn copy_failure(error: io::Error) -> Failure {
    Failure::new(Exit::Io, format!("cannot copy standard input: {error}"))
}

/// True for a named pipe, or what a shell makes of `<(COMMAND)`.
fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir())
}

fn reads_stdin(args: &ReadArgs) -> bool {
    args.batch.is_empty() || args.batch.iter().any(|path| path.as_os_str() == "-")
}

/// The inputs that the flags name.
///
/// # Errors
/// Usage: nothing was named, and standard input is a terminal; or standard input was named twice.
pub fn inputs(args: &ReadArgs, stdin: &Stdin) -> Result<Vec<Input>> {
    let dashes = args
        .batch
        .iter()
        .filter(|path| path.as_os_str() == "-")
        .count();
    if dashes > 1 {
        return Err(Failure::new(Exit::Usage, "standard input ('-') can be read only once").into());
    }
    if args.batch.is_empty() {
        if stdin.is_live() && io::stdin().is_terminal() {
            return Err(Failure::new(
                Exit::Usage,
                "no batch was named, and standard input is a terminal",
            )
            .hint(format!(
                "mailer {} batch.mbox, or pipe messages to it",
                args.command
            ))
            .into());
        }
        return Ok(vec![stdin.input()?]);
    }
    let input = |path: &PathBuf| match path.as_os_str() {
        dash if dash == "-" => stdin.input(),
        path => Ok(Input::from_arg(path)),
    };
    args.batch.iter().map(input).collect()
}

/// Whether the batch can be read at all, before anything is made for it: usage, missing files, files of other kinds.
///
/// # Errors
/// A [`Failure`].
pub fn check(args: &ReadArgs) -> Result<()> {
    let inputs = inputs(args, &Stdin::Live)?;
    let options = options(args, &std::env::temp_dir())?;
    if is_stream(args) {
        return Ok(());
    }
    let store = Arc::new(BatchStore::new(options));
    BatchReader::open(inputs, store).map_err(failure)?;
    Ok(())
}

/// How the batch is to be read.
///
/// # Errors
/// Usage: `--from` is no address.
pub fn options(args: &ReadArgs, spool: &Path) -> Result<ReadOptions> {
    let from = args.from.as_deref().map(reverse_path).transpose()?;
    Ok(ReadOptions {
        flavour: args.mbox.map(|flavour| match flavour {
            Flavour::Mboxrd => MboxFlavour::Rd,
            Flavour::Mboxo => MboxFlavour::O,
            Flavour::Mboxcl2 => MboxFlavour::Cl2,
        }),
        from,
        resend: args.resend,
        to_file: args.to_file.clone(),
        fold_long_lines: args.fold_long_lines,
        once_per_recipient: args.once_per_recipient,
        spool_dir: spool.to_path_buf(),
        command: args.command,
        ..ReadOptions::new(date_now())
    })
}

fn reverse_path(text: &str) -> Result<ReversePath> {
    let parsed = if text.is_empty() {
        Ok(ReversePath::Null)
    } else {
        ReversePath::parse(text.as_bytes())
    };
    parsed.map_err(|error| {
        Failure::new(Exit::Usage, format!("--from {text}: {error}"))
            .hint("an address like news@example.org, or '<>' for the null reverse-path")
            .into()
    })
}

/// RFC 5322 3.3, in local time with its offset.
pub fn date_now() -> String {
    jiff::ZonedDateTime::now()
        .strftime("%a, %-d %b %Y %H:%M:%S %z")
        .to_string()
}

/// A batch's error as the program's.
pub fn failure(error: BatchError) -> anyhow::Error {
    let exit = match error.kind() {
        BatchErrorKind::NoInput => Exit::NoInput,
        BatchErrorKind::DataErr => Exit::Data,
        BatchErrorKind::IoErr => Exit::Io,
    };
    let failure = Failure::new(exit, &error);
    match error.hint() {
        Some(hint) => failure.hint(hint).into(),
        None => failure.into(),
    }
}
