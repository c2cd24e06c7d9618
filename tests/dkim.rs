//! `mailer dkim` and `[[dkim]]`: keys made, refused, and used once for each message.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use assert_cmd::Command;
use mailer::dkim::Key;
use mailer::sink::{Sink, SinkConfig};
use tempfile::TempDir;

const NAME: [&str; 4] = ["--domain", "sender.test", "--selector", "s1"];

fn mailer(place: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("mailer").unwrap();
    let output = command.current_dir(place).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn keygen(place: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    mailer(place, &[&["dkim", "keygen"], &NAME[..], more].concat())
}

#[test]
fn a_key_is_made_for_its_owner_alone_and_never_over_another() {
    let place = TempDir::new().unwrap();
    for (kind, file) in [("rsa", "s1.sender.test.pem"), ("ed25519", "other.pem")] {
        let more = if kind == "rsa" {
            vec![]
        } else {
            vec!["--type", kind, "--out", file]
        };
        let (status, said, stderr) = keygen(place.path(), &more);
        assert_eq!(status, Some(0), "{stderr}");
        let path = place.path().join(file);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let pem = std::fs::read(&path).unwrap();
        let record = Key::from_pem(&pem).unwrap().record().unwrap();
        assert!(
            record.starts_with(&format!("v=DKIM1; k={kind}; p=")),
            "{record}"
        );
        let (status, again, stderr) = mailer(
            place.path(),
            &[&["dkim", "record", "--key", file], &NAME[..]].concat(),
        );
        assert_eq!(status, Some(0), "{stderr}");
        assert!(said.contains(&again), "{said}");
        let strings: Vec<&str> = again.split('"').skip(1).step_by(2).collect();
        assert_eq!(strings.concat(), record);
        assert!(strings.iter().all(|string| string.len() <= 255));
        assert!(
            again.starts_with("s1._domainkey.sender.test. IN TXT ( \"v=DKIM1"),
            "{again}"
        );
        let (status, _, stderr) = keygen(place.path(), &more);
        assert_eq!(status, Some(73), "{stderr}");
        assert!(stderr.contains("a key is never overwritten"), "{stderr}");
        assert_eq!(std::fs::read(&path).unwrap(), pem);
    }
}

#[test]
fn keys_that_are_no_good_stop_the_run_before_anything_is_sent() {
    let place = TempDir::new().unwrap();
    let at = |name: &str| place.path().join(name);
    assert_eq!(
        keygen(place.path(), &["--out", "good.pem", "--bits", "1024"]).0,
        Some(0)
    );
    std::fs::copy(at("good.pem"), at("open.pem")).unwrap();
    std::fs::set_permissions(at("open.pem"), PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(at("none.pem"), "no key").unwrap();
    std::fs::set_permissions(at("none.pem"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(
        at("batch.mbox"),
        "From a@b.test Tue Nov 24 08:00:00 2026\nFrom: a@sender.test\nTo: b@c.test\n\nx\n",
    )
    .unwrap();
    for (domain, selector, key, status, what) in [
        (
            "sender.test",
            "s1",
            "open.pem",
            77,
            "others can read this DKIM key",
        ),
        ("sender.test", "s1", "none.pem", 78, "no private key in PEM"),
        (
            "sender.test",
            "s1",
            "absent.pem",
            66,
            "cannot read the DKIM key",
        ),
        ("sender.test", "s 1;", "good.pem", 78, "is no selector"),
        ("sender.test", "-s", "good.pem", 78, "is no selector"),
        ("sender..test", "s1", "good.pem", 78, "is no domain"),
        ("[127.0.0.1]", "s1", "good.pem", 78, "is no domain"),
    ] {
        let text =
            format!("[[dkim]]\ndomain = {domain:?}\nselector = {selector:?}\nkey = {key:?}\n");
        std::fs::write(at("mailer.toml"), text).unwrap();
        let arguments = [
            "send",
            "batch.mbox",
            "--config",
            "mailer.toml",
            "--state",
            "state",
        ];
        let (code, _, stderr) = mailer(place.path(), &arguments);
        assert_eq!(code, Some(status), "{stderr}");
        assert!(stderr.contains(what), "{stderr}");
        assert!(!at("state/jobs").exists());
    }
    let (status, _, stderr) = keygen(place.path(), &["--bits", "512"]);
    assert_eq!(status, Some(64), "{stderr}");
}

#[test]
fn a_message_to_several_domains_is_signed_once_for_each_that_gets_it() {
    let place = TempDir::new().unwrap();
    let at = |name: &str| place.path().join(name);
    let (_, said, stderr) = keygen(place.path(), &["--type", "ed25519"]);
    let toml = said
        .split_once("[[dkim]]")
        .unwrap_or_else(|| panic!("{stderr}"))
        .1;
    std::fs::write(
        at("mailer.toml"),
        format!("max_recipients = 1\n[[dkim]]{toml}"),
    )
    .unwrap();
    let people: Vec<String> = (0..6).map(|n| format!("u{n}@d{}.test", n % 2)).collect();
    let batch = format!(
        "From a@b.test Tue Nov 24 08:00:00 2026\nFrom: a@sender.test\nTo: {}\n\nx\n",
        people.join(", ")
    );
    std::fs::write(at("batch.mbox"), batch).unwrap();
    for chunking in [false, true] {
        let mut config = SinkConfig::keeping();
        config.server.chunking = chunking;
        let sink = Sink::start(config).unwrap();
        let relay = sink.address().to_string();
        let state = format!("state{chunking}");
        let (status, _, stderr) = mailer(
            place.path(),
            &[
                "send",
                "batch.mbox",
                "--config",
                "mailer.toml",
                "--state",
                &state,
                "--relay",
                &relay,
                "--allow-loopback",
                "--tls",
                "none",
                "--max-workers",
                "1",
            ],
        );
        assert_eq!(status, Some(0), "{stderr}");
        let messages = sink.messages();
        assert_eq!(messages.len(), 6);
        for message in messages {
            let text = String::from_utf8(message.content).unwrap();
            assert!(
                text.starts_with("DKIM-Signature: v=1; a=ed25519-sha256;"),
                "{text}"
            );
            assert_eq!(text.matches("DKIM-Signature").count(), 1, "{text}");
            assert!(text.ends_with("\r\n\r\nx\r\n"), "{text}");
        }
        assert_eq!(sink.stop().violations_total(), 0);
    }
    let (status, shown, _) = mailer(place.path(), &["config", "--config", "mailer.toml"]);
    assert_eq!(status, Some(0));
    assert!(
        shown.contains("[[dkim]]\ndomain = \"sender.test\""),
        "{shown}"
    );
    std::fs::write(at("again.toml"), &shown).unwrap();
    let (status, again, stderr) = mailer(place.path(), &["config", "--config", "again.toml"]);
    assert_eq!(
        (status, again.contains("[[dkim]]")),
        (Some(0), true),
        "{stderr}"
    );
}
