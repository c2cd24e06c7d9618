//! A conversation: one session with one server, from its greeting to QUIT, without I/O.
//!
//! The driver asks [`Conversation::next`] and does what it says:
//!
//! - `Await(stage)`: write and clear [`Conversation::output`], then read one reply within the stage's time and hand it to
//!   [`Conversation::on_reply`]. While replies are left in the input buffer, go on handing them over before writing: so
//!   commands leave in as few flights as possible.
//! - `Ready`: [`Conversation::begin`] a transaction, or [`Conversation::quit`].
//! - `SendBody`: perhaps [`Conversation::begin_ahead`]; then write, in one go, the output, the stuffed content, its final
//!   dot (`dot::end_of`) and [`Conversation::output_after_dot`]; then [`Conversation::body_sent`].
//! - `Done`: the ends of the oldest transaction begun and not reported yet.
//! - `Closed`: close the connection.
//!
//! Whatever goes wrong is told by [`Conversation::on_lost`] or [`Conversation::on_garbled`]; bytes that are left when no
//! reply is due are `Garbled::Surplus`. If the connection fails while the body is written, `body_sent` comes first if the
//! dot's last byte was handed to the system, and not otherwise: that alone decides between in doubt and deferred.
//!
//! INVARIANTS: at most two transactions are begun and not ended, at most one of them has had its dot written; each
//! recipient of each is reported exactly once; after `Closed` nothing is written. Methods called out of turn panic, as
//! each says: that is the driver's bug, no peer can cause it.

use std::collections::VecDeque;

use super::capabilities::Capabilities;
use super::command::{self, BadCommand, Command};
use super::meaning::{self, Failure, Lost, Meaning};
use super::pipeline::{Awaited, Pipeline, Pipelining};
use super::reply::{Garbled, Reply};
use super::session::{Opened, Opening};
use super::transaction::{Mail, Step, Transaction, TransactionEnd, verdict_of};
use crate::mail::{Enhanced, Stage, Verdict};

/// How a conversation is to be held.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our name for EHLO: a full domain name or an address literal.
    pub hello: String,
    /// How far to run ahead, if the server offers PIPELINING at all.
    pub level: Pipelining,
    /// The most recipients of one transaction; the server may lower it.
    pub recipients_max: usize,
}

/// What the driver does next.
#[derive(Debug)]
pub enum Next {
    /// Write the output, and read the reply to this stage.
    Await(Stage),
    /// The session is open and nothing is under way.
    Ready,
    /// 354 was read: send the content.
    SendBody,
    /// A transaction is over.
    Done(TransactionEnd),
    /// The session is over; why, unless we said QUIT ourselves. If no transaction was begun, the verdict holds for the
    /// mail that was waiting.
    Closed(Option<Verdict>),
}

/// What is under way.
#[derive(Debug)]
enum State {
    Opening(Opening),
    Idle,
    Transaction,
    Quitting,
    Closed(Option<Verdict>),
}

/// One session with one server.
#[derive(Debug)]
pub struct Conversation {
    hello: String,
    state: State,
    pipeline: Pipeline,
    capabilities: Capabilities,
    recipients_max: usize,
    /// The transaction under way.
    current: Transaction,
    /// The next one, whose commands leave with the dot of the current one.
    ahead: Option<Transaction>,
    /// A transaction's memory while nothing is ahead.
    spare: Option<Transaction>,
    ended: VecDeque<TransactionEnd>,
    transactions_begun: u32,
    messages_accepted: u32,
    reset_needed: bool,
    pipelining_suspect: bool,
}

impl Conversation {
    /// A conversation over a connection just opened. The name for EHLO may be one that cannot be said.
    pub fn new(settings: Settings) -> Result<Conversation, BadCommand> {
        command::check_hello(&settings.hello)?;
        Ok(Conversation {
            hello: settings.hello,
            state: State::Opening(Opening::new()),
            pipeline: Pipeline::new(settings.level),
            capabilities: Capabilities::default(),
            recipients_max: settings.recipients_max.max(1),
            current: Transaction::new(),
            ahead: None,
            spare: None,
            ended: VecDeque::new(),
            transactions_begun: 0,
            messages_accepted: 0,
            reset_needed: false,
            pipelining_suspect: false,
        })
    }

