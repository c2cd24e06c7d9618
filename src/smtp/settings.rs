//! How a session is to be held: what the driver hands to a [`Conversation`](super::Conversation), all of it plain values.
//!
//! INVARIANT: a policy that asks for TLS is never met by less: without TLS its session ends before any mail is named.
//! Limit: whether a certificate fits is the handshake's business, and that is the driver's; here `Require` and `Verify`
//! differ in nothing.

use super::auth::Credentials;
use super::pipeline::Pipelining;

/// Whether the session is to be protected by TLS (RFC 3207).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TlsPolicy {
    /// In the clear, whatever the server offers.
    #[default]
    None,
    /// TLS where it is offered, else in the clear. After a handshake that failed the session is over: whoever wants to go
    /// on in the clear with this host opens another one, with [`TlsPolicy::None`].
    May,
    /// TLS, or no mail.
    Require,
    /// TLS with a certificate that the driver has verified, or no mail.
    Verify,
    /// The connection is in TLS from its first byte (RFC 8314 section 3.3); the driver saw to it.
    Implicit,
}

impl TlsPolicy {
    /// True if STARTTLS is said where it is offered.
    pub fn wants_starttls(self) -> bool {
        matches!(
            self,
            TlsPolicy::May | TlsPolicy::Require | TlsPolicy::Verify
        )
    }

    /// True if mail may leave in the clear where TLS cannot be had.
    pub fn bears_clear_text(self) -> bool {
        matches!(self, TlsPolicy::None | TlsPolicy::May)
    }
}

/// Which protocol the server speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// RFC 5321.
    #[default]
    Smtp,
    /// RFC 2033: LHLO, and behind the final dot one reply for each recipient that was accepted.
    Lmtp,
}

/// How a conversation is to be held.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our name for EHLO: a full domain name or an address literal.
    pub hello: String,
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// TLS: never, if offered, or always.
    pub tls: TlsPolicy,
    /// Who we are to a relay (RFC 4954); `None`: AUTH is not said.
    pub auth: Option<Credentials>,
    /// The credentials may be sent without TLS.
    pub auth_in_clear: bool,
    /// Octets for SCRAM's nonce (RFC 5802 5.1): random, and new for each session with credentials.
    pub auth_nonce: [u8; NONCE_OCTETS],
    /// How far to run ahead, if the server offers PIPELINING at all.
    pub level: Pipelining,
    /// The most recipients of one transaction; the server may lower it.
    pub recipients_max: usize,
    /// Content of at most so many octets may leave by BDAT (RFC 3030) where that saves a round trip; 0: never.
    pub bdat_bytes_max: u64,
}

/// Octets that SCRAM's nonce is made of.
pub const NONCE_OCTETS: usize = 18;
/// A sensible [`Settings::bdat_bytes_max`]: what leaves although all recipients may be refused is wasted, and it must fit
/// into the buffers of both ends while nobody reads replies.
pub const BDAT_BYTES_MAX: u64 = 64 * 1024;

impl Settings {
    /// Plain SMTP in lock step, in the name of `hello`.
    pub fn new(hello: impl Into<String>) -> Settings {
        Settings {
            hello: hello.into(),
            protocol: Protocol::Smtp,
            tls: TlsPolicy::None,
            auth: None,
            auth_in_clear: false,
            auth_nonce: [0; NONCE_OCTETS],
            level: Pipelining::None,
            recipients_max: 100,
            bdat_bytes_max: 0,
        }
    }
}
