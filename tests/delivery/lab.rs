//! The laboratory: a receiver, a DNS server, a scratch directory, and the program running against them.
//!
//! A [`Program`] that is not waited for is killed, and one that does not end is too: no test leaves a process or hangs.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mailer::sink::dns::DnsServer;
use mailer::sink::{Sink, SinkConfig, Stats, zone_text};
use serde::Deserialize;

use crate::batch::{Batch, number_of};

/// How long anything may take before the test gives up. Machines that run tests can be very busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Retries soon enough for a test.
pub const SOON: [&str; 4] = ["--retry-min", "100ms", "--retry-max", "1s"];

/// One row of the report.
#[derive(Deserialize, Clone, Debug)]
pub struct Row {
    pub message: u64,
    pub recipient: String,
    pub status: String,
    pub code: String,
    pub enhanced: String,
    pub class: String,
    pub stage: String,
    pub mx: String,
    pub ip: String,
    pub tls: String,
    pub queue: String,
    pub attempts: String,
    pub first_attempt: String,
    pub last_attempt: String,
    pub reply: String,
}

/// What a run came to.
pub struct Ended {
    pub status: Option<i32>,
    pub rows: Vec<Row>,
    pub stderr: String,
}

impl Ended {
    /// The row of the only or first recipient with this address.
    #[track_caller]
    pub fn row(&self, recipient: &str) -> &Row {
        let row = self.rows.iter().find(|row| row.recipient == recipient);
        row.unwrap_or_else(|| panic!("no {recipient} in {:#?}", self.rows))
    }

    /// How many rows have this status.
    pub fn count(&self, status: &str) -> usize {
        self.rows.iter().filter(|row| row.status == status).count()
    }

    /// Message number and recipient of the rows that are delivered, sorted.
    pub fn delivered(&self) -> Vec<(u64, String)> {
        self.pairs(&["delivered"])
    }

    /// Message number and recipient of the rows with one of these statuses, sorted.
    pub fn pairs(&self, statuses: &[&str]) -> Vec<(u64, String)> {
        let wanted = |row: &&Row| statuses.contains(&row.status.as_str());
        let rows = self.rows.iter().filter(wanted);
        let mut pairs: Vec<_> = rows
            .map(|row| (row.message, row.recipient.clone()))
            .collect();
        pairs.sort();
        pairs
    }

    /// The rows that are not delivered at the first attempt, for messages.
    pub fn odd(&self) -> String {
        let odd = |row: &&Row| row.status != "delivered" || row.attempts != "1";
        let rows = self.rows.iter().filter(odd).take(10);
        rows.map(|row| format!("{row:?}\n")).collect()
    }

