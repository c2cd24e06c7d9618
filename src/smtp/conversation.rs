//! A conversation: one session with one server, from its greeting to QUIT, without I/O.
//!
//! The driver asks [`Conversation::next`] and does what it says:
//!
//! - `Await(stage)`: write and clear [`Conversation::output`], then read one reply within the stage's time and hand it to
//!   [`Conversation::on_reply`]. While replies are left in the input buffer, go on handing them over before writing: so
//!   commands leave in as few flights as possible.
//! - `Ready`: [`Conversation::begin`] a transaction, or [`Conversation::quit`].
//! - `StartTls`: if a byte is left in the input buffer, [`Conversation::on_garbled`] with `Surplus` - it came in the clear
//!   and would be taken for a reply inside TLS (CVE-2021-38371). Else make the handshake, then
//!   [`Conversation::tls_started`] or [`Conversation::tls_failed`].
//! - `SendBody(Framing::Dot)`: perhaps [`Conversation::begin_ahead`]; then write, in one go, the output, the stuffed
//!   content, its final dot (`dot::end_of`) and [`Conversation::output_after_dot`]; then [`Conversation::body_sent`]. If
//!   bytes come before the dot has left, keep it back and hand them over.
//! - `SendBody(Framing::Bdat)`: write, in one go, the output and the content as it is, exactly [`Mail::size`] octets of it;
//!   then `body_sent`.
//! - `Done`: the ends of the oldest transaction begun and not reported yet.
//! - `Closed`: close the connection.
//!
//! Whatever goes wrong is told by [`Conversation::on_lost`] or [`Conversation::on_garbled`]; bytes that are left when no
//! reply is due are `Garbled::Surplus`, inside TLS before the first MAIL as anywhere (they may be another's: CVE-2009-3555).
//! If the connection fails while the body is written, `body_sent` comes first if its last byte (the dot's, if there is one)
//! was handed to the system, and not otherwise: that alone decides between in doubt and deferred. Replies found afterwards
//! are handed over, then the loss is told.
//!
//! INVARIANTS: at most two transactions are begun and not ended, at most one of them has had its body written; each
//! recipient of each is reported exactly once; after `Closed` nothing is written. Methods called out of turn panic, as
//! each says: that is the driver's bug, no peer can cause it.

use std::collections::VecDeque;

use super::capabilities::Capabilities;
use super::command::{self, BadCommand, Command};
use super::domains::Domains;
use super::meaning::{self, Meaning};
use super::pipeline::{Awaited, Framing, Pipeline, Pipelining};
use super::reply::{Garbled, Reply};
use super::session::{Opened, Opening};
use super::settings::{Protocol, Settings};
use super::transaction::{Mail, Step, Terms, Transaction, TransactionEnd, verdict_of};
use crate::mail::{Stage, Verdict};

mod ending;

/// Messages accepted in a session after which 421 to a MAIL behind a dot is a limit and no fault of running ahead.
const PROVEN_AHEAD: u32 = 3;

/// What the driver does next.
#[derive(Debug)]
pub enum Next {
    /// Write the output, and read the reply to this stage.
    Await(Stage),
    /// The session is open and nothing is under way.
    Ready,
    /// The server is ready for the TLS handshake.
    StartTls,
    /// Send the content, in this form.
    SendBody(Framing),
    /// A transaction is over.
    Done(TransactionEnd),
    /// The session is over; why, unless we ended it ourselves (QUIT, recall). If no transaction was begun, the verdict holds
    /// for the mail that was waiting.
    Closed(Option<Verdict>),
}

/// What is under way.
#[derive(Debug)]
enum State {
    Opening,
    /// Between STARTTLS's 220 and the handshake's end.
    Handshake,
    Idle,
    Transaction,
    Quitting,
    Closed(Option<Verdict>),
}

/// One session with one server.
#[derive(Debug)]
pub struct Conversation {
    opening: Opening,
    protocol: Protocol,
    state: State,
    pipeline: Pipeline,
    capabilities: Capabilities,
    recipients_max: usize,
    domains: Domains,
    bdat_bytes_max: u64,
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
    chunking_suspect: bool,
}

