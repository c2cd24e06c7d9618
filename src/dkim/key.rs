//! Private keys: RSA and Ed25519, as PEM; and the record that publishes the other half.
//!
//! INVARIANT: a key is never shown, in no error and no debug output.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use sha2::{Digest, Sha256};

/// Receivers need not believe shorter RSA keys (RFC 8301 3.2).
pub const KEY_BITS_MIN: u32 = 1024;

/// Kinds of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// RSA: known to everybody.
    Rsa,
    /// Ed25519 (RFC 8463): short and fast, not known to everybody yet.
    Ed25519,
}

impl Kind {
    /// As in `a=` and `k=`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Rsa => "rsa",
            Kind::Ed25519 => "ed25519",
        }
    }
}

/// A private key.
#[derive(Clone)]
pub struct Key(PKey<Private>, Kind);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.1.name())
    }
}

/// What is wrong with a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// No private key in PEM without a password.
    NotPem,
    /// Neither RSA nor Ed25519.
    OtherKind,
    /// An RSA key of so many bits.
    Short(u32),
    /// What the cryptographic library says.
    Library(String),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::NotPem => f.write_str("no private key in PEM without a password"),
            KeyError::OtherKind => f.write_str("neither an RSA nor an Ed25519 key"),
            KeyError::Short(bits) => {
                write!(
                    f,
                    "an RSA key of {bits} bits, which receivers do not believe: {KEY_BITS_MIN} at least, better 2048"
                )
            }
            KeyError::Library(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for KeyError {}

impl From<ErrorStack> for KeyError {
    fn from(error: ErrorStack) -> KeyError {
        KeyError::Library(error.to_string())
    }
}

impl Key {
    /// A key in PEM: PKCS#8, or PKCS#1 for RSA.
    ///
    /// # Errors
    /// What is no key, or one that is of no use.
    pub fn from_pem(pem: &[u8]) -> Result<Key, KeyError> {
        // With an empty password one that is protected fails instead of asking on the terminal.
        let key = PKey::private_key_from_pem_passphrase(pem, b"").map_err(|_| KeyError::NotPem)?;
        match key.id() {
            Id::RSA if key.bits() < KEY_BITS_MIN => Err(KeyError::Short(key.bits())),
            Id::RSA => Ok(Key(key, Kind::Rsa)),
            Id::ED25519 => Ok(Key(key, Kind::Ed25519)),
            _ => Err(KeyError::OtherKind),
        }
    }

    /// A new key; `bits` is for RSA.
    ///
    /// # Errors
    /// What the cryptographic library says.
    pub fn generate(kind: Kind, bits: u32) -> Result<Key, KeyError> {
        let key = match kind {
            Kind::Rsa if bits < KEY_BITS_MIN => return Err(KeyError::Short(bits)),
            Kind::Rsa => PKey::from_rsa(Rsa::generate(bits)?)?,
            Kind::Ed25519 => PKey::generate_ed25519()?,
        };
        Ok(Key(key, kind))
    }

    /// RSA or Ed25519.
    pub fn kind(&self) -> Kind {
        self.1
    }

    /// PKCS#8 in PEM. A secret.
    ///
    /// # Errors
    /// What the cryptographic library says.
    pub fn to_pem(&self) -> Result<Vec<u8>, KeyError> {
        Ok(self.0.private_key_to_pem_pkcs8()?)
    }

    /// The TXT record of the public key (RFC 6376 3.6.1, RFC 8463 4).
    ///
    /// # Errors
    /// What the cryptographic library says.
    pub fn record(&self) -> Result<String, KeyError> {
        let public = match self.1 {
            Kind::Rsa => self.0.public_key_to_der()?,
            Kind::Ed25519 => self.0.raw_public_key()?,
        };
        let (kind, public) = (self.1.name(), STANDARD.encode(public));
        Ok(format!("v=DKIM1; k={kind}; p={public}"))
    }

    /// The signature of `data`.
    pub(super) fn sign(&self, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self.1 {
            Kind::Rsa => {
                let mut signer = Signer::new(MessageDigest::sha256(), &self.0)?;
                Ok(signer.sign_oneshot_to_vec(data)?)
            }
            // What is signed is the hash (RFC 8463 3).
            Kind::Ed25519 => {
                let mut signer = Signer::new_without_digest(&self.0)?;
                Ok(signer.sign_oneshot_to_vec(&Sha256::digest(data))?)
            }
        }
    }
}
