//! `--stop-on`: a run is stopped in order once too much of it goes wrong.
//!
//! A rule says which kind of result, and how much of it is too much: more than a share of all results of this run
//! (`refused>5%`), judged from a least number of results on, or more than a number (`refused>100`). A result is what an
//! attempt came to: a recipient who was deferred and delivered later counts for both. Mail that could not be sent at all
//! (invalid), and what the operator settles, is no result.
//!
//! INVARIANT: the first rule that comes true decides; then nothing is judged any more.
//! Limits: domains are told apart up to `NAMES_MAX`, and only where a rule asks for their kind of result.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use crate::mail::Status;

/// Domains that are told apart.
const NAMES_MAX: usize = 10_000;
/// Results from which on a share is judged.
const LEAST: u64 = 100;

/// What can be counted.
const KINDS: [Status; 3] = [Status::Refused, Status::Deferred, Status::InDoubt];

/// One rule.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StopRule {
    kind: Status,
    limit: Limit,
}

/// How much is too much.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Limit {
    /// More than this number.
    Count(u64),
    /// More than this percentage of at least so many results.
    Share { percent: f64, of: u64 },
}

impl FromStr for StopRule {
    type Err = String;

    fn from_str(text: &str) -> Result<StopRule, String> {
        let form = "a rule is written like refused>5%, refused>5% of 500, or deferred>1000";
        let wrong = |what: String| format!("{what}; {form}");
        let Some((kind, limit)) = text.split_once('>') else {
            return Err(wrong(format!("`{text}` has no >")));
        };
        let kind = kind.trim();
        let known = KINDS.into_iter().find(|known| known.name() == kind);
        let kind = known.ok_or_else(|| {
            wrong(format!(
                "`{kind}` is none of refused, deferred and in-doubt"
            ))
        })?;
        let (limit, of) = match limit.split_once(" of ") {
            Some((limit, of)) => (limit.trim(), Some(number(of).map_err(&wrong)?)),
            None => (limit.trim(), None),
        };
        let limit = match (limit.strip_suffix('%'), of) {
            (Some(percent), of) => {
                let percent = percent.trim();
                let share = percent.parse::<f64>().ok();
                let share = share.filter(|share| (0.0..100.0).contains(share));
                let percent = share.ok_or_else(|| {
                    wrong(format!("`{percent}` is no percentage from 0 to below 100"))
                })?;
                let of = of.unwrap_or(LEAST).max(1);
                Limit::Share { percent, of }
            }
            (None, None) => Limit::Count(number(limit).map_err(&wrong)?),
            (None, Some(_)) => return Err(wrong("`of N` goes with a percentage only".into())),
        };
        Ok(StopRule { kind, limit })
    }
}

fn number(text: &str) -> Result<u64, String> {
    let text = text.trim();
    text.replace(['_', ','], "")
        .parse()
        .map_err(|_| format!("`{text}` is no number"))
}

impl fmt::Display for StopRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.name();
        match self.limit {
            Limit::Count(count) => write!(out, "{kind}>{count}"),
            Limit::Share { percent, of: LEAST } => write!(out, "{kind}>{percent}%"),
            Limit::Share { percent, of } => write!(out, "{kind}>{percent}% of {of}"),
        }
    }
}

/// Counts results and applies the rules.
#[derive(Debug)]
pub struct Breaker {
    rules: Vec<StopRule>,
    all: u64,
    counts: [u64; Status::ALL.len()],
    domains: HashMap<(Status, String), u64>,
}

impl Breaker {
    /// One with these rules.
    pub fn new(rules: Vec<StopRule>) -> Breaker {
        Breaker {
            rules,
            all: 0,
            counts: [0; Status::ALL.len()],
            domains: HashMap::new(),
        }
    }

    /// True if there is nothing to judge.
    pub fn is_idle(&self) -> bool {
        self.rules.is_empty()
    }

    /// An attempt came to this; `domain` is asked where a rule is about it.
    pub fn note(&mut self, status: Status, domain: impl FnOnce() -> Option<String>) {
        if status != Status::Delivered && !KINDS.contains(&status) {
            return;
        }
        self.all += 1;
        self.counts[status.index()] += 1;
        let is_asked = self.rules.iter().any(|rule| rule.kind == status);
        if let Some(domain) = is_asked.then(domain).flatten() {
            let key = (status, domain);
            if self.domains.len() < NAMES_MAX || self.domains.contains_key(&key) {
                *self.domains.entry(key).or_default() += 1;
            }
        }
    }

