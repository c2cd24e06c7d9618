//! Variable envelope return paths: the recipient in the reverse-path of his mail, so that its bounces say who is meant.
//!
//! A pattern such as `bounces+{address}@example.org` stands for `bounces+ann=example.com@example.org` in mail to
//! ann@example.com. The last `=` stands for the `@`, since a domain has none. In `bounces+{token}@example.org` a token stands for the
//! recipient, and a list says whose it is.

use std::collections::HashMap;
use std::fmt;

use crate::mail::Mailbox;

/// A pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verp {
    before: String,
    after: String,
    is_token: bool,
    /// Whose a token is, in lower case.
    tokens: HashMap<String, Mailbox>,
}

/// A text is no pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadPattern;

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a pattern such as bounces+{address}@example.org or bounces+{token}@example.org",
        )
    }
}

impl std::error::Error for BadPattern {}

impl std::str::FromStr for Verp {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Verp, BadPattern> {
        let is_token = text.contains("{token}");
        let place = if is_token { "{token}" } else { "{address}" };
        let (before, after) = text.split_once(place).ok_or(BadPattern)?;
        let sample = Mailbox::parse(format!("{before}a=b.example{after}").as_bytes());
        if before.contains('@') || sample.is_err() {
            return Err(BadPattern);
        }
        Ok(Verp {
            before: before.to_lowercase(),
            after: after.to_lowercase(),
            is_token,
            tokens: HashMap::new(),
        })
    }
}

impl Verp {
    /// True if tokens stand for recipients: without [`add_token`](Verp::add_token) nobody is known.
    pub fn needs_tokens(&self) -> bool {
        self.is_token
    }

    /// Says whose a token is. Case does not matter: servers on the way may change it.
    pub fn add_token(&mut self, token: &str, recipient: Mailbox) {
        self.tokens.insert(token.to_lowercase(), recipient);
    }

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
        if self.is_token {
            return self.tokens.get(&middle.to_lowercase()).cloned();
        }
        let (local, domain) = middle.rsplit_once('=')?;
        Mailbox::parse(format!("{local}@{domain}").as_bytes()).ok()
    }
}
