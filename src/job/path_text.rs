//! Paths on a card: as text, whatever bytes they have.
//!
//! JSON has text only. A path that is no UTF-8 is written as a NUL, which no path can have, and hexadecimal digits: so a batch
//! with an old name in Latin-1 can be a job, too.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text of a path.
fn text(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.starts_with('\0') => text.to_owned(),
        _ => {
            let bytes = path.as_os_str().as_bytes().iter();
            let digits = bytes.map(|byte| format!("{byte:02x}"));
            format!("\0{}", digits.collect::<String>())
        }
    }
}

/// The path of a text; `None` if it is none that [`text`] makes.
fn path(text: &str) -> Option<PathBuf> {
    let Some(digits) = text.strip_prefix('\0') else {
        return Some(text.into());
    };
    let pairs = digits.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes.map(|bytes| OsString::from_vec(bytes).into())
}

/// For a field that is a path.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    text(path).serialize(serializer)
}

/// For a field that is a path.
///
/// # Errors
/// If it is no text, or no path's.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    path(&text).ok_or_else(|| serde::de::Error::custom("it is no path"))
}

/// One of several paths, or of none: what fields of other types hold.
#[derive(Serialize, Deserialize)]
struct Wrapped(#[serde(with = "self")] PathBuf);

/// For a field that may be a path.
pub mod option {
    use super::{Deserialize, Deserializer, PathBuf, Serialize, Serializer, Wrapped};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        path.clone().map(Wrapped).serialize(to)
    }

    /// Reads it.
    ///
    /// # Errors
    /// If it is no text, or no path's.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        Option::<Wrapped>::deserialize(from).map(|path| path.map(|path| path.0))
    }
}

/// For a field that is a list of paths.
pub mod list {
    use super::{Deserialize, Deserializer, PathBuf, Serialize, Serializer, Wrapped};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        let paths = paths.iter().cloned();
        paths.map(Wrapped).collect::<Vec<_>>().serialize(to)
    }

    /// Reads it.
    ///
    /// # Errors
    /// If one is no text, or no path's.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
        let paths = Vec::<Wrapped>::deserialize(from)?;
        Ok(paths.into_iter().map(|path| path.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_comes_back_from_its_text() {
        for bytes in [
            &b"/a/b c"[..],
            b"caf\xe9.mbox",
            b"\xff",
            b"",
            "\u{fffd}".as_bytes(),
        ] {
            let there = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(path(&text(&there)), Some(there));
        }
        for wrong in ["\u{0}4", "\u{0}4g", "\u{0}+1", "\u{0}é1"] {
            let _ = path(wrong);
        }
        assert_eq!(path("\u{0}4g"), None);
    }
}
