//! `mailer explain`: how mail for a domain would be sent, and how much of it in an hour.
//!
//! Names are really looked up; no connection is made. A domain that no mail can go to is told on standard error (in JSON, as
//! its object) and the others follow; the exit status is that of the worst: 1 refused, 75 not to be found out now, 69 no DNS.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::args::{ExplainArgs, TlsMode};
use super::deliver::start_failure;
use super::exit::{Exit, Failure};
use super::hosts::time;
use super::{config, job, say};
use crate::dns::DnsFailure;
use crate::engine::explain::{Bound, Capacity, Explainer, Explanation, HostView, QueueReason};
use crate::engine::resolve::PolicyOrigin;
use crate::hosts::HostStore;
use crate::mail::domain::Domain;
use crate::mail::verdict::printable;
use crate::report::summary::plural;
use crate::smtp::TlsPolicy;

/// How long a message takes if nobody says otherwise.
const MESSAGE_TIME: Duration = Duration::from_millis(200);

/// Runs the command.
///
/// # Errors
/// A [`Failure`]: the configuration is wrong, or a name is none.
pub fn run(args: &ExplainArgs) -> Result<Exit> {
    let settings = config::settings(&args.delivery)?;
    let domains: Vec<Domain> = args
        .domain
        .iter()
        .map(|text| domain(text))
        .collect::<Result<_>>()?;
    let memory = settings
        .memory
        .then(|| HostStore::open_existing(&settings.state));
    let memory = match memory.transpose() {
        Ok(store) => store.flatten(),
        Err(error) => {
            say::complain(format!("{error}: explained without what was learned"));
            None
        }
    };
    let message_time = args.message_time.unwrap_or(MESSAGE_TIME);
    let explainer = Explainer::new(settings, memory, job::now_ms()).map_err(start_failure)?;
    let (mut worst, mut gap) = (Exit::Done, "");
    for domain in &domains {
        let shown = match explainer.explain(domain.as_str()) {
            Ok(it) if args.json => format!("{}\n", object(domain, &it, message_time)),
            Ok(it) => format!(
                "{}{}",
                std::mem::replace(&mut gap, "\n"),
                text(domain, &it, message_time)
            ),
            Err(failure) => {
                worst = worse(worst, &failure);
                match args.json {
                    true => format!("{}\n", error_object(domain, &failure)),
                    false => {
                        say::complain(format!("{}: {failure}", domain.as_str()));
                        continue;
                    }
                }
            }
        };
        say::to_stdout(&shown)?;
    }
    Ok(worst)
}

/// The domain that is typed, or that of an address.
fn domain(text: &str) -> Result<Domain> {
    let name = text.rsplit_once('@').map_or(text, |(_, domain)| domain);
    Domain::parse(name).map_err(|fault| {
        let text = format!("{text:?} is no domain: {fault}");
        Failure::new(Exit::Usage, text)
            .hint("for instance `mailer explain example.org`")
            .into()
    })
}

/// The status that says more: no DNS, then what may change, then what does not.
fn worse(before: Exit, failure: &DnsFailure) -> Exit {
    let this = match failure {
        failure if failure.is_no_server() => Exit::Network,
        failure if failure.is_soft() => Exit::Pending,
        _ => Exit::Failures,
    };
    let rank = |exit: Exit| match exit {
        Exit::Done => 0,
        Exit::Failures => 1,
        Exit::Pending => 2,
        _ => 3,
    };
    if rank(this) > rank(before) {
        this
    } else {
        before
    }
}

fn text(domain: &Domain, it: &Explanation, message_time: Duration) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}", domain.as_str());
    let _ = writeln!(
        out,
        "  queue    {} ({})",
        it.queue,
        reason(&it.queue_reason)
    );
    let _ = writeln!(
        out,
        "  site     {}{}",
        printable(&it.site, 2000),
        rolled_up(it)
    );
    for (number, host) in it.hosts.iter().enumerate() {
        let word = match (number, it.are_relays) {
            (0, true) => "relays",
            (0, false) => "servers",
            _ => "",
        };
        let _ = writeln!(out, "  {word:<7}  {}", server(host));
    }
    let (tls, origin) = tls(it);
    let _ = writeln!(out, "  TLS      {tls} ({origin})");
    let capacity = it.capacity(message_time);
    let width = it.limits.iter().map(|limit| limit.name.len()).max();
    let width = width.unwrap_or(0);
    for (place, limit) in it.limits.iter().enumerate() {
        let word = if place == 0 { "limits" } else { "" };
        let mark = if place == capacity.binds {
            "  <- binds"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "  {word:<7}  {:<width$}  {:>22}  {}{mark}",
            limit.name,
            amount(&limit.bound),
            limit.origin.name()
        );
    }
    for row in it.learned.iter().filter(|row| row.learned.window > 0) {
        let from = match &*row.source {
            "" => String::new(),
            source => format!(" from {source}"),
        };
        let _ = writeln!(
            out,
            "  learned  begins with {}{from} ({})",
            plural(u64::from(row.learned.window), "session"),
            time(row.learned_ms)
        );
    }
    let from = match it.sources {
        1 => String::new(),
        many => format!(" from {many} source addresses"),
    };
    let _ = writeln!(out, "  at most  {}{from}", speed(&capacity));
    out
}

