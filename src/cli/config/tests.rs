//! The configuration file: what it means, and that it fails for the expected reason.

use super::show::show;
use super::*;
use crate::engine::settings::DkimKey;

fn failure(text: &str) -> (Exit, String, String) {
    let error = parse(text, "f.toml").unwrap_err();
    let failure = error.downcast_ref::<Failure>().unwrap();
    (
        failure.exit,
        failure.message.clone(),
        failure.hint.clone().unwrap_or_default(),
    )
}

fn from_text(text: &str) -> Result<Settings> {
    let mut settings = Settings::default();
    apply_file(&mut settings, parse(text, "f.toml")?)?;
    check(&settings)?;
    Ok(settings)
}

#[test]
fn an_unknown_key_is_an_error_with_line_column_and_the_nearest_known_key() {
    let (exit, message, hint) = failure("port = 25\nmax_worker = 3\n");
    assert_eq!(exit, Exit::Config);
    assert!(
        message.starts_with("f.toml:2:1: unknown field `max_worker`"),
        "{message}"
    );
    assert!(hint.contains("`max_workers`"), "{hint}");
}

#[test]
fn a_key_unlike_any_other_gets_no_guess() {
    let (_, _, hint) = failure("[queue.big]\nquux_frobnication = 1\n");
    assert!(!hint.contains("did you mean"), "{hint}");
}

#[test]
fn a_time_without_a_unit_is_refused_where_it_stands() {
    let (_, message, _) = failure("[retry]\nmin = \"5\"\n");
    assert!(
        message.starts_with("f.toml:2:7: `5` is not a time"),
        "{message}"
    );
}

#[test]
fn what_config_prints_has_the_same_effect_when_read() {
    let text = "hello = \"a.test\"\nrelay = [\"[::1]:2525\", \"lmtp:///run/x\", \"smtps://mx.test\"]\ntls = \"require\"\nbind = [\"127.0.0.2\"]\ndns = [\"127.0.0.1:53\"]\nstate = \"/x\"\n\
                max_workers = 9\nsender_refusals = 0\n[retry]\nmin = \"1500ms\"\n[queue.big]\ndomains = [\"a.test\"]\nmax_workers = 3\n";
    let settings = from_text(text).unwrap();
    let again = from_text(&to_toml(&settings)).unwrap();
    assert_eq!(format!("{settings:?}"), format!("{again:?}"));
    assert_eq!(settings.queues[0].workers_max, Some(3));
    assert_eq!(again.sender_refusals, 0);
    let relays: Vec<String> = settings.relays.iter().map(relay::to_text).collect();
    assert_eq!(
        relays,
        ["[::1]:2525", "lmtp:///run/x", "smtps://mx.test:465"]
    );
}

#[test]
fn config_shows_every_key() {
    let all = to_toml(&Settings {
        queues: vec![QueueSettings::default()],
        dkim: vec![DkimKey::default()],
        ..Settings::default()
    });
    let (_, message, _) = failure("nonsense = 1");
    let tables = ["[timeouts]", "[retry]", "[queue.q]", "[dsn]", "[[dkim]]"]
        .map(|table| failure(&format!("{table}\nnonsense = 1")).1);
    for list in tables.iter().chain([&message]) {
        for key in list
            .split('`')
            .skip(3)
            .step_by(2)
            .filter(|key| !["timeouts", "retry", "queue", "dsn", "dkim"].contains(key))
        {
            assert!(
                all.contains(&format!("{key} = ")),
                "`mailer config` does not show {key}"
            );
        }
    }
}

#[test]
fn more_names_of_queues_than_a_ledger_keeps_are_refused() {
    let text = |count: usize, name: &str| {
        let tables = (0..count).map(|n| format!("[queue.{name}{n:04}]\ndomains = [\"a.test\"]\n"));
        format!("max_workers = 2000\n{}", tables.collect::<String>())
    };
    from_text(&text(1000, "long-enough-for-a-queue")).unwrap();
    let message = from_text(&text(1000, &"x".repeat(64)))
        .unwrap_err()
        .to_string();
    assert!(message.contains("longer than 64 KiB"), "{message}");
}