    /// Asserts the exit status, and that nothing panicked.
    #[track_caller]
    pub fn assert_status(&self, status: i32) {
        assert_eq!(
            self.status,
            Some(status),
            "{}\n{:#?}",
            self.stderr,
            self.rows
        );
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

/// Receiver, DNS server, scratch directory.
pub struct Lab {
    pub sink: Sink,
    pub dns: DnsServer,
    directory: tempfile::TempDir,
}

impl Lab {
    /// A laboratory with this zone and receiver.
    pub fn new(zone: &str, config: SinkConfig) -> Lab {
        let sink = Sink::start(config).unwrap();
        Lab {
            sink,
            dns: DnsServer::start(zone_text::parse(zone).unwrap()).unwrap(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// One whose receiver keeps what it takes, and obeys these rules. Every domain has hosts of its own.
    pub fn with_rules(rules: &[&str]) -> Lab {
        Lab::new("SYNTHETIC", keeping(rules))
    }

    /// The path of a file in the scratch directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file into the scratch directory.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Delivers a batch, and waits for the end of it.
    pub fn send(&self, batch: &Batch, arguments: &[&str]) -> Ended {
        self.start(batch, arguments).wait()
    }

    /// Delivers a batch that was begun before, as it lies there.
    pub fn send_again(&self, arguments: &[&str]) -> Ended {
        self.start_with(arguments, &[&self.path("batch.mbox")])
            .wait()
    }

    /// Delivers the same batch while another run may be under way, with a report of its own.
    pub fn beside(&self, arguments: &[&str]) -> Ended {
        let mut program = self.start_with(arguments, &[&self.path("batch.mbox")]);
        program.report = self.path("none.csv");
        program.wait()
    }

    /// Goes on with jobs; what the receiver is and how it is reached is what the jobs remember.
    pub fn resume(&self, arguments: &[&str]) -> Ended {
        let report = self.path("report.csv");
        let _ = std::fs::remove_file(&report);
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailer"));
        command
            .args(["resume", "--state"])
            .arg(self.path("state"))
            .args(arguments)
            .env("XDG_CONFIG_HOME", "/proc/nope")
            .env("HOME", "/proc/nope");
        Program::start(command, report).wait()
    }

    /// Delivers what is written to standard input.
    pub fn pipe(&self, batch: &Batch, arguments: &[&str]) -> Ended {
        let mut program = self.start_with(&[&["-"], arguments].concat(), &[]);
        program.write(batch.bytes());
        program.wait()
    }

    /// A new receiver in place of the one before, on another port, so that nothing is left of what that one knew.
    pub fn replace_receiver(&mut self, rules: &[&str]) {
        self.sink = Sink::start(keeping(rules)).unwrap();
    }

    /// The directories of the jobs, oldest first.
    pub fn jobs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("state/jobs")).unwrap();
        let mut jobs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        jobs.sort();
        jobs
    }

    /// A whole number that the ledger of the only job answers to a question in SQL.
    pub fn ask_ledger(&self, question: &str) -> i64 {
        let jobs = self.jobs();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        let ledger = rusqlite::Connection::open(jobs[0].join("ledger.sqlite")).unwrap();
        ledger.query_row(question, [], |row| row.get(0)).unwrap()
    }

    /// Begins to deliver a batch.
    pub fn start(&self, batch: &Batch, arguments: &[&str]) -> Program {
        let path = self.file("batch.mbox", batch.bytes());
        self.start_with(arguments, &[&path])
    }

    /// Begins to deliver these files and what is written to standard input if there are none.
    pub fn start_with(&self, arguments: &[&str], paths: &[&Path]) -> Program {
        let allowed = [&["--allow-loopback"], arguments].concat();
        self.start_without_loopback(&allowed, paths)
    }

    /// The same, but loopback addresses are no mail hosts.
    pub fn start_without_loopback(&self, arguments: &[&str], paths: &[&Path]) -> Program {
        self.start_in(&[], arguments, paths)
    }

    /// The same with these variables in its environment.
    pub fn start_in(
        &self,
        environment: &[(&str, &str)],
        arguments: &[&str],
        paths: &[&Path],
    ) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailer"));
        command.envs(environment.iter().copied());
        self.start_by(command, arguments, paths)
    }

    /// Delivers a batch that the program reads from standard input, after the shell has run `limits`.
    pub fn send_limited(&self, limits: &str, batch: &Batch, arguments: &[&str]) -> Ended {
        let script = format!("{limits}; exec \"$0\" \"$@\" <\"$BATCH\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_mailer")])
            .env("BATCH", self.file("batch.mbox", batch.bytes()));
        let allowed = [&["--allow-loopback"], arguments].concat();
        self.start_by(command, &allowed, &[]).wait()
    }

    fn start_by(&self, mut command: Command, arguments: &[&str], paths: &[&Path]) -> Program {
        let report = self.path("report.csv");
        let _ = std::fs::remove_file(&report);
        command
            .args(["send", "--dns", &self.dns.address().to_string()])
            .args(["--port", &self.sink.port().to_string()])
            .arg("--state")
            .arg(self.path("state"))
            .arg("--report")
            .arg(&report)
            .args(["--hello", "client.test"])
            .args(arguments)
            .args(paths)
            .env("XDG_CONFIG_HOME", "/proc/nope")
            .env("HOME", "/proc/nope");
        Program::start(command, report)
    }

