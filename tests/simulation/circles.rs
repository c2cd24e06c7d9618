//! What must not go round in a circle: sessions that end before anything is accepted, probes that fail after the greeting, and
//! workers that are kept although they have no time. Nor wait for ever: mail for a site that rests beyond the run.

use std::time::{Duration, Instant};

use mailer::mail::{QueueId, SiteId, Stage, Status, WorkerId};
use mailer::queue::{
    Action, Bounds, Dispatcher, DispatcherConfig, Event, GateView, Outcome, PermitTable, Rate,
    SiteTerms,
};
use mailer::retry::{Class, Deferral};

use crate::desk::{Desk, Given, given, left, one};

const HOUR: Duration = Duration::from_secs(3600);

fn ended(given: &Given) -> Outcome {
    Outcome {
        deferred: vec![(given.envelopes[0], Deferral::new(Class::Session))],
        returned: given.envelopes[1..].to_vec(),
        ..Outcome::default()
    }
}

#[test]
fn a_session_that_ends_before_anything_is_accepted_is_no_progress() {
    let mut desk = Desk::new(5, 20);
    let run = one(&desk.post(10, 1));
    desk.post(10, 9);
    desk.opened(run.worker);
    let runs = given(&desk.ready_ahead(run.worker));
    assert_eq!(runs.len(), 1, "MAIL has left, nothing more");
    desk.tell(Event::Recalled {
        worker: WorkerId(run.worker),
        envelopes: runs[0].envelopes.clone(),
    });
    assert_eq!(given(&desk.finish(&run, ended(&run))), []);
    assert_eq!(desk.gate(1), GateView::Paused);
    assert_eq!(desk.dispatcher.snapshot().delayed, 1);
}

#[test]
fn a_probe_is_over_when_it_is_answered_and_each_that_fails_makes_the_pause_longer() {
    let mut desk = Desk::new(5, 20);
    let run = one(&desk.post(10, 1));
    desk.fail_host(&run);
    let probe = one(&desk.wait(Duration::from_secs(19)));
    desk.opened(probe.worker);
    assert_eq!(given(&desk.ready_ahead(probe.worker)), []);
    assert_eq!(desk.gate(1), GateView::Probing);
    desk.fail_host_at(&probe, Stage::Mail);
    assert_eq!(desk.gate(1), GateView::Paused);
    desk.wait(Duration::from_secs(40));
    assert_eq!(desk.gate(1), GateView::Paused, "the second pause is longer");
}

#[test]
fn a_worker_that_opens_its_session_again_and_again_ends_where_connections_have_a_rate() {
    let mut desk = Desk::new(1, 20);
    let rate = one_a_day();
    let limit = |desk: &Desk| {
        let mut table = desk.permits.borrow_mut();
        table.set_queue_rates(QueueId(0), None, rate, desk.now);
    };
    limit(&desk);
    let mut run = one(&desk.post(10, 2000));
    let reopens = |desk: &mut Desk, worker| {
        let (worker, site) = (WorkerId(worker), SiteId(1));
        desk.tell(Event::Closed { worker, site });
    };
    desk.opened(run.worker);
    let ahead = given(&desk.ready_ahead(run.worker));
    assert_eq!(ahead.len(), 1, "its session is open");
    desk.deliver(&run);
    run = ahead[0].clone();
    reopens(&mut desk, run.worker);
    assert_eq!(
        given(&desk.ready_ahead(run.worker)),
        [],
        "another might end behind which it went on"
    );
    run = one(&desk.deliver(&run));
    reopens(&mut desk, run.worker);
    let actions = desk.deliver(&run);
    assert_eq!(given(&actions), [], "three sessions, one permitted");
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Retire { .. }))
    );
    assert_eq!(given(&desk.wait(23 * HOUR)), []);
    one(&desk.wait(26 * HOUR));
}

fn one_a_day() -> Option<Rate> {
    Some(Rate {
        events: 1,
        per: 24 * HOUR,
        burst: None,
    })
}

fn wide() -> SiteTerms {
    let bounds = Bounds {
        start: 20,
        max: 20,
        step: 0.0,
    };
    SiteTerms {
        bounds,
        ..SiteTerms::default()
    }
}

#[test]
fn a_worker_that_is_kept_for_the_next_slot_is_looked_at_once_whatever_its_idle_time() {
    let mut config = DispatcherConfig::new(QueueId(0), 5);
    config.idle = Duration::ZERO;
    let mut desk = Desk::with(config, 20);
    let terms = SiteTerms {
        rate: one_a_day(),
        ..wide()
    };
    *desk.permits.get_mut() = PermitTable::with_terms(1000, terms, 1);
    let run = one(&desk.post(10, 1));
    desk.post(10, 3);
    desk.deliver(&run);
    assert_eq!(desk.dispatcher.snapshot().ready, 1);
    assert!(desk.dispatcher.wake_at().is_some_and(|at| at > desk.now));
}

/// A queue whose run ends in an hour.
fn desk_for_an_hour(terms: SiteTerms) -> Desk {
    let mut config = DispatcherConfig::new(QueueId(0), 5);
    config.retry.stop_at = Some(Instant::now() + HOUR);
    config.idle = HOUR;
    let mut desk = Desk::with(config, 20);
    *desk.permits.get_mut() = PermitTable::with_terms(1000, terms, 1);
    desk
}

