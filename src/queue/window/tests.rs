//! Tests of the window: growth by cohorts, one step down per cohort, ceilings that are believed and tried, storms that teach nothing.

use super::*;
use proptest::prelude::*;

fn bounds(start: u32, max: u32) -> Bounds {
    Bounds {
        start,
        max,
        step: 1.0,
    }
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Cohort after cohort, all sessions in use, until the window is of this size.
fn grow_to(window: &mut Window, size: u32, now: Instant) {
    for _ in 0..10_000 {
        if window.size() >= size {
            return;
        }
        window.accepted(1, window.size(), now);
    }
    panic!("stays at {}", window.size());
}

#[test]
fn a_cohort_adds_one_session_while_the_window_is_used_up() {
    let now = Instant::now();
    let mut window = Window::new(bounds(1, 20), None);
    assert_eq!(window.size(), 1);
    window.accepted(1, 1, now);
    assert_eq!(window.size(), 2);
    window.accepted(100, 1, now);
    assert_eq!(window.size(), 2, "one of two sessions is no reason");
    window.accepted(2, 2, now);
    assert_eq!(window.size(), 3);
    grow_to(&mut window, 20, now);
    window.accepted(1_000, 20, now);
    assert_eq!(window.size(), 20);
    assert!(!window.can_grow());
}

#[test]
fn only_the_first_host_error_of_a_cohort_counts() {
    let now = Instant::now();
    let mut window = Window::new(bounds(16, 20), None);
    for _ in 0..100 {
        window.host_error(now);
    }
    assert_eq!(window.size(), 14);
    window.accepted(14, 3, now);
    window.host_error(now);
    assert_eq!(window.size(), 12);
    let mut window = Window::new(bounds(1, 20), None);
    window.host_error(now);
    assert_eq!(window.size(), 1);
}

#[test]
fn a_refused_session_is_a_ceiling_once_the_others_have_gone_on() {
    let start = Instant::now();
    let mut window = Window::new(bounds(6, 20), None);
    window.session_refused(5, start);
    assert_eq!(window.ceiling(), None);
    assert_eq!(
        window.admits(5, 0, start),
        Admission::NotBefore(start + millis(500))
    );
    window.accepted(6, 5, start + millis(600));
    assert_eq!((window.ceiling(), window.size()), (Some(5), 5));
    assert_eq!(window.admits(5, 0, start + millis(600)), Admission::Full);
    assert_eq!(window.admits(4, 0, start + millis(600)), Admission::Open);
}

#[test]
fn a_storm_is_no_ceiling_and_leaves_the_window_nearly_as_it_was() {
    let mut now = Instant::now();
    let mut window = Window::new(bounds(16, 20), None);
    window.session_cut(now);
    window.session_refused(9, now);
    window.session_cut(now);
    for second in 1..20 {
        now += Duration::from_secs(1);
        assert_eq!(window.admits(0, 0, now), Admission::Open, "second {second}");
        assert_eq!(window.admits(1, 1, now), Admission::Full, "one at a time");
        window.host_error(now);
        assert!(matches!(window.admits(0, 0, now), Admission::NotBefore(_)));
    }
    window.accepted(1, 1, now);
    assert_eq!((window.ceiling(), window.size()), (None, 14));
    assert_eq!(window.admits(1, 1, now), Admission::Open, "all at once");
}

#[test]
fn a_ceiling_is_tried_by_one_session_and_more_rarely_each_time() {
    let start = Instant::now();
    let mut window = Window::new(bounds(6, 20), None);
    window.session_refused(5, start);
    let mut trials = Vec::new();
    for second in 1..=1_800 {
        let now = start + Duration::from_secs(second);
        window.accepted(50, 5, now);
        if window.size() > 5 {
            assert_eq!(window.size(), 6);
            trials.push(second);
            window.session_refused(5, now);
            assert_eq!(window.size(), 5);
        }
    }
    let apart: Vec<u64> = trials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((10..15).contains(&trials[0]), "{trials:?}");
    assert!(apart.is_sorted(), "{trials:?}");
    assert_eq!(apart.last(), Some(&240), "{trials:?}");
}

#[test]
fn a_ceiling_that_was_raised_is_no_ceiling_any_more() {
    let start = Instant::now();
    let mut window = Window::new(bounds(6, 20), None);
    window.session_refused(5, start);
    let mut now = start;
    while window.size() < 6 || window.ceiling().is_none() {
        now += Duration::from_secs(1);
        window.accepted(50, 5, now);
    }
    window.accepted(1, 6, now);
    assert_eq!((window.ceiling(), window.size()), (None, 6));
    grow_to(&mut window, 20, now);
}

#[test]
fn what_an_earlier_run_learned_is_where_it_starts() {
    let learned = Learned {
        window: 12,
        sessions_ceiling: Some(8),
        ..Learned::default()
    };
    let mut window = Window::new(bounds(1, 20), Some(&learned));
    assert_eq!((window.size(), window.ceiling()), (8, Some(8)));
    window.set_bounds(bounds(1, 3));
    assert_eq!(window.size(), 3);
    let absurd = Learned {
        window: u32::MAX,
        sessions_ceiling: Some(0),
        ..Learned::default()
    };
    assert_eq!(Window::new(bounds(0, 0), Some(&absurd)).size(), 1);
}

proptest! {
    #[test]
    fn the_size_stays_within_its_bounds(start in 0..50u32, max in 0..50u32, steps in prop::collection::vec((0..5u8, 0..60u32, 0..60u32, 0..9_000u64), 0..300)) {
        let mut now = Instant::now();
        let mut window = Window::new(bounds(start, max), None);
        for (what, messages, working, wait) in steps {
            now += millis(wait);
            match what {
                0 => window.host_error(now),
                1 => window.session_refused(working, now),
                2 => window.session_cut(now),
                _ => window.accepted(messages, working, now),
            }
            let size = window.size();
            prop_assert!(size >= 1 && size <= max.max(1));
            if let Some(ceiling) = window.ceiling() {
                prop_assert!(size <= ceiling.max(1) + 1);
            }
            // Nobody waits for ever: with nothing open, a session is admitted after at most a minute.
            prop_assert_eq!(window.admits(0, 0, now + REST_MAX), Admission::Open);
        }
    }
}

#[test]
fn who_is_turned_away_again_after_a_cohort_of_the_others_has_met_a_ceiling_whenever_the_replies_come()
 {
    let now = Instant::now();
    let mut window = Window::new(bounds(7, 20), None);
    window.session_refused(5, now);
    // All that the others carry meanwhile is answered before the next opening is due.
    window.accepted(6, 5, now + millis(100));
    assert_eq!(window.ceiling(), None, "it may be the beginning of a storm");
    window.session_refused(5, now + millis(600));
    assert_eq!((window.ceiling(), window.size()), (Some(5), 5));
    let mut storm = Window::new(bounds(7, 20), None);
    storm.session_refused(5, now);
    storm.session_refused(5, now + millis(600));
    assert_eq!(storm.ceiling(), None, "nobody was accepted in between");
}
