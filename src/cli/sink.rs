//! `mailer sink`: the test receiver by itself, until a signal stops it.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::SinkArgs;
use super::exit::{Exit, Failure};
use super::{rehearse, say};
use crate::sink::dns::DnsServer;
use crate::sink::zone::Zone;
use crate::sink::{Listen, Sink, SinkConfig, SinkTls, Stats, Storage, zone_text};

/// Runs the command.
///
/// # Errors
/// A [`Failure`]: usage, a port in use, an unreadable zone.
pub fn run(args: &SinkArgs) -> Result<Exit> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Software, format!("cannot listen to signals: {error}"))
    };
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let zone = zone(args.zone.as_deref())?;
    let sink = Sink::start(config(args)?).map_err(|error| Failure::new(Exit::CantCreate, error))?;
    let dns = match args.dns {
        Some(address) => Some(DnsServer::start_at(zone, address).map_err(|error| {
            Failure::new(
                Exit::CantCreate,
                format!("cannot answer DNS on {address}: {error}"),
            )
        })?),
        None => None,
    };
    if wants_all_loopback(args)? && !sink.covers_loopback() {
        say::complain(
            "listening on 127.0.0.1 only: this system does not let us listen on all of 127.0.0.0/8",
        );
    }
    announce(&sink, dns.as_ref())?;
    signals.forever().next();
    let stats = sink.stop();
    say::to_stderr(&format!("{stats}\n"));
    if let Some(path) = &args.stats {
        write_stats(path, &stats)?;
    }
    Ok(Exit::Done)
}

/// Says where it listens, in lines that scripts can read.
fn announce(sink: &Sink, dns: Option<&DnsServer>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut said = writeln!(out, "smtp {}", sink.address());
    if let Some(dns) = dns {
        said = said.and_then(|()| writeln!(out, "dns {}", dns.address()));
    }
    said.and_then(|()| out.flush())
        .map_err(|error| Failure::new(Exit::Io, format!("cannot write: {error}")).into())
}

fn config(args: &SinkArgs) -> Result<SinkConfig> {
    let (listen, port) = listen(args)?;
    let mut config = SinkConfig {
        listen,
        port,
        rules: rehearse::rules(&args.rule)?,
        ..SinkConfig::default()
    };
    rehearse::enforce(&args.limits, &mut config);
    config.latency = args.latency.unwrap_or_default();
    config.find_duplicates = args.find_duplicates;
    config.server.refuse_bare_newlines = args.strict;
    config.server.chunking = args.chunking;
    if let Some(names) = &args.tls {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let tls = SinkTls::self_signed(&names);
        config.tls = Some(tls.map_err(|error| {
            Failure::new(Exit::Usage, format!("--tls={}: {error}", names.join(",")))
        })?);
    }
    if let Some(directory) = &args.keep {
        config.storage = Storage::Maildir(directory.clone());
    }
    Ok(config)
}

fn wants_all_loopback(args: &SinkArgs) -> Result<bool> {
    Ok(matches!(listen(args)?.0, Listen::AllLoopback(_)))
}

/// Reads `--listen`: addresses of one port, or 127.0.0.0/8 with a port.
fn listen(args: &SinkArgs) -> Result<(Listen, u16)> {
    let wrong = |text: &str| {
        Failure::new(
            Exit::Usage,
            format!("--listen {text}: not an address of loopback with a port"),
        )
        .hint("for instance 127.0.0.1:2525, [::1]:2525 or 127.0.0.0/8:2525")
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut port = None;
    for text in &args.listen {
        if let Some(all) = text.strip_prefix("127.0.0.0/8:") {
            if args.listen.len() > 1 {
                return Err(Failure::new(
                    Exit::Usage,
                    "--listen 127.0.0.0/8 covers every other address",
                )
                .into());
            }
            let port = all.parse().map_err(|_| wrong(text))?;
            return Ok((
                Listen::AllLoopback(vec![std::net::Ipv4Addr::LOCALHOST.into()]),
                port,
            ));
        }
        let address: SocketAddr = text.parse().map_err(|_| wrong(text))?;
        if !address.ip().is_loopback() {
            return Err(wrong(text).into());
        }
        if port.is_some_and(|port| port != address.port()) {
            return Err(Failure::new(
                Exit::Usage,
                "all --listen addresses must have the same port",
            )
            .into());
        }
        port = Some(address.port());
        addresses.push(address.ip());
    }
    Ok((Listen::Addresses(addresses), port.unwrap_or(0)))
}

fn zone(path: Option<&Path>) -> Result<Zone> {
    let Some(path) = path else {
        return Ok(Zone::synthetic());
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(
            Exit::NoInput,
            format!("{}: cannot read: {error}", path.display()),
        )
    })?;
    let zone = zone_text::parse(&text);
    zone.map_err(|error| Failure::new(Exit::Data, format!("{}: {error}", path.display())).into())
}

fn write_stats(path: &Path, stats: &Stats) -> Result<()> {
    let value = json!({
        "connections": stats.connections,
        "connections_refused": stats.connections_refused,
        "cut": stats.cut,
        "open_max": stats.open_max,
        "messages": stats.messages,
        "recipients": stats.recipients,
        "bytes": stats.bytes,
        "span_secs": stats.span.as_secs_f64(),
        "turns": stats.turns,
        "turns_per_message": stats.turns_per_message(),
        "reused_messages": stats.reused_messages,
        "reused_turns_per_message": stats.reused_turns_per_message(),
        "tls_sessions": stats.tls_sessions,
        "tls_failures": stats.tls_failures,
        "tls_messages": stats.tls_messages,
        "auth_sessions": stats.auth_sessions,
        "refusals": stats.refusals,
        "violations": stats.violations,
        "duplicates": stats.duplicates,
        "addresses": stats.addresses.len(),
    });
    let text = format!("{value}\n");
    let written = if path.as_os_str() == "-" {
        std::io::stdout().write_all(text.as_bytes())
    } else {
        std::fs::write(path, text)
    };
    written.map_err(|error| {
        Failure::new(
            Exit::CantCreate,
            format!("{}: cannot write the statistics: {error}", path.display()),
        )
        .into()
    })
}
