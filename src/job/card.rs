//! The card of a job: what it is, who made it when from what, and how far it has come. A file of JSON, `job.json`.
//!
//! The card says nothing about single recipients: that is the ledger's. Its counts are those of the end of the latest run.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::JobError;
use super::files;
use super::stamp::InputStamp;

/// The form of the card that this program writes, and the only one that it reads.
pub const CARD_VERSION: u32 = 1;
/// The card's name in the directory of its job.
pub(super) const CARD: &str = "job.json";
/// A card names every file of its batch: some hundred bytes for each.
const CARD_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Where a job stands.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Recipients are pending, or may be: a run goes on, or went away without a word.
    #[default]
    Open,
    /// Nobody is pending.
    Finished,
    /// A person said that nothing more of it is to be sent.
    Cancelled,
}

impl JobState {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Open => "open",
            JobState::Finished => "finished",
            JobState::Cancelled => "cancelled",
        }
    }
}

/// A card. Times are milliseconds since 1970, UTC.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct JobCard {
    /// [`CARD_VERSION`].
    pub version: u32,
    /// The name of its directory.
    pub id: String,
    /// `--job NAME`.
    pub name: Option<String>,
    /// The digest of its batch, if that is what it is known by.
    pub digest: Option<String>,
    /// When it was made.
    pub created_ms: i64,
    /// When it was taken up again after it had been finished, if it was: none of its mail is older than that.
    #[serde(default)]
    pub renewed_ms: Option<i64>,
    /// When the latest run ended that came to its end.
    pub ended_ms: Option<i64>,
    /// When it was finished or cancelled.
    pub finished_ms: Option<i64>,
    /// Where it stands.
    pub state: JobState,
    /// The exit status of the latest run that came to its end.
    pub exit: Option<u8>,
    /// Runs that were begun.
    pub runs: u32,
    /// The Date field of messages without one (RFC 5322 3.6.1), the same in all runs.
    pub date: String,
    /// Where it was started.
    pub cwd: String,
    /// The command line as typed.
    pub command: Vec<String>,
    /// The files of its batch, as they were when they were read.
    pub inputs: Vec<InputStamp>,
    /// How messages were numbered and changed: [`digest`](super::digest())'s argument.
    pub numbering: String,
    /// The flags of its runs: only the command line knows what is in it.
    pub flags: serde_json::Value,
    /// The batch was read to its end.
    pub read_to_end: bool,
    /// Recipients of the batch, as far as it was read.
    pub recipients: u64,
    /// How many recipients stand where, at the end of the latest run.
    pub counts: BTreeMap<String, u64>,
}

/// What the maker of a job knows of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct NewCard {
    /// `--job NAME`.
    pub name: Option<String>,
    /// The digest of its batch.
    pub digest: Option<String>,
    /// The Date field of messages without one.
    pub date: String,
    /// Where it is started.
    pub cwd: String,
    /// The command line as typed.
    pub command: Vec<String>,
    /// The files of its batch.
    pub inputs: Vec<InputStamp>,
    /// How messages are numbered and changed.
    pub numbering: String,
    /// The flags of its runs.
    pub flags: serde_json::Value,
}

impl NewCard {
    /// The card of a job that begins now.
    pub(super) fn card(self, id: String, created_ms: i64) -> JobCard {
        JobCard {
            version: CARD_VERSION,
            id,
            name: self.name,
            digest: self.digest,
            created_ms,
            renewed_ms: None,
            ended_ms: None,
            finished_ms: None,
            state: JobState::Open,
            exit: None,
            runs: 0,
            date: self.date,
            cwd: self.cwd,
            command: self.command,
            inputs: self.inputs,
            numbering: self.numbering,
            flags: self.flags,
            read_to_end: false,
            recipients: 0,
            counts: BTreeMap::new(),
        }
    }
}

/// Only the version, to be read before the rest.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl JobCard {
    /// True if the power went before the card of a job that was just made reached the disk: a name is there, and nothing
    /// behind it. A job that ran for longer than a moment has a card, since a run writes it out when it begins; and one
    /// whose journal was folded certainly had one.
    pub(super) fn was_never_written(dir: &Path) -> bool {
        let is_folded = dir.join("ledger.sqlite").symlink_metadata().is_ok();
        let bytes = files::read(&dir.join(CARD), CARD_BYTES_MAX);
        !is_folded && bytes.is_ok_and(|bytes| bytes.iter().all(|byte| *byte == 0))
    }

    /// True if a card that cannot be used, perhaps one of another version, still says that its job has another name, or none.
    pub(super) fn is_surely_not_called(dir: &Path, id: &str, name: &str) -> bool {
        #[derive(Deserialize)]
        struct Called {
            id: String,
            // Not an `Option`: that would take a card that says nothing of it for one of a job without a name.
            name: serde_json::Value,
        }
        let Ok(bytes) = files::read(&dir.join(CARD), CARD_BYTES_MAX) else {
            return false;
        };
        let called = serde_json::from_slice::<Called>(&bytes);
        called.is_ok_and(|card| {
            card.id == id
                && (card.name.is_null() || card.name.as_str().is_some_and(|other| other != name))
        })
    }

    /// Reads the card in the directory of job `id`.
    pub(super) fn read(dir: &Path, id: &str) -> Result<JobCard, JobError> {
        let path = dir.join(CARD);
        let damaged = |why: String| JobError::Damaged {
            id: id.to_owned(),
            path: path.clone(),
            why,
        };
        let bytes = files::read(&path, CARD_BYTES_MAX).map_err(|error| match error {
            JobError::Io { error, .. } => damaged(error.to_string()),
            other => other,
        })?;
        let versioned: Versioned =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if versioned.version != CARD_VERSION {
            let why = format!(
                "it is of version {}, this program knows {CARD_VERSION}",
                versioned.version
            );
            return Err(damaged(why));
        }
        let card: JobCard =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if card.id != id {
            return Err(damaged("it is the card of another job".to_owned()));
        }
        Ok(card)
    }

    /// Writes the card into the directory of its job.
    pub(super) fn write(&self, dir: &Path, durable: bool) -> Result<(), JobError> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| JobError::io(&dir.join(CARD), "write it", error.into()))?;
        bytes.push(b'\n');
        files::replace(dir, CARD, &bytes, durable)
    }
}
