//! Costs of the parts that every message passes, each alone and in memory: `scripts/bench micro`.
//!
//! Figures are for comparing one version with the next on one machine; what they come to together is measured by `scripts/bench`.
//! Allocations are counted beside the time.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher};
use mailer::ledger::{Attempt, Ledger, Options, People, Via, Writer};
use mailer::mail::{
    DestinationId, Envelope, MessageNo, Passage, QueueId, RecipientNo, Scope, SiteId, Stage,
    Status, Verdict,
};
use mailer::mbox::MboxFlavour;
use mailer::mbox::scan::MessageScan;
use mailer::mbox::splitter::{Splitter, Step};
use mailer::queue::permits::PermitTable;
use mailer::queue::{
    Action, Dispatcher, DispatcherConfig, Event, Outcome, Resolution, Route, SenderReplies,
};
use mailer::smtp::{ReplyParser, dot};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// An mbox of 16 MB in messages of some 2 KB.
fn mbox() -> Vec<u8> {
    let line = "All work and no play makes a newsletter that few people like to read in bed.\n";
    let mut text = String::new();
    for number in 0.. {
        if text.len() > 16 << 20 {
            break;
        }
        text += "From news@sender.test Tue Nov 24 08:00:00 2026\n";
        text += &format!(
            "From: News <news@sender.test>\nTo: r{number}@d0001.test\nSubject: {number}\n\n"
        );
        text += &line.repeat(24);
        text += "\n";
    }
    text.into_bytes()
}

mod batch {
    use super::*;

    /// What the scan is held against: one search for a byte that is not there.
    #[divan::bench]
    fn memchr_over_the_same_bytes(bencher: Bencher) {
        let mbox = mbox();
        bencher
            .counter(BytesCount::new(mbox.len()))
            .bench(|| memchr::memchr(0, black_box(&mbox)));
    }

    #[divan::bench]
    fn split_mbox(bencher: Bencher) {
        let mbox = mbox();
        bencher
            .counter(BytesCount::new(mbox.len()))
            .bench(|| walk(black_box(&mbox), None));
    }

    /// Boundaries, checks of each line, header kept, hash of all: what intake does before it reads addresses.
    #[divan::bench]
    fn split_check_and_hash_mbox(bencher: Bencher) {
        let mbox = mbox();
        let mut scan = MessageScan::new(false);
        bencher
            .counter(BytesCount::new(mbox.len()))
            .bench_local(|| walk(black_box(&mbox), Some(&mut scan)));
    }

    fn walk(mbox: &[u8], mut scan: Option<&mut MessageScan>) -> usize {
        let mut splitter = Splitter::new(MboxFlavour::Rd);
        let (mut at, mut messages) = (0, 0);
        loop {
            let window = &mbox[at..mbox.len().min(at + (256 << 10))];
            let step = splitter.next(window, at + window.len() == mbox.len());
            let len = match step {
                Step::Begin(len) | Step::Content(len) | Step::Skip(len) => len,
                Step::End => {
                    messages += 1;
                    if let Some(scan) = &mut scan {
                        assert_eq!(scan.finish(), None);
                    }
                    continue;
                }
                Step::Done => return messages,
                other => unreachable!("a plain mbox has no {other:?}"),
            };
            if let Some(scan) = &mut scan {
                match step {
                    Step::Begin(_) => scan.begin(&window[..len]),
                    Step::Content(_) => scan.content(&window[..len]),
                    _ => {}
                }
            }
            at += len;
        }
    }
}

mod smtp {
    use super::*;

    const REPLIES: &[u8] =
        b"250 2.0.0 taken as 0123456789\r\n250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on\r\n";

    #[divan::bench(args = [0, 1])]
    fn stuff_2_kb(bencher: Bencher, dots: usize) {
        let mut content = "a line as long as lines of mail often are, more or less\r\n".repeat(36);
        content.insert_str(content.len() / 2 / 57 * 57, &".x\r\n".repeat(dots));
        let mut out = Vec::with_capacity(2 * content.len());
        bencher
            .counter(BytesCount::new(content.len()))
            .bench_local(|| {
                out.clear();
                let content = black_box(content.as_bytes());
                if dot::needs_stuffing(content) {
                    dot::stuff_into(content, &mut out);
                }
                out.len()
            });
    }

    #[divan::bench]
    fn parse_the_replies_of_a_message(bencher: Bencher) {
        let mut parser = ReplyParser::new();
        bencher.counter(ItemsCount::new(4_u32)).bench_local(|| {
            let (mut rest, mut codes) = (black_box(REPLIES), 0);
            while !rest.is_empty() {
                let (used, _) = parser.feed(rest);
                codes += u32::from(parser.reply().code);
                rest = &rest[used..];
            }
            codes
        });
    }
}

/// Messages to a hundred domains, posted, assigned, delivered.
#[divan::bench(args = [1, 64])]
fn dispatch(bencher: Bencher, posted_at_once: u32) {
    const MESSAGES: u32 = 6_400;
    bencher
        .counter(ItemsCount::new(MESSAGES))
        .bench_local(|| dispatched(MESSAGES, posted_at_once));
}

