//! The `mailer` program: see [`mailer::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(mailer::cli::main(std::env::args_os()))
}
