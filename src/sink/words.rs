//! Words that the text forms of rules and zones share: durations, and a way to quote a word in an error.

use std::time::Duration;

use crate::mail::verdict::printable;

/// Reads `250ms`, `5s`, `2m`. An error names the word.
pub fn duration(word: &str) -> Result<Duration, String> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let problem = || {
        format!(
            "bad duration {} (like 250ms, 5s or 2m)",
            printable_word(word)
        )
    };
    let number: u64 = word[..digits].parse().map_err(|_| problem())?;
    let milliseconds = match &word[digits..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    milliseconds.map(Duration::from_millis).ok_or_else(problem)
}

/// A word of the user's in back quotes, short and printable.
pub fn printable_word(word: &str) -> String {
    format!("`{}`", printable(word, 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "5h",
            "99999999999999999999s",
            "18446744073709551615m",
            "é",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
