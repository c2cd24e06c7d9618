//! A job in the hands of this process: its directory, its card, and its lock.

use std::path::{Path, PathBuf};

use super::card::JobCard;
use super::error::JobError;
use super::files;
use super::lock::Lock;

/// A job that nobody else can work on. The lock is given back when it is dropped, or when the process ends.
#[derive(Debug)]
pub struct Job {
    pub(super) dir: PathBuf,
    pub(super) card: JobCard,
    pub(super) _lock: Lock,
}

impl Job {
    /// Its name.
    pub fn id(&self) -> &str {
        &self.card.id
    }

    /// Its card as it is on disk.
    pub fn card(&self) -> &JobCard {
        &self.card
    }

    /// Its directory, an absolute path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Changes the card, durably: after a power loss it is the old one or the new one. The name cannot be changed.
    ///
    /// # Errors
    /// If it cannot be written; the card is then what it was.
    pub fn update(&mut self, change: impl FnOnce(&mut JobCard)) -> Result<(), JobError> {
        let mut card = self.card.clone();
        change(&mut card);
        card.id.clone_from(&self.card.id);
        card.write(&self.dir, true)?;
        self.card = card;
        self.sync_names()
    }

    /// Makes a job that was just made outlast a power loss: making it does not wait for the disk, since a run may be over
    /// sooner than that.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sync(&self) -> Result<(), JobError> {
        let path = self.dir.join(super::card::CARD);
        files::open_to_read(&path)?
            .sync_data()
            .map_err(|error| JobError::io(&path, "write it", error))?;
        files::sync_dir(&self.dir)?;
        self.sync_names()
    }

    /// The names of the job's directory and of those that it is in.
    fn sync_names(&self) -> Result<(), JobError> {
        let above = self.dir.ancestors().skip(1).take(3);
        above
            .filter(|dir| !dir.as_os_str().is_empty())
            .try_for_each(|dir| match files::sync_dir(dir) {
                // The directory that the state directory is in need not be readable.
                Err(JobError::Io { error, .. })
                    if error.kind() == std::io::ErrorKind::PermissionDenied =>
                {
                    Ok(())
                }
                other => other,
            })
    }
}
