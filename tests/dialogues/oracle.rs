//! The oracle: how each recipient must have ended, and what else must hold of a dialogue.

use crate::client::{Plan, Record};
use crate::words::{Class, Tls, What};
use mailer::mail::{Scope, Stage, Status};
use mailer::smtp::RecipientEnd;

/// How a recipient has to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
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

/// True if a recipient before this one was accepted.
fn was_accepted_before(record: &Record, t: usize, recipient: usize) -> bool {
    let mut recipients = record.transactions[t].recipients.iter();
    recipients.any(|&other| {
        let class = seen(record, What::Rcpt(t, other));
        other < recipient && matches!(class, Some(Class::Good | Class::Twice))
    })
}

/// The same where the content left with the commands: whatever ends the session now leaves doubt, but for a server that
/// says goodbye, and for recipients of whom it has said no.
fn due_by_chunk(plan: &Plan, record: &Record, t: usize, recipient: usize) -> Due {
    use Class::{Bye, Full, Garbage, Good, Odd, Perm, Temp, Twice};
    let transaction = &record.transactions[t];
    let rcpts = transaction.recipients.iter().map(|&r| What::Rcpt(t, r));
    let mut all = std::iter::once(What::Mail(t))
        .chain(rcpts)
        .chain([What::Bdat(t)]);
    // What ended the session within this transaction; `None` if the connection was lost, or nothing did.
    let end = all
        .find_map(|what| seen(record, what).filter(|class| matches!(class, Bye | Garbage | Odd)));
    let cut = match end {
        Some(Bye) => Due::Deferred,
        _ => Due::InDoubt,
    };
    let refused = match seen(record, What::Mail(t)) {
        Some(Good | Twice) => None,
        Some(Perm) => Some(Due::Refused),
        Some(Temp | Full) => Some(Due::Deferred),
        _ => return cut,
    };
    let rcpt = seen(record, What::Rcpt(t, recipient));
    // To a careful server a RCPT behind a refused MAIL is a bad sequence: that is its good answer then.
    let accepted = matches!(rcpt, Some(Good | Twice)) && (refused.is_none() || plan.careless);
    if let (Some(refused), false) = (refused, accepted) {
        // A refusal stands until the server speaks nonsense.
        return match end {
            Some(Garbage | Odd) => Due::InDoubt,
            _ => refused,
        };
    }
    match rcpt {
        Some(Good | Twice) => {}
        Some(Perm) => return Due::Refused,
        Some(Full) if was_accepted_before(record, t, recipient) => return Due::Again,
        Some(Temp | Full) => return Due::Deferred,
        _ => return cut,
    }
    match (seen(record, What::Bdat(t)), refused) {
        (Some(Good | Twice), _) => Due::Delivered,
        (Some(Perm | Temp | Full), Some(refused)) => refused,
        (Some(Perm), None) => Due::Refused,
        (Some(Temp | Full), None) => Due::Deferred,
        _ => match (cut, refused) {
            (Due::Deferred, Some(refused)) => refused,
            _ => cut,
        },
    }
}

/// The same for a transaction that was recalled: what was answered stands, everybody else was never tried.
fn due_recalled(record: &Record, t: usize, recipient: usize) -> Due {
    match seen(record, What::Mail(t)) {
        Some(Class::Temp | Class::Full) => return Due::Deferred,
        Some(Class::Perm) => return Due::Refused,
        _ => {}
    }
    match seen(record, What::Rcpt(t, recipient)) {
        Some(Class::Perm) => return Due::Refused,
        Some(Class::Full) if was_accepted_before(record, t, recipient) => return Due::Again,
        Some(Class::Temp | Class::Full) => return Due::Deferred,
        _ => {}
    }
    match seen(record, What::Data(t)) {
        Some(Class::Perm) => Due::Refused,
        Some(Class::Temp | Class::Full) => Due::Deferred,
        _ => Due::Untried,
    }
}

