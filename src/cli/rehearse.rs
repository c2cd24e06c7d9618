//! `mailer rehearse`: the whole delivery of a batch, to receivers inside this process.
//!
//! A DNS server leads every domain to hosts of its own on 127.0.0.0/8, where an SMTP server takes everything. Settings are
//! those of `send`, but for what points at the real network. Nothing of a real run is read or written.

use std::time::Duration;

use anyhow::Result;

use super::args::{JobArgs, ReceiverArgs, RehearseArgs, ShowArgs};
use super::exit::{Exit, Failure};
use super::{config, say, send};
use crate::engine::settings::Settings;
use crate::sink::dns::DnsServer;
use crate::sink::zone::Zone;
use crate::sink::{Rule, Sink, SinkConfig, SinkTls};
use crate::smtp::TlsPolicy;

/// How long the receivers may take to see the last connection closed, before they are counted.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// Runs the command.
///
/// # Errors
/// A [`Failure`].
pub fn run(args: &RehearseArgs) -> Result<Exit> {
    let mut settings = config::settings(&args.delivery)?;
    let scratch = tempfile::tempdir().map_err(|error| {
        Failure::new(
            Exit::CantCreate,
            format!("cannot make a temporary directory: {error}"),
        )
    })?;
    let rules = rules(&args.rule)?;
    let mut config = SinkConfig {
        rules,
        find_duplicates: true,
        tls: tls(&mut settings)?,
        ..SinkConfig::default()
    };
    enforce(&args.limits, &mut config);
    let sink = Sink::start(config).map_err(|error| Failure::new(Exit::Software, error))?;
    if !sink.covers_loopback() {
        return Err(Failure::new(
            Exit::Permission,
            "this system does not let us listen on all of 127.0.0.0/8",
        )
        .hint("run it as root, or on Linux 5.7 or later")
        .into());
    }
    let dns = DnsServer::start(Zone::synthetic()).map_err(|error| {
        Failure::new(
            Exit::Software,
            format!("cannot start the DNS server: {error}"),
        )
    })?;
    settings.dns = vec![dns.address()];
    settings.port = sink.port();
    settings.allow_loopback = true;
    settings.relays.clear();
    settings.fallback.clear();
    settings.bind.clear();
    settings.memory = false;
    settings.state = scratch.path().to_path_buf();
    let show = ShowArgs {
        is_rehearsal: true,
        ..args.show.clone()
    };
    let job = JobArgs::default();
    let (exit, summary) = send::send(&args.read, &job, &args.delivery, &show, settings)?;
    sink.wait_until(|stats| stats.open == 0, SETTLE_TIME);
    let stats = sink.stop();
    let report_on_stdout = args
        .show
        .report
        .as_ref()
        .is_some_and(|path| path.as_os_str() == "-");
    let seen = format!("what the receivers saw:\n{stats}\n");
    match (
        args.show.quiet,
        report_on_stdout,
        args.show.prints_summary(),
    ) {
        (true, ..) => {}
        (_, true, true) => say::to_stderr(&format!("\n{seen}")),
        (_, true, false) => say::to_stderr(&format!("{summary}\n{seen}")),
        (_, false, true) => say::to_stdout(&format!("\n{seen}"))?,
        (_, false, false) => say::to_stdout(&format!("{summary}\n{seen}"))?,
    }
    Ok(exit)
}

/// TLS of the receivers, if any policy asks for it. Nobody has a certificate for their names, so what would be verified
/// is only required.
fn tls(settings: &mut Settings) -> Result<Option<SinkTls>> {
    let domains = settings.domains.iter_mut().map(|domain| &mut domain.tls);
    let queues = settings
        .queues
        .iter_mut()
        .filter_map(|queue| queue.tls.as_mut());
    let mut is_asked_for = false;
    for policy in domains.chain(queues).chain([&mut settings.tls]) {
        is_asked_for |= !policy.bears_clear_text();
        if *policy == TlsPolicy::Verify {
            *policy = TlsPolicy::Require;
        }
    }
    if !is_asked_for {
        return Ok(None);
    }
    let made = SinkTls::self_signed(&["sink.test"]);
    made.map(Some).map_err(|error| {
        Failure::new(
            Exit::Software,
            format!("cannot make a certificate: {error}"),
        )
        .into()
    })
}

/// Sets the limits that a receiver is to enforce.
pub fn enforce(limits: &ReceiverArgs, config: &mut SinkConfig) {
    config.connections_per_address_max = limits.refuse_sessions;
    config.messages_per_connection_max = limits.refuse_messages;
    config.greylist = limits.greylist;
}

/// Reads `--rule` arguments.
///
/// # Errors
/// Usage, naming the word.
pub fn rules(texts: &[String]) -> Result<Vec<Rule>> {
    let parse = |text: &String| {
        text.parse().map_err(|error| {
            Failure::new(Exit::Usage, format!("--rule '{text}': {error}"))
                .hint("for instance 'domain=slow.test stage=rcpt delay=5s' or 'stage=rcpt reply=\"450 4.2.1 later\" first=1'")
                .into()
        })
    };
    texts.iter().map(parse).collect()
}
