//! What is left of a run that was killed, compared with what the receivers took; and the same at the end of a round.
//!
//! The job's side is read with [`Snapshot`], as any look at a job is: nothing is changed by it.

use std::collections::{HashMap, HashSet};

use mailer::ledger::{Outcome, Snapshot};
use mailer::mail::{RecipientNo, Status};

use crate::run::{Ended, jobs, settle};
use crate::stage::Stage;

/// What is known of a job's recipients over all its runs.
pub struct Case<'a> {
    stage: &'a Stage,
    /// How often each was in doubt when a run was killed.
    pub doubts: Vec<u32>,
    /// Messages taken before the run that is looked at.
    seen: usize,
    /// The last run that the ledger knew of.
    run: u32,
    /// `--in-doubt hold`.
    holds: bool,
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

/// Sessions that can have been open at a kill: those that were shortly before, and those that came later.
#[derive(Clone, Copy)]
pub struct Sessions {
    open: u64,
    ever: u64,
}

impl Sessions {
    /// As the receivers see it now, before the kill.
    pub fn now(stage: &Stage) -> Sessions {
        let stats = stage.lab.sink.stats();
        Sessions {
            open: stats.open,
            ever: stats.connections,
        }
    }

    fn most(self, stage: &Stage) -> u64 {
        self.open + stage.lab.sink.stats().connections - self.ever
    }
}

impl<'a> Case<'a> {
    /// A job that has not begun.
    pub fn new(stage: &'a Stage, holds: bool) -> Case<'a> {
        Case {
            stage,
            doubts: vec![0; stage.mails.len()],
            seen: 0,
            run: 0,
            holds,
        }
    }

    /// Looks at the job after its run was killed.
    pub fn look(&mut self, sessions: Sessions) -> Phase {
        settle(&self.stage.lab);
        let most = sessions.most(self.stage);
        let taken = self.taken();
        let messages = self.stage.lab.sink.messages();
        let new = &messages[self.seen.min(messages.len())..];
        let Some(job) = jobs(&self.stage.lab).pop() else {
            assert!(messages.is_empty(), "mail was sent before there was a job");
            return Phase::Start;
        };
        let phase = phase(&job, !new.is_empty());
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
        }
        for (place, outcome) in outcomes.iter().enumerate() {
            self.doubts[place] += u32::from(sending.contains(&place));
            self.check_known(place, outcome, taken[place]);
        }
        self.check_sessions(new, &sending, most);
        self.seen = messages.len();
        phase
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
            false => (1 + self.doubts[place] + lossy).min(2),
        };
        let mail = &self.stage.mails[place];
        assert!(
            taken <= most,
            "{mail:?} was taken {taken} times, and was in doubt at {} kills",
            self.doubts[place]
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
            "{} transactions are in doubt, and {most} sessions were open",
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
        assert_eq!(ended.status, 1, "{}", ended.stderr);
        let jobs = jobs(&self.stage.lab);
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        let snapshot = Snapshot::read(&jobs[0]).unwrap();
        assert_eq!(snapshot.sending(), 0, "{}", ended.stderr);
        let outcomes = outcomes(&snapshot, self.stage.mails.len());
        let taken = self.taken();
        for (place, outcome) in outcomes.iter().enumerate() {
            self.check_known(place, outcome, taken[place]);
            self.check_end(place, outcome, taken[place]);
        }
        // A job that had finished before it was killed is only spoken of: there is no report.
        if ended.stderr.contains("nothing was sent") {
            assert!(ended.rows.is_empty(), "{}", ended.stderr);
        } else {
            self.check_report(ended, &outcomes, &taken);
        }
        let stats = self.stage.lab.sink.stats();
        assert_eq!(stats.violations_total(), 0, "{stats}");
        let mut end = End::default();
        for (outcome, taken) in outcomes.iter().zip(&taken) {
            let attempts = outcome
                .last
                .as_ref()
                .map_or(0, |last| last.passage.attempts);
            end.in_doubt += usize::from(was_in_doubt(outcome));
            end.resent += usize::from(was_in_doubt(outcome) && attempts > 1);
            end.twice += usize::from(*taken > 1);
            end.held += usize::from(outcome.status == Status::Held);
        }
        end
    }

    fn check_end(&self, place: usize, outcome: &Outcome, taken: u32) {
        let mail = &self.stage.mails[place];
        let doubts = self.doubts[place] + u32::from(self.stage.may_be_lossy(place));
        let is_right = match outcome.status {
            Status::Delivered => !self.stage.is_refused(place),
            Status::Refused => self.stage.is_refused(place),
            Status::Held => doubts >= if self.holds { 1 } else { 2 },
            _ => false,
        };
        assert!(
            is_right,
            "{mail:?}, in doubt {doubts} times, ends as {outcome:?}"
        );
        if self.holds && self.doubts[place] > 0 {
            assert_eq!(outcome.status, Status::Held, "{mail:?}");
        }
        if !self.holds && doubts == 0 && !self.stage.is_refused(place) {
            assert_eq!(taken, 1, "{mail:?}");
        }
    }

    /// The report has every recipient in order, and says of each what the ledger says.
    fn check_report(&self, ended: &Ended, outcomes: &[Outcome], taken: &[u32]) {
        assert_eq!(ended.rows.len(), self.stage.mails.len(), "{}", ended.stderr);
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

fn phase(job: &std::path::Path, has_sent: bool) -> Phase {
    let mut names: Vec<String> = std::fs::read_dir(job)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let has = |name: &str| names.iter().any(|each| each.starts_with(name));
    match () {
        () if has("ledger.sqlite.new") || has("ledger.sqlite-journal") => Phase::Fold,
        () if !has("journal-") && has("ledger.sqlite") => Phase::End,
        () if !has("journal-") => Phase::Start,
        () if has_sent => Phase::Sending,
        () => Phase::Intake,
    }
}
