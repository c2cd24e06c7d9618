//! What becomes of a whole delivery when something of ours fails: a thread that panics, a library that will not start.

use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::cli::args::{JobArgs, ReadArgs};
use crate::cli::send;
use crate::engine::settings::{Relay, Trip};
use crate::net::TlsError;
use crate::sink::{Sink, SinkConfig, Stats};
use crate::smtp::Protocol;

const MESSAGES: usize = 300;
const PATIENCE: Duration = Duration::from_secs(60);

/// A message to each of two domains, so that two queues have work.
fn mbox() -> String {
    let message = |n: usize| {
        let domain = ["a.test", "b.test"][n % 2];
        format!(
            "From x@y.test Thu Jan  1 00:00:00 2026\nFrom: x@y.test\nTo: u{n}@{domain}\nSubject: {n}\n\nbody\n\n"
        )
    };
    (0..MESSAGES).map(message).collect()
}

/// A row of the report: recipient and status.
type Rows = Vec<(String, String)>;

/// Delivers to a receiver that answers the dot late, and makes a thread of this kind fail as it takes something up for the
/// `nth` time, once the receiver has seen what `when` asks for. Returns the complaint, the report, and the receiver.
fn deliver_with_panic(kind: &'static str, nth: usize, when: fn(&Stats) -> bool) -> Ended {
    let (outcome, ended) = deliver_with_panics(kind, nth..=nth, when);
    Ended {
        failure: outcome.unwrap_err().downcast::<Failure>().unwrap(),
        ..ended
    }
}

