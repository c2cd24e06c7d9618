//! What was typed, and nothing more: no file is opened here and no default filled in.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::bounce::Verp;
use crate::engine::stop_on::StopRule;
use crate::job::path_text;

mod choice;
mod compose;
mod ctl;
mod dkim;
mod jobs;
mod part;
mod time;

pub use choice::{DsnNotify, DsnRet, Flavour, InDoubtMode, TlsMode};
pub use compose::{ComposeArgs, DataArgs, DataFormat, MergeArgs};
pub use ctl::{CtlArgs, CtlOrder, CtlShow};
pub use dkim::{DkimCommand, DkimName, KeygenArgs, RecordArgs};
pub use jobs::{
    CancelArgs, JobsArgs, PurgeArgs, ReportArgs, ReportFormat, ResumeArgs, RetryArgs, SettleArgs,
    StateArgs, StatusArgs,
};
pub use part::{PartArgs, SampleArgs};
pub use time::{TimeOfDay, duration, rate_text, time_of_day};

/// A thread-based batch mailer: delivers composed messages straight to the receiving servers.
#[derive(Parser, Debug)]
#[command(
    name = "mailer",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Deliver mbox files, Maildirs and .eml files; '-' or a pipe is standard input
    Send(SendArgs),
    /// Deliver a batch to embedded receivers on loopback: the whole engine, real sockets, nothing leaves the machine
    Rehearse(RehearseArgs),
    /// Make messages of a template and rows of data, as an mbox: mailer compose letter.md --data people.csv | mailer send -
    Compose(ComposeArgs),
    /// Show what is understood of each message of a batch; nothing is sent
    Inspect(InspectArgs),
    /// Go on with an unfinished job; without a name, with all that nobody runs (for cron: silent if there is none)
    Resume(ResumeArgs),
    /// List the jobs
    Jobs(JobsArgs),
    /// Show how far a job has come and what to do next; without a name, the latest
    Status(StatusArgs),
    /// Control a job that runs: show, set limits, pause, resume, drop, fail, stop
    Ctl(CtlArgs),
    /// Write what became of each recipient of a job
    Report(ReportArgs),
    /// Decide about mail in doubt: it was delivered, or is to be sent again
    Settle(SettleArgs),
    /// Queue failed mail of a job again
    Retry(RetryArgs),
    /// Send nothing more of a job
    Cancel(CancelArgs),
    /// Forget jobs that were finished or cancelled long ago
    Purge(PurgeArgs),
    /// Read what came back, bounces and complaints: who is not to be mailed any more, and why
    Bounces(BouncesArgs),
    /// Make keys to sign mail with (DKIM), and show what to publish
    Dkim {
        /// What to do.
        #[command(subcommand)]
        command: DkimCommand,
    },
    /// Show how mail for a domain would be sent: queue, servers, policy, limits, and how much an hour; nothing is sent
    Explain(ExplainArgs),
    /// Show or forget what is remembered of receivers from run to run
    Hosts(HostsArgs),
    /// Run the test receiver by itself: an SMTP server, and a DNS server that leads to it
    Sink(SinkArgs),
    /// Show every configuration key with its value in force
    Config(ConfigArgs),
}

/// Flags of `bounces`.
#[derive(Args, Debug)]
pub struct BouncesArgs {
    /// Maildirs, mbox files, single messages; '-' is standard input
    #[arg(required = true, value_name = "MAILBOX")]
    pub mailbox: Vec<PathBuf>,
    /// Append to this suppression list whose address is no good, and who complained; those who are on it stay as they are
    #[arg(long, value_name = "FILE")]
    pub add_to: Option<PathBuf>,
    /// The reverse-path that the mail had, as in bounces+{address}@example.org, where ann=example.com stands for ann@example.com
    #[arg(long, value_name = "PATTERN")]
    pub verp: Option<Verp>,
    /// Whose the tokens are, for a pattern such as bounces+{token}@example.org: CSV with the columns token and address (or email)
    #[arg(long, value_name = "FILE", requires = "verp")]
    pub tokens: Option<PathBuf>,
}

