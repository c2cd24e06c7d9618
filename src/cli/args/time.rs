//! Times as people type them: durations, and times of day.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::queue::pace::{Rate, RateError};

/// A time of day: hour and minute.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeOfDay {
    /// 0 to 23.
    pub hour: i8,
    /// 0 to 59.
    pub minute: i8,
}

impl TimeOfDay {
    /// How long it is from `now` to the next such time. Less than a day, or a day and an hour where clocks go back.
    pub fn until(self, now: &jiff::ZonedDateTime) -> Duration {
        let at = |day: jiff::civil::Date| {
            let time = day.at(self.hour, self.minute, 0, 0);
            now.time_zone()
                .to_ambiguous_zoned_datetime(time)
                .compatible()
                .ok()
        };
        let today = now.date();
        let next = at(today)
            .filter(|then| *then > *now)
            .or_else(|| at(today.tomorrow().ok()?));
        next.and_then(|then| Duration::try_from(now.duration_until(&then)).ok())
            .unwrap_or(Duration::ZERO)
    }
}

/// Reads "07:00".
pub fn time_of_day(text: &str) -> Result<TimeOfDay, String> {
    let wrong = || format!("`{text}` is not a time of day; write for instance 07:00");
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let two_digits = |part: &str| match part.len() {
        1 | 2 if part.bytes().all(|b| b.is_ascii_digit()) => part.parse().ok(),
        _ => None,
    };
    let time = (
        two_digits(hour),
        two_digits(minute).filter(|_| minute.len() == 2),
    );
    match time {
        (Some(hour @ 0..=23), Some(minute @ 0..=59)) => Ok(TimeOfDay { hour, minute }),
        _ => Err(wrong()),
    }
}

/// Reads "300ms", "90s", "5m", "1h30m", "5d".
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is not a time; write for instance 300ms, 90s, 5m, 1h30m or 5d");
    let span: jiff::Span = text.trim().parse().map_err(|_| wrong())?;
    let signed = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wrong())?;
    Duration::try_from(signed).map_err(|_| wrong())
}

/// A rate, kept as it was typed: the card of a job holds it.
///
/// # Errors
/// What is wrong with it, with an example.
pub fn rate_text(text: &str) -> Result<String, String> {
    let rate: Result<Rate, RateError> = text.parse();
    rate.map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units_and_nothing_else_is() {
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("5d"), Ok(Duration::from_secs(432_000)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "5", "-5s", "soon", "5 parsecs", "1y"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_of_day_is_the_next_one() {
        let now: jiff::ZonedDateTime = "2026-03-28T23:30:00+01:00[Europe/Berlin]".parse().unwrap();
        let until = |text| time_of_day(text).unwrap().until(&now).as_secs();
        assert_eq!(until("23:45"), 15 * 60);
        assert_eq!(
            until("23:30"),
            23 * 3600,
            "the same minute is tomorrow's; clocks go forward"
        );
        assert_eq!(until("7:00"), 6 * 3600 + 1800);
        for wrong in [
            "", "7", "24:00", "07:60", "7:5", "-1:00", "+7:00", "07:00:00",
        ] {
            assert!(time_of_day(wrong).is_err(), "{wrong}");
        }
    }
}
