//! The journal of orders: a line for each in `control.log` of the job, when, by whom, what, and what came of it.
//!
//! Limits: the file is bounded: one that has grown to [`BYTES_MAX`] becomes `control.log.1`, in place of the one before. A
//! line that cannot be written is lost; the order is obeyed all the same, since the mail matters more.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::control::LOG;
use crate::mail::verdict::printable;

/// The longest a journal grows.
const BYTES_MAX: u64 = 1 << 20;
/// The longest order or answer in it.
const TEXT_MAX: usize = 1000;

/// The journal.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// That of the job in `dir`.
    pub fn new(dir: &Path) -> Log {
        Log {
            path: dir.join(LOG),
        }
    }

    /// Appends a line: fields separated by tabs.
    pub fn add(&self, uid: u32, order: &str, answer: &str) {
        let length = fs::symlink_metadata(&self.path).map_or(0, |known| known.len());
        if length >= BYTES_MAX {
            let _ = fs::rename(&self.path, self.path.with_extension("log.1"));
        }
        let now = jiff::ZonedDateTime::now().strftime("%Y-%m-%dT%H:%M:%S%:z");
        let (order, answer) = (printable(order, TEXT_MAX), printable(answer, TEXT_MAX));
        let line = format!("{now}\tuid {uid}\t{order}\t{answer}\n");
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path);
        // See the limits above.
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_order_is_one_line_and_the_file_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(dir.path());
        log.add(7, "pause a\nb", "done\tso");
        let text = fs::read_to_string(dir.path().join(LOG)).unwrap();
        assert!(text.ends_with("\tuid 7\tpause a?b\tdone?so\n"), "{text}");
        fs::write(dir.path().join(LOG), vec![b'x'; BYTES_MAX as usize]).unwrap();
        log.add(7, "stop", "stopping");
        let length = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(length(LOG) < 100);
        assert_eq!(length("control.log.1"), BYTES_MAX);
    }
}
