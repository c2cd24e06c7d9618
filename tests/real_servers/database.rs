//! Rows from PostgreSQL, and the whole way of a newsletter: database, composer, signature, a real server, a bounce, the list of
//! those who are mailed no more, and the next issue without them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use native_tls::TlsConnector;
use postgres::Client;
use postgres_native_tls::MakeTlsConnector;

use super::servers;

const TEMPLATE: &str = "From: News <news@sender.test>\nTo: {{ name }} <{{ email }}>\nSubject: News\n\n{{ email }}|{{ n }}|{{ price }}|{{ ok }}|{{ tags }}|{{ doc.a }}|{{ at }}|{{ nothing }}|\n";

/// The server's URL, and a connection that may write.
fn database() -> Option<(String, Client)> {
    let url = servers::variable("POSTGRES")?;
    let tls = TlsConnector::builder()
        .danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    let client = Client::connect(&url, MakeTlsConnector::new(tls)).unwrap();
    Some((url, client))
}

fn mailer(place: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mailer"))
        .args(arguments)
        .current_dir(place)
        .env("XDG_STATE_HOME", place)
        .env_remove("PGPASSWORD")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn every_type_comes_as_people_read_it() {
    let Some((url, _)) = database() else { return };
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("t.txt"), TEMPLATE).unwrap();
    let query = "SELECT 'a@b.test' AS email, 'Jörg' AS name, 7 AS n, 12.50::numeric AS price, true AS ok, \
                 ARRAY['x','y'] AS tags, '{\"a\": 1}'::jsonb AS doc, '2026-11-24 08:00:00'::timestamp AS at, NULL::text AS nothing; -- end";
    let query = query.replace("; -- end", ";");
    let compose = ["compose", "t.txt", "--postgres", &url, "--query", &query];
    let made = mailer(place.path(), &compose);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let want = "\na@b.test|7|12.50|True|['x', 'y']|1|2026-11-24 08:00:00||\n";
    assert!(text(&made.stdout).contains(want), "{}", text(&made.stdout));
}

#[test]
fn rows_come_through_a_cursor_and_the_database_is_only_read() {
    let Some((url, mut client)) = database() else {
        return;
    };
    let table = "CREATE TABLE IF NOT EXISTS many AS SELECT i, 'u' || i || '@b.test' AS email FROM generate_series(1, 2500) AS i";
    client.batch_execute(table).unwrap();
    let place = tempfile::tempdir().unwrap();
    let template = "From: a@sender.test\nTo: {{ email }}\n\n{{ i }}\n";
    std::fs::write(place.path().join("t.txt"), template).unwrap();
    let run = |url: &str, query: &str| {
        let compose = ["compose", "t.txt", "--postgres", url, "--query", query];
        let made = mailer(place.path(), &compose);
        (made.status.code(), text(&made.stdout), text(&made.stderr))
    };
    let (status, made, stderr) = run(&url, "SELECT * FROM many ORDER BY i");
    assert_eq!(status, Some(0), "{stderr}");
    let to: Vec<&str> = made
        .lines()
        .filter_map(|line| line.strip_prefix("X-Envelope-To: u"))
        .collect();
    assert_eq!(to.len(), 2500);
    assert_eq!((to[999], to[2499]), ("1000@b.test", "2500@b.test"));

    let (status, _, stderr) = run(&url, "DELETE FROM many RETURNING *");
    assert_eq!(status, Some(65), "{stderr}");
    let left: i64 = client
        .query_one("SELECT count(*) FROM many", &[])
        .unwrap()
        .get(0);
    assert_eq!(left, 2500);
    let (status, _, stderr) = run(&url, "SELECT nowhere FROM many");
    assert_eq!(status, Some(65));
    assert!(
        stderr.contains("column \"nowhere\" does not exist"),
        "{stderr}"
    );
    let (status, _, stderr) = run(&url, "SELECT email, email FROM many");
    assert_eq!(status, Some(65));
    assert!(stderr.contains("`email` twice"), "{stderr}");
    let (status, _, stderr) = run(&url.replace("not%20a%20secret", "wrong"), "SELECT 1");
    assert_eq!(status, Some(66));
    assert!(
        stderr.contains("password authentication failed"),
        "{stderr}"
    );
    // The certificate is signed by nobody that the machine knows.
    let (status, _, stderr) = run(&format!("{url}?sslmode=verify-full"), "SELECT * FROM many");
    assert_eq!(status, Some(66));
    assert!(stderr.contains("certificate"), "{stderr}");
    let (status, ..) = run(&format!("{url}?sslmode=require"), "SELECT * FROM many");
    assert_eq!(status, Some(0));
}

