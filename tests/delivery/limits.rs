//! How many workers and sessions there are: as many as the backlog asks for, never more than is allowed.
//!
//! The receiver holds replies back a little, so that work lasts long enough for all workers to come.

use std::time::Duration;

use mailer::sink::SinkConfig;

use crate::batch::Batch;
use crate::lab::{AT_ONCE, Lab, SOON, keeping};

/// Two servers of equal preference.
const TWO_SERVERS: &str = "site.test MX 10 mx1.site.test\nsite.test MX 10 mx2.site.test\n\
     mx1.site.test A 127.0.2.1\nmx2.site.test A 127.0.2.2\nSYNTHETIC\n";

const HELD_BACK: &[&str] = &["stage=greeting delay=500ms", "stage=dot delay=20ms"];

fn send(lab: &Lab, batch: &Batch, config: &str, arguments: &[&str]) -> u64 {
    // Sessions stay open to the end, so that the receiver's count of open ones is the program's.
    let config = lab.file("mailer.toml", format!("idle = \"60s\"\n{AT_ONCE}{config}"));
    let mut all = vec!["--config", config.to_str().unwrap()];
    all.extend(arguments);
    let ended = lab.send(batch, &all);
    lab.assert_all_delivered(&ended, ended.rows.len());
    lab.sink.stats().open_max
}

#[test]
fn a_site_gets_more_sessions_than_it_has_servers_and_several_to_each() {
    let lab = Lab::new(TWO_SERVERS, keeping(HELD_BACK));
    let open_max = send(&lab, &Batch::to_domain("site.test", 200), "", &[]);
    let stats = lab.sink.stats();
    assert!(open_max > 2 && open_max <= 20, "{stats}");
    assert_eq!(stats.addresses.len(), 2, "{stats}");
    for address in stats.addresses.values() {
        assert!(address.open_max >= 2 && address.messages >= 2, "{stats}");
    }
}

#[test]
fn more_mail_makes_more_sessions() {
    let few = Lab::new(TWO_SERVERS, keeping(HELD_BACK));
    let of_two = send(&few, &Batch::to_domain("site.test", 2), "", &[]);
    let many = Lab::new(TWO_SERVERS, keeping(HELD_BACK));
    let of_many = send(&many, &Batch::to_domain("site.test", 200), "", &[]);
    assert!(of_two <= 2 && of_many > 2 * of_two, "{of_two}, {of_many}");
}

#[test]
fn a_queue_has_many_workers_at_once_each_with_its_own_connection() {
    let lab = Lab::with_rules(&["stage=greeting delay=3s"]);
    let batch = Batch::to_each((0..8).map(|n| format!("u@d{n}.test")));
    let program = lab.start(&batch, &[]);
    lab.wait_until(|stats| stats.open == 8);
    lab.assert_all_delivered(&program.wait(), 8);
    assert_eq!(lab.sink.stats().addresses.len(), 8);
}

#[test]
fn the_maximum_of_the_process_is_never_exceeded() {
    let lab = Lab::new(TWO_SERVERS, keeping(HELD_BACK));
    let open_max = send(
        &lab,
        &Batch::to_domain("site.test", 60),
        "",
        &["--max-workers", "5"],
    );
    assert!((2..=5).contains(&open_max), "{open_max}");
}

#[test]
fn the_maximum_of_the_process_holds_for_all_queues_together() {
    // Nobody ends a session: what is open at the end is what was ever open.
    let lab = Lab::new(TWO_SERVERS, keeping(&["stage=rcpt silence"]));
    let config = format!("{AT_ONCE}[queue.q]\ndomains = [\"site.test\"]\n");
    let config = lab.file("mailer.toml", config);
    let all = (0..60).map(|n| format!("u{n}@{}.test", ["site", "other"][n % 2]));
    let arguments = ["--config", config.to_str().unwrap(), "--max-workers", "5"];
    let program = lab.start(&Batch::to_each(all), &arguments);
    lab.wait_until(|stats| stats.open == 5);
    // Without the maximum there would be forty, and soon.
    let more = lab
        .sink
        .wait_until(|stats| stats.open > 5, Duration::from_secs(1));
    assert!(!more, "{}", lab.sink.stats());
    let ended = program.terminate_for_good();
    ended.assert_status(75);
    assert_eq!(lab.sink.stats().open_max, 5);
    assert_eq!((ended.count("delivered"), lab.received().len()), (0, 0));
}

#[test]
fn a_server_that_limits_connections_gets_all_mail_through_those_it_allows() {
    let config = SinkConfig {
        connections_per_address_max: Some(3),
        ..keeping(&["stage=dot delay=10ms"])
    };
    let lab = Lab::new("SYNTHETIC", config);
    let ended = lab.send(&Batch::to_domain("few.test", 200), &SOON);
    lab.assert_all_delivered(&ended, 200);
    assert!(
        lab.sink.stats().connections_refused > 0,
        "{}",
        lab.sink.stats()
    );
}

