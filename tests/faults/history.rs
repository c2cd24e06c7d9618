//! Two accounts of one run: what the receiver took, and what the journal was told, each with its time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::UNIX_EPOCH;

use mailer::ledger::frames::Frames;
use mailer::ledger::record::Record;
use mailer::mail::Status;

use crate::shim::{Kind, Op};

/// What was recorded of a recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    Intent,
    Attempt(Status),
}

/// What happened. Times are nanoseconds since 1970.
pub struct History {
    /// Who took mail, and when, at the latest a moment before the reply.
    pub accepted: Vec<(u64, String)>,
    /// What was recorded of whom, and when.
    pub notes: BTreeMap<String, Vec<(u64, Note)>>,
}

impl History {
    /// That of a run. `everybody`: the recipients in the order of the batch; `maildir`: what the receiver took.
    pub fn of(ops: &[Op], everybody: &[String], maildir: &Path) -> History {
        let mut notes: BTreeMap<String, Vec<(u64, Note)>> = BTreeMap::new();
        let journal = |op: &&Op| op.kind == Kind::Write && op.path.contains("/journal-");
        for op in ops.iter().filter(journal) {
            for (_, record) in Frames::new(&op.data) {
                let (who, note) = match record {
                    Record::Intent { recipients, .. } => {
                        (recipients.iter().collect(), Note::Intent)
                    }
                    Record::Attempt(attempt) => {
                        (vec![attempt.recipient], Note::Attempt(attempt.status))
                    }
                    _ => continue,
                };
                for who in who {
                    let who = everybody[who.index()].clone();
                    notes.entry(who).or_default().push((op.end, note));
                }
            }
        }
        History {
            accepted: accepted(maildir),
            notes,
        }
    }

    /// Who had taken mail by this time.
    pub fn accepted_by(&self, time: u64) -> impl Iterator<Item = &str> {
        let by = move |(at, _): &&(u64, String)| *at <= time;
        self.accepted.iter().filter(by).map(|(_, who)| who.as_str())
    }

    /// When `note` was recorded of somebody, the last time up to `time`.
    pub fn noted(&self, who: &str, note: Note, time: u64) -> Option<u64> {
        let notes = self.notes.get(who).map_or(&[][..], Vec::as_slice);
        let mut notes = notes.iter().rev();
        notes
            .find(|(at, one)| *at <= time && *one == note)
            .map(|(at, _)| *at)
    }
}

/// Who got what is in a Maildir of the receiver, and when.
fn accepted(maildir: &Path) -> Vec<(u64, String)> {
    let mut accepted = Vec::new();
    for entry in std::fs::read_dir(maildir.join("new")).unwrap() {
        let entry = entry.unwrap();
        let time = entry.metadata().unwrap().modified().unwrap();
        let time = time.duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let text = std::fs::read_to_string(entry.path()).unwrap();
        for line in text.lines() {
            if let Some(to) = line.strip_prefix("X-Envelope-To: <") {
                accepted.push((time, to.trim_end_matches('>').to_owned()));
            }
        }
    }
    accepted.sort();
    accepted
}
