//! The files that a template is made of, read: what it names lies beside it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::merge::{Files, references};

/// The most bytes of all files of a template: messages larger than that no server takes.
pub const FILES_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Reads a template with the files that it names, by fields or by `include`. A name that leads to no file is left to those who
/// know the line that it stands in.
///
/// # Errors
/// The template cannot be read, or a file that is there cannot, or all are too large; with the name of the file.
pub fn read(path: &Path) -> io::Result<Files> {
    let mut left = FILES_BYTES_MAX;
    let folder = path.parent().unwrap_or(Path::new(""));
    let main = path.display().to_string();
    let bytes = read_file(path, &mut left)?;
    let mut wanted = references(&main, &bytes, true);
    let mut files = Files {
        bytes: [(main.clone(), bytes)].into(),
        main,
    };
    while let Some(name) = wanted.pop() {
        if files.bytes.contains_key(&name) {
            continue;
        }
        match read_file(&folder.join(&name), &mut left) {
            Ok(bytes) => {
                wanted.extend(references(&name, &bytes, false));
                files.bytes.insert(name, bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

fn read_file(path: &Path, left: &mut u64) -> io::Result<Arc<[u8]>> {
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if path.metadata().map_err(told)?.is_dir() {
        return Err(told(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is a directory",
        )));
    }
    let mut bytes = Vec::new();
    let mut limited = File::open(path).map_err(told)?.take(*left + 1);
    limited.read_to_end(&mut bytes).map_err(told)?;
    let len = bytes.len() as u64;
    if len > *left {
        let what = "the template and what it carries have more than 64 MiB";
        return Err(told(io::Error::new(io::ErrorKind::InvalidData, what)));
    }
    *left -= len;
    Ok(bytes.into())
}
