//! Directories and files of the state directory: opened so that no symbolic link is followed, and used only if they are ours.
//!
//! A directory that others may write into could hold anything by the time that it is used, so it is refused; within one that
//! is ours alone, names cannot be changed by others between the look and the use.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::error::{JobError, MAKE};

/// Bits of a mode that let others write.
const OTHERS_WRITE: u32 = 0o022;
/// Directories for everybody, such as /tmp.
const STICKY: u32 = 0o1000;

/// Makes a directory for its owner only. True if it was not there before.
pub(super) fn make_dir(path: &Path) -> Result<bool, JobError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(JobError::io(path, MAKE, error)),
    }
}

/// Makes sure that `path` is a directory, ours, and nobody else's to write into. `path` must not end in a slash: the system
/// would follow a link there.
pub(super) fn check_dir(path: &Path) -> Result<(), JobError> {
    let metadata =
        fs::symlink_metadata(path).map_err(|error| JobError::io(path, "look at it", error))?;
    if metadata.is_symlink() {
        let leads = fs::canonicalize(path).unwrap_or_default();
        return Err(unsafe_path(
            path,
            "is a symbolic link, which is not followed here".to_owned(),
            format!("name the directory itself: --state {}", leads.display()),
        ));
    }
    if !metadata.is_dir() {
        return Err(unsafe_path(
            path,
            "is no directory".to_owned(),
            "move it away, or name another state directory with --state DIR".to_owned(),
        ));
    }
    check_ours(path, &metadata, "700")
}

/// Makes sure that nobody else could have written it.
fn check_ours(path: &Path, metadata: &Metadata, mode: &str) -> Result<(), JobError> {
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        return Err(unsafe_path(
            path,
            format!("belongs to user {}, we are user {us}", metadata.uid()),
            "run as that user, or name another state directory with --state DIR".to_owned(),
        ));
    }
    if metadata.mode() & OTHERS_WRITE != 0 {
        return Err(unsafe_path(
            path,
            format!(
                "others may write into it (mode {:o})",
                metadata.mode() & 0o7777
            ),
            if metadata.mode() & STICKY != 0 {
                "name a directory of your own with --state DIR".to_owned()
            } else {
                format!("chmod {mode} {}", path.display())
            },
        ));
    }
    Ok(())
}

fn unsafe_path(path: &Path, what: String, hint: String) -> JobError {
    JobError::Unsafe {
        path: path.to_path_buf(),
        what,
        hint,
    }
}

/// Opens a file of ours to read and write, made if it is missing.
pub(super) fn open_or_make(path: &Path) -> Result<File, JobError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    open(path, options, MAKE)
}

/// Opens a file of ours that must be there.
pub(super) fn open_to_read(path: &Path) -> Result<File, JobError> {
    let mut options = OpenOptions::new();
    options.read(true);
    open(path, options, "read it")
}

/// Opened without waiting, for it could be a FIFO until it has been looked at.
fn open(path: &Path, mut options: OpenOptions, doing: &'static str) -> Result<File, JobError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options
        .mode(0o600)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .map_err(|error| match fs::symlink_metadata(path) {
            Ok(there) if there.is_symlink() => unsafe_path(
                path,
                "is a symbolic link, which is not followed here".to_owned(),
                format!("remove it: rm {}", path.display()),
            ),
            _ => JobError::io(path, doing, error),
        })?;
    let metadata = file
        .metadata()
        .map_err(|error| JobError::io(path, doing, error))?;
    if !metadata.is_file() {
        return Err(unsafe_path(
            path,
            "is no regular file".to_owned(),
            format!("remove it: rm -r {}", path.display()),
        ));
    }
    check_ours(path, &metadata, "600")?;
    Ok(file)
}

/// The bytes of a file of ours, if they are at most `bytes_max`.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, JobError> {
    let mut bytes = Vec::new();
    open_to_read(path)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| JobError::io(path, "read it", error))?;
    if bytes.len() as u64 > bytes_max {
        let error = io::Error::new(io::ErrorKind::FileTooLarge, "it is too large");
        return Err(JobError::io(path, "read it", error));
    }
    Ok(bytes)
}

/// Puts `bytes` in the place of the file `name` in `dir`: readers see the old ones or these. With `durable`, so does whoever
/// reads after a power loss, once this has returned.
pub(super) fn replace(dir: &Path, name: &str, bytes: &[u8], durable: bool) -> Result<(), JobError> {
    let place = dir.join(name);
    let fail = |error| JobError::io(&place, "write it", error);
    let mut file = tempfile::Builder::new()
        .prefix(".card-")
        .tempfile_in(dir)
        .map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    if durable {
        file.as_file().sync_data().map_err(fail)?;
    }
    // By the system library like every other change to the state directory, so that tests can stand in between.
    let path = file.into_temp_path();
    fs::rename(&path, &place).map_err(fail)?;
    // It has another name now: nothing is to be removed.
    let _ = path.keep();
    if durable {
        sync_dir(dir)?;
    }
    Ok(())
}

/// Makes the names in a directory outlast a power loss.
pub(super) fn sync_dir(dir: &Path) -> Result<(), JobError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| JobError::io(dir, "write it", error))
}
