//! Relays, credentials, certificates and notifications: from their notation to settings.
//!
//! A credentials file holds secrets: it is refused if anybody but its owner can read it. No error message ever holds
//! what stands in it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;

use super::super::args::{DsnNotify, DsnRet};
use super::super::exit::{Exit, Failure};
use crate::engine::settings::Relay;
use crate::smtp::dsn::{Notify, Ret};
use crate::smtp::{Credentials, Dsn, Mechanism, Protocol, Secret};

/// Reads relays: `HOST[:PORT]`, `smtp://HOST:PORT`, `smtps://HOST[:PORT]`, `lmtp://HOST:PORT`, `lmtp:///PATH`.
pub(super) fn relays(texts: &[String]) -> Result<Vec<Relay>> {
    texts.iter().map(|text| relay(text)).collect()
}

pub(super) fn relay(text: &str) -> Result<Relay> {
    let wrong = || {
        Failure::new(Exit::Usage, format!("`{text}` is not a relay")).hint(
            "HOST:PORT, [IPv6]:PORT, smtps://HOST, lmtp://HOST:PORT or lmtp:///PATH/OF/SOCKET",
        )
    };
    let (scheme, rest) = text.split_once("://").unwrap_or(("smtp", text));
    let (protocol, implicit_tls, default_port) = match scheme {
        "smtp" => (Protocol::Smtp, false, 25),
        "smtps" => (Protocol::Smtp, true, 465),
        "lmtp" => (Protocol::Lmtp, false, 24),
        _ => return Err(wrong().into()),
    };
    let mut relay = Relay {
        host: String::new(),
        port: default_port,
        protocol,
        implicit_tls,
        socket: None,
    };
    if rest.starts_with('/') && protocol == Protocol::Lmtp {
        relay.host = "localhost".into();
        relay.socket = Some(PathBuf::from(rest));
        return Ok(relay);
    }
    (relay.host, relay.port) = host_and_port(rest, default_port).ok_or_else(wrong)?;
    Ok(relay)
}

fn host_and_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return (address.port() != 0).then(|| (address.ip().to_string(), address.port()));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<std::net::IpAddr>() {
        return Some((address.to_string(), default_port));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, default_port),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!host.is_empty() && port != 0 && host.chars().all(is_name)).then(|| (host.to_owned(), port))
}

/// A relay in the notation that [`relay`] reads.
pub(super) fn to_text(relay: &Relay) -> String {
    if let Some(path) = &relay.socket {
        return format!("lmtp://{}", path.display());
    }
    let scheme = match (relay.protocol, relay.implicit_tls) {
        (Protocol::Lmtp, _) => "lmtp://",
        (Protocol::Smtp, true) => "smtps://",
        (Protocol::Smtp, false) => "",
    };
    let host = if relay.host.contains(':') {
        format!("[{}]", relay.host)
    } else {
        relay.host.clone()
    };
    format!("{scheme}{host}:{}", relay.port)
}

/// What a credentials file holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialsFile {
    user: String,
    password: Option<String>,
    token: Option<String>,
    mechanism: Option<String>,
}

/// Reads a credentials file: TOML with `user`, `password` or `token`, and perhaps `mechanism`.
pub(super) fn credentials(path: &Path) -> Result<Credentials> {
    let fail = |exit, what: &str| Failure::new(exit, format!("{}: {what}", path.display()));
    let unreadable = |error: std::io::Error| {
        fail(
            Exit::NoInput,
            &format!("cannot read the credentials: {error}"),
        )
    };
    let mode = std::fs::metadata(path)
        .map_err(unreadable)?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(fail(Exit::Permission, "others can read these credentials")
            .hint(format!("chmod 600 {}", path.display()))
            .into());
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    // The parser's own message may quote the line, secret included.
    let file: CredentialsFile = toml::from_str(&text).map_err(|_| {
        fail(
            Exit::Config,
            "not of the form user = \"...\", password = \"...\" (or token), mechanism (optional)",
        )
    })?;
    let secret = match (file.password, file.token) {
        (Some(password), None) => Secret::Password(password),
        (None, Some(token)) => Secret::Token(token),
        _ => return Err(fail(Exit::Config, "needs either a password or a token").into()),
    };
    let mechanism = file.mechanism.map(|name| {
        Mechanism::from_name(&name).ok_or_else(|| {
            fail(
                Exit::Config,
                "mechanism: not one of PLAIN, LOGIN, SCRAM-SHA-256, XOAUTH2, OAUTHBEARER",
            )
        })
    });
    Credentials::new(file.user, secret, mechanism.transpose()?)
        .map_err(|bad| fail(Exit::Config, &bad.to_string()).into())
}

/// Credentials from `MAILER_RELAY_USER` with `MAILER_RELAY_PASSWORD` or `MAILER_RELAY_TOKEN`.
pub(super) fn from_environment() -> Result<Option<Credentials>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(user) = variable("MAILER_RELAY_USER") else {
        return Ok(None);
    };
    let secret = match (
        variable("MAILER_RELAY_PASSWORD"),
        variable("MAILER_RELAY_TOKEN"),
    ) {
        (Some(password), None) => Secret::Password(password),
        (None, Some(token)) => Secret::Token(token),
        _ => {
            let text = "MAILER_RELAY_USER needs either MAILER_RELAY_PASSWORD or MAILER_RELAY_TOKEN beside it";
            return Err(Failure::new(Exit::Config, text).into());
        }
    };
    let bad = |bad| {
        Failure::new(
            Exit::Config,
            format!("MAILER_RELAY_USER and its secret: {bad}"),
        )
    };
    Ok(Some(Credentials::new(user, secret, None).map_err(bad)?))
}

/// A certificate and its key go together.
pub(super) fn identity(
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        _ => Err(Failure::new(
            Exit::Config,
            "a certificate and its key must be given together",
        )
        .into()),
    }
}

/// What notifications are asked for; `None` if none.
pub(super) fn dsn(
    ret: Option<DsnRet>,
    notify: &[DsnNotify],
    envid: Option<String>,
    orcpt: bool,
) -> Result<Option<Dsn>> {
    let has = |kind| notify.contains(&kind);
    let notify_wish = match notify {
        [] => None,
        [DsnNotify::Never] => Some(Notify::Never),
        _ if has(DsnNotify::Never) => {
            return Err(
                Failure::new(Exit::Usage, "notify: `never` goes alone (RFC 3461 4.1)").into(),
            );
        }
        _ => Some(Notify::On {
            success: has(DsnNotify::Success),
            failure: has(DsnNotify::Failure),
            delay: has(DsnNotify::Delay),
        }),
    };
    let ret = ret.map(|ret| match ret {
        DsnRet::Full => Ret::Full,
        DsnRet::Hdrs => Ret::Hdrs,
    });
    let dsn = Dsn {
        ret,
        envid,
        notify: notify_wish,
        orcpt,
    };
    if !dsn.is_sayable() {
        return Err(Failure::new(
            Exit::Usage,
            "the envelope identifier must be printable ASCII of at most 100 bytes",
        )
        .into());
    }
    Ok((dsn != Dsn::default()).then_some(dsn))
}