fn rolled_up(it: &Explanation) -> String {
    match &it.provider {
        Some(provider) if provider.rolls_up => " (all its domains are one site)".to_owned(),
        Some(provider) => format!(
            " (provider {}: limits for each set of hosts)",
            provider.name
        ),
        None => String::new(),
    }
}

fn reason(reason: &QueueReason) -> String {
    match reason {
        QueueReason::Domain(name) => format!("it names {name}"),
        QueueReason::Suffix(suffix) => format!("it names all below {suffix}"),
        QueueReason::Mx(host) => format!("it names the MX host {host}, or those above it"),
        QueueReason::General => "no other names the domain or its hosts".to_owned(),
    }
}

fn server(host: &HostView) -> String {
    let addresses = host.addresses.iter().map(|(ip, row)| {
        let mut notes = Vec::new();
        if let Some(row) = row {
            notes.extend(row.rtt_ms.map(|ms| format!("{ms} ms")));
            notes.extend(
                row.dead_until_ms
                    .map(|ms| format!("left out until {}", time(ms))),
            );
            if row.tls_failed_ms.is_some() {
                notes.push("TLS fails".to_owned());
            }
        }
        match notes.is_empty() {
            true => ip.to_string(),
            false => format!("{ip} ({})", notes.join(", ")),
        }
    });
    let addresses: Vec<String> = addresses.collect();
    format!(
        "{:>3} {}  {}",
        host.preference,
        host.name,
        addresses.join(", ")
    )
}

fn tls(it: &Explanation) -> (&'static str, &'static str) {
    let (policy, origin) = it.tls;
    let origin = match origin {
        PolicyOrigin::Domain => "of the domain",
        PolicyOrigin::Queue => "of the queue",
        PolicyOrigin::Provider => "the provider's servers are known for it",
        PolicyOrigin::General => "the general policy",
    };
    let word = match policy {
        TlsPolicy::Implicit => "from the first byte",
        policy => TlsMode::of(policy).name(),
    };
    (word, origin)
}

fn amount(bound: &Bound) -> String {
    match bound {
        Bound::Sessions(most) | Bound::Workers(most) => plural(u64::from(*most), "session"),
        Bound::MessagesPerSession(most) => {
            format!("{} a session", plural(u64::from(*most), "message"))
        }
        Bound::Rate(rate) | Bound::QueueRate(rate) => rate.to_string(),
        Bound::PerMinute(rate) => format!("{rate:.1}/min"),
        Bound::Connects(rate) | Bound::QueueConnects(rate) => format!("{rate} connections"),
    }
}

fn speed(capacity: &Capacity) -> String {
    let time = capacity.message_time.as_secs_f64();
    format!(
        "{} an hour ({} at a time, {time} s a message)",
        plural(capacity.per_hour.round() as u64, "message"),
        plural(u64::from(capacity.sessions), "session")
    )
}

fn object(domain: &Domain, it: &Explanation, message_time: Duration) -> Value {
    let capacity = it.capacity(message_time);
    let (tls, tls_origin) = tls(it);
    let hosts = it.hosts.iter().map(|host| {
        let addresses = host.addresses.iter().map(|(ip, row)| {
            let row = row.as_ref();
            json!({
                "ip": ip.to_string(),
                "rtt_ms": row.and_then(|row| row.rtt_ms),
                "dead_until": row.and_then(|row| row.dead_until_ms).map(time),
                "tls_fails": row.is_some_and(|row| row.tls_failed_ms.is_some()),
            })
        });
        json!({
            "preference": host.preference,
            "name": &*host.name,
            "addresses": addresses.collect::<Vec<_>>(),
        })
    });
    let limits = it.limits.iter().enumerate().map(|(place, limit)| {
        json!({
            "name": limit.name,
            "value": amount(&limit.bound),
            "origin": limit.origin.name(),
            "binds": place == capacity.binds,
        })
    });
    json!({
        "domain": domain.as_str(),
        "queue": it.queue,
        "queue_reason": reason(&it.queue_reason),
        "site": &*it.site,
        "provider": it.provider.as_ref().map(|provider| &*provider.name),
        "hosts": hosts.collect::<Vec<_>>(),
        "tls": tls,
        "tls_origin": tls_origin,
        "limits": limits.collect::<Vec<_>>(),
        "learned_sessions": it.learned.iter().map(|row| row.learned.window).max(),
        "sessions": capacity.sessions,
        "seconds_per_message": capacity.message_time.as_secs_f64(),
        "messages_per_hour": capacity.per_hour.round() as u64,
    })
}

fn error_object(domain: &Domain, failure: &DnsFailure) -> Value {
    json!({
        "domain": domain.as_str(),
        "error": failure.to_string(),
        "passing": failure.is_soft(),
    })
}
