//! What is known of hosts: within a run, and from one to the next.

use super::*;

fn host() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

#[test]
fn a_suspected_host_is_never_run_ahead_of_that_far_again() {
    let hosts = Hosts::default();
    assert_eq!(hosts.level(host()), Pipelining::Cross);
    hosts.suspect(host(), Pipelining::Cross, Instant::now());
    assert_eq!(hosts.level(host()), Pipelining::Classic);
    hosts.suspect(host(), Pipelining::Classic, Instant::now());
    hosts.suspect(host(), Pipelining::Cross, Instant::now());
    assert_eq!(hosts.level(host()), Pipelining::None);
    assert_eq!(hosts.level("192.0.2.2".parse().unwrap()), Pipelining::Cross);
}

#[test]
fn a_dead_address_rests_longer_with_each_failure_and_is_alive_once_it_answers() {
    let (hosts, now) = (Hosts::default(), Instant::now());
    assert!(!hosts.is_dead(host(), now));
    hosts.failed(host(), now, 0.5);
    assert!(hosts.is_dead(host(), now + Duration::from_secs(59)));
    assert!(!hosts.is_dead(host(), now + Duration::from_secs(60)));
    hosts.failed(host(), now, 0.5);
    assert!(hosts.is_dead(host(), now + Duration::from_secs(119)));
    for _ in 0..40 {
        hosts.failed(host(), now, 1.0);
    }
    assert!(
        !hosts.is_dead(host(), now + Duration::from_secs(4501)),
        "at most an hour and its jitter"
    );
    hosts.answered(host());
    assert!(!hosts.is_dead(host(), now));
    hosts.failed(host(), now, 0.5);
    assert!(
        !hosts.is_dead(host(), now + Duration::from_secs(61)),
        "it starts again from a minute"
    );
}

#[test]
fn a_host_is_without_tls_once_its_handshakes_have_failed_for_long_enough() {
    let (hosts, start) = (Hosts::default(), Instant::now());
    let patience = Duration::from_secs(300);
    let at = |secs: u64| start + Duration::from_secs(secs);
    let is_without = |secs: u64| hosts.is_without_tls(host(), at(secs), patience);
    assert!(!is_without(0));
    hosts.handshake_failed(host(), at(0));
    assert!(!is_without(0) && !is_without(1000), "one failure is one");
    hosts.handshake_failed(host(), at(299));
    assert!(!is_without(299));
    hosts.handshake_failed(host(), at(300));
    assert!(is_without(300) && is_without(3899));
    assert!(!is_without(3900), "it is asked again after an hour");
    hosts.handshake_failed(host(), at(3901));
    assert!(is_without(3901), "and believed at once");
    hosts.handshake_worked(host());
    assert!(!is_without(3901));
    hosts.handshake_failed(host(), at(4000));
    assert!(!is_without(4000), "it starts again from nothing");
}

#[test]
fn what_an_earlier_run_knew_never_hides_what_this_one_has_met() {
    let (hosts, now) = (Hosts::default(), Instant::now());
    let other: IpAddr = "192.0.2.2".parse().unwrap();
    let remembered = Host {
        level: Pipelining::None,
        dead_until: Some(now + Duration::from_secs(60)),
        failures: 1,
        ..Host::default()
    };
    let all = [host(), other].into_iter();
    assert_eq!(hosts.strangers(all.clone()), [host(), other]);
    hosts.suspect(host(), Pipelining::Cross, now);
    hosts.recall(host(), Some(remembered.clone()));
    hosts.recall(other, Some(remembered));
    assert!(hosts.strangers(all).is_empty());
    assert_eq!(hosts.level(host()), Pipelining::Classic);
    assert_eq!(hosts.level(other), Pipelining::None);
    assert!(hosts.is_dead(other, now) && !hosts.is_dead(host(), now));
}

#[test]
fn what_has_changed_is_handed_over_once_unless_it_was_not_kept() {
    let (hosts, now) = (Hosts::default(), Instant::now());
    hosts.recall("192.0.2.9".parse().unwrap(), None);
    assert_eq!(hosts.take_changed(), [], "nothing new about it");
    hosts.answered(host());
    assert_eq!(
        hosts.take_changed(),
        [],
        "nothing was known, nothing changed"
    );
    hosts.chunking_failed(host(), now);
    let changed = hosts.take_changed();
    assert_eq!((changed.len(), changed[0].0), (1, host()));
    assert_eq!(changed[0].1.suspected, Some(now));
    assert_eq!(hosts.take_changed(), []);
    hosts.not_kept(&changed);
    assert_eq!(hosts.take_changed(), changed);
    hosts.chunking_failed(host(), now + Duration::from_secs(9));
    assert_eq!(hosts.take_changed()[0].1.suspected, Some(now));
}

#[test]
fn failed_handshakes_of_long_ago_and_of_now_do_not_add_up() {
    let (hosts, start) = (Hosts::default(), Instant::now());
    let patience = Duration::from_secs(300);
    let last_night = Host {
        handshakes_failed: Some((start, start + Duration::from_secs(10))),
        ..Host::default()
    };
    hosts.recall(host(), Some(last_night.clone()));
    let tonight = start + Duration::from_secs(10) + CLEAR_MAX;
    hosts.handshake_failed(host(), tonight);
    assert!(!hosts.is_without_tls(host(), tonight, patience));
    hosts.handshake_failed(host(), tonight + patience);
    assert!(hosts.is_without_tls(host(), tonight + patience, patience));
    let other: IpAddr = "192.0.2.2".parse().unwrap();
    hosts.recall(other, Some(last_night));
    let soon = start + Duration::from_secs(1800);
    hosts.handshake_failed(other, soon);
    assert!(hosts.is_without_tls(other, soon, patience), "it goes on");
}
