//! What is left of a run that was killed, compared with what the receivers took; and the same at the end of a round.
//!
//! The job's side is read with [`Snapshot`], as any look at a job is: nothing is changed by it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use mailer::ledger::{Outcome, Snapshot};
use mailer::mail::{RecipientNo, Status};

use crate::job::{Look, look};
use crate::resumed::Fate;
use crate::run::{Ended, jobs, settle};
use crate::stage::Stage;

/// What is known of a job's recipients over all its runs.
pub struct Case<'a> {
    stage: &'a Stage,
    /// How often each was in doubt when a run was killed.
    pub doubts: Vec<u32>,
    /// How many of these doubts a person has settled.
    settled: Vec<u32>,
    /// Messages taken before the run that is looked at.
    seen: usize,
    /// The last run that the ledger knew of.
    run: u32,
    /// The last segment of its journal.
    segment: u64,
    /// `--in-doubt hold`.
    holds: bool,
    /// What became of the batch file.
    fate: Fate,
}

/// What a kill has left.
pub struct Left {
    /// Where the run was.
    pub phase: Phase,
    /// It had sealed a segment of the journal and gone on in another.
    pub was_rotated: bool,
    /// The job as a person sees it, if there is one.
    pub job: Option<(PathBuf, Look)>,
}

/// Recipients at the end of a round.
#[derive(Default)]
pub struct End {
    /// In doubt at some time, at a kill or because a reply was lost.
    pub in_doubt: usize,
    /// Tried again after that.
    pub resent: usize,
    /// Got their mail twice.
    pub twice: usize,
    /// Left for a person to settle.
    pub held: usize,
    /// Got nothing, and are not among those of whom it is said.
    pub lost: usize,
    /// Got their mail twice and were never in doubt.
    pub unsure: usize,
    /// Their bytes were gone.
    pub invalid: usize,
}

impl End {
    /// Both together.
    pub fn add(&mut self, other: &End) {
        self.in_doubt += other.in_doubt;
        self.resent += other.resent;
        self.twice += other.twice;
        self.held += other.held;
        self.lost += other.lost;
        self.unsure += other.unsure;
        self.invalid += other.invalid;
    }
}

/// Where a run was when it was killed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// There is no job yet, or no run of it.
    Start,
    /// A journal, and nothing was sent.
    Intake,
    /// Mail was leaving.
    Sending,
    /// A database was being written.
    Fold,
    /// Nothing was left to fold.
    End,
}

impl Phase {
    pub const ALL: [Phase; 5] = [
        Phase::Start,
        Phase::Intake,
        Phase::Sending,
        Phase::Fold,
        Phase::End,
    ];
}

/// Sessions whose transaction can be in doubt after a kill: those that were open shortly before it, those that came later, and those that
/// the receivers had cut, of which the client may not have heard yet. One that the client ended has nothing in doubt: its last
/// verdict is recorded before its farewell. No worker has two.
#[derive(Clone, Copy)]
pub struct Sessions {
    cut_before: u64,
    open: u64,
    ever: u64,
    cut: u64,
    workers: u64,
}

impl Sessions {
    /// Nothing has happened yet: before the run.
    pub fn from_now(stage: &Stage, workers: u64) -> Sessions {
        Sessions {
            cut_before: stage.lab.sink.stats().cut,
            open: 0,
            ever: 0,
            cut: 0,
            workers,
        }
    }

    /// As the receivers see it now, just before the kill.
    pub fn at_kill(&mut self, stage: &Stage) {
        let stats = stage.lab.sink.stats();
        self.open = stats.open;
        self.ever = stats.connections;
        self.cut = stats.cut - self.cut_before;
    }

    fn most(self, stage: &Stage) -> u64 {
        let later = stage.lab.sink.stats().connections - self.ever;
        (self.open + later + self.cut).min(self.workers)
    }
}