    /// What to say of the first rule that is true by now; after that there are none any more.
    pub fn judge(&mut self) -> Option<String> {
        let rule = *self.rules.iter().find(|rule| self.is_true(rule))?;
        self.rules.clear();
        let (kind, count) = (rule.kind.name(), self.counts[rule.kind.index()]);
        let share = 100.0 * count as f64 / self.all.max(1) as f64;
        let own = self.domains.iter().filter(|((of, _), _)| *of == rule.kind);
        let most = own.max_by(|(a, m), (b, n)| m.cmp(n).then(b.1.cmp(&a.1)));
        let most = most.map(|((_, domain), count)| format!(", most of them at {domain} ({count})"));
        Some(format!(
            "{rule}: {count} of {} results are {kind} ({share:.1} %){}",
            self.all,
            most.unwrap_or_default()
        ))
    }

    fn is_true(&self, rule: &StopRule) -> bool {
        let count = self.counts[rule.kind.index()];
        match rule.limit {
            Limit::Count(most) => count > most,
            Limit::Share { percent, of } => {
                self.all >= of && count as f64 * 100.0 > percent * self.all as f64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> StopRule {
        text.parse().unwrap()
    }

    #[test]
    fn rules_are_shown_as_they_are_read_and_wrong_ones_say_what_is_wrong() {
        for text in [
            "refused>5%",
            "deferred>50% of 20",
            "in-doubt>0",
            "refused>0.5%",
        ] {
            assert_eq!(rule(text).to_string(), text);
        }
        assert_eq!(rule(" refused > 1,000 ").to_string(), "refused>1000");
        for (text, part) in [
            ("refused", "no >"),
            ("bounced>5%", "`bounced` is none of"),
            ("refused>x", "`x` is no number"),
            ("refused>100%", "percentage"),
            ("refused>-1%", "percentage"),
            ("refused>NaN%", "percentage"),
            ("refused>5 of 100", "percentage only"),
        ] {
            let error = text.parse::<StopRule>().unwrap_err();
            assert!(
                error.contains(part) && error.contains("refused>5%"),
                "{error}"
            );
        }
    }

    fn run(rules: &[&str], results: &[(Status, &str, u64)]) -> Option<String> {
        let mut breaker = Breaker::new(rules.iter().map(|text| rule(text)).collect());
        for (status, domain, times) in results {
            for _ in 0..*times {
                breaker.note(*status, || Some((*domain).to_owned()));
                assert!(breaker.domains.len() <= NAMES_MAX);
            }
        }
        breaker.judge()
    }

    #[test]
    fn a_share_is_judged_from_the_least_number_on_and_must_be_passed() {
        let (ok, no) = (Status::Delivered, Status::Refused);
        assert_eq!(run(&["refused>5%"], &[(no, "a.test", 99)]), None);
        assert_eq!(
            run(&["refused>5%"], &[(ok, "a.test", 95), (no, "a.test", 5)]),
            None
        );
        let said = run(
            &["deferred>1%", "refused>5%"],
            &[(ok, "a.test", 94), (no, "b.test", 2), (no, "a.test", 4)],
        );
        let told = "refused>5%: 6 of 100 results are refused (6.0 %), most of them at a.test (4)";
        assert_eq!(said.as_deref(), Some(told));
        assert!(run(&["refused>5% of 10"], &[(no, "a.test", 10)]).is_some());
    }

    #[test]
    fn a_number_must_be_passed_and_invalid_mail_is_no_result() {
        let no = Status::Refused;
        assert_eq!(run(&["refused>3"], &[(no, "a.test", 3)]), None);
        assert!(run(&["refused>3"], &[(no, "a.test", 4)]).is_some());
        let mixed = [(Status::Invalid, "a.test", 500), (no, "a.test", 6)];
        assert_eq!(run(&["refused>5%"], &mixed), None);
    }

    #[test]
    fn a_rule_comes_true_once() {
        let mut breaker = Breaker::new(vec![rule("refused>0")]);
        breaker.note(Status::Refused, || None);
        assert_eq!(
            breaker.judge().unwrap(),
            "refused>0: 1 of 1 results are refused (100.0 %)"
        );
        assert!(breaker.judge().is_none() && breaker.is_idle());
    }
}
