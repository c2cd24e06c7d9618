//! The keys that mail is signed with: read, and checked before anything is sent.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;

use super::super::exit::{Exit, Failure};
use crate::dkim::{Key, Signer};
use crate::engine::settings::DkimKey;
use crate::mail::Domain;

/// `[[dkim]]` of the configuration.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct DkimKeys {
    domain: String,
    selector: String,
    key: PathBuf,
}

/// The key as it is configured, and ready to sign.
///
/// # Errors
/// A [`Failure`]: a name that cannot stand in the DNS, a file that cannot be read, that others can read, or that holds no key.
pub(super) fn dkim_key(keys: DkimKeys) -> Result<(DkimKey, Signer)> {
    let signer = Signer {
        domain: domain(&keys.domain)?,
        selector: selector(&keys.selector)?,
        key: private_key(&keys.key)?,
    };
    let key = DkimKey {
        domain: signer.domain.to_string(),
        selector: keys.selector,
        file: keys.key,
    };
    Ok((key, signer))
}

/// A domain that can have keys.
///
/// # Errors
/// A [`Failure`].
pub fn domain(name: &str) -> Result<Domain> {
    match Domain::parse(name) {
        Ok(domain) if !domain.as_str().starts_with('[') => Ok(domain),
        _ => Err(Failure::new(Exit::Config, format!("dkim: {name:?} is no domain")).into()),
    }
}

/// A selector: labels of letters, digits and hyphens (RFC 6376 3.1).
///
/// # Errors
/// A [`Failure`].
pub fn selector(name: &str) -> Result<String> {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= 200 && name.split('.').all(is_label) {
        return Ok(name.to_owned());
    }
    let what = format!("dkim: {name:?} is no selector: letters, digits and hyphens, as in s2026");
    Err(Failure::new(Exit::Config, what).into())
}

/// A private key that nobody else can read.
///
/// # Errors
/// A [`Failure`].
pub fn private_key(path: &Path) -> Result<Key> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        Failure::new(
            Exit::NoInput,
            format!("{shown}: cannot read the DKIM key: {error}"),
        )
    };
    super::super::secret::private(path, "DKIM key")?;
    let pem = std::fs::read(path).map_err(unreadable)?;
    let key = Key::from_pem(&pem);
    key.map_err(|error| Failure::new(Exit::Config, format!("{shown}: DKIM key: {error}")).into())
}