/// How a batch is read.
#[derive(Args, Serialize, Deserialize, Debug, Default, Clone)]
#[serde(default)]
pub struct ReadArgs {
    /// mbox files, Maildirs, .eml files; '-' is standard input
    #[arg(value_name = "BATCH")]
    #[serde(with = "path_text::list")]
    pub batch: Vec<PathBuf>,
    /// How mbox files quote lines that begin with "From "
    #[arg(long, value_enum, value_name = "FLAVOUR")]
    pub mbox: Option<Flavour>,
    /// Reverse-path of messages without an X-Envelope-From field ("" or "<>" is the null reverse-path)
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<String>,
    /// Send messages that were received by somebody before (they bear Received or Delivered-To fields)
    #[arg(long)]
    pub resend: bool,
    /// Send the batch's one message to the addresses in FILE, one a line
    #[arg(long, value_name = "FILE")]
    #[serde(with = "path_text::option")]
    pub to_file: Option<PathBuf>,
    /// Break lines of more than 998 octets instead of refusing the message
    #[arg(long)]
    pub fold_long_lines: bool,
    /// Refuse the whole batch if any message or address in it is invalid
    #[arg(long)]
    pub strict: bool,
    /// `--once-per-recipient`: kept with the job, since its mail is known by it
    #[arg(skip)]
    pub once_per_recipient: bool,
    /// The command that reads it, for hints that say what to type
    #[arg(skip)]
    #[serde(skip)]
    pub command: &'static str,
}

/// Configuration and its overrides.
#[derive(Args, Serialize, Deserialize, Debug, Default, Clone)]
#[serde(default)]
pub struct DeliveryArgs {
    /// Configuration file [default: mailer.toml in the XDG configuration directory, then /etc/mailer.toml]
    #[arg(long, value_name = "FILE")]
    #[serde(with = "path_text::option")]
    pub config: Option<PathBuf>,
    /// Name server to ask instead of the system's (repeatable)
    #[arg(long, value_name = "ADDR:PORT")]
    pub dns: Vec<SocketAddr>,
    /// How long the DNS may take to find the servers of a domain
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub dns_timeout: Option<Duration>,
    /// Port of the receiving servers [default: 25]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Give all mail to this server instead of looking up MX hosts (repeatable: in order of preference);
    /// HOST:PORT, smtps://HOST, lmtp://HOST:PORT or lmtp:///SOCKET
    #[arg(long, value_name = "RELAY")]
    pub relay: Vec<String>,
    /// Spread mail over the relays instead of using the first that answers
    #[arg(long)]
    pub relay_spread: bool,
    /// Give mail to this server that its own servers have not taken after some attempts (repeatable; as --relay)
    #[arg(long, value_name = "RELAY")]
    pub fallback: Vec<String>,
    /// File with user and password (or token) for the relays, readable by its owner only
    #[arg(long, value_name = "FILE")]
    #[serde(with = "path_text::option")]
    pub credentials: Option<PathBuf>,
    /// Send credentials without TLS, too
    #[arg(long)]
    pub auth_in_clear: bool,
    /// TLS: never, where offered, or no mail without (verify: with a certificate that fits) [default: may]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub tls: Option<TlsMode>,
    /// Certificates (PEM) to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    #[serde(with = "path_text::option")]
    pub tls_ca: Option<PathBuf>,
    /// Our own certificate with its chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    #[serde(with = "path_text::option")]
    pub tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PKCS #8, PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    #[serde(with = "path_text::option")]
    pub tls_key: Option<PathBuf>,
    /// What delivery status notifications bring back
    #[arg(long, value_enum, value_name = "WHAT")]
    pub dsn_ret: Option<DsnRet>,
    /// When servers are to notify the sender
    #[arg(long, value_enum, value_name = "WHEN", value_delimiter = ',')]
    pub dsn_notify: Vec<DsnNotify>,
    /// Our name for the envelope in notifications
    #[arg(long, value_name = "ID")]
    pub dsn_envid: Option<String>,
    /// Tell servers the original recipient for notifications
    #[arg(long)]
    pub dsn_orcpt: bool,
    /// Our name in EHLO [default: the host name if it is fully qualified, else the connection's address]
    #[arg(long, value_name = "NAME")]
    pub hello: Option<String>,
    /// Address to connect from (repeatable: connections are spread over them)
    #[arg(long, value_name = "IP")]
    pub bind: Vec<IpAddr>,
    /// Accept MX hosts on loopback addresses
    #[arg(long)]
    pub allow_loopback: bool,
    /// Where files of a run live [default: mailer in the XDG state directory]
    #[arg(long, value_name = "DIR")]
    #[serde(with = "path_text::option")]
    pub state: Option<PathBuf>,
    /// Worker threads of all queues together, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_workers: Option<u32>,
    /// Messages to each site, at most: 600/min, 20/s, 5000/h, or with a burst on top "600/min burst 50"
    #[arg(long, value_name = "RATE", value_parser = rate_text)]
    pub rate: Option<String>,
    /// Cap on the deadline of every stage but the final dot's
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Deadline for opening a connection, per address
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub connect_timeout: Option<Duration>,
    /// Deadline for the reply to a message's final dot; short ones make duplicates
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub dot_timeout: Option<Duration>,
    /// First delay before deferred mail is tried again
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub retry_min: Option<Duration>,
    /// Longest delay before deferred mail is tried again
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub retry_max: Option<Duration>,
    /// Give up mail that is deferred for longer than this
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub expire: Option<Duration>,
    /// Begin nothing new after this time; what is pending then is left (exit status 75) [default: 1h, for retries only]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub run_for: Option<Duration>,
    /// Begin nothing new after this time of day, HH:MM; what is pending then is left (exit status 75)
    #[arg(long, value_name = "HH:MM", value_parser = time_of_day)]
    pub finish_by: Option<TimeOfDay>,
    /// Stop in order once this happens, e.g. 'refused>5%', 'deferred>50% of 500', 'refused>100' (repeatable); a share is
    /// judged from 100 results on, or as many as 'of' says
    #[arg(long, value_name = "RULE", value_parser = stop_rule)]
    pub stop_on: Vec<String>,
    /// Send nothing to the addresses and domains in FILE, one a line, perhaps with ",UNTIL" and ",REASON" behind it (repeatable)
    #[arg(long, value_name = "FILE")]
    #[serde(with = "path_text::list")]
    pub suppress: Vec<PathBuf>,
    /// What becomes of mail whose final dot was sent and never answered [default: resend]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub in_doubt: Option<InDoubtMode>,
    /// How long mail in doubt waits before it is sent again, once
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub in_doubt_wait: Option<Duration>,
    /// Record each message on disk before its final dot leaves: survives a loss of power, costs speed
    #[arg(long)]
    pub sync: bool,
    /// Neither use what earlier runs have learned of receivers, nor keep what this one learns
    #[arg(long)]
    pub no_memory: bool,
    /// A journal of this length is folded: no flag or key leads here, but a job's card does, in tests of what a crash
    /// leaves of a fold.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_bytes: Option<u64>,
}

