//! The rules one by one: who gets the next envelope, who is served when, what a failure leads to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mailer::mail::{
    DestinationId, Envelope, MessageNo, Passage, QueueId, RecipientNo, Scope, SiteId, Stage,
    Status, WorkerId,
};
use mailer::queue::{Action, DispatcherConfig, Event, GateView, Outcome, Resolution};
use mailer::retry::{Class, Deferral};

use crate::desk::{Desk, Given, MS, given, left, one, spawned};
use crate::world::verdict;

#[test]
fn mail_goes_to_the_session_that_is_open_else_to_the_latest_ready_worker_else_to_a_new_one() {
    let mut desk = Desk::new(10, 20);
    let a = one(&desk.post(10, 1));
    let b = one(&desk.post(20, 1));
    assert_eq!((a.worker, b.worker), (0, 1), "nobody is ready: spawn");
    desk.deliver(&a);
    desk.wait(MS);
    desk.deliver(&b);
    let again = one(&desk.post(11, 1));
    assert_eq!(again.worker, 0, "another destination of the same site");
    let elsewhere = one(&desk.post(30, 1));
    assert_eq!(elsewhere.worker, 1, "ready, though with another site");
    let actions = desk.post(40, 1);
    assert_eq!(spawned(&actions), 1);
    assert_eq!(one(&actions).worker, 2);
}

#[test]
fn a_worker_at_its_last_body_gets_one_more_run_for_the_same_site_and_only_that() {
    let mut desk = Desk::new(1, 20);
    let first = one(&desk.post(10, 1));
    assert_eq!(desk.ready_ahead(0), []);
    assert_eq!(given(&desk.post(20, 1)), [], "another site has to wait");
    let ahead = one(&desk.post(11, 1));
    assert_eq!(ahead.worker, 0);
    assert_eq!(given(&desk.post(11, 1)), [], "one run ahead, not two");
    assert_eq!(given(&desk.deliver(&first)), []);
    assert_eq!(given(&desk.ready_ahead(0)).len(), 1);
}

#[test]
fn a_fast_server_gets_what_a_moment_carries_in_one_run_and_a_slow_one_its_share_as_ever() {
    for (each, length) in [
        (Duration::from_millis(5), 5),
        (Duration::from_millis(25), 2),
    ] {
        let mut desk = Desk::new(2, 20);
        let first = one(&desk.post(10, 1));
        assert_eq!(given(&desk.post(10, 8)).len(), 1, "the other worker");
        let outcome = Outcome {
            settled: 1,
            accepted: 1,
            tried: 1,
            spent: each,
            session: Some(SiteId(1)),
            ..Outcome::default()
        };
        let next = one(&desk.finish(&first, outcome));
        assert_eq!(next.envelopes.len(), length, "{each:?} each");
    }
}

#[test]
fn a_run_given_ahead_that_does_not_begin_is_recalled_for_a_worker_that_is_ready() {
    let mut desk = Desk::new(2, 20);
    let stuck = one(&desk.post(10, 1));
    desk.ready_ahead(0);
    let ahead = one(&desk.post(10, 1));
    let recall = Action::Recall {
        worker: WorkerId(0),
    };
    let actions = desk.wait(Duration::from_secs(3));
    assert_eq!(actions, [recall]);
    let actions = desk.tell(Event::Recalled {
        worker: WorkerId(0),
        envelopes: ahead.envelopes.clone(),
    });
    let moved = one(&actions);
    assert_eq!((moved.worker, &moved.envelopes), (1, &ahead.envelopes));
    desk.deliver(&moved);
    desk.deliver(&stuck);
    assert!(desk.dispatcher.is_idle());
}

#[test]
fn workers_are_retired_when_idle_and_at_once_when_no_mail_can_come() {
    let mut desk = Desk::new(10, 20);
    let a = one(&desk.post(10, 1));
    desk.deliver(&a);
    assert_eq!(desk.wait(Duration::from_millis(1900)), []);
    let retired = Action::Retire {
        worker: WorkerId(0),
    };
    assert_eq!(desk.wait(Duration::from_millis(100)), [retired]);
    let b = one(&desk.post(10, 1));
    desk.tell(Event::InputClosed);
    let retired = Action::Retire {
        worker: WorkerId(1),
    };
    assert_eq!(desk.deliver(&b), [retired]);
}

