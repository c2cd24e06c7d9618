//! What the receiver decides in one session: rules, limits, greylisting; and what it counts and keeps.
//!
//! INVARIANT: a message is counted and kept in the same breath, at its final dot, or not at all; a dot that a rule refuses or
//! drops counts nothing, one whose reply a rule loses counts as taken.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::duplicates::Fingerprint;
use super::rule::{Action, Rule};
use super::shared::Shared;
use super::stats::{AddressCounters, add};
use super::store::Received;
use crate::mail::Stage;
use crate::smtp::server::{Answer, Decision, Handler, Transaction, Violation};

/// From this message of a session on, turns are those of a reused session.
const REUSED_FROM: u64 = 3;

/// Octets of our part of a nonce.
const NONCE_BYTES: usize = 24;

/// What happens when TLS is to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Handshake {
    /// TLS begins.
    Usual,
    /// Bytes that are no TLS.
    Garbage,
    /// Nothing, ever.
    Stall,
}

/// One session's handler.
pub(super) struct SinkHandler<'a> {
    shared: &'a Shared,
    address: &'a AddressCounters,
    session: u64,
    peer: SocketAddr,
    server: SocketAddr,
    rng: fastrand::Rng,
    /// Set while the connection is one too many: the text of its greeting.
    too_many: Option<&'static str>,
    /// What a rule wants of the handshake to come.
    handshake: Handshake,
    /// Inside TLS.
    secured: bool,
    /// The client has said QUIT.
    has_quit: bool,
    messages: u64,
    /// All turns so far, and how many of them the shared counter knows.
    turns: u64,
    turns_counted: u64,
    kept: Vec<u8>,
    fingerprint: Option<Fingerprint>,
}

