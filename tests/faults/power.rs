//! The power goes after any operation on the state directory. What is synced is on the disk; the rest may be or not.
//!
//! A job is run once, slowly, with the shim in between. Then, for each of its operations, the disks that may be found are
//! rebuilt, and the job goes on from each of them with a receiver that has taken nothing yet. Whoever had mail before the
//! power went must not get it again if that had been recorded for more than a second; everybody else must get it, or be
//! listed as in doubt.
//!
//! Disks that are the same are tried once, and checked for every moment at which they may be found.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use mailer::mail::Status;
use mailer::sink::{SinkConfig, Storage};

use crate::batch::Batch;
use crate::disk::{Disk, Tree, make_dir, restore};
use crate::history::{History, Note};
use crate::lab::{Lab, keeping};
use crate::shim::{self, Op};
use crate::{each, is_full};

/// The promise is a second; a machine that is busy with other tests wakes the thread that syncs a little later.
const RECORDED_FOR_NS: u64 = 1_500_000_000;

/// The clock that files get their times from ticks at least so often.
const TICK_NS: u64 = 10_000_000;

/// A job, and how its runs go.
struct Story<'a> {
    batch: Batch,
    everybody: Vec<String>,
    rules: &'a [&'a str],
    /// The flags of each run, and the status that it ends with.
    runs: &'a [(&'a [&'a str], i32)],
    /// Each intent is synced before the last byte of its message leaves.
    syncs_each: bool,
    /// How many disks are tried unless all are.
    disks_max: usize,
}

/// A disk that may be found, between which moments.
struct Found {
    tree: Tree,
    what: String,
    /// The power goes at this time at the earliest ...
    first: u64,
    /// ... and at this one at the latest.
    last: u64,
}

/// What a run from a disk that was found came to.
struct Resumed {
    sent: BTreeSet<String>,
    held: BTreeSet<String>,
}

impl Story<'_> {
    fn play(&self) {
        let maildir = tempfile::tempdir().unwrap();
        let receiver = SinkConfig {
            storage: Storage::Maildir(maildir.path().to_path_buf()),
            ..keeping(self.rules)
        };
        let lab = Lab::new("SYNTHETIC", receiver);
        let batch = lab.file("batch.mbox", self.batch.bytes());
        make_dir(&lab.path("state"));
        let log = lab.path("log");
        for (flags, status) in self.runs {
            let flags = [&["--retry-min", "100ms", "--retry-max", "300ms"], *flags].concat();
            let ended = shim::start(&lab, &log, None, &flags, &[&batch]).wait();
            ended.assert_status(*status);
        }
        let ops = shim::read_log(&log, &lab);
        let history = History::of(&ops, &self.everybody, maildir.path());
        self.check_undisturbed(&history);
        let found = self.choose(disks(&ops));
        let failures = Mutex::new(Vec::new());
        each(&found, |found| {
            for hold in [true, false] {
                if let Err(failure) = self.try_disk(found, hold, &history) {
                    failures.lock().unwrap().push(failure);
                }
            }
        });
        let failures = failures.into_inner().unwrap();
        println!(
            "{} operations, {} disks tried, {} failures",
            ops.len(),
            found.len(),
            failures.len()
        );
        assert!(
            failures.is_empty(),
            "{} of {}:\n{}",
            failures.len(),
            found.len(),
            failures[..failures.len().min(12)].join("\n")
        );
    }

    /// Everybody got it once, and nobody before that was recorded.
    fn check_undisturbed(&self, history: &History) {
        let got: Vec<&str> = history.accepted_by(u64::MAX).collect();
        let once: BTreeSet<&str> = got.iter().copied().collect();
        assert_eq!(
            (got.len(), once.len()),
            (self.everybody.len(), self.everybody.len())
        );
    }

    /// All disks, or so many of them, spread evenly, and those that may be found for long.
    fn choose(&self, found: Vec<Found>) -> Vec<Found> {
        let every = match is_full() {
            true => 1,
            false => found.len().div_ceil(self.disks_max).max(1),
        };
        let is_chosen = |(number, found): &(usize, Found)| {
            number.is_multiple_of(every) || found.last - found.first > RECORDED_FOR_NS
        };
        let chosen = found.into_iter().enumerate().filter(is_chosen);
        chosen.map(|(_, found)| found).collect()
    }

    fn try_disk(&self, found: &Found, hold: bool, history: &History) -> Result<(), String> {
        let resumed = self.resume(found, hold)?;
        let mut wrong = Vec::new();
        let early: BTreeSet<&str> = history.accepted_by(found.first).collect();
        for who in &self.everybody {
            let had = early.contains(who.as_str());
            if !had && !resumed.sent.contains(who) && !resumed.held.contains(who) {
                wrong.push(format!("{who} is lost"));
            }
        }
        for who in self.may_have_it(found.last, hold, history) {
            let note = match hold {
                // Nothing that is in doubt is sent, so the intent is enough.
                true => Note::Intent,
                false => Note::Attempt(Status::Delivered),
            };
            let recorded_for = if hold && self.syncs_each {
                0
            } else {
                RECORDED_FOR_NS
            };
            let recorded = history.noted(who, note, found.last);
            let is_old = recorded.is_some_and(|at| at + recorded_for <= found.last);
            if resumed.sent.contains(who) && is_old {
                let ago = (found.last - recorded.unwrap_or_default()) / 1_000_000;
                wrong.push(format!("{who} gets it twice, recorded {ago} ms before"));
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "{} (hold: {hold}): {}",
                found.what,
                wrong.join("; ")
            )),
        }
    }

    /// Who had taken mail by this time; with an intent a server may have done so long before its reply.
    fn may_have_it<'h>(&'h self, time: u64, hold: bool, history: &'h History) -> Vec<&'h str> {
        match hold && !self.syncs_each {
            true => self.everybody.iter().map(String::as_str).collect(),
            // The time of a file may be a tick of the clock too early.
            false => history.accepted_by(time - TICK_NS).collect(),
        }
    }

    fn resume(&self, found: &Found, hold: bool) -> Result<Resumed, String> {
        let lab = Lab::with_rules(&[]);
        restore(&found.tree, &lab.path("state"));
        let mode = if hold { "hold" } else { "resend" };
        let flags = [
            "--in-doubt",
            mode,
            "--in-doubt-wait",
            "1ms",
            "--retry-min",
            "1ms",
            "--retry-max",
            "10ms",
        ];
        let ended = lab.send(&self.batch, &flags);
        let is_fine = matches!(ended.status, Some(0 | 1)) && !ended.stderr.contains("panicked");
        if !is_fine {
            return Err(format!(
                "{}: status {:?}: {}",
                found.what, ended.status, ended.stderr
            ));
        }
        let mut sent = BTreeSet::new();
        for (_, who) in lab.received() {
            if !sent.insert(who.clone()) {
                return Err(format!("{}: {who} gets it twice from one run", found.what));
            }
        }
        let held = ended.pairs(&["held"]).into_iter().map(|(_, who)| who);
        Ok(Resumed {
            sent,
            held: held.collect(),
        })
    }
}

