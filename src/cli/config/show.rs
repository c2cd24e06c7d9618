//! The settings in force as a configuration file: `mailer config`. Every key is there, those that are unset as comments.

use std::time::Duration;

use super::TlsMode;
use crate::engine::settings::{QueueSettings, Settings};
use crate::queue::pace::Rate;
use crate::retry::InDoubt;
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
    let mut file = Lines(String::new());
    general(settings, &mut file);
    relays_and_tls(settings, &mut file);
    for (table, keys) in time_tables(settings) {
        file.table(table);
        for (key, time) in keys {
            file.set(key, time_text(time), "");
        }
        if table == "retry" {
            let word = match settings.retry.in_doubt {
                InDoubt::Resend => "resend",
                InDoubt::Hold => "hold",
            };
            file.set("in_doubt", text(word), "resend (once) or hold");
        }
    }
    show_dsn(settings.dsn.as_ref(), &mut file.0);
    for domain in &settings.domains {
        file.table(&format!("domain.{}", text(&domain.pattern)));
        file.set("tls", text(TlsMode::of(domain.tls).name()), "");
    }
    for key in &settings.dkim {
        file.table("[dkim]");
        file.set("domain", text(&key.domain), "");
        file.set("selector", text(&key.selector), "");
        file.set("key", text(&key.file.to_string_lossy()), "");
    }
    for queue in &settings.queues {
        show_queue(queue, &mut file);
    }
    file.0
}

/// A configuration file under way.
struct Lines(String);

impl Lines {
    fn table(&mut self, name: &str) {
        self.0.push_str(&format!("\n[{name}]\n"));
    }

    /// A key with its value, and perhaps what it means.
    fn set(&mut self, key: &str, value: String, meaning: &str) {
        let comment = if meaning.is_empty() {
            String::new()
        } else {
            format!("  # {meaning}")
        };
        self.0.push_str(&format!("{key} = {value}{comment}\n"));
    }

    /// A key with its value, or as a comment with an example and what happens without it.
    fn set_or(&mut self, key: &str, value: Option<String>, example: &str, unset: &str) {
        match value {
            Some(value) => self.set(key, value, ""),
            None => self.set(
                &format!("# {key}"),
                example.to_owned(),
                &format!("unset: {unset}"),
            ),
        }
    }
}

