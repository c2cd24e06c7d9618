//! The words for what was ordered and what it came to.

use super::Answer;
use crate::control::Request;
use crate::mail::QueueId;
use crate::queue::Rate;

/// What an order has hit, in all queues.
pub(super) struct Hit {
    recipients: usize,
    in_hand: usize,
}

pub(super) fn hit(answers: &[(QueueId, Answer)]) -> Hit {
    Hit {
        recipients: answers.iter().map(|(_, answer)| answer.recipients).sum(),
        in_hand: answers.iter().map(|(_, answer)| answer.in_hand).sum(),
    }
}

impl Hit {
    /// `5,200 recipients`.
    pub(super) fn recipients(&self) -> String {
        match self.recipients {
            1 => "1 recipient".into(),
            some => format!("{} recipients", grouped(some)),
        }
    }

    pub(super) fn under_way(&self) -> String {
        match self.in_hand {
            0 => String::new(),
            some => format!(
                "; {} in workers' hands: messages under way end, the rest comes back",
                grouped(some)
            ),
        }
    }
}

/// `5,200`.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<String> = groups
        .map(|group| String::from_utf8_lossy(group).into_owned())
        .collect();
    groups.join(",")
}

/// `at most 20 workers, until now 3`.
pub(super) fn changed(now: u32, before: u32, what: &str) -> String {
    format!("at most {now} {what}, until now {before}")
}

/// A rate as it is typed.
pub(super) fn rate_of(text: &str) -> Result<Option<Rate>, (String, Option<String>)> {
    match text {
        "none" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|error| (format!("rate: {error}"), None)),
    }
}

/// `at most 600/min`.
pub(super) fn rate_in_words(rate: Option<Rate>) -> String {
    rate.map_or("no limit of the rate".to_owned(), |rate| {
        format!("at most {rate}")
    })
}

pub(super) fn changed_rate(now: Option<Rate>, before: Option<Rate>) -> String {
    let before = before.map_or("without limit".to_owned(), |rate| rate.to_string());
    format!("{}, until now {before}", rate_in_words(now))
}

/// An order as it could have been typed.
pub(super) fn in_words(request: &Request) -> String {
    let with = |verb: &str, target: &Option<String>| match target {
        Some(target) => format!("{verb} {target}"),
        None => verb.to_owned(),
    };
    match request {
        Request::Show { .. } => "show".into(),
        Request::Set {
            target,
            max_workers,
            max_sessions,
            rate,
        } => {
            let mut words = format!("set {target}");
            let numbers = [("max-workers", max_workers), ("max-sessions", max_sessions)];
            for (key, value) in numbers {
                if let Some(value) = value {
                    words.push_str(&format!(" {key}={value}"));
                }
            }
            if let Some(rate) = rate {
                words.push_str(&format!(" rate={rate}"));
            }
            words
        }
        Request::Pause { target } => with("pause", target),
        Request::Resume { target } => with("resume", target),
        Request::Promote { domain } => format!("promote {domain}"),
        Request::Demote { domain } => format!("demote {domain}"),
        Request::Drop { domain } => format!("drop {domain}"),
        Request::Fail { domain, reason } => match reason {
            Some(reason) => format!("fail {domain} --reason {reason}"),
            None => format!("fail {domain}"),
        },
        Request::Stop => "stop".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_in_threes() {
        let shown = [0, 7, 999, 1000, 5200, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "7", "999", "1,000", "5,200", "1,234,567"]);
    }

    #[test]
    fn an_order_is_journaled_as_it_could_be_typed() {
        let set = Request::Set {
            target: "big".into(),
            max_workers: Some(4),
            max_sessions: None,
            rate: Some("9/s".into()),
        };
        assert_eq!(in_words(&set), "set big max-workers=4 rate=9/s");
        assert_eq!(in_words(&Request::Pause { target: None }), "pause");
    }
}
