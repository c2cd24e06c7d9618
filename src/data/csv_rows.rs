//! Rows of a CSV file (RFC 4180), names in its first line.

use std::io::{BufReader, Read};
use std::sync::Arc;

use csv::{ByteRecord, ReaderBuilder, Trim};
use encoding_rs::Encoding;
use encoding_rs_io::DecodeReaderBytesBuilder;
use serde_json::Value as Json;

use super::metered::{Allowance, Metered};
use super::{BadRow, DataError, Placed, Rows};
use crate::merge::{Columns, Row, RowError};

/// The delimiters that are looked for.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// The first line is looked for in so many bytes.
const HEAD_BYTES: usize = 64 * 1024;

type Input = Box<dyn Read>;

pub(super) struct CsvRows {
    name: String,
    reader: csv::Reader<Metered<Input>>,
    allowance: Allowance,
    columns: Arc<Columns>,
    record: ByteRecord,
    number: u64,
    /// Where lines end in CR LF a record begins, for its reader, before the LF: a line early.
    lines_late: u64,
}

impl CsvRows {
    pub(super) fn open(
        name: String,
        input: Input,
        delimiter: Option<u8>,
        encoding: Option<&str>,
    ) -> Result<CsvRows, DataError> {
        let encoding = match encoding {
            None => None,
            Some(label) => Some(Encoding::for_label(label.as_bytes()).ok_or_else(|| {
                let what =
                    format!("there is no encoding `{label}`; write for instance windows-1252");
                DataError::source(&name, what)
            })?),
        };
        let mut decoded = BufReader::new(
            DecodeReaderBytesBuilder::new()
                .encoding(encoding)
                // What is not UTF-8 comes to light in its row instead of becoming question marks.
                .utf8_passthru(true)
                .strip_bom(true)
                .bom_override(true)
                .build(input),
        );
        let mut head = Vec::new();
        let head_of = decoded.by_ref().take(HEAD_BYTES as u64);
        first_line(head_of, &mut head).map_err(|error| DataError::source(&name, error))?;
        let delimiter = delimiter.unwrap_or_else(|| likely_delimiter(&head));
        let lines_late = u64::from(head.ends_with(b"\r\n"));
        let allowance = Allowance::new();
        let metered = Metered {
            inner: Box::new(std::io::Cursor::new(head).chain(decoded)) as Input,
            allowance: allowance.clone(),
        };
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .trim(Trim::Headers)
            .from_reader(metered);
        let columns = columns(&name, &mut reader)?;
        Ok(CsvRows {
            name,
            reader,
            allowance,
            columns: Arc::new(columns),
            record: ByteRecord::new(),
            number: 0,
            lines_late,
        })
    }

    fn row(&self) -> Result<Row, RowError> {
        let mut values = Vec::with_capacity(self.record.len());
        for (at, bytes) in self.record.iter().enumerate() {
            let text = std::str::from_utf8(bytes).map_err(|_| {
                let what = "it is not UTF-8; say what it is, as in --encoding windows-1252";
                let name = self.columns.names().get(at);
                RowError::of(name.map_or("", |name| name), what)
            })?;
            values.push(value(text));
        }
        Ok(Row {
            columns: Arc::clone(&self.columns),
            values,
            number: self.number,
        })
    }
}

impl Rows for CsvRows {
    fn next_row(&mut self) -> Result<Option<Placed>, DataError> {
        self.allowance.renew();
        let outcome = self.reader.read_byte_record(&mut self.record);
        if matches!(outcome, Ok(false)) {
            return Ok(None);
        }
        self.number += 1;
        let number = self.number;
        let line = self.record.position().map_or(0, csv::Position::line) + self.lines_late;
        let bad = |line, error| {
            DataError::Row(BadRow {
                number,
                line,
                error,
            })
        };
        match outcome {
            Ok(_) => match self.row() {
                Ok(row) => Ok(Some(Placed { row, line })),
                Err(error) => Err(bad(line, error)),
            },
            Err(error) => match error.kind() {
                csv::ErrorKind::UnequalLengths {
                    pos,
                    expected_len,
                    len,
                } => {
                    let line = pos.as_ref().map_or(0, csv::Position::line) + self.lines_late;
                    let what = format!(
                        "it has {len} values, and the first line names {expected_len} columns"
                    );
                    Err(bad(line, RowError::new(what)))
                }
                _ => Err(DataError::source(&self.name, error)),
            },
        }
    }

    fn columns(&self) -> Option<&Arc<Columns>> {
        Some(&self.columns)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// A number that is written as numbers are printed is one, so that templates can compare it; everything else is text, as
/// `007` or `12.50` is. It looks the same in the message either way.
fn value(text: &str) -> Json {
    let begins = text.strip_prefix('-').unwrap_or(text);
    let is_numeric = (1..=15).contains(&begins.len())
        && begins
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_numeric
        && let Ok(number) = serde_json::from_str::<serde_json::Number>(text)
        && number.to_string() == text
    {
        return Json::Number(number);
    }
    Json::String(text.to_owned())
}

fn first_line(mut input: impl Read, head: &mut Vec<u8>) -> std::io::Result<()> {
    let mut byte = [0];
    while input.read(&mut byte)? == 1 {
        head.push(byte[0]);
        if byte[0] == b'\n' {
            break;
        }
    }
    Ok(())
}

fn likely_delimiter(line: &[u8]) -> u8 {
    let mut counts = [0usize; DELIMITERS.len()];
    let mut in_quotes = false;
    for byte in line {
        in_quotes ^= *byte == b'"';
        if let Some(at) = DELIMITERS.iter().position(|known| known == byte)
            && !in_quotes
        {
            counts[at] += 1;
        }
    }
    let most = counts.iter().max().copied().unwrap_or(0);
    let found = counts.iter().position(|count| *count == most);
    DELIMITERS[found.unwrap_or(0)]
}

fn columns(name: &str, reader: &mut csv::Reader<Metered<Input>>) -> Result<Columns, DataError> {
    let header = reader
        .byte_headers()
        .map_err(|error| DataError::source(name, error))?;
    let mut names = Vec::with_capacity(header.len());
    for bytes in header {
        let text = std::str::from_utf8(bytes).map_err(|_| {
            let what = "line 1: the names of the columns are not UTF-8; say what they are, as in --encoding windows-1252";
            DataError::source(name, what)
        })?;
        names.push(text.to_owned());
    }
    if names.iter().all(String::is_empty) {
        return Err(DataError::source(
            name,
            "it is empty: there is no line with the names of the columns",
        ));
    }
    Columns::new(names).map_err(|twice| {
        DataError::source(name, format!("line 1: the column `{twice}` is there twice"))
    })
}
