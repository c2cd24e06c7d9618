//! Dialogues: the SMTP client engine against a model server, in all combinations that matter, judged by an oracle.
//!
//! A dialogue is a level of pipelining, a number of messages and recipients, and the class of every answer of the server.
//! The model (`dialogues/model.rs`) complains of anything a client must not do; the client (`dialogues/client.rs`) drives
//! the engine as a blocking driver would. The oracle below knows nothing of the engine: it reads the model's record of
//! what was answered, and how much of it the client has seen, and says how each recipient must have ended.
//!
//! The tree of answers is walked depth first: every sequence of answers that can be reached with at most so many of them
//! not good.

#[path = "dialogues/client.rs"]
mod client;
#[path = "dialogues/model.rs"]
mod model;

use client::{Plan, Record, run};
use mailer::mail::Status;
use mailer::smtp::{Pipelining, RecipientEnd};
use model::{CLASSES, Class, What};

const LEVELS: [Pipelining; 3] = [Pipelining::None, Pipelining::Classic, Pipelining::Cross];

/// How a recipient has to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    Delivered,
    Deferred,
    Refused,
    InDoubt,
    Again,
    /// The session was over before it came to it.
    Untried,
}

/// How transaction `t` saw `what` answered, if the client has seen the reply.
fn seen(record: &Record, what: What) -> Option<Class> {
    record
        .model
        .answers
        .iter()
        .find(|answer| answer.what == what && answer.end.is_some_and(|end| end <= record.consumed))
        .map(|answer| answer.class)
}

/// True if the client has seen a 452 to a RCPT.
fn was_enough(record: &Record) -> bool {
    record.model.answers.iter().any(|answer| {
        let seen = answer.end.is_some_and(|end| end <= record.consumed);
        seen && answer.class == Class::Full && matches!(answer.what, What::Rcpt(..))
    })
}

/// True if the server has met `recipient` in transaction `t`.
fn was_named(record: &Record, t: usize, recipient: usize) -> bool {
    let mut answers = record.model.answers.iter();
    answers.any(|answer| answer.what == What::Rcpt(t, recipient))
}

/// What the answers say about `recipient` of transaction `t`.
fn due(record: &Record, t: usize, recipient: usize) -> Due {
    let transaction = &record.transactions[t];
    match seen(record, What::Mail(t)) {
        None => return Due::Untried,
        Some(Class::Temp | Class::Full) => return Due::Deferred,
        Some(Class::Perm) => return Due::Refused,
        Some(Class::Good | Class::Twice) => {}
        Some(_) => return Due::Deferred,
    }
    let accepted_before = transaction.recipients.iter().any(|&other| {
        let class = seen(record, What::Rcpt(t, other));
        other < recipient && matches!(class, Some(Class::Good | Class::Twice))
    });
    match seen(record, What::Rcpt(t, recipient)) {
        Some(Class::Good | Class::Twice) => {}
        Some(Class::Perm) => return Due::Refused,
        Some(Class::Full) if accepted_before => return Due::Again,
        Some(_) => return Due::Deferred,
        None => return Due::Deferred,
    }
    match seen(record, What::Data(t)) {
        Some(Class::Good | Class::Twice) if transaction.body_sent => {}
        Some(Class::Perm) => return Due::Refused,
        _ => return Due::Deferred,
    }
    match seen(record, What::Dot(t)) {
        Some(Class::Good | Class::Twice) => Due::Delivered,
        Some(Class::Perm) => Due::Refused,
        Some(Class::Temp | Class::Full | Class::Bye) => Due::Deferred,
        _ => Due::InDoubt,
    }
}

/// True if `end` is what is due.
fn fits(end: &RecipientEnd, due: Due, begun_ahead: bool) -> bool {
    match end {
        RecipientEnd::Verdict(verdict) => match verdict.status {
            Status::Delivered => due == Due::Delivered,
            Status::Refused => due == Due::Refused,
            Status::InDoubt => due == Due::InDoubt,
            Status::Deferred => matches!(due, Due::Deferred | Due::Untried),
            _ => false,
        },
        RecipientEnd::Again => due == Due::Again,
        RecipientEnd::NotTried => due == Due::Untried && begun_ahead,
    }
}

