//! What tells one message from another, derived from the job and the row's key: Message-ID, boundaries, and the token that
//! stands for a recipient in links and reverse-paths.
//!
//! A token is the beginning of an HMAC-SHA-256 (RFC 2104) of the recipient's address under a key that only the sender has: nobody
//! can make or guess one, and it does not show the address. It is in lower case, since reverse-paths pass through servers that
//! change the case.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// So many octets of the HMAC are in a token: 16 characters, 80 bits.
const TOKEN_OCTETS: usize = 10;
/// So many octets of the digest are in a Message-ID and in a boundary.
const ID_OCTETS: usize = 15;

/// The key of tokens.
#[derive(Clone)]
pub struct TokenKey(Vec<u8>);

impl TokenKey {
    /// At least 16 octets that nobody else has.
    pub const OCTETS_MIN: usize = 16;

    /// The key in a file: its bytes without white space around them. `None` if it is too short.
    pub fn new(bytes: &[u8]) -> Option<TokenKey> {
        let key = bytes.trim_ascii();
        (key.len() >= TokenKey::OCTETS_MIN).then(|| TokenKey(key.to_vec()))
    }

    /// The token of an address, whatever its case.
    pub fn token(&self, address: &str) -> String {
        // An HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return String::new();
        };
        mac.update(address.to_lowercase().as_bytes());
        base32(&mac.finalize().into_bytes()[..TOKEN_OCTETS])
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// The digest of a job and a key.
#[derive(Clone, Debug)]
pub struct Identity([u8; 32]);

impl Identity {
    /// Of the row with this key in this job.
    pub fn new(job: &str, key: &str) -> Identity {
        let mut digest = Sha256::new();
        digest.update(b"mailer compose\0");
        digest.update((job.len() as u64).to_le_bytes());
        digest.update(job);
        digest.update(key);
        Identity(digest.finalize().into())
    }

    /// What stands before the `@` of the Message-ID.
    pub fn message_id(&self) -> String {
        base32(&self.0[..ID_OCTETS])
    }

    /// A MIME boundary: `=_` occurs in no encoded text (RFC 2045 6.7).
    pub fn boundary(&self, number: usize) -> String {
        format!("=_{number}{}", base32(&self.0[ID_OCTETS..2 * ID_OCTETS]))
    }
}

/// RFC 4648 6, in lower case and without padding. The length is a multiple of 5.
fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(bytes.len() * 8 / 5);
    for five in bytes.chunks(5) {
        let bits = five
            .iter()
            .fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        for at in (0..8).rev() {
            text.push(DIGITS[(bits >> (5 * at)) as usize % 32].into());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_that_of_the_rfc() {
        assert_eq!(base32(b"fooba"), "mzxw6ytb");
        assert_eq!(base32(&[0xff; 5]), "77777777");
    }

    #[test]
    fn a_token_depends_on_key_and_address_and_not_on_case() {
        let key = TokenKey::new(b" 0123456789abcdef\n").unwrap();
        // python3 -c 'import hmac,base64;print(base64.b32encode(hmac.digest(b"0123456789abcdef",b"ann@example.com","sha256")[:10]).lower())'
        assert_eq!(key.token("Ann@Example.com"), "t5yowty5t4azjvml");
        assert_eq!(key.token("ann@example.com"), key.token("ANN@example.com"));
        let other = TokenKey::new(b"0123456789abcdeg").unwrap();
        assert_ne!(other.token("ann@example.com"), key.token("ann@example.com"));
        assert!(TokenKey::new(b"  0123456789abcde  ").is_none());
    }

    #[test]
    fn identities_differ_by_job_and_by_key() {
        let id = |job, key| Identity::new(job, key).message_id();
        assert_eq!(id("a", "b"), id("a", "b"));
        assert_ne!(id("a", "bc"), id("ab", "c"), "where one ends counts");
        assert_ne!(id("a", "b"), id("c", "b"));
        assert_ne!(id("a", "b"), id("a", "c"));
        assert_eq!(id("a", "b").len(), 24);
        assert!(Identity::new("a", "b").boundary(1).starts_with("=_1"));
    }
}
