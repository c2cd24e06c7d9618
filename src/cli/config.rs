//! The configuration file: found, read, checked, and merged with the command line into [`Settings`].
//!
//! Order: flags, then the file, then the defaults. Keys that are not known are errors, with line, column and the nearest
//! known key, because a misspelt limit that is silently ignored is found out by the receivers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::args::{self, DeliveryArgs, DsnNotify, DsnRet, InDoubtMode, TlsMode};
use super::exit::{Exit, Failure};
use crate::dkim::Signers;
use crate::engine::settings::{DomainSettings, QueueSettings, Settings};
use crate::engine::stop_on::StopRule;

mod check;
pub(super) mod dkim;
mod pace;
mod providers;
mod relay;
mod show;

use check::check;
use pace::{RateKey, apply_pace_keys, rate, rate_flag};
use providers::{apply_providers, place_in};
use relay::{credentials, dsn, identity, relays};
pub use show::to_toml;

/// The file, as written.
#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
struct File {
    hello: Option<String>,
    port: Option<u16>,
    bind: Option<Vec<IpAddr>>,
    relay: Option<Vec<String>>,
    relay_spread: Option<bool>,
    fallback: Option<Vec<String>>,
    fallback_after: Option<u32>,
    credentials: Option<PathBuf>,
    auth_in_clear: Option<bool>,
    tls: Option<TlsMode>,
    tls_ca: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    max_chunk: Option<u64>,
    allow_loopback: Option<bool>,
    dns: Option<Vec<SocketAddr>>,
    dns_timeout: Option<Time>,
    state: Option<PathBuf>,
    max_workers: Option<u32>,
    max_sessions: Option<u32>,
    window_start: Option<u32>,
    window_step: Option<f32>,
    session_backlog: Option<u32>,
    rate: Option<RateKey>,
    connect_rate: Option<RateKey>,
    source_rate: Option<RateKey>,
    max_recipients: Option<usize>,
    sender_refusals: Option<u32>,
    promote: Option<bool>,
    promote_share: Option<f64>,
    promote_min: Option<usize>,
    promote_queues_max: Option<u16>,
    stop_on: Option<Vec<String>>,
    suppress: Option<Vec<PathBuf>>,
    idle: Option<Time>,
    session_age: Option<Time>,
    min_data_rate: Option<u64>,
    providers: Option<PathBuf>,
    memory: Option<bool>,
    sync: Option<bool>,
    guard: Option<Time>,
    timeouts: Option<TimeoutKeys>,
    retry: Option<RetryKeys>,
    dsn: Option<DsnKeys>,
    dkim: Option<Vec<dkim::DkimKeys>>,
    queue: Option<BTreeMap<String, QueueKeys>>,
    domain: Option<BTreeMap<String, DomainKeys>>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
struct TimeoutKeys {
    connect: Option<Time>,
    greeting: Option<Time>,
    ehlo: Option<Time>,
    starttls: Option<Time>,
    auth: Option<Time>,
    mail: Option<Time>,
    rcpt: Option<Time>,
    data: Option<Time>,
    body: Option<Time>,
    dot: Option<Time>,
    rset: Option<Time>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
struct RetryKeys {
    min: Option<Time>,
    max: Option<Time>,
    expire: Option<Time>,
    run_for: Option<Time>,
    in_doubt_wait: Option<Time>,
    in_doubt: Option<InDoubtMode>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
struct QueueKeys {
    #[serde(default)]
    domains: Vec<String>,
    #[serde(default)]
    mx: Vec<String>,
    max_workers: Option<u32>,
    max_sessions: Option<u32>,
    rate: Option<RateKey>,
    connect_rate: Option<RateKey>,
    tls: Option<TlsMode>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct DomainKeys {
    tls: TlsMode,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
struct DsnKeys {
    ret: Option<DsnRet>,
    notify: Option<Vec<DsnNotify>>,
    envid: Option<String>,
    orcpt: Option<bool>,
}

/// A duration in the notation of the command line.
#[derive(Debug, Clone, Copy)]
struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        args::duration(&text)
            .map(Time)
            .map_err(serde::de::Error::custom)
    }
}

/// The settings in force: the file that `flags` name or that is found, with the flags on top.
///
/// # Errors
/// A [`Failure`] with [`Exit::Config`], [`Exit::NoInput`] or [`Exit::Usage`].
pub fn settings(flags: &DeliveryArgs) -> Result<Settings> {
    let file = match find(flags.config.as_deref())? {
        Some(path) => read(&path)?,
        None => File::default(),
    };
    let mut settings = Settings::default();
    apply_file(&mut settings, file)?;
    apply_flags(&mut settings, flags)?;
    check(&settings)?;
    Ok(settings)
}

fn find(named: Option<&Path>) -> Result<Option<PathBuf>> {
    if let Some(path) = named {
        return Ok(Some(path.to_path_buf()));
    }
    let user = match (
        std::env::var_os("XDG_CONFIG_HOME"),
        std::env::var_os("HOME"),
    ) {
        (Some(base), _) if !base.is_empty() => Some(PathBuf::from(base)),
        (_, Some(home)) => Some(PathBuf::from(home).join(".config")),
        _ => None,
    };
    let candidates = [
        user.map(|base| base.join("mailer/mailer.toml")),
        Some(PathBuf::from("/etc/mailer.toml")),
    ];
    Ok(candidates.into_iter().flatten().find(|path| path.exists()))
}

fn read(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(
            Exit::NoInput,
            format!("{}: cannot read the configuration: {error}", path.display()),
        )
    })?;
    parse(&text, &path.display().to_string())
}

fn parse(text: &str, name: &str) -> Result<File> {
    toml::from_str(text).map_err(|error| {
        let place = place_in(text, error.span().map_or(0, |span| span.start));
        let failure = Failure::new(Exit::Config, format!("{name}:{place} {}", error.message()));
        match nearest_key(error.message()) {
            Some(key) => failure.hint(format!(
                "did you mean `{key}`? `mailer config` lists all keys"
            )),
            None => failure.hint("`mailer config` lists all keys with their values"),
        }
        .into()
    })
}

/// The known key nearest to the one that an "unknown field" message is about.
fn nearest_key(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let typed = message
        .starts_with("unknown field")
        .then(|| quoted.next())
        .flatten()?;
    let known = quoted.map(|key| (strsim::damerau_levenshtein(typed, key), key));
    known
        .min()
        .filter(|(distance, _)| *distance <= 4)
        .map(|(_, key)| key.to_owned())
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn set_time(place: &mut Duration, value: Option<Time>) {
    set(place, value.map(|time| time.0));
}

fn apply_file(settings: &mut Settings, mut file: File) -> Result<()> {
    apply_relay_keys(settings, &mut file)?;
    apply_pace_keys(settings, &file);
    apply_providers(settings, file.providers.take())?;
    set(&mut settings.memory, file.memory);
    settings.hello = file.hello;
    set(&mut settings.bind, file.bind);
    set(&mut settings.data_rate_min, file.min_data_rate);
    set(&mut settings.sync, file.sync);
    set_time(&mut settings.guard, file.guard);
    set(&mut settings.port, file.port);
    set(&mut settings.allow_loopback, file.allow_loopback);
    set(&mut settings.dns, file.dns);
    set(&mut settings.state, file.state);
    set(&mut settings.workers_max, file.max_workers);
    set(&mut settings.sessions_per_site, file.max_sessions);
    set(&mut settings.recipients_max, file.max_recipients);
    set(&mut settings.sender_refusals, file.sender_refusals);
    let promote = &mut settings.promote;
    set(&mut promote.is_on, file.promote);
    set(&mut promote.share, file.promote_share);
    set(&mut promote.min, file.promote_min);
    set(&mut promote.queues_max, file.promote_queues_max);
    settings.stop_on = stop_rules(&file.stop_on.take().unwrap_or_default())?;
    suppress(settings, &file.suppress.take().unwrap_or_default())?;
    set_time(&mut settings.dns_timeout, file.dns_timeout);
    set_time(&mut settings.idle, file.idle);
    set_time(&mut settings.session_age_max, file.session_age);
    let keys = file.timeouts.unwrap_or_default();
    let timeouts = &mut settings.timeouts;
    set_time(&mut timeouts.connect, keys.connect);
    set_time(&mut timeouts.greeting, keys.greeting);
    set_time(&mut timeouts.ehlo, keys.ehlo);
    set_time(&mut timeouts.starttls, keys.starttls);
    set_time(&mut timeouts.auth, keys.auth);
    set_time(&mut timeouts.mail, keys.mail);
    set_time(&mut timeouts.rcpt, keys.rcpt);
    set_time(&mut timeouts.data, keys.data);
    set_time(&mut timeouts.body, keys.body);
    set_time(&mut timeouts.dot, keys.dot);
    set_time(&mut timeouts.rset, keys.rset);
    let keys = file.retry.unwrap_or_default();
    let retry = &mut settings.retry;
    set_time(&mut retry.min, keys.min);
    set_time(&mut retry.max, keys.max);
    set_time(&mut retry.expire, keys.expire);
    set_time(&mut retry.run_for, keys.run_for);
    set_time(&mut retry.in_doubt_wait, keys.in_doubt_wait);
    set(&mut retry.in_doubt, keys.in_doubt.map(InDoubtMode::policy));
    let keys = file.dkim.take().unwrap_or_default().into_iter();
    let keys: Vec<_> = keys.map(dkim::dkim_key).collect::<Result<_>>()?;
    let (keys, signers) = keys.into_iter().unzip();
    settings.dkim = keys;
    settings.signers = Arc::new(Signers::new(signers));
    let domain = |(pattern, keys): (String, DomainKeys)| DomainSettings {
        pattern,
        tls: keys.tls.policy(),
    };
    settings.domains = file
        .domain
        .unwrap_or_default()
        .into_iter()
        .map(domain)
        .collect();
    settings.queues = file
        .queue
        .unwrap_or_default()
        .into_iter()
        .map(queue)
        .collect();
    Ok(())
}

fn apply_relay_keys(settings: &mut Settings, file: &mut File) -> Result<()> {
    settings.relays = relays(&file.relay.take().unwrap_or_default())?;
    set(&mut settings.relay_spread, file.relay_spread);
    settings.fallback = relays(&file.fallback.take().unwrap_or_default())?;
    set(&mut settings.fallback_after, file.fallback_after);
    set(&mut settings.auth_in_clear, file.auth_in_clear);
    set(&mut settings.tls, file.tls.map(TlsMode::policy));
    set(&mut settings.bdat_bytes_max, file.max_chunk);
    settings.tls_files.ca = file.tls_ca.take();
    settings.tls_files.identity = identity(file.tls_cert.take(), file.tls_key.take())?;
    settings.credentials = file
        .credentials
        .take()
        .map(|path| credentials(&path))
        .transpose()?;
    if let Some(keys) = file.dsn.take() {
        let notify = keys.notify.unwrap_or_default();
        settings.dsn = dsn(keys.ret, &notify, keys.envid, keys.orcpt.unwrap_or(false))?;
    }
    Ok(())
}

fn apply_relay_flags(settings: &mut Settings, flags: &DeliveryArgs) -> Result<()> {
    if !flags.relay.is_empty() {
        settings.relays = relays(&flags.relay)?;
    }
    if !flags.fallback.is_empty() {
        settings.fallback = relays(&flags.fallback)?;
    }
    settings.relay_spread |= flags.relay_spread;
    settings.auth_in_clear |= flags.auth_in_clear;
    set(&mut settings.tls, flags.tls.map(TlsMode::policy));
    if flags.tls_ca.is_some() {
        settings.tls_files.ca.clone_from(&flags.tls_ca);
    }
    if let Some(files) = identity(flags.tls_cert.clone(), flags.tls_key.clone())? {
        settings.tls_files.identity = Some(files);
    }
    match &flags.credentials {
        Some(path) => settings.credentials = Some(credentials(path)?),
        None if settings.credentials.is_none() => settings.credentials = relay::from_environment()?,
        None => {}
    }
    if let Some(dsn) = dsn(
        flags.dsn_ret,
        &flags.dsn_notify,
        flags.dsn_envid.clone(),
        flags.dsn_orcpt,
    )? {
        settings.dsn = Some(dsn);
    }
    Ok(())
}

fn stop_rules(texts: &[String]) -> Result<Vec<StopRule>> {
    let rule = |text: &String| {
        let rule = text.parse::<StopRule>();
        rule.map_err(|error| Failure::new(Exit::Config, format!("stop_on: {error}")).into())
    };
    texts.iter().map(rule).collect()
}

/// Adds lists of people whom nothing is sent to: one that cannot be read stops the run, or they would be mailed.
fn suppress(settings: &mut Settings, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let shown = path.display();
        let text = std::fs::read(path).map_err(|error| {
            let what = format!("{shown}: cannot read the suppression list: {error}");
            Failure::new(Exit::NoInput, what)
        })?;
        let added = settings
            .suppression
            .add(&shown.to_string(), &text, Timestamp::now());
        added.map_err(|error| {
            Failure::new(Exit::Data, format!("{shown}: suppression list: {error}"))
        })?;
    }
    Ok(())
}

fn queue((name, keys): (String, QueueKeys)) -> QueueSettings {
    QueueSettings {
        name,
        domains: keys.domains,
        mx: keys.mx,
        workers_max: keys.max_workers,
        sessions_per_site: keys.max_sessions,
        rate: rate(keys.rate),
        connect_rate: rate(keys.connect_rate),
        tls: keys.tls.map(TlsMode::policy),
    }
}

fn apply_flags(settings: &mut Settings, flags: &DeliveryArgs) -> Result<()> {
    apply_relay_flags(settings, flags)?;
    if flags.hello.is_some() {
        settings.hello.clone_from(&flags.hello);
    }
    if !flags.bind.is_empty() {
        settings.bind.clone_from(&flags.bind);
    }
    if !flags.dns.is_empty() {
        settings.dns.clone_from(&flags.dns);
    }
    settings.allow_loopback |= flags.allow_loopback;
    set(&mut settings.port, flags.port);
    set(&mut settings.state, flags.state.clone());
    set(&mut settings.workers_max, flags.max_workers);
    if !flags.stop_on.is_empty() {
        settings.stop_on = stop_rules(&flags.stop_on)?;
    }
    suppress(settings, &flags.suppress)?;
    rate_flag(&mut settings.rate, flags.rate.as_deref())?;
    set(&mut settings.dns_timeout, flags.dns_timeout);
    set(&mut settings.retry.min, flags.retry_min);
    set(&mut settings.retry.max, flags.retry_max);
    set(&mut settings.retry.expire, flags.expire);
    set(&mut settings.retry.run_for, flags.run_for);
    settings.stop_after = flags.run_for;
    set(&mut settings.segment_bytes, flags.segment_bytes);
    if let Some(time) = flags.finish_by {
        let left = time.until(&jiff::ZonedDateTime::now());
        settings.retry.run_for = settings.retry.run_for.min(left);
        settings.stop_after = Some(settings.stop_after.map_or(left, |after| after.min(left)));
    }
    set(&mut settings.retry.in_doubt_wait, flags.in_doubt_wait);
    set(
        &mut settings.retry.in_doubt,
        flags.in_doubt.map(InDoubtMode::policy),
    );
    settings.sync |= flags.sync;
    settings.memory &= !flags.no_memory;
    if let Some(limit) = flags.timeout {
        settings.timeouts.cap(limit);
    }
    set(&mut settings.timeouts.connect, flags.connect_timeout);
    set(&mut settings.timeouts.dot, flags.dot_timeout);
    if settings.hello.is_none() {
        settings.hello = host_name();
    }
    if settings.state.as_os_str().is_empty() {
        settings.state = default_state()?;
    }
    Ok(())
}

/// This machine's name, if it is fully qualified: only then is it one that a server can look up (RFC 5321 4.1.4).
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()?
        .trim()
        .to_owned();
    let is_usable = name.contains('.') && crate::smtp::command::check_hello(&name).is_ok();
    is_usable.then_some(name)
}

fn default_state() -> Result<PathBuf> {
    match (std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME")) {
        (Some(base), _) if !base.is_empty() => Ok(PathBuf::from(base).join("mailer")),
        (_, Some(home)) => Ok(PathBuf::from(home).join(".local/state/mailer")),
        _ => Err(
            Failure::new(Exit::Config, "neither XDG_STATE_HOME nor HOME is set")
                .hint("name a directory with --state DIR")
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests;
