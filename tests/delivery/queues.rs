//! Which queue handles what, and that no queue, worker or message waits for another.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{Batch, FROM_LINE, message};
use crate::lab::{BY_FLAG, Lab, keeping};
use crate::retries::NO_RETRY;

const FOUR_KINDS: &str = "[queue.big]\ndomains = [\"big.test\"]\n\
     [queue.family]\ndomains = [\".family.test\"]\n\
     [queue.hosted]\nmx = [\".hosting.test\"]\n";

/// `family.test` itself is not below `.family.test`; `guest.test` is not the big queue's, though its mail goes to the same host; `tenant*.test` belong to the queue of
/// their host.
const ZONE: &str = "big.test MX 10 mx.big.test\nmx.big.test A 127.0.1.1\nguest.test MX 10 mx.big.test\n\
     tenant1.test MX 10 mx1.hosting.test\nmx1.hosting.test A 127.0.1.2\n\
     tenant2.test MX 10 mx2.hosting.test\nmx2.hosting.test A 127.0.1.3\nSYNTHETIC\n";

fn queue_of(recipient: &str) -> &'static str {
    let domain = recipient.rsplit('@').next().unwrap();
    match domain {
        "big.test" => "big",
        "a.family.test" => "family",
        "tenant1.test" | "tenant2.test" => "hosted",
        _ => "general",
    }
}

/// 100 messages, the domains taking turns.
fn mixed() -> Batch {
    let domains = [
        "big.test",
        "guest.test",
        "a.family.test",
        "family.test",
        "tenant1.test",
        "tenant2.test",
        "notbig.test",
        "rare1.test",
        "rare2.test",
        "big.test",
    ];
    Batch::to_each((0..100).map(|n| format!("u{n}@{}", domains[n % domains.len()])))
}

#[test]
fn specific_queues_handle_their_domains_and_the_general_queue_the_rest() {
    let lab = Lab::new(ZONE, keeping(&[]));
    let config = lab.file("mailer.toml", FOUR_KINDS);
    let ended = lab.send(&mixed(), &["--config", config.to_str().unwrap()]);
    lab.assert_all_delivered(&ended, 100);
    for row in &ended.rows {
        assert_eq!(row.queue, queue_of(&row.recipient), "{row:?}");
    }
    let used: BTreeSet<&str> = ended.rows.iter().map(|row| row.queue.as_str()).collect();
    assert_eq!(used.len(), 4);
}

#[test]
fn workers_of_a_specific_queue_are_dedicated_to_it() {
    let lab = Lab::new(ZONE, keeping(&[]));
    let config = lab.file("mailer.toml", FOUR_KINDS);
    let ended = lab.send(&mixed(), &["--config", config.to_str().unwrap()]);
    lab.assert_all_delivered(&ended, 100);
    // big.test and guest.test share a host, but no session: their mail is in different hands.
    let mut queues: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for message in lab.sink.messages() {
        let queue = queue_of(&message.recipients[0]);
        queues.entry(message.session).or_default().insert(queue);
    }
    assert!(
        queues.values().all(|queues| queues.len() == 1),
        "{queues:?}"
    );
}

#[test]
fn mail_that_its_hosts_lead_to_a_queue_obeys_that_queue_s_tls_policy() {
    let lab = Lab::new(ZONE, keeping(&[]));
    let config = "[queue.hosted]\nmx = [\".hosting.test\"]\ntls = \"require\"\n";
    let config = lab.file("mailer.toml", config);
    let batch = Batch::to_each(["u@tenant1.test", "u@tenant2.test", "u@guest.test"]);
    let flags = ["--config", config.to_str().unwrap()];
    let ended = lab.send(&batch, &[&NO_RETRY[..], &flags].concat());
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    assert_eq!(ended.delivered(), [(3, "u@guest.test".to_owned())]);
    assert_eq!(ended.row("u@tenant1.test").stage, "starttls");
}

#[test]
fn the_general_queue_alone_handles_every_domain() {
    let lab = Lab::new(ZONE, keeping(&[]));
    let ended = lab.send(&mixed(), &[]);
    lab.assert_all_delivered(&ended, 100);
    assert!(ended.rows.iter().all(|row| row.queue == "general"));
}

#[test]
fn every_queue_keeps_a_worker_though_another_could_use_them_all() {
    let lab = Lab::with_rules(&["domain=silent.test stage=rcpt silence"]);
    let config = lab.file(
        "mailer.toml",
        "[queue.one]\ndomains = [\"one.test\"]\n[queue.two]\ndomains = [\"two.test\"]\n",
    );
    let silent = (1..=10).map(|n| format!("u@s{n}.silent.test"));
    let others = ["a@one.test", "b@two.test", "c@one.test"].map(str::to_owned);
    let batch = Batch::to_each(silent.chain(others));
    let program = lab.start(
        &batch,
        &["--config", config.to_str().unwrap(), "--max-workers", "4"],
    );
    lab.wait_until(|stats| stats.messages == 3);
    let ended = program.terminate_for_good();
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    assert_eq!(ended.count("delivered"), 3);
    assert_eq!(ended.row("a@one.test").queue, "one");
    assert_eq!(ended.row("b@two.test").queue, "two");
}

