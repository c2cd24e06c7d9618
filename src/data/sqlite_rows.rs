//! Rows of a query to a SQLite database, which is opened for reading only.
//!
//! Known limit: connection and statement are kept until the process ends, since the rows borrow from both.

use std::path::Path;
use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value as Json;

use super::{BadRow, DataError, Placed, Rows};
use crate::merge::{Columns, Row, RowError};

pub(super) struct SqliteRows {
    name: String,
    rows: rusqlite::Rows<'static>,
    columns: Arc<Columns>,
    number: u64,
}

impl SqliteRows {
    pub(super) fn open(path: &Path, query: &str) -> Result<SqliteRows, DataError> {
        let name = path.display().to_string();
        let wrong = |error: rusqlite::Error| DataError::source(&name, error);
        path.metadata()
            .map_err(|error| DataError::missing(&name, &error))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(wrong)?;
        connection
            .busy_timeout(std::time::Duration::from_secs(10))
            .map_err(wrong)?;
        let connection: &'static Connection = Box::leak(Box::new(connection));
        let statement = Box::leak(Box::new(connection.prepare(query).map_err(wrong)?));
        let names = statement.column_names().map(str::to_owned);
        let columns = Columns::new(names).map_err(|twice| {
            let what = format!("the query gives `{twice}` twice; name one of them with AS");
            DataError::source(&name, what)
        })?;
        if columns.names().is_empty() {
            return Err(DataError::source(
                &name,
                "the query gives no columns: a SELECT is wanted",
            ));
        }
        let rows = statement.query([]).map_err(wrong)?;
        Ok(SqliteRows {
            name,
            rows,
            columns: Arc::new(columns),
            number: 0,
        })
    }
}

impl Rows for SqliteRows {
    fn next_row(&mut self) -> Result<Option<Placed>, DataError> {
        let next = self.rows.next();
        let Some(found) = next.map_err(|error| DataError::source(&self.name, error))? else {
            return Ok(None);
        };
        self.number += 1;
        let number = self.number;
        let mut values = Vec::with_capacity(self.columns.names().len());
        for (at, name) in self.columns.names().iter().enumerate() {
            let read = found.get_ref(at);
            let read = read.map_err(|error| DataError::source(&self.name, error))?;
            let value = json(read).map_err(|what| {
                DataError::Row(BadRow {
                    number,
                    line: 0,
                    error: RowError::of(name, what),
                })
            })?;
            values.push(value);
        }
        let row = Row {
            columns: Arc::clone(&self.columns),
            values,
            number,
        };
        Ok(Some(Placed { row, line: 0 }))
    }

    fn columns(&self) -> Option<&Arc<Columns>> {
        Some(&self.columns)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

fn json(value: ValueRef<'_>) -> Result<Json, &'static str> {
    Ok(match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => text.into(),
            Err(_) => return Err("it is not UTF-8"),
        },
        ValueRef::Blob(_) => return Err("it is a BLOB, and no text"),
    })
}
