//! Locks: flock(2) on a file whose text says who holds it.
//!
//! The system gives a lock back when its holder dies, however it dies; the text may be left from a holder that died, until the
//! next one has written its own. Hence a reader of the text who knows the lock held looks again for a moment if the process
//! named there does not live.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use super::error::JobError;
use super::files;
use crate::mail::verdict::printable;

/// The longest command line that a lock shows.
const COMMAND_MAX: usize = 300;
/// The longest text that is looked at.
const TEXT_MAX: u64 = 4096;

/// Who holds a lock, as its text says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Since when: RFC 3339.
    pub since: String,
    /// Its command line, shortened.
    pub command: String,
}

impl Holder {
    fn us() -> Holder {
        let words: Vec<String> = std::env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        Holder {
            pid: std::process::id(),
            since: jiff::ZonedDateTime::now()
                .strftime("%Y-%m-%dT%H:%M:%S%:z")
                .to_string(),
            command: printable(&words.join(" "), COMMAND_MAX),
        }
    }

    fn to_text(&self) -> String {
        let Holder {
            pid,
            since,
            command,
        } = self;
        format!("pid {pid}\nsince {since}\ncommand {command}\n")
    }

    fn parse(text: &str) -> Option<Holder> {
        let text = text.strip_suffix('\n')?;
        let mut lines = text.split('\n');
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        Some(Holder {
            pid: field("pid")?.parse().ok()?,
            since: printable(field("since")?, 40),
            command: printable(field("command")?, COMMAND_MAX),
        })
    }

    /// True if there is such a process, as far as we can see.
    fn lives(&self) -> bool {
        i32::try_from(self.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .is_some_and(|pid| {
                rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
            })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder {
            pid,
            since,
            command,
        } = self;
        write!(f, "process {pid} since {since} ({command})")
    }
}

/// A lock that is held. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock at `path` if it is free. `Ok(None)`: somebody else has it.
    pub(super) fn try_take(path: &Path) -> Result<Option<Lock>, JobError> {
        let file = files::open_or_make(path)?;
        match file.try_lock() {
            Ok(()) => Lock::taken(file, path).map(Some),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(JobError::io(path, "lock it", error)),
        }
    }

    /// Waits for the lock at `path`.
    pub(super) fn wait(path: &Path) -> Result<Lock, JobError> {
        let file = files::open_or_make(path)?;
        loop {
            match file.lock() {
                Ok(()) => return Lock::taken(file, path),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(JobError::io(path, "lock it", error)),
            }
        }
    }

    fn taken(file: File, path: &Path) -> Result<Lock, JobError> {
        let text = Holder::us().to_text();
        file.set_len(0)
            .and_then(|()| file.write_all_at(text.as_bytes(), 0))
            .map_err(|error| JobError::io(path, "write it", error))?;
        Ok(Lock { file })
    }

    /// True if the file is still the one at `path`: a lock on a file that was removed meanwhile protects nothing.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let there = std::fs::symlink_metadata(path);
        match (there, self.file.metadata()) {
            (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            _ => false,
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // So that the text names nobody who is gone. Closing the file gives the lock back, whatever becomes of the text.
        let _ = self.file.set_len(0);
    }
}

/// True if somebody holds the lock at `path` now. Nothing is made or written.
fn is_held(path: &Path) -> Result<bool, JobError> {
    let file = match files::open_to_read(path) {
        Ok(file) => file,
        Err(JobError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    // Shared, and given back at once when the file is closed: two who look do not take each other for holders.
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(JobError::io(path, "lock it", error)),
    }
}

/// How often a lock that nobody living seems to hold is looked at again, and after what time: between taking a lock and
/// writing its text, and while somebody only looks whether it is held, lie microseconds.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(5);

/// Takes the lock at `path`, or tells who has it, as far as it can be found out.
pub(super) fn take_or_tell(path: &Path) -> Result<Result<Lock, Option<Holder>>, JobError> {
    let mut holder = None;
    for _ in 0..LOOKS {
        if let Some(lock) = Lock::try_take(path)? {
            return Ok(Ok(lock));
        }
        holder = read_holder(path).or(holder);
        if holder.as_ref().is_some_and(Holder::lives) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    // Not a living process, if it names one: it may be one of another container.
    Ok(Err(holder))
}

/// Who holds the lock at `path`: `None` if nobody does, `Some(None)` if it cannot be found out who. Nothing is made or written.
pub(super) fn holder(path: &Path) -> Result<Option<Option<Holder>>, JobError> {
    let mut holder = None;
    for _ in 0..LOOKS {
        if !is_held(path)? {
            return Ok(None);
        }
        holder = read_holder(path).or(holder);
        if holder.as_ref().is_some_and(Holder::lives) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(Some(holder))
}

fn read_holder(path: &Path) -> Option<Holder> {
    let mut text = String::new();
    let file = files::open_to_read(path).ok()?;
    file.take(TEXT_MAX).read_to_string(&mut text).ok()?;
    Holder::parse(&text)
}

/// The lock of the state directory: whoever has it is the only one who looks for a job and makes it.
#[derive(Debug)]
pub struct StateLock {
    pub(super) _lock: Lock,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_lock_is_read_back_and_nonsense_is_nobody() {
        let us = Holder::us();
        assert_eq!(Holder::parse(&us.to_text()), Some(us.clone()));
        let text = us.to_text();
        for end in 0..text.len() {
            assert_eq!(Holder::parse(&text[..end]), None, "cut at {end}");
        }
        assert_eq!(Holder::parse("pid x\nsince y\ncommand z\n"), None);
    }

    #[test]
    fn a_lock_on_a_file_that_was_replaced_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let old = Lock::try_take(&path).unwrap().unwrap();
        assert!(old.is_at(&path));
        assert!(Lock::try_take(&path).unwrap().is_none());
        std::fs::rename(&path, dir.path().join("gone")).unwrap();
        assert!(!old.is_at(&path));
        let new = Lock::try_take(&path).unwrap().unwrap();
        assert!(new.is_at(&path) && !old.is_at(&path));
    }
}
