//! The permit table: limits, order, fair shares, and that nobody is forgotten in line.

use std::time::Duration;

use super::*;
use crate::mail::SourceNo;
use crate::queue::pace::Rate;
use crate::queue::terms::{Learned, OwnLimits};

const A: QueueId = QueueId(0);
const B: QueueId = QueueId(1);
const C: QueueId = QueueId(2);
const SITE: SiteId = SiteId(7);

const ONE: SourceNo = SourceNo(0);

fn notice(queue: QueueId, permit: Permit, news: News) -> Notice {
    Notice::new(queue, permit, news)
}

impl PermitTable {
    /// Takes a session that is open at once.
    fn take(&mut self, site: SiteId, queue: QueueId) -> bool {
        let now = Instant::now();
        let granted = self.take_session(site, queue, Phase::First, now) == Grant::Granted(ONE);
        if granted {
            self.end_opening(site, queue, ONE, Phase::First);
        }
        granted
    }

    fn give(&mut self, site: SiteId, queue: QueueId) {
        self.return_session(site, queue, ONE);
    }

    fn window(&self, site: SiteId, queue: QueueId) -> u32 {
        self.share(site, queue, ONE).sessions
    }
}

#[test]
fn a_site_sees_no_more_sessions_than_its_window_whoever_opens_them() {
    let mut table = PermitTable::new(100, 3);
    assert!(table.take(SITE, A));
    assert!(table.take(SITE, B));
    assert!(table.take(SITE, B));
    assert!(!table.take(SITE, A));
    assert!(table.take(SiteId(8), A));
    assert_eq!(table.sessions_held(SITE), 3);
    assert_eq!(table.sessions_held_by(SITE, B), 2);
}

#[test]
fn a_refused_queue_is_told_when_one_is_free_and_nobody_overtakes_it() {
    let mut table = PermitTable::new(100, 1);
    assert!(table.take(SITE, A));
    assert!(!table.take(SITE, B));
    assert_eq!(
        table.take_notices(),
        [notice(A, Permit::Session(SITE), News::Wanted)],
        "the holder hears of it"
    );
    table.give(SITE, A);
    assert_eq!(
        table.take_notices(),
        [notice(B, Permit::Session(SITE), News::Free)]
    );
    assert!(!table.take(SITE, A), "B stands in line");
    assert!(table.take(SITE, B));
    table.give(SITE, B);
    assert_eq!(
        table.take_notices(),
        [notice(A, Permit::Session(SITE), News::Free)]
    );
}

#[test]
fn a_permit_that_is_declined_goes_to_the_next_in_line() {
    let mut table = PermitTable::new(100, 1);
    assert!(table.take(SITE, A));
    assert!(!table.take(SITE, B));
    assert!(!table.take(SITE, C));
    table.give(SITE, A);
    table.take_notices();
    table.decline_session(SITE, B);
    assert_eq!(
        table.take_notices(),
        [notice(C, Permit::Session(SITE), News::Free)]
    );
    assert!(table.take(SITE, C));
}

#[test]
fn who_has_none_goes_before_who_wants_more() {
    let mut table = PermitTable::new(100, 2);
    assert!(table.take(SITE, A));
    assert!(table.take(SITE, A));
    assert!(!table.take(SITE, A));
    assert!(!table.take(SITE, B));
    assert_eq!(table.session_wanted(SITE, A), Wanted::Yes);
    assert_eq!(table.session_wanted(SITE, B), Wanted::IfIdle);
    table.take_notices();
    table.give(SITE, A);
    assert_eq!(
        table.take_notices(),
        [notice(B, Permit::Session(SITE), News::Free)]
    );
    assert!(table.take(SITE, B));
    assert_eq!(
        table.session_wanted(SITE, B),
        Wanted::IfIdle,
        "each has its share now"
    );
}

#[test]
fn a_window_of_one_goes_round_between_two_queues() {
    let mut table = PermitTable::new(100, 1);
    assert!(table.take(SITE, A));
    assert!(!table.take(SITE, B));
    assert_eq!(table.session_wanted(SITE, A), Wanted::Yes);
    assert_eq!(table.window(SITE, A), 1);
}

#[test]
fn the_window_is_divided_among_those_who_use_the_site() {
    let mut table = PermitTable::new(100, 20);
    assert_eq!(table.window(SITE, A), 20);
    table.take(SITE, A);
    assert_eq!(table.window(SITE, A), 20);
    table.take(SITE, B);
    assert_eq!(table.window(SITE, A), 10);
    table.set_queue_window(A, Some(4));
    assert_eq!(table.window(SITE, A), 4);
}

