//! The server's side of four SASL mechanisms against one user: PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login),
//! SCRAM-SHA-256 (RFC 7677, RFC 5802) and XOAUTH2 (as Google and Microsoft document it).
//!
//! An [`Exchange`] takes the client's responses, decoded, and says what comes next. It knows no base64 and no replies; those
//! are `auth.rs`. The server's nonce is an argument.
//!
//! INVARIANT: nothing but [`Step::Success`] authenticates, and each mechanism has exactly one place that says it.
//!
//! Limits: one user; no SASLprep (names and secrets are compared octet by octet); no channel binding.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Who may authenticate, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthSettings {
    /// The user's name.
    pub user: String,
    /// The password; for XOAUTH2 the access token.
    pub secret: String,
    /// What EHLO offers, in its order.
    pub mechanisms: Vec<Mechanism>,
    /// In clear AUTH is not offered, and refused with 538 (RFC 4954 6).
    pub only_in_tls: bool,
    /// SCRAM's salt.
    pub salt: Vec<u8>,
    /// SCRAM's iteration count; RFC 7677 4 wants 4096 at least.
    pub iterations: u32,
}

impl std::fmt::Debug for AuthSettings {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthSettings({}, {:?})", self.user, self.mechanisms)
    }
}

impl AuthSettings {
    /// All mechanisms, in clear too.
    pub fn new(user: impl Into<String>, secret: impl Into<String>) -> AuthSettings {
        AuthSettings {
            user: user.into(),
            secret: secret.into(),
            mechanisms: Mechanism::ALL.to_vec(),
            only_in_tls: false,
            salt: b"salt of the sink".to_vec(),
            iterations: 4096,
        }
    }
}

/// A SASL mechanism.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// SCRAM-SHA-256.
    ScramSha256,
    /// PLAIN.
    Plain,
    /// LOGIN.
    Login,
    /// XOAUTH2.
    XOAuth2,
}

impl Mechanism {
    /// All that are known.
    pub const ALL: [Mechanism; 4] = [
        Mechanism::ScramSha256,
        Mechanism::Plain,
        Mechanism::Login,
        Mechanism::XOAuth2,
    ];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::XOAuth2 => "XOAUTH2",
        }
    }

    /// The mechanism of that name, in any case.
    pub fn named(name: &str) -> Option<Mechanism> {
        Mechanism::ALL
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

/// What comes after a response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// This challenge.
    Challenge(Vec<u8>),
    /// The client is who it says it is.
    Success,
    /// It is not.
    Failure,
    /// It does not speak the mechanism.
    Malformed,
}

/// What is awaited from the client.
#[derive(Debug)]
enum State {
    Plain,
    LoginUser,
    LoginPassword {
        is_user: bool,
    },
    ScramFirst,
    ScramFinal(Scram),
    /// The empty response to the server's proof.
    ScramEnd,
    XOAuth2,
    /// The empty response to the error.
    XOAuth2End,
}

/// One exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    state: State,
}

impl Exchange {
    pub fn new(mechanism: Mechanism) -> Exchange {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Login => State::LoginUser,
            Mechanism::ScramSha256 => State::ScramFirst,
            Mechanism::XOAuth2 => State::XOAuth2,
        };
        Exchange { state }
    }

    /// What is said to a client that gave no initial response.
    pub fn first_challenge(&self) -> &'static [u8] {
        match self.state {
            State::LoginUser => b"Username:",
            _ => b"",
        }
    }

    /// Takes a response. `nonce` is random, printable and without commas.
    pub fn respond(&mut self, settings: &AuthSettings, nonce: &str, response: &[u8]) -> Step {
        match &self.state {
            State::Plain => plain(settings, response),
            State::LoginUser => {
                let is_user = response == settings.user.as_bytes();
                self.state = State::LoginPassword { is_user };
                Step::Challenge(b"Password:".to_vec())
            }
            State::LoginPassword { is_user } => {
                verdict(*is_user && response == settings.secret.as_bytes())
            }
            State::ScramFirst => match Scram::start(settings, nonce, response) {
                Ok(scram) => {
                    let challenge = scram.server_first.clone().into_bytes();
                    self.state = State::ScramFinal(scram);
                    Step::Challenge(challenge)
                }
                Err(step) => step,
            },
            State::ScramFinal(scram) => match scram.finish(settings, response) {
                Ok(proof) => {
                    self.state = State::ScramEnd;
                    Step::Challenge(proof.into_bytes())
                }
                Err(step) => step,
            },
            State::ScramEnd if response.is_empty() => Step::Success,
            State::ScramEnd => Step::Malformed,
            State::XOAuth2 => {
                let wanted = format!(
                    "user={}\x01auth=Bearer {}\x01\x01",
                    settings.user, settings.secret
                );
                if response == wanted.as_bytes() {
                    return Step::Success;
                }
                // The error is a challenge; the refusal follows the client's empty response.
                self.state = State::XOAuth2End;
                Step::Challenge(br#"{"status":"400","schemes":"Bearer","scope":"mail"}"#.to_vec())
            }
            State::XOAuth2End => Step::Failure,
        }
    }
}