impl Conversation {
    /// A conversation over a connection just opened. The name for EHLO may be one that cannot be said.
    pub fn new(settings: Settings) -> Result<Conversation, BadCommand> {
        command::check_hello(&settings.hello)?;
        Ok(Conversation {
            opening: Opening::new(&settings),
            protocol: settings.protocol,
            state: State::Opening,
            pipeline: Pipeline::new(settings.level),
            capabilities: Capabilities::default(),
            recipients_max: settings.recipients_max.max(1),
            domains: Domains::default(),
            bdat_bytes_max: settings.bdat_bytes_max,
            current: Transaction::new(),
            ahead: None,
            spare: None,
            ended: VecDeque::new(),
            transactions_begun: 0,
            messages_accepted: 0,
            reset_needed: false,
            pipelining_suspect: false,
            chunking_suspect: false,
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
            State::Handshake => Next::StartTls,
            _ => match self.pipeline.body_due() {
                Some(framing) => Next::SendBody(framing),
                None => Next::Await(self.awaited().stage()),
            },
        }
    }

    /// How the content is framed, while it is to be sent: what `SendBody` says, without asking what to do next.
    pub fn body_due(&self) -> Option<Framing> {
        self.pipeline.body_due()
    }

    /// What is to be written before the next reply is waited for. The driver clears what it has written.
    pub fn output(&mut self) -> &mut Vec<u8> {
        self.pipeline.output()
    }

    /// At `SendBody`: what is to be written behind the final dot.
    pub fn output_after_dot(&self) -> &[u8] {
        self.pipeline.output_after_dot()
    }

    /// The handshake succeeded, and a certificate that had to fit did: what the server offers is asked again.
    ///
    /// # Panics
    /// Unless [`Conversation::next`] says `StartTls`.
    pub fn tls_started(&mut self) {
        assert!(
            matches!(self.state, State::Handshake),
            "tls_started() needs a handshake that is due"
        );
        self.state = State::Opening;
        self.opening.tls_started(&mut self.pipeline);
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
        let bdat_bytes_max = if self.may_use_bdat() {
            self.bdat_bytes_max
        } else {
            0
        };
        let terms = Terms {
            capabilities: &self.capabilities,
            protocol: self.protocol,
            recipients_max: self.recipients_max,
            domains: &mut self.domains,
            reset: self.reset_needed,
            bdat_bytes_max,
        };
        self.current.prepare(mail, terms);
        self.transactions_begun += u32::from(self.current.says_anything());
        self.state = State::Transaction;
        self.advance();
    }

    /// Gives the next transaction ahead: its commands leave with the final dot of the one whose body is due. False if
    /// that cannot be (level, a limit of the server, one given already); the mail is then begun later as usual.
    pub fn begin_ahead<R: AsRef<str>>(&mut self, mail: &Mail<'_, R>) -> bool {
        let possible = self.pipeline.level() == Pipelining::Cross
            && self.pipeline.body_due() == Some(Framing::Dot)
            && self.ahead.is_none()
            && !self.is_used_up();
        if !possible {
            return false;
        }
        let mut ahead = self.spare.take().unwrap_or_else(Transaction::new);
        // RFC 5321 4.1.1.4: the dot clears the server's buffers, whatever it is answered. No RSET is needed.
        let terms = Terms {
            capabilities: &self.capabilities,
            protocol: self.protocol,
            recipients_max: self.recipients_max,
            domains: &mut self.domains,
            reset: false,
            bdat_bytes_max: 0,
        };
        ahead.prepare(mail, terms);
        ahead.give_ahead();
        self.transactions_begun += u32::from(ahead.says_anything());
        ahead.pump(&mut self.pipeline);
        self.ahead = Some(ahead);
        true
    }

    /// The content and its final dot were written, and [`Conversation::output_after_dot`] behind them; or the output and
    /// the content behind its BDAT.
    ///
    /// # Panics
    /// Unless [`Conversation::next`] says `SendBody`.
    pub fn body_sent(&mut self) {
        assert!(
            self.pipeline.body_due().is_some(),
            "body_sent() needs a body that is due"
        );
        self.current.body_sent(&mut self.pipeline);
    }

    /// Takes the next reply. At `SendBody` a reply to the content comes early: it counts, and the session ends. One that
    /// the driver reads only after `body_sent` counts as the reply to the end of the content: nothing in it tells.
    pub fn on_reply(&mut self, reply: &Reply) {
        match self.state {
            State::Closed(_) => return,
            State::Handshake => return self.on_garbled(Garbled::Surplus),
            _ => {}
        }
        let awaited = match self.pipeline.answered() {
            Some(awaited) => awaited,
            // While output is left here, no content has left either.
            None if self.pipeline.body_due().is_some() && self.pipeline.output().is_empty() => {
                Awaited::Body
            }
            None => return self.on_unasked(reply),
        };
        match self.state {
            State::Opening => match self.opening.on_reply(awaited, reply, &mut self.pipeline) {
                Opened::NotYet => {}
                Opened::StartTls => self.state = State::Handshake,
                Opened::Ready(capabilities) => self.open(capabilities),
                Opened::Failed(why) => self.close(Some(why)),
            },
            State::Transaction => self.on_transaction_reply(awaited, reply),
            State::Quitting => self.close(None),
            State::Idle | State::Handshake | State::Closed(_) => {}
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
        !matches!(self.state, State::Closed(_) | State::Quitting)
            && !self.is_used_up()
            && !self.domains.is_exhausted()
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
        let opened = !matches!(self.state, State::Opening | State::Handshake);
        if !(opened && self.pipeline.level() == Pipelining::None) {
            self.pipeline.set_level(level);
            self.keep_within_protocol();
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

    /// True if a command has left that is not answered.
    pub fn is_reply_due(&self) -> bool {
        self.pipeline.is_reply_due()
    }

    /// Commands written minus replies read.
    pub fn unanswered(&self) -> usize {
        self.pipeline.unanswered()
    }

    /// True if something went wrong that commands behind a dot may have caused: next time, run less far ahead.
    pub fn is_pipelining_suspect(&self) -> bool {
        self.pipelining_suspect
    }

    /// True if BDAT went wrong in a way that is not the mail's fault: next time, use DATA.
    pub fn is_chunking_suspect(&self) -> bool {
        self.chunking_suspect
    }

    /// True inside TLS: by STARTTLS, or from the first byte.
    pub fn is_in_tls(&self) -> bool {
        self.opening.is_in_tls()
    }

    /// What the next reply answers. Where none is due, the next command would be MAIL.
    fn awaited(&self) -> Awaited {
        if self.pipeline.body_due().is_some() {
            return Awaited::Body;
        }
        let idle = match self.state {
            State::Handshake => Awaited::StartTls,
            _ => Awaited::Mail,
        };
        self.pipeline.awaited().unwrap_or(idle)
    }

    /// True if content may leave by BDAT. Never behind a RSET that may still be refused: the server would take the
    /// content for the recipients of the transaction before.
    fn may_use_bdat(&self) -> bool {
        self.capabilities.chunking
            && self.protocol == Protocol::Smtp
            && self.pipeline.level() != Pipelining::None
            && !self.reset_needed
            && !self.chunking_suspect
    }

    /// RFC 2033 gives each recipient a reply behind the dot: commands of the next transaction would wait behind a number
    /// of replies that is not known when they leave. So LMTP never goes across messages.
    fn keep_within_protocol(&mut self) {
        if self.protocol == Protocol::Lmtp {
            let level = self.pipeline.level().min(Pipelining::Classic);
            self.pipeline.set_level(level);
        }
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
        self.domains = Domains::new(capabilities.limits.rcpt_domain_max);
        self.keep_within_protocol();
        self.state = State::Idle;
    }

    fn on_transaction_reply(&mut self, awaited: Awaited, reply: &Reply) {
        self.pipelining_suspect |= self.is_risky()
            && match awaited {
                // A 554 to the content is about the content.
                Awaited::Dot | Awaited::Body => matches!(reply.code, 421 | 503),
                // Commands behind a dot were answered well before in this session: this is its limit.
                Awaited::Mail if reply.code == 421 => self.messages_accepted < PROVEN_AHEAD,
                _ => matches!(reply.code, 421 | 503 | 554),
            };
        self.chunking_suspect |=
            matches!(awaited, Awaited::Bdat | Awaited::Body) && self.current.is_form_refused(reply);
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
                self.messages_accepted += u32::from(self.current.was_taken());
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
        let is_ahead = self.ahead.as_ref().is_some_and(Transaction::says_anything);
        is_ahead || self.current.proves_pipelining()
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

#[cfg(test)]
mod tests;
