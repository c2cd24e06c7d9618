//! The settings in force as a configuration file: `mailer config`. Every key is there, those that are unset as comments.

use std::time::Duration;

use super::TlsMode;
use crate::engine::settings::Settings;
use crate::smtp::Dsn;
use crate::smtp::dsn::{Notify, Ret};

/// A duration in the notation of the configuration.
pub(super) fn show(time: Duration) -> String {
    let millis = time.as_millis();
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
    ];
    match units
        .iter()
        .find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit))
    {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// The settings as a configuration file that has the same effect.
pub fn to_toml(settings: &Settings) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
    let list = |values: &[String]| {
        toml::Value::Array(values.iter().map(|v| v.clone().into()).collect()).to_string()
    };
    let mut line = |key: &str, value: String| {
        let _ = writeln!(out, "{key} = {value}");
    };
    match &settings.hello {
        Some(name) => line("hello", text(name)),
        None => line(
            "# hello",
            "\"mail.example.org\"  # unset: the host name if fully qualified, else the address"
                .into(),
        ),
    }
    line(
        "relay",
        list(
            &settings
                .relays
                .iter()
                .map(super::relay::to_text)
                .collect::<Vec<_>>(),
        ),
    );
    line("relay_spread", settings.relay_spread.to_string());
    line(
        "# credentials",
        "\"/etc/mailer.secret\"  # unset: MAILER_RELAY_USER and MAILER_RELAY_PASSWORD, if there"
            .into(),
    );
    line("auth_in_clear", settings.auth_in_clear.to_string());
    line("tls", text(TlsMode::of(settings.tls).name()));
    let files = &settings.tls_files;
    let (cert, key) = files
        .identity
        .as_ref()
        .map(|(cert, key)| (Some(cert), Some(key)))
        .unwrap_or_default();
    for (name, path) in [
        ("tls_ca", files.ca.as_ref()),
        ("tls_cert", cert),
        ("tls_key", key),
    ] {
        match path {
            Some(path) => line(name, text(&path.display().to_string())),
            None => line(&format!("# {name}"), "\"FILE.pem\"".into()),
        }
    }
    line("max_chunk", settings.bdat_bytes_max.to_string());
    line("bind", list(&strings(&settings.bind)));
    line("port", settings.port.to_string());
    line("allow_loopback", settings.allow_loopback.to_string());
    line("dns", list(&strings(&settings.dns)));
    line("dns_timeout", text(&show(settings.dns_timeout)));
    line("state", text(&settings.state.display().to_string()));
    line("max_workers", settings.workers_max.to_string());
    line("max_sessions", settings.sessions_per_site.to_string());
    line("max_recipients", settings.recipients_max.to_string());
    line("idle", text(&show(settings.idle)));
    line("session_age", text(&show(settings.session_age_max)));
    line("min_data_rate", settings.data_rate_min.to_string());
    for (table, keys) in time_tables(settings) {
        let _ = writeln!(out, "\n[{table}]");
        for (key, time) in keys {
            let _ = writeln!(out, "{key} = \"{}\"", show(time));
        }
    }
    show_dsn(settings.dsn.as_ref(), &mut out);
    for domain in &settings.domains {
        let _ = writeln!(out, "\n[domain.{}]", text(&domain.pattern));
        let _ = writeln!(out, "tls = {}", text(TlsMode::of(domain.tls).name()));
    }
    for queue in &settings.queues {
        let _ = writeln!(out, "\n[queue.{}]", toml::Value::String(queue.name.clone()));
        let _ = writeln!(
            out,
            "domains = {}\nmx = {}",
            list(&queue.domains),
            list(&queue.mx)
        );
        match queue.tls {
            Some(tls) => drop(writeln!(out, "tls = {}", text(TlsMode::of(tls).name()))),
            None => drop(writeln!(
                out,
                "# tls = \"may\"  # unset: the general policy"
            )),
        }
        for (key, value) in [
            ("max_workers", queue.workers_max),
            ("max_sessions", queue.sessions_per_site),
        ] {
            let _ = match value {
                Some(value) => writeln!(out, "{key} = {value}"),
                None => writeln!(out, "# {key} = 20  # unset: the general limit"),
            };
        }
    }
    out
}

fn show_dsn(dsn: Option<&Dsn>, out: &mut String) {
    use std::fmt::Write;
    let unset = Dsn::default();
    let dsn = dsn.unwrap_or(&unset);
    out.push_str("\n[dsn]\n");
    let _ = match dsn.ret {
        Some(Ret::Full) => writeln!(out, "ret = \"full\""),
        Some(Ret::Hdrs) => writeln!(out, "ret = \"hdrs\""),
        None => writeln!(out, "# ret = \"hdrs\""),
    };
    let notify = match dsn.notify {
        None => Vec::new(),
        Some(Notify::Never) => vec!["never"],
        Some(Notify::On {
            success,
            failure,
            delay,
        }) => {
            let all = [(success, "success"), (failure, "failure"), (delay, "delay")];
            all.iter()
                .filter(|(is_on, _)| *is_on)
                .map(|(_, name)| *name)
                .collect()
        }
    };
    let _ = writeln!(out, "notify = {notify:?}");
    let _ = match &dsn.envid {
        Some(envid) => writeln!(out, "envid = {}", toml::Value::String(envid.clone())),
        None => writeln!(out, "# envid = \"newsletter-17\""),
    };
    let _ = writeln!(out, "orcpt = {}", dsn.orcpt);
}

fn strings<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn time_tables(settings: &Settings) -> [(&'static str, Vec<(&'static str, Duration)>); 2] {
    let (t, r) = (&settings.timeouts, &settings.retry);
    let timeouts = vec![
        ("connect", t.connect),
        ("greeting", t.greeting),
        ("ehlo", t.ehlo),
        ("starttls", t.starttls),
        ("auth", t.auth),
        ("mail", t.mail),
        ("rcpt", t.rcpt),
        ("data", t.data),
        ("body", t.body),
        ("dot", t.dot),
        ("rset", t.rset),
    ];
    let retry = vec![
        ("min", r.min),
        ("max", r.max),
        ("expire", r.expire),
        ("run_for", r.run_for),
        ("in_doubt_wait", r.in_doubt_wait),
    ];
    [("timeouts", timeouts), ("retry", retry)]
}
