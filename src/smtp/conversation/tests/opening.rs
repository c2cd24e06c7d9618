//! The opening: TLS by policy, AUTH, and what becomes of mail where they cannot be had.

use super::*;
use crate::smtp::auth::{Credentials, Mechanism, Secret};
use crate::smtp::reply::Garbled;
use crate::smtp::settings::TlsPolicy;

const OFFER: &str = "250-mx.test\r\n250-PIPELINING\r\n250 STARTTLS\r\n";

fn tls(policy: TlsPolicy) -> Settings {
    Settings {
        tls: policy,
        level: Pipelining::Cross,
        ..Settings::new("client.example")
    }
}

fn with_password(policy: TlsPolicy, mechanism: Option<Mechanism>) -> Settings {
    let secret = Secret::Password("pencil".into());
    Settings {
        auth: Some(Credentials::new("user", secret, mechanism).unwrap()),
        ..tls(policy)
    }
}

/// Where the session stands, its verdict in a few words.
fn outcome(talk: &mut Talk) -> String {
    let why = talk.closed().expect("a reason");
    let enhanced = why.enhanced.map(|enhanced| enhanced.to_string());
    format!(
        "{} {} {} {}",
        why.status.name(),
        why.scope.name(),
        why.stage.name(),
        enhanced.unwrap_or_default()
    )
}

/// Up to the end of the handshake.
fn in_tls(settings: Settings) -> Talk {
    let mut talk = Talk::with(settings);
    talk.says("220 mx\r\n");
    talk.says(OFFER);
    assert_eq!(talk.written(), "EHLO client.example\r\nSTARTTLS\r\n");
    talk.says("220 go\r\n");
    assert!(matches!(talk.c.next(), Next::StartTls) && !talk.c.is_in_tls());
    assert_eq!((talk.written(), talk.c.unanswered()), (String::new(), 0));
    talk.c.tls_started();
    assert_eq!(talk.written(), "EHLO client.example\r\n");
    talk
}

#[test]
fn behind_the_handshake_all_is_asked_again() {
    for policy in [TlsPolicy::May, TlsPolicy::Require, TlsPolicy::Verify] {
        let mut talk = in_tls(tls(policy));
        assert_eq!(*talk.c.capabilities(), Capabilities::default());
        talk.says("250-mx\r\n250 SIZE 5\r\n");
        assert!(matches!(talk.c.next(), Next::Ready) && talk.c.is_in_tls());
        let capabilities = talk.c.capabilities();
        assert!(!capabilities.pipelining && capabilities.size);
        assert_eq!(talk.c.level(), Pipelining::None);
    }
}

#[test]
fn lock_step_before_tls_is_not_kept_behind_it() {
    let mut talk = Talk::with(tls(TlsPolicy::May));
    talk.says("220 mx\r\n250-mx\r\n250 STARTTLS\r\n220 go\r\n");
    talk.c.tls_started();
    talk.says(EHLO);
    assert_eq!(talk.c.level(), Pipelining::Cross);
}

#[test]
fn a_byte_behind_the_go_ahead_ends_the_session() {
    let mut talk = Talk::with(tls(TlsPolicy::May));
    talk.says("220 mx\r\n");
    talk.says(OFFER);
    talk.says("220 go\r\n");
    talk.c.on_garbled(Garbled::Surplus);
    assert_eq!(outcome(&mut talk), "deferred host starttls 4.5.0");

    let mut talk = Talk::with(tls(TlsPolicy::May));
    talk.says("220 mx\r\n");
    talk.says(OFFER);
    talk.says("220 go\r\n250 injected\r\n");
    assert_eq!(outcome(&mut talk), "deferred host starttls 4.5.0");
}

#[test]
fn a_reply_that_waits_inside_tls_ends_the_session() {
    let mut talk = in_tls(tls(TlsPolicy::Require));
    talk.says(OFFER);
    assert!(matches!(talk.c.next(), Next::Ready));
    talk.says("250 another's\r\n");
    assert_eq!(outcome(&mut talk), "deferred host mail 4.5.0");
}

#[test]
fn a_failed_handshake_is_never_followed_by_clear_text() {
    for policy in [TlsPolicy::May, TlsPolicy::Verify] {
        let mut talk = Talk::with(tls(policy));
        talk.says("220 mx\r\n");
        talk.says(OFFER);
        talk.says("220 go\r\n");
        talk.c.tls_failed("certificate expired");
        let text = talk.closed().unwrap().text;
        assert!(text.contains("certificate expired"));
        assert_eq!(outcome(&mut talk), "deferred host starttls 4.7.5");
    }
}

#[test]
fn without_tls_policy_decides() {
    for (policy, goes_on) in [(TlsPolicy::May, true), (TlsPolicy::Require, false)] {
        // Not offered; refused for now; refused for good.
        for (replies, enhanced) in [
            (&["250 mx\r\n"][..], "4.7.4"),
            (&[OFFER, "454 4.7.0 not now\r\n"], "4.7.0"),
            (&[OFFER, "502 5.5.1 what\r\n"], "5.5.1"),
        ] {
            let mut talk = Talk::with(tls(policy));
            talk.says("220 mx\r\n");
            for reply in replies {
                talk.says(reply);
            }
            if goes_on {
                assert!(matches!(talk.c.next(), Next::Ready) && !talk.c.is_in_tls());
            } else {
                let expected = format!("deferred host starttls {enhanced}");
                assert_eq!(outcome(&mut talk), expected);
            }
        }
    }
    // A server without EHLO has no STARTTLS either.
    let mut talk = Talk::with(tls(TlsPolicy::Verify));
    talk.says("220 mx\r\n500 what\r\n");
    assert!(!talk.written().contains("HELO"));
    assert_eq!(outcome(&mut talk), "deferred host starttls 4.7.4");
}

