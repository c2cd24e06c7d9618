//! What is typed to look at a job, to go on with it, and to decide about its mail.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{DeliveryArgs, PartArgs, ShowArgs, duration};

/// Where jobs are.
#[derive(Args, Debug, Default, Clone)]
pub struct StateArgs {
    /// The state directory [default: mailer in the XDG state directory]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Configuration file, which may name the state directory
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `mailer resume`.
#[derive(Args, Debug)]
pub struct ResumeArgs {
    /// The job: its id, the beginning of it, or the name that it was given
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// Which of it.
    #[command(flatten)]
    pub part: PartArgs,
    /// How it is delivered, where that is to differ from what the job was begun with.
    #[command(
        flatten,
        next_help_heading = "Delivery, instead of what the job was begun with"
    )]
    pub delivery: DeliveryArgs,
    /// What is shown.
    #[command(flatten, next_help_heading = "Output")]
    pub show: ShowArgs,
}

impl ResumeArgs {
    /// Where jobs are.
    pub fn state(&self) -> StateArgs {
        StateArgs {
            state: self.delivery.state.clone(),
            config: self.delivery.config.clone(),
        }
    }
}

/// `mailer jobs`.
#[derive(Args, Debug)]
pub struct JobsArgs {
    /// Where jobs are.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `mailer status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// The job: its id, the beginning of it, or the name that it was given
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// Where jobs are.
    #[command(flatten)]
    pub state: StateArgs,
}

/// How a job's report is written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReportFormat {
    /// A row per recipient, as `send --report` writes it
    #[default]
    Csv,
    /// A line per recipient, for people
    Text,
}

/// `mailer report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// The job: its id, the beginning of it, or the name that it was given
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Only recipients who have not got it, or perhaps not
    #[arg(long)]
    pub failed: bool,
    /// How it is written to standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "csv")]
    pub format: ReportFormat,
    /// Write failed.csv to DIR, and failed.mbox: the messages, for those only who surely have not got them
    #[arg(
        long,
        value_name = "DIR",
        requires = "failed",
        conflicts_with = "format"
    )]
    pub to_dir: Option<PathBuf>,
    /// Where jobs are.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `mailer settle`.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub struct SettleArgs {
    /// The job: its id, the beginning of it, or the name that it was given
    #[arg(value_name = "JOB")]
    pub job: String,
    /// It has arrived: never send it again
    #[arg(long, group = "what")]
    pub delivered: bool,
    /// It has not arrived: send it again with the next `mailer resume`
    #[arg(long, group = "what")]
    pub resend: bool,
    /// Only for this recipient (repeatable) [default: all that are in doubt or held]
    #[arg(long, value_name = "ADDRESS")]
    pub to: Vec<String>,
    /// Where jobs are.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `mailer retry`.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("whom").required(true).multiple(true)))]
pub struct RetryArgs {
    /// The job: its id, the beginning of it, or the name that it was given
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Mail that was refused or has expired
    #[arg(long, group = "whom")]
    pub refused: bool,
    /// Only recipients at DOMAIN; without --refused, mail that waits for another attempt, too
    #[arg(long, group = "whom", value_name = "DOMAIN")]
    pub to: Vec<String>,
    /// Where jobs are.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `mailer cancel`.
#[derive(Args, Debug)]
pub struct CancelArgs {
    /// The job: its id, the beginning of it, or the name that it was given
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Where jobs are.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `mailer purge`.
#[derive(Args, Debug)]
pub struct PurgeArgs {
    /// Forget jobs that were finished or cancelled longer ago than this, for instance 30d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub older_than: Duration,
    /// Only say which
    #[arg(long)]
    pub dry_run: bool,
    /// Where jobs are.
    #[command(flatten)]
    pub state: StateArgs,
}