/// All different disks that the operations may leave.
fn disks(ops: &[Op]) -> Vec<Found> {
    let mut disk = Disk::new();
    let mut known: HashMap<Tree, usize> = HashMap::new();
    let mut found: Vec<Found> = Vec::new();
    for (number, op) in ops.iter().enumerate() {
        let before = disk.clone();
        disk.apply(op);
        let last = ops.get(number + 1).map_or(op.end, |next| next.begin);
        for (what, tree) in disk.remains(op, &before) {
            if let Some(at) = known.get(&tree) {
                found[*at].last = last;
                continue;
            }
            known.insert(tree.clone(), found.len());
            found.push(Found {
                tree,
                what: format!(
                    "after operation {number} ({:?} {}): {what}",
                    op.kind, op.path
                ),
                first: op.end,
                last,
            });
        }
    }
    found
}

/// `count` recipients, most with a message of their own, some with one together.
fn batch(count: usize) -> (Batch, Vec<String>) {
    let everybody: Vec<String> = (0..count)
        .map(|n| format!("u{n}@d{}.test", n % 7 % 4))
        .collect();
    let mut batch = Batch::default();
    let mut rest = &everybody[..];
    while let [first, others @ ..] = rest {
        // Those of one domain share a transaction.
        let together = if others.len() % 10 == 3 {
            3.min(rest.len())
        } else {
            1
        };
        let names: Vec<&str> = rest[..together].iter().map(String::as_str).collect();
        batch.add(&names);
        rest = &rest[together..];
        let _ = first;
    }
    (batch, everybody)
}

#[test]
fn nobody_is_lost_and_what_was_recorded_for_a_second_is_known() {
    let (batch, everybody) = batch(60);
    Story {
        batch,
        everybody,
        rules: &[
            "domain=d3.test stage=rcpt first=4 reply=\"450 4.2.1 later\"",
            "stage=dot delay=150ms",
        ],
        runs: &[
            (&["--max-workers", "4", "--run-for", "2s"], 75),
            (&["--max-workers", "4"], 0),
        ],
        syncs_each: false,
        disks_max: 140,
    }
    .play();
}

#[test]
fn an_intent_is_safe_after_a_second_however_long_its_reply_takes() {
    let (batch, everybody) = batch(2);
    Story {
        batch,
        everybody,
        // Sent long after anything else is recorded, and answered long after that.
        rules: &["stage=rcpt delay=1500ms", "stage=dot delay=3s"],
        runs: &[(&["--max-workers", "4"], 0)],
        syncs_each: false,
        disks_max: 30,
    }
    .play();
}

#[test]
fn with_sync_nothing_that_was_recorded_is_forgotten() {
    let (batch, everybody) = batch(12);
    Story {
        batch,
        everybody,
        rules: &["stage=dot delay=30ms"],
        runs: &[(&["--max-workers", "4", "--sync"], 0)],
        syncs_each: true,
        disks_max: 60,
    }
    .play();
}
