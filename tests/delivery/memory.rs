//! What is remembered of receivers from run to run, and that the memory is never in the way of mail.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use mailer::sink::{Listen, SinkConfig};

use crate::batch::Batch;
use crate::lab::{Lab, SOON};

/// The command with the state directory of the laboratory.
fn mailer(lab: &Lab, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailer"));
    command
        .args(arguments)
        .arg("--state")
        .arg(lab.path("state"))
        .env("XDG_CONFIG_HOME", "/proc/nope")
        .env("HOME", "/proc/nope");
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What is remembered, an object a row.
fn remembered(lab: &Lab, names: &[&str]) -> Vec<serde_json::Value> {
    let output = mailer(lab, &[&["hosts", "--json"], names].concat());
    assert!(output.status.success(), "{output:?}");
    let text = stdout(&output);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What is remembered of an address.
fn address<'a>(rows: &'a [serde_json::Value], ip: &str) -> &'a serde_json::Value {
    let row = rows.iter().find(|row| row["ip"] == ip);
    row.unwrap_or_else(|| panic!("no {ip} in {rows:#?}"))
}

const ZONE: &str = "a.test MX 10 mx.a.test\nmx.a.test A 127.0.0.2\nb.test MX 10 mx.b.test\nb.test MX 20 mx2.b.test\n\
    mx.b.test A 127.0.0.3\nmx2.b.test A 127.0.0.4\n";

#[test]
fn a_run_leaves_what_it_has_met_and_it_can_be_shown_and_forgotten() {
    let rules = ["server=127.0.0.3 stage=connect drop"];
    let lab = Lab::new(ZONE, crate::lab::keeping(&rules));
    let batch = Batch::to_each(["x@a.test", "x@b.test"]);
    assert!(stdout(&mailer(&lab, &["hosts"])).is_empty(), "nothing yet");
    lab.assert_all_delivered(&lab.send(&batch, &SOON), 2);
    let file = lab.path("state/hosts.sqlite");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let rows = remembered(&lab, &[]);
    let good = address(&rows, "127.0.0.2");
    assert!(
        good["capabilities"]
            .as_str()
            .unwrap()
            .contains("PIPELINING")
    );
    assert_eq!(
        (good["tls"].as_str(), good["ahead"].as_str()),
        (Some(""), Some("next"))
    );
    assert!(good["rtt_ms"].is_u64() && good["dead_until"].is_null());
    let table = stdout(&mailer(&lab, &["hosts", "127.0.0.2"]));
    assert!(
        table.starts_with("ADDRESS") && table.contains("\n127.0.0.2 "),
        "{table}"
    );
    assert_eq!(remembered(&lab, &["127.0.0.4"]).len(), 1);
    let gone = mailer(&lab, &["hosts", "--forget", "127.0.0.2"]);
    assert_eq!(stdout(&gone), "1 row forgotten\n");
    let again = mailer(&lab, &["hosts", "--forget", "127.0.0.2"]);
    assert_eq!(again.status.code(), Some(66));
    assert!(mailer(&lab, &["hosts", "--forget", "all"]).status.success());
    assert!(remembered(&lab, &[]).is_empty());
}

#[test]
fn an_address_that_was_dead_is_left_out_by_the_next_run() {
    let some = ["127.0.0.2", "127.0.0.4"].map(|ip| ip.parse().unwrap());
    let config = SinkConfig {
        listen: Listen::Addresses(some.to_vec()),
        ..crate::lab::keeping(&[])
    };
    let mut lab = Lab::new(ZONE, config);
    let first = lab.send(&Batch::to_each(["x@b.test"]), &SOON);
    first.assert_status(0);
    let rows = remembered(&lab, &[]);
    assert!(
        address(&rows, "127.0.0.3")["dead_until"].is_string(),
        "{rows:#?}"
    );
    assert!(
        address(&rows, "127.0.0.4")["dead_until"].is_null(),
        "{rows:#?}"
    );
    // It takes connections again, and is not asked before its time.
    lab.replace_receiver(&[]);
    let second = lab.send(&Batch::to_each(["y@b.test"]), &SOON);
    second.assert_status(0);
    assert_eq!(second.row("y@b.test").ip, "127.0.0.4");
    let third = lab.send(
        &Batch::to_each(["z@b.test"]),
        &[&SOON[..], &["--no-memory"]].concat(),
    );
    assert_eq!(third.row("z@b.test").ip, "127.0.0.3");
}

