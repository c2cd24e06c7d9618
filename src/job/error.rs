//! Why the state directory or a job in it cannot be used: one line, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::lock::Holder;
use crate::mail::verdict::printable;

/// The longest path or text of others that is shown.
const TEXT_MAX: usize = 4096;

/// The classes of exit status that such an error leads to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum JobErrorKind {
    /// There is no such job or file (66).
    NoInput,
    /// What was named is not clear enough (64).
    Usage,
    /// A card or an input is not what it should be (65).
    Data,
    /// A directory or file cannot be made (73).
    CantCreate,
    /// Reading or writing failed (74).
    Io,
    /// Somebody else is at work on the job (75).
    Busy,
    /// The directory is not ours alone (77).
    Permission,
}

/// An error of this room.
#[derive(Debug)]
pub enum JobError {
    /// A directory or file of the state directory is none that we may trust.
    Unsafe {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A file or directory cannot be read, made or written.
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried, as in "cannot ...".
        doing: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// A card cannot be understood.
    Damaged {
        /// The job.
        id: String,
        /// The card.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No job is called so.
    NotFound {
        /// What was asked for.
        text: String,
    },
    /// Several jobs begin so.
    Ambiguous {
        /// What was asked for.
        text: String,
        /// The jobs.
        ids: Vec<String>,
    },
    /// Somebody else works on the job.
    Held {
        /// The job.
        id: String,
        /// Who, as far as it is known.
        by: Option<Holder>,
    },
    /// An input of the batch cannot be read.
    Input {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// An input changed while it was being read.
    Changed {
        /// Which.
        path: PathBuf,
    },
}

impl JobError {
    pub(super) fn io(path: &Path, doing: &'static str, error: io::Error) -> JobError {
        JobError::Io {
            path: path.to_path_buf(),
            doing,
            error,
        }
    }

    /// Which exit status it calls for.
    pub fn kind(&self) -> JobErrorKind {
        match self {
            JobError::Unsafe { .. } => JobErrorKind::Permission,
            JobError::Io { doing, error, .. } => match error.kind() {
                io::ErrorKind::PermissionDenied => JobErrorKind::Permission,
                _ if *doing == MAKE => JobErrorKind::CantCreate,
                _ => JobErrorKind::Io,
            },
            JobError::Damaged { .. } | JobError::Changed { .. } => JobErrorKind::Data,
            JobError::NotFound { .. } => JobErrorKind::NoInput,
            JobError::Ambiguous { .. } => JobErrorKind::Usage,
            JobError::Held { .. } => JobErrorKind::Busy,
            JobError::Input { error, .. } => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => JobErrorKind::NoInput,
                _ => JobErrorKind::Io,
            },
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            JobError::Unsafe { hint, .. } => Some(hint.clone()),
            JobError::Io { doing, .. } if *doing == MAKE => {
                Some("name another state directory with --state DIR".to_owned())
            }
            JobError::Io { error, .. } => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("make room in the state directory".to_owned())
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Some("name another state directory with --state DIR".to_owned())
                }
                _ => None,
            },
            JobError::Damaged { path, .. } => Some(format!(
                "restore {0}; or, if nobody of that job must be kept from getting its mail again, remove {1}",
                show(path),
                show(path.parent().unwrap_or(path))
            )),
            JobError::NotFound { .. } => Some("mailer jobs lists them".to_owned()),
            JobError::Ambiguous { ids, .. } => Some(format!("one of {}", list(ids))),
            JobError::Held { id, .. } => Some(format!("watch it with: mailer status {id}")),
            JobError::Input { .. } => None,
            JobError::Changed { .. } => {
                Some("wait until the program that writes it is done".to_owned())
            }
        }
    }
}

/// What is being done when a directory or file is made.
pub(super) const MAKE: &str = "make it";

fn show(path: &Path) -> String {
    printable(&path.to_string_lossy(), TEXT_MAX)
}

/// The first ten, and how many more there are.
fn list(ids: &[String]) -> String {
    let shown = ids.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
    match ids.len().checked_sub(10) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobError::Unsafe { path, what, .. } => write!(f, "{}: {what}", show(path)),
            JobError::Io { path, doing, error } => {
                write!(f, "{}: cannot {doing}: {error}", show(path))
            }
            JobError::Damaged { id, why, .. } => {
                let why = printable(why, TEXT_MAX);
                write!(f, "job {id}: its card cannot be used: {why}")
            }
            JobError::NotFound { text } => {
                write!(f, "there is no job {}", printable(text, TEXT_MAX))
            }
            JobError::Ambiguous { text, ids } => {
                let text = printable(text, TEXT_MAX);
                write!(f, "{} jobs begin with {text}", ids.len())
            }
            JobError::Held { id, by: Some(by) } => write!(f, "job {id} is in use by {by}"),
            JobError::Held { id, by: None } => write!(f, "job {id} is in use by another process"),
            JobError::Input { path, error } => write!(f, "{}: cannot read: {error}", show(path)),
            JobError::Changed { path } => {
                write!(f, "{}: it changes while it is being read", show(path))
            }
        }
    }
}

impl std::error::Error for JobError {}
