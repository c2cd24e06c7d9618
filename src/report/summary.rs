//! The summary: one screen that says what became of the batch, and why what failed did.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use crate::engine::stops::StoppedSite;
use crate::ledger::Outcome;
use crate::mail::Status;

/// Reasons shown at most.
const REASONS_MAX: usize = 8;
/// Different reasons told apart at most; servers can make up as many as they like.
const REASONS_KEPT: usize = 2000;
const TEXT_SHOWN: usize = 72;
/// Stopped sites shown at most.
const STOPPED_MAX: usize = 8;

/// Collects what the summary shows.
#[derive(Debug, Default)]
pub struct Summary {
    counts: [u64; Status::ALL.len()],
    reasons: HashMap<Reason, (u64, String)>,
    unlisted: u64,
    stopped: Vec<String>,
    stopped_unlisted: usize,
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct Reason {
    status: Status,
    stage: &'static str,
    code: u16,
    shape: String,
}

impl Summary {
    /// Counts one recipient.
    pub fn add(&mut self, recipient: &str, outcome: &Outcome) {
        self.counts[outcome.status.index()] += 1;
        let Some(last) = outcome
            .last
            .as_ref()
            .filter(|_| outcome.status != Status::Delivered)
        else {
            return;
        };
        let reason = Reason {
            status: outcome.status,
            stage: last.verdict.stage.name(),
            code: last.verdict.code,
            shape: shape(&last.verdict.text),
        };
        if self.reasons.len() >= REASONS_KEPT && !self.reasons.contains_key(&reason) {
            self.unlisted += 1;
            return;
        }
        let example = || {
            let code = if last.verdict.code == 0 {
                String::new()
            } else {
                format!("{} ", last.verdict.code)
            };
            let enhanced = last
                .verdict
                .enhanced
                .map(|enhanced| format!("{enhanced} "))
                .unwrap_or_default();
            let recipient = crate::mail::verdict::printable(recipient, 80);
            let text = shortened(&last.verdict.text);
            {
                let stage = last.verdict.stage.name();
                let who = if recipient.is_empty() {
                    String::new()
                } else {
                    format!(", e.g. {recipient}")
                };
                format!("{code}{enhanced}{text} (at {stage}{who})")
            }
        };
        self.reasons
            .entry(reason)
            .or_insert_with(|| (0, example()))
            .0 += 1;
    }

    /// Notes a site that was stopped.
    pub fn add_stopped(&mut self, site: &StoppedSite) {
        if self.stopped.len() < STOPPED_MAX {
            self.stopped.push(stopped_line(site));
        } else {
            self.stopped_unlisted += 1;
        }
    }

    /// How many recipients stand at `status`.
    pub fn count(&self, status: Status) -> u64 {
        self.counts[status.index()]
    }

    /// The screen.
    pub fn render(&self, messages: u64, took: Duration) -> String {
        let recipients: u64 = self.counts.iter().sum();
        let mut out = String::new();
        let rate = self.count(Status::Delivered) as f64 / took.as_secs_f64().max(0.001);
        let _ = writeln!(
            out,
            "{} to {} in {:.1} s, {:.0} delivered/s",
            plural(messages, "message"),
            plural(recipients, "recipient"),
            took.as_secs_f64(),
            rate
        );
        for (status, count) in Status::ALL
            .iter()
            .zip(self.counts)
            .filter(|(_, count)| *count > 0)
        {
            let share = 100.0 * count as f64 / recipients.max(1) as f64;
            let _ = writeln!(out, "  {:<11}{count:>9}  {share:>5.1} %", status.name());
        }
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by(|a, b| b.1.0.cmp(&a.1.0).then_with(|| a.1.1.cmp(&b.1.1)));
        if !reasons.is_empty() {
            out.push_str("why:\n");
        }
        for (reason, (count, example)) in reasons.iter().take(REASONS_MAX) {
            let _ = writeln!(out, "  {count:>6} {}: {example}", reason.status.name());
        }
        let rest = reasons
            .iter()
            .skip(REASONS_MAX)
            .map(|(_, (count, _))| count)
            .sum::<u64>()
            + self.unlisted;
        if rest > 0 {
            let _ = writeln!(out, "  {rest:>6} for other reasons: see the report");
        }
        for line in &self.stopped {
            let _ = writeln!(out, "{line}");
        }
        if self.stopped_unlisted > 0 {
            let more = plural(self.stopped_unlisted as u64, "more site");
            let _ = writeln!(out, "stopped sending to {more} for such reasons");
        }
        out
    }
}

/// A line about a site that refuses us as the sender. Server text in verdicts is printable already.
pub fn stopped_line(site: &StoppedSite) -> String {
    let who = match &site.domain {
        Some(domain) => format!("{domain}'s servers refuse"),
        None => "the relay refuses".to_owned(),
    };
    let enhanced = site.verdict.enhanced.map(|enhanced| format!(" {enhanced}"));
    format!(
        "{who} our mail as such ({}{} {}): stopped sending there, mail for {} stays queued; \
         mend SPF, DKIM, DMARC or reverse DNS before you send again",
        site.verdict.code,
        enhanced.unwrap_or_default(),
        shortened(&site.verdict.text),
        plural(site.left as u64, "recipient")
    )
}

/// A text cut at a word, and marked so, if it is long.
fn shortened(text: &str) -> String {
    let kept = crate::mail::verdict::printable(text, TEXT_SHOWN);
    if kept.len() >= text.len() {
        return kept;
    }
    let words = kept
        .rsplit_once(' ')
        .map_or(kept.as_str(), |(words, _)| words);
    format!("{words} ...")
}

/// A reply's text with what differs between recipients taken out, so that equal reasons are counted together.
fn shape(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        let varies = word.contains('@') || word.chars().filter(char::is_ascii_digit).count() > 3;
        if varies { "*" } else { word }
    });
    words.take(16).collect::<Vec<_>>().join(" ")
}

