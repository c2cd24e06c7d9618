//! When a job was composed first: a file for each in the state directory, so that a second time gives the same Date fields.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The folder in the state directory.
const FOLDER: &str = "composed";

/// The time that was kept for `job`, or `now`, which is kept then. `job` is the name of a file.
///
/// # Errors
/// The state directory cannot be written or read; with the name of the file.
pub fn first_time(state: &Path, job: &str, now: &str) -> io::Result<String> {
    let folder = state.join(FOLDER);
    let path = folder.join(job);
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(&folder).map_err(told)?;
    // Whole or not there, whoever else composes the same job at the same time.
    let mut new = tempfile::Builder::new()
        .tempfile_in(&folder)
        .map_err(told)?;
    new.write_all(now.as_bytes()).map_err(told)?;
    match new.persist_noclobber(&path) {
        Ok(_) => Ok(now.to_owned()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            let mut options = OpenOptions::new();
            let file = options.read(true).mode(0o600).open(&path).map_err(told)?;
            io::read_to_string(file).map_err(told)
        }
        Err(error) => Err(told(error.error)),
    }
}
