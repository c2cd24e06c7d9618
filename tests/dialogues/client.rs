//! The client side of a dialogue: drives a `Conversation` against the model as a blocking driver would, and keeps a
//! record of what it did for each transaction.

use crate::model::Model;
use crate::words::{Ahead, Manner, Tls};
use mailer::mail::Verdict;
use mailer::smtp::{
    Conversation, Credentials, Framing, Garbled, Lost, Mail, Next, Pipelining, Progress, Protocol,
    RecipientEnd, ReplyParser, Secret, Settings, TlsPolicy, dot,
};

/// What a dialogue is about.
#[derive(Clone, Debug)]
pub struct Plan {
    pub level: Pipelining,
    pub manner: Manner,
    pub recipients: usize,
    pub messages: usize,
    /// The model takes RCPT and DATA even if MAIL was refused.
    pub careless: bool,
    /// The class of each answer.
    pub script: Vec<u8>,
    /// The connection fails when the client has written so many bytes; no reply to the flight cut is seen.
    pub client_cut: Option<usize>,
    /// The connection ends behind so many bytes of the server's.
    pub server_cut: Option<usize>,
    /// A reply that comes right behind the 354 of a transaction.
    pub early: Option<(usize, &'static str)>,
    /// From this step on nothing is begun any more, and what was given ahead is recalled.
    pub stop_at: Option<usize>,
}

/// A transaction, from the client's side.
#[derive(Debug)]
pub struct Transaction {
    /// Which recipients of the dialogue take part.
    pub recipients: Vec<usize>,
    pub content: Vec<u8>,
    pub begun_ahead: bool,
    /// The content left by BDAT, or was about to.
    pub by_chunk: bool,
    pub body_sent: bool,
    pub ends: Vec<RecipientEnd>,
}

/// A dialogue that is over.
pub struct Record {
    pub model: Model,
    pub transactions: Vec<Transaction>,
    /// Flights written before each transaction was done.
    pub flights: Vec<usize>,
    /// Bytes of the server's that were taken as replies.
    pub consumed: usize,
    pub written: usize,
    /// The transaction that was recalled, and how many bytes had been written by then.
    pub recalled: Option<(usize, usize)>,
    pub steps: usize,
    /// Why the session ended.
    pub closed: Option<Verdict>,
}

struct Client {
    plan: Plan,
    c: Conversation,
    parser: ReplyParser,
    record: Record,
    /// Recipients not yet in a transaction, by message.
    waiting: Vec<Vec<usize>>,
    done: usize,
    flights: usize,
}

/// Holds the dialogue of `plan`.
pub fn run(plan: &Plan) -> Record {
    let ahead = match plan.level {
        Pipelining::None => Ahead::Not,
        Pipelining::Classic => Ahead::Within,
        Pipelining::Cross => Ahead::Across,
    };
    let secret = Secret::Password("p".into());
    let settings = Settings {
        level: plan.level,
        protocol: match plan.manner.lmtp {
            true => Protocol::Lmtp,
            false => Protocol::Smtp,
        },
        tls: match plan.manner.tls {
            Tls::None => TlsPolicy::None,
            Tls::May => TlsPolicy::May,
            Tls::Require | Tls::Broken | Tls::Missing => TlsPolicy::Require,
        },
        auth: plan
            .manner
            .auth
            .map(|_| Credentials::new("u", secret, None).unwrap()),
        auth_in_clear: plan.manner.tls == Tls::None,
        bdat_bytes_max: 10_000,
        ..Settings::new("client.example")
    };
    let waiting = (0..plan.messages)
        .map(|m| (0..plan.recipients).map(|r| m * 10 + r).collect())
        .collect();
    let mut client = Client {
        c: Conversation::new(settings).unwrap(),
        parser: ReplyParser::new(),
        record: Record {
            model: Model::new(ahead, plan.manner, plan.careless, plan.script.clone())
                .with_early_reply(plan.early),
            transactions: Vec::new(),
            flights: Vec::new(),
            consumed: 0,
            written: 0,
            recalled: None,
            steps: 0,
            closed: None,
        },
        plan: plan.clone(),
        waiting,
        done: 0,
        flights: 0,
    };
    for _ in 0..1000 {
        if client.step() {
            return client.record;
        }
    }
    panic!("the dialogue does not end: {plan:?}");
}

impl Client {
    /// Does what comes next; true at the end.
    fn step(&mut self) -> bool {
        let stopping = self.is_stopping();
        self.record.steps += 1;
        if stopping && self.c.recall() {
            let last = self.record.transactions.len() - 1;
            assert!(self.record.recalled.is_none(), "recalled twice");
            self.record.recalled = Some((last, self.record.written));
        }
        match self.c.next() {
            Next::Closed(why) => {
                self.record.closed = why;
                return true;
            }
            Next::Done(end) => self.finish(end.ends),
            Next::Ready if !self.inbox().is_empty() => self.read(),
            Next::Ready if !self.parser.is_idle() => self.c.on_garbled(Garbled::Surplus),
            Next::Ready => match self.waiting.is_empty() || stopping || !self.c.may_reuse() {
                true => self.c.quit(),
                false => {
                    let next = self.waiting.remove(0);
                    self.begin(next, false);
                }
            },
            Next::SendBody(_) if !self.inbox().is_empty() => self.read(),
            Next::SendBody(framing) => self.send_body(framing),
            Next::StartTls if !self.inbox().is_empty() || !self.parser.is_idle() => {
                self.c.on_garbled(Garbled::Surplus)
            }
            Next::StartTls if self.plan.manner.tls == Tls::Broken => {
                self.c.tls_failed("no common version")
            }
            Next::StartTls if self.at_eof() => self.c.on_lost(Lost::Eof, ""),
            Next::StartTls => {
                self.record.model.tls_started();
                self.c.tls_started();
            }
            Next::Await(_) if !self.inbox().is_empty() => self.read(),
            Next::Await(_) if !self.c.output().is_empty() => {
                let flight = std::mem::take(self.c.output());
                if !self.write(&flight) {
                    self.c.on_lost(Lost::Other, "write");
                }
            }
            Next::Await(_) if self.at_eof() => self.c.on_lost(Lost::Eof, ""),
            Next::Await(stage) => panic!("nothing to read, nothing to write at {stage:?}"),
        }
        false
    }