impl<'a> SinkHandler<'a> {
    pub fn new(
        shared: &'a Shared,
        address: &'a AddressCounters,
        session: u64,
        peer: SocketAddr,
        server: SocketAddr,
    ) -> SinkHandler<'a> {
        // The sessions' numbers spread the seed; each session's chances then are its own.
        let seed = shared.config.seed ^ session.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        SinkHandler {
            shared,
            address,
            session,
            peer,
            server,
            rng: fastrand::Rng::with_seed(seed),
            too_many: None,
            handshake: Handshake::Usual,
            secured: false,
            has_quit: false,
            messages: 0,
            turns: 0,
            turns_counted: 0,
            kept: Vec::new(),
            fingerprint: shared.config.find_duplicates.then(Fingerprint::new),
        }
    }

    /// The connection is one too many: it is greeted with 421 and this text.
    pub fn turn_away(&mut self, text: &'static str) {
        add(&self.shared.counters.connections_refused, 1);
        self.too_many = Some(text);
    }

    /// What a rule wants at the moment of connecting: nothing to be said yet.
    pub fn connect(&mut self) -> Decision {
        self.ruled(Stage::Connect)
    }

    /// What the handshake is to be like, as the rules for STARTTLS had it.
    pub fn handshake(&self) -> Handshake {
        self.handshake
    }

    /// A handshake was tried.
    pub fn count_handshake(&mut self, is_done: bool) {
        let counters = &self.shared.counters;
        if is_done {
            self.secured = true;
            add(&counters.tls_sessions, 1);
        } else {
            add(&counters.tls_failures, 1);
        }
        self.shared.changed();
    }

    /// Replies were sent and the client has to be waited for.
    pub fn count_turn(&mut self) {
        self.turns += 1;
    }

    /// The session is about to be ended from this side.
    pub fn count_end(&mut self) {
        if !self.has_quit {
            add(&self.shared.counters.cut, 1);
        }
    }

    /// Tells the shared counter of this session's turns.
    pub fn settle_turns(&mut self) {
        let new = self.turns - self.turns_counted;
        if new > 0 {
            add(&self.shared.counters.turns, new);
            self.turns_counted = self.turns;
        }
    }

    fn rule(&mut self, stage: Stage, recipients: &[String], one: Option<&str>) -> Option<&'a Rule> {
        let all = recipients.iter().map(String::as_str).chain(one);
        self.shared
            .rules
            .find(stage, self.server.ip(), all, &mut self.rng)
    }

    /// What a rule for this stage wants, else the usual.
    fn ruled(&mut self, stage: Stage) -> Decision {
        let rule = self.rule(stage, &[], None);
        self.counted(rule.map(Rule::decision).unwrap_or_default())
    }

    fn ruled_for(&mut self, stage: Stage, transaction: &Transaction) -> Decision {
        let rule = self.rule(stage, &transaction.recipients, None);
        self.counted(rule.map(Rule::decision).unwrap_or_default())
    }

    /// The decision about a message for some recipients, and whether it is taken for them.
    fn at_dot(&mut self, recipients: &[String]) -> (Decision, bool) {
        let rule = self.rule(Stage::Dot, recipients, None);
        let decision = self.counted(rule.map(Rule::decision).unwrap_or_default());
        let is_taken = match &decision.answer {
            Answer::Accept => true,
            Answer::Reply(reply) => reply.code < 300,
            Answer::Drop => rule.is_some_and(|rule| rule.action == Action::LoseReply),
            Answer::Silence => false,
        };
        (decision, is_taken)
    }

    fn not_kept(&self) -> Decision {
        self.counted(Decision::reply(452, "4.3.1 Cannot keep the message"))
    }

    fn counted(&self, decision: Decision) -> Decision {
        if matches!(&decision.answer, Answer::Reply(reply) if reply.code >= 400) {
            add(&self.shared.counters.refusals, 1);
        }
        decision
    }

    /// Takes the message: keeps and counts it. False if it could not be kept.
    fn take(&mut self, transaction: &Transaction, content_bytes: u64) -> bool {
        let content = std::mem::take(&mut self.kept);
        let kept = self.shared.store.keep(|| Received {
            session: self.session,
            peer: self.peer,
            server: self.server,
            reverse_path: transaction.reverse_path.clone(),
            recipients: transaction.recipients.clone(),
            content,
            content_bytes,
            eight_bit: transaction.eight_bit,
            smtputf8: transaction.smtputf8,
            tls: self.secured,
        });
        if kept.is_err() {
            return false;
        }
        if let Some(fingerprint) = &mut self.fingerprint {
            self.shared
                .deliveries
                .note(&transaction.recipients, fingerprint.take());
        }
        self.count(transaction.recipients.len() as u64, content_bytes);
        true
    }

    fn count(&mut self, recipients: u64, content_bytes: u64) {
        let counters = &self.shared.counters;
        self.messages += 1;
        add(&counters.recipients, recipients);
        add(&counters.bytes, content_bytes);
        counters.span.extend(Instant::now());
        if self.messages >= REUSED_FROM {
            add(&counters.reused_messages, 1);
            add(&counters.reused_turns, self.turns - self.turns_counted);
        }
        if self.secured {
            add(&counters.tls_messages, 1);
        }
        self.settle_turns();
        add(&self.address.messages, 1);
        // Last: who waits for a number of messages then finds the rest counted too.
        add(&counters.messages, 1);
        self.shared.changed();
    }
}