/// `1 message`, `2 messages`.
pub fn plural(count: u64, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Attempt, Via};
    use crate::mail::{Enhanced, QueueId, Scope, Stage, Verdict};

    fn refused(text: &str) -> Outcome {
        let last = Attempt::refused(text, Via::none(QueueId(0)));
        Outcome {
            status: Status::Refused,
            first_at: None,
            last: Some(last),
        }
    }

    #[test]
    fn equal_reasons_are_counted_together_although_they_name_different_people() {
        let mut summary = Summary::default();
        summary.add("a@x.test", &refused("<a@x.test> unknown"));
        summary.add("b@x.test", &refused("<b@x.test> unknown"));
        summary.add(
            "c@x.test",
            &Outcome {
                status: Status::Delivered,
                first_at: None,
                last: None,
            },
        );
        let screen = summary.render(1, Duration::from_secs(2));
        let expected = "1 message to 3 recipients in 2.0 s, 0 delivered/s\n  delivered          1   33.3 %\n  refused            2   66.7 %\n\
            why:\n       2 refused: 550 5.1.1 <a@x.test> unknown (at rcpt, e.g. a@x.test)\n";
        assert_eq!(screen, expected);
    }

    #[test]
    fn a_stopped_site_is_told_of_in_one_line_and_many_are_counted() {
        let verdict = Verdict::new(
            Status::Refused,
            Scope::Message,
            Stage::Dot,
            550,
            Some(Enhanced::new(5, 7, 26)),
            "no\u{1b}[2J\r\nmailer: all is well",
        );
        let mut site = StoppedSite {
            domain: Some("x.test".into()),
            verdict: std::sync::Arc::new(verdict),
            left: 12345,
        };
        let line = stopped_line(&site);
        let expected = "x.test's servers refuse our mail as such (550 5.7.26 no?[2J??mailer: all is well): stopped sending there, \
            mail for 12345 recipients stays queued; mend SPF, DKIM, DMARC or reverse DNS before you send again";
        assert_eq!(line, expected);
        let mut summary = Summary::default();
        for _ in 0..STOPPED_MAX + 3 {
            summary.add_stopped(&site);
        }
        let screen = summary.render(1, Duration::from_secs(1));
        assert_eq!(screen.matches(&line).count(), STOPPED_MAX);
        assert!(screen.ends_with("stopped sending to 3 more sites for such reasons\n"));
        site.domain = None;
        assert!(stopped_line(&site).starts_with("the relay refuses our mail as such ("));
    }

    #[test]
    fn reasons_without_end_take_bounded_memory_and_one_screen() {
        let mut summary = Summary::default();
        for number in 0..5000 {
            summary.add(
                "a@x.test",
                &refused(&format!("reason{}", "x".repeat(number % 2500))),
            );
        }
        assert!(summary.reasons.len() <= REASONS_KEPT);
        let screen = summary.render(5000, Duration::from_secs(1));
        assert!(screen.lines().count() < 15, "{screen}");
        assert!(screen.contains("for other reasons"));
    }
}
