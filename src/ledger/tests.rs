//! The ledger as a whole, and the journal's frames: see each module.

mod faults;
mod folds;
mod frames;
mod histories;
mod live;
mod rows;

use std::path::Path;

use super::journal::segments;

use super::*;
use crate::mail::{Enhanced, Passage, QueueId, Scope, Stage, Verdict};

/// Everybody is known.
pub(super) struct Everybody;

impl People for Everybody {
    fn person(&self, recipient: RecipientNo) -> Option<(MessageNo, String)> {
        let RecipientNo(no) = recipient;
        Some((MessageNo(no / 2), format!("r{no}@x.test")))
    }
}

fn open(directory: &Path) -> Ledger {
    open_with(directory, Options::default())
}

fn open_with(directory: &Path, options: Options) -> Ledger {
    Ledger::open(directory, options, Arc::new(Everybody)).unwrap()
}

fn via(n: u32) -> Via {
    Via {
        queue: QueueId(0),
        mx: format!("mx{}.x.test", n % 3).into(),
        ip: Some(std::net::IpAddr::from([127, 0, 0, (n % 7) as u8])),
        tls: if n.is_multiple_of(2) {
            "TLSv1.3 X".into()
        } else {
            "".into()
        },
    }
}

fn attempt(no: u32, status: Status, at: i64) -> Attempt {
    let code = match status {
        Status::Delivered => 250,
        Status::Deferred => 450,
        Status::InDoubt => 0,
        _ => 550,
    };
    let enhanced = (no.is_multiple_of(2)).then_some(Enhanced::new(4, 2, 515));
    let text = format!("reply {at}, ça");
    let verdict = Verdict::new(status, Scope::Recipient, Stage::Rcpt, code, enhanced, &text);
    Attempt {
        recipient: RecipientNo(no),
        passage: Passage::default().after(&verdict),
        verdict,
        via: via(no),
        at,
        took_ms: 17,
    }
}

/// One thing that happens to a recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Intent,
    Ends(Status),
    Left(Status),
}

/// All steps, with a letter for each.
const STEPS: [(char, Step); 7] = [
    ('I', Step::Intent),
    ('D', Step::Ends(Status::Delivered)),
    ('F', Step::Ends(Status::Deferred)),
    ('R', Step::Ends(Status::Refused)),
    ('B', Step::Ends(Status::InDoubt)),
    ('X', Step::Left(Status::Expired)),
    ('Q', Step::Left(Status::Queued)),
];

fn step_of(letter: char) -> Step {
    STEPS.iter().find(|(each, _)| *each == letter).unwrap().1
}

fn write(writer: &mut Writer, no: u32, step: Step, at: i64) {
    let recipient = RecipientNo(no);
    match step {
        Step::Intent => writer
            .intend(at, &via(no), [recipient].into_iter())
            .unwrap(),
        Step::Ends(status) => writer.attempt(&attempt(no, status, at)),
        Step::Left(status) => writer.left(at, status, &[recipient]),
    }
}

/// Everything a snapshot shows.
fn all(directory: &Path) -> Vec<(RecipientNo, Outcome)> {
    let snapshot = Snapshot::read(directory).unwrap();
    let mut found = Vec::new();
    snapshot
        .each(|recipient, outcome| found.push((recipient, outcome.clone())))
        .unwrap();
    let mut counts = [0; Status::ALL.len()];
    for (recipient, outcome) in &found {
        counts[position(outcome.status)] += 1;
        assert_eq!(&snapshot.outcome(*recipient).unwrap(), outcome);
    }
    assert_eq!(snapshot.counts().unwrap(), counts);
    found
}