impl Handler for SinkHandler<'_> {
    fn greeting(&mut self) -> Decision {
        match self.too_many {
            Some(text) => Decision::reply(421, text),
            None => self.ruled(Stage::Greeting),
        }
    }

    fn ehlo(&mut self, _name: &str) -> Decision {
        self.ruled(Stage::Ehlo)
    }

    fn starttls(&mut self) -> Decision {
        let rule = self.rule(Stage::StartTls, &[], None);
        self.handshake = match rule.map(|rule| &rule.action) {
            Some(Action::Garbage) => Handshake::Garbage,
            Some(Action::Stall) => Handshake::Stall,
            _ => Handshake::Usual,
        };
        self.counted(rule.map(Rule::decision).unwrap_or_default())
    }

    fn auth(&mut self, _user: &str) -> Decision {
        let decision = self.ruled(Stage::Auth);
        if decision.answer == Answer::Accept {
            add(&self.shared.counters.auth_sessions, 1);
        }
        decision
    }

    fn nonce(&mut self) -> String {
        // From the seed like everything else: a test receiver keeps no secrets.
        std::iter::repeat_with(|| self.rng.alphanumeric())
            .take(NONCE_BYTES)
            .collect()
    }

    fn mail(&mut self, _transaction: &Transaction) -> Decision {
        self.shared.counters.span.begin(Instant::now());
        let limit = self.shared.config.messages_per_connection_max;
        if limit.is_some_and(|limit| self.messages >= limit) {
            return self.counted(Decision::reply(
                421,
                "4.7.0 Too many messages in this session",
            ));
        }
        self.ruled(Stage::Mail)
    }

    fn rcpt(&mut self, _transaction: &Transaction, recipient: &str) -> Decision {
        if let Some(rule) = self.rule(Stage::Rcpt, &[], Some(recipient)) {
            return self.counted(rule.decision());
        }
        match self.shared.greylisted(recipient) {
            true => self.counted(Decision::reply(451, "4.7.1 Greylisted, try again later")),
            false => Decision::accept(),
        }
    }

    fn data(&mut self, transaction: &Transaction) -> Decision {
        self.ruled_for(Stage::Data, transaction)
    }

    fn body(&mut self, transaction: &Transaction) -> Decision {
        self.ruled_for(Stage::Body, transaction)
    }

    fn content(&mut self, slice: &[u8]) {
        let wanted = self.shared.store.content_bytes_wanted();
        if let Some(room) = wanted.checked_sub(self.kept.len()).filter(|&room| room > 0) {
            self.kept.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        if let Some(fingerprint) = &mut self.fingerprint {
            fingerprint.update(slice);
        }
    }

    fn dot(&mut self, transaction: &Transaction, content_bytes: u64) -> Decision {
        let (decision, is_taken) = self.at_dot(&transaction.recipients);
        if !is_taken {
            self.abandoned();
        } else if !self.take(transaction, content_bytes) {
            return self.not_kept();
        }
        decision
    }

    fn dot_each(&mut self, transaction: &Transaction, content_bytes: u64) -> Vec<Decision> {
        let recipients = &transaction.recipients;
        let mut decided: Vec<(Decision, bool)> = recipients
            .iter()
            .map(|recipient| self.at_dot(std::slice::from_ref(recipient)))
            .collect();
        let taken = recipients.iter().zip(&decided);
        let taken = Transaction {
            recipients: taken
                .filter(|(_, (_, is_taken))| *is_taken)
                .map(|(recipient, _)| recipient.clone())
                .collect(),
            ..transaction.clone()
        };
        if taken.recipients.is_empty() {
            self.abandoned();
        } else if !self.take(&taken, content_bytes) {
            for (decision, is_taken) in &mut decided {
                if *is_taken {
                    *decision = self.not_kept();
                }
            }
        }
        decided.into_iter().map(|(decision, _)| decision).collect()
    }

    fn rset(&mut self) -> Decision {
        self.ruled(Stage::Rset)
    }

    fn quit(&mut self) -> Decision {
        self.has_quit = true;
        self.ruled(Stage::Quit)
    }

    fn abandoned(&mut self) {
        self.kept.clear();
        if let Some(fingerprint) = &mut self.fingerprint {
            fingerprint.reset();
        }
    }

    fn violation(&mut self, violation: Violation) {
        add(&self.shared.counters.violations[violation.index()], 1);
        self.shared.changed();
    }
}

/// True if nothing at all is to happen before the greeting.
pub(super) fn is_plain(decision: &Decision) -> bool {
    decision.answer == Answer::Accept && decision.delay == Duration::ZERO
}
