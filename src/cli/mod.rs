//! The command line: what was typed becomes what it means, results become what a person reads.

pub mod args;
pub mod batch;
mod bounces;
mod cancel;
mod compose;
mod conclude;
pub mod config;
mod ctl;
mod deliver;
mod dkim;
pub mod exit;
mod explain;
mod feed;
mod find;
pub mod flags;
mod hosts;
mod inspect;
mod job;
mod jobs;
mod purge;
mod rehearse;
mod report;
mod resume;
mod retry;
mod sample;
mod say;
mod secret;
mod send;
mod settle;
mod sink;
mod status;
mod target;
mod watch;

use std::ffi::OsString;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use signal_hook::consts::SIGXFSZ;

use args::{Cli, Command};
use exit::Exit;

/// Runs the program with these arguments, the first being its own name. Returns the exit status.
pub fn main(arguments: impl Iterator<Item = OsString>) -> u8 {
    let exit = match Cli::try_parse_from(arguments) {
        Ok(cli) => run(cli.command).unwrap_or_else(|error| exit::report(&error)),
        Err(error) => {
            let is_wrong = error.use_stderr();
            // Nowhere left to complain if the terminal is gone.
            let _ = error.print();
            if is_wrong { Exit::Usage } else { Exit::Done }
        }
    };
    exit as u8
}

/// A file that has come to the limit of sizes (RLIMIT_FSIZE) is an error of the write, as a full disk is, and not the end of
/// the process, which is what the signal means to one that does not listen to it.
fn outlive_file_limits() -> std::io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

fn run(command: Command) -> Result<Exit> {
    outlive_file_limits()?;
    match command {
        Command::Send(mut args) => {
            args.read.command = "send";
            args.read.once_per_recipient = args.job.once_per_recipient;
            send::run(&args)
        }
        Command::Rehearse(mut args) => {
            args.read.command = "rehearse";
            rehearse::run(&args)
        }
        Command::Inspect(mut args) => {
            args.read.command = "inspect";
            inspect::run(&args)
        }
        Command::Resume(args) => resume::run(&args),
        Command::Jobs(args) => jobs::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Ctl(args) => ctl::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Settle(args) => settle::run(&args),
        Command::Retry(args) => retry::run(&args),
        Command::Cancel(args) => cancel::run(&args),
        Command::Purge(args) => purge::run(&args),
        Command::Dkim { command } => dkim::run(&command),
        Command::Compose(args) => compose::run(&args),
        Command::Bounces(args) => bounces::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Hosts(args) => hosts::run(&args),
        Command::Sink(args) => sink::run(&args),
        Command::Config(args) => {
            say::to_stdout(&config::to_toml(&config::settings(&args.delivery)?))?;
            Ok(Exit::Done)
        }
    }
}