#[test]
fn limits_that_could_never_send_are_refused() {
    for (text, reason) in [
        (
            "[queue.a]\ndomains = [\"a.test\"]\nmax_workers = 0",
            "would never send",
        ),
        ("[queue.a]\nmax_workers = 2", "neither domains nor mx"),
        (
            "max_workers = 1\n[queue.a]\ndomains = [\"a.test\"]",
            "less than one for each",
        ),
        (
            "[retry]\nmin = \"2h\"\nmax = \"1h\"",
            "longer than the longest",
        ),
        ("max_sessions = 0", "at least 1"),
        ("[queue.general]\ndomains = [\"a.test\"]", "always there"),
    ] {
        let message = from_text(text).unwrap_err().to_string();
        assert!(message.contains(reason), "{text}: {message}");
    }
}

#[test]
fn relays_are_names_addresses_or_sockets_with_a_scheme() {
    for (text, shown) in [
        ("mx.test", "mx.test:25"),
        ("127.0.0.1:2525", "127.0.0.1:2525"),
        ("::1", "[::1]:25"),
        ("smtps://mx.test", "smtps://mx.test:465"),
        ("lmtp://127.0.0.1:24", "lmtp://127.0.0.1:24"),
        ("lmtp:///run/lmtp", "lmtp:///run/lmtp"),
    ] {
        assert_eq!(relay::to_text(&relay::relay(text).unwrap()), shown);
    }
    for wrong in [
        "",
        ":25",
        "mx.test:0",
        "mx.test:port",
        "a b:25",
        "mx\r\n:25",
        "http://x",
        "smtp:///run/x",
        "smtps://",
    ] {
        assert!(relay::relay(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn credentials_that_others_can_read_are_refused_and_never_shown() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |text: &str, mode: u32| {
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        relay::credentials(file.path())
    };
    let good = "user = \"u@x.test\"\npassword = \"s3cret\"\n";
    assert!(
        write(good, 0o644)
            .unwrap_err()
            .to_string()
            .contains("others can read")
    );
    let credentials = write(good, 0o600).unwrap();
    assert!(!format!("{credentials:?}").contains("s3cret"));
    for bad in [
        "user = \"u\"\npassword = s3cret",
        "user = \"u\"",
        "user = \"\"\npassword = \"s3cret\"",
        "user = \"u\"\npassword = \"s3cret\"\ntoken = \"s3cret\"",
    ] {
        let message = write(bad, 0o600).unwrap_err().to_string();
        assert!(!message.contains("s3cret"), "{message}");
    }
}

#[test]
fn notifications_are_never_or_some() {
    assert!(dsn(None, &[DsnNotify::Never, DsnNotify::Delay], None, false).is_err());
    assert!(dsn(None, &[], Some("a\r\nb".into()), false).is_err());
    assert_eq!(dsn(None, &[], None, false).unwrap(), None);
    let text = "[dsn]\nret = \"hdrs\"\nnotify = [\"failure\", \"delay\"]\nenvid = \"n17\"\n[domain.\".bank.test\"]\ntls = \"verify\"\n";
    let settings = from_text(text).unwrap();
    let again = from_text(&to_toml(&settings)).unwrap();
    assert_eq!(format!("{settings:?}"), format!("{again:?}"));
}

#[test]
fn times_print_in_the_largest_unit_that_is_exact() {
    let shown =
        [1500, 60_000, 5_400_000, 432_000_000].map(|millis| show(Duration::from_millis(millis)));
    assert_eq!(shown, ["1500ms", "1m", "90m", "5d"]);
}

#[test]
fn a_file_of_providers_that_cannot_be_used_is_told_with_its_line() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("own.toml");
    let of = |text: &str| {
        std::fs::write(&path, text).unwrap();
        from_text(&format!("providers = {path:?}\nmemory = false\n"))
    };
    let settings = of("[google]\nsessions = 7\n").unwrap();
    let google = settings.providers.named("google").unwrap();
    assert_eq!((google.sessions, settings.memory), (Some(7), false));
    assert!(to_toml(&settings).contains(&format!("providers = {path:?}")));
    let error = of("[google]\n\nsession = 7\n").unwrap_err().to_string();
    assert!(
        error.contains("own.toml:3:1: unknown field `session`"),
        "{error}"
    );
    let error = of("[x]\nsessions = 0\n").unwrap_err().to_string();
    assert!(error.contains("own.toml: [x]: a limit of 0"), "{error}");
    std::fs::remove_file(&path).unwrap();
    let text = format!("providers = {path:?}\n");
    let error = from_text(&text).unwrap_err().to_string();
    assert!(error.contains("cannot read the providers"), "{error}");
}
