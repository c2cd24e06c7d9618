//! Words that flags and keys of the configuration choose among.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::retry::InDoubt;
use crate::smtp::TlsPolicy;

/// The quoting conventions of mbox files.
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// `>From `, `>>From ` ... lose one `>` (the default)
    Mboxrd,
    /// Only `>From ` loses its `>`
    Mboxo,
    /// Content-Length fields say where messages end; nothing is quoted
    Mboxcl2,
}

/// Whether sessions are protected.
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// In clear, whatever is offered
    None,
    /// TLS where it is offered; the certificate does not matter
    May,
    /// TLS or no mail; the certificate does not matter
    Require,
    /// TLS with a certificate of a trusted authority for the server's name, or no mail
    Verify,
}

impl TlsMode {
    /// The policy it means.
    pub fn policy(self) -> TlsPolicy {
        match self {
            TlsMode::None => TlsPolicy::None,
            TlsMode::May => TlsPolicy::May,
            TlsMode::Require => TlsPolicy::Require,
            TlsMode::Verify => TlsPolicy::Verify,
        }
    }

    /// The mode that means `policy`.
    pub fn of(policy: TlsPolicy) -> TlsMode {
        match policy {
            TlsPolicy::None => TlsMode::None,
            TlsPolicy::May => TlsMode::May,
            TlsPolicy::Require | TlsPolicy::Implicit => TlsMode::Require,
            TlsPolicy::Verify => TlsMode::Verify,
        }
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            TlsMode::None => "none",
            TlsMode::May => "may",
            TlsMode::Require => "require",
            TlsMode::Verify => "verify",
        }
    }
}

/// What becomes of mail in doubt.
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum InDoubtMode {
    /// Sent again, once in the life of a job
    Resend,
    /// Never sent again: left for a person to settle
    Hold,
}

impl InDoubtMode {
    /// What it means.
    pub fn policy(self) -> InDoubt {
        match self {
            InDoubtMode::Resend => InDoubt::Resend,
            InDoubtMode::Hold => InDoubt::Hold,
        }
    }
}

/// What a notification of failure brings back (RFC 3461 4.3).
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum DsnRet {
    /// The whole message
    Full,
    /// Its header
    Hdrs,
}

/// When a server notifies (RFC 3461 4.1).
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum DsnNotify {
    /// Never
    Never,
    /// When it was delivered
    Success,
    /// When it could not be
    Failure,
    /// When it is late
    Delay,
}