#[test]
fn destinations_of_a_site_take_turns() {
    let mut desk = Desk::new(1, 1);
    let mut run = one(&desk.post(10, 1));
    desk.post(11, 500);
    desk.post(12, 3);
    let mut turns = Vec::new();
    for _ in 0..3 {
        run = one(&desk.deliver(&run));
        turns.push(run.destination);
    }
    assert_eq!(turns, [11, 12, 11]);
}

#[test]
fn a_site_with_little_mail_is_served_within_a_quantum_beside_one_with_very_much() {
    let config = DispatcherConfig {
        quantum: 20,
        run_max: 4,
        ..DispatcherConfig::new(QueueId(0), 1)
    };
    let mut desk = Desk::with(config, 20);
    let mut run = one(&desk.post(10, 1));
    desk.post(10, 5000);
    for site in 2..12 {
        desk.post(site * 10, 1);
    }
    let mut served = Vec::new();
    let mut envelopes = 0;
    while served.len() < 10 {
        run = one(&desk.deliver(&run));
        envelopes += run.envelopes.len();
        if run.destination != 10 && !served.contains(&run.destination) {
            served.push(run.destination);
        }
    }
    let expected: Vec<_> = (2..12).map(|site| site * 10).collect();
    assert_eq!(served, expected, "in the order in which they came");
    assert!(envelopes <= 20 + 10 + 4, "{envelopes} envelopes");
}

#[test]
fn a_run_ahead_does_not_outlast_the_quantum_either() {
    let config = DispatcherConfig {
        quantum: 3,
        run_max: 1,
        ..DispatcherConfig::new(QueueId(0), 1)
    };
    let mut desk = Desk::with(config, 20);
    let mut run = one(&desk.post(10, 1));
    desk.post(10, 100);
    desk.post(20, 1);
    let mut runs = 0;
    while run.destination == 10 {
        let ahead = given(&desk.ready_ahead(0));
        let next = given(&desk.deliver(&run));
        run = ahead.into_iter().chain(next).next().expect("mail waits");
        runs += 1;
        assert!(runs <= 4, "site 2 waits for ever");
    }
}

#[test]
fn two_sites_with_much_mail_share_the_workers_evenly() {
    let mut desk = Desk::new(6, 20);
    let mut runs = given(&desk.post(10, 3000));
    assert_eq!(runs.len(), 6);
    desk.post(20, 3000);
    for _ in 0..40 {
        desk.now += Duration::from_secs(1);
        let finished = runs.remove(0);
        runs.extend(given(&desk.deliver(&finished)));
    }
    let of_two = runs.iter().filter(|run| run.destination == 20).count();
    assert_eq!((runs.len(), of_two), (6, 3));
}

#[test]
fn a_silent_site_holds_its_window_and_no_more() {
    let mut desk = Desk::new(100, 3);
    let silent = given(&desk.post(10, 1)).len() + given(&desk.post(10, 1000)).len();
    assert_eq!(silent, 3);
    for site in 2..30 {
        assert_eq!(given(&desk.post(site * 10, 1)).len(), 1, "site {site}");
    }
}

#[test]
fn a_failing_site_is_paused_once_and_probed_by_one_worker_with_one_envelope() {
    let mut desk = Desk::new(10, 20);
    let first = one(&desk.post(10, 1));
    let rest = given(&desk.post(10, 400));
    assert!(rest.len() > 5);
    desk.fail_host(&first);
    assert_eq!(desk.gate(1), GateView::Paused);
    for run in &rest {
        assert_eq!(
            given(&desk.fail_host(run)),
            [],
            "nothing is tried meanwhile"
        );
    }
    let due = desk.dispatcher.wake_at().expect("a pause ends");
    assert!(due > desk.now);
    let probe = one(&desk.wait(Duration::from_secs(19)));
    assert_eq!(probe.envelopes.len(), 1);
    assert_eq!(desk.gate(1), GateView::Probing);
    let after = given(&desk.deliver(&probe));
    assert_eq!(desk.gate(1), GateView::Open);
    assert!(after.len() > 5, "the site works again: {}", after.len());
}

#[test]
fn one_failure_beside_a_working_session_only_holds_new_sessions_back() {
    let mut desk = Desk::new(10, 20);
    let works = one(&desk.post(10, 1));
    let fails = one(&desk.post(10, 1));
    desk.opened(works.worker);
    desk.ready_ahead(works.worker);
    desk.lose_session(&fails);
    assert_eq!(desk.gate(1), GateView::Narrow);
    let ahead = one(&desk.post(10, 1));
    assert_eq!(ahead.worker, works.worker);
    assert_eq!(given(&desk.post(10, 5)), [], "no new session");
    assert!(!given(&desk.wait(Duration::from_secs(19))).is_empty());
}

