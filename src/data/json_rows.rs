//! Rows of JSON lines: an object a line, each with names of its own. Empty lines are no rows.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use serde_json::Value as Json;

use super::{BadRow, DataError, Placed, ROW_BYTES_MAX, Rows};
use crate::merge::{Columns, Row, RowError};

pub(super) struct JsonRows {
    name: String,
    input: BufReader<Box<dyn Read>>,
    /// Those of the row before: mostly they are the same.
    columns: Arc<Columns>,
    text: Vec<u8>,
    number: u64,
    line: u64,
}

impl JsonRows {
    pub(super) fn new(name: String, input: Box<dyn Read>) -> JsonRows {
        JsonRows {
            name,
            input: BufReader::new(input),
            columns: Arc::default(),
            text: Vec::new(),
            number: 0,
            line: 0,
        }
    }

    /// Reads a line that is not empty. False at the end.
    fn next_line(&mut self) -> Result<bool, DataError> {
        loop {
            self.text.clear();
            let mut limited = self.input.by_ref().take(ROW_BYTES_MAX as u64 + 1);
            let read = limited.read_until(b'\n', &mut self.text);
            let len = read.map_err(|error| DataError::source(&self.name, error))?;
            if len == 0 {
                return Ok(false);
            }
            self.line += 1;
            if len > ROW_BYTES_MAX {
                let what = format!("line {}: it has more than 16 MiB", self.line);
                return Err(DataError::source(&self.name, what));
            }
            if self.line == 1 && self.text.starts_with(b"\xef\xbb\xbf") {
                self.text.drain(..3);
            }
            if !self.text.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn row(&mut self) -> Result<Row, RowError> {
        let object: serde_json::Map<String, Json> = serde_json::from_slice(&self.text)
            .map_err(|error| RowError::new(format!("it is no JSON object: {error}")))?;
        let same = self.columns.names().len() == object.len()
            && object
                .keys()
                .zip(self.columns.names())
                .all(|(key, name)| key == &**name);
        if !same {
            let columns = Columns::new(object.keys().cloned());
            let twice = |name: String| RowError::of(&name, "it is there twice");
            self.columns = Arc::new(columns.map_err(twice)?);
        }
        Ok(Row {
            columns: Arc::clone(&self.columns),
            values: object.into_iter().map(|(_, value)| value).collect(),
            number: self.number,
        })
    }
}

impl Rows for JsonRows {
    fn next_row(&mut self) -> Result<Option<Placed>, DataError> {
        if !self.next_line()? {
            return Ok(None);
        }
        self.number += 1;
        let (number, line) = (self.number, self.line);
        match self.row() {
            Ok(row) => Ok(Some(Placed { row, line })),
            Err(error) => Err(DataError::Row(BadRow {
                number,
                line,
                error,
            })),
        }
    }

    fn columns(&self) -> Option<&Arc<Columns>> {
        None
    }

    fn name(&self) -> &str {
        &self.name
    }
}
