//! `mailer explain`: what is said of a domain is what a run would do.

use std::process::{Command, Output};

use crate::lab::Lab;

const ZONE: &str = "SYNTHETIC
nomail.test NULLMX
NXDOMAIN gone.test
SERVFAIL broken.test
one.test MX 10 mx1.hosted.test
one.test MX 20 mx2.hosted.test
two.test MX 5 mx2.hosted.test
two.test MX 5 mx1.hosted.test
mx1.hosted.test A 127.0.0.2
mx2.hosted.test A 127.0.0.3
mail.test MX 10 aspmx.l.google.com
other.test MX 1 alt1.aspmx.l.google.com
mixed.test MX 1 alt1.aspmx.l.google.com
mixed.test MX 2 mx1.hosted.test
aspmx.l.google.com A 127.0.0.4
alt1.aspmx.l.google.com A 127.0.0.5
";

fn lab() -> Lab {
    Lab::new(ZONE, crate::lab::keeping(&[]))
}

fn explain(lab: &Lab, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailer"));
    command
        .args(["explain", "--dns", &lab.dns.address().to_string()])
        .args(["--allow-loopback", "--state"])
        .arg(lab.path("state"))
        .args(arguments)
        .env("XDG_CONFIG_HOME", "/proc/nope")
        .env("HOME", "/proc/nope");
    command.output().unwrap()
}

#[track_caller]
fn text(lab: &Lab, arguments: &[&str]) -> String {
    let output = explain(lab, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The object of each domain.
fn objects(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn servers_site_policy_limits_and_what_binds_are_shown() {
    let lab = lab();
    let shown = text(&lab, &["one.test", "someone@two.test"]);
    for words in [
        "one.test\n  queue    general (no other names the domain or its hosts)\n  site     mx1.hosted.test,mx2.hosted.test\n",
        "servers   10 mx1.hosted.test  127.0.0.2\n            20 mx2.hosted.test  127.0.0.3\n",
        "TLS      may (the general policy)",
        "max_sessions             20 sessions  default  <- binds\n",
        "360000 messages an hour (20 sessions at a time, 0.2 s a message)",
        "\n\ntwo.test\n",
    ] {
        assert!(shown.contains(words), "{words}\n{shown}");
    }
    assert_eq!(lab.sink.stats().connections, 0, "nobody is connected to");
    assert!(!lab.path("state").exists(), "nothing is written");
}

#[test]
fn a_queue_is_explained_by_the_pattern_that_names_it() {
    let lab = lab();
    let config = lab.file(
        "mailer.toml",
        "[queue.exact]\ndomains = [\"one.test\"]\nmax_sessions = 3\ntls = \"require\"\n\
         [queue.below]\ndomains = [\".below.test\"]\n[queue.hosted]\nmx = [\".hosted.test\"]\nmax_workers = 2\n",
    );
    let config = config.to_str().unwrap();
    let domains = ["one.test", "x.below.test", "two.test", "else.test"];
    let output = explain(
        &lab,
        &[&["--config", config, "--json"], &domains[..]].concat(),
    );
    let found: Vec<(String, String)> = objects(&output)
        .iter()
        .map(|it| (it["queue"].to_string(), it["queue_reason"].to_string()))
        .collect();
    let expected = [
        ("exact", "it names one.test"),
        ("below", "it names all below .below.test"),
        (
            "hosted",
            "it names the MX host mx2.hosted.test, or those above it",
        ),
        ("general", "no other names the domain or its hosts"),
    ];
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(queue, why)| (queue.trim_matches('"'), why.trim_matches('"')))
        .collect();
    // Hosts of one preference come in any order.
    assert_eq!(found[..2], expected[..2]);
    assert_eq!(found[2].0, expected[2].0);
    assert!(
        found[2].1.contains(".hosted.test, or those above it"),
        "{found:?}"
    );
    assert_eq!(found[3], expected[3]);
    let shown = text(&lab, &["--config", config, "one.test", "two.test"]);
    assert!(shown.contains("TLS      require (of the queue)"), "{shown}");
    assert!(
        shown.contains("3 sessions  configured  <- binds"),
        "{shown}"
    );
    assert!(
        shown.contains("2 sessions  configured  <- binds"),
        "{shown}"
    );
}

#[test]
fn domains_of_a_provider_are_one_site_with_its_limits() {
    let lab = lab();
    let output = explain(&lab, &["--json", "mail.test", "other.test", "mixed.test"]);
    let found = objects(&output);
    for it in &found[..2] {
        assert_eq!(it["site"], "provider google");
        assert_eq!(
            (it["tls"].as_str(), it["sessions"].as_u64()),
            (Some("require"), Some(5))
        );
        assert_eq!(it["messages_per_hour"], 90_000);
    }
    let mixed = &found[2];
    assert_eq!(mixed["site"], "alt1.aspmx.l.google.com,mx1.hosted.test");
    assert_eq!(
        (mixed["provider"].is_null(), mixed["tls"].as_str()),
        (true, Some("may"))
    );
    let file = lab.file(
        "own.toml",
        "[google]\nsessions = 7\nrate = \"600/min\"\ntls = \"may\"\n",
    );
    let config = format!("providers = {file:?}\n");
    let config = lab.file("mailer.toml", config);
    let shown = text(&lab, &["--config", config.to_str().unwrap(), "mail.test"]);
    assert!(shown.contains("rate of provider google"), "{shown}");
    assert!(shown.contains("600/min  provider  <- binds"), "{shown}");
    assert!(
        shown.contains("TLS      may (the general policy)"),
        "{shown}"
    );
    assert!(shown.contains("at most  36000 messages an hour"), "{shown}");
}

#[test]
fn what_cannot_be_explained_is_said_and_the_others_follow() {
    let lab = lab();
    let output = explain(&lab, &["gone.test", "nomail.test", "one.test"]);
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("gone.test: the domain does not exist"),
        "{said}"
    );
    assert!(
        said.contains("nomail.test: the domain takes no mail (null MX)"),
        "{said}"
    );
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("one.test\n"));
    let output = explain(&lab, &["--json", "gone.test", "broken.test"]);
    assert_eq!(output.status.code(), Some(75), "it may be found later");
    let found = objects(&output);
    assert_eq!(
        (found[0]["passing"].as_bool(), found[1]["passing"].as_bool()),
        (Some(false), Some(true))
    );
    let output = explain(&lab, &["a..test"]);
    assert_eq!(output.status.code(), Some(64));
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let deaf = deaf.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_mailer"))
        .args([
            "explain",
            "--dns",
            &deaf,
            "--dns-timeout",
            "400ms",
            "one.test",
            "--state",
        ])
        .arg(lab.path("state"))
        .env("XDG_CONFIG_HOME", "/proc/nope")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("no name server answers at all"), "{said}");
}

#[test]
fn relays_are_explained_as_what_they_are() {
    let lab = lab();
    let shown = text(&lab, &["--relay", "127.0.0.9:2525", "one.test"]);
    assert!(shown.contains("site     relay 127.0.0.9:2525"), "{shown}");
    assert!(
        shown.contains("relays     0 127.0.0.9  127.0.0.9"),
        "{shown}"
    );
}
