//! Files that hold secrets: nobody but their owner may read them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;

use super::exit::{Exit, Failure};

/// Makes sure that nobody else can read the file at `path`, which holds a `what`.
///
/// # Errors
/// A [`Failure`]: [`Exit::Permission`], or the file cannot be looked at.
pub fn private(path: &Path, what: &str) -> Result<()> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| {
        Failure::new(
            Exit::NoInput,
            format!("{shown}: cannot read the {what}: {error}"),
        )
    })?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(Failure::new(
            Exit::Permission,
            format!("{shown}: others can read this {what}"),
        )
        .hint(format!("chmod 600 {shown}"))
        .into());
    }
    Ok(())
}
