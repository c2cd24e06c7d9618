//! The state directory: where jobs are, how one is found, made, taken and removed.
//!
//! A job is made as `.new-ID`, locked, and then renamed: whoever sees a job sees its card, and finds it held. It is removed the
//! other way round. What a crash leaves of either is swept away when the next job is made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::ZonedDateTime;

use super::card::{JobCard, NewCard};
use super::digest::Digest;
use super::error::{JobError, MAKE};
use super::files;
use super::held::Job;
use super::id;
use super::lock::{self, Lock, StateLock};
use super::stamp::InputStamp;

const LOCK: &str = "lock";
const JOBS: &str = "jobs";
const BEING_MADE: &str = ".new-";
const BEING_REMOVED: &str = ".gone-";

/// The state directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
    jobs: PathBuf,
}

/// All jobs.
#[derive(Debug, Default)]
pub struct Listing {
    /// Their cards, oldest first.
    pub cards: Vec<JobCard>,
    /// Jobs whose cards cannot be used: name and reason.
    pub unreadable: Vec<(String, JobError)>,
}

impl StateDir {
    /// Opens the state directory; makes it, for its owner only, if it is missing.
    ///
    /// # Errors
    /// If it cannot be made, is a symbolic link, belongs to somebody else, or others may write into it.
    pub fn open(path: &Path) -> Result<StateDir, JobError> {
        let state = StateDir::named(path)?;
        if let Some(parent) = state.path.parent() {
            use std::os::unix::fs::DirBuilderExt;
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .map_err(|error| JobError::io(parent, MAKE, error))?;
        }
        files::make_dir(&state.path)?;
        files::check_dir(&state.path)?;
        files::make_dir(&state.jobs)?;
        files::check_dir(&state.jobs)?;
        Ok(state)
    }

    /// Opens the state directory to look at what is in it: nothing is made. `None` if there is none, hence no job.
    ///
    /// # Errors
    /// As [`StateDir::open`].
    pub fn open_existing(path: &Path) -> Result<Option<StateDir>, JobError> {
        let state = StateDir::named(path)?;
        for dir in [&state.path, &state.jobs] {
            match files::check_dir(dir) {
                Err(JobError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(None);
                }
                other => other?,
            }
        }
        Ok(Some(state))
    }

    /// The path made absolute, without a slash at its end.
    fn named(path: &Path) -> Result<StateDir, JobError> {
        let absolute =
            std::path::absolute(path).map_err(|error| JobError::io(path, "find it", error))?;
        let path: PathBuf = absolute.components().collect();
        let jobs = path.join(JOBS);
        Ok(StateDir { path, jobs })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a job.
    pub fn job_dir(&self, id: &str) -> PathBuf {
        self.jobs.join(id)
    }

    /// All jobs, readable or not.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn listing(&self) -> Result<Listing, JobError> {
        let mut listing = Listing::default();
        for name in self.names()? {
            if !id::is_name(&name) {
                continue;
            }
            match self.card(&name) {
                Ok(card) => listing.cards.push(card),
                // Removed while we were looking.
                Err(_) if !self.exists(&name) => {}
                Err(_) if JobCard::was_never_written(&self.job_dir(&name)) => {}
                Err(error) => listing.unreadable.push((name, error)),
            }
        }
        listing
            .cards
            .sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        listing.unreadable.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(listing)
    }

