//! Words for people, on standard error and standard output. A terminal that is gone or full never ends the program: what
//! becomes of the mail matters more than who reads about it.

use std::io::{self, Write};

use anyhow::Result;

use super::exit::{Exit, Failure};

/// A line on standard error, after the program's name.
pub fn complain(line: impl std::fmt::Display) {
    to_stderr(&format!("mailer: {line}\n"));
}

/// Text on standard error.
pub fn to_stderr(text: &str) {
    // Nobody is left to be told.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Text on standard output. A reader that has gone away is no error.
///
/// # Errors
/// [`Exit::Io`]: the output is a file or device that cannot be written.
pub fn to_stdout(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Io,
            format!("cannot write to standard output: {error}"),
        )
        .into()),
        _ => Ok(()),
    }
}
