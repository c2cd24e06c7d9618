//! The permit table: limits, order, fair shares, and that nobody is forgotten in line.

use super::*;

const A: QueueId = QueueId(0);
const B: QueueId = QueueId(1);
const C: QueueId = QueueId(2);
const SITE: SiteId = SiteId(7);

fn notice(queue: QueueId, site: Option<SiteId>, news: News) -> Notice {
    Notice::new(queue, site, news)
}

#[test]
fn a_site_sees_no_more_sessions_than_its_window_whoever_opens_them() {
    let mut table = PermitTable::new(100, 3);
    assert!(table.take_session(SITE, A));
    assert!(table.take_session(SITE, B));
    assert!(table.take_session(SITE, B));
    assert!(!table.take_session(SITE, A));
    assert!(table.take_session(SiteId(8), A));
    assert_eq!(table.sessions_held(SITE), 3);
    assert_eq!(table.sessions_held_by(SITE, B), 2);
}

#[test]
fn a_refused_queue_is_told_when_one_is_free_and_nobody_overtakes_it() {
    let mut table = PermitTable::new(100, 1);
    assert!(table.take_session(SITE, A));
    assert!(!table.take_session(SITE, B));
    assert_eq!(
        table.take_notices(),
        [notice(A, Some(SITE), News::Wanted)],
        "the holder hears of it"
    );
    table.return_session(SITE, A);
    assert_eq!(table.take_notices(), [notice(B, Some(SITE), News::Free)]);
    assert!(!table.take_session(SITE, A), "B stands in line");
    assert!(table.take_session(SITE, B));
    table.return_session(SITE, B);
    assert_eq!(table.take_notices(), [notice(A, Some(SITE), News::Free)]);
}

#[test]
fn a_permit_that_is_declined_goes_to_the_next_in_line() {
    let mut table = PermitTable::new(100, 1);
    assert!(table.take_session(SITE, A));
    assert!(!table.take_session(SITE, B));
    assert!(!table.take_session(SITE, C));
    table.return_session(SITE, A);
    table.take_notices();
    table.decline_session(SITE, B);
    assert_eq!(table.take_notices(), [notice(C, Some(SITE), News::Free)]);
    assert!(table.take_session(SITE, C));
}

#[test]
fn who_has_none_goes_before_who_wants_more() {
    let mut table = PermitTable::new(100, 2);
    assert!(table.take_session(SITE, A));
    assert!(table.take_session(SITE, A));
    assert!(!table.take_session(SITE, A));
    assert!(!table.take_session(SITE, B));
    assert_eq!(table.session_wanted(SITE, A), Wanted::Yes);
    assert_eq!(table.session_wanted(SITE, B), Wanted::IfIdle);
    table.take_notices();
    table.return_session(SITE, A);
    assert_eq!(table.take_notices(), [notice(B, Some(SITE), News::Free)]);
    assert!(table.take_session(SITE, B));
    assert_eq!(
        table.session_wanted(SITE, B),
        Wanted::IfIdle,
        "each has its share now"
    );
}

#[test]
fn a_window_of_one_goes_round_between_two_queues() {
    let mut table = PermitTable::new(100, 1);
    assert!(table.take_session(SITE, A));
    assert!(!table.take_session(SITE, B));
    assert_eq!(table.session_wanted(SITE, A), Wanted::Yes);
    assert_eq!(table.window(SITE, A), 1);
}

#[test]
fn the_window_is_divided_among_those_who_use_the_site() {
    let mut table = PermitTable::new(100, 20);
    assert_eq!(table.window(SITE, A), 20);
    table.take_session(SITE, A);
    assert_eq!(table.window(SITE, A), 20);
    table.take_session(SITE, B);
    assert_eq!(table.window(SITE, A), 10);
    table.set_queue_window(A, 4);
    assert_eq!(table.window(SITE, A), 4);
}

#[test]
fn a_limit_of_its_own_puts_no_queue_in_line() {
    let mut table = PermitTable::new(100, 20);
    table.set_queue_window(A, 1);
    assert!(table.take_session(SITE, A));
    assert!(!table.take_session(SITE, A));
    assert!(table.take_session(SITE, B));
    table.return_session(SITE, B);
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
    assert_eq!(table.take_notices(), [notice(A, None, News::Free)]);
    assert!(table.take_worker(A));
    assert!(table.take_session(SITE, A));
    assert!(!table.take_session(SITE, B));
    assert!(!table.take_session(SITE, C));
    table.close(B);
    table.take_notices();
    table.return_session(SITE, A);
    assert_eq!(table.take_notices(), [notice(C, Some(SITE), News::Free)]);
}

#[test]
fn limits_can_be_changed_while_it_runs() {
    let mut table = PermitTable::new(1, 1);
    assert!(table.take_worker(A) && table.take_session(SITE, A));
    assert!(!table.take_worker(B) && !table.take_session(SITE, B));
    table.take_notices();
    table.set_workers_max(2);
    table.set_site_window(SITE, 2);
    assert_eq!(
        table.take_notices(),
        [
            notice(B, None, News::Free),
            notice(B, Some(SITE), News::Free)
        ]
    );
    table.set_site_window(SITE, 1);
    assert!(!table.take_session(SITE, B));
}

#[test]
fn sites_nobody_uses_take_no_memory() {
    let mut table = PermitTable::new(10, 1);
    for site in 0..100 {
        assert!(table.take_session(SiteId(site), A));
        table.return_session(SiteId(site), A);
    }
    assert_eq!(table.sites.len(), 0);
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
    assert_eq!(table.worker_wanted(C), Wanted::Yes);
}