    fn is_stopping(&self) -> bool {
        let stop_at = self.plan.stop_at;
        stop_at.is_some_and(|stop_at| self.record.steps >= stop_at)
    }

    /// What the server has sent and the client has not taken.
    fn inbox(&self) -> &[u8] {
        let stream = &self.record.model.stream;
        let end = self.plan.server_cut.unwrap_or(usize::MAX);
        &stream[self.record.consumed..stream.len().min(end)]
    }

    fn at_eof(&self) -> bool {
        let cut = self.plan.server_cut;
        self.record.model.closed || cut.is_some_and(|cut| self.record.model.stream.len() >= cut)
    }

    /// Takes one reply, or the start of one, or finds that it is none.
    fn read(&mut self) {
        let inbox = self.inbox().to_vec();
        let (used, progress) = self.parser.feed(&inbox);
        self.record.consumed += used;
        match progress {
            Progress::Complete => self.c.on_reply(self.parser.reply()),
            Progress::Partial => {}
            Progress::Garbled(garbled) => self.c.on_garbled(garbled),
        }
    }

    /// Writes a flight; false if the connection failed before its end.
    fn write(&mut self, flight: &[u8]) -> bool {
        self.flights += 1;
        let room = self
            .plan
            .client_cut
            .map_or(usize::MAX, |cut| cut.saturating_sub(self.record.written));
        let end = flight.len().min(room);
        let whole = end == flight.len();
        self.record.model.feed(&flight[..end], whole);
        self.record.written += end;
        whole
    }

    fn begin(&mut self, recipients: Vec<usize>, ahead: bool) -> bool {
        let number = self.record.transactions.len();
        let content = format!("Subject: {number}\r\n\r\n.dot\r\n..\r\nend {number}\r\n");
        let paths: Vec<String> = recipients.iter().map(|r| format!("r{r}@b.test")).collect();
        let reverse_path = format!("t{number}@a.test");
        let mail = Mail {
            reverse_path: &reverse_path,
            recipients: &paths,
            size: content.len() as u64,
            eight_bit: false,
            utf8: false,
            dsn: None,
        };
        if ahead && !self.c.begin_ahead(&mail) {
            return false;
        }
        if !ahead {
            self.c.begin(&mail);
        }
        self.record.transactions.push(Transaction {
            recipients,
            content: content.into_bytes(),
            begun_ahead: ahead,
            by_chunk: false,
            body_sent: false,
            ends: Vec::new(),
        });
        true
    }

    fn send_body(&mut self, framing: Framing) {
        let current = self.done;
        if let Some(next) = self.waiting.first().cloned()
            && current + 1 == self.record.transactions.len()
            && !self.is_stopping()
            && self.begin(next, true)
        {
            self.waiting.remove(0);
        }
        let content = self.record.transactions[current].content.clone();
        let mut flight = std::mem::take(self.c.output());
        match framing {
            Framing::Dot => {
                dot::stuff_into(&content, &mut flight);
                flight.extend_from_slice(dot::end_of(&content));
            }
            Framing::Bdat => {
                self.record.transactions[current].by_chunk = true;
                flight.extend_from_slice(&content);
            }
        }
        let dot_end = self.record.written + flight.len();
        flight.extend_from_slice(self.c.output_after_dot());
        let whole = self.write(&flight);
        if self.record.written >= dot_end {
            self.c.body_sent();
            self.record.transactions[current].body_sent = true;
        }
        if !whole {
            self.c.on_lost(Lost::Reset, "write");
        }
    }

    fn finish(&mut self, ends: Vec<RecipientEnd>) {
        let transaction = &mut self.record.transactions[self.done];
        let again: Vec<usize> = transaction
            .recipients
            .iter()
            .zip(&ends)
            .filter(|(_, end)| **end == RecipientEnd::Again)
            .map(|(&recipient, _)| recipient)
            .collect();
        transaction.ends = ends;
        self.record.flights.push(self.flights);
        self.done += 1;
        if !again.is_empty() {
            self.waiting.insert(0, again);
        }
    }
}
