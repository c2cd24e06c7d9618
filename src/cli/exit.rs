//! Exit statuses, chosen in one place, and errors that carry theirs.
//!
//! The numbers are those of sysexits.h where it has one, so that cron scripts and MTAs understand them.

use std::fmt;

use super::say;

/// The exit statuses of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// All delivered (or suppressed by intention).
    Done = 0,
    /// Finished, but some were refused, expired, invalid or held.
    Failures = 1,
    /// The command line is wrong (EX_USAGE).
    Usage = 64,
    /// The batch is not what it should be (EX_DATAERR).
    Data = 65,
    /// A file to be read is missing or unreadable (EX_NOINPUT).
    NoInput = 66,
    /// The network is unusable: no name server answers, or no mail server anywhere (EX_UNAVAILABLE).
    Network = 69,
    /// A bug of ours (EX_SOFTWARE).
    Software = 70,
    /// A file or directory cannot be made (EX_CANTCREAT).
    CantCreate = 73,
    /// Reading or writing failed (EX_IOERR).
    Io = 74,
    /// Something is still pending: run it again later (EX_TEMPFAIL).
    Pending = 75,
    /// Not permitted (EX_NOPERM).
    Permission = 77,
    /// The configuration is wrong (EX_CONFIG).
    Config = 78,
}

impl Exit {
    /// The status of this number: that of an earlier run of a job.
    pub fn from_status(status: u8) -> Exit {
        use Exit::*;
        let all = [
            Done, Failures, Usage, Data, NoInput, Network, Software, CantCreate, Io, Pending,
            Permission, Config,
        ];
        let found = all.into_iter().find(|exit| *exit as u8 == status);
        found.unwrap_or(Software)
    }
}

/// An error of the face: one line that says who, what, where; at most one hint; and the exit status it leads to.
#[derive(Debug)]
pub struct Failure {
    /// The status the process ends with.
    pub exit: Exit,
    /// What went wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// An error without a hint.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Failure {
        Failure {
            exit,
            message: one_line(&message.to_string()),
            hint: None,
        }
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl fmt::Display) -> Failure {
        self.hint = Some(one_line(&hint.to_string()));
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// File names and peers may hold anything; what is printed is one line and cannot repaint a terminal.
fn one_line(text: &str) -> String {
    crate::mail::verdict::printable(text.trim(), 2000)
}

/// Prints an error and tells the status to end with. An error that is not a [`Failure`] is a bug's.
pub fn report(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<Failure>() {
        Some(failure) => {
            say::complain(&failure.message);
            if let Some(hint) = &failure.hint {
                say::to_stderr(&format!("hint: {hint}\n"));
            }
            failure.exit
        }
        None => {
            say::complain(one_line(&format!("{error:#}")));
            Exit::Software
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_repaint_the_terminal() {
        let failure = Failure::new(Exit::NoInput, "a\u{1b}[2J\nb: no such file");
        assert_eq!(failure.message, "a?[2J?b: no such file");
    }
}
