//! The connection cache: which open session may carry which mail, and for how long.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use crate::batch::Batch;
use crate::lab::{Lab, PATIENCE, keeping};
use crate::peers::Peer;

/// One worker, so that every message meets the session that the one before has left.
const ONE_WORKER: &str = "max_workers = 1\nidle = \"60s\"\n";

/// Domains whose servers have this in common that they are one provider's.
const ZONE: &str = "SYNTHETIC\na.test MX 10 mx1.hosted.test\nb.test MX 10 mx2.hosted.test\nc.test MX 10 mx3.hosted.test\n\
    mx1.hosted.test A 127.0.0.2\nmx2.hosted.test A 127.0.0.3\nmx3.hosted.test A 127.0.0.2\n";

/// A batch that comes back to each domain.
fn in_turns(domains: &[&str]) -> Batch {
    let rounds = (0..6).flat_map(|round| {
        let of_round = domains
            .iter()
            .map(move |domain| format!("{round}@{domain}"));
        of_round.collect::<Vec<_>>()
    });
    Batch::to_each(rounds)
}

#[test]
fn domains_of_a_provider_share_its_limits_and_no_session_with_another_one_s_servers() {
    let lab = Lab::new(ZONE, keeping(&["stage=dot delay=20ms"]));
    let own = lab.file(
        "own.toml",
        "[host]\nmx = [\".hosted.test\"]\nsessions = 1\n",
    );
    let config = format!("idle = \"60s\"\nproviders = {own:?}\n");
    let config = lab.file("mailer.toml", config);
    let ended = lab.send(
        &in_turns(&["a.test", "b.test"]),
        &["--config", config.to_str().unwrap()],
    );
    lab.assert_all_delivered(&ended, 12);
    for row in &ended.rows {
        let own = if row.recipient.ends_with("a.test") {
            "127.0.0.2"
        } else {
            "127.0.0.3"
        };
        assert_eq!(row.ip, own, "{row:?}");
    }
}

#[test]
fn a_server_that_two_domains_of_a_provider_share_carries_mail_of_both_in_one_session() {
    let lab = Lab::new(ZONE, keeping(&[]));
    let own = lab.file("own.toml", "[host]\nmx = [\".hosted.test\"]\n");
    let config = lab.file("mailer.toml", format!("{ONE_WORKER}providers = {own:?}\n"));
    let ended = lab.send(
        &in_turns(&["a.test", "c.test"]),
        &["--config", config.to_str().unwrap()],
    );
    lab.assert_all_delivered(&ended, 12);
    assert_eq!(lab.sink.stats().connections, 1);
}

#[test]
fn a_session_is_used_no_longer_than_its_age() {
    for (age, connections) in [("1ms", 6), ("300s", 1)] {
        let lab = Lab::with_rules(&["stage=dot delay=20ms"]);
        let config = lab.file(
            "mailer.toml",
            format!("{ONE_WORKER}session_age = \"{age}\"\n"),
        );
        let config = ["--config", config.to_str().unwrap()];
        let ended = lab.send(&Batch::to_domain("a.test", 6), &config);
        lab.assert_all_delivered(&ended, 6);
        assert_eq!(lab.sink.stats().connections, connections, "{age}");
    }
}

/// Takes one message, says farewell once nothing is under way, and tells `farewell`; what the client says after that is kept.
fn take_one_and_leave(client: &TcpStream, farewell: &Sender<()>, late: &Mutex<Vec<String>>) {
    let mut said = client;
    said.write_all(b"220 hello\r\n").unwrap();
    let (mut in_content, mut is_over) = (false, false);
    for line in BufReader::new(client).lines() {
        let Ok(line) = line else { break };
        if is_over {
            late.lock().unwrap().push(line);
            continue;
        }
        let reply: &[u8] = match line.as_str() {
            "." => {
                (in_content, is_over) = (false, true);
                b"250 taken\r\n421 4.3.2 that was it\r\n"
            }
            _ if in_content => continue,
            "DATA" => {
                in_content = true;
                b"354 go ahead\r\n"
            }
            _ => b"250 ok\r\n",
        };
        said.write_all(reply).unwrap();
        if is_over {
            client.shutdown(Shutdown::Write).unwrap();
            let _ = farewell.send(());
        }
    }
}

#[test]
fn a_session_that_the_server_has_left_is_not_used_and_that_costs_no_round_trip_and_no_attempt() {
    let lab = Lab::with_rules(&[]);
    let (farewell, said) = std::sync::mpsc::channel();
    let late = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&late);
    let peer = Peer::start("127.0.9.7:0".parse().unwrap(), move |client, _| {
        take_one_and_leave(&client, &farewell, &kept);
    });
    let config = lab.file("mailer.toml", ONE_WORKER);
    let relay = peer.address.to_string();
    let mut program = lab.start_with(
        &["-", "--config", config.to_str().unwrap(), "--relay", &relay],
        &[],
    );
    let batch = Batch::to_domain("a.test", 3);
    let text = String::from_utf8(batch.bytes().to_vec()).unwrap();
    // A message is known to be complete when the next one begins.
    let starts: Vec<usize> = text.match_indices("Subject").map(|(at, _)| at).collect();
    let mut from = 0;
    for to in [starts[1], starts[2]] {
        program.write(&text[from..to]);
        from = to;
        said.recv_timeout(PATIENCE).unwrap();
    }
    program.write(&text[from..]);
    let ended = program.wait();
    ended.assert_status(0);
    for row in &ended.rows {
        assert_eq!(
            (row.status.as_str(), row.attempts.as_str()),
            ("delivered", "1"),
            "{row:?}"
        );
    }
    let late = late.lock().unwrap();
    assert!(late.iter().all(|line| line == "QUIT"), "{late:?}");
}
