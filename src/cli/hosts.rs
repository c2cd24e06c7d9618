//! `mailer hosts`: what is remembered of receivers from run to run, and how it is forgotten.
//!
//! Only what still holds is shown. Looking changes nothing, not even a file that cannot be used: that is an error here, and the
//! next run sets it aside.

use std::fmt::Write;
use std::net::IpAddr;

use anyhow::Result;
use serde_json::json;

use super::args::HostsArgs;
use super::exit::{Exit, Failure};
use super::{job, say};
use crate::hosts::{AddressRow, HostStore, HostsError, SiteRow};
use crate::mail::verdict::printable;
use crate::smtp::Pipelining;

/// The word for everything.
const ALL: &str = "all";
/// The longest key that is shown in the table.
const KEY_MAX: usize = 60;

/// Runs the command.
///
/// # Errors
/// A [`Failure`]: the memory cannot be used, or nothing is remembered of what is to be forgotten.
pub fn run(args: &HostsArgs) -> Result<Exit> {
    let state = job::state_path(&args.state)?;
    let store = HostStore::open_existing(&state).map_err(failure)?;
    if !args.forget.is_empty() {
        let gone = forget(store, &args.forget)?;
        let rows = if gone == 1 { "row" } else { "rows" };
        say::to_stdout(&format!("{gone} {rows} forgotten\n"))?;
        return Ok(Exit::Done);
    }
    let Some(store) = store else {
        return Ok(Exit::Done);
    };
    let (mut sites, mut addresses) = store.all(job::now_ms()).map_err(failure)?;
    if !args.name.is_empty() {
        sites.retain(|row| args.name.iter().any(|name| is_site(&row.key, name)));
        addresses.retain(|row| args.name.iter().any(|name| is_address(row.ip, name)));
    }
    let shown = match args.json {
        true => objects(&sites, &addresses),
        false => tables(&sites, &addresses),
    };
    say::to_stdout(&shown)?;
    Ok(Exit::Done)
}

fn failure(error: HostsError) -> anyhow::Error {
    let exit = if error.is_unfit { Exit::Data } else { Exit::Io };
    let failure = Failure::new(exit, &error);
    match error.is_unfit {
        true => failure.hint("it is safe to delete; the next run sets it aside"),
        false => failure,
    }
    .into()
}

/// Forgets what is named. Returns how many rows that were.
fn forget(store: Option<HostStore>, names: &[String]) -> Result<usize> {
    let is_all = names.iter().any(|name| name == ALL);
    let Some(mut store) = store else {
        return if is_all {
            Ok(0)
        } else {
            Err(unknown(&names[0]))
        };
    };
    if is_all {
        return store.forget_all().map_err(failure);
    }
    let (sites, addresses) = store.all(job::now_ms()).map_err(failure)?;
    let (mut keys, mut ips) = (Vec::new(), Vec::new());
    for name in names {
        let before = keys.len() + ips.len();
        keys.extend(
            sites
                .iter()
                .map(|row| &*row.key)
                .filter(|key| is_site(key, name)),
        );
        ips.extend(
            addresses
                .iter()
                .map(|row| row.ip)
                .filter(|ip| is_address(*ip, name)),
        );
        if keys.len() + ips.len() == before {
            return Err(unknown(name));
        }
    }
    store.forget(&keys, &ips).map_err(failure)
}

fn unknown(name: &str) -> anyhow::Error {
    Failure::new(Exit::NoInput, format!("nothing is remembered of {name}"))
        .hint("`mailer hosts` lists what is")
        .into()
}

/// True if `name` is the provider or the whole key of a site, or the name of one of its hosts, or of a domain above one.
fn is_site(key: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if key == name {
        return true;
    }
    if let Some(provider) = key.strip_prefix("provider ") {
        return provider == name;
    }
    let hosts = key.strip_prefix("relay ").unwrap_or(key).split(',');
    hosts.into_iter().any(|host| {
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        [host, bare].into_iter().any(|host| {
            let above = host.strip_suffix(&name);
            above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        })
    })
}

fn is_address(ip: IpAddr, name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse() == Ok(ip)
}

