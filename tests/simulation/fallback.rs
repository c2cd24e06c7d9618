//! Mail that its own hosts did not take often enough, played by hand: when it goes to the fallback relay, and that it stays.

use std::time::Duration;

use mailer::mail::{
    DestinationId, Envelope, MessageNo, Passage, QueueId, RecipientNo, Scope, SiteId, Stage, Status,
};
use mailer::queue::{
    Action, Dispatcher, DispatcherConfig, Event, Outcome, Resolution, fallback_of,
};
use mailer::retry::{Class, Deferral};

use crate::desk::{Desk, Given, given, left, one};
use crate::world::verdict;

const HOUR: Duration = Duration::from_secs(3600);

/// A desk whose mail falls back after two failures, with one session for each site.
fn desk() -> Desk {
    let config = DispatcherConfig {
        fallback_after: Some(2),
        ..DispatcherConfig::new(QueueId(0), 4)
    };
    Desk::with(config, 1)
}

fn fallback(destination: u32) -> u32 {
    fallback_of(DestinationId(destination)).0
}

/// All of the run is deferred in this way, by a session that goes on.
fn deferred(given: &Given, class: Class) -> Outcome {
    let deferred = given.envelopes.iter().map(|e| (*e, Deferral::new(class)));
    Outcome {
        deferred: deferred.collect(),
        session: Some(SiteId(given.destination / 10)),
        ..Outcome::default()
    }
}

#[test]
fn after_two_failures_mail_goes_to_the_fallback_relay_at_once_and_never_back() {
    let mut desk = desk();
    let run = one(&desk.post(10, 1));
    assert_eq!(
        given(&desk.finish(&run, deferred(&run, Class::Recipient))),
        []
    );
    let run = one(&desk.wait(HOUR));
    assert_eq!(run.destination, 10);
    let mut run = one(&desk.finish(&run, deferred(&run, Class::Recipient)));
    assert_eq!(run.destination, fallback(10), "without a rest");
    for _ in 0..5 {
        let none = given(&desk.finish(&run, deferred(&run, Class::Recipient)));
        assert_eq!(none, [], "there it rests like any other mail");
        run = one(&desk.wait(5 * HOUR));
        assert_eq!(run.destination, fallback(10));
    }
    desk.deliver(&run);
    assert!(desk.dispatcher.is_idle());
    assert_eq!(
        one(&desk.post(10, 1)).destination,
        10,
        "its own hosts first"
    );
}

#[test]
fn what_waits_for_a_site_that_fails_again_and_again_need_not_be_tried_itself() {
    let mut desk = desk();
    let run = one(&desk.post(10, 1));
    desk.post(10, 20);
    assert_eq!(given(&desk.fail_host(&run)), []);
    let probe = one(&desk.wait(HOUR));
    assert_eq!(probe.destination, 10);
    let actions = desk.fail_host(&probe);
    let run = one(&actions);
    assert_eq!(run.destination, fallback(10));
    assert_eq!(left(&actions), []);
    desk.post(10, 1);
    let own = |(_, id, _): &(_, DestinationId, _)| id.0 == 10;
    let still: Vec<_> = desk.dispatcher.envelopes().filter(own).collect();
    assert_eq!(
        still.len(),
        1,
        "the first rests after its own failure: {still:?}"
    );
    let probe = one(&desk.wait(HOUR));
    assert_eq!(probe.destination, 10, "after the pause somebody may try");
}

#[test]
fn a_fallback_relay_that_fails_has_no_fallback_itself() {
    let mut desk = desk();
    let run = one(&desk.post(10, 1));
    desk.fail_host(&run);
    let run = one(&desk.wait(HOUR));
    let mut run = one(&desk.fail_host(&run));
    for _ in 0..5 {
        assert_eq!(run.destination, fallback(10));
        assert_eq!(given(&desk.fail_host(&run)), []);
        run = one(&desk.wait(2 * HOUR));
    }
}

#[test]
fn mail_in_doubt_rests_before_it_falls_back() {
    let mut desk = desk();
    let run = one(&desk.post(10, 1));
    desk.finish(&run, deferred(&run, Class::Recipient));
    let run = one(&desk.wait(HOUR));
    assert_eq!(
        given(&desk.finish(&run, deferred(&run, Class::InDoubt))),
        []
    );
    assert_eq!(given(&desk.wait(Duration::from_secs(29 * 60))), []);
    assert_eq!(one(&desk.wait(HOUR)).destination, fallback(10));
}

#[test]
fn a_name_that_cannot_be_looked_up_falls_back_and_one_that_does_not_exist_is_refused() {
    let mut config = desk_config();
    config.fallback_after = Some(1);
    let mut dispatcher: Dispatcher<()> = Dispatcher::new(config, 1);
    let permits = std::cell::RefCell::new(mailer::queue::PermitTable::new(9, 9));
    let now = std::time::Instant::now();
    let mut tell = |event| {
        let mut actions = Vec::new();
        dispatcher.on(event, now, &permits, &mut actions);
        actions
    };
    let mut answer = |number: u32, resolution: Resolution<()>| {
        let destination = DestinationId(number);
        let envelopes = vec![Envelope::new(MessageNo(number), RecipientNo(number))];
        tell(Event::Post {
            destination,
            envelopes,
        });
        tell(Event::Resolved {
            destination,
            resolution,
        })
    };
    let failed = verdict(Status::Deferred, Scope::Domain, Stage::Dns);
    let destination = fallback_of(DestinationId(1));
    let actions = answer(1, Resolution::Failed(failed));
    assert_eq!(actions, [Action::Resolve { destination }]);
    let unknown = verdict(Status::Refused, Scope::Domain, Stage::Dns);
    let actions = answer(2, Resolution::Refused(unknown));
    assert!(
        matches!(actions[..], [Action::Refuse { .. }]),
        "{actions:?}"
    );
}

fn desk_config() -> DispatcherConfig {
    DispatcherConfig::new(QueueId(0), 4)
}

#[test]
fn failures_of_earlier_runs_count_and_without_a_relay_none_do() {
    let tired = |desk: &mut Desk| {
        let mut envelope = Envelope::new(MessageNo(0), RecipientNo(0));
        envelope.passage = Passage {
            attempts: 1,
            host_failures: 1,
            in_doubt: false,
        };
        let envelopes = vec![(envelope, desk.now)];
        let destination = DestinationId(10);
        one(&desk.tell(Event::Postponed {
            destination,
            envelopes,
        }))
        .destination
    };
    assert_eq!(tired(&mut desk()), fallback(10));
    assert_eq!(tired(&mut Desk::with(desk_config(), 20)), 10);
}
