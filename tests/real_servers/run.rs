//! Runs `mailer send` as a user would, with a state directory and a report of its own, and reads the report.

use std::fmt;
use std::time::Duration;

use super::expected::normal;

/// Far longer than any of these runs takes; a run that hangs is a failure, not a hung test.
const PATIENCE: Duration = Duration::from_secs(180);

/// Flags for sessions in the clear, whatever the server offers.
pub const CLEAR: &[&str] = &["--tls", "none"];

/// The columns of the report that are compared.
#[derive(Debug)]
pub struct Row {
    /// Number of the message, from 1.
    pub message: u32,
    /// The recipient, normalised like the expected one.
    pub recipient: String,
    /// What became of it.
    pub status: String,
    /// The reply code, "" if there was no reply.
    pub code: String,
    /// The enhanced status code.
    pub enhanced: String,
    /// Who is hurt.
    pub class: String,
    /// Where it became known.
    pub stage: String,
    /// The host that answered.
    pub mx: String,
    /// Protocol and cipher of the session, "" in the clear.
    pub tls: String,
    /// Its reply.
    pub reply: String,
}

/// A run that ended.
pub struct Run {
    /// The exit status.
    pub status: i32,
    /// What was printed for people.
    pub stderr: String,
    /// The report.
    pub rows: Vec<Row>,
}

/// Sends the batches with these flags.
pub fn send(batches: &[&str], flags: &[&str]) -> Run {
    let place = tempfile::tempdir().expect("a directory for the run");
    let report = place.path().join("report.csv");
    let output = assert_cmd::Command::new(env!("CARGO_BIN_EXE_mailer"))
        .arg("send")
        .args(batches)
        .args(flags)
        .arg("--hello")
        .arg("client.test")
        .arg("--state")
        .arg(place.path().join("state"))
        .arg("--report")
        .arg(&report)
        // Nobody's own configuration may have a say.
        .env("XDG_CONFIG_HOME", place.path())
        .timeout(PATIENCE)
        .output()
        .expect("mailer runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = output
        .status
        .code()
        .unwrap_or_else(|| panic!("mailer was killed (by the time limit?): {stderr}"));
    let rows = csv::Reader::from_path(&report)
        .map(|reader| read(reader, &stderr))
        .unwrap_or_default();
    Run {
        status,
        stderr,
        rows,
    }
}

fn read(mut reader: csv::Reader<std::fs::File>, stderr: &str) -> Vec<Row> {
    let names = reader.headers().expect("a header row").clone();
    let column = |name: &str| {
        names
            .iter()
            .position(|n| n == name)
            .unwrap_or_else(|| panic!("column {name}: {stderr}"))
    };
    let wanted = [
        "message",
        "recipient",
        "status",
        "code",
        "enhanced",
        "class",
        "stage",
        "mx",
        "tls",
        "reply",
    ]
    .map(column);
    let record = |record: Result<csv::StringRecord, csv::Error>| {
        let record = record.expect("a CSV record");
        let [
            message,
            recipient,
            status,
            code,
            enhanced,
            class,
            stage,
            mx,
            tls,
            reply,
        ] = wanted.map(|at| record[at].to_owned());
        let message = message.parse().expect("a message number");
        Row {
            message,
            recipient: normal(&recipient),
            status,
            code,
            enhanced,
            class,
            stage,
            mx,
            tls,
            reply,
        }
    };
    reader.records().map(record).collect()
}

impl fmt::Display for Run {
    /// What one wants to see of a run that went wrong: status, stderr, and the first rows that were not delivered.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "exit status {}, {} rows; stderr: {}",
            self.status,
            self.rows.len(),
            self.stderr
        )?;
        for row in self
            .rows
            .iter()
            .filter(|row| row.status != "delivered")
            .take(5)
        {
            writeln!(f, "{row:?}: {}", row.reply)?;
        }
        Ok(())
    }
}