#[test]
fn a_session_that_is_turned_away_beside_a_working_one_costs_nobody_anything() {
    let mut desk = Desk::new(10, 20);
    let works = one(&desk.post(10, 1));
    let refused = one(&desk.post(10, 1));
    desk.opened(works.worker);
    let actions = desk.fail_host(&refused);
    assert_eq!(desk.gate(1), GateView::Open);
    assert_eq!(given(&actions), [], "it has just been turned away");
    let ahead = one(&desk.ready_ahead(works.worker));
    assert_eq!(
        (ahead.worker, ahead.envelopes[0].passage),
        (works.worker, Passage::default()),
        "as if nobody had tried"
    );
}

#[test]
fn mail_of_a_site_that_is_paused_beyond_the_run_is_left_with_the_reason() {
    let mut config = DispatcherConfig::new(QueueId(0), 1);
    config.retry.stop_at = Some(Instant::now() + Duration::from_secs(5));
    let mut desk = Desk::with(config, 20);
    let run = one(&desk.post(10, 1));
    desk.post(10, 7);
    let actions = desk.fail_host(&run);
    assert_eq!(
        left(&actions),
        [(7, Status::Deferred), (1, Status::Deferred)]
    );
    let actions = desk.post(10, 2);
    assert_eq!(left(&actions), [(2, Status::Deferred)]);
    let Action::Leave { why: Some(why), .. } = &actions[0] else {
        panic!("{actions:?}");
    };
    assert_eq!((why.scope, why.stage), (Scope::Host, Stage::Connect));
    assert!(desk.dispatcher.is_idle());
}

#[test]
fn a_deferred_envelope_goes_to_another_worker_though_the_first_has_the_session() {
    let mut config = DispatcherConfig::new(QueueId(0), 10);
    config.idle = Duration::from_secs(10_000);
    let mut desk = Desk::with(config, 20);
    let run = one(&desk.post(10, 1));
    let outcome = Outcome {
        deferred: vec![(run.envelopes[0], Deferral::new(Class::Recipient))],
        session: Some(SiteId(1)),
        ..Outcome::default()
    };
    desk.finish(&run, outcome);
    assert_eq!(desk.dispatcher.snapshot().delayed, 1);
    let again = one(&desk.wait(Duration::from_secs(400)));
    assert_ne!(again.worker, run.worker);
    assert_eq!(again.envelopes[0].passage.attempts, 1);
}

#[test]
fn recipients_of_one_message_are_retried_in_one_run() {
    let mut desk = Desk::new(1, 20);
    let envelopes = (0..4).map(|n| Envelope::new(MessageNo(0), RecipientNo(n)));
    let run = one(&desk.tell(Event::Post {
        destination: DestinationId(10),
        envelopes: envelopes.collect(),
    }));
    assert_eq!(
        run.envelopes.len(),
        4,
        "together, though a run of one was due"
    );
    let greylisted = |e: &Envelope| (*e, Deferral::new(Class::Recipient));
    let outcome = Outcome {
        deferred: run.envelopes[1..].iter().map(greylisted).collect(),
        settled: 1,
        ..Outcome::default()
    };
    desk.finish(&run, outcome);
    assert_eq!(one(&desk.wait(Duration::from_secs(400))).envelopes.len(), 3);
}

#[test]
fn names_that_do_not_exist_are_refused_and_failed_look_ups_are_repeated() {
    let mut desk = Desk::new(5, 20);
    let mut actions = Vec::new();
    let post = Event::Post {
        destination: DestinationId(10),
        envelopes: vec![Envelope::new(MessageNo(0), RecipientNo(0))],
    };
    let mut answer = |desk: &mut Desk, event| {
        actions.clear();
        desk.dispatcher
            .on(event, desk.now, &desk.permits, &mut actions);
        actions.clone()
    };
    let asked = Action::Resolve {
        destination: DestinationId(10),
    };
    assert_eq!(
        answer(&mut desk, post.clone()),
        std::slice::from_ref(&asked)
    );
    assert_eq!(answer(&mut desk, post.clone()), [], "asked once");
    let failed = verdict(Status::Deferred, Scope::Domain, Stage::Dns);
    let event = Event::Resolved {
        destination: DestinationId(10),
        resolution: Resolution::Failed(failed),
    };
    assert_eq!(answer(&mut desk, event), []);
    desk.now += Duration::from_secs(20);
    assert_eq!(answer(&mut desk, Event::Wake), [asked]);
    let no_such_domain = verdict(Status::Refused, Scope::Domain, Stage::Dns);
    let event = Event::Resolved {
        destination: DestinationId(10),
        resolution: Resolution::Refused(Arc::clone(&no_such_domain)),
    };
    for (event, count) in [(event, 2), (post, 1)] {
        let actions = answer(&mut desk, event);
        let [Action::Refuse { envelopes, .. }] = &actions[..] else {
            panic!("{actions:?}");
        };
        assert_eq!(envelopes.len(), count);
    }
}

