//! The desk: every envelope leaves it once, in the outcome of its run or when the worker is gone.

use super::*;
use crate::engine::book::Entry;
use crate::engine::book::scratch::{Scratch, ledger_in, scratch};
use crate::mail::{QueueId, RecipientNo};
use crossbeam_channel::{Receiver, unbounded};

fn desk() -> (Desk, Receiver<Inbox>, Scratch) {
    let (inbox, events) = unbounded();
    let scratch = scratch();
    let via = Via::none(QueueId(0));
    let desk = Desk::new(WorkerId(7), inbox, scratch.book.clone(), via);
    (desk, events, scratch)
}

fn envelopes(messages: &[u32]) -> Vec<Envelope> {
    let pairs = messages.iter().enumerate();
    pairs
        .map(|(at, message)| Envelope::new(MessageNo(*message), RecipientNo(at as u32)))
        .collect()
}

fn verdict(status: Status, scope: Scope) -> Verdict {
    Verdict::new(status, scope, Stage::Rcpt, 450, None, "x")
}

#[test]
fn envelopes_of_one_message_travel_together_up_to_the_limit() {
    let (mut desk, _events, _entries) = desk();
    desk.take_run(DestinationId(1), 1, envelopes(&[1, 1, 1, 2]));
    let mut group = Vec::new();
    let mut sizes = Vec::new();
    while desk.take_group(2, &mut group) {
        sizes.push(group.len());
    }
    assert_eq!(sizes, [2, 1, 1]);
}

#[test]
fn an_outcome_accounts_for_every_envelope_of_the_run() {
    let (mut desk, events, _entries) = desk();
    desk.take_run(DestinationId(1), 1, envelopes(&[1, 2, 3, 4]));
    let mut group = Vec::new();
    desk.take_group(9, &mut group);
    desk.end(group[0], &verdict(Status::Delivered, Scope::Recipient));
    desk.take_group(9, &mut group);
    desk.end(group[0], &verdict(Status::Deferred, Scope::Host));
    desk.take_group(9, &mut group);
    desk.put_back(&group);
    assert!(desk.finish_first(None));
    let Ok(Event::Finished { outcome, .. }) = events.try_recv() else {
        panic!("no outcome")
    };
    assert_eq!(
        (
            outcome.settled,
            outcome.deferred.len(),
            outcome.returned.len()
        ),
        (1, 1, 2)
    );
    assert!(outcome.deferred[0].0.was_tried_by(WorkerId(7)));
    assert_eq!(outcome.returned[0].message, MessageNo(3));
    assert!(outcome.host_failed.is_some());
}

#[test]
fn who_is_turned_away_for_the_rate_at_the_door_has_no_session_and_in_a_session_it_goes_on() {
    for (stage, is_failure) in [(Stage::Greeting, true), (Stage::Mail, false)] {
        let (mut desk, _events, _entries) = desk();
        desk.take_run(DestinationId(1), 0, envelopes(&[1, 2]));
        let mut group = Vec::new();
        desk.take_group(9, &mut group);
        let slow = Verdict::new(Status::Deferred, Scope::Rate, stage, 421, None, "x");
        desk.end(group[0], &slow);
        assert_eq!(desk.has_host_failed(), is_failure, "{stage:?}");
    }
}

#[test]
fn who_is_told_to_go_slower_gives_the_rest_back_unless_what_was_under_way_is_accepted_after_all() {
    let (mut desk, inbox, _scratch) = desk();
    let all = envelopes(&[1, 2, 3]);
    desk.take_run(DestinationId(3), 0, all.clone());
    let mut group = Vec::new();
    for _ in 0..2 {
        let mut next = Vec::new();
        assert!(desk.take_group(50, &mut next));
        group.extend(next);
    }
    assert!(!desk.is_too_fast());
    desk.end(group[0], &verdict(Status::Deferred, Scope::Rate));
    assert!(desk.is_too_fast());
    desk.end(group[1], &verdict(Status::Delivered, Scope::Message));
    assert!(!desk.is_too_fast());
    assert!(desk.take_group(50, &mut group));
    desk.end(group[0], &verdict(Status::Deferred, Scope::Recipient));
    assert!(!desk.is_too_fast(), "greylisting says nothing of the rate");
    drop((desk, inbox));
}

