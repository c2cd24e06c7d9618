//! Stamps of files: what says, without reading it, that a file is the one that was read before.
//!
//! A file whose device, inode, size and both times are what they were holds what it held, unless it was written in the same
//! tick of the clock in which it was read. So a stamp counts only if the file had not been touched for [`QUIET`] before it was
//! read; the others are taken for changed, and cost another reading. Maildirs always do.
//!
//! Limits: who sets the system's clock back, or writes through a mapping on a file system that does not note it, can fool a
//! stamp; messages are checked against their hashes before they are sent all the same.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::error::JobError;

/// The coarsest clocks of file systems tick every two seconds.
const QUIET: Duration = Duration::from_secs(2);

/// A file of a batch, as it was when it was read.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct InputStamp {
    /// Its absolute path.
    #[serde(with = "super::path_text")]
    pub path: PathBuf,
    /// Its device.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// Its length in bytes.
    pub size: u64,
    /// When it was written: nanoseconds since 1970.
    pub mtime_ns: i64,
    /// When it, or what is known of it, was changed: nanoseconds since 1970.
    pub ctime_ns: i64,
    /// When the stamp was taken: nanoseconds since 1970.
    pub taken_ns: i64,
    /// It is a regular file; only these can be known by their stamps.
    pub regular: bool,
    /// It is the list of recipients (`--to-file`).
    #[serde(default)]
    pub to_file: bool,
}

/// The stamp of a file, to be taken before it is read.
///
/// # Errors
/// If there is no such file.
pub fn stamp(path: &Path) -> Result<InputStamp, JobError> {
    let fail = |error| JobError::Input {
        path: path.to_path_buf(),
        error,
    };
    let taken_ns = now_ns();
    let metadata = path.metadata().map_err(fail)?;
    let ns = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
    Ok(InputStamp {
        path: std::path::absolute(path).map_err(fail)?,
        dev: metadata.dev(),
        ino: metadata.ino(),
        size: metadata.size(),
        mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        taken_ns,
        regular: metadata.is_file(),
        to_file: false,
    })
}

/// The stamps of a batch: its inputs in order, then the list of recipients.
///
/// # Errors
/// If a file is missing.
pub fn stamps(inputs: &[PathBuf], to_file: Option<&Path>) -> Result<Vec<InputStamp>, JobError> {
    let mut stamps = inputs
        .iter()
        .map(|path| stamp(path))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = to_file {
        stamps.push(InputStamp {
            to_file: true,
            ..stamp(path)?
        });
    }
    Ok(stamps)
}

/// Makes sure that files are still those that were stamped, for what their stamps can say: to be asked after they were read.
///
/// # Errors
/// [`JobError::Changed`].
pub fn unchanged(stamps: &[InputStamp]) -> Result<(), JobError> {
    let changed = stamps.iter().find(|before| {
        !stamp(&before.path).is_ok_and(|now| now.is_same_file(before) || !before.regular)
    });
    match changed {
        None => Ok(()),
        Some(stamp) => Err(JobError::Changed {
            path: stamp.path.clone(),
        }),
    }
}

impl InputStamp {
    /// True if the file of `self` holds what the file of `read` held when it was read.
    pub(super) fn holds_what(&self, read: &InputStamp) -> bool {
        self.is_same_file(read) && self.to_file == read.to_file && read.is_telling()
    }

    /// Nothing that is looked at differs.
    fn is_same_file(&self, other: &InputStamp) -> bool {
        let key = |stamp: &InputStamp| {
            let InputStamp { dev, ino, size, .. } = *stamp;
            (dev, ino, size, stamp.mtime_ns, stamp.ctime_ns)
        };
        self.regular && other.regular && key(self) == key(other)
    }

    /// A write after the stamp would have changed it.
    fn is_telling(&self) -> bool {
        let quiet_since = self.taken_ns.saturating_sub(QUIET.as_nanos() as i64);
        self.regular && self.mtime_ns < quiet_since && self.ctime_ns < quiet_since
    }
}

/// Nanoseconds since 1970.
fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}

/// An error for what is neither a file nor a Maildir.
pub(super) fn not_a_file(path: &Path) -> JobError {
    JobError::Input {
        path: path.to_path_buf(),
        error: io::Error::new(io::ErrorKind::InvalidInput, "it can be read only once"),
    }
}
