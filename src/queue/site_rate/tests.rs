//! Tests of the rate of a site. How well it finds limits is measured by the simulation; here are its promises.

use super::*;
use crate::queue::terms::Learned;

fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

fn secs(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn accept(rate: &mut SiteRate, messages: u32, now: Instant) {
    assert_eq!(rate.take(messages, now), messages);
    rate.accepted(messages, now, now);
}

/// A hundred accepted within ten seconds, and the next one is too fast: the instant of that signal.
fn signalled(rate: &mut SiteRate, start: Instant) -> Instant {
    for tenth in 0..10 {
        accept(rate, 10, start + secs(tenth));
    }
    let now = start + secs(10);
    assert_eq!(rate.take(1, now), 1);
    rate.signal(now, None, now, &mut rng());
    now
}

#[test]
fn without_a_signal_and_a_configured_rate_there_is_no_limit() {
    let now = Instant::now();
    let mut rate = SiteRate::new(&SiteTerms::default());
    accept(&mut rate, 1_000_000, now);
    assert_eq!(rate.next(now), None);
    assert_eq!((rate.per_minute(), rate.is_learned()), (None, false));
}

#[test]
fn a_signal_teaches_what_was_accepted_within_the_last_minute() {
    let start = Instant::now();
    let mut rate = SiteRate::new(&SiteTerms::default());
    let now = signalled(&mut rate, start);
    assert_eq!(rate.per_minute(), Some(99.0));
    assert!(rate.is_learned());
    assert_eq!(rate.take(10, now), 0, "it rests");
    let next = rate.next(now).unwrap();
    assert!(next > now + secs(1) && next < now + secs(3), "{next:?}");
    assert_eq!(rate.take(10, next), 1, "one message alone");
    assert_eq!(rate.take(10, next), 0);
}

#[test]
fn messages_on_their_way_when_the_signal_came_teach_nothing_more() {
    let start = Instant::now();
    let mut rate = SiteRate::new(&SiteTerms::default());
    let now = signalled(&mut rate, start);
    let before = (rate.per_minute(), rate.next(now));
    for _ in 0..19 {
        rate.signal(now, None, now + secs(1), &mut rng());
    }
    assert_eq!((rate.per_minute(), rate.next(now)), before);
}

#[test]
fn each_signal_in_a_row_means_a_longer_rest() {
    let start = Instant::now();
    let mut rate = SiteRate::new(&SiteTerms::default());
    let mut now = signalled(&mut rate, start);
    let mut rests = Vec::new();
    for _ in 0..12 {
        let next = rate.next(now).unwrap();
        rests.push((next - now).as_secs());
        now = next;
        assert_eq!(rate.take(1, now), 1);
        rate.signal(now, None, now, &mut rng());
    }
    // While the minute may be what the server waits for, its end is tried as well.
    assert!(rests[..4].is_sorted(), "{rests:?}");
    assert!(rests[7..].is_sorted() && rests[7] >= 50, "{rests:?}");
    assert!(*rests.last().unwrap() >= 270, "{rests:?}");
}

#[test]
fn a_wish_of_the_server_is_obeyed() {
    let start = Instant::now();
    let mut rate = SiteRate::new(&SiteTerms::default());
    accept(&mut rate, 5, start);
    let now = start + secs(1);
    rate.take(1, now);
    rate.signal(now, Some(secs(600)), now, &mut rng());
    assert_eq!(rate.next(now), Some(now + secs(600)));
    assert_eq!(rate.take(1, now + secs(599)), 0);
    assert_eq!(rate.take(1, now + secs(600)), 1);
    rate.signal(
        now + secs(600),
        Some(Duration::MAX),
        now + secs(600),
        &mut rng(),
    );
    assert_eq!(
        rate.next(now),
        Some(now + secs(600 + 86_400)),
        "a day at most"
    );
}

#[test]
fn a_probe_that_tells_nothing_makes_room_for_the_next() {
    let start = Instant::now();
    let mut rate = SiteRate::new(&SiteTerms::default());
    let now = signalled(&mut rate, start);
    let next = rate.next(now).unwrap();
    assert_eq!(rate.take(1, next), 1);
    rate.answered_otherwise(next);
    assert_eq!(rate.take(1, next), 1, "greylisted: no news");
    rate.give_back(1, next);
    assert_eq!(rate.take(1, next), 1, "given back: no news");
    assert!(rate.next(next).unwrap() > next);
    assert_eq!(rate.take(1, next + secs(61)), 1, "nobody reports: given up");
}

#[test]
fn a_configured_rate_binds_whatever_was_learned() {
    let start = Instant::now();
    let terms = SiteTerms {
        rate: Some("60/min".parse().unwrap()),
        learned: Some(Learned {
            rate_per_minute: Some(6_000.0),
            ..Learned::default()
        }),
        ..SiteTerms::default()
    };
    let mut rate = SiteRate::new(&terms);
    assert_eq!((rate.per_minute(), rate.is_learned()), (Some(60.0), false));
    let mut taken = 0;
    for tenth in 0..600 {
        let now = start + Duration::from_millis(100 * tenth);
        let slots = rate.take(50, now);
        rate.accepted(slots, now, now);
        taken += slots;
    }
    assert!((59..=60).contains(&taken), "{taken}");
    rate.set_configured(None, start + secs(61));
    assert_eq!(rate.per_minute(), rate.learned());
}

#[test]
fn what_an_earlier_run_learned_holds_from_the_first_message_on() {
    let start = Instant::now();
    let terms = SiteTerms {
        learned: Some(Learned {
            rate_per_minute: Some(120.0),
            ..Learned::default()
        }),
        ..SiteTerms::default()
    };
    let mut rate = SiteRate::new(&terms);
    assert_eq!(rate.per_minute(), Some(120.0));
    let taken: u32 = (0..60)
        .map(|second| rate.take(50, start + secs(second)))
        .sum();
    assert!((115..=122).contains(&taken), "{taken}");
}

#[test]
fn the_last_minute_is_counted_whatever_the_gaps() {
    let start = Instant::now();
    let mut history = History::new();
    assert_eq!(history.count(start), 0);
    history.add(10, start);
    history.add(5, start + secs(30));
    assert_eq!(history.count(start + secs(59)), 15);
    assert_eq!(history.count(start + secs(61)), 5);
    assert_eq!(history.left_by(start + secs(61)), 10);
    let at = history.falls_to(5, start);
    assert_eq!(history.count(at), 5);
    assert!(
        at > start + secs(60) && at < start + secs(61),
        "{:?}",
        at - start
    );
    assert_eq!(history.count(start + secs(1_000_000)), 0);
    history.add(1, start + secs(1_000_000));
    assert_eq!(history.count(start + secs(1_000_000)), 1);
    history.add(1, start);
    assert_eq!(
        history.count(start),
        2,
        "a time that goes back is the latest known"
    );
}