fn text(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

fn list(values: &[String]) -> String {
    toml::Value::Array(values.iter().map(|value| value.clone().into()).collect()).to_string()
}

fn time_text(time: Duration) -> String {
    text(&show(time))
}

fn general(settings: &Settings, file: &mut Lines) {
    let hello = settings.hello.as_deref().map(text);
    file.set_or(
        "hello",
        hello,
        "\"mail.example.org\"",
        "the host name if fully qualified, else the address",
    );
    file.set(
        "bind",
        list(&strings(&settings.bind)),
        "addresses to connect from",
    );
    file.set("port", settings.port.to_string(), "of MX hosts");
    file.set(
        "allow_loopback",
        settings.allow_loopback.to_string(),
        "MX hosts on loopback, for labs",
    );
    file.set(
        "dns",
        list(&strings(&settings.dns)),
        "name servers; none: the system's",
    );
    file.set(
        "dns_timeout",
        time_text(settings.dns_timeout),
        "of one look-up",
    );
    file.set(
        "state",
        text(&settings.state.display().to_string()),
        "where files of a run live",
    );
    limits(settings, file);
    let providers = settings.providers_file.as_ref();
    file.set_or(
        "providers",
        providers.map(|path| text(&path.display().to_string())),
        "\"providers.toml\"",
        "only what comes with the program is known of large providers",
    );
    file.set(
        "memory",
        settings.memory.to_string(),
        "what is learned of receivers is kept for the next run",
    );
    file.set(
        "sync",
        settings.sync.to_string(),
        "each message is recorded on disk before its final dot",
    );
    file.set(
        "guard",
        time_text(settings.guard),
        "how long a batch that was sent is not sent again",
    );
}

fn limits(settings: &Settings, file: &mut Lines) {
    file.set(
        "max_workers",
        settings.workers_max.to_string(),
        "threads of all queues together",
    );
    file.set(
        "max_sessions",
        settings.sessions_per_site.to_string(),
        "with one site (from one address) at a time",
    );
    pace(settings, file);
    file.set(
        "max_recipients",
        settings.recipients_max.to_string(),
        "of one transaction",
    );
    file.set(
        "sender_refusals",
        settings.sender_refusals.to_string(),
        "messages refused for the sender before a site is left alone; 0: never",
    );
    let promote = &settings.promote;
    file.set(
        "promote",
        promote.is_on.to_string(),
        "large sites get queues of their own",
    );
    file.set(
        "promote_share",
        format!("{:?}", promote.share),
        "of the mail pending: more makes a site large",
    );
    file.set(
        "promote_min",
        promote.min.to_string(),
        "recipients: no site with fewer is large",
    );
    file.set(
        "promote_queues_max",
        promote.queues_max.to_string(),
        "queues for them at a time",
    );
    file.set(
        "stop_on",
        list(&strings(&settings.stop_on)),
        "when a run stops, as in refused>5%",
    );
    file.set(
        "suppress",
        list(settings.suppression.names()),
        "files of addresses and domains that nothing is sent to",
    );
    file.set(
        "max_chunk",
        settings.bdat_bytes_max.to_string(),
        "bytes that may leave by BDAT; 0: never",
    );
    file.set(
        "idle",
        time_text(settings.idle),
        "how long a session without mail is kept",
    );
    file.set(
        "session_age",
        time_text(settings.session_age_max),
        "how long a session is used at most",
    );
    file.set(
        "min_data_rate",
        settings.data_rate_min.to_string(),
        "bytes per second a server must take",
    );
}

fn pace(settings: &Settings, file: &mut Lines) {
    file.set_or(
        "window_start",
        settings.window_start.map(|n| n.to_string()),
        "1",
        "1 session with a site not known yet; relays get max_sessions at once",
    );
    file.set(
        "window_step",
        format!("{:?}", settings.window_step),
        "sessions more after each round of accepted messages",
    );
    file.set(
        "session_backlog",
        settings.session_backlog.to_string(),
        "times what its opening costs must wait for a further session; 0: nothing",
    );
    for (key, rate, unset) in [
        ("rate", settings.rate, "messages to one site"),
        (
            "connect_rate",
            settings.connect_rate,
            "connections to one site",
        ),
        (
            "source_rate",
            settings.source_rate,
            "messages from one address",
        ),
    ] {
        file.set_or(
            key,
            rate_text(rate),
            "\"600/min\"",
            &format!("no limit of {unset}"),
        );
    }
}

fn rate_text(rate: Option<Rate>) -> Option<String> {
    rate.map(|rate| text(&rate.to_string()))
}

fn relays_and_tls(settings: &Settings, file: &mut Lines) {
    let relays: Vec<String> = settings.relays.iter().map(super::relay::to_text).collect();
    file.set("relay", list(&relays), "none: MX look-up");
    file.set(
        "relay_spread",
        settings.relay_spread.to_string(),
        "instead of the first that answers",
    );
    let fallback: Vec<String> = settings
        .fallback
        .iter()
        .map(super::relay::to_text)
        .collect();
    file.set(
        "fallback",
        list(&fallback),
        "relays for mail that its own servers do not take",
    );
    file.set(
        "fallback_after",
        settings.fallback_after.to_string(),
        "failures before mail goes to a fallback relay",
    );
    file.set_or(
        "credentials",
        None,
        "\"/etc/mailer.secret\"",
        "MAILER_RELAY_USER and its secret, if there",
    );
    file.set("auth_in_clear", settings.auth_in_clear.to_string(), "");
    file.set(
        "tls",
        text(TlsMode::of(settings.tls).name()),
        "none, may, require or verify",
    );
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
        let path = path.map(|path| text(&path.display().to_string()));
        let unset = if name == "tls_ca" {
            "the system's certificates"
        } else {
            "we show no certificate"
        };
        file.set_or(name, path, "\"FILE.pem\"", unset);
    }
}

fn show_queue(queue: &QueueSettings, file: &mut Lines) {
    file.table(&format!("queue.{}", text(&queue.name)));
    file.set("domains", list(&queue.domains), "");
    file.set("mx", list(&queue.mx), "");
    let tls = queue.tls.map(|tls| text(TlsMode::of(tls).name()));
    file.set_or("tls", tls, "\"may\"", "the general policy");
    file.set_or(
        "max_workers",
        queue.workers_max.map(|n| n.to_string()),
        "20",
        "the general limit",
    );
    file.set_or(
        "max_sessions",
        queue.sessions_per_site.map(|n| n.to_string()),
        "20",
        "the general limit",
    );
    file.set_or(
        "rate",
        rate_text(queue.rate),
        "\"600/min\"",
        "no limit of the messages of the whole queue",
    );
    file.set_or(
        "connect_rate",
        rate_text(queue.connect_rate),
        "\"60/min\"",
        "no limit of the connections of the whole queue",
    );
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