fn tables(sites: &[SiteRow], addresses: &[AddressRow]) -> String {
    let mut out = String::new();
    if !sites.is_empty() {
        let width = sites.iter().map(|row| row.key.len().min(KEY_MAX)).max();
        let width = width.unwrap_or(0).max(4);
        let _ = writeln!(
            out,
            "{:<width$}  {:<15}  {:>8}  {:>7}  {:>11}  {:>10}  SEEN",
            "SITE", "FROM", "SESSIONS", "CEILING", "PER SESSION", "PER MINUTE"
        );
        for row in sites {
            let learned = &row.learned;
            let window = (learned.window > 0).then_some(learned.window);
            let rate = learned.rate_per_minute.map(|rate| format!("{rate:.1}"));
            let _ = writeln!(
                out,
                "{:<width$}  {:<15}  {:>8}  {:>7}  {:>11}  {:>10}  {}",
                printable(&row.key, KEY_MAX),
                or_dash(Some(&*row.source).filter(|source| !source.is_empty())),
                or_dash(window),
                or_dash(learned.sessions_ceiling),
                or_dash(learned.messages_per_session),
                or_dash(rate),
                time(row.seen_ms)
            );
        }
    }
    if !addresses.is_empty() {
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(
            out,
            "{gap}{:<25}  {:>6}  {:<8}  {:<7}  {:<20}  {:<20}  OFFERS",
            "ADDRESS", "RTT", "TLS", "AHEAD", "SEEN", "DEAD UNTIL"
        );
    }
    for row in addresses {
        let rtt = row.rtt_ms.map(|ms| format!("{ms} ms"));
        let _ = writeln!(
            out,
            "{:<25}  {:>6}  {:<8}  {:<7}  {:<20}  {:<20}  {}",
            row.ip,
            or_dash(rtt),
            or_dash(tls_word(row)),
            ahead(row.level),
            time(row.seen_ms),
            or_dash(row.dead_until_ms.map(time)),
            row.capabilities.as_deref().unwrap_or("-")
        );
    }
    out
}

fn objects(sites: &[SiteRow], addresses: &[AddressRow]) -> String {
    let sites = sites.iter().map(|row| {
        json!({
            "kind": "site",
            "site": &*row.key,
            "source": &*row.source,
            "sessions": row.learned.window,
            "sessions_ceiling": row.learned.sessions_ceiling,
            "messages_per_session": row.learned.messages_per_session,
            "rate_per_minute": row.learned.rate_per_minute,
            "learned": time(row.learned_ms),
            "seen": time(row.seen_ms),
        })
    });
    let addresses = addresses.iter().map(|row| {
        json!({
            "kind": "address",
            "ip": row.ip.to_string(),
            "ahead": ahead(row.level),
            "chunking_fails": row.no_chunking,
            "failures": row.failures,
            "dead_until": row.dead_until_ms.map(time),
            "tls": row.tls.as_deref(),
            "tls_failed": row.tls_failed_ms.map(|(first, latest)| [time(first), time(latest)]),
            "capabilities": row.capabilities.as_deref(),
            "rtt_ms": row.rtt_ms,
            "seen": time(row.seen_ms),
        })
    });
    sites
        .chain(addresses)
        .map(|row| format!("{row}\n"))
        .collect()
}

/// How TLS went the last time, in a word.
fn tls_word(row: &AddressRow) -> Option<String> {
    if row.tls_failed_ms.is_some() {
        return Some("fails".to_owned());
    }
    let last = row.tls.as_deref()?;
    let version = last.split(' ').next().unwrap_or_default();
    Some(if version.is_empty() { "clear" } else { version }.to_owned())
}

fn ahead(level: Pipelining) -> &'static str {
    match level {
        Pipelining::None => "never",
        Pipelining::Classic => "message",
        Pipelining::Cross => "next",
    }
}

/// A time for people and programs, in whole seconds.
pub fn time(ms: i64) -> String {
    let at = jiff::Timestamp::from_second(ms.div_euclid(1000));
    at.map_or_else(|_| "-".to_owned(), |at| at.to_string())
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_known_by_its_provider_its_hosts_and_the_domain_they_are_in() {
        for (key, name, is_it) in [
            ("provider google", "google", true),
            ("provider google", "Google", true),
            ("provider google", "provider google", true),
            ("provider google", "oogle", false),
            ("mx1.a.test,mx2.a.test", "mx2.a.test", true),
            ("mx1.a.test,mx2.a.test", "A.test", true),
            ("mx1.a.test,mx2.a.test", "mx1.a.test,mx2.a.test", true),
            ("mx1.ba.test", "a.test", false),
            ("relay smtp.a.test:587", "smtp.a.test", true),
            ("relay smtp.a.test:587", "smtp.a.test:587", true),
            ("relay smtp.a.test:587", "587", false),
        ] {
            assert_eq!(is_site(key, name), is_it, "{key} {name}");
        }
        assert!(is_address("::1".parse().unwrap(), "[::1]"));
        assert!(!is_address("::1".parse().unwrap(), "localhost"));
    }
}