fn verdict(is_right: bool) -> Step {
    match is_right {
        true => Step::Success,
        false => Step::Failure,
    }
}

/// RFC 4616 2: `[authzid] NUL authcid NUL passwd`.
fn plain(settings: &AuthSettings, response: &[u8]) -> Step {
    let parts: Vec<&[u8]> = response.split(|&byte| byte == 0).collect();
    let [acts_as, user, secret] = parts[..] else {
        return Step::Malformed;
    };
    let name = settings.user.as_bytes();
    verdict(
        (acts_as.is_empty() || acts_as == name)
            && user == name
            && secret == settings.secret.as_bytes(),
    )
}

/// SCRAM after the first response.
#[derive(Debug)]
struct Scram {
    /// `n=user,r=nonce`.
    client_first_bare: String,
    /// `r=..,s=..,i=..`.
    server_first: String,
    /// The client's nonce and ours.
    nonce: String,
    /// What the client has to repeat in `c=`: its GS2 header in base64.
    binding: String,
    is_user: bool,
}

impl Scram {
    /// RFC 5802 7: `gs2-cbind-flag "," [authzid] "," [mext ","] username "," nonce ["," extensions]`.
    fn start(settings: &AuthSettings, nonce: &str, response: &[u8]) -> Result<Scram, Step> {
        let text = std::str::from_utf8(response).map_err(|_| Step::Malformed)?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(acts_as), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Step::Malformed);
        };
        // `p=` asks for channel binding, which a mechanism without -PLUS does not have.
        let acts_as_is_right = acts_as.is_empty()
            || acts_as
                .strip_prefix("a=")
                .is_some_and(|name| unescape(name).as_deref() == Some(&settings.user));
        if !matches!(flag, "n" | "y") || !acts_as_is_right {
            return Err(Step::Failure);
        }
        let mut attributes = bare.split(',');
        // An extension before the name (`m=`) is mandatory to understand: there is none.
        let user = attributes.next().and_then(|part| part.strip_prefix("n="));
        let theirs = attributes.next().and_then(|part| part.strip_prefix("r="));
        let (Some(user), Some(theirs)) = (user, theirs) else {
            return Err(Step::Malformed);
        };
        if theirs.is_empty() {
            return Err(Step::Malformed);
        }
        let nonce = format!("{theirs}{nonce}");
        let salt = BASE64.encode(&settings.salt);
        Ok(Scram {
            client_first_bare: bare.to_owned(),
            server_first: format!("r={nonce},s={salt},i={}", settings.iterations),
            nonce,
            binding: BASE64.encode(format!("{flag},{acts_as},")),
            is_user: unescape(user).ok_or(Step::Malformed)? == settings.user,
        })
    }

    /// `c=..,r=..[,extensions],p=..`; returns `v=..`.
    fn finish(&self, settings: &AuthSettings, response: &[u8]) -> Result<String, Step> {
        let text = std::str::from_utf8(response).map_err(|_| Step::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Step::Malformed)?;
        let proof = BASE64.decode(proof).map_err(|_| Step::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|part| part.strip_prefix("c="));
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r="));
        if binding != Some(&self.binding) || nonce != Some(&self.nonce) {
            return Err(Step::Failure);
        }
        let message = format!(
            "{},{},{without_proof}",
            self.client_first_bare, self.server_first
        );
        let salted = salted(settings);
        let client_key = mac(&salted, b"Client Key");
        let signature = mac(&Sha256::digest(client_key), message.as_bytes());
        let expected: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(key, mask)| key ^ mask)
            .collect();
        if !self.is_user || proof != expected {
            return Err(Step::Failure);
        }
        let server_signature = mac(&mac(&salted, b"Server Key"), message.as_bytes());
        Ok(format!("v={}", BASE64.encode(server_signature)))
    }
}

/// RFC 5802 5.1: `=2C` is a comma, `=3D` an equals sign, any other `=` an error.
fn unescape(name: &str) -> Option<String> {
    let mut pieces = name.split('=');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (sign, rest) = match piece.strip_prefix("2C") {
            Some(rest) => (',', rest),
            None => ('=', piece.strip_prefix("3D")?),
        };
        out.push(sign);
        out.push_str(rest);
    }
    Some(out)
}

/// RFC 5802 2.2: `Hi`, which is PBKDF2 (RFC 8018).
fn salted(settings: &AuthSettings) -> [u8; 32] {
    pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(
        settings.secret.as_bytes(),
        &settings.salt,
        settings.iterations.max(1),
    )
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length (RFC 2104 2), so the error cannot be.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    mac.update(text);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests;
