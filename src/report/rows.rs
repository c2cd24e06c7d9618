//! The report: CSV, one row per recipient, in input order.
//!
//! Columns as in the README. A recipient that nobody tried has empty columns after `status`. Fields are quoted as
//! RFC 4180 asks; reply texts were made printable when their verdicts were made, so none can forge a row.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use crate::ledger::{Attempt, Outcome};
use crate::mail::verdict::printable_text;

/// The header line.
pub const COLUMNS: [&str; 16] = [
    "message",
    "recipient",
    "status",
    "code",
    "enhanced",
    "class",
    "stage",
    "mx",
    "ip",
    "tls",
    "queue",
    "attempts",
    "first_attempt",
    "last_attempt",
    "ms",
    "reply",
];

/// One row.
#[derive(Debug)]
pub struct Row<'a> {
    /// The message's ordinal, from 1.
    pub message: u64,
    /// The recipient as the batch names it.
    pub recipient: &'a str,
    /// What became of it.
    pub outcome: &'a Outcome,
    /// The name of the queue that handled it last.
    pub queue: &'a str,
}

/// Writes a report.
#[derive(Debug)]
pub struct Report<W: Write> {
    csv: csv::Writer<W>,
    /// The field under way, and the latest time that was written: neighbours often have the same.
    field: String,
    stamp: (i64, String),
}

impl<W: Write> Report<W> {
    /// Starts a report: writes the header line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(out: W) -> io::Result<Report<W>> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(COLUMNS).map_err(io_error)?;
        Ok(Report {
            csv,
            field: String::new(),
            stamp: (i64::MIN, String::new()),
        })
    }

    /// Writes a row.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn row(&mut self, row: &Row<'_>) -> io::Result<()> {
        self.shown(row.message)?;
        self.text(&printable_text(row.recipient, 1000))?;
        self.text(row.outcome.status.name())?;
        match &row.outcome.last {
            Some(last) => self.attempt(row, last)?,
            None => (3..COLUMNS.len()).try_for_each(|_| self.text(""))?,
        }
        self.csv.write_record(None::<&[u8]>).map_err(io_error)
    }

    /// The columns after `status`.
    fn attempt(&mut self, row: &Row<'_>, last: &Attempt) -> io::Result<()> {
        let verdict = &last.verdict;
        match verdict.code {
            0 => self.text("")?,
            code => self.shown(code)?,
        }
        self.shown_if(verdict.enhanced)?;
        self.text(verdict.scope.name())?;
        self.text(verdict.stage.name())?;
        self.text(&last.via.mx)?;
        self.shown_if(last.via.ip)?;
        self.text(&last.via.tls)?;
        self.text(row.queue)?;
        self.shown(last.attempts())?;
        self.time(row.outcome.first_at.unwrap_or(last.at))?;
        self.time(last.at)?;
        self.shown(last.took_ms)?;
        self.text(&verdict.text)
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.csv.write_field(text).map_err(io_error)
    }

    fn shown(&mut self, value: impl fmt::Display) -> io::Result<()> {
        self.field.clear();
        // Nothing that is shown here fails to say what it is.
        let _ = write!(self.field, "{value}");
        self.csv.write_field(&self.field).map_err(io_error)
    }

    fn shown_if(&mut self, value: Option<impl fmt::Display>) -> io::Result<()> {
        match value {
            Some(value) => self.shown(value),
            None => self.text(""),
        }
    }

    /// RFC 3339, UTC, milliseconds.
    fn time(&mut self, millis: i64) -> io::Result<()> {
        if self.stamp.0 != millis {
            self.stamp = (millis, timestamp(millis));
        }
        self.csv.write_field(&self.stamp.1).map_err(io_error)
    }

    /// Writes out what is buffered, and hands back where it was written to.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> io::Result<W> {
        self.csv
            .into_inner()
            .map_err(|error| io::Error::new(error.error().kind(), error.error().to_string()))
    }
}

fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn timestamp(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map(|at| format!("{at:.3}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Via;
    use crate::mail::{Passage, QueueId, Status};

    fn written(outcome: &Outcome, recipient: &str) -> String {
        let mut bytes = Vec::new();
        let mut report = Report::begin(&mut bytes).unwrap();
        report
            .row(&Row {
                message: 7,
                recipient,
                outcome,
                queue: "general",
            })
            .unwrap();
        report.finish().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_row_has_all_columns_in_their_order() {
        let text = "5.1.1 <a@b.test>: \"no\", such\r\nuser";
        let via = Via {
            mx: "mx.b.test".into(),
            ip: "127.0.0.2".parse().ok(),
            ..Via::none(QueueId(0))
        };
        let last = Attempt {
            passage: Passage {
                attempts: 1,
                host_failures: 1,
                in_doubt: false,
            },
            at: 1_700_000_000_500,
            took_ms: 12,
            ..Attempt::refused(text, via)
        };
        let outcome = Outcome {
            status: Status::Refused,
            first_at: Some(1_700_000_000_000),
            last: Some(last),
        };
        let expected = "message,recipient,status,code,enhanced,class,stage,mx,ip,tls,queue,attempts,first_attempt,last_attempt,ms,reply\n\
            7,a@b.test,refused,550,5.1.1,recipient,rcpt,mx.b.test,127.0.0.2,,general,2,2023-11-14T22:13:20.000Z,2023-11-14T22:13:20.500Z,12,\
            \"5.1.1 <a@b.test>: \"\"no\"\", such??user\"\n";
        assert_eq!(written(&outcome, "a@b.test"), expected);
    }

    #[test]
    fn an_untried_recipient_has_a_full_row_too() {
        let outcome = Outcome {
            status: Status::Queued,
            first_at: None,
            last: None,
        };
        assert!(
            written(&outcome, "a\u{1b}@b.test").ends_with("\n7,a?@b.test,queued,,,,,,,,,,,,,\n")
        );
    }
}