/// A newsletter from the database, composed and sent twice over, signed, to Postfix; one address bounces, and gets no further issue.
#[test]
fn a_newsletter_goes_from_the_database_to_the_inbox_and_a_bounce_ends_it() {
    let (Some((url, mut client)), Some(postfix)) = (database(), servers::server("POSTFIX")) else {
        return;
    };
    let run = std::process::id();
    let table = format!(
        "CREATE TABLE readers_{run} AS SELECT i AS id, 'reader' || i || '.{run}@bigmail.example' AS email, 'Leser ' || i || ' Müller' AS name FROM generate_series(1, 40) AS i"
    );
    client.batch_execute(&table).unwrap();
    let story = Story::new(url, run, postfix.address.to_string());
    let before = list(&postfix.maildir);
    for attempt in 1..=2 {
        let issue = story.compose("issue-1");
        assert_eq!(story.send(&issue, "issue-1"), Some(0), "attempt {attempt}");
    }
    let got = story.wait_for(&postfix.maildir, &before, 40);
    let (path, message) = &got[0];
    assert!(message.contains("\nDKIM-Signature: "), "{message}");
    assert_eq!(story.verified(path), "True");
    let address = "reader7.";
    let (_, message) = got
        .iter()
        .find(|(_, message)| message.contains(&format!("<{address}")))
        .unwrap();
    let reverse_path = message
        .lines()
        .find_map(|line| line.strip_prefix("Return-Path: <")?.strip_suffix('>'))
        .unwrap();
    story.bounce(reverse_path);
    let before = list(&postfix.maildir);
    let issue = story.compose("issue-2");
    assert_eq!(story.send(&issue, "issue-2"), Some(0));
    let got = story.wait_for(&postfix.maildir, &before, 39);
    assert!(
        got.iter()
            .all(|(_, message)| !message.contains(&format!("<{address}")))
    );
}

struct Story {
    place: tempfile::TempDir,
    url: String,
    run: u32,
    relay: String,
    record: String,
}

const PATTERN: &str = "bounces+{token}@sender.test";

impl Story {
    fn new(url: String, run: u32, relay: String) -> Story {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let key = place.path().join("token.key");
        std::fs::write(&key, "a secret of the tests, long enough").unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let name = ["--domain", "sender.test", "--selector", "s1"];
        let keygen = [
            &["dkim", "keygen", "--type", "ed25519", "--out", "dkim.pem"],
            &name[..],
        ]
        .concat();
        let made = mailer(place.path(), &keygen);
        assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
        let record: String = text(&made.stdout).split('"').nth(1).unwrap().to_owned();
        let config = format!(
            "[[dkim]]\ndomain = \"sender.test\"\nselector = \"s1\"\nkey = {:?}\n",
            place.path().join("dkim.pem")
        );
        std::fs::write(place.path().join("mailer.toml"), config).unwrap();
        std::fs::write(place.path().join("bounced.csv"), "").unwrap();
        let template = "From: Zeitung <news@sender.test>\nTo: {{ name }} <{{ email }}>\nSubject: Grüße, {{ name }}\nList-Unsubscribe: <https://sender.test/u/{{ token }}>\n\n# Grüße, {{ name }}\n";
        std::fs::write(place.path().join("letter.md"), template).unwrap();
        Story {
            place,
            url,
            run,
            relay,
            record,
        }
    }

    fn mailer(&self, arguments: &[&str]) -> Output {
        mailer(self.place.path(), arguments)
    }

    fn compose(&self, job: &str) -> String {
        let query = format!("SELECT email, name FROM readers_{} ORDER BY id", self.run);
        let file = format!("{job}.mbox");
        let tokens = [
            "--token-key",
            "token.key",
            "--tokens",
            "tokens.csv",
            "--verp",
            PATTERN,
        ];
        let data = [
            "compose",
            "letter.md",
            "--postgres",
            &self.url,
            "--query",
            &query,
        ];
        let made = self.mailer(&[&data[..], &tokens, &["--job", job, "--out", &file]].concat());
        assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
        file
    }

    fn send(&self, batch: &str, job: &str) -> Option<i32> {
        let how = [
            "--relay",
            &self.relay,
            "--tls",
            "none",
            "--allow-loopback",
            "--config",
            "mailer.toml",
        ];
        let what = ["send", batch, "--job", job, "--suppress", "bounced.csv"];
        let sent = self.mailer(&[&what[..], &how].concat());
        assert!(sent.stdout.is_empty(), "{}", text(&sent.stderr));
        sent.status.code()
    }