/// A rule of `--stop-on`, kept as it was typed.
fn stop_rule(text: &str) -> Result<String, String> {
    text.parse::<StopRule>().map(|_| text.to_owned())
}

/// What is shown of a run.
#[derive(Args, Debug, Default, Clone)]
pub struct ShowArgs {
    /// Write the report (CSV, a row per recipient) to FILE; '-' is standard output
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Print the summary even where standard error is not a terminal
    #[arg(long)]
    pub summary: bool,
    /// No progress and no summary, even on a terminal
    #[arg(long, short, conflicts_with = "summary")]
    pub quiet: bool,
    /// It is a rehearsal: no job stays that could be looked at or go on
    #[arg(skip)]
    pub is_rehearsal: bool,
}

impl ShowArgs {
    /// True if the summary goes to standard error.
    pub fn prints_summary(&self) -> bool {
        use std::io::IsTerminal;
        self.summary || (!self.quiet && std::io::stderr().is_terminal())
    }
}

/// Which job a batch belongs to.
#[derive(Args, Debug, Default, Clone)]
pub struct JobArgs {
    /// Name of the job: what is piped under it again is sent only to those who are not in it yet
    #[arg(long, value_name = "NAME", value_parser = job_name)]
    pub job: Option<String>,
    /// Each recipient gets one message of the job, whichever comes first: who got one gets no other, whatever its Message-ID
    #[arg(long, requires = "job")]
    pub once_per_recipient: bool,
    /// Send a batch again that was sent a short time ago
    #[arg(long)]
    pub again: bool,
    /// How long a batch that was sent is not sent again [default: 20h]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub guard: Option<Duration>,
}

/// A name that can be typed and shown: not one that looks like a job's number.
pub fn job_name(text: &str) -> Result<String, String> {
    let is_fit = |c: char| c.is_alphanumeric() || "-_.:+@".contains(c);
    let begins_well = text.chars().next().is_some_and(char::is_alphabetic);
    if !begins_well || text.len() > 100 || !text.chars().all(is_fit) {
        return Err("a name begins with a letter and has letters, digits and -_.:+@ only".into());
    }
    Ok(text.to_owned())
}

/// `mailer send`.
#[derive(Args, Debug)]
pub struct SendArgs {
    /// How the batch is read.
    #[command(flatten)]
    pub read: ReadArgs,
    /// Which job it belongs to.
    #[command(flatten)]
    pub job: JobArgs,
    /// Which of it.
    #[command(flatten)]
    pub part: PartArgs,
    /// Or only samples of it.
    #[command(flatten)]
    pub sample: SampleArgs,
    /// How it is delivered.
    #[command(flatten, next_help_heading = "Delivery")]
    pub delivery: DeliveryArgs,
    /// What is shown.
    #[command(flatten, next_help_heading = "Output")]
    pub show: ShowArgs,
}