    /// The cards of all jobs that have a good one, oldest first.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn jobs(&self) -> Result<Vec<JobCard>, JobError> {
        self.listing().map(|listing| listing.cards)
    }

    /// The card of a job.
    fn card(&self, id: &str) -> Result<JobCard, JobError> {
        let dir = self.job_dir(id);
        files::check_dir(&dir)?;
        JobCard::read(&dir, id)
    }

    fn exists(&self, id: &str) -> bool {
        fs::symlink_metadata(self.job_dir(id)).is_ok()
    }

    /// The names in `jobs/`.
    fn names(&self) -> Result<Vec<String>, JobError> {
        let fail = |error| JobError::io(&self.jobs, "read it", error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.jobs).map_err(fail)? {
            names.extend(entry.map_err(fail)?.file_name().into_string().ok());
        }
        Ok(names)
    }

    /// The job that a person means: by its name as a directory, by its `--job` name (the latest of that name), or by a
    /// beginning that only one has.
    ///
    /// # Errors
    /// If there is none, several, or its card is damaged.
    pub fn find(&self, text: &str) -> Result<JobCard, JobError> {
        let mut listing = self.listing()?;
        let position = |wanted: &dyn Fn(&JobCard) -> bool| listing.cards.iter().rposition(wanted);
        let exact = position(&|card| card.id == text)
            .or_else(|| position(&|card| card.name.as_deref() == Some(text)));
        if let Some(at) = exact {
            return Ok(listing.cards.swap_remove(at));
        }
        let begins = |id: &str| !text.is_empty() && id.starts_with(text);
        let broken = listing.unreadable.iter().position(|(id, _)| begins(id));
        let mut cards = listing.cards;
        cards.retain(|card| begins(&card.id));
        match (cards.len(), broken) {
            (0, Some(at)) => Err(listing.unreadable.swap_remove(at).1),
            (1, None) => Ok(cards.swap_remove(0)),
            (0, None) => Err(JobError::NotFound {
                text: text.to_owned(),
            }),
            _ => {
                let broken = listing.unreadable.into_iter().map(|(id, _)| id);
                let ids = cards.into_iter().map(|card| card.id).chain(broken);
                Err(JobError::Ambiguous {
                    text: text.to_owned(),
                    ids: ids.filter(|id| begins(id)).collect(),
                })
            }
        }
    }

    /// The newest job of a batch.
    ///
    /// # Errors
    /// Also if a damaged card may be that of a job of this batch: who has got it would get it again.
    pub fn by_digest(&self, digest: &str) -> Result<Option<JobCard>, JobError> {
        let listing = self.listing()?;
        let may_be = |(id, _): &(String, JobError)| id::may_be_of(id, digest);
        if let Some((_, error)) = listing.unreadable.into_iter().find(|one| may_be(one)) {
            return Err(error);
        }
        let mut cards = listing.cards.into_iter().rev();
        Ok(cards.find(|card| card.digest.as_deref() == Some(digest)))
    }

    /// The newest job that was given this name.
    ///
    /// # Errors
    /// Also if a damaged card may be that of a job of this name: who has got its mail would get it again.
    pub fn by_name(&self, name: &str) -> Result<Option<JobCard>, JobError> {
        let listing = self.listing()?;
        let may_be = |(id, _): &(String, JobError)| {
            !JobCard::is_surely_not_called(&self.job_dir(id), id, name)
        };
        if let Some((_, error)) = listing.unreadable.into_iter().find(may_be) {
            return Err(error);
        }
        let mut cards = listing.cards.into_iter().rev();
        Ok(cards.find(|card| card.name.as_deref() == Some(name)))
    }

    /// The digest of a batch that was read before and has not been touched since, so that it need not be read again.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn by_stamps(
        &self,
        inputs: &[InputStamp],
        numbering: &str,
    ) -> Result<Option<Digest>, JobError> {
        let holds_what = |read: &[InputStamp]| {
            let mut pairs = inputs.iter().zip(read);
            inputs.len() == read.len() && pairs.all(|(now, read)| now.holds_what(read))
        };
        let mut cards = self.jobs()?.into_iter().rev();
        let card = cards.find(|card| {
            card.digest.is_some() && card.numbering == numbering && holds_what(&card.inputs)
        });
        Ok(card.and_then(|card| card.digest).map(|text| Digest {
            text,
            inputs: inputs.to_vec(),
        }))
    }

    /// Waits until nobody else looks for a job or makes one.
    ///
    /// # Errors
    /// If the lock cannot be made.
    pub fn lock(&self) -> Result<StateLock, JobError> {
        Lock::wait(&self.path.join(LOCK)).map(|lock| StateLock { _lock: lock })
    }

    /// Makes a job; it is held by us. Its files may be lost with the power until [`Job::sync`] or [`Job::update`].
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(&self, lock: &StateLock, card: NewCard) -> Result<Job, JobError> {
        self.create_at(lock, card, &ZonedDateTime::now())
    }

    pub(super) fn create_at(
        &self,
        _lock: &StateLock,
        card: NewCard,
        now: &ZonedDateTime,
    ) -> Result<Job, JobError> {
        self.sweep()?;
        let id = id::names(now, card.digest.as_deref())
            .find(|id| !self.exists(id))
            .unwrap_or_default();
        let made = self.jobs.join(format!("{BEING_MADE}{id}"));
        files::make_dir(&made)?;
        let card = card.card(id, now.timestamp().as_millisecond());
        let finish = || {
            let lock = Lock::try_take(&made.join(LOCK))?.ok_or_else(|| JobError::Held {
                id: card.id.clone(),
                by: None,
            })?;
            card.write(&made, false)?;
            let dir = self.job_dir(&card.id);
            fs::rename(&made, &dir).map_err(|error| JobError::io(&dir, MAKE, error))?;
            Ok((lock, dir))
        };
        match finish() {
            Ok((lock, dir)) => Ok(Job {
                dir,
                card,
                _lock: lock,
            }),
            Err(error) => {
                // A full disk: leave nothing behind.
                let _ = fs::remove_dir_all(&made);
                Err(error)
            }
        }
    }

    /// Takes a job to work on it.
    ///
    /// # Errors
    /// [`JobError::Held`]: somebody else does; or it is gone or damaged.
    pub fn take(&self, id: &str) -> Result<Job, JobError> {
        let not_found = || JobError::NotFound {
            text: id.to_owned(),
        };
        if !id::is_name(id) {
            return Err(not_found());
        }
        self.take_there(id).and_then(|job| match job {
            Some(job) => Ok(job),
            None => Err(not_found()),
        })
    }

    /// `None`: it is not there, or was removed meanwhile, at whatever step.
    fn take_there(&self, id: &str) -> Result<Option<Job>, JobError> {
        let dir = self.job_dir(id);
        let path = dir.join(LOCK);
        let job = files::check_dir(&dir)
            .and_then(|()| lock::take_or_tell(&path))
            .and_then(|taken| match taken {
                // A lock on a file that is gone protects nothing.
                Ok(lock) if !lock.is_at(&path) => Ok(None),
                Ok(lock) => Ok(Some(Job {
                    card: JobCard::read(&dir, id)?,
                    dir: dir.clone(),
                    _lock: lock,
                })),
                Err(by) => Err(JobError::Held {
                    id: id.to_owned(),
                    by,
                }),
            });
        match job {
            Err(_) if !self.exists(id) => Ok(None),
            other => other,
        }
    }

    /// Who works on a job now, if anybody does. `Some(None)`: somebody, but it cannot be said who.
    ///
    /// # Errors
    /// If the lock cannot be looked at.
    pub fn holder(&self, id: &str) -> Result<Option<Option<lock::Holder>>, JobError> {
        lock::holder(&self.job_dir(id).join(LOCK))
    }

    /// Removes a job and all that is known of it.
    ///
    /// # Errors
    /// If it cannot be removed; it may be gone already as a job, and what is left is swept away later.
    pub fn remove(&self, job: Job) -> Result<(), JobError> {
        let gone = self.jobs.join(format!("{BEING_REMOVED}{}", job.id()));
        let fail = |error| JobError::io(&job.dir, "remove it", error);
        fs::rename(&job.dir, &gone).map_err(fail)?;
        match fs::remove_dir_all(&gone) {
            // Somebody swept it away already.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
            _ => Ok(()),
        }
    }

    /// Removes what crashes and losses of power left of jobs that were being made or removed. Who calls it holds the state
    /// directory's lock: nobody makes a job now. What cannot be removed stays.
    fn sweep(&self) -> Result<(), JobError> {
        for name in self.names()? {
            let is_lost = id::is_name(&name) && JobCard::was_never_written(&self.job_dir(&name));
            if is_lost || name.starts_with(BEING_MADE) || name.starts_with(BEING_REMOVED) {
                let _ = fs::remove_dir_all(self.jobs.join(name));
            }
        }
        Ok(())
    }
}