impl<'a> Case<'a> {
    /// A job that has not begun.
    pub fn new(stage: &'a Stage, holds: bool) -> Case<'a> {
        Case {
            stage,
            doubts: vec![0; stage.mails.len()],
            settled: vec![0; stage.mails.len()],
            seen: 0,
            run: 0,
            segment: 0,
            holds,
            fate: Fate::Stays,
        }
    }

    /// What has become of the batch file since the first kill.
    pub fn batch_is(&mut self, fate: Fate) {
        self.fate = fate;
    }

    /// A person has settled the doubts about these; that is a run to the ledger, too.
    pub fn settled(&mut self, job: &Path, places: impl Iterator<Item = usize>) {
        places.for_each(|place| self.settled[place] = self.doubts[place]);
        self.note_run(job);
    }

    /// A run has ended by itself, and the round goes on.
    pub fn went_by(&mut self, job: &Path) {
        settle(&self.stage.lab);
        self.seen = self.stage.lab.sink.messages().len();
        self.note_run(job);
    }

    fn note_run(&mut self, job: &Path) {
        let run = Snapshot::read(job).unwrap().run();
        self.segment += u64::from(run - std::mem::replace(&mut self.run, run));
    }

    /// Doubts that nobody has settled.
    fn open_doubts(&self, place: usize) -> u32 {
        self.doubts[place] - self.settled[place]
    }

    /// Looks at the job after its run was killed.
    pub fn look(&mut self, sessions: Sessions) -> Left {
        settle(&self.stage.lab);
        let most = sessions.most(self.stage);
        let taken = self.taken();
        let messages = self.stage.lab.sink.messages();
        let new = &messages[self.seen.min(messages.len())..];
        let Some(job) = jobs(&self.stage.lab).pop() else {
            assert!(messages.is_empty(), "mail was sent before there was a job");
            return Left {
                phase: Phase::Start,
                was_rotated: false,
                job: None,
            };
        };
        let mut phase = phase(&job, !new.is_empty());
        let before = self.segment;
        self.segment = last_segment(&job).max(before);
        let snapshot = Snapshot::read(&job).unwrap();
        let outcomes = outcomes(&snapshot, self.stage.mails.len());
        let mut sending: HashSet<usize> = (0..outcomes.len())
            .filter(|place| snapshot.is_sending(RecipientNo(*place as u32)))
            .collect();
        if snapshot.run() == std::mem::replace(&mut self.run, snapshot.run()) {
            // It was killed before it had opened the ledger: what is in doubt there is so since the run before.
            assert!(
                new.is_empty(),
                "mail was sent that the ledger does not know of"
            );
            sending.clear();
            phase = Phase::Start;
        }
        for (place, outcome) in outcomes.iter().enumerate() {
            self.doubts[place] += u32::from(sending.contains(&place));
            self.check_known(place, outcome, taken[place]);
        }
        self.check_sessions(new, &sending, most);
        self.seen = messages.len();
        drop(snapshot);
        let look = look(self.stage, &job, &outcomes);
        Left {
            phase,
            was_rotated: self.segment > before + 1,
            job: Some((job, look)),
        }
    }

    /// Whoever got mail is delivered or was in doubt, and whoever is delivered got mail.
    fn check_known(&self, place: usize, outcome: &Outcome, taken: u32) {
        let was_in_doubt = was_in_doubt(outcome);
        let is_known = outcome.status == Status::Delivered || was_in_doubt;
        let mail = &self.stage.mails[place];
        assert!(
            taken < 2 || was_in_doubt,
            "{mail:?} was taken {taken} times, and nothing tells of it: {outcome:?}"
        );
        assert!(
            taken == 0 || is_known,
            "{mail:?} was taken and is {outcome:?}: it would be sent again as if for the first time"
        );
        assert!(
            taken > 0 || outcome.status != Status::Delivered,
            "{mail:?} was not taken and is {outcome:?}: it would be lost"
        );
        self.check_count(place, taken);
    }

    fn check_count(&self, place: usize, taken: u32) {
        let lossy = u32::from(self.stage.may_be_lossy(place));
        let most = match self.holds {
            true => 1,
            false => (1 + self.open_doubts(place) + lossy).min(2),
        };
        let mail = &self.stage.mails[place];
        assert!(
            taken <= most,
            "{mail:?} was taken {taken} times, was in doubt at {} kills, and settled after {}",
            self.doubts[place],
            self.settled[place]
        );
    }

    /// At most one transaction of each session, and no more than there were sessions.
    fn check_sessions(&self, new: &[mailer::sink::Received], sending: &HashSet<usize>, most: u64) {
        let mut unsaid: HashMap<u64, u32> = HashMap::new();
        for message in new {
            if self
                .stage
                .places_of(message)
                .any(|place| sending.contains(&place))
            {
                *unsaid.entry(message.session).or_default() += 1;
            }
        }
        for (session, count) in unsaid {
            assert!(
                count <= 1,
                "session {session} has {count} messages in doubt"
            );
        }
        let transactions: HashSet<(u64, &str)> = sending
            .iter()
            .map(|place| {
                let (number, address) = &self.stage.mails[*place];
                (*number, address.rsplit('@').next().unwrap_or_default())
            })
            .collect();
        assert!(
            transactions.len() as u64 <= most,
            "{} transactions are in doubt, and {most} sessions can have been open",
            transactions.len()
        );
    }

    /// How often each recipient's mail was taken.
    pub fn taken(&self) -> Vec<u32> {
        self.stage.taken_at(&self.stage.lab)
    }

    /// Looks at the job after a run that ended by itself: every recipient, by the rules of its receiver, and the report.
    pub fn close(&mut self, ended: &Ended) -> End {
        settle(&self.stage.lab);
        let jobs = jobs(&self.stage.lab);
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        let snapshot = Snapshot::read(&jobs[0]).unwrap();
        assert_eq!(snapshot.sending(), 0, "{}", ended.stderr);
        let outcomes = outcomes(&snapshot, self.stage.mails.len());
        drop(snapshot);
        let look = look(self.stage, &jobs[0], &outcomes);
        self.check_status(ended, &look);
        let taken = self.taken();
        for (place, outcome) in outcomes.iter().enumerate() {
            self.check_known(place, outcome, taken[place]);
            if place < look.known {
                self.check_end(place, outcome, taken[place]);
            } else {
                assert_eq!(taken[place], 0, "nobody is to know of {place}");
            }
        }
        // Of a job that had finished before it was killed there is nothing to report, nor of one without a batch.
        let is_silent = ended.was_over || look.known == 0;
        if is_silent && ended.rows.is_empty() {
            let said = &ended.stderr;
            let is_told = said.contains("nothing was sent") || said.contains("is finished");
            let is_nothing = ended.status == 0 && said.is_empty();
            assert!(is_told || is_nothing || look.known == 0, "{said}");
        } else {
            self.check_report(ended, &outcomes[..look.known], &taken);
        }
        let stats = self.stage.lab.sink.stats();
        assert_eq!(stats.violations_total(), 0, "{stats}");
        self.sum_up(&outcomes[..look.known], &taken)
    }

    /// The exit status, and what is said if the rest of the batch could not be read.
    fn check_status(&self, ended: &Ended, look: &Look) {
        let stderr = &ended.stderr;
        if look.is_read_to_end {
            assert_eq!(look.known, self.stage.mails.len(), "{stderr}");
            let is_right = ended.status == 1 || ended.was_over && ended.status == 0;
            assert!(is_right, "{}: {stderr}", ended.status);
            return;
        }
        assert_ne!(self.fate, Fate::Stays, "{stderr}");
        assert_eq!(ended.status, self.fate.status(), "{stderr}");
        let lines: Vec<&str> = stderr
            .lines()
            .filter(|line| line.contains("batch.mbox: "))
            .collect();
        assert_eq!(lines.len(), 1, "{stderr}");
        let says = lines[0].contains("what had not been read of the batch is not part of this job");
        assert!(says || look.known == 0, "{stderr}");
    }

    fn sum_up(&self, outcomes: &[Outcome], taken: &[u32]) -> End {
        let mut end = End::default();
        for (place, (outcome, taken)) in outcomes.iter().zip(taken).enumerate() {
            let last = outcome.last.as_ref();
            let attempts = last.map_or(0, |last| last.passage.attempts);
            let is_told = matches!(
                outcome.status,
                Status::Refused | Status::Invalid | Status::Held
            );
            let in_doubt = self.doubts[place] > 0 || self.stage.may_be_lossy(place);
            end.in_doubt += usize::from(was_in_doubt(outcome));
            end.resent += usize::from(was_in_doubt(outcome) && attempts > 1);
            end.twice += usize::from(*taken > 1);
            end.held += usize::from(outcome.status == Status::Held);
            end.invalid += usize::from(outcome.status == Status::Invalid);
            end.lost += usize::from(*taken == 0 && !is_told);
            end.unsure += usize::from(*taken > 1 && !in_doubt);
        }
        end
    }

    fn check_end(&self, place: usize, outcome: &Outcome, taken: u32) {
        let mail = &self.stage.mails[place];
        let lossy = u32::from(self.stage.may_be_lossy(place));
        let doubts = self.doubts[place] + lossy;
        let is_right = match outcome.status {
            Status::Delivered => !self.stage.is_refused(place),
            Status::Refused => self.stage.is_refused(place),
            // A server that loses replies may lose both of a recipient's.
            Status::Held => doubts + lossy >= if self.holds { 1 } else { 2 },
            // Its bytes are gone, and whether it arrived before that is known or in doubt.
            Status::Invalid => self.fate != Fate::Stays && (taken == 0 || doubts > 0),
            _ => false,
        };
        assert!(
            is_right,
            "{mail:?}, in doubt {doubts} times, ends as {outcome:?}"
        );
        if self.holds && self.doubts[place] > 0 {
            assert_eq!(outcome.status, Status::Held, "{mail:?}");
        }
        let is_sure = !self.holds && self.open_doubts(place) + lossy == 0;
        if is_sure && outcome.status == Status::Delivered {
            assert_eq!(taken, 1, "{mail:?}");
        }
    }

    /// The report has every recipient in order, and says of each what the ledger says.
    fn check_report(&self, ended: &Ended, outcomes: &[Outcome], taken: &[u32]) {
        assert_eq!(ended.rows.len(), outcomes.len(), "{}", ended.stderr);
        for (place, row) in ended.rows.iter().enumerate() {
            let (number, address) = &self.stage.mails[place];
            assert_eq!((row.message, &row.recipient), (*number, address));
            assert_eq!(row.status, outcomes[place].status.name(), "{row:?}");
            let attempts: u32 = row.attempts.parse().unwrap();
            assert!(attempts >= taken[place], "{row:?}: taken {}", taken[place]);
        }
    }
}

fn was_in_doubt(outcome: &Outcome) -> bool {
    let last = outcome.last.as_ref();
    last.is_some_and(|last| last.passage.in_doubt)
}

/// Where recipients 0 to `count` stand; those that nothing is known of are queued.
pub fn outcomes(snapshot: &Snapshot, count: usize) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::QUEUED; count];
    snapshot
        .each(|recipient, outcome| {
            let place = outcomes.get_mut(recipient.index());
            *place.expect("a recipient too many") = outcome.clone();
        })
        .unwrap();
    outcomes
}

fn names(job: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(job).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.collect()
}

/// The number of the segment that was appended to last, if it is there still.
fn last_segment(job: &Path) -> u64 {
    let names = names(job);
    let numbers = names
        .iter()
        .filter_map(|name| name.strip_prefix("journal-"));
    let numbers = numbers.filter_map(|number| number.parse().ok());
    numbers.max().unwrap_or(0)
}

fn phase(job: &Path, has_sent: bool) -> Phase {
    let names = names(job);
    let has = |name: &str| names.iter().any(|each| each.starts_with(name));
    match () {
        () if has("ledger.sqlite.new") || has("ledger.sqlite-journal") => Phase::Fold,
        () if !has("journal-") && has("ledger.sqlite") => Phase::End,
        () if !has("journal-") => Phase::Start,
        () if has_sent => Phase::Sending,
        () => Phase::Intake,
    }
}
