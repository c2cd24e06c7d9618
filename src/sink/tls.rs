//! TLS of the receiver: who it says it is, and from when on it speaks TLS.
//!
//! native-tls is the server's side too, so the client is tried against the library that its users have. Certificates come
//! from files, from bytes, or are made on the spot ([`super::certificate`]).
//!
//! Limits: no certificate is asked of the client.

use std::io;
use std::path::Path;

use native_tls::{Identity, Protocol, TlsAcceptor};

use super::certificate::{self, Certificate};
use super::config::SinkError;

/// How a receiver speaks TLS.
#[derive(Clone, Debug)]
pub struct SinkTls {
    /// What it shows.
    pub certificate: Certificate,
    /// TLS from the first byte on (RFC 8314), not after STARTTLS. Rules for the stage `starttls` then concern the handshake;
    /// replies they have are not said, since nothing has asked for one.
    pub implicit: bool,
    /// The newest protocol it speaks; `None` is the newest that the library has.
    pub protocol_max: Option<Protocol>,
}

impl PartialEq for SinkTls {
    fn eq(&self, other: &SinkTls) -> bool {
        // `Protocol` cannot be compared; its names can.
        let protocol = |tls: &SinkTls| tls.protocol_max.map(|protocol| format!("{protocol:?}"));
        (self.implicit, &self.certificate) == (other.implicit, &other.certificate)
            && protocol(self) == protocol(other)
    }
}

impl SinkTls {
    /// STARTTLS with this certificate.
    pub fn new(certificate: Certificate) -> SinkTls {
        SinkTls {
            certificate,
            implicit: false,
            protocol_max: None,
        }
    }

    /// STARTTLS with a certificate for `names` that vouches for itself.
    ///
    /// # Errors
    /// The library's refusal.
    pub fn self_signed(names: &[&str]) -> Result<SinkTls, SinkError> {
        let made = certificate::self_signed(names);
        let made = made.map_err(|error| failed("make a certificate", error))?;
        Ok(SinkTls::new(made))
    }

    /// STARTTLS with a chain of certificates and its key from PEM files. Any form of key that the library reads will do.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should.
    pub fn from_files(chain: &Path, key: &Path) -> Result<SinkTls, SinkError> {
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|cause| SinkError::new(format!("read {}", path.display()), cause))
        };
        let (chain_pem, key_bytes) = (read(chain)?, read(key)?);
        // native-tls takes PKCS #8 only; many programs write the older forms.
        let key_pem = openssl::pkey::PKey::private_key_from_pem(&key_bytes)
            .and_then(|key| key.private_key_to_pem_pkcs8())
            .map_err(|error| failed(&format!("use the key in {}", key.display()), error))?;
        let tls = SinkTls::new(Certificate { chain_pem, key_pem });
        tls.acceptor()
            .map_err(|error| failed(&format!("use {}", chain.display()), error.cause))?;
        Ok(tls)
    }

    /// The same from the first byte on.
    pub fn implicit(mut self) -> SinkTls {
        self.implicit = true;
        self
    }

    /// What shakes hands.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, SinkError> {
        let unusable = |error| failed("use the certificate", error);
        let Certificate { chain_pem, key_pem } = &self.certificate;
        let identity = Identity::from_pkcs8(chain_pem, key_pem).map_err(unusable)?;
        TlsAcceptor::builder(identity)
            .min_protocol_version(Some(Protocol::Tlsv12))
            .max_protocol_version(self.protocol_max)
            .build()
            .map_err(unusable)
    }
}

fn failed(attempt: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SinkError {
    SinkError::new(attempt, io::Error::other(error))
}