    /// The messages that came since `before`: exactly so many, with this run's recipients.
    fn wait_for(
        &self,
        maildir: &Path,
        before: &[std::path::PathBuf],
        count: usize,
    ) -> Vec<(std::path::PathBuf, String)> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let ours = format!(".{}@bigmail.example", self.run);
        loop {
            let new = list(maildir)
                .into_iter()
                .filter(|path| !before.contains(path));
            let read =
                new.filter_map(|path| Some((path.clone(), std::fs::read_to_string(path).ok()?)));
            let got: Vec<_> = read
                .filter(|(_, message)| message.contains(&ours))
                .collect();
            assert!(
                got.len() <= count,
                "{} came, and {count} were sent",
                got.len()
            );
            if got.len() == count {
                return got;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "only {} came",
                got.len()
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// What dkimpy says of the signature.
    fn verified(&self, message: &Path) -> String {
        let python = servers::variable("DKIM_PYTHON").unwrap();
        let records = self.place.path().join("records");
        std::fs::write(
            &records,
            format!("s1._domainkey.sender.test {}\n", self.record),
        )
        .unwrap();
        // As it travelled, without what the receiving server put before it.
        let read = std::fs::read_to_string(message).unwrap();
        let at = read.find("\nDKIM-Signature: ").unwrap() + 1;
        let bare = self.place.path().join("signed.eml");
        std::fs::write(&bare, read[at..].replace('\n', "\r\n")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/servers.d/dkim_verify.py");
        let output = Command::new(python)
            .arg(script)
            .arg(records)
            .arg(bare)
            .output()
            .unwrap();
        let said = text(&output.stdout);
        said.split_whitespace()
            .last()
            .unwrap_or_default()
            .to_owned()
    }

    /// A bounce comes back to `reverse_path`, and is put on the list.
    fn bounce(&self, reverse_path: &str) {
        let model =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bounces/postfix-unknown.eml");
        let bounce = std::fs::read_to_string(model).unwrap();
        let bounce = bounce.replace("bounces+ann=old.example@news.example", reverse_path);
        std::fs::write(self.place.path().join("bounce.eml"), bounce).unwrap();
        let who = [
            "--verp",
            PATTERN,
            "--tokens",
            "tokens.csv",
            "--add-to",
            "bounced.csv",
        ];
        let read = self.mailer(&[&["bounces", "bounce.eml"], &who[..]].concat());
        assert_eq!(read.status.code(), Some(0), "{}", text(&read.stderr));
        let list = std::fs::read_to_string(self.place.path().join("bounced.csv")).unwrap();
        assert!(
            list.starts_with(&format!("reader7.{}@bigmail.example,", self.run)),
            "{list}"
        );
    }
}

fn list(maildir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(maildir.join("new")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The fixtures of mail merge as an mbox in `place`.
fn newsletter(place: &Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let merge = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/merge");
    let file = |name: &str| merge.join(name).to_str().unwrap().to_owned();
    let key = place.join("key");
    std::fs::write(&key, "a secret of the tests, long enough").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let data = ["compose", &file("letter.md"), "--data", &file("people.csv")];
    let more = [
        "--token-key",
        "key",
        "--job",
        "weekly",
        "--out",
        "batch.mbox",
    ];
    let made = mailer(place, &[&data[..], &more].concat());
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    std::fs::read_to_string(place.join("batch.mbox")).unwrap()
}

/// Python's own parser, which nobody here wrote, sees what was meant.
#[test]
fn python_reads_what_is_composed() {
    let Some(python) = servers::variable("DKIM_PYTHON") else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    newsletter(place.path());
    let script = "
import email.policy, mailbox, email
box = mailbox.mbox('batch.mbox', factory=lambda file: email.message_from_binary_file(file, policy=email.policy.default))
for message in box:
    to = message['To'].addresses
    print(len(box), [(one.display_name, one.addr_spec) for one in to], message['Subject'], [part.get_content_type() for part in message.walk()], message.defects, message.get_body(('html',)).get_content().count('<h1>Hello'))
";
    let output = Command::new(python)
        .args(["-I", "-c", script])
        .current_dir(place.path())
        .env("PYTHONIOENCODING", "utf-8")
        .output()
        .unwrap();
    let said = text(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{}", text(&output.stderr));
    let parts = "['multipart/alternative', 'text/plain', 'multipart/related', 'text/html', 'image/png'] [] 1";
    let want = format!(
        "3 [('Jörg Müller, jun.', 'joerg@two.example')] Jörg Müller, jun., your news of the week {parts}"
    );
    assert_eq!(lines[1], want);
}

/// mblaze, which a third hand wrote, sees the same parts.
#[test]
fn mblaze_reads_what_is_composed() {
    let Some(mshow) = servers::variable("MSHOW") else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let mbox = newsletter(place.path());
    let second = mbox.split("\nFrom news@example.org ").nth(1).unwrap();
    let message = second.split_once('\n').unwrap().1;
    std::fs::write(place.path().join("second.eml"), message).unwrap();
    let output = Command::new(mshow)
        .args(["-t", "./second.eml"])
        .current_dir(place.path())
        .output()
        .unwrap();
    let said = text(&output.stdout);
    let kinds: Vec<&str> = said
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    let want = [
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
    ];
    assert_eq!(kinds, want, "{said} {}", text(&output.stderr));
}
