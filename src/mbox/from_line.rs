//! The From_ line: `From ` sender date, which stands before each message of an mbox (RFC 4155, appendix A).
//!
//! A line counts as one only with a date in it, because `From ` begins many a sentence. Dates are those that mail programs are
//! known to write: asctime's (`Mon Jan  1 00:00:00 2024`), with a zone before or after the year, without seconds, or RFC 5322's
//! (`Mon, 1 Jan 2024 00:00:00 +0000`). The sender may be anything, even several words.
//!
//! Limit: a From_ line has at most [`FROM_LINE_OCTETS_MAX`] octets.

/// What a From_ line begins with.
pub const FROM: &[u8] = b"From ";
/// The longest line that is taken for a From_ line, line end included.
pub const FROM_LINE_OCTETS_MAX: usize = 1024;

const WEEKDAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// The sender in `line`, if it is a From_ line: what stands between `From ` and the date, blanks cut off.
pub fn sender(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(FROM)?;
    let mut start = 0;
    // The date begins at the first weekday from which on everything fits, behind at least one word.
    loop {
        let gap = rest[start..].iter().position(|&b| is_blank(b))?;
        let word = start + gap;
        let next = word + rest[word..].iter().position(|&b| !is_blank(b))?;
        if word > 0 && is_date(&rest[next..]) {
            return Some(rest[..word].trim_ascii());
        }
        start = next;
    }
}

/// How the beginning of some text relates to a From_ line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// More bytes are needed to tell.
    Undecided,
    /// A From_ line of so many bytes, line end included.
    Separator(usize),
    /// A line of so many bytes that begins with `From ` but bears no date.
    Dateless(usize),
    /// Something else.
    Other,
}

/// What `text`, at the beginning of a line, begins with.
pub fn look(text: &[u8], at_eof: bool) -> Look {
    if !text.starts_with(FROM) {
        let may_become = FROM.starts_with(text) && !at_eof;
        return if may_become {
            Look::Undecided
        } else {
            Look::Other
        };
    }
    let window = &text[..text.len().min(FROM_LINE_OCTETS_MAX)];
    let len = match memchr::memchr(b'\n', window) {
        Some(lf) => lf + 1,
        None if window.len() == FROM_LINE_OCTETS_MAX => return Look::Other,
        None if !at_eof => return Look::Undecided,
        None => window.len(),
    };
    match sender(super::without_line_end(&text[..len])) {
        Some(_) => Look::Separator(len),
        None => Look::Dateless(len),
    }
}

fn is_blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

fn is_date(text: &[u8]) -> bool {
    let mut words = text.split(|&b| is_blank(b)).filter(|word| !word.is_empty());
    let mut word = || words.next().unwrap_or_default();
    let weekday = word();
    if !WEEKDAYS.contains(&weekday.strip_suffix(b",").unwrap_or(weekday)) {
        return false;
    }
    let (first, second) = (word(), word());
    let (day, month) = if is_number(first, 1, 2) {
        (first, second)
    } else {
        (second, first)
    };
    if !is_number(day, 1, 2) || !MONTHS.contains(&month) {
        return false;
    }
    // Time and year in any order, zones in between: `00:00:00 2024`, `00:00 UTC 2024`, `2024 00:00:00 +0000`.
    let rest = [word(), word(), word(), word()];
    rest.iter().any(|word| is_time(word)) && rest.iter().any(|word| is_number(word, 4, 4))
}

fn is_number(word: &[u8], digits_min: usize, digits_max: usize) -> bool {
    (digits_min..=digits_max).contains(&word.len()) && word.iter().all(u8::is_ascii_digit)
}

/// `hh:mm` or `hh:mm:ss`.
fn is_time(word: &[u8]) -> bool {
    let mut parts = 0;
    word.split(|&b| b == b':').all(|part| {
        parts += 1;
        is_number(part, 1, 2)
    }) && (2..=3).contains(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_mail_programs_write_them() {
        for (line, want) in [
            ("From a@b.test Mon Jan  1 00:00:00 2024", "a@b.test"),
            (
                "From MAILER-DAEMON Fri Jul  8 12:08:34 2011",
                "MAILER-DAEMON",
            ),
            ("From - Sat Jan 13 07:08:09 2024", "-"),
            ("From a@b.test  Mon Jan  1 00:00:00 CET 2024", "a@b.test"),
            ("From a@b.test Mon Jan 01 00:00:00 2024 +0100", "a@b.test"),
            ("From a@b.test Mon Jan  1 00:00 2024", "a@b.test"),
            ("From a@b.test Mon, 1 Jan 2024 00:00:00 +0000", "a@b.test"),
            ("From John Smith Mon Jan  1 00:00:00 2024", "John Smith"),
            ("From Mon Mon Jan  1 00:00:00 2024", "Mon"),
            (
                "From \"a b\"@c.test\tMon Jan  1 00:00:00 2024",
                "\"a b\"@c.test",
            ),
        ] {
            assert_eq!(sender(line.as_bytes()), Some(want.as_bytes()), "{line}");
        }
    }

    #[test]
    fn sentences_are_no_separators() {
        for line in [
            "From ",
            "From me to you",
            "From Monday on, Jan 1 is free",
            "From Mon Jan  1 00:00:00 2024", // no sender
            "From x Mon Jan  1 2024",
            "From x Mon Foo  1 00:00:00 2024",
            "From x Mon Jan  1 00:00:00",
            "from x Mon Jan  1 00:00:00 2024",
            ">From x Mon Jan  1 00:00:00 2024",
        ] {
            assert_eq!(sender(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_look_waits_for_the_whole_line_and_no_longer() {
        let line = b"From a Mon Jan  1 00:00:00 2024\nx";
        for cut in 0..line.len() - 2 {
            assert_eq!(look(&line[..cut], false), Look::Undecided, "{cut}");
        }
        assert_eq!(look(line, false), Look::Separator(line.len() - 1));
        assert_eq!(
            look(b"From a Mon Jan  1 00:00:00 2024", true),
            Look::Separator(31)
        );
        assert_eq!(look(b"From here\n", false), Look::Dateless(10));
        assert_eq!(look(b"Frog", false), Look::Other);
        assert_eq!(look(b"From", true), Look::Other);
        let endless = [b"From ".as_slice(), &[b'x'; FROM_LINE_OCTETS_MAX]].concat();
        assert_eq!(look(&endless, false), Look::Other);
    }
}