/// `mailer rehearse`.
#[derive(Args, Debug)]
pub struct RehearseArgs {
    /// How the batch is read.
    #[command(flatten)]
    pub read: ReadArgs,
    /// How it is delivered.
    #[command(flatten, next_help_heading = "Delivery")]
    pub delivery: DeliveryArgs,
    /// What is shown.
    #[command(flatten, next_help_heading = "Output")]
    pub show: ShowArgs,
    /// Misbehaviour of the embedded receivers, as for `mailer sink` (repeatable)
    #[arg(long, value_name = "RULE")]
    pub rule: Vec<String>,
    /// What the embedded receivers enforce.
    #[command(flatten, next_help_heading = "Receivers")]
    pub limits: ReceiverArgs,
}

/// What a receiver enforces: the client learns of it by replies.
#[derive(Args, Debug)]
pub struct ReceiverArgs {
    /// Greet more than N sessions at once at one address with 421
    #[arg(long, value_name = "N")]
    pub refuse_sessions: Option<u64>,
    /// Answer with 421 after N messages in one session
    #[arg(long, value_name = "N")]
    pub refuse_messages: Option<u64>,
    /// Put off each recipient with 451 until TIME after the first attempt
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub greylist: Option<Duration>,
}

/// `mailer inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// How the batch is read.
    #[command(flatten)]
    pub read: ReadArgs,
    /// One JSON object a message
    #[arg(long)]
    pub json: bool,
}

/// `mailer sink`.
#[derive(Args, Debug)]
pub struct SinkArgs {
    /// Where to listen for SMTP (repeatable); 127.0.0.0/8:PORT is every loopback address; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:2525")]
    pub listen: Vec<String>,
    /// Also answer DNS here: every domain leads to this receiver
    #[arg(long, value_name = "ADDR:PORT")]
    pub dns: Option<SocketAddr>,
    /// Records for --dns, one a line; other domains get made-up ones
    #[arg(long, value_name = "FILE", requires = "dns")]
    pub zone: Option<PathBuf>,
    /// Misbehaviour, e.g. 'domain=slow.test stage=rcpt delay=5s' (repeatable)
    #[arg(long, value_name = "RULE")]
    pub rule: Vec<String>,
    /// What it enforces.
    #[command(flatten)]
    pub limits: ReceiverArgs,
    /// Delay each flight of replies: a simulated round trip
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub latency: Option<Duration>,
    /// Offer STARTTLS with a certificate made on the spot for these names [default: sink.test]
    #[arg(
        long,
        value_name = "NAME,...",
        num_args = 0..=1,
        require_equals = true,
        value_delimiter = ',',
        default_missing_value = "sink.test"
    )]
    pub tls: Option<Vec<String>>,
    /// Offer CHUNKING
    #[arg(long)]
    pub chunking: bool,
    /// Keep each message as a file in DIR
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Refuse messages with a bare CR or LF instead of only counting them
    #[arg(long)]
    pub strict: bool,
    /// Count messages that a recipient gets twice
    #[arg(long)]
    pub find_duplicates: bool,
    /// Write the statistics as JSON to FILE at the end ('-' is standard output)
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
}

/// `mailer explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// Domains, or addresses of recipients
    #[arg(value_name = "DOMAIN", required = true)]
    pub domain: Vec<String>,
    /// One JSON object a domain
    #[arg(long)]
    pub json: bool,
    /// How long a message takes [default: 200ms, or the round trip that is remembered if that is longer]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub message_time: Option<Duration>,
    /// The same flags as for `send`: what they change shows in the result
    #[command(flatten, next_help_heading = "Delivery")]
    pub delivery: DeliveryArgs,
}

/// `mailer hosts`.
#[derive(Args, Debug)]
pub struct HostsArgs {
    /// Only these: a provider, an MX host, a domain whose hosts have that name, or an address [default: all]
    #[arg(value_name = "NAME")]
    pub name: Vec<String>,
    /// One JSON object a row
    #[arg(long)]
    pub json: bool,
    /// Forget what is remembered of NAME (repeatable); 'all' is everything
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "json"])]
    pub forget: Vec<String>,
    /// Where the memory is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `mailer config`.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// The same flags as for `send`: they show in the result
    #[command(flatten)]
    pub delivery: DeliveryArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
