//! Control of a run while it goes on: what is ordered happens, nobody is lost or gets anything twice, and nobody can disturb
//! a run by way of its socket.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::time::Instant;

use mailer::control::Shown;

use crate::batch::Batch;
use crate::lab::{Lab, PATIENCE, Program, keeping};

/// Two sites of one server each; replies to dots are held back, so that there is time to give orders.
const ZONE: &str = "big.test MX 10 mx.big.test\nmx.big.test A 127.0.2.1\n\
     small.test MX 10 mx.small.test\nmx.small.test A 127.0.2.2\nSYNTHETIC\n";
const SLOW: &str = "stage=dot delay=50ms";
const CONFIG: &str = "window_start = 20\nsession_backlog = 0\n[queue.big]\n\
     domains = [\"big.test\"]\nmax_workers = 2\n";

fn lab() -> Lab {
    Lab::new(ZONE, keeping(&[SLOW]))
}

impl Lab {
    fn start_controlled(&self, batch: &Batch, arguments: &[&str]) -> Program {
        let config = self.file("mailer.toml", CONFIG);
        let named = ["--config", config.to_str().unwrap()];
        self.start(batch, &[&named, arguments].concat())
    }

    fn ctl(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mailer"))
            .arg("ctl")
            .args(words)
            .arg("--state")
            .arg(self.path("state"))
            .env("XDG_CONFIG_HOME", "/proc/nope")
            .output()
            .unwrap()
    }

    fn status(&self) -> String {
        let status = Command::new(env!("CARGO_BIN_EXE_mailer"))
            .args(["status", "--state"])
            .arg(self.path("state"))
            .output();
        texts(&status.unwrap()).0
    }

    /// An order that is obeyed: what was answered.
    #[track_caller]
    fn order(&self, words: &[&str]) -> String {
        let output = self.ctl(words);
        let (said, error) = texts(&output);
        assert!(output.status.success(), "{words:?}: {said}{error}");
        said
    }