/// Everything that must hold of a dialogue.
fn judge(plan: &Plan, record: &Record) {
    let model = &record.model;
    let fail = |what: &str| {
        panic!(
            "{what}\n{plan:?}\n{:#?}\n{:#?}",
            record.transactions, model.answers
        )
    };
    if !model.violations.is_empty() {
        fail(&format!("violations: {:?}", model.violations));
    }
    // A reply too many shifts all that follow: then the refusals may be another's, but nothing else may be wrong.
    let shifted = model
        .answers
        .iter()
        .any(|answer| answer.class == Class::Twice);
    let mut transactions_in_doubt = 0;
    for (t, transaction) in record.transactions.iter().enumerate() {
        if transaction.ends.len() != transaction.recipients.len() {
            fail(&format!(
                "transaction {t} has not one end for each recipient"
            ));
        }
        let taken = model
            .accepted
            .iter()
            .filter(|accepted| accepted.transaction == t);
        let taken: Vec<_> = taken.collect();
        if taken
            .iter()
            .any(|accepted| accepted.content != transaction.content)
            || taken.len() > 1
        {
            fail(&format!("transaction {t} arrived changed, or twice"));
        }
        let mut in_doubt = false;
        for (&recipient, end) in transaction.recipients.iter().zip(&transaction.ends) {
            let arrived = taken
                .iter()
                .any(|accepted| accepted.recipients.contains(&recipient));
            let status = match end {
                RecipientEnd::Verdict(verdict) => Some(verdict.status),
                _ => None,
            };
            in_doubt |= status == Some(Status::InDoubt);
            if status == Some(Status::Delivered) && !arrived {
                fail(&format!("recipient {recipient} is said to be delivered"));
            }
            if arrived && !matches!(status, Some(Status::Delivered | Status::InDoubt)) {
                fail(&format!(
                    "recipient {recipient} got the message without our knowing"
                ));
            }
            if status == Some(Status::InDoubt) && !transaction.body_sent {
                fail(&format!("recipient {recipient} is in doubt without a dot"));
            }
            let due = due(record, t, recipient);
            // Where the server has shown how much is enough, those behind need not be named at all.
            let spared = *end == RecipientEnd::Again
                && was_enough(record)
                && !was_named(record, t, recipient);
            if !shifted && !spared && !fits(end, due, transaction.begun_ahead) {
                fail(&format!(
                    "recipient {recipient} of {t} ended as {end:?}, due is {due:?}"
                ));
            }
        }
        transactions_in_doubt += usize::from(in_doubt);
    }
    if transactions_in_doubt > 1 {
        fail("more than one transaction is in doubt");
    }
}

/// Walks all dialogues of `plan` with at most `faults_max` answers that are not good; how many they were.
fn walk(plan: &Plan, faults_max: usize) -> usize {
    let mut plan = plan.clone();
    let mut dialogues = 0;
    loop {
        let record = run(&plan);
        judge(&plan, &record);
        dialogues += 1;
        plan.script.resize(record.model.answers.len(), 0);
        let next = (0..plan.script.len()).rev().find(|&i| {
            let faults = plan.script[..i]
                .iter()
                .filter(|&&choice| choice > 0)
                .count();
            faults < faults_max && usize::from(plan.script[i]) + 1 < CLASSES.len()
        });
        let Some(next) = next else {
            return dialogues;
        };
        plan.script.truncate(next + 1);
        plan.script[next] += 1;
    }
}

fn plan(level: Pipelining, messages: usize, recipients: usize) -> Plan {
    Plan {
        level,
        recipients,
        messages,
        careless: false,
        script: Vec::new(),
        client_cut: None,
        server_cut: None,
    }
}

#[test]
fn every_answer_at_every_stage() {
    let mut dialogues = 0;
    for level in LEVELS {
        for messages in 1..=3 {
            for recipients in 1..=3 {
                let faults_max = match (messages, recipients) {
                    (1, 1) => 7,
                    (1, 2) | (2, 1) => 3,
                    _ => 2,
                };
                for careless in [false, true] {
                    let plan = Plan {
                        careless,
                        ..plan(level, messages, recipients)
                    };
                    dialogues += walk(&plan, faults_max);
                }
            }
        }
    }
    println!("{dialogues} dialogues");
    assert!(dialogues > 100_000);
}

#[test]
fn the_connection_lost_at_every_byte() {
    let mut dialogues = 0;
    for level in LEVELS {
        for (messages, recipients) in [(1, 1), (2, 2), (3, 1)] {
            // Clean, with a refused recipient, and with a refused transaction before the others.
            for script in [vec![], vec![0, 0, 0, 2], vec![0, 0, 1]] {
                let plan = Plan {
                    script,
                    ..plan(level, messages, recipients)
                };
                let whole = run(&plan);
                for cut in 0..=whole.written {
                    let plan = Plan {
                        client_cut: Some(cut),
                        ..plan.clone()
                    };
                    judge(&plan, &run(&plan));
                    dialogues += 1;
                }
                for cut in 0..=whole.model.stream.len() {
                    let plan = Plan {
                        server_cut: Some(cut),
                        ..plan.clone()
                    };
                    judge(&plan, &run(&plan));
                    dialogues += 1;
                }
            }
        }
    }
    println!("{dialogues} dialogues");
    assert!(dialogues > 10_000);
}

#[test]
fn round_trips_of_a_message_are_four_two_and_one() {
    for (level, each) in [
        (Pipelining::None, 4),
        (Pipelining::Classic, 2),
        (Pipelining::Cross, 1),
    ] {
        let record = run(&plan(level, 6, 1));
        let turns: Vec<usize> = record
            .flights
            .windows(2)
            .map(|two| two[1] - two[0])
            .collect();
        assert_eq!(turns, vec![each; 5], "{level:?}");
        assert_eq!(record.model.accepted.len(), 6);
    }
}

#[test]
fn all_is_delivered_where_all_goes_well() {
    for level in LEVELS {
        let record = run(&plan(level, 3, 3));
        let ends = record
            .transactions
            .iter()
            .flat_map(|transaction| &transaction.ends);
        let delivered = ends.filter(|end| fits(end, Due::Delivered, false)).count();
        assert_eq!(delivered, 9);
    }
}
