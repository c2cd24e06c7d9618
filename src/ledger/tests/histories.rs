//! What recovery makes of what happened to a recipient, against an oracle of another kind: a history is a word, and words are
//! rewritten until only their last letter counts.

use super::*;

/// All histories of at most `length` steps.
fn histories(length: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut from = 0;
    for _ in 0..length {
        let until = all.len();
        for at in from..until {
            for (letter, _) in STEPS {
                all.push(format!("{}{letter}", all[at]));
            }
        }
        from = until;
    }
    all.retain(|history| !history.is_empty());
    all
}

/// The status that a history ends with if its run ends after it, and whether the recipient was in doubt ever.
///
/// `b` marks that there was a doubt, `H` is a doubt that came second.
fn oracle(history: &str) -> (Status, bool) {
    // The end of the run makes a doubt of an intent that is open.
    let open_at_the_end = history.ends_with('I');
    let mut word = format!("{history}{}", if open_at_the_end { "B" } else { "" });
    loop {
        let before = word.clone();
        // Who was delivered to or refused does not fail afterwards.
        for (late, rest) in [
            ("DF", "D"),
            ("DR", "D"),
            ("DB", "D"),
            ("RF", "R"),
            ("RR", "R"),
            ("RB", "R"),
        ] {
            word = word.replacen(late, rest, 1);
        }
        for (late, rest) in [("XF", "X"), ("XB", "bX"), ("HF", "H"), ("HB", "H")] {
            word = word.replacen(late, rest, 1);
        }
        if word != before {
            continue;
        }
        let doubts = |c: &char| ['B', 'b', 'H'].contains(c);
        let second = word
            .char_indices()
            .find(|(at, c)| *c == 'B' && word[..*at].chars().any(|c| doubts(&c)));
        match second {
            Some((at, _)) => word.replace_range(at..=at, "H"),
            None => break,
        }
    }
    let status = match word.chars().last() {
        Some('D') => Status::Delivered,
        Some('F') => Status::Deferred,
        Some('R') => Status::Refused,
        Some('B') => Status::InDoubt,
        Some('H') => Status::Held,
        Some('X') => Status::Expired,
        Some('Q') => Status::Queued,
        other => panic!("{other:?}"),
    };
    (status, word.contains(['B', 'b', 'H']))
}

fn assert_recovered(
    directory: &Path,
    histories: &[String],
    oracle: impl Fn(&str) -> (Status, bool),
) {
    let shown = all(directory);
    let ledger = open(directory);
    assert_eq!(
        (shown.len(), ledger.len()),
        (histories.len(), histories.len())
    );
    for ((no, history), (recipient, outcome)) in (0..).zip(histories).zip(shown) {
        let (status, in_doubt) = oracle(history);
        let standing = ledger.standing(RecipientNo(no));
        assert_eq!(recipient, RecipientNo(no));
        assert_eq!(standing.status, status, "{history}");
        assert_eq!(outcome.status, status, "{history} in a snapshot");
        if status.is_pending() {
            assert_eq!(standing.passage.in_doubt, in_doubt, "{history}");
        }
        if let Some(last) = outcome.last {
            assert_eq!(last.passage.in_doubt, in_doubt, "{history} in a snapshot");
        }
    }
    // Recovering changes nothing that another recovery would not find.
    drop(ledger);
    let again = open(directory);
    for (no, history) in (0..).zip(histories) {
        assert_eq!(
            again.standing(RecipientNo(no)).status,
            oracle(history).0,
            "{history} again"
        );
    }
}

#[test]
fn the_oracle_knows_the_promise() {
    for (history, status) in [
        ("I", Status::InDoubt),
        ("FI", Status::InDoubt),
        ("ID", Status::Delivered),
        ("IF", Status::Deferred),
        ("BI", Status::Held),
        ("BB", Status::Held),
        ("BQI", Status::Held),
        ("BD", Status::Delivered),
        ("DF", Status::Delivered),
        ("RQ", Status::Queued),
        ("RQF", Status::Deferred),
        ("XF", Status::Expired),
        ("DI", Status::InDoubt),
    ] {
        assert_eq!(oracle(history).0, status, "{history}");
    }
}

