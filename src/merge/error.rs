//! What is wrong with a template, and what is wrong with a row.

use std::fmt;

/// A template that cannot be used, whatever the rows are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TemplateError {
    /// The file.
    pub file: String,
    /// The line in it, from 1; 0 if none is meant.
    pub line: usize,
    /// The column, from 1, in characters; 0 if none is known.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl TemplateError {
    pub(super) fn new(file: &str, line: usize, what: impl Into<String>) -> TemplateError {
        TemplateError {
            file: file.to_owned(),
            line,
            column: 0,
            what: what.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> TemplateError {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, " line {}", self.line)?;
        }
        if self.column > 0 {
            write!(f, " column {}", self.column)?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for TemplateError {}

/// A row that makes no message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowError {
    /// The column of the data that is to blame, if one is.
    pub column: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl RowError {
    /// An error that no single column is to blame for.
    pub fn new(what: impl Into<String>) -> RowError {
        RowError {
            column: None,
            what: what.into(),
        }
    }

    /// An error in `column`.
    pub fn of(column: &str, what: impl Into<String>) -> RowError {
        RowError {
            column: Some(column.to_owned()),
            what: what.into(),
        }
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(column) = &self.column {
            write!(f, "column {column:?}: ")?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for RowError {}
