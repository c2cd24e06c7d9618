//! One AUTH dialogue: what is answered to each challenge, whatever the mechanism.
//!
//! A mechanism is a row of messages that are ready from the start, and for SCRAM a machine behind the first of them. The
//! first message goes with the AUTH command where its line has room (RFC 4954 section 4), else behind an empty challenge.
//!
//! INVARIANTS: each mechanism bears a fixed number of challenges; a challenge is one line of valid base64; what left in
//! this dialogue, and the secret itself, are struck from whatever the server says of it ([`Exchange::conceal`]): servers
//! do repeat a line that they did not understand.

use std::collections::VecDeque;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::scram::Scram;
use super::{Credentials, Mechanism};
use crate::smtp::command::LINE_BYTES_MAX;
use crate::smtp::settings::NONCE_OCTETS;

/// Why a dialogue cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A challenge is not one line of base64.
    NotBase64,
    /// A challenge is no message of the mechanism.
    BadMessage,
    /// SCRAM's iteration count is too low to be safe, or too high to be computed.
    Iterations,
    /// The mechanism has nothing more to say.
    TooManyChallenges,
    /// The server has not proven that it knows the password.
    ServerNotProven,
    /// The mechanism says that the credentials are wrong.
    Refused,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::NotBase64 => "the server's challenge is not valid base64",
            Fault::BadMessage => "the server's challenge makes no sense",
            Fault::Iterations => "the server asks for an unreasonable iteration count",
            Fault::TooManyChallenges => "the server asks for more than the mechanism has",
            Fault::ServerNotProven => "the server did not prove that it knows the password",
            Fault::Refused => "the server does not accept the credentials",
        })
    }
}

/// What is said when all that was ready has been said.
enum Rest {
    /// Nothing.
    Nothing,
    /// An acknowledgement of the error that the server described in a challenge; its refusal follows.
    Acknowledge(&'static [u8]),
    /// What SCRAM computes.
    Scram(Scram),
}

/// An AUTH dialogue under way.
pub(crate) struct Exchange {
    mechanism: Mechanism,
    ready: VecDeque<Vec<u8>>,
    rest: Rest,
    /// What nobody may read in a verdict.
    hidden: Vec<String>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({})", self.mechanism.name())
    }
}

impl Exchange {
    /// A dialogue by `mechanism`, one that [`Credentials::choose`] has chosen.
    pub(crate) fn new(
        credentials: &Credentials,
        mechanism: Mechanism,
        nonce: &[u8; NONCE_OCTETS],
    ) -> Exchange {
        let (user, secret) = (credentials.user.as_str(), credentials.secret.text());
        let mut rest = Rest::Nothing;
        let ready = match mechanism {
            Mechanism::ScramSha256 => {
                let scram = Scram::new(user, secret, STANDARD.encode(nonce));
                let first = scram.client_first();
                rest = Rest::Scram(scram);
                vec![first]
            }
            Mechanism::Plain => vec![format!("\0{user}\0{secret}")],
            Mechanism::Login => vec![user.to_owned(), secret.to_owned()],
            Mechanism::Xoauth2 => {
                rest = Rest::Acknowledge(b"");
                vec![format!("user={user}\u{1}auth=Bearer {secret}\u{1}\u{1}")]
            }
            Mechanism::Oauthbearer => {
                // RFC 7628 3.2.3: a lone control-A.
                rest = Rest::Acknowledge(b"\x01");
                // RFC 5801 section 4: "=" and "," have a meaning of their own.
                let name = user.replace('=', "=3D").replace(',', "=2C");
                vec![format!("n,a={name},\u{1}auth=Bearer {secret}\u{1}\u{1}")]
            }
        };
        Exchange {
            mechanism,
            ready: ready.into_iter().map(String::into_bytes).collect(),
            rest,
            hidden: vec![secret.to_owned(), STANDARD.encode(secret)],
        }
    }

    /// The mechanism's name, for the AUTH command.
    pub(crate) fn name(&self) -> &'static str {
        self.mechanism.name()
    }

    /// What goes with the AUTH command: the first message in base64, if the client speaks first and its line has room.
    pub(crate) fn initial(&mut self) -> Option<String> {
        if self.mechanism == Mechanism::Login {
            return None;
        }
        let first = STANDARD.encode(self.ready.front()?);
        if "AUTH  \r\n".len() + self.name().len() + first.len() > LINE_BYTES_MAX {
            return None;
        }
        self.ready.pop_front();
        self.hidden.push(first.clone());
        Some(first)
    }

    /// Takes a challenge, the text of a 334; what is answered, in base64.
    pub(crate) fn on_challenge(&mut self, challenge: &[u8]) -> Result<String, Fault> {
        let challenge = STANDARD
            .decode(challenge.trim_ascii())
            .map_err(|_| Fault::NotBase64)?;
        let answer = match (self.ready.pop_front(), &mut self.rest) {
            (Some(ready), _) => ready,
            (None, Rest::Scram(scram)) => {
                let message = str::from_utf8(&challenge).map_err(|_| Fault::BadMessage)?;
                scram.on_message(message)?.into_bytes()
            }
            (None, Rest::Acknowledge(words)) => {
                let words = words.to_vec();
                self.rest = Rest::Nothing;
                words
            }
            (None, Rest::Nothing) => return Err(Fault::TooManyChallenges),
        };
        let answer = STANDARD.encode(answer);
        self.hidden.push(answer.clone());
        Ok(answer)
    }

    /// The server says that all is well. Is it?
    pub(crate) fn on_success(&self) -> Result<(), Fault> {
        match &self.rest {
            Rest::Scram(scram) if !scram.is_verified() => Err(Fault::ServerNotProven),
            _ => Ok(()),
        }
    }

    /// `text` without anything that this dialogue must not show.
    pub(crate) fn conceal(&self, text: &str) -> String {
        let mut hidden: Vec<&str> = self.hidden.iter().map(String::as_str).collect();
        // The longest first: where one is part of another, the rest of that other must not stay.
        hidden.sort_unstable_by_key(|hidden| std::cmp::Reverse(hidden.len()));
        hidden.retain(|hidden| !hidden.is_empty());
        let conceal = |text: String, hidden: &&str| text.replace(*hidden, "(concealed)");
        hidden.iter().fold(text.to_owned(), conceal)
    }
}