#[test]
fn every_history_of_one_run_is_recovered() {
    let histories = histories(4);
    assert_eq!(histories.len(), 7 + 49 + 343 + 2401);
    for folds in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = open(directory.path());
        let mut writer = Writer::new(ledger.journal());
        for at in 0..4 {
            for (no, history) in (0..).zip(&histories) {
                if let Some(letter) = history.chars().nth(at) {
                    write(&mut writer, no, step_of(letter), at as i64 + 1);
                }
            }
            writer.flush().unwrap();
            if folds {
                ledger.rotate().unwrap();
                ledger.fold().unwrap();
            }
        }
        drop(ledger);
        assert_recovered(directory.path(), &histories, oracle);
    }
}

#[test]
fn every_history_of_one_step_a_run_is_recovered() {
    // What is left open is in doubt before the next step.
    let interrupted = |history: &str| oracle(&history.replace('I', "IB"));
    let histories = histories(4);
    for folds in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        for at in 0..4 {
            let mut ledger = open(directory.path());
            let mut writer = Writer::new(ledger.journal());
            for (no, history) in (0..).zip(&histories) {
                if let Some(letter) = history.chars().nth(at) {
                    write(&mut writer, no, step_of(letter), at as i64 + 1);
                }
            }
            drop(writer);
            // Never, at the end of each run, or while it goes on.
            match folds {
                0 => {}
                1 => ledger.finish().unwrap(),
                _ => {
                    ledger.rotate().unwrap();
                    ledger.fold().unwrap();
                }
            }
        }
        assert_recovered(directory.path(), &histories, interrupted);
    }
}

#[test]
fn mail_in_doubt_is_held_by_wish_and_stays_so() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(directory.path());
    let mut writer = Writer::new(ledger.journal());
    for (no, letter) in (0..).zip("IBFD".chars()) {
        write(&mut writer, no, step_of(letter), 5);
    }
    drop((writer, ledger));
    let hold = Options {
        hold_in_doubt: true,
        ..Options::default()
    };
    let want = [
        Status::Held,
        Status::Held,
        Status::Deferred,
        Status::Delivered,
    ];
    for options in [hold, Options::default()] {
        let ledger = open_with(directory.path(), options);
        let statuses = (0..4).map(|no| ledger.standing(RecipientNo(no)).status);
        assert!(statuses.eq(want));
        assert_eq!(ledger.counts().iter().sum::<u64>(), 4);
    }
    // The reason is still told.
    let held = &all(directory.path())[0].1;
    let last = held.last.as_ref().unwrap();
    assert_eq!((last.at, &last.via), (5, &via(0)));
    assert!(last.verdict.text.contains("may have been delivered"));
}

#[test]
fn what_earlier_runs_left_pending_comes_with_all_that_is_needed_to_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(directory.path());
    let mut writer = Writer::new(ledger.journal());
    write(&mut writer, 2, step_of('F'), 1000);
    write(&mut writer, 3, step_of('I'), 2000);
    write(&mut writer, 5, step_of('D'), 3000);
    drop((writer, ledger));
    let mut ledger = open(directory.path());
    assert_eq!((ledger.run(), ledger.len(), ledger.unsettled()), (2, 6, 0));
    let deferred = Standing {
        status: Status::Deferred,
        passage: attempt(2, Status::Deferred, 0).passage,
        first_at: Some(1000),
        last_at: Some(1000),
        class: Some(Scope::Recipient),
    };
    assert_eq!(ledger.standing(RecipientNo(2)), deferred);
    let in_doubt = Standing {
        status: Status::InDoubt,
        passage: Passage {
            attempts: 1,
            host_failures: 0,
            in_doubt: true,
        },
        first_at: Some(2000),
        last_at: Some(2000),
        class: Some(Scope::Message),
    };
    assert_eq!(ledger.standing(RecipientNo(3)), in_doubt);
    ledger.admit_again(RecipientNo(2));
    assert_eq!(ledger.unsettled(), 1);
    ledger.admit(RecipientNo(7));
    // All but the one that was delivered.
    assert_eq!((ledger.len(), ledger.unsettled()), (8, 7));
    ledger.note(RecipientNo(2), Status::Delivered);
    ledger.leave(RecipientNo(3), Status::InDoubt);
    assert_eq!(ledger.unsettled(), 5);
    assert_eq!(ledger.counts().iter().sum::<u64>(), 8);
}

#[test]
#[should_panic(expected = "settled twice")]
fn who_was_settled_by_an_earlier_run_is_not_settled_again() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(directory.path());
    write(&mut Writer::new(ledger.journal()), 0, step_of('D'), 1);
    let mut ledger = open(directory.path());
    ledger.note(RecipientNo(0), Status::Delivered);
}