fn dispatched(messages: u32, at_once: u32) -> u32 {
    let permits = RefCell::new(PermitTable::new(256, 20));
    let mut dispatcher: Dispatcher<()> =
        Dispatcher::new(DispatcherConfig::new(QueueId::GENERAL, 256), 1);
    let (mut actions, mut settled, mut now) = (Vec::new(), 0, Instant::now());
    for first in (0..messages).step_by(at_once as usize) {
        let destination = DestinationId(first / at_once % 100);
        let envelopes = (first..messages.min(first + at_once))
            .map(|no| Envelope::new(MessageNo(no), RecipientNo(no)))
            .collect();
        let post = Event::Post {
            destination,
            envelopes,
        };
        dispatcher.on(post, now, &permits, &mut actions);
        while let Some(action) = actions.pop() {
            now += Duration::from_micros(10);
            let event = match action {
                Action::Resolve { destination } => Event::Resolved {
                    destination,
                    resolution: known(destination, now),
                },
                Action::Assign {
                    worker,
                    site,
                    envelopes,
                    ..
                } => {
                    settled += envelopes.len() as u32;
                    let outcome = delivered(envelopes.len() as u32, site);
                    Event::Finished { worker, outcome }
                }
                _ => continue,
            };
            dispatcher.on(event, now, &permits, &mut actions);
        }
    }
    assert_eq!(settled, messages);
    settled
}

fn known(destination: DestinationId, now: Instant) -> Resolution<()> {
    Resolution::Known {
        route: Route {
            site: SiteId(destination.0),
            plan: (),
            expires: now + Duration::from_secs(3600),
        },
        queue: None,
    }
}

fn delivered(count: u32, site: SiteId) -> Outcome {
    Outcome {
        deferred: Vec::new(),
        settled: count,
        accepted: count,
        tried: count,
        spent: Duration::from_micros(100 * u64::from(count)),
        ended_after: None,
        carried: None,
        returned: Vec::new(),
        host_failed: None,
        session: Some(site),
        sender: SenderReplies::default(),
    }
}

struct Nobody;

impl People for Nobody {
    fn person(&self, recipient: RecipientNo) -> Option<(MessageNo, String)> {
        Some((
            MessageNo(recipient.0),
            format!("r{}@d0001.test", recipient.0),
        ))
    }
}

mod ledger {
    use super::*;

    const RECIPIENTS: u32 = 20_000;

    /// A verdict and an intent with one `write` each message, as a worker makes them, nothing synced; then folded into the
    /// database, too.
    #[divan::bench(args = [false, true])]
    fn journal(bencher: Bencher, folded: bool) {
        bencher
            .counter(ItemsCount::new(RECIPIENTS))
            .with_inputs(|| tempfile::tempdir().expect("a directory"))
            .bench_values(|directory| {
                let mut ledger = opened(directory.path());
                record(&ledger);
                if folded {
                    ledger.finish().expect("folded");
                }
                (ledger, directory)
            });
    }

    fn opened(directory: &std::path::Path) -> Ledger {
        Ledger::open(directory, Options::default(), Arc::new(Nobody)).expect("a ledger")
    }

    fn record(ledger: &Ledger) {
        let mut writer = Writer::new(ledger.journal());
        let via = Via {
            mx: "mx.d0001.test".into(),
            ip: "127.0.0.1".parse().ok(),
            ..Via::none(QueueId::GENERAL)
        };
        let (status, scope, stage) = (Status::Delivered, Scope::Recipient, Stage::Dot);
        let verdict = Verdict::new(status, scope, stage, 250, None, "2.0.0 taken as 0123456789");
        for recipient in (0..RECIPIENTS).map(RecipientNo) {
            let intended = writer.intend(1_800_000_000_000, &via, [recipient].into_iter());
            intended.expect("written");
            writer.attempt(&Attempt {
                recipient,
                verdict: verdict.clone(),
                via: via.clone(),
                passage: Passage::default(),
                at: 1_800_000_000_000,
                took_ms: 1,
            });
        }
    }
}

mod dkim {
    use divan::Bencher;
    use mailer::dkim::{BodyHash, Key, Kind, Signer, Signers};
    use mailer::mail::Domain;

    /// One signature of a message of 2 KB, its body hashed anew.
    #[divan::bench(args = [Kind::Rsa, Kind::Ed25519])]
    fn sign(bencher: Bencher, kind: Kind) {
        let signer = Signer {
            domain: Domain::parse("sender.test").expect("a domain"),
            selector: "s1".to_owned(),
            key: Key::generate(kind, 2048).expect("a key"),
        };
        let signers = Signers::new(vec![signer]);
        let header = "From: News <news@sender.test>\r\nTo: r1@d0001.test\r\nSubject: News\r\nDate: Tue, 24 Nov 2026 08:00:00 +0000\r\n\r\n";
        let message = header.to_owned()
            + &"sixty octets of a line that is like others in a newsletter.\r\n".repeat(31);
        bencher.bench_local(|| {
            let mut hash = BodyHash::default();
            signers
                .sign(message.as_bytes(), 1_800_000_000, &mut hash)
                .expect("signed")
        });
    }
}
