//! DKIM signatures (RFC 6376, and RFC 8463 for Ed25519), made while mail is sent.
//!
//! `a=` rsa-sha256 or ed25519-sha256, `c=relaxed/relaxed`; no `l=`, `i=`, `x=` or `z=`. What is signed: From and whatever else of
//! `FIELDS` is there; most of them are named once more than they are there, so that nobody can add another (RFC 6376 8.15).
//! A domain with two keys gets two signatures, neither of which signs the other: who does not know Ed25519 reads the RSA one.
//!
//! The body is hashed once for all signatures of a message, and not again for a message with the same body ([`BodyHash`]).
//!
//! INVARIANTS: domain and selector come from the configuration and are checked there, so nothing of a message gets
//! into a signature but names from the list below; a line of the field has fewer than 78 octets, but for long domains. No I/O,
//! no clock: keys come as PEM, the time as a number.

mod canonical;
mod key;

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_128;

use crate::mail::Domain;
use crate::mail::address_list::AddressList;
pub use key::{KEY_BITS_MIN, Key, KeyError, Kind};

/// The fields that are signed if they are there, in the order of `h=`, and whether nobody may add another.
const FIELDS: [(&str, bool); 18] = [
    ("From", true),
    ("Sender", true),
    ("Reply-To", true),
    ("To", true),
    ("Cc", true),
    ("Subject", true),
    ("Date", true),
    ("Message-ID", true),
    ("MIME-Version", true),
    ("Content-Type", true),
    ("Content-Transfer-Encoding", false),
    ("In-Reply-To", false),
    ("References", false),
    ("List-Id", false),
    ("List-Unsubscribe", true),
    ("List-Unsubscribe-Post", true),
    ("Feedback-ID", false),
    ("Precedence", false),
];
/// `h=` is folded behind a name once a line is so long, in octets.
const LINE_FULL: usize = 60;
/// Characters of a signature in a line.
const SIGNATURE_LINE: usize = 72;

/// A key in use: for whose mail, and where receivers find its other half.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Mail whose From has this domain, or one below it, is signed.
    pub domain: Domain,
    /// The key is published at `selector._domainkey.domain`.
    pub selector: String,
    /// The private key.
    pub key: Key,
}

/// All keys of a run.
#[derive(Clone, Debug, Default)]
pub struct Signers(Vec<Signer>);

/// The hash of the body that was signed last.
#[derive(Clone, Debug, Default)]
pub struct BodyHash {
    of: Option<(usize, u128)>,
    hash: String,
}

impl BodyHash {
    fn of(&mut self, body: &[u8]) -> &str {
        let of = Some((body.len(), xxh3_128(body)));
        if self.of != of {
            let mut hasher = Sha256::new();
            canonical::body(body, |part| hasher.update(part));
            self.hash = STANDARD.encode(hasher.finalize());
            self.of = of;
        }
        &self.hash
    }
}

impl Signers {
    /// These keys.
    pub fn new(signers: Vec<Signer>) -> Signers {
        Signers(signers)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Signer> {
        self.0.iter()
    }

    /// True if nothing is signed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys for mail from `domain`: its own, else those of the nearest domain above it.
    fn of(&self, domain: &str) -> impl Iterator<Item = &Signer> {
        let above = domain.match_indices('.').map(|(at, _)| &domain[at + 1..]);
        let has_key = |name: &&str| self.0.iter().any(|signer| signer.domain.as_str() == *name);
        let name = std::iter::once(domain).chain(above).find(has_key);
        self.0
            .iter()
            .filter(move |signer| Some(signer.domain.as_str()) == name)
    }

    /// The DKIM-Signature fields for a message with CRLF line ends, one for each key of its From domain, to stand before it.
    /// Empty if there is no key for that domain, or no such domain. `now`: seconds since 1970.
    ///
    /// # Errors
    /// What the cryptographic library says.
    pub fn sign(
        &self,
        message: &[u8],
        now: i64,
        body_hash: &mut BodyHash,
    ) -> Result<String, KeyError> {
        let mut signatures = String::new();
        if self.is_empty() {
            return Ok(signatures);
        }
        let (header, body) = canonical::split(message);
        let fields = canonical::fields(header);
        let Some(domain) = from_domain(&fields) else {
            return Ok(signatures);
        };
        for signer in self.of(domain.as_str()) {
            let body_hash = body_hash.of(body);
            signer.sign(&fields, body_hash, now, &mut signatures)?;
        }
        Ok(signatures)
    }
}

impl Signer {
    fn sign(
        &self,
        fields: &[&[u8]],
        body_hash: &str,
        now: i64,
        out: &mut String,
    ) -> Result<(), KeyError> {
        let (names, mut data) = select(fields);
        let start = out.len();
        let (kind, domain, selector) = (self.key.kind(), &self.domain, &self.selector);
        // Into memory: it cannot fail.
        let _ = write!(
            out,
            "DKIM-Signature: v=1; a={}-sha256; c=relaxed/relaxed; t={now};\r\n\td={domain}; s={selector};\r\n\th={names};\r\n\tbh={body_hash};\r\n\tb=",
            kind.name()
        );
        canonical::field(&out.as_bytes()[start..], &mut data);
        let signature = STANDARD.encode(self.key.sign(&data)?);
        for (at, line) in signature.as_bytes().chunks(SIGNATURE_LINE).enumerate() {
            out.push_str(if at > 0 { "\r\n\t " } else { "" });
            out.extend(line.iter().map(|byte| char::from(*byte)));
        }
        out.push_str("\r\n");
        Ok(())
    }
}

/// The value of `h=`, folded, and the fields it names in canonical form, a CRLF behind each: of several with one name the
/// last comes first (RFC 6376 5.4.2).
fn select(fields: &[&[u8]]) -> (String, Vec<u8>) {
    let (mut names, mut data, mut line) = (String::new(), Vec::new(), 0);
    for (name, is_sole) in FIELDS {
        let named = fields
            .iter()
            .rev()
            .filter(|field| canonical::is_named(field, name));
        let mut count = 0;
        for field in named {
            canonical::field(field, &mut data);
            data.extend_from_slice(b"\r\n");
            count += 1;
        }
        if is_sole {
            count += 1;
        }
        for _ in 0..count {
            if line > LINE_FULL {
                names.push_str("\r\n\t ");
                line = 0;
            }
            if !names.is_empty() {
                names.push(':');
            }
            names.push_str(name);
            line += name.len() + 1;
        }
    }
    (names, data)
}

/// The domain of the first mailbox of the only From (RFC 5322 3.6: there is one).
fn from_domain(fields: &[&[u8]]) -> Option<Domain> {
    let mut named = fields
        .iter()
        .filter(|field| canonical::is_named(field, "From"));
    let (field, None) = (named.next()?, named.next()) else {
        return None;
    };
    let colon = memchr::memchr(b':', field)?;
    let first = AddressList::new(&field[colon + 1..]).next()?;
    Some(first.mailbox.ok()?.domain().clone())
}

#[cfg(test)]
mod tests;
