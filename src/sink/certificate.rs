//! Certificates made on the spot, so that TLS can be tried and verified without files or a real authority.
//!
//! [`self_signed`] makes one that only a client who verifies nothing (or trusts exactly it) accepts. An [`Authority`] signs
//! certificates that verify for clients who trust [`Authority::certificate_pem`].
//!
//! Keys are P-256: fast to make and small on the wire. Certificates are valid from yesterday for a year, but for
//! [`Authority::issue_expired`]. Names that parse as IP addresses become addresses in the certificate.
//!
//! Errors are the library's refusals (a name it does not take, no randomness). For tests and labs: keys are held in memory as
//! they are.

use std::fmt;
use std::net::IpAddr;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};

const DAY_SECS: i64 = 24 * 3600;
const SERIAL_BITS: i32 = 128;
/// The most that a common name may hold (RFC 5280 appendix A: ub-common-name).
const COMMON_NAME_BYTES_MAX: usize = 64;

/// A certificate with its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, then those that lead to its authority (the authority's own excepted).
    pub chain_pem: Vec<u8>,
    /// Its key, PKCS #8.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for Certificate {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

/// A certificate for `names` that vouches for itself.
///
/// # Errors
/// The library's refusal.
pub fn self_signed(names: &[&str]) -> Result<Certificate, ErrorStack> {
    let key = new_key()?;
    let subject = subject(names.first().copied().unwrap_or("sink.test"))?;
    let template = Template {
        subject: &subject,
        issuer: &subject,
        signer: &key,
        from_day: -1,
        to_day: 365,
    };
    template.sign(&key, Kind::Server(names))?.with_key(&key)
}

/// Somebody who signs certificates.
pub struct Authority {
    key: PKey<Private>,
    certificate: X509,
}

impl Authority {
    /// A new one with a key of its own.
    ///
    /// # Errors
    /// The library's refusal.
    pub fn new(name: &str) -> Result<Authority, ErrorStack> {
        let key = new_key()?;
        let subject = subject(name)?;
        let template = Template {
            subject: &subject,
            issuer: &subject,
            signer: &key,
            from_day: -1,
            to_day: 365,
        };
        let certificate = template.sign(&key, Kind::Authority)?.0;
        Ok(Authority { key, certificate })
    }

    /// What clients have to trust.
    ///
    /// # Errors
    /// The library's refusal.
    pub fn certificate_pem(&self) -> Result<Vec<u8>, ErrorStack> {
        self.certificate.to_pem()
    }

    /// A certificate for `names`.
    ///
    /// # Errors
    /// The library's refusal.
    pub fn issue(&self, names: &[&str]) -> Result<Certificate, ErrorStack> {
        self.issue_for_days(names, -1, 365)
    }

    /// A certificate for `names` that ended yesterday.
    ///
    /// # Errors
    /// The library's refusal.
    pub fn issue_expired(&self, names: &[&str]) -> Result<Certificate, ErrorStack> {
        self.issue_for_days(names, -30, -1)
    }

    fn issue_for_days(
        &self,
        names: &[&str],
        from_day: i64,
        to_day: i64,
    ) -> Result<Certificate, ErrorStack> {
        let key = new_key()?;
        let subject = subject(names.first().copied().unwrap_or("sink.test"))?;
        let template = Template {
            subject: &subject,
            issuer: self.certificate.subject_name(),
            signer: &self.key,
            from_day,
            to_day,
        };
        template.sign(&key, Kind::Server(names))?.with_key(&key)
    }
}

/// What a certificate is for.
enum Kind<'a> {
    Server(&'a [&'a str]),
    Authority,
}

/// What is common to all kinds.
struct Template<'a> {
    subject: &'a openssl::x509::X509NameRef,
    issuer: &'a openssl::x509::X509NameRef,
    signer: &'a PKey<Private>,
    /// Counted from today.
    from_day: i64,
    to_day: i64,
}

struct Signed(X509);

impl Signed {
    fn with_key(self, key: &PKey<Private>) -> Result<Certificate, ErrorStack> {
        Ok(Certificate {
            chain_pem: self.0.to_pem()?,
            key_pem: key.private_key_to_pem_pkcs8()?,
        })
    }
}

impl Template<'_> {
    fn sign(&self, key: &PKey<Private>, kind: Kind<'_>) -> Result<Signed, ErrorStack> {
        let mut builder = X509::builder()?;
        builder.set_version(2)?; // counts from 0: version 3, as extensions need it (RFC 5280 4.1.2.1)
        builder.set_subject_name(self.subject)?;
        builder.set_issuer_name(self.issuer)?;
        builder.set_pubkey(key)?;
        // Two certificates of one issuer must differ in their serial number (RFC 5280 4.1.2.2).
        let mut serial = BigNum::new()?;
        serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;
        let serial = serial.to_asn1_integer()?;
        builder.set_serial_number(&serial)?;
        let now = jiff::Timestamp::now().as_second();
        let from = Asn1Time::from_unix(now + self.from_day * DAY_SECS)?;
        let to = Asn1Time::from_unix(now + self.to_day * DAY_SECS)?;
        builder.set_not_before(&from)?;
        builder.set_not_after(&to)?;
        match kind {
            Kind::Server(names) => add_names(&mut builder, names)?,
            Kind::Authority => {
                builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
                builder.append_extension(KeyUsage::new().critical().key_cert_sign().build()?)?;
            }
        }
        builder.sign(self.signer, MessageDigest::sha256())?;
        Ok(Signed(builder.build()))
    }
}

fn add_names(builder: &mut X509Builder, names: &[&str]) -> Result<(), ErrorStack> {
    if names.is_empty() {
        return Ok(());
    }
    let mut alternative = SubjectAlternativeName::new();
    for name in names {
        match name.parse::<IpAddr>() {
            Ok(_) => alternative.ip(name),
            Err(_) => alternative.dns(name),
        };
    }
    let context = builder.x509v3_context(None, None);
    let extension = alternative.build(&context)?;
    builder.append_extension(extension)
}

fn subject(name: &str) -> Result<X509Name, ErrorStack> {
    let mut end = name.len().min(COMMON_NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_nid(Nid::COMMONNAME, &name[..end])?;
    Ok(builder.build())
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}
