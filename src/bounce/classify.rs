//! What a failure means for the next mail to the same address.
//!
//! Hard is only what is known to be the address's own and lasting: it does not exist, or it is closed. What is said about the
//! sender, the content, the rate or the connection says nothing of the address, and a full mailbox may be emptied.

/// What a message means for its recipient.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The address is no good: send nothing more.
    Hard,
    /// He asked not to be mailed, by the button in his mail program.
    Complaint,
    /// It failed this time.
    Soft,
    /// We were too fast, or not welcome: nothing about the address, never a reason to suppress it.
    Throttled,
    /// It is not decided: delayed, relayed, delivered.
    Undecided,
}

impl Kind {
    /// All of them, the worst first.
    pub const ALL: [Kind; 5] = [
        Kind::Hard,
        Kind::Complaint,
        Kind::Soft,
        Kind::Throttled,
        Kind::Undecided,
    ];

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Hard => "hard",
            Kind::Complaint => "complaint",
            Kind::Soft => "soft",
            Kind::Throttled => "throttled",
            Kind::Undecided => "undecided",
        }
    }

    /// True if nothing more is to be sent to the address.
    pub fn suppresses(self) -> bool {
        matches!(self, Kind::Hard | Kind::Complaint)
    }
}

/// The parts of a report that count.
pub struct Report<'t> {
    /// failed, delayed, delivered, relayed, expanded (RFC 3464 2.3.3).
    pub action: &'t str,
    /// RFC 3463.
    pub status: &'t str,
    /// The reply of the server, mostly.
    pub diagnostic: &'t str,
}

/// Words of servers that are busy or have had enough of us, whatever code comes with them.
const THROTTLED_WORDS: [&str; 12] = [
    "rate limit",
    "ratelimit",
    "too many",
    "throttl",
    "too fast",
    "blocked",
    "blacklist",
    "block list",
    "blocklist",
    "reputation",
    "spam",
    "policy",
];
/// Words for an address that is not there, where no status says it.
const UNKNOWN_WORDS: [&str; 10] = [
    "user unknown",
    "unknown user",
    "unknown recipient",
    "no such user",
    "no such recipient",
    "no such mailbox",
    "does not exist",
    "doesn't exist",
    "invalid recipient",
    "recipient not found",
];

/// What a report means, and the status that says so: the one in the reply, where the report's own is vaguer.
pub fn classify(report: &Report<'_>) -> (Kind, String) {
    let action = report.action.trim();
    let own = status_in(report.status);
    let said = status_in(report.diagnostic);
    let status = match (own, said) {
        (Some((_, 0, 0)) | None, Some(said)) => Some(said),
        (own, _) => own,
    };
    let shown = status.map_or(String::new(), |(class, subject, detail)| {
        format!("{class}.{subject}.{detail}")
    });
    if !action.is_empty() && !action.eq_ignore_ascii_case("failed") {
        return (Kind::Undecided, shown);
    }
    let words = report.diagnostic.to_lowercase();
    let has = |list: &[&str]| list.iter().any(|word| words.contains(word));
    let kind = match status {
        Some((_, 7, _)) => Kind::Throttled,
        // Mailbox and domain that are not there or closed (RFC 3463 3.2, 3.3; RFC 7505; registry of enhanced status codes).
        Some((5, 1, 1 | 2 | 3 | 6 | 10) | (5, 2, 1)) => Kind::Hard,
        _ if has(&THROTTLED_WORDS) => Kind::Throttled,
        Some((5, 0 | 1, 0)) | None if has(&UNKNOWN_WORDS) => Kind::Hard,
        _ => Kind::Soft,
    };
    (kind, shown)
}

/// The first status code of RFC 3463 in a text.
fn status_in(text: &str) -> Option<(u16, u16, u16)> {
    let is_edge = |c: char| !c.is_ascii_alphanumeric() && c != '.';
    text.split(is_edge).find_map(|word| {
        let mut parts = word.split('.');
        let mut number = |max: u16| {
            let part = parts.next()?;
            let is_short = part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
            part.parse().ok().filter(|n| is_short && *n <= max)
        };
        let status = (number(5)?, number(999)?, number(999)?);
        (parts.next().is_none() && matches!(status.0, 2 | 4 | 5)).then_some(status)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_are_not_there_are_hard() {
        for (action, status, diagnostic, kind, shown) in [
            (
                "failed",
                "5.1.1",
                "smtp; 550 5.1.1 no such user",
                Kind::Hard,
                "5.1.1",
            ),
            (
                "failed",
                "5.0.0",
                "smtp; 550 5.1.1 <a@b>: Recipient rejected",
                Kind::Hard,
                "5.1.1",
            ),
            (
                "failed",
                "5.0.0",
                "smtp; 550 User unknown",
                Kind::Hard,
                "5.0.0",
            ),
            ("failed", "", "550 No such user here", Kind::Hard, ""),
            (
                "Failed",
                "5.1.10",
                "smtp; 556 5.1.10 null MX",
                Kind::Hard,
                "5.1.10",
            ),
            (
                "failed",
                "5.2.1",
                "smtp; 550 5.2.1 disabled",
                Kind::Hard,
                "5.2.1",
            ),
            (
                "failed",
                "5.2.2",
                "smtp; 552 5.2.2 mailbox full",
                Kind::Soft,
                "5.2.2",
            ),
            (
                "failed",
                "4.4.1",
                "connect timed out, does not exist",
                Kind::Soft,
                "4.4.1",
            ),
            ("failed", "5.4.7", "expired", Kind::Soft, "5.4.7"),
            ("failed", "5.6.1", "", Kind::Soft, "5.6.1"),
            ("failed", "", "", Kind::Soft, ""),
            (
                "failed",
                "5.7.1",
                "smtp; 550 5.7.1 user unknown to our policy",
                Kind::Throttled,
                "5.7.1",
            ),
            ("failed", "4.7.0", "", Kind::Throttled, "4.7.0"),
            (
                "failed",
                "5.0.0",
                "550 blocked, user unknown",
                Kind::Throttled,
                "5.0.0",
            ),
            (
                "failed",
                "5.5.0",
                "smtp; 550 Too many messages",
                Kind::Throttled,
                "5.5.0",
            ),
            ("delayed", "4.1.1", "user unknown", Kind::Undecided, "4.1.1"),
            ("delivered", "2.0.0", "", Kind::Undecided, "2.0.0"),
        ] {
            let report = Report {
                action,
                status,
                diagnostic,
            };
            let expected = (kind, shown.to_owned());
            assert_eq!(
                classify(&report),
                expected,
                "{action} {status} {diagnostic}"
            );
        }
    }

    #[test]
    fn statuses_are_found_among_other_numbers() {
        assert_eq!(status_in("550-5.1.1 [10.0.0.1] x"), Some((5, 1, 1)));
        assert_eq!(status_in("(5.7.26)"), Some((5, 7, 26)));
        for none in [
            "10.0.0.1", "5.1", "5.1.1.1", "3.1.1", "5.1000.1", "v5.1.1x", "",
        ] {
            assert_eq!(status_in(none), None, "{none}");
        }
    }
}
