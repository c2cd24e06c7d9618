//! Credentials, the choice of a mechanism, and each mechanism's dialogue.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

fn password() -> Credentials {
    Credentials::new("user", Secret::Password("pencil".into()), None).unwrap()
}

fn token() -> Credentials {
    Credentials::new("u@x.test", Secret::Token("tok-123".into()), None).unwrap()
}

fn begun(credentials: &Credentials, mechanism: Mechanism) -> Exchange {
    Exchange::new(credentials, mechanism, &[7; 18])
}

fn plain_text(response: &str) -> String {
    String::from_utf8(STANDARD.decode(response).unwrap()).unwrap()
}

#[test]
fn the_strongest_mechanism_that_both_know_is_chosen() {
    let mut offered = AuthMechanisms {
        plain: true,
        login: true,
        scram_sha_256: true,
        xoauth2: true,
        oauthbearer: true,
        ..AuthMechanisms::default()
    };
    assert_eq!(password().choose(offered), Some(Mechanism::ScramSha256));
    assert_eq!(token().choose(offered), Some(Mechanism::Xoauth2));
    offered.scram_sha_256 = false;
    offered.xoauth2 = false;
    assert_eq!(password().choose(offered), Some(Mechanism::Plain));
    assert_eq!(token().choose(offered), Some(Mechanism::Oauthbearer));
    offered.plain = false;
    offered.oauthbearer = false;
    assert_eq!(password().choose(offered), Some(Mechanism::Login));
    assert_eq!(
        token().choose(offered),
        None,
        "a token is never sent as a password"
    );
}

#[test]
fn a_mechanism_that_was_asked_for_is_the_only_one() {
    let secret = Secret::Password("x".into());
    let login = Credentials::new("u", secret, Mechanism::from_name("login")).unwrap();
    let offered = AuthMechanisms {
        plain: true,
        ..AuthMechanisms::default()
    };
    assert_eq!(login.choose(offered), None);
}

#[test]
fn credentials_that_could_break_out_of_a_message_are_refused() {
    let of = |user: &str, secret: &str| {
        Credentials::new(user, Secret::Password(secret.into()), None).map(drop)
    };
    for user in ["", "a\0b", "a\r\nQUIT", "a\u{1}b", &"u".repeat(513)] {
        assert_eq!(of(user, "x"), Err(BadCredentials::User), "{user:?}");
    }
    for secret in ["", "a\0", "a\n", &"s".repeat(8193)] {
        assert_eq!(of("u", secret), Err(BadCredentials::Secret));
    }
    let token = Secret::Token("t".into());
    assert_eq!(
        Credentials::new("u", token, Some(Mechanism::Plain)).map(drop),
        Err(BadCredentials::Mechanism)
    );
}

#[test]
fn no_secret_is_in_any_debug_output() {
    let credentials = password();
    let mut exchange = begun(&credentials, Mechanism::Plain);
    exchange.initial();
    let all = format!("{credentials:?} {exchange:?} {:?}", token());
    assert!(!all.contains("pencil") && !all.contains("tok-123"), "{all}");
}

#[test]
fn plain_leaves_with_the_command() {
    let mut exchange = begun(&password(), Mechanism::Plain);
    // RFC 4616 section 2.
    assert_eq!(plain_text(&exchange.initial().unwrap()), "\0user\0pencil");
    assert_eq!(exchange.on_success(), Ok(()));
    assert_eq!(exchange.on_challenge(b""), Err(Fault::TooManyChallenges));
}

#[test]
fn login_answers_two_challenges_and_no_third() {
    let mut exchange = begun(&password(), Mechanism::Login);
    assert_eq!(exchange.initial(), None);
    let user = exchange.on_challenge(b"VXNlcm5hbWU6").unwrap();
    let pass = exchange.on_challenge(b"UGFzc3dvcmQ6").unwrap();
    assert_eq!(
        (plain_text(&user), plain_text(&pass)),
        ("user".into(), "pencil".into())
    );
    assert_eq!(exchange.on_challenge(b""), Err(Fault::TooManyChallenges));
}

#[test]
fn a_token_and_the_acknowledgement_of_its_refusal() {
    for (mechanism, message, acknowledgement) in [
        (
            Mechanism::Xoauth2,
            "user=u@x.test\u{1}auth=Bearer tok-123\u{1}\u{1}",
            "",
        ),
        (
            Mechanism::Oauthbearer,
            "n,a=u@x.test,\u{1}auth=Bearer tok-123\u{1}\u{1}",
            "AQ==",
        ),
    ] {
        let mut exchange = begun(&token(), mechanism);
        assert_eq!(plain_text(&exchange.initial().unwrap()), message);
        assert_eq!(exchange.on_challenge(b"e30="), Ok(acknowledgement.into()));
        assert_eq!(
            exchange.on_challenge(b"e30="),
            Err(Fault::TooManyChallenges)
        );
    }
}

#[test]
fn what_is_too_long_for_the_command_goes_behind_an_empty_challenge() {
    let secret = Secret::Token("t".repeat(SECRET_BYTES_MAX));
    let long = Credentials::new("u".repeat(USER_BYTES_MAX), secret, None).unwrap();
    let mut exchange = begun(&long, Mechanism::Xoauth2);
    assert_eq!(exchange.initial(), None);
    let response = exchange.on_challenge(b"").unwrap();
    assert!(response.len() + 2 <= crate::smtp::command::RESPONSE_BYTES_MAX);
    assert!(plain_text(&response).ends_with("ttt\u{1}\u{1}"));
}

#[test]
fn scram_counts_only_when_the_server_has_proven_itself() {
    let mut exchange = begun(&password(), Mechanism::ScramSha256);
    let first = plain_text(&exchange.initial().unwrap());
    assert!(first.starts_with("n,,n=user,r="));
    assert_eq!(exchange.on_success(), Err(Fault::ServerNotProven));
    let nonce = first.rsplit("r=").next().unwrap();
    let server_first = STANDARD.encode(format!("r={nonce}srv,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
    let last = exchange.on_challenge(server_first.as_bytes()).unwrap();
    assert!(plain_text(&last).starts_with("c=biws,r="));
    assert_eq!(exchange.on_success(), Err(Fault::ServerNotProven));
}

#[test]
fn challenges_must_be_base64() {
    for challenge in [&b"Username:"[..], b"a", b"YQ", b"\xff\xff", b"YQ==YQ=="] {
        let mut exchange = begun(&password(), Mechanism::Login);
        assert_eq!(exchange.on_challenge(challenge), Err(Fault::NotBase64));
    }
    let mut exchange = begun(&password(), Mechanism::ScramSha256);
    exchange.initial();
    assert_eq!(exchange.on_challenge(b"//8="), Err(Fault::BadMessage));
}

#[test]
fn what_left_is_struck_from_what_the_server_repeats() {
    let mut exchange = begun(&password(), Mechanism::Login);
    let user = exchange.on_challenge(b"").unwrap();
    let pass = exchange.on_challenge(b"").unwrap();
    let said = exchange.conceal(&format!("unknown command {user} {pass} or pencil"));
    assert_eq!(
        said,
        "unknown command (concealed) (concealed) or (concealed)"
    );
}