#[test]
fn a_limit_of_its_own_puts_no_queue_in_line() {
    let mut table = PermitTable::new(100, 20);
    table.set_queue_window(A, Some(1));
    assert!(table.take(SITE, A));
    assert!(!table.take(SITE, A));
    assert!(table.take(SITE, B));
    table.give(SITE, B);
    assert_eq!(table.take_notices(), []);
}

#[test]
fn a_worker_is_kept_for_each_open_queue_up_to_a_quarter() {
    let mut table = PermitTable::new(8, 20);
    for queue in [A, B, C] {
        table.open(queue);
    }
    let taken = (0..10).filter(|_| table.take_worker(A)).count();
    assert_eq!(taken, 6);
    assert!(table.take_worker(B));
    assert!(table.take_worker(C));
    assert!(!table.take_worker(B));
    assert_eq!(table.workers_held(), 8);
    let mut small = PermitTable::new(2, 20);
    for queue in [A, B, C] {
        small.open(queue);
    }
    assert!(small.take_worker(A) && small.take_worker(A));
}

#[test]
fn a_closed_queue_keeps_nobody_waiting() {
    let mut table = PermitTable::new(4, 1);
    table.open(A);
    table.open(B);
    assert_eq!((0..9).filter(|_| table.take_worker(A)).count(), 3);
    table.take_notices();
    table.close(B);
    assert_eq!(
        table.take_notices(),
        [notice(A, Permit::Worker, News::Free)]
    );
    assert!(table.take_worker(A));
    assert!(table.take(SITE, A));
    assert!(!table.take(SITE, B));
    assert!(!table.take(SITE, C));
    table.close(B);
    table.take_notices();
    table.give(SITE, A);
    assert_eq!(
        table.take_notices(),
        [notice(C, Permit::Session(SITE), News::Free)]
    );
}

#[test]
fn limits_can_be_changed_while_it_runs() {
    let mut table = PermitTable::new(1, 1);
    assert!(table.take_worker(A) && table.take(SITE, A));
    assert!(!table.take_worker(B) && !table.take(SITE, B));
    table.take_notices();
    table.set_workers_max(2);
    table.set_site_window(SITE, 2, Instant::now());
    assert_eq!(
        table.take_notices(),
        [
            notice(B, Permit::Worker, News::Free),
            notice(B, Permit::Session(SITE), News::Free)
        ]
    );
    table.set_site_window(SITE, 1, Instant::now());
    assert!(!table.take(SITE, B));
}

fn accepted(messages: u32) -> Feedback {
    Feedback {
        accepted: messages,
        ..Feedback::default()
    }
}

fn rate(text: &str) -> Option<Rate> {
    Some(text.parse().unwrap())
}

#[test]
fn a_site_not_known_yet_gets_one_session_and_more_as_messages_are_accepted() {
    let mut table = PermitTable::with_terms(100, SiteTerms::default(), 1);
    let mut rng = fastrand::Rng::with_seed(1);
    assert!(table.take(SITE, A) && !table.take(SITE, A));
    assert!(table.share(SITE, A, ONE).grows);
    table.take_notices();
    let now = Instant::now();
    table.report(SITE, ONE, &accepted(1), now, now, &mut rng);
    let told = [notice(A, Permit::Session(SITE), News::Free)];
    assert_eq!(table.take_notices(), told, "who waits hears of it");
    assert!(table.take(SITE, A) && !table.take(SITE, A));
    assert_eq!(table.site_status(SITE).window, 2);
}

#[test]
fn what_a_site_is_introduced_with_holds_and_follows_the_operator_where_it_does_not_differ() {
    let mut table = PermitTable::with_terms(100, SiteTerms::default(), 1);
    let now = Instant::now();
    let mut terms = SiteTerms::default();
    terms.bounds.start = 4;
    terms.learned = Some(Learned {
        window: 6,
        messages_per_session: Some(20),
        ..Learned::default()
    });
    table.introduce(SITE, terms, now);
    assert_eq!((0..9).filter(|_| table.take(SITE, A)).count(), 6);
    let share = table.share(SITE, A, ONE);
    assert_eq!(share.messages_per_session, Some(20));
    let mut general = SiteTerms::default();
    general.bounds.max = 5;
    general.rate = rate("10/s");
    table.set_general(general, now);
    let status = table.site_status(SITE);
    assert_eq!((status.bounds.start, status.bounds.max), (4, 5));
    assert_eq!(table.session_wanted(SITE, A), Wanted::Yes);
    assert!(table.share(SITE, A, ONE).is_paced);
    assert_eq!(status.rate_per_minute, Some(600.0));
    table.set_site_bounds(SITE, Some(2), Some(None), now);
    let status = table.site_status(SITE);
    assert_eq!(
        (status.bounds.max, status.rate_per_minute),
        (2, None),
        "ordered for this site alone"
    );
}

