//! Why a ledger cannot be read or kept: the file, and what is wrong with it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A ledger that cannot be read or kept.
#[derive(Debug)]
pub enum LedgerError {
    /// A file or directory cannot be made, read, written, synced or removed.
    Io(PathBuf, io::Error),
    /// The database cannot be read or written.
    Database(PathBuf, rusqlite::Error),
    /// Somebody else kept the database locked for too long. Nothing is lost: it is tried again later.
    Busy(PathBuf),
    /// The database holds what this program never writes.
    Damaged(PathBuf, String),
}

impl LedgerError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
        move |error| LedgerError::Io(path.to_path_buf(), error)
    }

    pub(super) fn database(path: &Path) -> impl Fn(rusqlite::Error) -> LedgerError {
        move |error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                LedgerError::Busy(path.to_path_buf())
            }
            _ => LedgerError::Database(path.to_path_buf(), error),
        }
    }

    /// True if it is only that somebody else reads the database.
    pub fn is_busy(&self) -> bool {
        matches!(self, LedgerError::Busy(_))
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LedgerError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            LedgerError::Database(path, error) => write!(f, "{}: {error}", path.display()),
            LedgerError::Busy(path) => {
                write!(f, "{}: another program keeps it locked", path.display())
            }
            LedgerError::Damaged(path, what) => write!(f, "{}: {what}", path.display()),
        }
    }
}

impl std::error::Error for LedgerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LedgerError::Io(_, error) => Some(error),
            LedgerError::Database(_, error) => Some(error),
            LedgerError::Busy(_) | LedgerError::Damaged(..) => None,
        }
    }
}
