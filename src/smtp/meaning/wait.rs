//! How long a server asks us to wait: "try again in 5 minutes".
//!
//! Nobody has settled how to say it; what greylisting and rate limits really say has a number, a unit, and shortly before
//! them a word like "again", "retry" or "wait". Anything else is no hint: "100 messages in 10 minutes" tells what was
//! too much, not how long to wait. Nothing here fails or panics, and no text makes anybody wait longer than [`HINT_MAX`].

use std::time::Duration;

/// The longest wait that is believed; a server that asks for more gets this much.
pub const HINT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// A hint is looked for in so many bytes of the text.
const TEXT_BYTES_MAX: usize = 2048;
/// Words that say that what follows is a wait.
const TRIGGERS: [&str; 10] = [
    "again",
    "retry",
    "retrying",
    "wait",
    "back",
    "resend",
    "resending",
    "reconnect",
    "return",
    "delayed",
];
/// How many words before the number are looked at.
const WORDS_BEFORE: usize = 5;

/// How long `text`, of a 4xx reply, asks us to wait; `None` if it does not.
pub fn retry_hint(text: &str) -> Option<Duration> {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    let lower = text[..end].to_ascii_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == ':'))
        .map(|word| word.trim_matches(':'))
        .filter(|word| !word.is_empty())
        .collect();
    (0..words.len()).find_map(|i| {
        let before = &words[i.saturating_sub(WORDS_BEFORE)..i];
        let is_wait = before.iter().any(|word| TRIGGERS.contains(word));
        let seconds = is_wait.then(|| seconds_at(&words[i..])).flatten()?;
        (seconds > 0).then(|| Duration::from_secs(seconds).min(HINT_MAX))
    })
}

/// The time that stands at the start of `words`: `300 seconds`, `5min`, `00:04:59`.
fn seconds_at(words: &[&str]) -> Option<u64> {
    let word = words.first()?;
    if word.contains(':') {
        return clock_time(word);
    }
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    // More digits than that are no time.
    if !(1..=9).contains(&digits) {
        return None;
    }
    let count: u64 = word[..digits].parse().ok()?;
    let unit = match &word[digits..] {
        "" => words.get(1)?,
        attached => attached,
    };
    Some(count * unit_seconds(unit)?)
}

fn unit_seconds(unit: &str) -> Option<u64> {
    match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some(60 * 60),
        _ => None,
    }
}

/// `hh:mm:ss` or `mm:ss`.
fn clock_time(word: &str) -> Option<u64> {
    let parts: Vec<u64> = word
        .split(':')
        .map(|part| {
            let fits = (1..=2).contains(&part.len());
            fits.then(|| part.parse().ok()).flatten()
        })
        .collect::<Option<_>>()?;
    match parts[..] {
        [minutes, seconds] => Some(minutes * 60 + seconds),
        [hours, minutes, seconds] => Some(hours * 3600 + minutes * 60 + seconds),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(text: &str) -> Option<u64> {
        retry_hint(text).map(|wait| wait.as_secs())
    }

    #[test]
    fn what_servers_say() {
        for (text, wait) in [
            ("Greylisted, please try again in 300 seconds", 300),
            ("Greylisting in action, please come back in 00:04:59", 299),
            ("Temporarily rejected. Try again after 5 minutes.", 300),
            ("you must wait at least 10 min before you retry", 600),
            ("Too many messages; retry in 60s", 60),
            ("Retry-After: 2 hours", 7200),
            ("try again in 4:30 (mm:ss)", 270),
            ("Recipient greylisted, TRY AGAIN IN (120) SECONDS", 120),
        ] {
            assert_eq!(seconds(text), Some(wait), "{text}");
        }
    }

    #[test]
    fn what_is_no_hint() {
        for text in [
            "",
            "try again later",
            "try again in a few minutes",
            "100 messages in 10 minutes is too much, try again later",
            "mailbox full, 5 messages waiting",
            "try again 4.7.1 [192.0.2.1]",
            "retry in 0 seconds",
            "retry in 12345678901234567890 seconds",
            "wait 1:2:3:4",
            "wait ::",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn nobody_waits_longer_than_a_day() {
        assert_eq!(retry_hint("try again in 999999999 hours"), Some(HINT_MAX));
        assert_eq!(retry_hint("try again in 99:99:99"), Some(HINT_MAX));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_wait_too_long(
            text in prop_oneof![any::<String>(), "(again|wait|in|[0-9:]{1,12}|min|s|hours|ä|[ .]){0,12}"],
        ) {
            prop_assert!(retry_hint(&text).is_none_or(|wait| !wait.is_zero() && wait <= HINT_MAX));
        }
    }
}