#[test]
fn what_a_site_has_of_its_own_is_kept_while_the_general_limits_go_down_and_up() {
    let now = Instant::now();
    let general = |sessions, text| {
        let mut terms = SiteTerms::default();
        (terms.bounds.max, terms.rate) = (sessions, rate(text));
        terms
    };
    let mut table = PermitTable::with_terms(100, general(20, "600/min"), 1);
    let (small, large) = (SiteId(1), SiteId(2));
    for (site, sessions, text) in [(small, 5, "60/min"), (large, 25, "6000/min")] {
        let mut terms = general(20, "600/min");
        terms.own = OwnLimits {
            sessions: Some(sessions),
            rate: rate(text),
            ordered_rate: None,
        };
        table.introduce(site, terms, now);
    }
    let in_force = |table: &PermitTable| {
        [small, large].map(|site| {
            let status = table.site_status(site);
            (status.bounds.max, status.rate_per_minute)
        })
    };
    assert_eq!(in_force(&table), [(5, Some(60.0)), (20, Some(600.0))]);
    table.set_general(general(2, "30/min"), now);
    assert_eq!(in_force(&table), [(2, Some(30.0)), (2, Some(30.0))]);
    table.set_general(general(100, "60000/min"), now);
    assert_eq!(in_force(&table), [(5, Some(60.0)), (25, Some(6000.0))]);
    table.set_general(general(20, "600/min"), now);
    // The operator goes before what was known of the site, and with a rate before what holds for all.
    table.set_site_bounds(small, Some(10), Some(rate("120/min")), now);
    table.set_site_bounds(large, Some(50), Some(rate("1200/min")), now);
    assert_eq!(in_force(&table), [(10, Some(120.0)), (20, Some(1200.0))]);
    table.set_general(general(100, "60000/min"), now);
    assert_eq!(in_force(&table), [(10, Some(120.0)), (50, Some(1200.0))]);
    // One that is met only now has what holds now.
    let mut terms = general(20, "600/min");
    terms.own.sessions = Some(200);
    table.introduce_once(SiteId(4), terms, now);
    assert_eq!(table.site_status(SiteId(4)).bounds.max, 100);
    // One that nobody introduced, likewise.
    let other = SiteId(3);
    table.set_site_bounds(other, Some(7), None, now);
    table.set_general(general(3, "60/min"), now);
    assert_eq!(table.site_status(other).bounds.max, 3);
    table.set_general(general(9, "60/min"), now);
    assert_eq!(table.site_status(other).bounds.max, 7);
}

#[test]
fn each_source_address_has_a_window_of_its_own_and_they_are_filled_evenly() {
    let mut terms = SiteTerms::default();
    terms.bounds.start = 2;
    let mut table = PermitTable::with_terms(100, terms, 2);
    let now = Instant::now();
    let mut sources = Vec::new();
    while let Grant::Granted(source) = table.take_session(SITE, A, Phase::First, now) {
        sources.push(source.0);
    }
    assert_eq!(sources, [0, 1, 0, 1]);
    table.end_opening(SITE, A, SourceNo(1), Phase::First);
    table.return_session(SITE, A, SourceNo(1));
    let again = table.take_session(SITE, A, Phase::First, now);
    assert_eq!(again, Grant::Granted(SourceNo(1)));
}

#[test]
fn sessions_that_do_not_open_cannot_hold_all_threads() {
    let mut table = PermitTable::new(8, 20);
    let now = Instant::now();
    let open = |table: &mut PermitTable, site: u32, queue, phase| {
        table.take_session(SiteId(site), queue, phase, now) == Grant::Granted(ONE)
    };
    let first = (0..9).filter(|site| open(&mut table, *site, A, Phase::First));
    assert_eq!(first.count(), 4, "a half for first sessions");
    let more = (0..9).filter(|_| open(&mut table, 0, A, Phase::Further));
    assert_eq!(more.count(), 2, "a quarter for others");
    table.decline_connect(A, Phase::First);
    assert!(!open(&mut table, 50, B, Phase::First));
    assert!(!open(&mut table, 51, C, Phase::First));
    table.take_notices();
    table.end_opening(SiteId(1), A, ONE, Phase::First);
    let told = notice(B, Permit::Connect(Phase::First), News::Free);
    assert_eq!(table.take_notices(), [told], "first in, first out");
    assert!(open(&mut table, 50, B, Phase::First));
    assert!(!open(&mut table, 51, C, Phase::First));
    table.end_opening(SiteId(2), A, ONE, Phase::First);
    let told = notice(C, Permit::Connect(Phase::First), News::Free);
    assert_eq!(table.take_notices(), [told]);
}

