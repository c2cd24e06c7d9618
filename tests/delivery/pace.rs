//! How many sessions a site gets, how long they are and how fast they go: found from replies, or as configured.
//!
//! What is counted is what the receiver has seen. No limit of the receiver's is in any configuration here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use mailer::sink::SinkConfig;

use crate::batch::Batch;
use crate::lab::{AT_ONCE, Lab, SOON, keeping};

/// One server.
const ZONE: &str = "site.test MX 10 mx.site.test\nmx.site.test A 127.0.6.1\n";

#[test]
fn a_server_that_allows_five_sessions_gets_five_and_turns_hardly_any_away() {
    let config = SinkConfig {
        connections_per_address_max: Some(5),
        ..keeping(&["stage=dot delay=10ms"])
    };
    let lab = Lab::new(ZONE, config);
    let ended = lab.send(&Batch::to_domain("site.test", 1500), &[]);
    lab.assert_all_delivered(&ended, 1500);
    let stats = lab.sink.stats();
    assert!(stats.connections_refused > 0, "all five are used: {stats}");
    // One in fifty attempts, and those that were on their way when the first was turned away.
    assert!(stats.connections_refused <= 30, "{stats}");
    let used: BTreeSet<u64> = lab.sink.messages().iter().map(|one| one.session).collect();
    assert!((5..=8).contains(&used.len()), "{used:?}: {stats}");
}

#[test]
fn sessions_of_a_server_that_ends_them_after_twenty_messages_are_ended_by_us() {
    let config = SinkConfig {
        messages_per_connection_max: Some(20),
        ..keeping(&[])
    };
    let lab = Lab::new(ZONE, config);
    let config = lab.file("mailer.toml", "max_sessions = 1\n");
    let arguments = ["--config", config.to_str().unwrap()];
    let ended = lab.send(&Batch::to_domain("site.test", 400), &arguments);
    lab.assert_all_delivered(&ended, 400);
    let all_at_once = |row: &crate::lab::Row| row.attempts == "1";
    assert!(ended.rows.iter().all(all_at_once), "{}", ended.odd());
    let stats = lab.sink.stats();
    let sessions = stats.connections;
    assert!((20..=24).contains(&sessions), "{sessions} sessions");
    assert!(
        stats.refusals <= 3,
        "the first two teach us: {} were cut",
        stats.refusals
    );
}

#[test]
fn the_configured_rate_is_never_exceeded_and_is_reached() {
    let lab = Lab::new(ZONE, keeping(&[]));
    let arguments = ["--rate", "20/s"];
    let program = lab.start(&Batch::to_domain("site.test", 80), &arguments);
    let ended = program.wait();
    lab.assert_all_delivered(&ended, 80);
    let stats = lab.sink.stats();
    // 20 in any second: the first second may have them all, then each other one as many.
    assert!(stats.span >= Duration::from_millis(2900), "{stats}");
    assert!(stats.span <= Duration::from_secs(8), "{stats}");
    assert_eq!(
        stats.connections, 1,
        "a session for which mail waits is kept: {stats}"
    );
}

#[test]
fn the_rate_of_a_queue_holds_for_all_its_sites_together() {
    let lab = Lab::with_rules(&[]);
    let config = "[queue.slow]\ndomains = [\".slow.test\"]\nrate = \"20/s\"\n";
    let config = lab.file("mailer.toml", config);
    let slow = (0..60).map(|n| format!("u{n}@d{}.slow.test", n % 12));
    let fast = (0..300).map(|n| format!("u{n}@fast.test"));
    let batch = Batch::to_each(slow.chain(fast));
    let program = lab.start(&batch, &["--config", config.to_str().unwrap()]);
    // Whoever is not in the queue does not wait for it.
    lab.wait_until(|stats| stats.messages >= 300);
    let of_slow = || {
        let messages = lab.sink.messages();
        let is_slow = |one: &&mailer::sink::Received| one.recipients[0].ends_with(".slow.test");
        messages.iter().filter(is_slow).count()
    };
    assert!(of_slow() < 60, "{}", of_slow());
    lab.assert_all_delivered(&program.wait(), 360);
    assert!(lab.sink.stats().span >= Duration::from_millis(1900));
}

#[test]
fn each_source_address_has_a_limit_of_its_own() {
    let lab = Lab::new(ZONE, keeping(&["stage=dot delay=20ms"]));
    let config = format!("idle = \"60s\"\nmax_sessions = 2\n{AT_ONCE}");
    let config = lab.file("mailer.toml", config);
    let arguments = [
        "--config",
        config.to_str().unwrap(),
        "--bind",
        "127.0.6.8",
        "--bind",
        "127.0.6.9",
    ];
    let ended = lab.send(&Batch::to_domain("site.test", 200), &arguments);
    lab.assert_all_delivered(&ended, 200);
    let mut sessions: BTreeMap<IpAddr, BTreeSet<u64>> = BTreeMap::new();
    for message in lab.sink.messages() {
        let of_source = sessions.entry(message.peer.ip()).or_default();
        of_source.insert(message.session);
    }
    let counts: Vec<_> = sessions
        .iter()
        .map(|(source, sessions)| (source.to_string(), sessions.len()))
        .collect();
    let expected = [("127.0.6.8".to_owned(), 2), ("127.0.6.9".to_owned(), 2)];
    assert_eq!(counts, expected);
}

#[test]
fn what_was_sent_too_fast_waits_for_the_pace_and_not_for_its_own_back_off() {
    let lab = Lab::new(
        ZONE,
        keeping(&["stage=mail reply=\"451 4.7.28 too fast\" after=30 first=1"]),
    );
    // A retry by the back-off of the recipient would come after half an hour.
    let arguments = ["--retry-min", "30m", "--retry-max", "1h"];
    let ended = lab.send(&Batch::to_domain("site.test", 40), &arguments);
    lab.assert_all_delivered(&ended, 40);
    let again = ended.rows.iter().filter(|row| row.attempts == "2").count();
    assert_eq!(again, 1, "{}", ended.odd());
}

#[test]
fn a_rate_that_cannot_be_read_is_told_with_an_example() {
    let lab = Lab::with_rules(&[]);
    let arguments = [&SOON[..], &["--rate", "often"]].concat();
    let ended = lab.send(&Batch::to_domain("site.test", 1), &arguments);
    ended.assert_status(64);
    assert!(ended.stderr.contains("600/min"), "{}", ended.stderr);
    assert_eq!(lab.sink.stats().connections, 0);
}