    /// What to do next. `Done` is reported once; everything else stays until something happens.
    #[expect(
        clippy::should_implement_trait,
        reason = "it is no iterator: it says the same again until something happens"
    )]
    pub fn next(&mut self) -> Next {
        if let Some(end) = self.ended.pop_front() {
            return Next::Done(end);
        }
        match &self.state {
            State::Closed(why) => Next::Closed(why.clone()),
            State::Idle => Next::Ready,
            _ if self.pipeline.is_body_due() => Next::SendBody,
            _ => Next::Await(self.awaited().stage()),
        }
    }

    /// What is to be written before the next reply is waited for. The driver clears what it has written.
    pub fn output(&mut self) -> &mut Vec<u8> {
        self.pipeline.output()
    }

    /// At `SendBody`: what is to be written behind the final dot.
    pub fn output_after_dot(&self) -> &[u8] {
        self.pipeline.output_after_dot()
    }

    /// Begins a transaction.
    ///
    /// # Panics
    /// Unless [`Conversation::next`] says `Ready`.
    pub fn begin<R: AsRef<str>>(&mut self, mail: &Mail<'_, R>) {
        assert!(
            matches!(self.state, State::Idle),
            "begin() needs a session that is ready"
        );
        self.current.prepare(
            mail,
            &self.capabilities,
            self.recipients_max,
            self.reset_needed,
        );
        self.transactions_begun += u32::from(self.current.says_anything());
        self.state = State::Transaction;
        self.advance();
    }

    /// Gives the next transaction ahead: its commands leave with the final dot of the one whose body is due. False if
    /// that cannot be (level, a limit of the server, one given already); the mail is then begun later as usual.
    pub fn begin_ahead<R: AsRef<str>>(&mut self, mail: &Mail<'_, R>) -> bool {
        let possible = self.pipeline.level() == Pipelining::Cross
            && self.pipeline.is_body_due()
            && self.ahead.is_none()
            && !self.is_used_up();
        if !possible {
            return false;
        }
        let mut ahead = self.spare.take().unwrap_or_else(Transaction::new);
        // RFC 5321 4.1.1.4: the dot clears the server's buffers, whatever it is answered. No RSET is needed.
        ahead.prepare(mail, &self.capabilities, self.recipients_max, false);
        ahead.give_ahead();
        self.transactions_begun += u32::from(ahead.says_anything());
        ahead.pump(&mut self.pipeline);
        self.ahead = Some(ahead);
        true
    }

    /// The content and its final dot were written, and [`Conversation::output_after_dot`] behind them.
    ///
    /// # Panics
    /// Unless [`Conversation::next`] says `SendBody`.
    pub fn body_sent(&mut self) {
        assert!(
            self.pipeline.is_body_due(),
            "body_sent() needs a body that is due"
        );
        self.pipeline.close_body();
        self.current.body_sent();
    }

    /// Takes the next reply. At `SendBody` that is an early reply to the content: it counts, and the session ends.
    pub fn on_reply(&mut self, reply: &Reply) {
        if matches!(self.state, State::Closed(_)) {
            return;
        }
        let awaited = match self.pipeline.answered() {
            Some(awaited) => awaited,
            None if self.pipeline.is_body_due() => Awaited::Body,
            None => return self.on_unasked(reply),
        };
        match &mut self.state {
            State::Opening(opening) => {
                match opening.on_reply(awaited, reply, &self.hello, &mut self.pipeline) {
                    Opened::NotYet => {}
                    Opened::Ready(capabilities) => self.open(capabilities),
                    Opened::Failed(why) => self.close(Some(why)),
                }
            }
            State::Transaction => self.on_transaction_reply(awaited, reply),
            State::Quitting => self.close(None),
            State::Idle | State::Closed(_) => {}
        }
    }

    /// The connection failed; `detail` is what the system says of it, perhaps "".
    pub fn on_lost(&mut self, lost: Lost, detail: &str) {
        let awaited = self.awaited();
        let context = self.current.context(self.messages_accepted);
        let failure = meaning::of_loss(awaited, lost, context);
        let mut text = format!("{} {}", lost.describe(), waiting_for(awaited));
        if !detail.is_empty() {
            text.push_str(": ");
            text.push_str(detail);
        }
        // RFC 3463: x.4.2 is a bad connection, x.4.1 no answer from the host.
        let detail = if lost == Lost::TimedOut { 1 } else { 2 };
        let suspicious = lost != Lost::TimedOut;
        self.fail(failure, Enhanced::new(4, 4, detail), &text, suspicious);
    }

    /// What came is no reply, or a reply too many.
    pub fn on_garbled(&mut self, garbled: Garbled) {
        let awaited = self.awaited();
        let failure = meaning::of_garbled(awaited);
        let text = format!("protocol error: {garbled} ({})", waiting_for(awaited));
        self.fail(failure, Enhanced::new(4, 5, 0), &text, true);
    }

    /// Gives the session up (shutdown, content that cannot be read any more): the transaction under way ends with `why`,
    /// what was given ahead is not tried. Behind a final dot that is not answered the recipients are in doubt all the same.
    pub fn abandon(&mut self, why: Verdict) {
        let why = match self.awaited() {
            Awaited::Dot => {
                let in_doubt = meaning::of_garbled(Awaited::Dot);
                Verdict {
                    status: in_doubt.status,
                    scope: in_doubt.scope,
                    stage: Stage::Dot,
                    ..why
                }
            }
            _ => why,
        };
        if !matches!(self.state, State::Closed(_)) {
            self.close(Some(why));
        }
    }

    /// Says QUIT. Its reply may be awaited or not.
    ///
    /// # Panics
    /// Unless [`Conversation::next`] says `Ready`.
    pub fn quit(&mut self) {
        assert!(
            matches!(self.state, State::Idle),
            "quit() needs a session that is ready"
        );
        let mut line = Vec::new();
        command::write(Command::Quit, &mut line).expect("QUIT has no argument");
        self.pipeline.write(&line, Awaited::Quit);
        self.state = State::Quitting;
    }

    /// True if another transaction can be begun, now or after the one under way.
    pub fn may_reuse(&self) -> bool {
        !matches!(self.state, State::Closed(_) | State::Quitting) && !self.is_used_up()
    }

    /// What the server offers; nothing before the session is open.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// How far the conversation runs ahead; what EHLO allows once the session is open.
    pub fn level(&self) -> Pipelining {
        self.pipeline.level()
    }

    /// Runs ahead this far from the next command on, if the server offers PIPELINING (a lock-step session stays one).
    pub fn set_level(&mut self, level: Pipelining) {
        let opened = !matches!(self.state, State::Opening(_));
        if !(opened && self.pipeline.level() == Pipelining::None) {
            self.pipeline.set_level(level);
        }
    }

    /// The most recipients a transaction of this session can have, as far as is known.
    pub fn recipients_max(&self) -> usize {
        self.recipients_max
    }

    /// Messages that the server has taken in this session.
    pub fn messages_accepted(&self) -> u32 {
        self.messages_accepted
    }

    /// Commands written minus replies read.
    pub fn unanswered(&self) -> usize {
        self.pipeline.unanswered()
    }

    /// True if something went wrong that commands behind a dot may have caused: next time, run less far ahead.
    pub fn is_pipelining_suspect(&self) -> bool {
        self.pipelining_suspect
    }

    /// What the next reply answers. Where none is due, the next command would be MAIL.
    fn awaited(&self) -> Awaited {
        if self.pipeline.is_body_due() {
            return Awaited::Body;
        }
        self.pipeline.awaited().unwrap_or(Awaited::Mail)
    }

    /// RFC 9422 MAILMAX: the server takes no more transactions in this session.
    fn is_used_up(&self) -> bool {
        let mail_max = self.capabilities.limits.mail_max;
        mail_max.is_some_and(|max| self.transactions_begun >= max)
    }

    fn open(&mut self, capabilities: Capabilities) {
        self.capabilities = capabilities;
        if let Some(rcpt_max) = capabilities.limits.rcpt_max {
            self.recipients_max = self.recipients_max.min(rcpt_max as usize);
        }
        self.state = State::Idle;
    }

    fn on_transaction_reply(&mut self, awaited: Awaited, reply: &Reply) {
        self.pipelining_suspect |= self.is_risky()
            && match awaited {
                // A 554 to the dot is about the content.
                Awaited::Dot => matches!(reply.code, 421 | 503),
                _ => matches!(reply.code, 421 | 503 | 554),
            };
        if awaited == Awaited::Rset {
            // If it was refused the session ends anyway.
            self.reset_needed = false;
        }
        let step =
            self.current
                .on_reply(awaited, reply, self.messages_accepted, &mut self.pipeline);
        match step {
            Step::Going => {}
            Step::Over => {
                if awaited == Awaited::Dot && reply.code / 100 == 2 {
                    self.messages_accepted += 1;
                }
                self.finish();
                self.advance();
            }
            Step::Ends(why) => self.close(Some(why)),
        }
    }

    /// A reply although none is due: a server that shuts down says 421 (RFC 5321 3.8), anything else is out of step. A
    /// command that has not left yet is none the wiser: MAIL stands for whatever comes next.
    fn on_unasked(&mut self, reply: &Reply) {
        let context = self.current.context(self.messages_accepted);
        let meaning = meaning::of_reply(Awaited::Mail, reply.code, reply.enhanced, context);
        match meaning {
            Meaning::Ends(failure) => {
                self.close(Some(verdict_of(failure, Awaited::Mail, reply)));
            }
            _ => self.on_garbled(Garbled::Surplus),
        }
    }

    /// Writes what can be written of the current transaction, and ends those that have nothing to write.
    fn advance(&mut self) {
        while matches!(self.state, State::Transaction) {
            self.current.pump(&mut self.pipeline);
            if !self.current.is_exhausted(&self.pipeline) {
                return;
            }
            self.finish();
        }
    }

    /// The current transaction is over and the session goes on, with what was given ahead if anything was.
    fn finish(&mut self) {
        self.reset_needed |= self.current.needs_reset();
        if let Some(shown) = self.current.recipients_max_shown() {
            self.recipients_max = self.recipients_max.min(shown.max(1));
        }
        let ends = self.current.end(None);
        match self.ahead.take() {
            Some(ahead) => self.spare = Some(std::mem::replace(&mut self.current, ahead)),
            None => self.state = State::Idle,
        }
        let reusable = self.may_reuse();
        self.ended.push_back(TransactionEnd { ends, reusable });
    }

    /// True while a trouble may come from commands that left with a dot.
    fn is_risky(&self) -> bool {
        self.ahead.is_some() || self.current.proves_pipelining()
    }

    /// The session fails without a reply to blame.
    fn fail(&mut self, failure: Failure, enhanced: Enhanced, text: &str, suspicious: bool) {
        match self.state {
            State::Closed(_) => return,
            // We had nothing more to say, and the server neither.
            State::Quitting => return self.close(None),
            _ => {}
        }
        self.pipelining_suspect |= suspicious && self.is_risky();
        let stage = self.awaited().stage();
        let verdict = Verdict::own(failure.status, failure.scope, stage, enhanced, text);
        self.close(Some(verdict));
    }

    /// Ends the session and what is under way: the current transaction with the verdict, the one given ahead untried.
    fn close(&mut self, why: Option<Verdict>) {
        if matches!(self.state, State::Transaction) {
            let reusable = false;
            let ends = self.current.end(why.as_ref());
            self.ended.push_back(TransactionEnd { ends, reusable });
            if let Some(mut ahead) = self.ahead.take() {
                let ends = ahead.end(None);
                self.ended.push_back(TransactionEnd { ends, reusable });
            }
        }
        self.pipeline.shut();
        self.state = State::Closed(why);
    }
}

/// For people: what was being done when a connection failed.
fn waiting_for(awaited: Awaited) -> &'static str {
    match awaited {
        Awaited::Greeting => "while the greeting was due",
        Awaited::Ehlo => "while the reply to EHLO was due",
        Awaited::Helo => "while the reply to HELO was due",
        Awaited::Rset => "while the reply to RSET was due",
        Awaited::Mail => "while the reply to MAIL FROM was due",
        Awaited::Rcpt(_) => "while the reply to RCPT TO was due",
        Awaited::Data => "while the reply to DATA was due",
        Awaited::Body => "while the content was being sent",
        Awaited::Dot => {
            "while the reply to the final dot was due: the message may have been delivered"
        }
        Awaited::LoneDot => "while the reply to a dot for nobody was due",
        Awaited::Quit => "while the reply to QUIT was due",
    }
}

#[cfg(test)]
mod tests;
