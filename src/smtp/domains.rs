//! The recipient domains that a session has named, where the server limits their number (RFC 9422, RCPTDOMAINMAX).
//!
//! Nothing is kept where there is no limit. INVARIANT: the first domain of a session is always admitted, so a new session
//! always gets on. Limit: a server that allows more than [`DOMAINS_MAX`] is taken to allow as many.

/// The most domains that are remembered.
const DOMAINS_MAX: usize = 256;

/// Domains named so far.
#[derive(Debug, Default)]
pub(super) struct Domains {
    max: Option<usize>,
    named: Vec<String>,
    refused: bool,
}

impl Domains {
    /// None named yet, at most `max` to be named.
    pub(super) fn new(max: Option<u32>) -> Domains {
        Domains {
            max: max.map(|max| (max as usize).clamp(1, DOMAINS_MAX)),
            ..Domains::default()
        }
    }

    /// True if the domain of `path` may be named; it then counts as named.
    pub(super) fn admit(&mut self, path: &str) -> bool {
        let Some(max) = self.max else {
            return true;
        };
        let domain = path.rsplit('@').next().unwrap_or_default();
        let is_named = |named: &String| named.eq_ignore_ascii_case(domain);
        if self.named.iter().any(is_named) {
            return true;
        }
        if self.named.len() >= max {
            self.refused = true;
            return false;
        }
        self.named.push(domain.to_owned());
        true
    }

    /// True once a domain was one too many: there is mail that needs another session.
    pub(super) fn is_exhausted(&self) -> bool {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_counted_once_whatever_their_case() {
        let mut domains = Domains::new(Some(2));
        for path in ["a@x.test", "b@X.TEST", "a@y.test", "\"@\"@x.test"] {
            assert!(domains.admit(path), "{path}");
        }
        assert!(!domains.is_exhausted());
        assert!(!domains.admit("a@z.test"));
        assert!(domains.admit("c@y.test") && domains.is_exhausted());
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let mut domains = Domains::new(None);
        assert!((0..1000).all(|i| domains.admit(&format!("a@{i}.test"))));
        assert!(domains.named.is_empty());
    }
}
