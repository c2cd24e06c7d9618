//! Limits that are changed while mail is sent: the configuration file is edited, SIGHUP is sent, the queue follows.

use crate::batch::Batch;
use crate::lab::{AT_ONCE, Lab, keeping};

/// One server; each reply to a dot is held back, so that there is time to change one's mind.
const ZONE: &str = "site.test MX 10 mx.site.test\nmx.site.test A 127.0.2.1\nSYNTHETIC\n";

fn limits(workers: u32, sessions: u32) -> String {
    format!(
        "{AT_ONCE}[queue.big]\ndomains = [\"site.test\"]\nmax_workers = {workers}\nmax_sessions = {sessions}\n"
    )
}

#[test]
fn a_queue_gets_more_workers_and_fewer_again_while_it_runs() {
    let lab = Lab::new(ZONE, keeping(&["stage=dot delay=100ms"]));
    let config = lab.file("mailer.toml", limits(2, 20));
    let program = lab.start(
        &Batch::to_domain("site.test", 300),
        &["--config", config.to_str().unwrap()],
    );
    lab.wait_until(|stats| stats.messages >= 10 && stats.open == 2);
    lab.file("mailer.toml", limits(8, 20));
    program.reload();
    lab.wait_until(|stats| stats.open == 8);
    lab.file("mailer.toml", limits(1, 20));
    program.reload();
    lab.wait_until(|stats| stats.open == 1);
    lab.file("mailer.toml", limits(20, 20));
    program.reload();
    lab.assert_all_delivered(&program.wait(), 300);
}

#[test]
fn several_connections_to_each_server_are_opened_as_soon_as_they_are_allowed() {
    let lab = Lab::new(ZONE, keeping(&["stage=dot delay=100ms"]));
    let config = lab.file("mailer.toml", limits(20, 1));
    let program = lab.start(
        &Batch::to_domain("site.test", 200),
        &["--config", config.to_str().unwrap()],
    );
    lab.wait_until(|stats| stats.messages >= 5 && stats.open == 1);
    lab.file("mailer.toml", limits(20, 6));
    program.reload();
    lab.wait_until(|stats| stats.open == 6);
    lab.assert_all_delivered(&program.wait(), 200);
    assert_eq!(lab.sink.open_max_at("127.0.2.1".parse().unwrap()), 6);
}

#[test]
fn a_configuration_that_cannot_be_read_again_changes_nothing() {
    let lab = Lab::new(ZONE, keeping(&["stage=dot delay=50ms"]));
    let config = lab.file("mailer.toml", limits(2, 20));
    let program = lab.start(
        &Batch::to_domain("site.test", 60),
        &["--config", config.to_str().unwrap()],
    );
    lab.wait_until(|stats| stats.messages >= 4);
    lab.file("mailer.toml", "max_worker = 9\n");
    program.reload();
    let ended = program.wait();
    lab.assert_all_delivered(&ended, 60);
    assert!(
        ended.stderr.contains("was not read again: ") && ended.stderr.contains("max_worker"),
        "{}",
        ended.stderr
    );
}
