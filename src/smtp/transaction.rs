//! One transaction: MAIL, its RCPTs, DATA, the content, the final dot (RFC 5321 3.3), and what becomes of each recipient.
//!
//! All commands are built and checked when the transaction is prepared; `pump` then writes as many as the
//! pipeline has room for. What cannot be sent to this server - too large, 8-bit without 8BITMIME - is settled before a
//! byte is written.
//!
//! Where it is allowed the content leaves by BDAT (RFC 3030) in the flight of the commands; its reply comes behind theirs.
//! To an LMTP server (RFC 2033) the final dot is answered once for each recipient that was accepted.
//!
//! Allowed moves: `Commands -> Body -> Sent`, `Commands -> LoneDot`, and from each to the end.
//!
//! INVARIANTS: each recipient ends in exactly one way; the body is asked for only after 354 with a recipient accepted, or
//! by BDAT, where nobody has been refused yet; a lone dot is written only if the server has accepted nobody, so it can
//! never deliver an empty message; replies to commands that followed a refused MAIL are echoes of that refusal, and settle
//! nothing (RFC 2920 3.1) - but where the server takes content for those it accepted all the same, they are delivered.
//!
//! Limit: a server that answers a command of a BDAT flight twice shifts the replies, and all of them are alike: its
//! answer to a recipient may then pass for that to the content. With DATA such a shift is always noticed.

mod fate;
mod refusal;
mod script;

pub(super) use script::Terms;

use super::command::{self, Command};
use super::dsn::Dsn;
use super::meaning::{self, Context, Failure, Meaning};
use super::pipeline::{Awaited, Pipeline};
use super::reply::Reply;
use super::settings::Protocol;
use crate::mail::{Status, Verdict};

/// What is to be sent: an envelope's addresses in the form they have on the wire, and what must be known of the content.
#[derive(Clone, Copy, Debug)]
pub struct Mail<'a, R> {
    /// `local-part@domain`, or "" for the null reverse-path.
    pub reverse_path: &'a str,
    /// Each `local-part@domain`.
    pub recipients: &'a [R],
    /// Octets of the content with its CRLFs, before dot-stuffing.
    pub size: u64,
    /// The content holds bytes of 0x80 or above.
    pub eight_bit: bool,
    /// An address or a header field needs SMTPUTF8.
    pub utf8: bool,
    /// Notifications to be asked for, where the server offers DSN.
    pub dsn: Option<&'a Dsn>,
}

/// What became of one recipient in a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecipientEnd {
    /// Delivered, deferred, refused or in doubt.
    Verdict(Verdict),
    /// The transaction was full: to be sent in another one, of this session if it is still usable.
    Again,
    /// It was given ahead, and the session ended with the message before it. As if it had never been taken.
    NotTried,
}

/// What became of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransactionEnd {
    /// One end per recipient, in the order of [`Mail::recipients`].
    pub ends: Vec<RecipientEnd>,
    /// The session can carry another transaction.
    pub reusable: bool,
}

/// Where one recipient stands.
#[derive(Debug)]
enum Standing {
    /// Not answered yet.
    Open,
    /// Accepted; its fate is that of the message.
    Accepted,
    /// For another transaction.
    Again,
    /// Settled by itself.
    Settled(Verdict),
}

/// How far a transaction has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Commands are being written or answered.
    Commands,
    /// 354 was read, or BDAT is written; the content is to be sent.
    Body,
    /// The content is written to its end, and the end is not answered.
    Sent,
    /// A dot for nobody is written and not answered.
    LoneDot,
    /// Its ends were taken.
    Ended,
}

/// What a reply led to.
#[derive(Debug)]
pub(super) enum Step {
    /// Further replies are due, or the body.
    Going,
    /// The transaction is over and the session goes on.
    Over,
    /// The session is over, and with it the transaction. What it means for those who are not settled.
    Ends(Verdict),
}

