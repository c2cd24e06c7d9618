//! The mechanisms by example, by near misses and by random bytes.

use super::*;

fn settings() -> AuthSettings {
    AuthSettings {
        salt: BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
        ..AuthSettings::new("user", "pencil")
    }
}

const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

/// The steps that responses lead to.
fn play(mechanism: Mechanism, responses: &[&str]) -> Vec<Step> {
    let mut exchange = Exchange::new(mechanism);
    responses
        .iter()
        .map(|response| exchange.respond(&settings(), NONCE, response.as_bytes()))
        .collect()
}

fn challenge(text: &str) -> Step {
    Step::Challenge(text.as_bytes().to_vec())
}

#[test]
fn the_example_of_rfc_7677_is_played_as_printed() {
    let steps = play(
        Mechanism::ScramSha256,
        &[
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "",
        ],
    );
    assert_eq!(
        steps,
        [
            challenge(
                "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
            ),
            challenge("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
            Step::Success
        ]
    );
}

/// A final response with the proof of somebody who knows the secret.
fn signed_for(exchange: &Scram, without_proof: &str) -> String {
    let message = format!(
        "{},{},{without_proof}",
        exchange.client_first_bare, exchange.server_first
    );
    let client_key = mac(&salted(&settings()), b"Client Key");
    let signature = mac(&Sha256::digest(client_key), message.as_bytes());
    let proof: Vec<u8> = client_key
        .iter()
        .zip(signature)
        .map(|(a, b)| a ^ b)
        .collect();
    format!("{without_proof},p={}", BASE64.encode(proof))
}

fn signed(without_proof: &str) -> String {
    let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    signed_for(
        &Scram::start(&settings(), NONCE, first).unwrap(),
        without_proof,
    )
}

#[test]
fn scram_refuses_what_is_not_exactly_right() {
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const BOUND: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let last = |responses: &[&str]| play(Mechanism::ScramSha256, responses).pop().unwrap();
    for first in [
        "p=tls-unique,,n=user,r=x",
        "n,a=other,n=user,r=x",
        "z,,n=user,r=x",
    ] {
        assert_eq!(last(&[first]), Step::Failure, "{first}");
    }
    for first in [
        "",
        "n,,",
        "n,,n=user",
        "n,,n=user,r=",
        "n,,m=x,n=user,r=x",
        "n,,n=a=2,r=x",
    ] {
        assert_eq!(last(&[first]), Step::Malformed, "{first}");
    }
    let wrong_proof = format!("{BOUND},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVA=");
    let wrong_binding = signed(&BOUND.replace("biws", "eSws"));
    let wrong_nonce = BOUND.replace("$k0", "$k1");
    let wrong_nonce = signed(&wrong_nonce);
    let no_proof = format!("{BOUND},p=");
    for final_response in [&wrong_proof, &wrong_binding, &wrong_nonce, &no_proof] {
        assert_eq!(
            last(&[FIRST, final_response]),
            Step::Failure,
            "{final_response}"
        );
    }
    for final_response in [BOUND, "", &format!("{BOUND},p=*")] {
        assert_eq!(last(&[FIRST, final_response]), Step::Malformed);
    }
    // The right proof under another name: the user is part of what is signed.
    let right = format!("{BOUND},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    assert_eq!(
        last(&[FIRST, &right]),
        challenge("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    );
    assert_eq!(signed(BOUND), right, "the test signs as clients do");
    let other = FIRST.replace("user", "user2");
    assert_eq!(last(&[&other, &right]), Step::Failure);
    let exchange = Scram::start(&settings(), NONCE, other.as_bytes()).unwrap();
    let signed_by_other = signed_for(&exchange, BOUND);
    assert_eq!(last(&[&other, &signed_by_other]), Step::Failure);
    assert_eq!(last(&[FIRST, &right, "x"]), Step::Malformed);
}

#[test]
fn plain_login_and_xoauth2_compare_name_and_secret() {
    for (response, step) in [
        ("\0user\0pencil", Step::Success),
        ("user\0user\0pencil", Step::Success),
        ("other\0user\0pencil", Step::Failure),
        ("\0user\0pencil2", Step::Failure),
        ("\0User\0pencil", Step::Failure),
        ("\0user\0", Step::Failure),
        ("user\0pencil", Step::Malformed),
        ("\0user\0pencil\0", Step::Malformed),
        ("", Step::Malformed),
    ] {
        assert_eq!(play(Mechanism::Plain, &[response]), [step], "{response:?}");
    }
    assert_eq!(
        Exchange::new(Mechanism::Login).first_challenge(),
        b"Username:"
    );
    for (user, secret, step) in [
        ("user", "pencil", Step::Success),
        ("user", "pen", Step::Failure),
        ("other", "pencil", Step::Failure),
    ] {
        let steps = play(Mechanism::Login, &[user, secret]);
        assert_eq!(steps, [challenge("Password:"), step]);
    }
    let right = "user=user\x01auth=Bearer pencil\x01\x01";
    assert_eq!(play(Mechanism::XOAuth2, &[right]), [Step::Success]);
    let steps = play(
        Mechanism::XOAuth2,
        &["user=user\x01auth=Bearer old\x01\x01", ""],
    );
    assert!(matches!(&steps[0], Step::Challenge(json) if json.starts_with(b"{")));
    assert_eq!(steps[1], Step::Failure);
}

#[test]
fn names_are_unescaped() {
    assert_eq!(unescape("a=2Cb=3Dc").as_deref(), Some("a,b=c"));
    assert_eq!(unescape("=2c"), None);
    assert_eq!(unescape("a="), None);
}

#[test]
fn random_responses_neither_authenticate_nor_panic() {
    let alphabet = b"n,=raucp\x00\x01user=2C";
    let mut rng = fastrand::Rng::with_seed(7);
    let cheap = AuthSettings {
        iterations: 1,
        ..settings()
    };
    for round in 0..20_000 {
        let mut exchange = Exchange::new(Mechanism::ALL[round % 4]);
        for _ in 0..3 {
            let response: Vec<u8> = (0..rng.usize(..20))
                .map(|_| alphabet[rng.usize(..alphabet.len())])
                .collect();
            assert_ne!(exchange.respond(&cheap, NONCE, &response), Step::Success);
        }
    }
}