#[test]
fn the_configured_maximum_of_a_queue_is_kept_while_others_have_more() {
    let lab = Lab::new(TWO_SERVERS, keeping(HELD_BACK));
    let all =
        (0..60).map(|n| ["u@site.test", "u@other.test"][n % 2].replace('u', &format!("u{n}")));
    let config = "[queue.small]\ndomains = [\"site.test\"]\nmax_workers = 3\n";
    send(&lab, &Batch::to_each(all), config, &[]);
    let open_max = |ips: &[&str]| -> u64 {
        ips.iter()
            .map(|ip| lab.sink.open_max_at(ip.parse().unwrap()))
            .sum()
    };
    // Each address counts its own maximum; the sum of them is what the queue had at most.
    assert!(
        (2..=3).contains(&open_max(&["127.0.2.1", "127.0.2.2"])),
        "{}",
        lab.sink.stats()
    );
    assert!(lab.sink.stats().open_max > 3, "{}", lab.sink.stats());
}

#[test]
fn the_maximum_of_a_site_is_never_exceeded() {
    let lab = Lab::new(TWO_SERVERS, keeping(HELD_BACK));
    let open_max = send(
        &lab,
        &Batch::to_domain("site.test", 60),
        "max_sessions = 4\n",
        &[],
    );
    assert!((2..=4).contains(&open_max), "{open_max}");
    let lab = Lab::new(TWO_SERVERS, keeping(HELD_BACK));
    let config = "max_sessions = 9\n[queue.q]\ndomains = [\"site.test\"]\nmax_sessions = 2\n";
    let open_max = send(&lab, &Batch::to_domain("site.test", 60), config, &[]);
    assert!(open_max <= 2, "{open_max}");
}

#[test]
fn domains_with_the_same_servers_share_the_maximum_of_their_site() {
    let zone = "a.test MX 10 mx.host.test\nb.test MX 10 mx.host.test\nmx.host.test A 127.0.2.3\n";
    let lab = Lab::new(zone, keeping(HELD_BACK));
    let batch = Batch::to_each((0..60).map(|n| format!("u{n}@{}.test", ["a", "b"][n % 2])));
    let open_max = send(&lab, &batch, "max_sessions = 3\n", &[]);
    assert!((2..=3).contains(&open_max), "{open_max}");
}

#[test]
fn a_session_carries_many_messages() {
    let lab = Lab::new(TWO_SERVERS, SinkConfig::keeping());
    send(
        &lab,
        &Batch::to_domain("site.test", 400),
        "max_sessions = 4\n",
        &[],
    );
    let stats = lab.sink.stats();
    assert!(stats.connections <= 4 && stats.messages == 400, "{stats}");
}

#[test]
fn an_open_session_carries_mail_of_every_domain_of_its_site() {
    let zone = "a.test MX 10 mx.host.test\nb.test MX 10 mx.host.test\nmx.host.test A 127.0.2.4\n";
    let lab = Lab::new(zone, SinkConfig::keeping());
    let batch = Batch::to_each((0..20).map(|n| format!("u{n}@{}.test", ["a", "b"][n % 2])));
    send(&lab, &batch, "max_sessions = 1\n", &[]);
    assert_eq!(lab.sink.stats().connections, 1);
}

#[test]
fn a_low_limit_of_open_files_means_fewer_workers_and_no_lost_mail() {
    let lab = Lab::with_rules(&[]);
    let batch = Batch::to_each((0..300).map(|n| format!("u@d{n}.test")));
    let ended = lab.send_limited("ulimit -n 48", &batch, &[]);
    lab.assert_all_delivered(&ended, 300);
    assert_eq!(ended.odd(), "", "no attempt failed for want of descriptors");
    let told =
        "the limit of open files (48) leaves room for 8 workers, not 256; raise it with ulimit -n";
    assert_eq!(ended.stderr.matches(told).count(), 1, "{}", ended.stderr);
}

#[test]
fn a_soft_limit_of_open_files_is_raised() {
    let lab = Lab::with_rules(&[]);
    let batch = Batch::to_each((0..20).map(|n| format!("u@d{n}.test")));
    let ended = lab.send_limited("ulimit -S -n 30", &batch, &["--max-workers", "20"]);
    lab.assert_all_delivered(&ended, 20);
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_limit_of_open_files_that_leaves_no_room_is_said_before_anything_is_sent() {
    let lab = Lab::with_rules(&[]);
    let ended = lab.send_limited("ulimit -n 42", &Batch::to_domain("a.test", 3), &[]);
    ended.assert_status(73);
    let told = "the limit of open files (42) is too low: raise it with ulimit -n";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    assert_eq!(lab.sink.stats().connections, 0);
}
