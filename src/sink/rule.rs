//! Misbehaviour on demand: which replies of the receiver are changed, delayed or left out, and when.
//!
//! A [`Rule`] names a stage and possibly a recipient's domain (with everything below it) or the address that was connected
//! to; [`RuleBook`] counts its matches, so that "the first two are deferred, then all goes well" can be said. The first rule
//! that applies decides. The text form (`FromStr`) is in `rule_text.rs`.
//!
//! INVARIANT: what a rule does depends on its own counter, on the session's random numbers (from a seed) and on nothing else.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::limit::{Limit, Meter, Moment};
use crate::mail::Stage;
use crate::smtp::server::{Answer, Decision, Reply};

/// What a rule does when it applies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// The usual reply (after the rule's delay).
    Usual,
    /// This reply instead of the usual one.
    Reply(Reply),
    /// This reply, then the connection is closed.
    ReplyAndClose(Reply),
    /// The connection is closed without a reply.
    Drop,
    /// After the final dot: the message is taken, then the connection is closed without a reply. For the client: in doubt.
    LoseReply,
    /// Never any reply again; the connection stays open.
    Silence,
    /// The usual reply, and this one in the same packet: what somebody on the path might add (CVE-2011-0411 from the client's
    /// side, at STARTTLS).
    Inject(Reply),
    /// STARTTLS is accepted, then bytes that are no TLS are sent.
    Garbage,
    /// STARTTLS is accepted, then nothing is ever sent.
    Stall,
}

/// One rule.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// The recipient's domain or one above it; lower case. Only at RCPT and later.
    pub domain: Option<String>,
    /// The address that the client connected to.
    pub server: Option<IpAddr>,
    /// Which command's reply is meant. `Connect` comes before the greeting.
    pub stage: Stage,
    /// What to do.
    pub action: Action,
    /// How long to wait before.
    pub delay: Duration,
    /// So many matches pass unharmed before the rule applies.
    pub after: u64,
    /// It applies to so many matches, then never again.
    pub first: Option<u64>,
    /// It applies to a match with this probability.
    pub chance: f64,
    /// It applies only while this limit is reached.
    pub limit: Option<Limit>,
}

impl Rule {
    /// A rule without conditions.
    pub fn new(stage: Stage, action: Action) -> Rule {
        Rule {
            domain: None,
            server: None,
            stage,
            action,
            delay: Duration::ZERO,
            after: 0,
            first: None,
            chance: 1.0,
            limit: None,
        }
    }

    /// The same rule for recipients of `domain` and what is below it.
    pub fn for_domain(mut self, domain: &str) -> Rule {
        self.domain = Some(domain.to_ascii_lowercase());
        self
    }

    /// The same rule for connections to `server`.
    pub fn for_server(mut self, server: IpAddr) -> Rule {
        self.server = Some(server);
        self
    }

    /// The same rule, for the first `count` matches only.
    pub fn first(mut self, count: u64) -> Rule {
        self.first = Some(count);
        self
    }

    /// The same rule, while this limit is reached.
    pub fn beyond(mut self, limit: Limit) -> Rule {
        self.limit = Some(limit);
        self
    }

    /// The same rule with a delay before the reply.
    pub fn delayed(mut self, delay: Duration) -> Rule {
        self.delay = delay;
        self
    }

    /// The decision it stands for.
    pub fn decision(&self) -> Decision {
        let (answer, close) = match &self.action {
            Action::Usual | Action::Inject(_) | Action::Garbage | Action::Stall => {
                (Answer::Accept, false)
            }
            Action::Reply(reply) => (Answer::Reply(reply.clone()), false),
            Action::ReplyAndClose(reply) => (Answer::Reply(reply.clone()), true),
            Action::Drop | Action::LoseReply => (Answer::Drop, false),
            Action::Silence => (Answer::Silence, false),
        };
        let surplus = match &self.action {
            Action::Inject(reply) => format!("{} {}\r\n", reply.code, reply.text).into_bytes(),
            _ => Vec::new(),
        };
        Decision {
            answer,
            delay: self.delay,
            close,
            surplus,
        }
    }

    fn fits<'a>(
        &self,
        stage: Stage,
        server: IpAddr,
        recipients: impl Iterator<Item = &'a str>,
    ) -> bool {
        self.stage == stage
            && self.server.is_none_or(|wanted| wanted == server)
            && self.domain.as_deref().is_none_or(|wanted| {
                let mut recipients = recipients;
                recipients.any(|recipient| is_within(domain_of(recipient), wanted))
            })
    }
}

/// The rules of a receiver with their counters.
#[derive(Debug, Default)]
pub struct RuleBook {
    rules: Vec<Entry>,
}

/// A rule, how often it matched, and its limit at work.
#[derive(Debug)]
struct Entry {
    rule: Rule,
    matches: AtomicU64,
    meter: Option<Meter>,
}

impl RuleBook {
    /// Rules in order of precedence. Storms begin now.
    pub fn new(rules: Vec<Rule>) -> RuleBook {
        let now = Instant::now();
        let entry = |rule: Rule| Entry {
            meter: rule.limit.map(|limit| Meter::new(limit, now)),
            matches: AtomicU64::new(0),
            rule,
        };
        RuleBook {
            rules: rules.into_iter().map(entry).collect(),
        }
    }

