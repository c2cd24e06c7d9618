//! `mailer compose`: rows in, an mbox out that `mailer send` delivers, the same bytes each time; bad rows named or written aside.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use mail_parser::{MessageParser, MimeHeaders};
use mailer::sink::{Sink, SinkConfig};
use tempfile::TempDir;

struct Lab {
    place: TempDir,
}

struct Ended {
    status: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/merge");
    path.join(name).to_str().unwrap().to_owned()
}

impl Lab {
    fn new() -> Lab {
        let lab = Lab {
            place: TempDir::new().unwrap(),
        };
        let key = lab.file("token.key", b"a key of the tests, long enough\n");
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
        lab
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.place.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn run(&self, arguments: &[&str], stdin: &[u8]) -> Ended {
        let mut command = Command::cargo_bin("mailer").unwrap();
        let output = command
            .current_dir(self.place.path())
            .env("TZ", "UTC")
            .env("XDG_STATE_HOME", self.place.path())
            .args(arguments)
            .write_stdin(stdin)
            .output()
            .unwrap();
        Ended {
            status: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn compose(&self, data: &str, more: &[&str]) -> Ended {
        let letter = fixture("letter.md");
        let first = [
            "compose",
            &letter,
            "--data",
            data,
            "--token-key",
            "token.key",
        ];
        let named: &[&str] = match more.contains(&"--job") {
            true => &[],
            false => &["--job", "weekly"],
        };
        self.run(&[&first[..], named, more].concat(), b"")
    }
}

impl Ended {
    #[track_caller]
    fn assert(&self, status: i32, said: &str) -> &Ended {
        assert_eq!(self.status, Some(status), "{}", self.stderr);
        assert!(self.stderr.contains(said), "{} lacks {said}", self.stderr);
        self
    }
}

#[test]
fn a_job_composed_twice_is_the_same_and_nobody_is_mailed_twice() {
    let lab = Lab::new();
    let first = lab.compose(&fixture("people.csv"), &["--job", "weekly-48"]);
    first.assert(0, "");
    let again = lab.compose(&fixture("people.csv"), &["--job", "weekly-48"]);
    assert!(first.stdout == again.stdout, "another run, other bytes");
    let kept = lab.place.path().join("mailer/composed/weekly-50");
    std::fs::write(kept, "2026-01-02T03:04:05Z").unwrap();
    let later = lab.compose(&fixture("people.csv"), &["--job", "weekly-50"]);
    let later = String::from_utf8(later.stdout).unwrap();
    let date = "\nDate: Fri, 2 Jan 2026 03:04:05 +0000\n";
    assert_eq!(later.matches(date).count(), 3, "{later}");
    let rows = lab.compose(&fixture("people.jsonl"), &["--job", "weekly-48"]);
    assert!(first.stdout == rows.stdout, "the same rows from JSON lines");
    let other = lab.compose(&fixture("people.csv"), &["--job", "weekly-49"]);
    assert!(first.stdout != other.stdout, "another job");

    let sink = Sink::start(SinkConfig::keeping()).unwrap();
    let relay = sink.address().to_string();
    let send = |bytes: &[u8]| {
        let network = ["--relay", &relay, "--allow-loopback", "--tls", "none"];
        let send = ["send", "-", "--job", "weekly-48", "--summary"];
        lab.run(&[&send[..], &network].concat(), bytes)
    };
    send(&first.stdout).assert(0, "");
    send(&again.stdout).assert(0, "");
    let mut got = sink.messages();
    got.sort_by(|a, b| a.recipients.cmp(&b.recipients));
    let recipients: Vec<&str> = got.iter().map(|one| one.recipients[0].as_str()).collect();
    let want = ["ann@one.example", "carla@one.example", "joerg@two.example"];
    assert_eq!(recipients, want);
    let parsed = MessageParser::new().parse(&got[2].content).unwrap();
    let subject = "Jörg Müller, jun., your news of the week";
    assert_eq!(parsed.subject(), Some(subject));
    let to = parsed.to().unwrap().first().unwrap();
    assert_eq!(to.name(), Some("Jörg Müller, jun."));
    let logo = parsed.attachment(0).unwrap();
    assert_eq!(logo.content_id(), Some("logo.png"));
    assert_eq!(got[2].reverse_path, "news@example.org");
}

#[test]
fn tokens_lead_from_a_bounce_back_to_the_recipient() {
    let lab = Lab::new();
    let pattern = "bounces+{token}@example.org";
    let outputs = ["--tokens", "tokens.csv", "--out", "batch.mbox"];
    let composed = lab.compose(
        &fixture("people.csv"),
        &[&["--verp", pattern], &outputs[..]].concat(),
    );
    composed.assert(0, "");
    assert!(composed.stdout.is_empty());
    let tokens = std::fs::read_to_string(lab.place.path().join("tokens.csv")).unwrap();
    let token = tokens
        .lines()
        .find_map(|line| line.strip_suffix(",joerg@two.example"))
        .unwrap();
    let mbox = std::fs::read_to_string(lab.place.path().join("batch.mbox")).unwrap();
    assert!(mbox.contains(&format!("X-Envelope-From: <bounces+{token}@example.org>")));
    assert!(mbox.contains(&format!("https://news.example.org/leave/{token}")));
    // Servers on the way may change the case.
    let bounce = format!(
        "From: MAILER-DAEMON@two.example\nTo: bounces+{}@example.org\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n\
         --b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; two.example\n\n\
         Final-Recipient: rfc822; other@two.example\nAction: failed\nStatus: 5.1.1\n\n--b--\n",
        token.to_uppercase()
    );
    let bounces = ["bounces", "-", "--verp", pattern];
    let run = |more: &[&str]| lab.run(&[&bounces[..], more].concat(), bounce.as_bytes());
    let known = run(&["--tokens", "tokens.csv"]);
    known.assert(0, "1 hard");
    let rows = String::from_utf8(known.stdout).unwrap();
    assert!(rows.contains("joerg@two.example,hard,5.1.1"), "{rows}");
    let hint = "hint: give the file that `mailer compose --tokens` wrote";
    run(&[]).assert(64, hint);
    lab.file("other.csv", b"a,b\nc,d\n");
    run(&["--tokens", "other.csv"]).assert(65, "other.csv line 2: neither token nor address in it");
}

#[test]
fn a_bad_row_is_named_by_row_and_column_or_written_aside() {
    let lab = Lab::new();
    let people = "email,name,points\nann@one.example,Ann,1\n\
                  bob@two.example,\"Bob\nBcc: x@evil.example\",2\nno address,Carl,3\n\
                  dora@one.example,Dora\nANN@one.example,Ann again,5\nemil@one.example,Emil,6\n";
    lab.file("people.csv", people.as_bytes());
    let stopped = lab.compose("people.csv", &[]);
    let place = "people.csv row 2 (line 3): column \"name\": To: '\\n' in a name";
    stopped.assert(65, place);
    stopped.assert(65, "1 message came before it");
    let composed = String::from_utf8(stopped.stdout).unwrap();
    assert_eq!(composed.matches("X-Envelope-To: ").count(), 1);

    let skipped = lab.compose("people.csv", &["--skip-bad", "bad.csv"]);
    skipped.assert(1, "3 bad rows left out: see bad.csv");
    let repeated =
        "1 row left out whose key had been there before, the first ann@one.example in row 5";
    skipped.assert(1, repeated);
    let composed = String::from_utf8(skipped.stdout).unwrap();
    let to: Vec<&str> = composed
        .lines()
        .filter_map(|line| line.strip_prefix("X-Envelope-To: "))
        .collect();
    assert_eq!(to, ["ann@one.example", "emil@one.example"]);
    assert!(!composed.contains("evil"), "{composed}");
    let bad = std::fs::read_to_string(lab.place.path().join("bad.csv")).unwrap();
    let mut rows = csv::Reader::from_reader(bad.as_bytes());
    let names: Vec<&str> = rows.headers().unwrap().iter().collect();
    let own = ["row", "line", "column", "problem"];
    assert_eq!(names, [&own[..], &["email", "name", "points"]].concat());
    let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    let cells = |at: usize| (&rows[at][0], &rows[at][2], &rows[at][4]);
    assert_eq!(cells(0), ("2", "name", "bob@two.example"));
    assert_eq!(cells(1), ("3", "email", "no address"));
    assert_eq!(cells(2), ("4", "", ""), "its values cannot be told apart");
}

#[test]
fn what_cannot_be_used_is_said_before_anything_is_made() {
    let lab = Lab::new();
    let text = b"From: a@b.example\nTo: {{ email }}\n\nHello {{ nmae }}\n";
    lab.file("letter.txt", text);
    let people = fixture("people.csv");
    let compose = |more: &[&str]| lab.run(&[&["compose", "letter.txt"], more].concat(), b"");
    let unknown = compose(&["--data", &people]);
    unknown.assert(65, "letter.txt line 4 column 10: there is no column `nmae`");
    unknown.assert(65, "hint: the columns are email, name, points");
    assert!(unknown.stdout.is_empty());
    compose(&["--data", "missing.csv"]).assert(66, "missing.csv: ");
    compose(&[]).assert(64, "--data");
    compose(&["--sqlite", "x.db"]).assert(64, "--query");
    let missing = ["compose", "missing.md", "--data", people.as_str()];
    lab.run(&missing, b"").assert(66, "missing.md: ");
    let letter = fixture("letter.md");
    let no_name = [
        "compose",
        &letter,
        "--data",
        &people,
        "--token-key",
        "token.key",
    ];
    lab.run(&no_name, b"").assert(65, "hint: give --job NAME");
    let no_key = ["compose", &letter, "--data", &people, "--job", "weekly"];
    lab.run(&no_key, b"")
        .assert(65, "hint: give --token-key FILE");
    let open = lab.file("open.key", b"0123456789abcdef0123456789");
    std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let readable = [&no_key[..], &["--token-key", "open.key"]].concat();
    lab.run(&readable, b"")
        .assert(77, "others can read this token key");
}

#[test]
fn a_preview_shows_the_first_messages_and_repaints_nothing() {
    let lab = Lab::new();
    let people = "email,name,points\nann@one.example,A\u{9b}31mnn,1\n\
                  bob@two.example,Bob <b>,20\ncarl@one.example,Carl \u{202e}x,3\nd@one.example,D,1\n";
    lab.file("people.csv", people.as_bytes());
    let shown = lab.compose("people.csv", &["--preview", "2", "--html", "page.html"]);
    shown.assert(1, "people.csv row 1 (line 2): column \"name\"");
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains("(envelope) <news@example.org> -> bob@two.example\n"),
        "{text}"
    );
    assert!(
        text.contains("You have **20** points: enough for a gift."),
        "{text}"
    );
    assert!(
        text.contains("carl@one.example") && !text.contains("message 3"),
        "{text}"
    );
    assert!(!text.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'));
    let page = std::fs::read_to_string(lab.place.path().join("page.html")).unwrap();
    assert!(page.contains("<iframe sandbox srcdoc="), "{page}");
    assert!(page.contains("data:image/png;base64,") && !page.contains("cid:"));
    assert!(page.contains("Hello Bob &amp;lt;b&amp;gt;"), "{page}");
}

#[test]
fn lines_that_look_like_separators_stay_in_their_message() {
    let lab = Lab::new();
    let letter = "From: a@b.example\nTo: {{ email }}\n\n{{ t }}\nFrom ann Tue Nov 24 08:00:00 2026\n>From x\n";
    lab.file("letter.txt", letter.as_bytes());
    lab.file(
        "rows.csv",
        b"email,t\na@c.example,\"x\n\nFrom y Tue Nov 24 08:00:00 2026\nTo: z@evil.example\"\n",
    );
    let made = lab.run(&["compose", "letter.txt", "--data", "rows.csv"], b"");
    made.assert(0, "");
    let seen = lab.run(&["inspect", "-", "--json"], &made.stdout);
    seen.assert(0, "");
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert_eq!(seen.lines().count(), 1, "{seen}");
    assert!(!seen.contains("evil"), "{seen}");
}

#[test]
fn rows_come_from_sqlite_too() {
    let lab = Lab::new();
    let database = rusqlite::Connection::open(lab.place.path().join("people.db")).unwrap();
    database
        .execute_batch(
            "CREATE TABLE p(id, mail, n, points);
             INSERT INTO p VALUES(1, 'ann@one.example', 'Ann', 12),
             (2, 'joerg@two.example', 'Jörg Müller, jun.', 3), (3, 'carla@one.example', 'Carla <3', 10);",
        )
        .unwrap();
    drop(database);
    let letter = fixture("letter.md");
    let query = "SELECT mail AS email, n AS name, points FROM p ORDER BY id";
    let compose = [
        "compose",
        &letter,
        "--sqlite",
        "people.db",
        "--query",
        query,
    ];
    let job = ["--token-key", "token.key", "--job", "weekly-48"];
    let made = lab.run(&[&compose[..], &job].concat(), b"");
    made.assert(0, "");
    let from_csv = lab.compose(&fixture("people.csv"), &["--job", "weekly-48"]);
    assert_eq!(from_csv.status, made.status, "{}", from_csv.stderr);
    assert!(
        made.stdout == from_csv.stdout,
        "the same rows, the same bytes"
    );
}
