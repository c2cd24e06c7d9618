//! Tests of the room: finding, races, what others may have planted, identity.

mod finding;
mod identity;
mod races;
mod safety;

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// A state directory that vanishes with the test.
struct Scratch {
    dir: tempfile::TempDir,
    state: StateDir,
}

impl Scratch {
    fn new() -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        Scratch { dir, state }
    }

    fn path(&self) -> PathBuf {
        self.state.path().to_path_buf()
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Makes a job at this second of the epoch, and gives it back at once.
    fn job(&self, second: i64, card: NewCard) -> JobCard {
        let lock = self.state.lock().unwrap();
        let now = jiff::Timestamp::from_second(second)
            .unwrap()
            .to_zoned_datetime(jiff::tz::TimeZone::UTC);
        let job = self.state.create_at(&lock, card, &now).unwrap();
        job.card().clone()
    }
}

fn named(name: &str) -> NewCard {
    NewCard {
        name: Some(name.to_owned()),
        ..NewCard::default()
    }
}

fn of_batch(digest: &str) -> NewCard {
    NewCard {
        digest: Some(digest.to_owned()),
        ..NewCard::default()
    }
}

fn card_path(state: &StateDir, id: &str) -> PathBuf {
    state.job_dir(id).join("job.json")
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}
