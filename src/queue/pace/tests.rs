//! Tests of the pace: its text, its bound for every window whatever the pattern, and that it is used up.

use super::*;
use proptest::prelude::*;

fn secs(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

#[test]
fn rates_are_read_as_people_write_them() {
    let expected = [
        ("600/min", 600, secs(60), None),
        ("100/s", 100, secs(1), None),
        ("20/h", 20, secs(3600), None),
        ("1000/day", 1000, secs(86_400), None),
        ("600/min burst 50", 600, secs(60), Some(50)),
        (" 1_000 / minute  burst 1,000 ", 1000, secs(60), Some(1000)),
        ("1,000/hour", 1000, secs(3600), None),
        ("100/10min", 100, secs(600), None),
        ("3/0.5s", 3, Duration::from_millis(500), None),
    ];
    for (text, events, per, burst) in expected {
        assert_eq!(rate(text), Rate { events, per, burst }, "{text}");
    }
}

#[test]
fn what_is_no_rate_is_told_with_the_reason_and_an_example() {
    let expected = [
        ("", "does not say per what time"),
        ("600", "does not say per what time"),
        ("/min", "the number of events is \"\", not a number"),
        ("many/min", "the number of events is \"many\", not a number"),
        ("-5/min", "the number of events is \"-5\", not a number"),
        (
            "1.5/s",
            "the number of events is \"1.5\", not a whole number",
        ),
        ("0/min", "would let nothing through"),
        ("5000000000/s", "more than 4294967295"),
        ("600/fortnight", "\"fortnight\" is no unit of time"),
        ("600/", "\"\" is no unit of time"),
        ("600/0s", "no time between 1 ms and a year"),
        ("600/1.2.3s", "no time between 1 ms and a year"),
        ("600/900000day", "no time between 1 ms and a year"),
        ("600/min burst", "the burst is \"\", not a number"),
        ("600/min burst 0", "the burst is 0"),
        ("600/min burst lots", "the burst is \"lots\", not a number"),
    ];
    for (text, reason) in expected {
        let error = text.parse::<Rate>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
        assert!(error.contains("600/min burst 50"), "{text}: {error}");
    }
}

#[test]
fn a_hold_lets_nothing_through_and_is_not_shortened() {
    let start = Instant::now();
    let mut pace = Pace::new(rate("100/s"));
    pace.hold_until(start + secs(5));
    pace.hold_until(start + secs(3));
    assert_eq!(pace.take(10, start + secs(4)), 0);
    assert_eq!(pace.next(start), start + secs(5));
    assert!(pace.take(10, start + secs(5)) > 0);
}

#[test]
fn another_rate_keeps_the_debt() {
    let start = Instant::now();
    let mut pace = Pace::new(rate("60/min burst 60"));
    assert_eq!(pace.take(1000, start), 60);
    pace.set(rate("30/min"), start);
    let mut taken = 0;
    for second in 1..=60 {
        taken += pace.take(1000, start + secs(second));
    }
    assert_eq!(taken, 0, "60 are more than 30 already");
    pace.set(rate("600/min"), start + secs(61));
    assert!(pace.take(1000, start + secs(62)) > 0);
}

#[test]
fn what_cannot_be_held_back_is_paid_back_first_but_not_for_ever() {
    let start = Instant::now();
    let mut pace = Pace::new(rate("6/min"));
    assert!(pace.charge(start), "the first was free");
    for _ in 0..8 {
        pace.charge(start);
    }
    assert!(!pace.charge(start));
    for second in 1..=60 {
        assert_eq!(pace.take(1, start + secs(second)), 0, "10 are more than 6");
    }
    let next = pace.next(start + secs(60));
    assert!(next > start + secs(60) && next <= start + secs(75));
    assert_eq!(pace.take(1, next), 1);
    let mut often = Pace::new(rate("60/min"));
    assert!((0..60).all(|second| often.charge(start + secs(second))));
    assert!(!often.charge(start + secs(59)), "60 within this minute");
}

#[test]
fn absurd_numbers_do_no_harm() {
    let start = Instant::now();
    for events in [0, 1, u32::MAX] {
        for per in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let mut pace = Pace::new(Rate {
                events,
                per,
                burst: Some(u32::MAX),
            });
            pace.take(u32::MAX, start);
            pace.set(
                Rate {
                    events,
                    per,
                    burst: None,
                },
                start,
            );
            pace.take(u32::MAX, start);
            pace.give_back(u32::MAX, start);
            assert!(pace.next(start) >= start);
        }
    }
}