#[test]
fn a_worker_for_each_queue_is_enough_and_fewer_are_refused() {
    let lab = Lab::new(ZONE, keeping(&[]));
    let config = lab.file("mailer.toml", FOUR_KINDS);
    let arguments = ["--config", config.to_str().unwrap(), "--max-workers"];
    let ended = lab.send(&mixed(), &[&arguments[..], &["3"]].concat());
    ended.assert_status(78);
    assert_eq!(lab.sink.stats().connections, 0);
    let ended = lab.send(&mixed(), &[&arguments[..], &["4"]].concat());
    lab.assert_all_delivered(&ended, 100);
    for row in &ended.rows {
        assert_eq!(row.queue, queue_of(&row.recipient), "{row:?}");
    }
}

#[test]
fn one_worker_of_the_general_queue_serves_a_different_domain_with_each_message() {
    let lab = Lab::with_rules(&[]);
    let batch = Batch::to_each((0..10).map(|n| format!("u{n}@d{}.test", n % 5)));
    let ended = lab.send(&batch, &["--max-workers", "1"]);
    lab.assert_all_delivered(&ended, 10);
    assert!(lab.sink.stats().addresses.len() >= 5);
}

#[test]
fn the_router_goes_on_although_the_first_destination_is_silent() {
    let lab = Lab::with_rules(&["domain=silent.test stage=rcpt silence"]);
    let mut program = lab.start_with(&[], &[]);
    let text = |n: usize, to: &str| format!("{FROM_LINE}{}x\n\n", message(n, &[to], ""));
    program.write(text(1, "u@silent.test") + FROM_LINE);
    lab.wait_until(|stats| stats.connections == 1);
    let rest: String = (2..=50)
        .map(|n| text(n, &format!("u@d{}.test", n % 7)))
        .collect();
    program.write(&rest[FROM_LINE.len()..]);
    program.write(FROM_LINE);
    lab.wait_until(|stats| stats.messages == 49);
    assert!(lab.sink.stats().open >= 1, "the first one still waits");
    let ended = program.terminate_for_good();
    ended.assert_status(75);
    assert_eq!(
        (
            ended.row("u@silent.test").status.as_str(),
            ended.count("delivered")
        ),
        ("deferred", 49)
    );
    lab.assert_agrees(&ended);
}

#[test]
fn a_silent_domain_among_ten_holds_up_none_of_the_other_nine() {
    let lab = Lab::with_rules(&["domain=d0.test stage=rcpt silence"]);
    let batch = Batch::to_each((0..500).map(|n| format!("u{n}@d{}.test", n % 10)));
    // Fewer workers than the silent domain alone could use up.
    let program = lab.start(&batch, &["--max-workers", "30"]);
    lab.wait_until(|stats| stats.messages == 450);
    let ended = program.terminate_for_good();
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    for row in &ended.rows {
        assert_eq!(
            row.status == "delivered",
            !row.recipient.ends_with("@d0.test"),
            "{row:?}"
        );
    }
}

#[test]
fn a_message_goes_to_the_worker_that_is_ready() {
    let lab = Lab::with_rules(&[]);
    let config = lab.file("mailer.toml", "idle = \"60s\"\n");
    let mut program = lab.start_with(&["--config", config.to_str().unwrap()], &[]);
    program.write(FROM_LINE);
    for n in 1..=5usize {
        program.write(format!(
            "{}x\n\n{FROM_LINE}",
            message(n, &["u@ready.test"], "")
        ));
        lab.wait_until(|stats| stats.messages == n as u64);
    }
    program.write(message(6, &["u@ready.test"], "") + "x\n");
    let ended = program.wait();
    lab.assert_all_delivered(&ended, 6);
    assert_eq!(
        lab.sink.stats().connections,
        1,
        "all by the worker that was ready"
    );
}

#[test]
fn where_no_worker_is_ready_another_one_is_made() {
    // The first message's reply is held back so long that the second is there before it.
    let lab = Lab::with_rules(&["stage=dot delay=5s first=1"]);
    let mut program = lab.start_with(&BY_FLAG, &[]);
    program.write(format!(
        "{FROM_LINE}{}x\n\n{FROM_LINE}",
        message(1, &["u@busy.test"], "")
    ));
    lab.wait_until(|stats| stats.messages == 1);
    program.write(message(2, &["v@busy.test"], "") + "x\n");
    let ended = program.wait();
    lab.assert_all_delivered(&ended, 2);
    let sessions: BTreeSet<u64> = lab.sink.messages().iter().map(|one| one.session).collect();
    assert_eq!(sessions.len(), 2);
}
