//! Variable envelope return paths: the recipient in the reverse-path of his mail, so that its bounces say who is meant.
//!
//! A pattern such as `bounces+{address}@example.org` stands for `bounces+ann=example.com@example.org` in mail to
//! ann@example.com. The last `=` stands for the `@`, since a domain has none.

use std::fmt;

use crate::mail::Mailbox;

const PLACE: &str = "{address}";

/// A pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verp {
    before: String,
    after: String,
}

/// A text is no pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadPattern;

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a pattern such as bounces+{address}@example.org")
    }
}

impl std::error::Error for BadPattern {}

impl std::str::FromStr for Verp {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Verp, BadPattern> {
        let (before, after) = text.split_once(PLACE).ok_or(BadPattern)?;
        let sample = Mailbox::parse(format!("{before}a=b.example{after}").as_bytes());
        if before.contains('@') || sample.is_err() {
            return Err(BadPattern);
        }
        Ok(Verp {
            before: before.to_lowercase(),
            after: after.to_lowercase(),
        })
    }
}

impl Verp {
    /// The recipient that `address` was made for, if it was made by this pattern.
    pub fn recipient(&self, address: &Mailbox) -> Option<Mailbox> {
        let text = address.as_str();
        let lower = text.to_ascii_lowercase();
        let is_ours = lower.starts_with(&self.before)
            && lower.ends_with(&self.after)
            && lower.len() > self.before.len() + self.after.len();
        if !is_ours {
            return None;
        }
        let middle = text.get(self.before.len()..text.len() - self.after.len())?;
        let (local, domain) = middle.rsplit_once('=')?;
        Mailbox::parse(format!("{local}@{domain}").as_bytes()).ok()
    }
}
