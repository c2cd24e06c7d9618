//! Flags of `mailer compose`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{StateArgs, job_name};
use crate::merge::Pattern;

/// `mailer compose`.
#[derive(Args, Debug)]
pub struct ComposeArgs {
    /// The template: a header and a body in a .txt, .html or .md file, or a complete message (.eml)
    #[arg(value_name = "TEMPLATE")]
    pub template: PathBuf,
    /// Where the rows come from.
    #[command(flatten, next_help_heading = "Data")]
    pub data: DataArgs,
    /// What becomes of them.
    #[command(flatten, next_help_heading = "Messages")]
    pub merge: MergeArgs,
    /// Write bad rows to FILE (CSV), with what is wrong with them, and go on
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub skip_bad: Option<PathBuf>,
    /// Write the messages to FILE instead of standard output
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Write the tokens to FILE (CSV: token,address), for the program behind the links and for `mailer bounces`
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub tokens: Option<PathBuf>,
    /// Show the first N messages for reading instead
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        default_missing_value = "3",
        conflicts_with_all = ["out", "tokens", "skip_bad"],
        help_heading = "Output"
    )]
    pub preview: Option<usize>,
    /// With --preview, write a page that shows them to FILE
    #[arg(
        long,
        value_name = "FILE",
        requires = "preview",
        help_heading = "Output"
    )]
    pub html: Option<PathBuf>,
    /// Where the time of a job's first composition is kept.
    #[command(flatten, next_help_heading = "State")]
    pub state: StateArgs,
}

/// Where rows come from.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["data", "sqlite", "postgres"])))]
pub struct DataArgs {
    /// A CSV file with names in its first line, or JSON lines (.jsonl, .ndjson); '-' is standard input
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// What is in it, where its name does not say so
    #[arg(long, value_enum, value_name = "FORMAT", requires = "data")]
    pub format: Option<DataFormat>,
    /// What stands between the values of a CSV file [default: the one of , ; | and tab that its first line has most of]
    #[arg(long, value_name = "CHARACTER", requires = "data", value_parser = delimiter)]
    pub delimiter: Option<u8>,
    /// Encoding of a CSV file, for instance windows-1252 [default: UTF-8, or what a byte order mark says]
    #[arg(long, value_name = "NAME", requires = "data")]
    pub encoding: Option<String>,
    /// A SQLite database, which is only read
    #[arg(long, value_name = "FILE", requires = "query")]
    pub sqlite: Option<PathBuf>,
    /// A PostgreSQL database, as postgres://USER@HOST/DATABASE; without a password in it, that of the environment variable PGPASSWORD
    #[arg(long, value_name = "URL", requires = "query")]
    pub postgres: Option<String>,
    /// The SELECT whose rows are meant
    #[arg(long, value_name = "SQL", conflicts_with = "data")]
    pub query: Option<String>,
}

/// What becomes of rows.
#[derive(Args, Debug)]
pub struct MergeArgs {
    /// Name of the job: composed again, it gives the same messages, byte for byte
    #[arg(long, value_name = "NAME", value_parser = job_name)]
    pub job: Option<String>,
    /// The column that tells rows apart [default: the first recipient does]
    #[arg(long, value_name = "COLUMN")]
    pub key: Option<String>,
    /// The Date of the messages, RFC 3339 [default: now; with --job, when that was composed first]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub date: Option<jiff::Timestamp>,
    /// A reverse-path for each recipient, as in bounces+{token}@example.org or bounces+{address}@example.org
    #[arg(long, value_name = "PATTERN")]
    pub verp: Option<Pattern>,
    /// A file with the secret that tokens are made with, for data without a column `token`
    #[arg(long, value_name = "FILE")]
    pub token_key: Option<PathBuf>,
}

/// Formats of data.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataFormat {
    /// Values separated by a delimiter, names in the first line
    Csv,
    /// A JSON object a line
    Jsonl,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if text == "tab" || text == "\\t" => Ok(b'\t'),
        [one] if one.is_ascii() && !b"\"\r\n".contains(one) => Ok(*one),
        _ => Err("one ASCII character, or `tab`".to_owned()),
    }
}

fn time(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a time; write for instance 2026-11-24T08:00:00Z"))
}