/// What somebody does with a pace.
#[derive(Clone, Debug)]
enum Step {
    /// Time passes, in thousandths of `per`.
    Wait(u32),
    /// Until the next slot, and so many microseconds more.
    UntilNext(u32),
    /// Takes.
    Take(u32),
    /// Gives some of an earlier take back: which, and how many at most.
    GiveBack(prop::sample::Index, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..1500u32).prop_map(Step::Wait),
        4 => (0..30_000u32).prop_map(Step::UntilNext),
        6 => (1..400u32).prop_map(Step::Take),
        2 => (any::<prop::sample::Index>(), 1..50u32).prop_map(|(which, most)| Step::GiveBack(which, most)),
    ]
}

fn any_rate() -> impl Strategy<Value = Rate> {
    (1..700u32, 1..5000u64, prop::option::weighted(0.2, 1..80u32)).prop_map(
        |(events, millis, burst)| Rate {
            events,
            per: Duration::from_millis(millis * 20),
            burst,
        },
    )
}

/// The most that any window of length `per` holds of what was taken and kept.
fn fullest_window(uses: &[(Instant, u32)], per: Duration) -> u32 {
    let mut most = 0;
    for (at, (first, _)) in uses.iter().enumerate() {
        let within = uses[at..]
            .iter()
            .take_while(|(when, _)| *when <= *first + per);
        most = most.max(within.map(|(_, slots)| slots).sum());
    }
    most
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_rate_can_be_read_back(events in 1..u32::MAX, millis in 1..100_000_000u64, burst in prop::option::of(1..u32::MAX)) {
        let rate = Rate { events, per: Duration::from_millis(millis), burst };
        prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}") {
        let _ = text.parse::<Rate>();
    }

    #[test]
    fn no_window_ever_sees_more_than_the_rate(rate in any_rate(), steps in prop::collection::vec(step(), 1..250)) {
        let mut now = Instant::now();
        let mut pace = Pace::new(rate);
        let mut uses: Vec<(Instant, u32)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(part) => now += rate.per * part / 1000,
                Step::UntilNext(late) => {
                    now = pace.next(now) + Duration::from_micros(u64::from(late));
                    prop_assert!(pace.clone().take(1, now) == 1, "promised a slot and has none");
                }
                Step::Take(wanted) => {
                    let taken = pace.take(wanted, now);
                    prop_assert!(taken <= wanted);
                    prop_assert!((taken == 0) == (pace.next(now) > now) || taken == wanted || taken > 0);
                    uses.push((now, taken));
                }
                Step::GiveBack(which, most) => {
                    if !uses.is_empty() {
                        let which = which.index(uses.len());
                        let (taken, slots) = &mut uses[which];
                        let back = most.min(*slots);
                        *slots -= back;
                        pace.give_back(back, *taken);
                    }
                }
            }
        }
        let most = fullest_window(&uses, rate.per);
        prop_assert!(most <= rate.events + rate.burst.unwrap_or(0), "{most} in one window of {rate}");
    }

    #[test]
    fn under_backlog_the_rate_is_reached(rate in any_rate(), wanted in 1..20u32, late_ms in 0..10u64) {
        let start = Instant::now();
        let mut pace = Pace::new(Rate { burst: None, ..rate });
        let end = start + rate.per * 5;
        let (mut now, mut taken, mut before) = (start, 0u32, 0u32);
        // As somebody does who is told when to come, and comes late by no more than a spacing.
        let late = Duration::from_millis(late_ms).min(rate.per / rate.events);
        while now < end {
            let slots = pace.take(wanted, now);
            taken += slots;
            if now < start + rate.per {
                before = taken;
            }
            let next = pace.next(now);
            now = if next > now { next + late } else { now };
        }
        // From the second period on, so that the first burst does not help; one slot may fall out at the edge.
        let expected = f64::from(rate.events) * 4.0 * 0.98 - 1.0;
        prop_assert!(f64::from(taken - before) >= expected, "{} of {} in 4 periods", taken - before, rate.events * 4);
    }
}
