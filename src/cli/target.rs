//! Where a report goes: standard output, or a file that appears under its name only when it is complete, so that last
//! week's report is not lost to a run that never begins.
//!
//! Opened before anything is sent: who cannot have a report should know at once. A report that would overwrite what the
//! run reads is refused, whatever names or links lead there.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::NamedTempFile;

use super::exit::{Exit, Failure};

/// A report under way.
pub enum Target {
    /// Standard output, or a file that is none (a pipe, a device).
    Stream(Box<dyn Write>),
    /// A file beside its final place, and that place.
    File(BufWriter<NamedTempFile>, PathBuf),
}

impl Target {
    /// Opens the target. `inputs` are the files that the run reads.
    ///
    /// # Errors
    /// Usage: it is one of the inputs; [`Exit::CantCreate`].
    pub fn open(path: &Path, inputs: &[PathBuf]) -> Result<Target> {
        if path.as_os_str() == "-" {
            return Ok(Target::Stream(Box::new(io::stdout())));
        }
        let fail = |error: io::Error| {
            Failure::new(
                Exit::CantCreate,
                format!("{}: cannot write the report: {error}", path.display()),
            )
        };
        let mut permissions: Permissions = PermissionsExt::from_mode(0o644);
        let place = match std::fs::metadata(path) {
            Ok(there) if there.is_file() => {
                refuse_input(path, &there, inputs)?;
                permissions = there.permissions();
                // Through links, to the file itself.
                std::fs::canonicalize(path).map_err(fail)?
            }
            Ok(_) => {
                return Ok(Target::Stream(Box::new(BufWriter::new(
                    File::create(path).map_err(fail)?,
                ))));
            }
            Err(_) => path.to_path_buf(),
        };
        let directory = place
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let file = tempfile::Builder::new()
            .prefix(".mailer-report-")
            .permissions(permissions)
            .tempfile_in(directory)
            .map_err(fail)?;
        Ok(Target::File(BufWriter::new(file), place))
    }

    /// Completes the report: a file appears under its name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Target::Stream(mut stream) => stream.flush(),
            Target::File(file, place) => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.persist(place).map(drop).map_err(|error| error.error)
            }
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::Stream(stream) => stream.write(bytes),
            Target::File(file, _) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Target::Stream(stream) => stream.flush(),
            Target::File(file, _) => file.flush(),
        }
    }
}

fn refuse_input(path: &Path, report: &Metadata, inputs: &[PathBuf]) -> Result<()> {
    for input in inputs {
        let is_same = std::fs::metadata(input)
            .is_ok_and(|input| (input.dev(), input.ino()) == (report.dev(), report.ino()));
        if is_same {
            let text = format!(
                "--report {}: would overwrite {}",
                path.display(),
                input.display()
            );
            return Err(Failure::new(Exit::Usage, text)
                .hint("name another file")
                .into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_appears_only_when_it_is_complete() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("r.csv");
        std::fs::write(&path, "last week").unwrap();
        drop(Target::open(&path, &[]).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "last week");
        let mut target = Target::open(&path, &[]).unwrap();
        target.write_all(b"today").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "last week");
        target.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "today");
        assert_eq!(
            std::fs::read_dir(scratch.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_report_over_an_input_is_refused_through_links_too() {
        let scratch = tempfile::tempdir().unwrap();
        let (input, link) = (scratch.path().join("in.mbox"), scratch.path().join("link"));
        std::fs::write(&input, "precious").unwrap();
        std::os::unix::fs::symlink(&input, &link).unwrap();
        for report in [&input, &link] {
            let error = Target::open(report, std::slice::from_ref(&input))
                .err()
                .unwrap();
            assert!(error.to_string().contains("would overwrite"), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&input).unwrap(), "precious");
    }
}