/// A transaction; its memory is used again for the next.
#[derive(Debug)]
pub(super) struct Transaction {
    /// All commands, one behind the other.
    script: Vec<u8>,
    /// What each command of the script is, and where it ends.
    commands: Vec<(Awaited, usize)>,
    /// How many commands were written or passed over.
    pumped: usize,
    protocol: Protocol,
    /// The content leaves by BDAT, so many octets.
    chunk: Option<u64>,
    standings: Vec<Standing>,
    phase: Phase,
    /// MAIL or DATA failed: the verdict of everybody who is not settled otherwise.
    failure: Option<Verdict>,
    mail_answered: bool,
    /// MAIL was written: without a dot behind it, RSET is due.
    mail_written: bool,
    /// BDAT was refused: RSET is due (RFC 3030 section 2).
    chunk_refused: bool,
    /// The server has taken the content for somebody.
    taken: bool,
    open_rcpts: usize,
    accepted: usize,
    /// A RCPT was accepted although MAIL was refused: the server's transaction has a recipient that ours has not.
    echo_accepted: bool,
    /// Recipients accepted when the server said that there were too many, unless it took others later.
    full_at: Option<usize>,
    /// Its first commands left with the dot of the message before it.
    given_ahead: bool,
}

impl Transaction {
    /// An empty one, to be prepared.
    pub(super) fn new() -> Transaction {
        Transaction {
            script: Vec::new(),
            commands: Vec::new(),
            pumped: 0,
            protocol: Protocol::Smtp,
            chunk: None,
            standings: Vec::new(),
            phase: Phase::Commands,
            failure: None,
            mail_answered: false,
            mail_written: false,
            chunk_refused: false,
            taken: false,
            open_rcpts: 0,
            accepted: 0,
            echo_accepted: false,
            full_at: None,
            given_ahead: false,
        }
    }

    /// Marks that the first commands leave with the final dot of the message before.
    pub(super) fn give_ahead(&mut self) {
        self.given_ahead = true;
    }

