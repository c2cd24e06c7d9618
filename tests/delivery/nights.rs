//! Two nights: what the first run has found out of a site the second one begins with.

use mailer::sink::SinkConfig;

use crate::batch::Batch;
use crate::lab::{Lab, SOON, keeping};

/// `count` messages that no other night has.
fn night(name: &str, count: usize) -> Batch {
    Batch::to_each((0..count).map(|n| format!("{name}{n}@big.test")))
}

/// A figure that is remembered of the only site.
fn learned(lab: &Lab, column: &str) -> Option<i64> {
    let memory = rusqlite::Connection::open(lab.path("state/hosts.sqlite")).unwrap();
    let sql = format!("SELECT {column} FROM site");
    memory.query_row(&sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn the_second_night_begins_with_the_sessions_that_the_first_one_came_to() {
    let mut lab = Lab::with_rules(&["stage=dot delay=20ms"]);
    lab.assert_all_delivered(&lab.send(&night("first", 400), &[]), 400);
    let window = learned(&lab, "window").unwrap();
    assert!(window >= 4, "{window}");
    assert_eq!(learned(&lab, "sessions_ceiling"), None);
    // Nothing is accepted, so nothing can be learned: what is opened is what was known.
    lab.replace_receiver(&["stage=mail silence"]);
    let program = lab.start(&night("second", 400), &[]);
    let window = window as u64;
    lab.wait_until(|stats| stats.open >= window.min(9));
    program.terminate_for_good().assert_status(75);
    assert!(lab.sink.stats().open_max <= window, "{}", lab.sink.stats());
    // And without it there is one.
    lab.replace_receiver(&["stage=mail silence"]);
    let program = lab.start(&night("third", 400), &["--no-memory"]);
    lab.wait_until(|stats| stats.open > 0);
    program.terminate_for_good().assert_status(75);
    assert_eq!(lab.sink.stats().open_max, 1);
}

#[test]
fn a_limit_of_sessions_that_was_met_once_is_not_met_again() {
    let config = || SinkConfig {
        connections_per_address_max: Some(5),
        ..keeping(&["stage=dot delay=30ms"])
    };
    // One server, so that nobody goes to another one instead.
    let zone = "big.test MX 10 mx.big.test\nmx.big.test A 127.0.2.1\n";
    let mut lab = Lab::new(zone, config());
    let first = lab.send(&night("first", 600), &SOON);
    lab.assert_all_delivered(&first, 600);
    assert!(
        lab.sink.stats().connections_refused > 0,
        "{}",
        lab.sink.stats()
    );
    assert_eq!(learned(&lab, "sessions_ceiling"), Some(5));
    lab.sink = mailer::sink::Sink::start(config()).unwrap();
    let second = lab.send(&night("second", 600), &SOON);
    lab.assert_all_delivered(&second, 600);
    let stats = lab.sink.stats();
    assert_eq!(
        (stats.connections_refused, stats.open_max),
        (0, 5),
        "{stats}"
    );
}

#[test]
fn two_runs_at_once_share_the_memory_and_both_keep_what_they_learned() {
    let lab = Lab::with_rules(&["stage=dot delay=20ms"]);
    let one = lab.start(&night("one", 100), &[]);
    lab.wait_until(|stats| stats.connections > 0);
    let two = Batch::to_each((0..100).map(|n| format!("two{n}@other.test")));
    let file = lab.file("two.mbox", two.bytes());
    let report = lab.path("two.csv");
    let report = ["--report", report.to_str().unwrap()];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mailer"));
    let ended = command
        .args([
            "send",
            "--allow-loopback",
            "--dns",
            &lab.dns.address().to_string(),
        ])
        .args(["--port", &lab.sink.port().to_string(), "--state"])
        .arg(lab.path("state"))
        .args(report)
        .arg(file)
        .env("XDG_CONFIG_HOME", "/proc/nope")
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    one.wait().assert_status(0);
    let memory = rusqlite::Connection::open(lab.path("state/hosts.sqlite")).unwrap();
    let count = |sql: &str| -> i64 { memory.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(count("SELECT count(*) FROM site"), 2);
    assert!(count("SELECT count(*) FROM address") >= 2);
}
