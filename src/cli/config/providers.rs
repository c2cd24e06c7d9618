//! The `providers` key: a file about large providers, in the form of the one that comes with the program.

use std::path::Path;

use anyhow::Result;

use super::place_in;
use crate::cli::exit::{Exit, Failure};
use crate::route::providers::Providers;

/// Reads the file: what it says goes before what comes with the program.
///
/// # Errors
/// A [`Failure`] with the file's name, and line and column if they are known.
pub(super) fn providers(path: &Path) -> Result<Providers> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let text = format!("{}: cannot read the providers: {error}", path.display());
        Failure::new(Exit::NoInput, text)
    })?;
    let made = Providers::with(&text);
    made.map_err(|error| {
        let place = match error.at {
            Some(at) => place_in(&text, at),
            None => String::new(),
        };
        let text = format!("{}:{place} {error}", path.display());
        Failure::new(Exit::Config, text).into()
    })
}
