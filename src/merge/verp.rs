//! The reverse-path of a recipient's mail, made from a pattern, so that bounces say who is meant.
//!
//! `{address}` stands for the recipient with `=` for `@`; `{token}` for its token.

use std::fmt;

use crate::mail::{Mailbox, ReversePath};

/// A pattern such as `bounces+{token}@example.org`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(String);

/// A text is no pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PatternError;

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a pattern such as bounces+{token}@example.org or bounces+{address}@example.org",
        )
    }
}

impl std::error::Error for PatternError {}

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        let (local, _) = text.rsplit_once('@').ok_or(PatternError)?;
        let count = local.matches("{token}").count() + local.matches("{address}").count();
        let sample = text.replace("{token}", "a").replace("{address}", "a=b");
        if count != 1 || Mailbox::parse_addr_spec(sample.as_bytes()).is_err() {
            return Err(PatternError);
        }
        Ok(Pattern(text.to_owned()))
    }
}

impl Pattern {
    /// True if a token is needed.
    pub fn needs_token(&self) -> bool {
        self.0.contains("{token}")
    }

    /// The reverse-path for mail to `recipient`; `None` if there can be none: the recipient's local part is quoted, or too long.
    pub(super) fn reverse_path(&self, recipient: &Mailbox, token: &str) -> Option<ReversePath> {
        let text = if self.needs_token() {
            self.0.replace("{token}", token)
        } else {
            let address = format!("{}={}", recipient.local(), recipient.domain());
            self.0.replace("{address}", &address)
        };
        ReversePath::parse(text.as_bytes()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_the_recipient() {
        let ann = Mailbox::parse(b"ann+x@example.com").unwrap();
        let path = |pattern: &str| {
            let pattern: Pattern = pattern.parse().unwrap();
            pattern
                .reverse_path(&ann, "tok")
                .map(|path| path.as_str().to_owned())
        };
        assert_eq!(
            path("b+{token}@x.example").as_deref(),
            Some("b+tok@x.example")
        );
        assert_eq!(
            path("b+{address}@x.example").as_deref(),
            Some("b+ann+x=example.com@x.example")
        );
        let quoted = Mailbox::parse(b"\"a b\"@example.com").unwrap();
        let pattern: Pattern = "b+{address}@x.example".parse().unwrap();
        assert_eq!(pattern.reverse_path(&quoted, ""), None);
        for wrong in [
            "",
            "b@x.example",
            "b+{token}",
            "{token}{address}@x.example",
            "b@{token}.x",
            "a b{token}@x",
        ] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
        }
    }
}
