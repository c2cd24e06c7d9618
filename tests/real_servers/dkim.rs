//! What `mailer` signs, dkimpy finds valid: keys made by `mailer dkim keygen`, published as it says.

use std::path::Path;
use std::process::Command;

use mailer::sink::{Sink, SinkConfig};

use super::run::send;
use super::servers;

/// Messages as people write them: folded, spaced, eight bits, without a body, with empty lines at the end.
const BATCH: &str = "\
From a@b.test Tue Nov 24 08:00:00 2026
From: News <news@sub.sender.test>
To: one@good.test
Subject: plain
List-Unsubscribe: <https://sender.test/u/1>
List-Unsubscribe-Post: List-Unsubscribe=One-Click

Hello,
>From here  on   spaces\t and tabs \t
.a dot


From a@b.test Tue Nov 24 08:00:00 2026
FROM:   \"A, B\"
 <news@sender.test>
To: two@good.test,
\tthree@good.test
Subject:  folded
 over\t two lines\x20
X-Other: is not signed
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Grüße

From a@b.test Tue Nov 24 08:00:00 2026
From: news@sender.test
To: four@good.test
Subject: no body


From a@b.test Tue Nov 24 08:00:00 2026
From: news@stranger.test
To: five@good.test
Subject: not ours

x
";

fn keygen(place: &Path, selector: &str, kind: &str) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mailer"))
        .args([
            "dkim",
            "keygen",
            "--domain",
            "sender.test",
            "--selector",
            selector,
            "--type",
            kind,
        ])
        .current_dir(place)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let record = said.lines().find(|line| line.contains(" IN TXT ")).unwrap();
    let (name, strings) = record.split_once(". IN TXT ( ").unwrap();
    let value: String = strings
        .trim_end_matches(" )")
        .split('"')
        .skip(1)
        .step_by(2)
        .collect();
    let toml = said.split_once("[[dkim]]").unwrap().1;
    (format!("{name} {value}\n"), format!("[[dkim]]{toml}"))
}

#[test]
fn dkimpy_finds_every_signature_valid() {
    let Some(python) = servers::variable("DKIM_PYTHON") else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (rsa, rsa_toml) = keygen(place.path(), "r2026", "rsa");
    let (ed, ed_toml) = keygen(place.path(), "e2026", "ed25519");
    std::fs::write(at("records"), rsa + &ed).unwrap();
    std::fs::write(at("mailer.toml"), rsa_toml + &ed_toml).unwrap();
    std::fs::write(at("batch.mbox"), BATCH).unwrap();
    let config = SinkConfig::keeping();
    let sink = Sink::start(config).unwrap();
    let path = |name: &str| at(name).to_str().unwrap().to_owned();
    let (batch, config) = (path("batch.mbox"), path("mailer.toml"));
    let relay = sink.address().to_string();
    let run = send(
        &[&batch],
        &[
            "--config",
            &config,
            "--relay",
            &relay,
            "--allow-loopback",
            "--tls",
            "none",
        ],
    );
    assert_eq!(run.status, 0, "{run}");
    let messages = sink.messages();
    assert_eq!(messages.len(), 4);
    let mut files = Vec::new();
    for (number, message) in messages.iter().enumerate() {
        files.push(at(&format!("{number}.eml")));
        std::fs::write(&files[number], &message.content).unwrap();
    }
    let output = Command::new(python)
        .arg("-I")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/servers.d/dkim_verify.py"))
        .arg(at("records"))
        .args(&files)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Two keys, three messages of ours.
    assert_eq!(said.lines().count(), 6, "{said}");
    assert!(said.lines().all(|line| line.ends_with(" True")), "{said}");
}
