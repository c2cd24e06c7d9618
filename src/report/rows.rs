//! The report: CSV, one row per recipient, in input order.
//!
//! Columns as in the README. A recipient that nobody tried has empty columns after `status`. Fields are quoted as
//! RFC 4180 asks; reply texts were made printable when their verdicts were made, so none can forge a row.

use std::io::{self, Write};

use crate::ledger::Outcome;

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
}

impl<W: Write> Report<W> {
    /// Starts a report: writes the header line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(out: W) -> io::Result<Report<W>> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(COLUMNS).map_err(io_error)?;
        Ok(Report { csv })
    }

    /// Writes a row.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn row(&mut self, row: &Row<'_>) -> io::Result<()> {
        let message = row.message.to_string();
        let recipient = crate::mail::verdict::printable(row.recipient, 1000);
        let status = row.outcome.status.name();
        let Some(last) = &row.outcome.last else {
            let mut fields = vec![message.as_str(), &recipient, status];
            fields.resize(COLUMNS.len(), "");
            return self.csv.write_record(&fields).map_err(io_error);
        };
        let verdict = &last.verdict;
        let code = if verdict.code == 0 {
            String::new()
        } else {
            verdict.code.to_string()
        };
        let enhanced = verdict
            .enhanced
            .map(|enhanced| enhanced.to_string())
            .unwrap_or_default();
        let ip = last.via.ip.map(|ip| ip.to_string()).unwrap_or_default();
        self.csv
            .write_record([
                &message,
                &recipient,
                status,
                &code,
                &enhanced,
                verdict.scope.name(),
                verdict.stage.name(),
                &last.via.mx,
                &ip,
                &last.via.tls,
                row.queue,
                &last.attempts().to_string(),
                &timestamp(row.outcome.first_at.unwrap_or(last.at)),
                &timestamp(last.at),
                &last.took_ms.to_string(),
                &verdict.text,
            ])
            .map_err(io_error)
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

/// RFC 3339, UTC, milliseconds.
fn timestamp(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map(|at| format!("{at:.3}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Attempt, Via};
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
