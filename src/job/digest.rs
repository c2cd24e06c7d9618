//! The digest of a batch: what a job of files is known by, before anything of it is sent.
//!
//! SHA-256 over a list: how messages are numbered and changed, then for each input its kind, and length and SHA-256 of each of
//! its files. Lengths stand before what they measure, so that two batches with the same digest have the same files in the same
//! order. Names and times are not in it: a batch that was moved or made again is the same batch.
//!
//! Limits: an input that changes while it is read is an error. What can be read only once (standard input, a pipe) has none.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::JobError;
use super::stamp::{self, InputStamp, stamps};

/// Read at once.
const CHUNK: usize = 256 * 1024;

/// The digest of a batch, and the stamps that its files had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    /// 64 hexadecimal digits.
    pub text: String,
    /// For the card.
    pub inputs: Vec<InputStamp>,
}

/// Reads a batch for its digest. `to_file`: the list of recipients; `numbering`: flags that change what a message's number or
/// bytes are.
///
/// # Errors
/// If an input cannot be read, changes meanwhile, or is neither a file nor a Maildir.
pub fn digest(
    inputs: &[PathBuf],
    to_file: Option<&Path>,
    numbering: &str,
) -> Result<Digest, JobError> {
    let stamped = stamps(inputs, to_file)?;
    let mut list = Sha256::new();
    list.update(b"mailer batch 1\n");
    add_text(&mut list, numbering.as_bytes());
    let mut buffer = vec![0; CHUNK];
    for stamp in &stamped {
        let kind = match (stamp.to_file, stamp.regular) {
            (true, _) => b"to",
            (false, true) => b"fi",
            (false, false) => b"md",
        };
        list.update(kind);
        if stamp.regular || stamp.to_file {
            add_file(&mut list, &stamp.path, &mut buffer)?;
        } else {
            add_maildir(&mut list, &stamp.path, &mut buffer)?;
        }
    }
    stamp::unchanged(&stamped)?;
    Ok(Digest {
        text: hex(&list.finalize()),
        inputs: stamped,
    })
}

fn add_text(list: &mut Sha256, text: &[u8]) {
    list.update((text.len() as u64).to_le_bytes());
    list.update(text);
}

/// Adds a file's length and digest: the length is that of the bytes that were read.
fn add_file(list: &mut Sha256, path: &Path, buffer: &mut [u8]) -> Result<(), JobError> {
    let fail = |error| JobError::Input {
        path: path.to_path_buf(),
        error,
    };
    if !path.metadata().map_err(fail)?.is_file() {
        return Err(stamp::not_a_file(path));
    }
    let mut file = File::open(path).map_err(fail)?;
    let (mut content, mut length) = (Sha256::new(), 0_u64);
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(len) => {
                content.update(&buffer[..len]);
                length += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(fail(error)),
        }
    }
    list.update(length.to_le_bytes());
    list.update(content.finalize());
    Ok(())
}

/// Adds the messages of a Maildir, in the order in which the batch is read.
fn add_maildir(list: &mut Sha256, dir: &Path, buffer: &mut [u8]) -> Result<(), JobError> {
    let before = maildir_files(dir)?;
    list.update((before.len() as u64).to_le_bytes());
    for path in &before {
        match add_file(list, path, buffer) {
            // What cannot be read is a row of the report, not the end of the batch.
            Err(JobError::Input { error, .. }) if error.kind() != io::ErrorKind::NotFound => {
                list.update(b"unreadable");
            }
            Err(JobError::Input { .. }) => {
                return Err(JobError::Changed {
                    path: dir.to_path_buf(),
                });
            }
            other => other?,
        }
    }
    if maildir_files(dir)? != before {
        return Err(JobError::Changed {
            path: dir.to_path_buf(),
        });
    }
    Ok(())
}

/// Messages in `new`, then those in `cur`, each sorted by name; no directories, nothing hidden.
pub(super) fn maildir_files(dir: &Path) -> Result<Vec<PathBuf>, JobError> {
    if !dir.is_dir() {
        return Err(stamp::not_a_file(dir));
    }
    let mut files = Vec::new();
    for part in ["new", "cur"] {
        let part = dir.join(part);
        let names = names_in(&part).map_err(|error| JobError::Input {
            path: part.clone(),
            error,
        })?;
        files.extend(names.into_iter().map(|name| part.join(name)));
    }
    Ok(files)
}

fn names_in(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_dir && !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
