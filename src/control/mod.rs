//! Control of a job that runs, as both sides see it: what is asked and answered, and the way to each other.
//!
//! The run listens on a Unix socket in the directory of its job. A connection is one request, a line of JSON, and one
//! answer, a line of JSON; then it is closed. `mailer ctl` is one client; any program of the same user may be another.
//!
//! | file | what |
//! |---|---|
//! | `socket` | the socket's place, who may be at the other end, the client |
//!
//! INVARIANTS: requests are at most [`REQUEST_MAX`] bytes, answers at most [`ANSWER_MAX`]; a field that one side does not know
//! is ignored by it, so that a client and a run of neighbouring versions understand each other.

use serde::{Deserialize, Serialize};

pub mod socket;

/// The longest request, its line end included.
pub const REQUEST_MAX: usize = 4096;
/// The longest answer.
pub const ANSWER_MAX: usize = 4 << 20;
/// The file in a job's directory that orders and answers are appended to.
pub const LOG: &str = "control.log";

/// What a run is asked.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Request {
    /// How things are.
    Show {
        /// How many sites at most.
        #[serde(default)]
        sites: Option<u32>,
    },
    /// Change limits.
    Set {
        /// A queue, a domain (its site is meant), or `all`.
        target: String,
        /// Worker threads at most.
        #[serde(default)]
        max_workers: Option<u32>,
        /// Sessions with a site at most.
        #[serde(default)]
        max_sessions: Option<u32>,
        /// Messages in a time, such as `600/min`; `none` for no limit.
        #[serde(default)]
        rate: Option<String>,
    },
    /// Attempt nothing more of a queue's or domain's mail, or of any.
    Pause {
        /// A queue or a domain.
        #[serde(default)]
        target: Option<String>,
    },
    /// Go on.
    Resume {
        /// A queue or a domain; none ends every pause.
        #[serde(default)]
        target: Option<String>,
    },
    /// Give the site of a domain a queue of its own.
    Promote {
        /// Which.
        domain: String,
    },
    /// Give it back to the general queue.
    Demote {
        /// Which.
        domain: String,
    },
    /// Leave a domain's mail pending for this run.
    Drop {
        /// Which.
        domain: String,
    },
    /// Settle a domain's mail as refused.
    Fail {
        /// Which.
        domain: String,
        /// What the report is to say.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Stop the run in order.
    Stop,
}

/// What it answers.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// An order was obeyed.
    Done {
        /// What was done.
        said: String,
    },
    /// How things are.
    Show(Box<Shown>),
    /// Nothing was done.
    Error {
        /// Why.
        said: String,
        /// What to do about it.
        #[serde(default)]
        hint: Option<String>,
    },
}

/// A run at one moment.
#[derive(Serialize, Deserialize, Clone, PartialEq, Default, Debug)]
#[serde(default)]
pub struct Shown {
    /// The process.
    pub pid: u32,
    /// Milliseconds since the run began.
    pub elapsed_ms: u64,
    /// Whether it begins nothing new any more.
    pub is_stopping: bool,
    /// Whether the batch has been read to its end.
    pub is_read: bool,
    /// Messages read so far.
    pub messages: u64,
    /// Recipients read so far.
    pub recipients: u64,
    /// Recipients by status, those that are none left out.
    pub counts: Vec<(String, u64)>,
    /// Recipients settled per second, of late.
    pub per_second: f64,
    /// Worker threads of all queues together, at most.
    pub max_workers: u32,
    /// Whether all mail is paused.
    pub is_paused: bool,
    /// Domains that are paused by themselves.
    pub paused: Vec<String>,
    /// The queues, the general one first.
    pub queues: Vec<QueueRow>,
    /// The busiest sites.
    pub sites: Vec<SiteRow>,
}

/// A queue.
#[derive(Serialize, Deserialize, Clone, PartialEq, Default, Debug)]
#[serde(default)]
pub struct QueueRow {
    /// Its name.
    pub name: String,
    /// Worker threads.
    pub workers: u64,
    /// Worker threads at most.
    pub max_workers: u32,
    /// Workers that wait for mail.
    pub ready: u64,
    /// Recipients whose mail waits, held ones included.
    pub waiting: u64,
    /// Recipients whose mail the operator holds.
    pub held: u64,
    /// Recipients whose mail waits for its next attempt.
    pub delayed: u64,
    /// Recipients in workers' hands.
    pub in_hand: u64,
    /// Recipients settled so far.
    pub settled: u64,
    /// Recipients settled per second, of late.
    pub per_second: f64,
    /// Whether the queue as such is paused.
    pub is_paused: bool,
}

/// A site.
#[derive(Serialize, Deserialize, Clone, PartialEq, Default, Debug)]
#[serde(default)]
pub struct SiteRow {
    /// Its best host.
    pub host: String,
    /// The domain with most of its mail.
    pub domain: String,
    /// How many domains it serves.
    pub domains: usize,
    /// The queue that tells.
    pub queue: String,
    /// Sessions of all queues with it.
    pub sessions: u32,
    /// Sessions that it may have.
    pub window: u32,
    /// Messages per minute that it may have, if there is a limit.
    pub rate_per_minute: Option<f64>,
    /// Recipients whose mail waits and is not held.
    pub waiting: u64,
    /// Recipients whose mail the operator holds.
    pub held: u64,
    /// Recipients in workers' hands.
    pub in_hand: u64,
    /// Recipients whose mail was left because it is stopped.
    pub left: u64,
    /// Whether it takes mail: `open`, `narrow`, `paused`, `probe`, `probing`, `stopped`.
    pub gate: String,
    /// What it failed with last, if it has not worked since.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_read_back_and_unknown_fields_ignored() {
        let requests = [
            Request::Show { sites: Some(3) },
            Request::Set {
                target: "big".into(),
                max_workers: Some(3),
                max_sessions: None,
                rate: None,
            },
            Request::Pause { target: None },
            Request::Fail {
                domain: "a.test".into(),
                reason: Some("no\nmore".into()),
            },
            Request::Stop,
        ];
        for request in requests {
            let line = serde_json::to_string(&request).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
        let sparse = r#"{"order":"resume","colour":"red"}"#;
        let resume = Request::Resume { target: None };
        assert_eq!(serde_json::from_str::<Request>(sparse).unwrap(), resume);
        let shown = r#"{"show":{"pid":7,"queues":[{"name":"x","moon":1}]}}"#;
        let Reply::Show(shown) = serde_json::from_str(shown).unwrap() else {
            panic!("another reply");
        };
        assert_eq!((shown.pid, &*shown.queues[0].name), (7, "x"));
    }
}