    /// True if there is anything to say to the server; if not, it was settled without it.
    pub(super) fn says_anything(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Writes commands as far as there is room.
    pub(super) fn pump(&mut self, pipeline: &mut Pipeline) {
        while let Some(&(awaited, end)) = self.commands.get(self.pumped) {
            if !self.pass_over(awaited) {
                let start = self.pumped.checked_sub(1).map_or(0, |i| self.commands[i].1);
                if !pipeline.has_room(end - start) {
                    return;
                }
                pipeline.write(&self.script[start..end], awaited);
                self.mail_written |= awaited == Awaited::Mail;
            }
            self.pumped += 1;
        }
        if let (Some(octets), Phase::Commands) = (self.chunk, self.phase) {
            let mut line = Vec::new();
            command::write(Command::BdatLast(octets), &mut line).expect("a number can be said");
            pipeline.open_chunk(&line);
            self.phase = Phase::Body;
        }
    }

    /// Takes the reply to `awaited`.
    pub(super) fn on_reply(
        &mut self,
        awaited: Awaited,
        reply: &Reply,
        messages_accepted: u32,
        pipeline: &mut Pipeline,
    ) -> Step {
        let context = self.context(messages_accepted);
        let meaning = meaning::of_answer(awaited, reply, context);
        self.mail_answered |= awaited == Awaited::Mail;
        if let Meaning::Ends(failure) = meaning {
            return Step::Ends(self.on_end_of_session(failure, awaited, reply));
        }
        match awaited {
            Awaited::Mail => {
                if let Meaning::Failed(failure) = meaning {
                    self.failure = Some(verdict_of(failure, awaited, reply));
                }
            }
            Awaited::Rcpt(i) => self.on_rcpt(i, meaning, reply),
            Awaited::Data => {
                if let Some(ends) = self.on_data(meaning, reply, pipeline) {
                    return Step::Ends(ends);
                }
            }
            Awaited::Dot => {
                let verdict = self.fate(meaning, awaited, reply);
                self.failure = Some(verdict);
                return Step::Over;
            }
            Awaited::DotFor(i) => {
                self.standings[i] = Standing::Settled(self.fate(meaning, awaited, reply));
                if pipeline.unanswered() == 0 {
                    return Step::Over;
                }
            }
            Awaited::Bdat => {
                self.on_bdat(meaning, reply);
                return Step::Over;
            }
            Awaited::LoneDot => return Step::Over,
            // RSET went well; nothing else is awaited within a transaction.
            _ => {}
        }
        self.pump(pipeline);
        if self.is_exhausted(pipeline) {
            Step::Over
        } else {
            Step::Going
        }
    }

    /// True if no command is left, no reply is due and no content: there is nothing more to do.
    pub(super) fn is_exhausted(&self, pipeline: &Pipeline) -> bool {
        self.phase == Phase::Commands
            && self.pumped == self.commands.len()
            && pipeline.unanswered() == 0
    }

    /// The content was written to its end.
    pub(super) fn body_sent(&mut self, pipeline: &mut Pipeline) {
        self.phase = Phase::Sent;
        if self.chunk.is_some() {
            return pipeline.close_body([Awaited::Bdat]);
        }
        match self.protocol {
            Protocol::Smtp => pipeline.close_body([Awaited::Dot]),
            // RFC 2033 4.2: one reply for each accepted recipient, in the order of their RCPTs.
            Protocol::Lmtp => {
                let standings = self.standings.iter().enumerate();
                pipeline.close_body(
                    standings
                        .filter(|(_, standing)| matches!(standing, Standing::Accepted))
                        .map(|(i, _)| Awaited::DotFor(i)),
                );
            }
        }
    }

    /// True if content has left by BDAT and is not answered.
    pub(super) fn is_chunk_open(&self) -> bool {
        self.chunk.is_some() && self.phase == Phase::Sent
    }

    /// True if `reply`, to content by BDAT, refuses not the content but the command.
    pub(super) fn is_form_refused(&self, reply: &Reply) -> bool {
        self.chunk.is_some()
            && (matches!(reply.code, 500 | 502)
                || (self.accepted > 0 && (501..=504).contains(&reply.code)))
    }

    /// True if the server has taken the content for somebody.
    pub(super) fn was_taken(&self) -> bool {
        self.taken
    }

    /// Both ends no longer agree on where they are. A refusal of MAIL then says nothing about content that is already
    /// there: it might have been another command's.
    pub(super) fn distrust(&mut self) {
        if self.phase == Phase::Sent {
            self.failure = None;
        }
    }

    /// What surrounds a reply now.
    pub(super) fn context(&self, messages_accepted: u32) -> Context {
        Context {
            messages_accepted,
            recipients_accepted: self.accepted,
            given_ahead: self.given_ahead,
            content_sent: self.phase == Phase::Sent,
            by_chunk: self.chunk.is_some(),
        }
    }

    /// True while it is open whether the server can bear commands behind a dot.
    pub(super) fn proves_pipelining(&self) -> bool {
        self.given_ahead && self.mail_written && !self.mail_answered
    }

    /// True if its first commands left ahead, and its content has not left.
    pub(super) fn is_recallable(&self) -> bool {
        self.given_ahead && matches!(self.phase, Phase::Commands | Phase::Body)
    }

    /// True if RSET is due before the next MAIL: MAIL was written, and nothing has ended what it began.
    pub(super) fn needs_reset(&self) -> bool {
        self.mail_written && (self.phase == Phase::Commands || self.chunk_refused)
    }

    /// How many recipients a transaction can have, if the server has shown it.
    pub(super) fn recipients_max_shown(&self) -> Option<usize> {
        self.full_at
    }

    /// The ends of all recipients. Those who are not settled get the failure of MAIL or DATA if there is one, else
    /// `rest`, else they count as not tried.
    pub(super) fn end(&mut self, rest: Option<&Verdict>) -> Vec<RecipientEnd> {
        self.phase = Phase::Ended;
        let failure = self.failure.take();
        // Content that left by BDAT for a recipient accepted although MAIL was refused: it may have been delivered.
        let doubt = rest.filter(|verdict| verdict.status == Status::InDoubt);
        let accepted = doubt.or(failure.as_ref()).or(rest);
        let open = failure.as_ref().or(rest);
        let of = |verdict: Option<&Verdict>| match verdict {
            Some(verdict) => RecipientEnd::Verdict(verdict.clone()),
            None => RecipientEnd::NotTried,
        };
        self.standings
            .drain(..)
            .map(|standing| match standing {
                Standing::Settled(verdict) => RecipientEnd::Verdict(verdict),
                Standing::Again => RecipientEnd::Again,
                Standing::Open => of(open),
                Standing::Accepted => of(accepted),
            })
            .collect()
    }

    /// True if `awaited`, next to be written, is pointless by now.
    fn pass_over(&mut self, awaited: Awaited) -> bool {
        match awaited {
            _ if self.failure.is_some() => true,
            Awaited::Rcpt(i) if self.full_at.is_some() => {
                self.standings[i] = Standing::Again;
                self.open_rcpts -= 1;
                true
            }
            Awaited::Data => self.open_rcpts == 0 && self.accepted == 0,
            _ => false,
        }
    }

    fn on_rcpt(&mut self, i: usize, meaning: Meaning, reply: &Reply) {
        self.open_rcpts -= 1;
        if self.failure.is_some() {
            self.echo_accepted |= meaning == Meaning::Positive;
            if meaning == Meaning::Positive && self.chunk.is_some() {
                self.accepted += 1;
                self.standings[i] = Standing::Accepted;
            }
            return;
        }
        self.standings[i] = match meaning {
            Meaning::Failed(failure) => {
                Standing::Settled(verdict_of(failure, Awaited::Rcpt(i), reply))
            }
            Meaning::TooManyRecipients => {
                self.full_at.get_or_insert(self.accepted);
                Standing::Again
            }
            _ => {
                self.accepted += 1;
                // It was not about the number of recipients, then.
                self.full_at = None;
                Standing::Accepted
            }
        };
    }

    /// The reply to DATA; a verdict if the session must end.
    fn on_data(
        &mut self,
        meaning: Meaning,
        reply: &Reply,
        pipeline: &mut Pipeline,
    ) -> Option<Verdict> {
        match meaning {
            Meaning::Positive if self.failure.is_none() && self.accepted > 0 => {
                self.phase = Phase::Body;
                pipeline.open_body();
            }
            // The server holds recipients of a MAIL that it refused. A lone dot would send them an empty message, RSET
            // would become content: leave. And RFC 2033 4.2 has no word on how a dot for nobody is answered.
            Meaning::Positive if self.echo_accepted || self.protocol == Protocol::Lmtp => {
                let failure = meaning::of_garbled(Awaited::Data, Context::default());
                return Some(verdict_of(failure, Awaited::Data, reply));
            }
            Meaning::Positive => {
                self.phase = Phase::LoneDot;
                pipeline.write(b".\r\n", Awaited::LoneDot);
            }
            Meaning::Failed(failure) if self.failure.is_none() && self.accepted > 0 => {
                self.failure = Some(verdict_of(failure, Awaited::Data, reply));
            }
            // An echo: there was nobody to send content to.
            _ => {}
        }
        None
    }

    fn clear(&mut self) {
        self.drop_commands();
        self.standings.clear();
        self.phase = Phase::Commands;
        self.failure = None;
        self.mail_answered = false;
        self.mail_written = false;
        self.chunk_refused = false;
        self.taken = false;
        self.chunk = None;
        self.open_rcpts = 0;
        self.accepted = 0;
        self.echo_accepted = false;
        self.full_at = None;
        self.given_ahead = false;
    }
}

/// The verdict that a reply gives.
pub(super) fn verdict_of(failure: Failure, awaited: Awaited, reply: &Reply) -> Verdict {
    Verdict::new(
        failure.status,
        failure.scope,
        awaited.stage(),
        reply.code,
        reply.enhanced,
        &reply.text(),
    )
}