    /// The rule that applies, if any. `recipients` are those concerned at this stage.
    pub fn find<'a>(
        &self,
        stage: Stage,
        server: IpAddr,
        recipients: impl Iterator<Item = &'a str> + Clone,
        rng: &mut fastrand::Rng,
    ) -> Option<&Rule> {
        let applies = |entry: &&Entry| {
            let rule = &entry.rule;
            if !rule.fits(stage, server, recipients.clone())
                || rule.chance < 1.0 && rng.f64() >= rule.chance
            {
                return false;
            }
            let moment = Moment {
                now: Instant::now(),
                server,
            };
            if entry
                .meter
                .as_ref()
                .is_some_and(|meter| !meter.is_reached(&moment))
            {
                return false;
            }
            let earlier = entry.matches.fetch_add(1, Ordering::Relaxed);
            earlier
                .checked_sub(rule.after)
                .is_some_and(|index| rule.first.is_none_or(|count| index < count))
        };
        self.rules.iter().find(applies).map(|entry| &entry.rule)
    }
}

/// What follows the last `@`; empty for `postmaster` alone.
pub fn domain_of(recipient: &str) -> &str {
    recipient.rsplit_once('@').map_or("", |(_, domain)| domain)
}

/// True if `domain` is `wanted` or lies below it.
fn is_within(domain: &str, wanted: &str) -> bool {
    let Some(cut) = domain.len().checked_sub(wanted.len()) else {
        return false;
    };
    domain.is_char_boundary(cut)
        && domain[cut..].eq_ignore_ascii_case(wanted)
        && (cut == 0 || domain.as_bytes()[cut - 1] == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applies(book: &RuleBook, stage: Stage, server: &str, recipients: &[&str]) -> bool {
        let mut rng = fastrand::Rng::with_seed(1);
        book.find(
            stage,
            server.parse().unwrap(),
            recipients.iter().copied(),
            &mut rng,
        )
        .is_some()
    }

    #[test]
    fn domains_match_with_what_is_below_them() {
        let book = RuleBook::new(vec![
            Rule::new(Stage::Rcpt, Action::Drop).for_domain("Slow.test"),
        ]);
        for (recipient, hit) in [
            ("a@slow.test", true),
            ("a@b.SLOW.test", true),
            ("a@notslow.test", false),
            ("a@test", false),
            ("postmaster", false),
            ("é@éslow.test", false),
        ] {
            assert_eq!(
                applies(&book, Stage::Rcpt, "127.0.0.1", &[recipient]),
                hit,
                "{recipient}"
            );
        }
        assert!(applies(
            &book,
            Stage::Rcpt,
            "127.0.0.1",
            &["a@b.test", "a@slow.test"]
        ));
        assert!(!applies(&book, Stage::Dot, "127.0.0.1", &["a@slow.test"]));
    }

    #[test]
    fn servers_match_exactly() {
        let rule =
            Rule::new(Stage::Greeting, Action::Silence).for_server("127.0.0.2".parse().unwrap());
        let book = RuleBook::new(vec![rule]);
        assert!(applies(&book, Stage::Greeting, "127.0.0.2", &[]));
        assert!(!applies(&book, Stage::Greeting, "127.0.0.3", &[]));
    }

    #[test]
    fn a_rule_applies_to_its_share_of_matches_then_the_next_one_does() {
        let rule = Rule {
            after: 1,
            ..Rule::new(Stage::Rcpt, Action::Drop).first(2)
        };
        let book = RuleBook::new(vec![rule]);
        let hits: Vec<bool> = (0..5)
            .map(|_| applies(&book, Stage::Rcpt, "127.0.0.1", &["a@a.test"]))
            .collect();
        assert_eq!(hits, [false, true, true, false, false]);
    }

    #[test]
    fn a_limit_counts_what_passes_and_not_what_the_rule_is_not_about() {
        let limit = Limit::Rate(2, Duration::from_secs(3600));
        let rule = Rule::new(Stage::Rcpt, Action::Drop).for_domain("a.test");
        let book = RuleBook::new(vec![rule.beyond(limit)]);
        let hits = ["x@a.test", "x@b.test", "x@a.test", "x@a.test", "x@b.test"]
            .map(|recipient| applies(&book, Stage::Rcpt, "127.0.0.1", &[recipient]));
        assert_eq!(hits, [false, false, false, true, false]);
        assert!(!applies(&book, Stage::Rcpt, "127.0.0.2", &["x@a.test"]));
    }

    #[test]
    fn chance_comes_from_the_seed() {
        let book = || {
            RuleBook::new(vec![Rule {
                chance: 0.5,
                ..Rule::new(Stage::Mail, Action::Drop)
            }])
        };
        let play = |book: &RuleBook| -> Vec<bool> {
            let mut rng = fastrand::Rng::with_seed(9);
            let server = "127.0.0.1".parse().unwrap();
            (0..64)
                .map(|_| {
                    book.find(Stage::Mail, server, std::iter::empty(), &mut rng)
                        .is_some()
                })
                .collect()
        };
        let first = play(&book());
        assert_eq!(first, play(&book()));
        let hits = first.iter().filter(|&&hit| hit).count();
        assert!((16..48).contains(&hits), "{hits}");
    }
}