#[test]
fn inside_implicit_tls_and_where_none_is_wanted_starttls_is_not_said() {
    for policy in [TlsPolicy::Implicit, TlsPolicy::None] {
        let mut talk = Talk::with(tls(policy));
        talk.says("220 mx\r\n");
        talk.says(OFFER);
        assert!(matches!(talk.c.next(), Next::Ready));
        assert_eq!(talk.c.is_in_tls(), policy == TlsPolicy::Implicit);
    }
}

#[test]
fn auth_comes_inside_tls_and_before_mail() {
    let mut talk = in_tls(with_password(TlsPolicy::May, None));
    talk.says("250-mx\r\n250-PIPELINING\r\n250 AUTH LOGIN PLAIN\r\n");
    assert_eq!(talk.written(), "AUTH PLAIN AHVzZXIAcGVuY2ls\r\n");
    assert!(matches!(talk.c.next(), Next::Await(Stage::Auth)));
    let shown = format!("{:?}", talk.c);
    assert!(!shown.contains("pencil") && !shown.contains("AHVzZXIAcGVuY2ls"));
    talk.says("235 2.7.0 welcome\r\n");
    assert!(matches!(talk.c.next(), Next::Ready));
}

#[test]
fn auth_by_login_answers_challenges() {
    let settings = with_password(TlsPolicy::Implicit, Some(Mechanism::Login));
    let mut talk = Talk::with(settings);
    talk.says("220 mx\r\n250 mx\r\n");
    assert_eq!(outcome(&mut talk), "deferred local auth 4.7.4");

    let settings = with_password(TlsPolicy::Implicit, Some(Mechanism::Login));
    let mut talk = Talk::with(settings);
    talk.says("220 mx\r\n250-mx\r\n250 AUTH PLAIN LOGIN\r\n");
    talk.written();
    talk.says("334 VXNlcm5hbWU6\r\n");
    assert_eq!(talk.written(), "dXNlcg==\r\n");
    talk.says("334 UGFzc3dvcmQ6\r\n");
    assert_eq!(talk.written(), "cGVuY2ls\r\n");
    talk.says("235 ok\r\n");
    assert!(matches!(talk.c.next(), Next::Ready));
}

#[test]
fn credentials_do_not_leave_in_the_clear_unless_told() {
    for policy in [TlsPolicy::None, TlsPolicy::May] {
        let mut talk = Talk::with(with_password(policy, None));
        talk.says("220 mx\r\n250-mx\r\n250 AUTH PLAIN\r\n");
        assert!(!talk.written().contains("AUTH"));
        assert_eq!(outcome(&mut talk), "deferred local auth 4.7.11");
    }
    let mut talk = Talk::with(Settings {
        auth_in_clear: true,
        ..with_password(TlsPolicy::None, None)
    });
    talk.says("220 mx\r\n250-mx\r\n250 AUTH PLAIN\r\n");
    assert!(talk.written().contains("AUTH PLAIN"));
}

#[test]
fn refused_credentials_concern_all_mail_and_passing_trouble_the_host() {
    for (reply, end) in [
        ("535 5.7.8 no\r\n", "deferred local auth 5.7.8"),
        ("534 too weak\r\n", "deferred local auth "),
        ("454 4.7.0 later\r\n", "deferred host auth 4.7.0"),
        ("421 4.3.2 bye\r\n", "deferred host auth 4.3.2"),
        ("334 no base64\r\n", "deferred host auth 4.7.0"),
        ("334-YQ==\r\n334 YQ==\r\n", "deferred host auth 4.7.0"),
    ] {
        let mut talk = Talk::with(with_password(TlsPolicy::Implicit, None));
        talk.says("220 mx\r\n250-mx\r\n250 AUTH PLAIN\r\n");
        talk.written();
        talk.says(reply);
        assert_eq!(outcome(&mut talk), end, "{reply}");
    }
}

#[test]
fn a_server_that_repeats_what_it_was_told_does_not_tell_it_to_the_report() {
    let mut talk = Talk::with(with_password(TlsPolicy::Implicit, None));
    talk.says("220 mx\r\n250-mx\r\n250 AUTH PLAIN\r\n");
    talk.written();
    talk.says("500 unknown: AUTH PLAIN AHVzZXIAcGVuY2ls (pencil)\r\n");
    let text = talk.closed().unwrap().text;
    assert_eq!(text, "unknown: AUTH PLAIN (concealed) ((concealed))");
}

#[test]
fn success_without_the_servers_proof_is_none() {
    let settings = with_password(TlsPolicy::Implicit, None);
    let mut talk = Talk::with(settings);
    talk.says("220 mx\r\n250-mx\r\n250 AUTH SCRAM-SHA-256 PLAIN\r\n");
    assert!(talk.written().contains("AUTH SCRAM-SHA-256 biws"));
    talk.says("235 welcome\r\n");
    assert_eq!(outcome(&mut talk), "deferred host auth 4.7.0");
}