/// The same with a panic each time from the first to the last.
fn deliver_with_panics(
    kind: &'static str,
    times: RangeInclusive<usize>,
    when: fn(&Stats) -> bool,
) -> (Result<(Exit, String)>, Ended) {
    let rules = vec!["stage=dot delay=50ms".parse().unwrap()];
    let sink = Arc::new(
        Sink::start(SinkConfig {
            rules,
            ..SinkConfig::keeping()
        })
        .unwrap(),
    );
    let (seen, calls) = (Arc::clone(&sink), AtomicUsize::new(0));
    let received = Arc::new(Mutex::new(0));
    let at_panic = Arc::clone(&received);
    let trip = Trip::new(move |at| {
        if at == kind && times.contains(&(calls.fetch_add(1, SeqCst) + 1)) {
            assert!(seen.wait_until(when, PATIENCE));
            *at_panic.lock().unwrap() = seen.stats().messages as usize;
            panic!("planted\u{1b}[2J in {kind}");
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let (batch, report) = (
        directory.path().join("b.mbox"),
        directory.path().join("r.csv"),
    );
    std::fs::write(&batch, mbox()).unwrap();
    let settings = Settings {
        state: directory.path().join("state"),
        trip,
        ..to_sink(&sink)
    };
    let read = ReadArgs {
        batch: vec![batch],
        command: "send",
        ..ReadArgs::default()
    };
    let show = ShowArgs {
        report: Some(report.clone()),
        quiet: true,
        ..ShowArgs::default()
    };
    let (job, flags) = (JobArgs::default(), DeliveryArgs::default());
    let outcome = send::send(&read, &job, &flags, &show, settings);
    let rows = csv::Reader::from_path(report).unwrap().into_records();
    let rows = rows.map(|row| row.unwrap());
    let rows = rows.map(|row| (row[1].to_owned(), row[2].to_owned()));
    let received = *received.lock().unwrap();
    let ended = Ended {
        failure: Failure::new(Exit::Done, "none"),
        rows: rows.collect(),
        sink,
        received,
    };
    (outcome, ended)
}

/// Two queues that send to this receiver.
fn to_sink(sink: &Sink) -> Settings {
    Settings {
        relays: vec![Relay {
            host: sink.address().ip().to_string(),
            port: sink.address().port(),
            protocol: Protocol::Smtp,
            implicit_tls: false,
            socket: None,
        }],
        queues: vec![crate::engine::settings::QueueSettings {
            name: "b".into(),
            domains: vec!["b.test".into()],
            ..Default::default()
        }],
        sessions_per_site: 2,
        ..Settings::default()
    }
}

struct Ended {
    failure: Failure,
    rows: Rows,
    sink: Arc<Sink>,
    /// Messages that had been received when the panic came.
    received: usize,
}

impl Ended {
    fn count(&self, status: &str) -> usize {
        self.rows.iter().filter(|(_, one)| one == status).count()
    }

    /// Asserts what holds whatever thread it was.
    #[track_caller]
    fn assert_in_order(&self, thread: &str) {
        assert_eq!(self.failure.exit, Exit::Software);
        let message = &self.failure.message;
        let text = format!("thread `{thread}` has panicked");
        assert!(message.contains(&text), "{message}");
        assert!(message.contains("planted?[2J in "), "{message}");
        assert!(message.contains("tests.rs:"), "{message}");
        let pending = self.count("queued") + self.count("deferred") + self.count("in-doubt");
        assert_eq!(self.count("delivered") + pending, self.rows.len());
        let mut delivered: Vec<&str> = self
            .rows
            .iter()
            .filter(|(_, status)| status == "delivered")
            .map(|(recipient, _)| recipient.as_str())
            .collect();
        let messages = self.sink.messages();
        let mut taken: Vec<&str> = messages.iter().map(|one| &*one.recipients[0]).collect();
        delivered.sort_unstable();
        taken.sort_unstable();
        let doubtful = self.count("in-doubt");
        assert!(
            taken.len() - delivered.len() <= doubtful,
            "{:#?}",
            self.rows
        );
        assert!(delivered.iter().all(|one| taken.contains(one)));
        // What was in flight has settled, and nothing was begun: two sessions in each of two queues, each with one message
        // under way and one begun ahead.
        assert!(taken.len() <= self.received + 8, "{}", self.sink.stats());
    }
}

fn some(stats: &Stats) -> bool {
    stats.messages >= 3
}

fn none(_: &Stats) -> bool {
    true
}

#[test]
fn a_panic_of_the_intake_ends_the_run() {
    let ended = deliver_with_panic("intake", 200, some);
    ended.assert_in_order("intake");
    assert!(ended.count("delivered") >= 3);
    assert!(ended.rows.len() < MESSAGES);
}

#[test]
fn a_panic_of_the_router_ends_the_run() {
    let ended = deliver_with_panic("router", 2, some);
    ended.assert_in_order("router");
    assert!(ended.count("delivered") >= 3);
    assert_eq!(ended.rows.len(), MESSAGES);
}

#[test]
fn a_panic_of_a_queue_ends_the_run() {
    let ended = deliver_with_panic("queue", 16, none);
    let message = &ended.failure.message;
    let number = if message.contains("`queue 0`") { 0 } else { 1 };
    ended.assert_in_order(&format!("queue {number}"));
    assert_eq!(ended.rows.len(), MESSAGES);
}

#[test]
fn a_panic_of_a_resolver_ends_the_run() {
    let ended = deliver_with_panic("resolver", 2, some);
    ended.assert_in_order("resolver");
    assert!(ended.count("delivered") >= 3 && ended.count("queued") >= MESSAGES / 2);
    assert_eq!(ended.rows.len(), MESSAGES);
}

#[test]
fn a_worker_that_panics_is_replaced_once_and_its_message_is_in_doubt() {
    let (outcome, ended) = deliver_with_panics("worker", 10..=10, some);
    assert_eq!(outcome.unwrap().0, Exit::Pending);
    let in_doubt = ended.count("in-doubt");
    assert!((1..=2).contains(&in_doubt), "{:#?}", ended.rows);
    assert_eq!(ended.count("delivered"), MESSAGES - in_doubt);
}

#[test]
fn the_second_panic_of_a_worker_ends_the_run_and_leaves_its_message_in_doubt() {
    let (outcome, ended) = deliver_with_panics("worker", 10..=usize::MAX, some);
    let ended = Ended {
        failure: outcome.unwrap_err().downcast::<Failure>().unwrap(),
        ..ended
    };
    let message = ended.failure.message.clone();
    let thread = message.split('`').nth(1).unwrap();
    assert!(thread.starts_with("worker "), "{message}");
    ended.assert_in_order(thread);
    assert!(
        (2..=8).contains(&ended.count("in-doubt")),
        "{:#?}",
        ended.rows
    );
    assert_eq!(ended.rows.len(), MESSAGES);
}

#[test]
fn a_panic_of_the_ledger_ends_the_run_and_what_it_was_told_is_in_doubt() {
    // Admissions come first, one a message; then what is told of mail.
    let ended = deliver_with_panic("ledger", MESSAGES + 5, none);
    ended.assert_in_order("ledger");
    assert_eq!(ended.rows.len(), MESSAGES);
}

#[test]
fn certificates_are_the_configuration_s_fault_and_a_library_without_tls_is_not() {
    let failure = |path: Option<&str>| {
        let error = StartError::Tls(TlsError {
            path: path.map(Into::into),
            text: "no".into(),
        });
        start_failure(error).downcast::<Failure>().unwrap()
    };
    assert_eq!(failure(Some("ca.pem")).exit, Exit::Config);
    assert_eq!(failure(None).exit, Exit::Software);
    assert_eq!(failure(None).message, "TLS cannot be used: no");
}
