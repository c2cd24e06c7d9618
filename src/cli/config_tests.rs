//! The configuration file: what it means, and that it fails for the expected reason.

use super::*;

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
    let text = "hello = \"a.test\"\nrelay = \"[::1]:2525\"\nbind = [\"127.0.0.2\"]\ndns = [\"127.0.0.1:53\"]\nstate = \"/x\"\n\
                max_workers = 9\n[retry]\nmin = \"1500ms\"\n[queue.big]\ndomains = [\"a.test\"]\nmax_workers = 3\n";
    let settings = from_text(text).unwrap();
    let again = from_text(&to_toml(&settings)).unwrap();
    assert_eq!(format!("{settings:?}"), format!("{again:?}"));
    assert_eq!(settings.queues[0].workers_max, Some(3));
    assert_eq!(
        settings.relay,
        Some(Relay {
            host: "::1".into(),
            port: 2525
        })
    );
}

#[test]
fn config_shows_every_key() {
    let all = to_toml(&Settings {
        queues: vec![QueueSettings::default()],
        ..Settings::default()
    });
    let (_, message, _) = failure("nonsense = 1");
    let tables = ["[timeouts]", "[retry]", "[queue.q]"]
        .map(|table| failure(&format!("{table}\nnonsense = 1")).1);
    for list in tables.iter().chain([&message]) {
        for key in list
            .split('`')
            .skip(3)
            .step_by(2)
            .filter(|key| !["timeouts", "retry", "queue"].contains(key))
        {
            assert!(
                all.contains(&format!("{key} = ")),
                "`mailer config` does not show {key}"
            );
        }
    }
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
fn relays_are_names_or_addresses_with_a_port() {
    assert_eq!(
        relay("mx.test").unwrap(),
        Relay {
            host: "mx.test".into(),
            port: 25
        }
    );
    assert_eq!(
        relay("127.0.0.1:2525").unwrap(),
        Relay {
            host: "127.0.0.1".into(),
            port: 2525
        }
    );
    assert_eq!(
        relay("::1").unwrap(),
        Relay {
            host: "::1".into(),
            port: 25
        }
    );
    for wrong in [
        "",
        ":25",
        "mx.test:0",
        "mx.test:port",
        "a b:25",
        "mx\r\n:25",
    ] {
        assert!(relay(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn times_print_in_the_largest_unit_that_is_exact() {
    let shown =
        [1500, 60_000, 5_400_000, 432_000_000].map(|millis| show(Duration::from_millis(millis)));
    assert_eq!(shown, ["1500ms", "1m", "90m", "5d"]);
}