#[test]
fn the_strictest_rate_binds_and_what_it_does_not_give_goes_back() {
    let mut terms = SiteTerms::default();
    terms.bounds.start = 9;
    terms.rate = rate("6000/min burst 50");
    let mut table = PermitTable::with_terms(100, terms, 1);
    let start = Instant::now();
    table.set_queue_rates(A, rate("6000/min burst 5"), None, start);
    table.set_source_rate(rate("6000/min burst 20"), start);
    assert!(table.take(SITE, A) && table.take(SITE, B));
    let mut take = |queue, wanted| table.take_messages(SITE, queue, ONE, wanted, start);
    let of_a = take(A, 100);
    assert!((5..=6).contains(&of_a.granted), "{of_a:?}");
    let none = take(A, 100);
    assert!(none.granted == 0 && none.for_all && none.next.unwrap() > start);
    let of_b = take(B, 100);
    let all = of_a.granted + of_b.granted;
    assert!((20..=21).contains(&all), "{of_b:?}");
    let none = take(B, 1);
    assert!(
        none.granted == 0 && none.for_all,
        "the only source: {none:?}"
    );
    let answer = table.take_session(SITE, B, Phase::Further, start);
    assert!(
        matches!(answer, Grant::NoneBefore(at) if at > start),
        "{answer:?}"
    );
    table.give_back_messages(SITE, B, ONE, of_b.granted, start);
    let again = table.take_messages(SITE, B, ONE, 100, start);
    assert_eq!(again.granted, of_b.granted, "given back is as never taken");
}

#[test]
fn connections_have_a_pace_of_their_own() {
    let mut terms = SiteTerms::default();
    terms.bounds.start = 9;
    terms.connect_rate = rate("60/min");
    let mut table = PermitTable::with_terms(100, terms, 1);
    let start = Instant::now();
    let taken = (0..9).filter(|_| table.take(SITE, A)).count();
    assert!((1..=2).contains(&taken), "{taken}");
    let Grant::NotBefore(at) = table.take_session(SITE, B, Phase::First, Instant::now()) else {
        panic!("one a second");
    };
    assert!(at <= start + Duration::from_millis(2100));
    let answer = table.take_session(SITE, B, Phase::First, at);
    assert_eq!(answer, Grant::Granted(ONE));
    assert!(
        table.sites[&SITE].stock.line.is_empty(),
        "time tells, not a notice"
    );
}

#[test]
fn a_session_that_is_opened_again_counts_for_the_queue_and_for_the_site_and_address() {
    let start = Instant::now();
    let mut terms = SiteTerms::default();
    terms.bounds.start = 9;
    terms.connect_rate = rate("4/h burst 1");
    let mut table = PermitTable::with_terms(100, terms, 2);
    table.set_queue_rates(A, None, rate("8/h burst 2"), start);
    let two = SourceNo(1);
    assert_eq!(
        table.take_session(SITE, A, Phase::First, start),
        Grant::Granted(ONE)
    );
    assert!(!table.may_reopen(SITE, A, ONE, start), "the site's is used");
    assert!(
        table.may_reopen(SITE, A, two, start),
        "that of another is not"
    );
    assert!(!table.reopened(SITE, A, ONE, start), "counted all the same");
    assert!(
        !table.may_reopen(SITE, A, two, start),
        "so the queue's is used"
    );
    assert!(matches!(
        table.take_session(SiteId(8), A, Phase::First, start),
        Grant::NoneBefore(_)
    ));
    let half = start + Duration::from_secs(1800);
    assert!(table.may_reopen(SITE, A, ONE, half), "two are paid by then");
    assert!(table.reopened(SITE, A, ONE, half));
    assert_eq!(
        table.sessions_held(SITE),
        1,
        "it stands for the same permit"
    );
}

