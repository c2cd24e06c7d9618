//! TLS of the receiver: who it says it is, from when on it speaks TLS, and what it wants of the client.
//!
//! It is OpenSSL without native-tls: native-tls's acceptor stops at TLS 1.2, and servers out there have 1.3. Certificates
//! come from files, from bytes, or are made on the spot ([`super::certificate`]).
//!
//! Both versions are spoken, nothing older (RFC 8996). Errors name what was tried and say why the library refused.

use std::io;
use std::path::Path;

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslAcceptorBuilder, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;

use super::certificate::{self, Certificate};
use super::config::SinkError;

/// How a receiver speaks TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SinkTls {
    /// What it shows.
    pub certificate: Certificate,
    /// TLS from the first byte on (RFC 8314), not after STARTTLS. Rules for the stage `starttls` then concern the handshake;
    /// replies they have are not said, since nothing has asked for one.
    pub implicit: bool,
    /// TLS 1.2 is the newest that it speaks.
    pub tls12_only: bool,
    /// Clients must show a certificate that one of these (PEM) signed.
    pub client_ca_pem: Option<Vec<u8>>,
}

impl SinkTls {
    /// STARTTLS with this certificate.
    pub fn new(certificate: Certificate) -> SinkTls {
        SinkTls {
            certificate,
            implicit: false,
            tls12_only: false,
            client_ca_pem: None,
        }
    }

    /// STARTTLS with a certificate for `names` that vouches for itself.
    ///
    /// # Errors
    /// The library's refusal.
    pub fn self_signed(names: &[&str]) -> Result<SinkTls, SinkError> {
        let made = certificate::self_signed(names);
        made.map(SinkTls::new)
            .map_err(|error| failed("make a certificate", error))
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
        let tls = SinkTls::new(Certificate {
            chain_pem: read(chain)?,
            key_pem: read(key)?,
        });
        let attempt = || format!("use {} with {}", chain.display(), key.display());
        tls.build().map_err(|error| failed(attempt(), error))?;
        Ok(tls)
    }

    /// The same from the first byte on.
    pub fn implicit(mut self) -> SinkTls {
        self.implicit = true;
        self
    }

    /// What shakes hands.
    pub(super) fn acceptor(&self) -> Result<SslAcceptor, SinkError> {
        self.build()
            .map_err(|error| failed("use the certificate", error))
    }

    fn build(&self) -> Result<SslAcceptor, ErrorStack> {
        // TLS 1.2 and 1.3, with ciphers that real servers have.
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
        if self.tls12_only {
            builder.set_max_proto_version(Some(SslVersion::TLS1_2))?;
        }
        let mut chain = X509::stack_from_pem(&self.certificate.chain_pem)?.into_iter();
        if let Some(own) = chain.next() {
            builder.set_certificate(&own)?;
        }
        for link in chain {
            builder.add_extra_chain_cert(link)?;
        }
        let key = PKey::private_key_from_pem(&self.certificate.key_pem)?;
        builder.set_private_key(&key)?;
        builder.check_private_key()?;
        if let Some(pem) = &self.client_ca_pem {
            demand_certificate(&mut builder, pem)?;
        }
        Ok(builder.build())
    }
}

fn demand_certificate(builder: &mut SslAcceptorBuilder, ca_pem: &[u8]) -> Result<(), ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    for authority in X509::stack_from_pem(ca_pem)? {
        builder.add_client_ca(&authority)?;
        store.add_cert(authority)?;
    }
    builder.set_verify_cert_store(store.build())?;
    // Without it no session of a client that was verified can be resumed.
    builder.set_session_id_context(b"sink")?;
    builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    Ok(())
}

fn failed(attempt: impl Into<String>, error: ErrorStack) -> SinkError {
    SinkError::new(attempt, io::Error::other(error))
}