#[test]
fn after_a_stop_nothing_new_begins_and_everything_is_left() {
    let mut desk = Desk::new(1, 20);
    let run = one(&desk.post(10, 1));
    desk.ready_ahead(0);
    one(&desk.post(10, 1));
    desk.post(20, 5);
    let actions = desk.tell(Event::Stop);
    assert_eq!(left(&actions), [(5, Status::Queued)]);
    let recall = Action::Recall {
        worker: WorkerId(0),
    };
    assert!(actions.contains(&recall));
    assert_eq!(left(&desk.post(30, 1)), [(1, Status::Queued)]);
    let outcome = Outcome {
        deferred: vec![(run.envelopes[0], Deferral::new(Class::InDoubt))],
        ..Outcome::default()
    };
    let actions = desk.finish(&run, outcome);
    assert_eq!(left(&actions), [(1, Status::InDoubt)]);
}

#[test]
fn a_lower_maximum_takes_effect_at_the_end_of_runs() {
    let mut desk = Desk::new(4, 20);
    let runs = given(&desk.post(10, 400));
    assert_eq!(runs.len(), 4);
    desk.tell(Event::LimitsChanged { workers_max: 1 });
    let actions = desk.deliver(&runs[0]);
    let retired = Action::Retire {
        worker: WorkerId(runs[0].worker),
    };
    assert_eq!(actions, [retired]);
}

#[test]
fn a_higher_maximum_takes_effect_at_once() {
    let mut desk = Desk::new(2, 20);
    assert_eq!(given(&desk.post(10, 400)).len(), 2);
    let actions = desk.tell(Event::LimitsChanged { workers_max: 5 });
    assert_eq!(given(&actions).len(), 3);
}

#[test]
fn a_wider_window_of_a_site_takes_effect_at_once_and_a_narrower_one_at_the_end_of_runs() {
    let mut desk = Desk::new(20, 2);
    let runs = given(&desk.post(10, 400));
    assert_eq!(runs.len(), 2);
    desk.permits.borrow_mut().set_window(4, desk.now);
    let more = given(&desk.tell(Event::LimitsChanged { workers_max: 20 }));
    assert_eq!(more.len(), 2);
    desk.permits.borrow_mut().set_window(3, desk.now);
    desk.tell(Event::LimitsChanged { workers_max: 20 });
    let retired = Action::Retire {
        worker: WorkerId(runs[0].worker),
    };
    assert_eq!(desk.deliver(&runs[0]), [retired]);
    assert_eq!(
        given(&desk.deliver(&runs[1])).len(),
        1,
        "three are within the window"
    );
}

#[test]
fn a_thread_that_dies_gives_its_mail_back_and_is_not_replaced_in_a_circle() {
    let mut desk = Desk::new(4, 20);
    let run = one(&desk.post(10, 1));
    let actions = desk.tell(Event::Gone {
        worker: WorkerId(run.worker),
        returned: vec![(DestinationId(10), run.envelopes.clone())],
    });
    assert_eq!(actions, []);
    assert_eq!(desk.dispatcher.snapshot().waiting, 1);
    let again = one(&desk.wait(Duration::from_secs(1)));
    assert_eq!(again.envelopes, run.envelopes);
}

#[test]
fn a_session_that_ends_between_runs_is_replaced_at_once_if_it_ever_carried_mail() {
    let mut desk = Desk::new(1, 1);
    let first = one(&desk.post(10, 1));
    desk.post(10, 1);
    let second = one(&desk.deliver(&first));
    let ended = |given: &Given| Outcome {
        deferred: vec![(given.envelopes[0], Deferral::new(Class::Session))],
        ..Outcome::default()
    };
    let again = one(&desk.finish(&second, ended(&second)));
    assert_eq!(again.envelopes, second.envelopes, "untouched, and no wait");
    // The new session has carried nothing: to go on like this would be a circle.
    assert_eq!(given(&desk.finish(&again, ended(&again))).len(), 0);
    assert_eq!(desk.dispatcher.snapshot().delayed, 1);
}
