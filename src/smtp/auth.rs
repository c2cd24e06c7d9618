//! AUTH (RFC 4954): who we are to a relay, and by which mechanism it is proven.
//!
//! [`Credentials`] are checked when they are made, so that nothing in them can end a line, close a message of a mechanism
//! or outgrow a command. [`Credentials::choose`] takes the strongest mechanism that both sides know: a proof that shows
//! the password to nobody (SCRAM-SHA-256) before one that sends it (PLAIN, then LOGIN). A bearer token goes by XOAUTH2,
//! or OAUTHBEARER where only that is offered. The dialogue itself is an `Exchange`.
//!
//! INVARIANTS: a secret is in no `Debug` output and in no verdict; nothing here panics, whatever a server sends.
//!
//! Limits: user names and passwords are used as they are, in UTF-8, without the normal form of RFC 4013 (for ASCII it
//! makes no difference); no channel binding (SCRAM-SHA-256-PLUS); secrets are not wiped from memory.

mod exchange;
mod scram;

pub(super) use exchange::{Exchange, Fault};

use std::fmt;

use super::capabilities::AuthMechanisms;

/// The longest user name, in bytes.
pub const USER_BYTES_MAX: usize = 512;
/// The longest password or token, in bytes: with it a response stays below RFC 4954's limit of 12288.
pub const SECRET_BYTES_MAX: usize = 8192;

/// How to prove who we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// RFC 7677. The password does not leave, and the server proves that it knows it too.
    ScramSha256,
    /// RFC 4616.
    Plain,
    /// Never standardised, offered widely.
    Login,
    /// Google's and Microsoft's bearer token.
    Xoauth2,
    /// RFC 7628: a bearer token.
    Oauthbearer,
}

impl Mechanism {
    /// All of them, the preferred first.
    pub const ALL: [Mechanism; 5] = [
        Mechanism::ScramSha256,
        Mechanism::Plain,
        Mechanism::Login,
        Mechanism::Xoauth2,
        Mechanism::Oauthbearer,
    ];

    /// Its name in AUTH.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::Xoauth2 => "XOAUTH2",
            Mechanism::Oauthbearer => "OAUTHBEARER",
        }
    }

    /// The mechanism of this name, whatever its case.
    pub fn from_name(name: &str) -> Option<Mechanism> {
        let mut all = Mechanism::ALL.into_iter();
        all.find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// True if it proves with a bearer token, not with a password.
    fn takes_token(self) -> bool {
        matches!(self, Mechanism::Xoauth2 | Mechanism::Oauthbearer)
    }

    fn is_in(self, offered: AuthMechanisms) -> bool {
        match self {
            Mechanism::ScramSha256 => offered.scram_sha_256,
            Mechanism::Plain => offered.plain,
            Mechanism::Login => offered.login,
            Mechanism::Xoauth2 => offered.xoauth2,
            Mechanism::Oauthbearer => offered.oauthbearer,
        }
    }
}

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// A password.
    Password(String),
    /// A bearer token (OAuth 2.0).
    Token(String),
}

impl Secret {
    fn text(&self) -> &str {
        match self {
            Secret::Password(text) | Secret::Token(text) => text,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::Password(_) => "Password(..)",
            Secret::Token(_) => "Token(..)",
        })
    }
}

/// Who we are to a relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    user: String,
    secret: Secret,
    mechanism: Option<Mechanism>,
}

/// Why credentials cannot be used. The words never show them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadCredentials {
    /// The user name is empty, too long, or holds a control character.
    User,
    /// The password or token is empty, too long, or holds a control character.
    Secret,
    /// The mechanism asked for proves by the other kind of secret.
    Mechanism,
}

impl fmt::Display for BadCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadCredentials::User => {
                "the user name is empty, too long, or holds a control character"
            }
            BadCredentials::Secret => {
                "the password or token is empty, too long, or holds a control character"
            }
            BadCredentials::Mechanism => {
                "the mechanism does not fit: a password goes by SCRAM-SHA-256, PLAIN or LOGIN, a token by XOAUTH2 or OAUTHBEARER"
            }
        })
    }
}

impl std::error::Error for BadCredentials {}

impl Credentials {
    /// Credentials that can be sent; with a `mechanism`, by no other.
    ///
    /// # Errors
    /// [`BadCredentials`]: NUL would end a part of PLAIN, control-A one of XOAUTH2; no honest name holds either.
    pub fn new(
        user: impl Into<String>,
        secret: Secret,
        mechanism: Option<Mechanism>,
    ) -> Result<Credentials, BadCredentials> {
        let user = user.into();
        let is_fit = |text: &str, bytes_max: usize| {
            !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control)
        };
        if !is_fit(&user, USER_BYTES_MAX) {
            return Err(BadCredentials::User);
        }
        if !is_fit(secret.text(), SECRET_BYTES_MAX) {
            return Err(BadCredentials::Secret);
        }
        let is_token = matches!(secret, Secret::Token(_));
        if mechanism.is_some_and(|mechanism| mechanism.takes_token() != is_token) {
            return Err(BadCredentials::Mechanism);
        }
        Ok(Credentials {
            user,
            secret,
            mechanism,
        })
    }

    /// Who we claim to be.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The strongest mechanism that is offered and fits; `None` if there is none.
    pub fn choose(&self, offered: AuthMechanisms) -> Option<Mechanism> {
        let is_token = matches!(self.secret, Secret::Token(_));
        Mechanism::ALL.into_iter().find(|&mechanism| {
            mechanism.takes_token() == is_token
                && mechanism.is_in(offered)
                && self.mechanism.is_none_or(|wanted| wanted == mechanism)
        })
    }
}

#[cfg(test)]
mod tests;
