//! The keys that say how many sessions a site gets and how fast it is sent to.

use anyhow::Result;
use serde::{Deserialize, Deserializer};

use super::{File, set};
use crate::cli::exit::{Exit, Failure};
use crate::engine::settings::Settings;
use crate::queue::pace::{Rate, RateError};

/// A rate in the notation of the command line.
#[derive(Debug, Clone, Copy)]
pub(super) struct RateKey(Rate);

impl<'de> Deserialize<'de> for RateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RateKey, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(RateKey).map_err(serde::de::Error::custom)
    }
}

pub(super) fn rate(key: Option<RateKey>) -> Option<Rate> {
    key.map(|key| key.0)
}

pub(super) fn apply_pace_keys(settings: &mut Settings, file: &File) {
    settings.window_start = file.window_start;
    set(&mut settings.window_step, file.window_step);
    set(&mut settings.session_backlog, file.session_backlog);
    settings.rate = rate(file.rate);
    settings.connect_rate = rate(file.connect_rate);
    settings.source_rate = rate(file.source_rate);
}

pub(super) fn rate_flag(place: &mut Option<Rate>, text: Option<&str>) -> Result<()> {
    let usage = |error: RateError| Failure::new(Exit::Usage, format!("--rate: {error}"));
    if let Some(text) = text {
        *place = Some(text.parse().map_err(usage)?);
    }
    Ok(())
}

pub(super) fn check_pace(settings: &Settings) -> Result<()> {
    if settings.window_start == Some(0) || !(0.0..=1000.0).contains(&settings.window_step) {
        let text = "window_start must be at least 1, window_step between 0 and 1000";
        return Err(Failure::new(Exit::Config, text).into());
    }
    Ok(())
}