/// What the answers say about `recipient` of transaction `t`.
fn due(plan: &Plan, record: &Record, t: usize, recipient: usize) -> Due {
    let transaction = &record.transactions[t];
    if record.recalled.is_some_and(|(recalled, _)| recalled == t) {
        return due_recalled(record, t, recipient);
    }
    if transaction.by_chunk && transaction.body_sent {
        return due_by_chunk(plan, record, t, recipient);
    }
    match seen(record, What::Mail(t)) {
        None => return Due::Untried,
        Some(Class::Temp | Class::Full) => return Due::Deferred,
        Some(Class::Perm) => return Due::Refused,
        Some(Class::Good | Class::Twice) => {}
        Some(_) => return Due::Deferred,
    }
    let accepted_before = was_accepted_before(record, t, recipient);
    match seen(record, What::Rcpt(t, recipient)) {
        Some(Class::Good | Class::Twice) => {}
        Some(Class::Perm) => return Due::Refused,
        Some(Class::Full) if accepted_before => return Due::Again,
        Some(_) => return Due::Deferred,
        None => return Due::Deferred,
    }
    // What is said of content that has not come counts if it is a refusal, and is never a delivery.
    if let Some((early_in, early)) = plan.early
        && early_in == t
        && record
            .model
            .early_end
            .is_some_and(|end| end <= record.consumed)
    {
        let is_refusal = early.starts_with('5');
        return if is_refusal {
            Due::Refused
        } else {
            Due::Deferred
        };
    }
    match seen(record, What::Data(t)) {
        Some(Class::Good | Class::Twice) if transaction.body_sent => {}
        Some(Class::Perm) => return Due::Refused,
        _ => return Due::Deferred,
    }
    let content = match plan.manner.lmtp {
        true => What::DotFor(t, recipient),
        false => What::Dot(t),
    };
    match seen(record, content) {
        Some(Class::Good | Class::Twice) => Due::Delivered,
        Some(Class::Perm) => Due::Refused,
        Some(Class::Temp | Class::Full | Class::Bye) => Due::Deferred,
        _ => Due::InDoubt,
    }
}