    /// Looks until the run is as wanted.
    #[track_caller]
    fn show_until(&self, wanted: impl Fn(&Shown) -> bool) -> Shown {
        let end = Instant::now() + PATIENCE;
        loop {
            let output = self.ctl(&["show", "--json"]);
            if output.status.success() {
                let shown: Shown = serde_json::from_slice(&output.stdout).unwrap();
                if wanted(&shown) {
                    return shown;
                }
                assert!(Instant::now() < end, "{shown:#?}");
            }
            assert!(Instant::now() < end, "{:?}", texts(&output));
        }
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn count(shown: &Shown, status: &str) -> u64 {
    let found = shown.counts.iter().find(|(name, _)| name == status);
    found.map_or(0, |(_, count)| *count)
}

/// Half to each of two domains.
fn mixed(count: usize) -> Batch {
    let domain = |n: usize| ["big.test", "small.test"][n % 2];
    Batch::to_each((0..count).map(|n| format!("u{n}@{}", domain(n))))
}

#[test]
fn workers_follow_the_limits_that_are_set_and_nobody_is_lost_or_doubled() {
    let lab = lab();
    let program = lab.start_controlled(&Batch::to_domain("big.test", 600), &[]);
    lab.wait_until(|stats| stats.messages >= 10 && stats.open == 2);
    let said = lab.order(&["set", "big", "max-workers=9"]);
    assert_eq!(said, "queue big: at most 9 workers, until now 2\n");
    let shown = lab.show_until(|shown| shown.queues[1].workers == 9);
    assert_eq!(
        (&*shown.queues[1].name, shown.queues[1].max_workers),
        ("big", 9)
    );
    lab.wait_until(|stats| stats.open == 9);
    lab.order(&["set", "big", "max-workers=1"]);
    lab.show_until(|shown| shown.queues[1].workers == 1);
    let said = lab.order(&["set", "big", "max-workers=20", "max-sessions=4"]);
    assert!(
        said.contains("at most 4 sessions with a site, until now 20"),
        "{said}"
    );
    lab.wait_until(|stats| stats.open == 4);
    lab.order(&["set", "big", "max-sessions=20"]);
    let said = lab.order(&["set", "big.test", "max-sessions=6"]);
    assert_eq!(said, "big.test: at most 6 sessions, until now 20\n");
    lab.wait_until(|stats| stats.open == 6);
    lab.order(&["set", "all", "max-sessions=3"]);
    lab.wait_until(|stats| stats.open == 3);
    let said = lab.order(&["set", "big.test", "max-sessions=8", "rate=none"]);
    let expected = "big.test: at most 8 sessions, until now 3; the general maximum is 3; \
                    no limit of the rate, until now without limit\n";
    assert_eq!(said, expected);
    lab.order(&["set", "all", "max-sessions=20"]);
    lab.wait_until(|stats| stats.open == 8);
    lab.assert_all_delivered(&program.wait(), 600);
    assert!(
        !lab.jobs()[0].join("ctl").exists(),
        "the socket is left behind"
    );
}

#[test]
fn what_was_set_last_holds_whether_by_order_or_by_the_file() {
    let lab = lab();
    let program = lab.start_controlled(&Batch::to_domain("big.test", 400), &[]);
    lab.wait_until(|stats| stats.messages >= 4);
    lab.order(&["set", "big", "max-workers=7"]);
    lab.show_until(|shown| shown.queues[1].max_workers == 7);
    program.reload();
    lab.show_until(|shown| shown.queues[1].max_workers == 2);
    lab.order(&["set", "all", "max-workers=30"]);
    let shown = lab.show_until(|shown| shown.max_workers == 30);
    assert_eq!(
        shown.queues[1].max_workers, 2,
        "one limit leaves others alone"
    );
    lab.order(&["set", "big", "max-workers=20"]);
    lab.assert_all_delivered(&program.wait(), 400);
}

#[test]
fn a_paused_domain_gets_nothing_until_it_is_resumed_while_others_go_on() {
    let lab = lab();
    let program = lab.start_controlled(&mixed(200), &[]);
    lab.wait_until(|stats| stats.messages >= 10);
    let said = lab.order(&["pause", "big.test"]);
    assert!(said.contains(" recipients of big.test held"), "{said}");
    // All others are delivered, and of this one what was under way.
    let shown = lab.show_until(|shown| {
        let held: u64 = shown.queues.iter().map(|queue| queue.held).sum();
        held > 0 && count(shown, "delivered") + held == 200
    });
    assert_eq!(shown.paused, ["big.test"]);
    let messages = lab.sink.stats().messages;
    let status = lab.status();
    assert!(status.contains("paused: big.test ("), "{status}");
    assert!(status.contains("pause big.test  "), "{status}");
    assert_eq!(lab.sink.stats().messages, messages, "something was sent");
    let said = lab.order(&["resume"]);
    assert!(said.ends_with(" recipients go on\n"), "{said}");
    lab.assert_all_delivered(&program.wait(), 200);
}

#[test]
fn after_a_pause_each_session_sends_at_most_what_it_had_begun() {
    let lab = lab();
    let program = lab.start_controlled(&Batch::to_domain("big.test", 300), &[]);
    lab.wait_until(|stats| stats.messages >= 40);
    lab.order(&["pause", "big.test"]);
    let before = lab.sink.stats().messages;
    lab.show_until(|shown| shown.queues[1].held > 0 && shown.queues[1].in_hand == 0);
    let sent = lab.sink.stats().messages - before;
    // The message under way and the one given ahead with its dot, by each of two workers.
    assert!(sent <= 4, "{sent} messages were begun after the pause");
    lab.order(&["resume", "big.test"]);
    lab.assert_all_delivered(&program.wait(), 300);
}

#[test]
fn a_paused_queue_waits_and_can_be_stopped_with_its_mail_pending() {
    let lab = lab();
    let program = lab.start_controlled(&mixed(100), &[]);
    lab.wait_until(|stats| stats.messages >= 6);
    lab.order(&["pause"]);
    let held = |shown: &Shown| shown.queues.iter().map(|queue| queue.held).sum::<u64>();
    let shown = lab.show_until(|shown| held(shown) + count(shown, "delivered") == 100);
    assert!(shown.is_paused && held(&shown) > 0);
    let said = lab.order(&["stop"]);
    assert!(said.starts_with("stopping: "), "{said}");
    let ended = program.wait();
    ended.assert_status(75);
    assert_eq!(ended.count("queued") as u64, held(&shown));
    let told = format!(
        "stopped by `mailer ctl stop`: {} of 100 recipients",
        held(&shown)
    );
    assert!(ended.stderr.contains(&told), "{}", ended.stderr);
    lab.assert_agrees(&ended);
    let again = lab.send_again(&[]);
    lab.assert_all_delivered(&again, 100);
}

#[test]
fn dropped_mail_stays_pending_and_failed_mail_is_refused_in_the_operators_words() {
    let lab = lab();
    let program = lab.start_controlled(&mixed(400), &[]);
    lab.wait_until(|stats| stats.messages >= 10);
    let said = lab.order(&["drop", "big.test"]);
    assert!(
        said.contains(" recipients of big.test left pending"),
        "{said}"
    );
    let said = lab.order(&["fail", "small.test", "--reason", "wrong list"]);
    assert!(
        said.contains(" recipients of small.test settled as refused"),
        "{said}"
    );
    let ended = program.wait();
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    let of = |domain: &str, status: &str| {
        let rows = ended.rows.iter();
        rows.filter(|row| row.recipient.ends_with(domain) && row.status == status)
            .count()
    };
    assert!(of("big.test", "queued") > 100, "{}", ended.odd());
    assert!(of("small.test", "refused") > 100, "{}", ended.odd());
    assert_eq!(of("big.test", "refused") + of("small.test", "queued"), 0);
    let refused = ended
        .rows
        .iter()
        .find(|row| row.status == "refused")
        .unwrap();
    assert_eq!(refused.reply, "refused by the operator: wrong list");
    let log = std::fs::read_to_string(lab.jobs()[0].join("control.log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[1].contains("\tfail small.test --reason wrong list\t"),
        "{log}"
    );
}

#[test]
fn a_rate_that_is_set_holds() {
    let lab = Lab::new(ZONE, keeping(&[]));
    let config = lab.file("mailer.toml", format!("rate = \"20/s\"\n{CONFIG}"));
    let arguments = ["--config", config.to_str().unwrap()];
    let program = lab.start(&Batch::to_domain("big.test", 2000), &arguments);
    lab.wait_until(|stats| stats.messages >= 5);
    let said = lab.order(&["set", "big.test", "rate=none"]);
    assert!(said.contains("no limit of the rate, until now "), "{said}");
    // At the old rate this would take a hundred seconds.
    lab.assert_all_delivered(&program.wait(), 2000);
    let ctl = lab.ctl(&["set", "big", "rate=fast"]);
    assert!(!ctl.status.success());
}

#[test]
fn names_and_limits_that_are_wrong_change_nothing_and_the_nearest_is_named() {
    let lab = lab();
    let program = lab.start_controlled(&mixed(200), &[]);
    lab.wait_until(|stats| stats.messages >= 4);
    for (words, told) in [
        (vec!["pause", "bgi.test"], "did you mean `big.test`?"),
        (vec!["set", "bgi", "max-workers=3"], "did you mean `big`?"),
        (
            vec!["set", "big", "max-workers=0"],
            "not a number from 1 up",
        ),
        (vec!["set", "big", "workers=3"], "`workers` is no limit"),
        (
            vec!["set", "big", "rate=fast"],
            "a rate is written like 600/min",
        ),
        (vec!["set", "all", "max-workers=1"], "there are 2 queues"),
        (
            vec!["set", "big.test", "max-workers=3"],
            "only queues have workers",
        ),
        (vec!["drop", "big"], "big is a queue: name a domain"),
        (vec!["demote", "big.test"], "belongs to queue big"),
        (vec!["promote", "big.test"], "belongs to queue big"),
    ] {
        let output = lab.ctl(&words);
        let (_, error) = texts(&output);
        assert_eq!(output.status.code(), Some(64), "{words:?}: {error}");
        assert!(error.contains(told), "{words:?}: {error}");
    }
    lab.assert_all_delivered(&program.wait(), 200);
}

#[test]
fn garbage_silence_and_floods_on_the_socket_harm_nothing() {
    let lab = lab();
    let program = lab.start_controlled(&mixed(200), &[]);
    lab.wait_until(|stats| stats.messages >= 4);
    let path = lab.jobs()[0].join("ctl");
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let silent: Vec<_> = (0..60)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    for garbage in [
        &b"\x00\xff{{{\n"[..],
        &[b'x'; 100_000],
        b"{\"order\":\"fly\"}\n",
    ] {
        let mut stream = UnixStream::connect(&path).unwrap();
        // Cut off where the run has heard enough.
        let _ = stream.write_all(garbage);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("{\"error\":"),
            "{answer}"
        );
    }
    lab.show_until(|shown| shown.recipients == 200);
    lab.assert_all_delivered(&program.wait(), 200);
    drop(silent);
}

#[test]
fn without_a_name_the_only_run_is_meant_and_else_all_are_named() {
    let lab = lab();
    let (_, error) = texts(&lab.ctl(&["show"]));
    assert!(error.contains("no job is running"), "{error}");
    let first = lab.start_controlled(&Batch::to_domain("big.test", 200), &["--job", "one"]);
    lab.show_until(|shown| shown.recipients > 0);
    let batch = lab.file("other.mbox", Batch::to_domain("small.test", 200).bytes());
    let second = lab.start_with(&["--job", "two"], &[&batch]);
    lab.wait_until(|stats| stats.addresses.len() == 2);
    let output = lab.ctl(&["pause"]);
    let (_, error) = texts(&output);
    assert_eq!(output.status.code(), Some(64), "{error}");
    assert!(error.contains("2 jobs are running: "), "{error}");
    assert!(lab.order(&["one", "pause"]).contains(" held"));
    assert!(lab.order(&["two", "show"]).contains("small.test"));
    assert!(lab.order(&["one", "resume"]).contains(" go on"));
    first.wait().assert_status(0);
    second.wait().assert_status(0);
    let output = lab.ctl(&["one", "pause"]);
    let (_, error) = texts(&output);
    assert_eq!(output.status.code(), Some(66), "{error}");
    assert!(error.contains("is not running"), "{error}");
}

#[test]
fn the_socket_of_a_run_that_was_killed_is_replaced_by_the_next() {
    let lab = lab();
    let program = lab.start_controlled(&Batch::to_domain("big.test", 300), &[]);
    lab.show_until(|shown| count(shown, "delivered") > 0);
    drop(program); // it is killed
    let socket = lab.jobs()[0].join("ctl");
    assert!(socket.exists());
    let (_, error) = texts(&lab.ctl(&["show"]));
    assert!(error.contains("no job is running"), "{error}");
    let config = lab.path("mailer.toml");
    let again = lab.start_with(
        &[
            "--config",
            config.to_str().unwrap(),
            "--in-doubt-wait",
            "10ms",
        ],
        &[&lab.path("batch.mbox")],
    );
    lab.show_until(|shown| shown.queues[1].workers > 0);
    lab.order(&["set", "big", "max-workers=20"]);
    again.wait().assert_status(0);
    assert!(!socket.exists());
}

#[test]
fn another_user_is_turned_away() {
    if !rustix::process::geteuid().is_root() {
        return; // nobody else can be had
    }
    let lab = lab();
    let program = lab.start_controlled(&mixed(200), &[]);
    lab.wait_until(|stats| stats.messages >= 4);
    let path = lab.jobs()[0].join("ctl");
    // The directories let nobody in; here the socket has to defend itself.
    for dir in path.ancestors().skip(1).take(6) {
        if dir.starts_with(std::env::temp_dir()) && dir != std::env::temp_dir() {
            std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let script = "import socket,sys,os\nos.setuid(65534)\ns=socket.socket(socket.AF_UNIX)\n\
        s.connect(sys.argv[1])\ntry: s.sendall(b'{\"order\":\"stop\"}\\n')\n\
        except BrokenPipeError: pass\nprint(s.recv(999).decode())";
    let python = Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .output();
    let (said, error) = texts(&python.unwrap());
    assert!(said.contains("belongs to another user"), "{said}{error}");
    lab.assert_all_delivered(&program.wait(), 200);
}

#[test]
fn a_run_stops_once_too_much_is_refused() {
    let rules = [
        SLOW,
        "domain=big.test stage=rcpt reply=\"550 5.1.1 no such user\"",
    ];
    let lab = Lab::new(ZONE, keeping(&rules));
    let config = lab.file(
        "mailer.toml",
        "stop_on = [\"refused>30% of 50\", \"refused>1000\"]\n",
    );
    let arguments = ["--config", config.to_str().unwrap()];
    let ended = lab.send(&mixed(2000), &arguments);
    ended.assert_status(75);
    assert!(ended.count("queued") > 1000, "{}", ended.stderr);
    let told = "stopped by --stop-on refused>30% of 50: ";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("most of them at big.test ("),
        "{}",
        ended.stderr
    );
    lab.assert_agrees(&ended);
    let wrong = lab.send(&mixed(2), &["--stop-on", "bounced>1"]);
    assert_eq!(wrong.status, Some(64), "{}", wrong.stderr);
}

#[test]
fn a_pause_of_the_general_queue_holds_for_the_sites_that_were_promoted_out_of_it() {
    let lab = Lab::new(ZONE, keeping(&[SLOW]));
    let recipients = (0..400).map(|n| format!("u{n}@{}", ["big.test", "small.test"][n % 2]));
    let config = lab.file("mailer.toml", "max_sessions = 2\n");
    let arguments = ["--config", config.to_str().unwrap()];
    let program = lab.start(&Batch::to_each(recipients), &arguments);
    lab.show_until(|shown| shown.queues.iter().any(|queue| queue.name == "big.test"));
    lab.order(&["pause", "general"]);
    let held = |shown: &Shown| shown.queues.iter().map(|queue| queue.held).sum::<u64>();
    lab.show_until(|shown| held(shown) > 0 && held(shown) + count(shown, "delivered") == 400);
    let said = lab.order(&["resume", "general"]);
    assert!(said.ends_with(" go on\n"), "{said}");
    lab.assert_all_delivered(&program.wait(), 400);
}

#[test]
fn a_promoted_site_that_was_stopped_does_not_go_back() {
    let refused = "domain=big.test after=40 stage=rcpt reply=\"550 5.7.26 not authenticated\"";
    let rules = [SLOW, refused];
    let lab = Lab::new(ZONE, keeping(&rules));
    let recipients = (0..400).map(|n| format!("u{n}@{}", ["big.test", "small.test"][n % 2]));
    let config = lab.file("mailer.toml", "max_sessions = 2\n");
    let arguments = ["--config", config.to_str().unwrap(), "--run-for", "1h"];
    let program = lab.start(&Batch::to_each(recipients), &arguments);
    let has_own = |shown: &Shown| shown.queues.iter().any(|queue| queue.name == "big.test");
    lab.show_until(has_own);
    // Its server refuses us, so that nothing more is sent to it: from there nothing comes back.
    lab.show_until(|shown| {
        shown
            .sites
            .iter()
            .any(|site| site.domain == "big.test" && site.gate == "stopped")
    });
    let output = lab.ctl(&["demote", "big.test"]);
    let (_, error) = texts(&output);
    assert_eq!(output.status.code(), Some(64), "{error}");
    assert!(
        error.contains("big.test rests after a failure, or refuses our mail"),
        "{error}"
    );
    assert!(has_own(&lab.show_until(|_| true)), "it stays where it is");
    lab.assert_agrees(&program.wait());
}

#[test]
fn a_promoted_site_goes_back_by_order() {
    let lab = Lab::new(ZONE, keeping(&[SLOW]));
    let recipients = (0..400).map(|n| format!("u{n}@{}", ["big.test", "small.test"][n % 2]));
    let config = lab.file("mailer.toml", "max_sessions = 2\n");
    let arguments = ["--config", config.to_str().unwrap()];
    let program = lab.start(&Batch::to_each(recipients), &arguments);
    let has_own = |shown: &Shown| shown.queues.iter().any(|queue| queue.name == "big.test");
    lab.show_until(has_own);
    let said = lab.order(&["demote", "big.test"]);
    assert!(said.contains("goes back to the general queue"), "{said}");
    lab.show_until(|shown| !has_own(shown));
    lab.assert_all_delivered(&program.wait(), 400);
}

#[test]
fn what_is_dropped_untried_is_no_result_that_stops_a_run() {
    let rules = [SLOW, "domain=big.test stage=rcpt drop"];
    let lab = Lab::new(ZONE, keeping(&rules));
    let program = lab.start_controlled(&mixed(200), &["--stop-on", "deferred>60"]);
    lab.show_until(|shown| count(shown, "delivered") >= 10 && count(shown, "deferred") > 0);
    lab.order(&["drop", "big.test"]);
    let ended = program.wait();
    assert_eq!(ended.count("delivered"), 100, "{}", ended.stderr);
    assert!(!ended.stderr.contains("--stop-on"), "{}", ended.stderr);
    lab.assert_agrees(&ended);
}
