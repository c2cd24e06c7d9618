//! The `mailer` program: see [`mailer::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    // The panic hook has said what happened; the status says that it is a bug of ours.
    let ended = std::panic::catch_unwind(|| mailer::cli::main(std::env::args_os()));
    ExitCode::from(ended.unwrap_or(mailer::cli::exit::Exit::Software as u8))
}
