//! The journal of orders: a line for each in `control.log` of the job, when, by whom, what, and what came of it.
//!
//! Limits: the file is bounded: one that has grown to `BYTES_MAX` becomes `control.log.1`, in place of the one before. A
//! line that cannot be written is lost; the order is obeyed all the same, since the mail matters more.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::mail::verdict::printable;

/// The file in a job's directory.
pub const LOG: &str = "control.log";
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

/// The last `count` lines of the journal of the job in `dir`, the latest last; none if there is no journal. What is in it is
/// made printable.
pub fn latest(dir: &Path, count: usize) -> Vec<String> {
    let Ok(text) = tail(&dir.join(LOG)) else {
        return Vec::new();
    };
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    let shown = |line: &&str| printable(&line.replace('\t', "  "), 3 * TEXT_MAX);
    lines[from..].iter().map(shown).collect()
}

/// The end of a file: as much as a few of the longest lines need.
fn tail(path: &Path) -> std::io::Result<String> {
    const TAIL: u64 = 32 * 1024;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
        log.add(7, "stop", "stopping");
        let last = latest(dir.path(), 1);
        assert!(last.len() == 1 && last[0].ends_with("  uid 7  stop  stopping"));
        assert_eq!(latest(dir.path(), 5).len(), 2);
        fs::write(dir.path().join(LOG), vec![b'x'; BYTES_MAX as usize]).unwrap();
        log.add(7, "stop", "stopping");
        let length = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(length(LOG) < 100);
        assert_eq!(length("control.log.1"), BYTES_MAX);
    }
}