    /// Asserts that the receivers took exactly what is reported as delivered, each mail once, and saw no breach of
    /// the protocol.
    #[track_caller]
    pub fn assert_agrees(&self, ended: &Ended) {
        assert_eq!(self.received(), ended.delivered());
        self.assert_clean();
    }

    /// Asserts that nobody got a message twice and the protocol was kept.
    #[track_caller]
    pub fn assert_clean(&self) {
        let stats = self.sink.stats();
        assert_eq!(stats.duplicates, Some(0), "{stats}");
        assert_eq!(stats.violations_total(), 0, "{stats}");
    }

    /// Asserts that everybody was delivered to, and that the receivers agree.
    #[track_caller]
    pub fn assert_all_delivered(&self, ended: &Ended, recipients: usize) {
        ended.assert_status(0);
        assert_eq!(ended.count("delivered"), recipients, "{}", ended.odd());
        self.assert_agrees(ended);
    }

    /// Message number and recipient of all that was taken, sorted.
    pub fn received(&self) -> Vec<(u64, String)> {
        let mut pairs = Vec::new();
        for message in self.sink.messages() {
            let number = number_of(&message.content);
            pairs.extend(message.recipients.into_iter().map(|one| (number, one)));
        }
        pairs.sort();
        pairs
    }

    /// Waits until the receiver's counters fulfil a condition.
    #[track_caller]
    pub fn wait_until(&self, condition: impl Fn(&Stats) -> bool) {
        let fulfilled = self.sink.wait_until(condition, PATIENCE);
        assert!(fulfilled, "{}", self.sink.stats());
    }
}

/// As many sessions as are allowed from the start, however little mail waits: for tests that are about something else than how a
/// site's number of sessions is found.
pub const AT_ONCE: &str = include_str!("at_once.toml");

/// The same by a flag.
pub const BY_FLAG: [&str; 2] = [
    "--config",
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/delivery/at_once.toml"),
];

/// Four workers that may all serve one site from the start.
pub const FOUR: [&str; 4] = [BY_FLAG[0], BY_FLAG[1], "--max-workers", "4"];

/// A receiver that keeps what it takes, and obeys these rules.
pub fn keeping(rules: &[&str]) -> SinkConfig {
    SinkConfig {
        rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        ..SinkConfig::keeping()
    }
}

/// The program under test, running.
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stderr: Option<JoinHandle<String>>,
    report: PathBuf,
}

impl Program {
    fn start(mut command: Command, report: PathBuf) -> Program {
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Program {
            stdin: child.stdin.take(),
            child,
            stderr: Some(reader),
            report,
        }
    }

    /// Writes to its standard input.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes.as_ref()).unwrap();
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Asks it to read its limits again.
    pub fn reload(&self) {
        self.signal("HUP");
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let told = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(told.success());
    }

    /// Asks it to stop until it does: signals that come at once are one.
    pub fn terminate_for_good(mut self) -> Ended {
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "it does not stop");
            self.terminate();
            std::thread::park_timeout(Duration::from_millis(50));
        }
        self.wait()
    }

    /// Closes its standard input, waits for its end, and reads the report.
    pub fn wait(mut self) -> Ended {
        drop(self.stdin.take());
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::park_timeout(Duration::from_millis(5));
        };
        let stderr = self.stderr.take().unwrap().join().unwrap();
        // A run that never begins makes no report, and must not be credited with the one before it.
        let report = std::fs::read(&self.report).unwrap_or_default();
        let rows = csv::Reader::from_reader(&report[..])
            .into_deserialize()
            .map(|row| row.unwrap())
            .collect();
        Ended {
            status: status.code(),
            rows,
            stderr,
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // After `wait` it has ended and both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