#[test]
fn a_memory_that_cannot_be_used_is_set_aside_with_one_line_and_the_mail_goes_out() {
    let lab = Lab::new(ZONE, crate::lab::keeping(&[]));
    let file = lab.path("state/hosts.sqlite");
    lab.send(&Batch::to_each(["1@a.test"]), &[])
        .assert_status(0);
    std::fs::write(&file, "garbage ".repeat(2000)).unwrap();
    let looked = mailer(&lab, &["hosts"]);
    assert_eq!(looked.status.code(), Some(65), "{looked:?}");
    let ended = lab.send(&Batch::to_each(["2@a.test"]), &[]);
    ended.assert_status(0);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("set aside as hosts.sqlite.bad"),
        "{}",
        ended.stderr
    );
    assert!(!remembered(&lab, &[]).is_empty());
    std::fs::remove_file(&file).unwrap();
    let ended = lab.send(&Batch::to_each(["3@a.test"]), &[]);
    ended.assert_status(0);
    assert_eq!(ended.stderr, "");
    assert!(!remembered(&lab, &[]).is_empty(), "begun anew");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(&file).unwrap();
    std::fs::create_dir_all(lab.path("state/hosts.sqlite.bad/x")).unwrap_or(());
    let ended = lab.send(&Batch::to_each(["4@a.test"]), &[]);
    ended.assert_status(0);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn a_run_without_memory_and_a_rehearsal_leave_nothing() {
    let lab = Lab::new(ZONE, crate::lab::keeping(&[]));
    lab.send(&Batch::to_each(["1@a.test"]), &["--no-memory"])
        .assert_status(0);
    let config = lab.file("mailer.toml", "memory = false\n");
    let config = ["--config", config.to_str().unwrap()];
    lab.send(&Batch::to_each(["2@a.test"]), &config)
        .assert_status(0);
    let batch = lab.path("batch.mbox");
    let rehearsed = mailer(&lab, &["rehearse", batch.to_str().unwrap()]);
    assert!(rehearsed.status.success(), "{rehearsed:?}");
    assert!(!lab.path("state/hosts.sqlite").exists());
}

#[test]
fn the_memory_may_vanish_while_it_is_used_and_runs_share_it() {
    let rules = ["domain=a.test stage=dot delay=1s"];
    let lab = Lab::new(ZONE, crate::lab::keeping(&rules));
    let slow = lab.start(&Batch::to_each(["slow@a.test"]), &[]);
    lab.wait_until(|stats| stats.connections > 0);
    let other = lab.file("other.mbox", Batch::to_each(["quick@b.test"]).bytes());
    let report = lab.path("other.csv");
    let output = mailer(
        &lab,
        &[
            "send",
            "--dns",
            &lab.dns.address().to_string(),
            "--port",
            &lab.sink.port().to_string(),
            "--allow-loopback",
            "--report",
            report.to_str().unwrap(),
            other.to_str().unwrap(),
        ],
    );
    assert!(output.status.success(), "{output:?}");
    let ended = slow.wait();
    ended.assert_status(0);
    assert_eq!(ended.stderr, "");
    let rows = remembered(&lab, &[]);
    address(&rows, "127.0.0.2");
    address(&rows, "127.0.0.3");
    let slow = lab.start(&Batch::to_each(["again@a.test"]), &[]);
    lab.wait_until(|stats| stats.connections > 2);
    std::fs::remove_file(lab.path("state/hosts.sqlite")).unwrap();
    slow.wait().assert_status(0);
}

#[test]
fn a_throttle_reply_that_is_known_is_about_the_rate() {
    let file = "[slow]\nmx = [\".a.test\"]\nthrottle = [{ text = \"calm down\" }, { enhanced = \"4.7.99\" }]\n";
    for (rule, scope) in [
        ("stage=rcpt reply=\"450 4.2.0 please calm down\"", "rate"),
        ("stage=rcpt reply=\"450 4.2.0 greylisted\"", "recipient"),
        ("stage=dot reply=\"451 4.3.0 please CALM down\"", "rate"),
        ("stage=dot reply=\"451 4.3.0 please wait\"", "message"),
        ("stage=greeting reply=\"421 4.7.99 no\"", "rate"),
        ("stage=greeting reply=\"421 4.7.1 no\"", "host"),
        ("stage=dot reply=\"451 4.3.2 server busy\"", "rate"),
    ] {
        let lab = Lab::new(ZONE, crate::lab::keeping(&[rule]));
        let file = lab.file("own.toml", file);
        let config = lab.file("mailer.toml", format!("providers = {file:?}\n"));
        let config = ["--config", config.to_str().unwrap(), "--run-for", "2s"];
        let later = ["--retry-min", "2h", "--retry-max", "2h"];
        let batch = Batch::to_each(["x@a.test"]);
        let ended = lab.send(&batch, &[config, later].concat());
        ended.assert_status(75);
        assert_eq!(ended.row("x@a.test").class, scope, "{rule}");
    }
}

#[test]
fn a_session_that_is_full_by_known_words_is_left_for_another() {
    let file =
        "[few]\nmx = [\".a.test\"]\nsession_limit = [{ text = \"enough for one session\" }]\n";
    let rule = "stage=mail reply=\"450 4.5.0 enough for one session\" after=3 first=1";
    let lab = Lab::new(ZONE, crate::lab::keeping(&[rule]));
    let file = lab.file("own.toml", file);
    let config = lab.file(
        "mailer.toml",
        format!("max_sessions = 1\nproviders = {file:?}\n"),
    );
    let later = ["--retry-min", "2h", "--retry-max", "2h"];
    let config = ["--config", config.to_str().unwrap()];
    let ended = lab.send(
        &Batch::to_domain("a.test", 6),
        &[&config[..], &later].concat(),
    );
    lab.assert_all_delivered(&ended, 6);
    assert_eq!(lab.sink.stats().connections, 2);
}
