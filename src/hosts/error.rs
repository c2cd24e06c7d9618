//! Why the host memory cannot be used: never a reason not to send.

use std::fmt;
use std::path::{Path, PathBuf};

/// The memory cannot be read or written.
#[derive(Debug)]
pub struct HostsError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
    /// It is not what it should be, rather than out of reach: setting it aside helps.
    pub is_unfit: bool,
}

impl fmt::Display for HostsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for HostsError {}

impl HostsError {
    /// Out of reach, or unfit.
    pub(super) fn new(path: &Path, is_unfit: bool, reason: impl ToString) -> HostsError {
        HostsError {
            path: path.to_path_buf(),
            reason: reason.to_string(),
            is_unfit,
        }
    }

    /// A failure of SQLite: the file is unfit if it is damaged or no database at all.
    pub(super) fn sql(path: &Path) -> impl Fn(rusqlite::Error) -> HostsError + use<> {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let path = path.to_path_buf();
        move |error| {
            let code = error.sqlite_error_code();
            let is_unfit = matches!(code, Some(DatabaseCorrupt | NotADatabase));
            HostsError::new(&path, is_unfit, error)
        }
    }
}
