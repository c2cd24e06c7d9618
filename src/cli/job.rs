//! What the commands about jobs share: the state directory that is meant, the job that is meant, and errors.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

pub mod change;
pub mod due;
pub mod view;

use super::args::{DeliveryArgs, StateArgs};
use super::config;
use super::exit::{Exit, Failure};
use crate::job::{Job, JobCard, JobError, JobErrorKind, JobState, StateDir};
use crate::ledger::{Attempt, LedgerError};
use crate::mail::verdict::printable;

/// The state directory that the flags or the configuration name.
///
/// # Errors
/// A [`Failure`]: the configuration is wrong.
pub fn state_path(args: &StateArgs) -> Result<PathBuf> {
    if let Some(path) = &args.state {
        return Ok(path.clone());
    }
    let flags = DeliveryArgs {
        config: args.config.clone(),
        ..DeliveryArgs::default()
    };
    Ok(config::settings(&flags)?.state)
}

/// Opens it to look at what is there; `None` if there has never been a job.
///
/// # Errors
/// A [`Failure`].
pub fn look(args: &StateArgs) -> Result<Option<StateDir>> {
    StateDir::open_existing(&state_path(args)?).map_err(failure)
}

/// The job that a person means.
///
/// # Errors
/// A [`Failure`]: there is none, or several.
pub fn find(args: &StateArgs, text: &str) -> Result<(StateDir, JobCard)> {
    let not_found = || JobError::NotFound {
        text: text.to_owned(),
    };
    let state = look(args)?.ok_or_else(|| failure(not_found()))?;
    let card = state.find(text).map_err(failure)?;
    Ok((state, card))
}

/// The same, taken to change it.
///
/// # Errors
/// A [`Failure`]; [`Exit::Pending`] if somebody else is at work on it.
pub fn take(args: &StateArgs, text: &str) -> Result<(StateDir, Job)> {
    let (state, card) = find(args, text)?;
    let job = state.take(&card.id).map_err(|error| match &error {
        JobError::Held { by: Some(by), .. } => Failure::new(Exit::Pending, &error)
            .hint(format!("wait for its end, or stop it: kill {}", by.pid))
            .into(),
        _ => failure(error),
    })?;
    Ok((state, job))
}

/// A job's error as the program's.
pub fn failure(error: JobError) -> anyhow::Error {
    let exit = match error.kind() {
        JobErrorKind::NoInput => Exit::NoInput,
        JobErrorKind::Usage => Exit::Usage,
        JobErrorKind::Data => Exit::Data,
        JobErrorKind::CantCreate => Exit::CantCreate,
        JobErrorKind::Io => Exit::Io,
        JobErrorKind::Busy => Exit::Pending,
        JobErrorKind::Permission => Exit::Permission,
    };
    let failure = Failure::new(exit, &error);
    match error.hint() {
        Some(hint) => failure.hint(hint).into(),
        None => failure.into(),
    }
}

/// A ledger's error as the program's.
pub fn ledger_failure(error: LedgerError) -> anyhow::Error {
    match &error {
        LedgerError::Busy(_) => {
            Failure::new(Exit::Pending, &error).hint("try again when that program is done")
        }
        LedgerError::Damaged(..) => Failure::new(Exit::Data, &error),
        LedgerError::Io(_, cause) if cause.kind() == std::io::ErrorKind::StorageFull => {
            Failure::new(Exit::Io, &error).hint("make room in the state directory")
        }
        _ => Failure::new(Exit::Io, &error),
    }
    .into()
}

/// `mailer COMMAND`, as it must be typed to mean the same state directory.
pub fn typed(command: &str, args: &StateArgs) -> String {
    let flag = |name: &str, path: &Option<PathBuf>| {
        let path = path.as_ref()?.to_string_lossy().into_owned();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./+,:@%=-".contains(c);
        let word = if !path.is_empty() && path.chars().all(is_plain) {
            path
        } else {
            format!("'{}'", path.replace('\'', "'\\''"))
        };
        Some(format!(" --{name} {}", printable(&word, 4096)))
    };
    let state = flag("state", &args.state).unwrap_or_default();
    let config = flag("config", &args.config).unwrap_or_default();
    format!("mailer {command}{config}{state}")
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// When a job that is over ended, as far as its card says.
pub fn over_since(card: &JobCard) -> Option<i64> {
    let is_over = card.state != JobState::Open;
    is_over.then(|| {
        card.finished_ms
            .or(card.ended_ms)
            .unwrap_or(card.created_ms)
    })
}

/// `2026-11-23 15:56:10`, in local time.
pub fn local_time(millis: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(millis);
    let at = at.map(|at| at.to_zoned_datetime(jiff::tz::TimeZone::system()));
    at.map_or_else(
        |_| "?".into(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// What a job was made of, for a line of a list.
pub fn origin(card: &JobCard) -> String {
    let text = match card.inputs.as_slice() {
        [] => "standard input".to_owned(),
        [one] => one.path.to_string_lossy().into_owned(),
        [one, rest @ ..] => format!("{} and {} more", one.path.to_string_lossy(), rest.len()),
    };
    printable(&text, 200)
}

/// Why an attempt failed: `450 4.7.1 try again later (at rcpt, mx.a.test)`.
pub fn reason(last: &Attempt) -> String {
    let verdict = &last.verdict;
    let mut said = String::new();
    if verdict.code > 0 {
        said.push_str(&format!("{} ", verdict.code));
    }
    if let Some(enhanced) = verdict.enhanced {
        said.push_str(&format!("{enhanced} "));
    }
    said.push_str(&printable(&verdict.text, 200));
    let stage = verdict.stage.name();
    match &*last.via.mx {
        "" => format!("{said} (at {stage})"),
        mx => format!("{said} (at {stage}, {mx})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_exit_status() {
        let path = PathBuf::from("/x");
        let io = |kind: std::io::ErrorKind| JobError::Input {
            path: path.clone(),
            error: kind.into(),
        };
        for (error, exit) in [
            (JobError::NotFound { text: "x".into() }, Exit::NoInput),
            (
                JobError::Held {
                    id: "x".into(),
                    by: None,
                },
                Exit::Pending,
            ),
            (JobError::Changed { path: path.clone() }, Exit::Data),
            (io(std::io::ErrorKind::NotFound), Exit::NoInput),
            (io(std::io::ErrorKind::Other), Exit::Io),
        ] {
            let error = failure(error);
            let failure = error.downcast_ref::<Failure>().unwrap();
            assert_eq!(failure.exit, exit, "{failure}");
        }
    }
}