#[test]
fn a_rate_that_is_lifted_and_set_again_counts_what_went_before_and_meanwhile() {
    let start = Instant::now();
    let mut terms = SiteTerms::default();
    (terms.bounds.start, terms.rate) = (9, rate("60/min burst 1"));
    let mut table = PermitTable::with_terms(100, terms, 1);
    let burst = rate("10/min burst 10");
    table.set_queue_rates(A, burst, burst, start);
    assert!(table.take(SITE, A));
    let take = |table: &mut PermitTable, wanted, now| {
        table.take_messages(SITE, A, ONE, wanted, now).granted
    };
    let before = take(&mut table, 10, start);
    assert!((1..=2).contains(&before), "{before}");
    table.set_queue_rates(A, None, None, start);
    table.set_site_bounds(SITE, None, Some(None), start);
    assert_eq!(table.site_status(SITE).rate_per_minute, None);
    assert!(table.share(SITE, A, ONE).is_paced, "it is counted on");
    let later = start + Duration::from_secs(1);
    assert_eq!(take(&mut table, 100, later), 100, "no rate binds");
    table.set_site_bounds(SITE, None, Some(rate("60/min burst 1")), later);
    let second = later + Duration::from_secs(30);
    assert_eq!(take(&mut table, 1, second), 0, "a hundred in this minute");
    assert!(take(&mut table, 1, later + Duration::from_secs(61)) > 0);
    table.set_queue_rates(A, burst, burst, later + Duration::from_secs(61));
}

#[test]
fn a_queue_with_more_pending_mail_has_the_larger_share_of_the_workers() {
    let mut table = PermitTable::new(8, 20);
    table.set_queue_weight(A, 3);
    assert_eq!((0..8).filter(|_| table.take_worker(A)).count(), 8);
    assert!(!table.take_worker(B));
    for _ in 0..2 {
        assert_eq!(table.worker_wanted(A), Wanted::Yes);
        table.return_worker(A);
        assert!(table.take_worker(B));
        table.take_worker(B);
    }
    assert_eq!(table.worker_wanted(A), Wanted::IfIdle, "six are its share");
}

/// Whatever happens, nobody who could have a permit stands in line without having been told.
#[test]
fn nobody_is_forgotten_in_line() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut table = PermitTable::new(rng.u32(1..9), 3);
        let mut held = [0u32; 4];
        for queue in 0..rng.u16(0..4) {
            table.open(QueueId(queue));
        }
        for _ in 0..300 {
            let q = rng.usize(0..4);
            let queue = QueueId(q as u16);
            match rng.u8(0..6) {
                0..3 => held[q] += u32::from(table.take_worker(queue)),
                3 if held[q] > 0 => {
                    table.return_worker(queue);
                    held[q] -= 1;
                }
                4 => table.decline_worker(queue),
                _ => {}
            }
            assert_eq!(held.iter().sum::<u32>(), table.workers_held());
            assert!(table.workers_held() <= table.workers_max);
            for waiter in &table.workers.line {
                assert!(
                    waiter.notified || !table.would_take_worker(waiter.queue),
                    "seed {seed}: {table:?}"
                );
            }
        }
    }
}

#[test]
fn each_queue_is_due_a_share_by_its_weight_and_nobody_gives_his_last_worker_to_one_who_has_some() {
    let mut table = PermitTable::new(10, 9);
    table.set_queue_weight(A, 30);
    table.set_queue_weight(B, 10);
    table.set_queue_weight(C, 1);
    for (queue, count) in [(C, 1), (B, 1), (A, 8)] {
        (0..count).for_each(|_| assert!(table.take_worker(queue)));
    }
    assert!(!table.take_worker(B));
    assert!(!table.take_worker(C));
    // Of 41 parts, A is due 7 workers, B 2, and C none, but has one.
    assert_eq!(table.worker_wanted(A), Wanted::Yes, "B is due one more");
    assert_eq!(table.worker_wanted(C), Wanted::IfIdle, "its only one");
    table.return_worker(A);
    assert!(table.take_worker(B));
    assert_eq!(
        table.worker_wanted(A),
        Wanted::IfIdle,
        "all have their shares"
    );
    table.set_queue_weight(B, 40);
    assert!(!table.take_worker(B));
    assert_eq!(
        table.worker_wanted(A),
        Wanted::Yes,
        "the weights have changed"
    );
    // Somebody who has none gets one, whatever he weighs.
    table.set_queue_weight(QueueId(3), 1);
    assert!(!table.take_worker(QueueId(3)));
    assert_eq!(table.worker_wanted(A), Wanted::Yes);
    assert_eq!(table.worker_wanted(C), Wanted::IfIdle, "still its only one");
}
