//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's side: four messages, and at their end both have proven that they
//! know the password, while neither has shown it.
//!
//! INVARIANTS: the server's nonce must go on from ours; the iteration count is at most [`ITERATIONS_MAX`], so that a
//! server cannot hold a worker with arithmetic; the server's signature is compared in constant time, and success that
//! comes without it does not count. Nothing here panics.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::Fault;

/// RFC 7677 section 4 asks for at least 4096; fewer give the password away too cheaply.
const ITERATIONS_MIN: u32 = 4096;
/// The most iterations that are computed: some tenths of a second.
const ITERATIONS_MAX: u32 = 1_000_000;
/// The longest salt that is believed.
const SALT_BYTES_MAX: usize = 1024;

type Digest = [u8; 32];

/// What is awaited.
enum Step {
    /// server-first-message.
    First,
    /// server-final-message, with this signature.
    Final(Digest),
    /// Nothing: the server has proven itself.
    Verified,
}

/// A SCRAM dialogue under way.
pub(super) struct Scram {
    password: String,
    nonce: String,
    client_first_bare: String,
    step: Step,
}

impl Scram {
    /// A dialogue for `user`; `nonce` is printable, without a comma, and never used twice.
    pub(super) fn new(user: &str, password: &str, nonce: String) -> Scram {
        // RFC 5802 5.1: "=" and "," have a meaning of their own.
        let name = user.replace('=', "=3D").replace(',', "=2C");
        Scram {
            password: password.to_owned(),
            client_first_bare: format!("n={name},r={nonce}"),
            nonce,
            step: Step::First,
        }
    }

    /// The client-first-message; "n,,": no channel binding, no other identity (RFC 5802 section 7).
    pub(super) fn client_first(&self) -> String {
        format!("n,,{}", self.client_first_bare)
    }

    /// Takes a message of the server; what is answered.
    pub(super) fn on_message(&mut self, message: &str) -> Result<String, Fault> {
        match self.step {
            Step::First => self.on_server_first(message),
            Step::Final(signature) => self.on_server_final(message, &signature),
            Step::Verified => Err(Fault::TooManyChallenges),
        }
    }

    /// True if the server has proven that it knows the password.
    pub(super) fn is_verified(&self) -> bool {
        matches!(self.step, Step::Verified)
    }

    fn on_server_first(&mut self, message: &str) -> Result<String, Fault> {
        let (nonce, salt, iterations) = parse_server_first(message)?;
        // RFC 5802 5.1: anything else would be another's dialogue, played again.
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(Fault::ServerNotProven);
        }
        let mut salted: Digest = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(self.password.as_bytes(), &salt, iterations, &mut salted);
        let client_key = mac(&salted, b"Client Key");
        let stored_key: Digest = Sha256::digest(client_key).into();
        // "biws" is "n,,": the header is repeated, so that nobody can have changed it.
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("{},{message},{without_proof}", self.client_first_bare);
        let signature = mac(&stored_key, auth_message.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(key, signature)| key ^ signature)
            .collect();
        let server_key = mac(&salted, b"Server Key");
        self.step = Step::Final(mac(&server_key, auth_message.as_bytes()));
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    fn on_server_final(&mut self, message: &str, signature: &Digest) -> Result<String, Fault> {
        let first = message.split(',').next().unwrap_or_default();
        // RFC 5802 section 7: "e=" says why not.
        if first.starts_with("e=") {
            return Err(Fault::Refused);
        }
        let theirs = first
            .strip_prefix("v=")
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or(Fault::BadMessage)?;
        if !is_equal(&theirs, signature) {
            return Err(Fault::ServerNotProven);
        }
        self.step = Step::Verified;
        Ok(String::new())
    }
}

/// `r=nonce,s=salt,i=iterations`, with extensions behind it that are passed over (RFC 5802 section 7). A mandatory
/// extension ("m=") stands at the front and is not understood.
fn parse_server_first(message: &str) -> Result<(&str, Vec<u8>, u32), Fault> {
    let mut parts = message.split(',');
    let mut value = |name: &str| {
        let part = parts.next().and_then(|part| part.strip_prefix(name));
        part.filter(|value| !value.is_empty())
            .ok_or(Fault::BadMessage)
    };
    let nonce = value("r=")?;
    let salt = STANDARD
        .decode(value("s=")?)
        .map_err(|_| Fault::BadMessage)?;
    let iterations: u32 = value("i=")?.parse().map_err(|_| Fault::BadMessage)?;
    let is_printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_printable || salt.is_empty() || salt.len() > SALT_BYTES_MAX {
        return Err(Fault::BadMessage);
    }
    if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
        return Err(Fault::Iterations);
    }
    Ok((nonce, salt, iterations))
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn mac(key: &[u8], message: &[u8]) -> Digest {
    keyed(key)
        .chain_update(message)
        .finalize()
        .into_bytes()
        .into()
}

/// Compares without telling by its time where they differ: both are hashed under one key, and compared by `Mac`.
fn is_equal(theirs: &[u8], ours: &Digest) -> bool {
    let of_ours = mac(b"compare", ours);
    keyed(b"compare")
        .chain_update(theirs)
        .verify_slice(&of_ours)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The dialogue of RFC 7677 section 3.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn begun() -> Scram {
        Scram::new("user", "pencil", NONCE.into())
    }

    #[test]
    fn the_example_of_the_rfc() {
        let mut scram = begun();
        assert_eq!(scram.client_first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(
            scram.on_message(SERVER_FIRST).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(!scram.is_verified());
        assert_eq!(scram.on_message(SERVER_FINAL).unwrap(), "");
        assert!(scram.is_verified());
        assert_eq!(scram.on_message("x"), Err(Fault::TooManyChallenges));
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        let mut scram = begun();
        scram.on_message(SERVER_FIRST).unwrap();
        let wrong = SERVER_FINAL.replace('6', "7");
        assert_eq!(scram.on_message(&wrong), Err(Fault::ServerNotProven));
        assert!(!scram.is_verified());
    }

    #[test]
    fn a_nonce_that_does_not_go_on_from_ours_is_refused() {
        for nonce in ["other", NONCE, "rOprNGfwEbeRWgbNEkqP123"] {
            let message = format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
            assert_eq!(begun().on_message(&message), Err(Fault::ServerNotProven));
        }
    }

    #[test]
    fn messages_that_are_none_and_counts_out_of_bounds_are_refused() {
        let first = |salt: &str, count: &str| format!("r={NONCE}x,s={salt},i={count}");
        for (message, fault) in [
            (String::new(), Fault::BadMessage),
            ("m=x,r=1,s=1,i=1".into(), Fault::BadMessage),
            (first("", "4096"), Fault::BadMessage),
            (first("%%", "4096"), Fault::BadMessage),
            (first("YWJj", "many"), Fault::BadMessage),
            (first("YWJj", "99999999999"), Fault::BadMessage),
            (first(&"YWJj".repeat(400), "4096"), Fault::BadMessage),
            (first("YWJj", "4095"), Fault::Iterations),
            (first("YWJj", "1000001"), Fault::Iterations),
        ] {
            assert_eq!(begun().on_message(&message), Err(fault), "{message}");
        }
    }

    #[test]
    fn the_server_says_no_in_its_last_message() {
        let mut scram = begun();
        scram.on_message(SERVER_FIRST).unwrap();
        assert_eq!(scram.on_message("e=invalid-proof"), Err(Fault::Refused));
    }

    #[test]
    fn names_are_escaped() {
        let scram = Scram::new("a=b,c", "x", "n".into());
        assert_eq!(scram.client_first(), "n,,n=a=3Db=2Cc,r=n");
    }
}
