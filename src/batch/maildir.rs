//! The files of a Maildir, which mail readers rename: from new/ to cur/, and with other flags behind the colon of the name.
//!
//! What stands before the colon is unique and stays. A file that is not where intake found it is looked for by that part, in a
//! listing of both directories.
//!
//! INVARIANT: the name is a hint only; the hash of the message decides whether a file that was found is the right one.
//! Errors: none; directories that cannot be listed hold nothing. Memory: once a file is missing, the names of one listing.
//! Limits: a listing serves for [`LISTING_AGE_MAX`], so that many missing files do not make a listing each.

use super::source::list;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where messages are in a Maildir.
pub(super) const PARTS: [&str; 2] = ["new", "cur"];
/// For how long one listing serves.
const LISTING_AGE_MAX: Duration = Duration::from_secs(1);

/// The files of a Maildir: `new/...` and `cur/...` in order.
#[derive(Debug)]
pub(super) struct MaildirFiles {
    pub(super) names: Vec<Box<OsStr>>,
    listing: Mutex<Option<Listing>>,
}

/// Where the files are now, by the part of their names that stays.
#[derive(Debug)]
struct Listing {
    made_at: Instant,
    files: HashMap<OsString, Vec<PathBuf>>,
}

impl MaildirFiles {
    pub(super) fn new(names: Vec<Box<OsStr>>) -> MaildirFiles {
        MaildirFiles {
            names,
            listing: Mutex::new(None),
        }
    }

    /// The name of the file with this number.
    pub(super) fn name(&self, number: u64) -> Option<&OsStr> {
        let name = self.names.get(usize::try_from(number).ok()?)?;
        Some(name)
    }

    /// Where the file with this number may be in `dir`, under other names than its own.
    pub(super) fn renamed(&self, dir: &Path, number: u64) -> Vec<PathBuf> {
        let Some(name) = self.name(number) else {
            return Vec::new();
        };
        let Some(unique) = Path::new(name).file_name().map(unique_part) else {
            return Vec::new();
        };
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = listing
            .take()
            .filter(|listing| listing.made_at.elapsed() < LISTING_AGE_MAX)
            .unwrap_or_else(|| Listing::of(dir));
        let found = listing.insert(fresh).files.get(unique);
        let others = found.into_iter().flatten().filter(|file| *file != name);
        others.map(|file| dir.join(file)).collect()
    }
}

impl Listing {
    fn of(dir: &Path) -> Listing {
        let mut files: HashMap<OsString, Vec<PathBuf>> = HashMap::new();
        for part in PARTS {
            for name in list(&dir.join(part)).unwrap_or_default() {
                let file = Path::new(part).join(&name);
                files
                    .entry(unique_part(&name).to_owned())
                    .or_default()
                    .push(file);
            }
        }
        Listing {
            made_at: Instant::now(),
            files,
        }
    }
}

/// What stands before the colon of a file's name.
fn unique_part(name: &OsStr) -> &OsStr {
    let bytes = name.as_bytes();
    let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
    OsStr::from_bytes(&bytes[..end])
}
