//! What `mailer status` and `mailer report` say of a job that nobody runs, compared with its ledger.

use std::path::Path;

use mailer::ledger::Outcome;
use mailer::mail::Status;

use crate::run::{ask, id, rows};
use crate::stage::Stage;

/// Asks for the status and the report of a job, whose recipients stand so. Returns what is known of its batch.
///
/// # Panics
/// If one of them says something else.
pub fn look(stage: &Stage, job: &Path, outcomes: &[Outcome]) -> Look {
    let report = ask(&stage.lab, "report", &[id(job)]);
    let rows = rows(report.as_bytes());
    for (place, row) in rows.iter().enumerate() {
        let (number, address) = &stage.mails[place];
        assert_eq!((row.message, &row.recipient), (*number, address));
        assert_eq!(row.status, outcomes[place].status.name(), "{row:?}");
    }
    // Nobody is tried who would not be found again.
    let unknown = outcomes[rows.len()..].iter();
    assert!(unknown.clone().all(|one| *one == Outcome::QUEUED));
    let status = ask(&stage.lab, "status", &[id(job)]);
    for (each, name) in Status::ALL.map(|each| (each, each.name())) {
        let reported = rows.iter().filter(|row| row.status == name).count();
        assert_eq!(count_of(&status, name), reported, "{each:?} in {status}");
    }
    let in_doubt = rows.iter().filter(|row| is_doubtful(&row.status)).count();
    let lists = status.contains("may have been delivered:");
    assert_eq!(lists, in_doubt > 0, "{status}");
    Look {
        known: rows.len(),
        is_read_to_end: !status.contains(" as far as the batch was read"),
        in_doubt: rows
            .into_iter()
            .filter(|row| row.status == "in-doubt")
            .map(|row| row.recipient)
            .collect(),
    }
}

/// A job as a person sees it.
pub struct Look {
    /// Recipients of the batch that the job has: the first of it.
    pub known: usize,
    /// These are all.
    pub is_read_to_end: bool,
    /// Those in doubt.
    pub in_doubt: Vec<String>,
}

fn is_doubtful(status: &str) -> bool {
    matches!(status, "in-doubt" | "held")
}

/// The count in the table's line of this status: `  delivered    12   3.4 %`.
fn count_of(status: &str, name: &str) -> usize {
    let lines = status.lines().map(|line| line.split_whitespace());
    let mut counts = lines.filter_map(|mut words| {
        let (first, count) = (words.next()?, words.next()?);
        let is_it = first == name && words.nth(1) == Some("%");
        is_it.then(|| count.parse().ok()).flatten()
    });
    counts.next().unwrap_or(0)
}