#[test]
fn mail_that_comes_while_a_site_rests_beyond_the_run_is_left_as_what_waited() {
    let terms = SiteTerms {
        rate: one_a_day(),
        ..wide()
    };
    let mut desk = desk_for_an_hour(terms);
    let run = one(&desk.post(10, 1));
    // The rest is known once somebody asks: here the worker that might go on.
    assert_eq!(left(&desk.post(10, 3)), []);
    assert_eq!(left(&desk.deliver(&run)), [(3, Status::Queued)]);
    assert_eq!(left(&desk.post(10, 2)), [(2, Status::Queued)]);
    assert!(desk.dispatcher.is_idle());
}

#[test]
fn mail_behind_a_session_that_is_not_heard_of_gets_another_one_however_little_it_is() {
    let mut config = DispatcherConfig::new(QueueId(0), 5);
    config.session_backlog = 8;
    let mut desk = Desk::with(config, 20);
    let first = one(&desk.post(10, 1));
    desk.opened(first.worker);
    assert_eq!(given(&desk.post(10, 3)), [], "no further session pays");
    assert_eq!(given(&desk.wait(Duration::from_millis(1900))), []);
    let second = one(&desk.wait(Duration::from_millis(200)));
    assert_ne!(second.worker, first.worker);
    // One at a time: it has its own time to be heard of.
    assert_eq!(given(&desk.wait(Duration::from_millis(1900))), []);
    let third = one(&desk.wait(Duration::from_millis(200)));
    assert!(![first.worker, second.worker].contains(&third.worker));
}

#[test]
fn slow_sessions_are_waited_for_as_long_as_their_messages_take() {
    let mut config = DispatcherConfig::new(QueueId(0), 5);
    config.session_backlog = 8;
    let mut desk = Desk::with(config, 20);
    let first = one(&desk.post(10, 1));
    desk.opened(first.worker);
    desk.finish(
        &first,
        Outcome {
            settled: 1,
            accepted: 1,
            tried: 1,
            spent: Duration::from_secs(10),
            session: Some(SiteId(1)),
            ..Outcome::default()
        },
    );
    let run = one(&desk.post(10, 1));
    desk.post(10, 3);
    assert_eq!(given(&desk.wait(Duration::from_secs(39))), []);
    assert_ne!(one(&desk.wait(Duration::from_secs(2))).worker, run.worker);
}

#[test]
fn mail_for_which_no_session_may_be_opened_before_the_end_of_the_run_is_left() {
    let terms = SiteTerms {
        connect_rate: one_a_day(),
        ..wide()
    };
    let mut desk = desk_for_an_hour(terms);
    let run = one(&desk.post(10, 1));
    assert_eq!(left(&desk.post(10, 1)), [], "it waits for the session");
    let next = one(&desk.deliver(&run));
    desk.post(10, 2);
    // What was tried comes back when it is due.
    assert_eq!(left(&desk.lose_session(&next)), [(2, Status::Queued)]);
    assert_eq!(left(&desk.wait(HOUR / 2)), [(1, Status::Deferred)]);
    assert!(desk.dispatcher.is_idle());
}

#[test]
fn a_queue_that_rests_beyond_the_run_leaves_the_mail_of_all_its_sites() {
    let mut desk = desk_for_an_hour(wide());
    let now = desk.now;
    let permits = desk.permits.get_mut();
    permits.set_queue_rates(QueueId(0), one_a_day(), None, now);
    let run = one(&desk.post(10, 1));
    // What is on its way may give its slot back.
    assert_eq!(left(&desk.post(20, 2)), []);
    assert_eq!(left(&desk.deliver(&run)), [(2, Status::Queued)]);
    assert_eq!(left(&desk.post(30, 3)), [(3, Status::Queued)]);
    assert!(desk.dispatcher.is_idle());
}

#[test]
fn a_slot_of_the_queue_that_comes_back_is_used_before_the_run_ends() {
    let mut desk = desk_for_an_hour(wide());
    let now = desk.now;
    let permits = desk.permits.get_mut();
    permits.set_queue_rates(QueueId(0), one_a_day(), None, now);
    let run = one(&desk.post(10, 1));
    desk.post(20, 2);
    let told = desk.fail_host(&run);
    assert_eq!(left(&told), []);
    assert_eq!(
        one(&told).destination,
        20,
        "its site is up, and there is a slot"
    );
}

#[test]
fn mail_that_expires_while_our_own_pace_keeps_it_stays_pending() {
    let terms = SiteTerms {
        rate: one_a_day(),
        ..wide()
    };
    let mut desk = desk_for_an_hour(terms);
    let mut config = DispatcherConfig::new(QueueId(0), 5);
    config.retry.stop_at = Some(Instant::now() + 48 * HOUR);
    config.retry.expire_at = Some(Instant::now() + HOUR);
    desk.dispatcher = Dispatcher::new(config, 1);
    let run = one(&desk.post(10, 1));
    desk.post(10, 3);
    assert_eq!(left(&desk.deliver(&run)), [(3, Status::Queued)]);
}
