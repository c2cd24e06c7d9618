//! Data for mail merge: rows from CSV, JSON lines, SQLite and PostgreSQL, one at a time, whatever the size.
//!
//! [`Rows`] hands out a row after the other. What is wrong with one row ([`DataError::Row`]) ends nothing: the next row can be
//! asked for. [`template`] reads the files that a template is made of.
//!
//! INVARIANT: memory is that of a row, of at most [`ROW_BYTES_MAX`].

mod csv_rows;
mod first_time;
mod json_rows;
mod metered;
mod postgres_rows;
mod sqlite_rows;
pub mod template;

pub use first_time::first_time;

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::merge::{Columns, Row, RowError};

/// The most bytes of a row, in the file.
pub const ROW_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where rows come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, or standard input.
    Text {
        /// `None` is standard input.
        path: Option<PathBuf>,
        /// What is in it.
        format: Format,
    },
    /// A query to a SQLite database.
    Sqlite {
        /// The database.
        path: PathBuf,
        /// A SELECT.
        query: String,
    },
    /// A query to a PostgreSQL database.
    Postgres {
        /// `postgres://USER@HOST/DATABASE`, or libpq's words.
        url: String,
        /// For a URL without one.
        password: Option<String>,
        /// A SELECT.
        query: String,
    },
}

/// What a file of rows looks like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Format {
    /// Values separated by a delimiter (RFC 4180), names in the first line.
    Csv {
        /// `None`: the one of `,`, `;`, tab and `|` that the first line has most of.
        delimiter: Option<u8>,
        /// A label of the WHATWG's encoding standard; `None`: UTF-8, or what a byte order mark says.
        encoding: Option<String>,
    },
    /// A JSON object a line.
    JsonLines,
}

/// Why there is no row.
#[derive(Debug)]
pub enum DataError {
    /// This row is no good; there may be others.
    Row(BadRow),
    /// The data cannot be read any further.
    Source {
        /// What is wrong, with the name of the file.
        what: String,
        /// It is not there, or cannot be opened.
        is_missing: bool,
    },
}

/// A row that makes no message, and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadRow {
    /// Its number among the rows, from 1.
    pub number: u64,
    /// The line that it begins in, from 1; 0 if it comes from no text.
    pub line: u64,
    /// What is wrong with it.
    pub error: RowError,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}", self.number)?;
        if self.line > 0 {
            write!(f, " (line {})", self.line)?;
        }
        write!(f, ": {}", self.error)
    }
}

impl DataError {
    fn source(name: &str, what: impl fmt::Display) -> DataError {
        DataError::Source {
            what: format!("{name}: {what}"),
            is_missing: false,
        }
    }

    fn missing(name: &str, error: &io::Error) -> DataError {
        DataError::Source {
            what: format!("{name}: {error}"),
            is_missing: true,
        }
    }
}

/// A row, and where it is.
#[derive(Debug)]
pub struct Placed {
    /// The row.
    pub row: Row,
    /// The line that it begins in, from 1, or the first of the empty lines before it; 0 if it comes from no text.
    pub line: u64,
}

/// Rows, one after the other.
pub trait Rows {
    /// The next row; `None` behind the last.
    ///
    /// # Errors
    /// [`DataError`].
    fn next_row(&mut self) -> Result<Option<Placed>, DataError>;

    /// The columns, if all rows have the same.
    fn columns(&self) -> Option<&Arc<Columns>>;

    /// What the rows come from, for people.
    fn name(&self) -> &str;
}

/// Opens a source of rows.
///
/// # Errors
/// [`DataError::Source`].
pub fn open(source: &Source) -> Result<Box<dyn Rows>, DataError> {
    match source {
        Source::Text { path, format } => {
            let (name, reader) = reader(path.as_deref())?;
            match format {
                Format::Csv {
                    delimiter,
                    encoding,
                } => {
                    let rows =
                        csv_rows::CsvRows::open(name, reader, *delimiter, encoding.as_deref())?;
                    Ok(Box::new(rows))
                }
                Format::JsonLines => Ok(Box::new(json_rows::JsonRows::new(name, reader))),
            }
        }
        Source::Sqlite { path, query } => Ok(Box::new(sqlite_rows::SqliteRows::open(path, query)?)),
        Source::Postgres {
            url,
            password,
            query,
        } => {
            let rows = postgres_rows::PostgresRows::open(url, query, password.clone())?;
            Ok(Box::new(rows))
        }
    }
}

fn reader(path: Option<&Path>) -> Result<(String, Box<dyn Read>), DataError> {
    let Some(path) = path else {
        return Ok(("standard input".to_owned(), Box::new(io::stdin())));
    };
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| DataError::missing(&name, &error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(DataError::source(
            &name,
            "it is a directory, not a file of rows",
        ));
    }
    Ok((name, Box::new(file)))
}

#[cfg(test)]
mod tests;
