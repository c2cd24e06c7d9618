//! The `providers` key: a file about large providers, in the form of the one that comes with the program.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use crate::cli::exit::{Exit, Failure};
use crate::engine::settings::Settings;
use crate::route::providers::Providers;

/// Puts the file that the key names into force.
///
/// # Errors
/// A [`Failure`].
pub(super) fn apply_providers(settings: &mut Settings, file: Option<PathBuf>) -> Result<()> {
    if let Some(path) = file {
        settings.providers = Arc::new(providers(&path)?);
        settings.providers_file = Some(path);
    }
    Ok(())
}

/// Reads the file: what it says goes before what comes with the program.
///
/// # Errors
/// A [`Failure`] with the file's name, and line and column if they are known.
fn providers(path: &Path) -> Result<Providers> {
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

/// Line and column of a byte, both with a colon behind them.
pub(super) fn place_in(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
    format!("{line}:{column}:")
}