/// True if `end` is what is due.
pub fn fits(end: &RecipientEnd, due: Due, begun_ahead: bool) -> bool {
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
pub fn judge(plan: &Plan, record: &Record) {
    let model = &record.model;
    let fail = |what: &str| fail(plan, record, what);
    if !model.violations.is_empty() {
        fail(&format!("violations: {:?}", model.violations));
    }
    // Who is stopped before the first message says QUIT, and has nothing to give a reason for.
    let was_stopped = plan.stop_at.is_some() && record.closed.is_none();
    if record.transactions.is_empty() && !was_stopped {
        judge_opening(plan, record);
    }
    // A reply too many is found at the latest when nothing is due: no session that had one ends as if all were well.
    let twice_and_seen = model.answers.iter().any(|answer| {
        let seen = answer.end.is_some_and(|end| end < record.consumed);
        answer.class == Class::Twice && answer.what != What::Quit && seen
    });
    // Unless it has filled the place of one that never came.
    let mut answers = model.answers.iter();
    let all_replied = answers.all(|answer| answer.end.is_some() || answer.what == What::Quit);
    if twice_and_seen && all_replied && record.closed.is_none() && record.recalled.is_none() {
        fail("a reply too many was passed over");
    }
    if let Some((t, written)) = record.recalled
        && (record.written > written || record.transactions[t].body_sent)
    {
        fail(&format!("bytes were written behind the recall of {t}"));
    }
    let in_doubt = (0..record.transactions.len()).filter(|t| judge_transaction(plan, record, *t));
    if in_doubt.count() > 1 {
        fail("more than one transaction is in doubt");
    }
}

/// One of the transactions: each recipient's end. True if one of them is in doubt.
fn judge_transaction(plan: &Plan, record: &Record, t: usize) -> bool {
    let (model, transaction) = (&record.model, &record.transactions[t]);
    let fail = |what: &str| fail(plan, record, what);
    let shifted = has_one_too_many(record);
    // Where replies are all alike, the shift may even pass for an answer to the content (a limit that the engine names).
    let misled = shifted && (plan.manner.chunking || plan.manner.lmtp);
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
    let mut contents = taken.iter().map(|accepted| &accepted.content);
    if contents.any(|content| *content != transaction.content) || taken.len() > 1 {
        fail(&format!("transaction {t} arrived changed, or twice"));
    }
    let mut in_doubt = false;
    for (&recipient, end) in transaction.recipients.iter().zip(&transaction.ends) {
        let mut takers = taken.iter();
        let arrived = takers.any(|accepted| accepted.recipients.contains(&recipient));
        let status = match end {
            RecipientEnd::Verdict(verdict) => Some(verdict.status),
            _ => None,
        };
        in_doubt |= status == Some(Status::InDoubt);
        if status == Some(Status::Delivered) && !arrived && !misled {
            fail(&format!("recipient {recipient} is said to be delivered"));
        }
        if arrived && !misled && !matches!(status, Some(Status::Delivered | Status::InDoubt)) {
            fail(&format!(
                "recipient {recipient} got the message without our knowing"
            ));
        }
        if status == Some(Status::InDoubt) && !transaction.body_sent {
            fail(&format!("recipient {recipient} is in doubt without a dot"));
        }
        let due = due(plan, record, t, recipient);
        // Where the server has shown how much is enough, those behind need not be named at all.
        let spared =
            *end == RecipientEnd::Again && was_enough(record) && !was_named(record, t, recipient);
        if !shifted && !spared && !fits(end, due, transaction.begun_ahead) {
            fail(&format!(
                "recipient {recipient} of {t} ended as {end:?}, due is {due:?}"
            ));
        }
    }
    in_doubt
}

/// True if there is a reply too many, which shifts all that follow: then the refusals may be another's, but nothing else may
/// be wrong.
fn has_one_too_many(record: &Record) -> bool {
    let mut answers = record.model.answers.iter();
    answers.any(|answer| answer.class == Class::Twice)
}

#[track_caller]
fn fail(plan: &Plan, record: &Record, what: &str) -> ! {
    let (transactions, answers) = (&record.transactions, &record.model.answers);
    panic!("{what}\n{plan:?}\n{transactions:#?}\n{answers:#?}")
}

/// A session that came to no mail: whom the verdict blames, and for what.
fn judge_opening(plan: &Plan, record: &Record) {
    let why = record.closed.as_ref();
    let why = why.unwrap_or_else(|| panic!("no mail and no reason\n{plan:?}"));
    let answers = &record.model.answers;
    let refused = |what: What| {
        let mut answers = answers.iter();
        answers.any(|answer| {
            answer.what == what && matches!(answer.class, Class::Perm | Class::Temp | Class::Full)
        })
    };
    let last = answers.last().expect("at least the greeting");
    let no_ehlo = last.what == What::Helo || refused(What::Ehlo) && last.class == Class::Perm;
    let wants_tls = plan.manner.tls != Tls::None;
    let stage = match last.what {
        What::Greeting => Stage::Greeting,
        What::Auth => Stage::Auth,
        // In the clear, with credentials that must not leave so; or without the extension that policy asks for.
        What::StartTls if refused(What::StartTls) && plan.manner.tls == Tls::May => Stage::Auth,
        What::StartTls => Stage::StartTls,
        What::Helo if last.class == Class::Good && plan.manner.auth.is_some() => Stage::Auth,
        What::Ehlo if no_ehlo && wants_tls && plan.manner.tls != Tls::May => Stage::StartTls,
        What::Ehlo if last.class == Class::Good && plan.manner.tls == Tls::Missing => {
            Stage::StartTls
        }
        _ => Stage::Ehlo,
    };
    let is_ours = stage == Stage::Auth
        && match last.what {
            What::Auth => last.class == Class::Perm,
            _ => true,
        };
    let scope = if is_ours { Scope::Local } else { Scope::Host };
    // Cut short, a session ends wherever it was; the rest is for the dialogues that are whole.
    let whole = plan.client_cut.is_none() && plan.server_cut.is_none();
    let has_twice = answers.iter().any(|answer| answer.class == Class::Twice);
    if why.status != Status::Deferred
        || (whole && !has_twice && (why.stage, why.scope) != (stage, scope))
    {
        panic!("{why:?}, due is {stage:?} {scope:?}\n{plan:?}\n{answers:#?}");
    }
    assert!(!why.text.contains("AHUAcA==") && !why.text.contains("cA=="));
}
