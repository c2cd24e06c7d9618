//! `mailer bounces`: mailboxes in, a row per recipient out, and a suppression list that the next run obeys.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/bounces")
        .join(name)
}

fn mailer(arguments: &[&str], stdin: &[u8]) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("mailer").unwrap();
    let output = command.args(arguments).write_stdin(stdin).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// All fixtures as one mbox.
fn mbox() -> Vec<u8> {
    let mut mbox = Vec::new();
    for name in [
        "postfix-unknown.eml",
        "several.eml",
        "exim.eml",
        "complaint.eml",
        "holiday.eml",
    ] {
        mbox.extend_from_slice(b"From MAILER-DAEMON Tue Nov 24 08:00:00 2026\n");
        mbox.extend_from_slice(&std::fs::read(fixture(name)).unwrap());
        mbox.push(b'\n');
    }
    mbox
}

const ROWS: [&str; 9] = [
    "recipient,kind,status,reason",
    "ann+news@old.example,hard,5.1.1,",
    "gone@big.example,hard,5.1.10,",
    "full@big.example,soft,5.2.2,",
    "slow@big.example,undecided,4.4.7,",
    "fast@big.example,throttled,5.7.1,",
    "nobody@exim.example,hard,,",
    "other@exim.example,soft,,",
    "cross@provider.example,complaint,,abuse",
];

#[track_caller]
fn assert_rows(stdout: &str) {
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), ROWS.len(), "{stdout}");
    for (line, row) in lines.iter().zip(ROWS) {
        assert!(line.starts_with(row), "{line} is not {row}");
    }
}

#[test]
fn an_mbox_on_standard_input_and_a_maildir_say_the_same() {
    let (status, stdout, stderr) = mailer(&["bounces", "-"], &mbox());
    assert_eq!(status, Some(0), "{stderr}");
    assert_rows(&stdout);
    let told = "mailer: 5 messages: 3 hard, 1 complaint, 2 soft, 1 throttled, 1 undecided, 1 neither bounce nor complaint\n";
    assert_eq!(stderr, told);

    let dir = TempDir::new().unwrap();
    for part in ["new", "cur", "tmp"] {
        std::fs::create_dir(dir.path().join(part)).unwrap();
    }
    for (number, name) in [
        "postfix-unknown.eml",
        "several.eml",
        "exim.eml",
        "complaint.eml",
        "holiday.eml",
    ]
    .iter()
    .enumerate()
    {
        let part = ["new", "cur"][number / 3];
        std::fs::copy(
            fixture(name),
            dir.path().join(part).join(format!("{number}.host")),
        )
        .unwrap();
    }
    let (status, stdout, stderr) = mailer(&["bounces", dir.path().to_str().unwrap()], b"");
    assert_eq!(status, Some(0), "{stderr}");
    assert_rows(&stdout);
}

#[test]
fn who_is_not_to_be_mailed_any_more_goes_to_the_list_once() {
    let dir = TempDir::new().unwrap();
    let list = dir.path().join("bounced.csv");
    std::fs::write(&list, "# by hand\ngone@BIG.example,,asked").unwrap();
    let arguments = ["bounces", "-", "--add-to", list.to_str().unwrap()];
    let (status, _, stderr) = mailer(&arguments, &mbox());
    assert_eq!(status, Some(0), "{stderr}");
    assert!(
        stderr.ends_with(&format!("; 3 added to {}\n", list.display())),
        "{stderr}"
    );
    let text = std::fs::read_to_string(&list).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(&lines[..2], ["# by hand", "gone@BIG.example,,asked"]);
    for (line, start) in lines[2..].iter().zip([
        "ann+news@old.example,,",
        "nobody@exim.example,,hard ",
        "cross@provider.example,,complaint ",
    ]) {
        assert!(line.trim_start_matches('"').starts_with(start), "{line}");
    }
    assert_eq!(lines.len(), 5, "{text}");
    let (_, _, stderr) = mailer(&arguments, &mbox());
    assert!(stderr.contains("; 0 added to "), "{stderr}");
    assert_eq!(std::fs::read_to_string(&list).unwrap(), text);
    // An address that would be a remark is none, and is known again.
    let odd =
        b"X-Failed-Recipients: #odd@exim.example\n\n  #odd@exim.example\n    550 no such user\n";
    let (_, _, stderr) = mailer(&arguments, odd);
    assert!(stderr.contains("; 1 added to "), "{stderr}");
    let (_, _, stderr) = mailer(&arguments, odd);
    assert!(stderr.contains("; 0 added to "), "{stderr}");
}

#[test]
fn what_is_no_mailbox_and_what_is_no_list_is_said() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("junk"), "no mail here\n").unwrap();
    std::fs::write(at("zip"), b"\x1f\x8b\x08\0").unwrap();
    std::fs::write(at("list"), "reason,address\nasked,a@x.example\n").unwrap();
    let good = fixture("exim.eml");
    let good = good.to_str().unwrap();
    for (arguments, status, what) in [
        (
            vec!["bounces", &at("junk")],
            65,
            "junk: neither an mbox nor a message",
        ),
        (
            vec!["bounces", &at("zip")],
            65,
            "zcat FILE | mailer bounces -",
        ),
        (vec!["bounces", &at("none")], 66, "No such file"),
        (
            vec!["bounces", dir.path().to_str().unwrap()],
            65,
            "is no Maildir",
        ),
        (
            vec!["bounces", good, "--add-to", &at("list")],
            65,
            "another order than address,until,reason",
        ),
        (
            vec!["bounces", good, "--verp", "x"],
            64,
            "bounces+{address}@example.org",
        ),
        (vec!["bounces"], 64, "MAILBOX"),
    ] {
        let (code, _, stderr) = mailer(&arguments, b"");
        assert_eq!(code, Some(status), "{arguments:?}: {stderr}");
        assert!(stderr.contains(what), "{arguments:?}: {stderr}");
    }
}