#[test]
fn the_first_message_of_the_next_run_goes_out_before_the_last_of_this_one_is_answered() {
    let (mut desk, events, _entries) = desk();
    desk.take_run(DestinationId(1), 1, envelopes(&[1]));
    let (mut last, mut first) = (Vec::new(), Vec::new());
    assert!(!desk.has_room());
    desk.take_group(9, &mut last);
    assert!(desk.has_room());
    let next = vec![Envelope::new(MessageNo(7), RecipientNo(70))];
    desk.take_run(DestinationId(1), 1, next);
    desk.take_group(9, &mut first);
    assert!(!desk.has_room() && !desk.is_first_done());
    desk.end(first[0], &verdict(Status::Delivered, Scope::Recipient));
    assert!(!desk.is_first_done(), "outcomes are told in order");
    desk.put_back(&last);
    desk.take_group(9, &mut last);
    desk.end(last[0], &verdict(Status::Refused, Scope::Recipient));
    assert!(desk.is_first_done());
    assert!(desk.finish_first(None) && desk.finish_first(None) && !desk.finish_first(None));
    let settled: Vec<u32> = events
        .try_iter()
        .map(|event| match event {
            Event::Finished { outcome, .. } => outcome.settled,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(settled, [1, 1]);
}

fn attempt_in_doubt(envelope: Envelope) -> Attempt {
    Attempt {
        recipient: envelope.recipient,
        verdict: verdict(Status::InDoubt, Scope::Message),
        via: Via::none(QueueId(0)),
        passage: envelope.passage,
        at: 0,
        took_ms: 0,
    }
}

#[test]
fn a_panic_settles_what_was_tried_and_returns_what_was_not() {
    let (mut desk, events, scratch) = desk();
    let mut run = envelopes(&[1, 2, 2, 3]);
    run[2].passage.in_doubt = true;
    let doubted = attempt_in_doubt(run[2]);
    let mut teller = Teller::new(scratch.book.clone(), QueueId(0));
    teller.add(&doubted);
    drop(teller);
    scratch.entries.recv().unwrap();
    desk.take_run(DestinationId(1), 1, run);
    let thread = std::thread::spawn(move || {
        let mut group = Vec::new();
        desk.take_group(9, &mut group);
        desk.end(group[0], &verdict(Status::Deferred, Scope::Recipient));
        desk.take_group(9, &mut group);
        std::panic::resume_unwind(Box::new("planted"));
    });
    assert!(thread.join().is_err());
    let Ok(Entry::Noted { attempts, .. }) = scratch.entries.recv() else {
        panic!("no attempts")
    };
    let both = [1, 2].map(|no| (RecipientNo(no), Status::InDoubt));
    assert_eq!(attempts, both);
    let Ok(Entry::Left { recipients }) = scratch.entries.recv() else {
        panic!("nothing left")
    };
    assert_eq!(
        recipients,
        [
            (RecipientNo(1), Status::InDoubt),
            (RecipientNo(2), Status::Held),
            (RecipientNo(0), Status::Deferred)
        ]
    );
    let Ok(Event::Gone { returned, .. }) = events.recv() else {
        panic!("not gone")
    };
    assert_eq!(returned[0].1.len(), 1);
    drop(scratch.ledger);
    let again = ledger_in(scratch.directory.path());
    assert_eq!(again.standing(RecipientNo(1)).status, Status::InDoubt);
    assert_eq!(again.standing(RecipientNo(2)).status, Status::Held);
}

#[test]
fn a_marked_run_is_not_begun_any_more_and_a_later_one_is() {
    let (mut desk, events, _entries) = desk();
    desk.take_run(DestinationId(1), 4, envelopes(&[1, 2, 3]));
    let mut group = Vec::new();
    desk.take_group(9, &mut group);
    desk.give_back(3);
    assert!(!desk.is_empty(), "an earlier run was meant");
    desk.give_back(4);
    assert!(desk.is_empty() && desk.has_room());
    let next = vec![Envelope::new(MessageNo(7), RecipientNo(70))];
    desk.take_run(DestinationId(1), 5, next);
    desk.give_back(4);
    let mut later = Vec::new();
    assert!(desk.take_group(9, &mut later));
    assert_eq!(later[0].message, MessageNo(7));
    desk.end(group[0], &verdict(Status::Delivered, Scope::Recipient));
    assert!(desk.is_first_done() && desk.finish_first(None));
    let Ok(Event::Finished { outcome, .. }) = events.try_recv() else {
        panic!("no outcome")
    };
    let returned: Vec<u32> = outcome.returned.iter().map(|e| e.message.0).collect();
    assert_eq!((outcome.settled, returned), (1, vec![2, 3]));
}
