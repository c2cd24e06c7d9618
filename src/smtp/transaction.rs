//! One transaction: MAIL, its RCPTs, DATA, the content, the final dot (RFC 5321 3.3), and what becomes of each recipient.
//!
//! All commands are built and checked when the transaction is prepared; `pump` then writes as many as the
//! pipeline has room for. What cannot be sent to this server - too large, 8-bit without 8BITMIME - is settled before a
//! byte is written.
//!
//! Allowed moves: `Commands -> Body -> Dot`, `Commands -> LoneDot`, and from each to the end.
//!
//! INVARIANTS: each recipient ends in exactly one way; the body is asked for only after 354 with a recipient accepted; a
//! lone dot is written only if the server has accepted nobody, so it can never deliver an empty message; replies to
//! commands that followed a refused MAIL are echoes of that refusal, and settle nothing (RFC 2920 3.1).

use super::capabilities::Capabilities;
use super::command::{self, BadCommand, Command, MailParameters};
use super::meaning::{self, Context, Failure, Meaning};
use super::pipeline::{Awaited, Pipeline};
use super::reply::Reply;
use crate::mail::{Enhanced, Scope, Stage, Status, Verdict};

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
    /// 354 was read; the content is to be sent.
    Body,
    /// The final dot is written and not answered.
    Dot,
    /// A dot for nobody is written and not answered.
    LoneDot,
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
    standings: Vec<Standing>,
    phase: Phase,
    /// MAIL or DATA failed: the verdict of everybody who is not settled otherwise.
    failure: Option<Verdict>,
    mail_answered: bool,
    /// MAIL was written: without a dot behind it, RSET is due.
    mail_written: bool,
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
            standings: Vec::new(),
            phase: Phase::Commands,
            failure: None,
            mail_answered: false,
            mail_written: false,
            open_rcpts: 0,
            accepted: 0,
            echo_accepted: false,
            full_at: None,
            given_ahead: false,
        }
    }

    /// Builds the commands for `mail`, behind a RSET if `reset`. At most `recipients_max` recipients take part.
    pub(super) fn prepare<R: AsRef<str>>(
        &mut self,
        mail: &Mail<'_, R>,
        capabilities: &Capabilities,
        recipients_max: usize,
        reset: bool,
    ) {
        self.clear();
        if let Some(refusal) = refusal_of_ours(mail, capabilities) {
            return self.settle_all(mail.recipients.len(), &refusal);
        }
        if reset {
            self.add(Command::Rset, Awaited::Rset)
                .expect("RSET has no argument");
        }
        let parameters = MailParameters {
            size: capabilities.size.then_some(mail.size),
            eight_bit: mail.eight_bit && capabilities.eight_bit_mime,
            utf8: mail.utf8,
        };
        if let Err(bad) = self.add(Command::Mail(mail.reverse_path, parameters), Awaited::Mail) {
            let refusal = unspeakable(bad, Stage::Mail, Enhanced::new(5, 1, 7));
            return self.settle_all(mail.recipients.len(), &refusal);
        }
        for recipient in mail.recipients {
            self.add_recipient(recipient.as_ref(), mail.utf8, recipients_max);
        }
        if self.open_rcpts == 0 {
            self.drop_commands();
        } else {
            self.add(Command::Data, Awaited::Data)
                .expect("DATA has no argument");
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
        let meaning = meaning::of_reply(awaited, reply.code, reply.enhanced, context);
        self.mail_answered |= awaited == Awaited::Mail;
        if let Meaning::Ends(failure) = meaning {
            return Step::Ends(verdict_of(failure, awaited, reply));
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
                self.on_dot(meaning, reply);
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

    /// The final dot was written.
    pub(super) fn body_sent(&mut self) {
        self.phase = Phase::Dot;
    }

    /// What surrounds a reply now.
    pub(super) fn context(&self, messages_accepted: u32) -> Context {
        Context {
            messages_accepted,
            recipients_accepted: self.accepted,
            given_ahead: self.given_ahead,
        }
    }

    /// True while it is open whether the server can bear commands behind a dot.
    pub(super) fn proves_pipelining(&self) -> bool {
        self.given_ahead && !self.mail_answered
    }

    /// True if RSET is due before the next MAIL: MAIL was written, and no dot has ended what it began.
    pub(super) fn needs_reset(&self) -> bool {
        self.mail_written && self.phase == Phase::Commands
    }

    /// How many recipients a transaction can have, if the server has shown it.
    pub(super) fn recipients_max_shown(&self) -> Option<usize> {
        self.full_at
    }

    /// The ends of all recipients. Those who are not settled get the failure of MAIL or DATA if there is one, else
    /// `rest`, else they count as not tried.
    pub(super) fn end(&mut self, rest: Option<&Verdict>) -> Vec<RecipientEnd> {
        let failure = self.failure.take();
        let rest = failure.as_ref().or(rest);
        self.standings
            .drain(..)
            .map(|standing| match standing {
                Standing::Settled(verdict) => RecipientEnd::Verdict(verdict),
                Standing::Again => RecipientEnd::Again,
                Standing::Open | Standing::Accepted => match rest {
                    Some(verdict) => RecipientEnd::Verdict(verdict.clone()),
                    None => RecipientEnd::NotTried,
                },
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
            // would become content: leave.
            Meaning::Positive if self.echo_accepted => {
                let failure = meaning::of_garbled(Awaited::Data);
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

    fn on_dot(&mut self, meaning: Meaning, reply: &Reply) {
        let failure = match meaning {
            Meaning::Failed(failure) => failure,
            // RFC 5321 4.2.5: from here on the server is responsible.
            _ => Failure {
                status: Status::Delivered,
                scope: Scope::Recipient,
            },
        };
        self.failure = Some(verdict_of(failure, Awaited::Dot, reply));
    }

    fn clear(&mut self) {
        self.drop_commands();
        self.standings.clear();
        self.phase = Phase::Commands;
        self.failure = None;
        self.mail_answered = false;
        self.mail_written = false;
        self.open_rcpts = 0;
        self.accepted = 0;
        self.echo_accepted = false;
        self.full_at = None;
        self.given_ahead = false;
    }

    fn drop_commands(&mut self) {
        self.script.clear();
        self.commands.clear();
        self.pumped = 0;
    }

    fn add(&mut self, command: Command<'_>, awaited: Awaited) -> Result<(), BadCommand> {
        command::write(command, &mut self.script)?;
        self.commands.push((awaited, self.script.len()));
        Ok(())
    }

    fn add_recipient(&mut self, path: &str, utf8: bool, recipients_max: usize) {
        if self.open_rcpts >= recipients_max {
            self.standings.push(Standing::Again);
            return;
        }
        let number = self.standings.len();
        let standing = match self.add(Command::Rcpt(path, utf8), Awaited::Rcpt(number)) {
            Ok(()) => {
                self.open_rcpts += 1;
                Standing::Open
            }
            Err(bad) => Standing::Settled(unspeakable(bad, Stage::Rcpt, Enhanced::new(5, 1, 3))),
        };
        self.standings.push(standing);
    }

    /// Nothing is sent; `verdict` is everybody's.
    fn settle_all(&mut self, recipients: usize, verdict: &Verdict) {
        self.drop_commands();
        self.standings
            .extend((0..recipients).map(|_| Standing::Settled(verdict.clone())));
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

/// A refusal of ours, because the server does not offer what the message needs. Nothing has been sent.
fn refusal_of_ours<R>(mail: &Mail<'_, R>, capabilities: &Capabilities) -> Option<Verdict> {
    let refused = |enhanced, text: &str| {
        Some(Verdict::own(
            Status::Refused,
            Scope::Message,
            Stage::Mail,
            enhanced,
            text,
        ))
    };
    match capabilities.size_max {
        // RFC 1870 6.1 leaves it to the client not to try.
        Some(size_max) if mail.size > size_max => {
            let text = format!(
                "the message has {} bytes, the server takes at most {size_max}",
                mail.size
            );
            return refused(Enhanced::new(5, 3, 4), &text);
        }
        _ => {}
    }
    if mail.utf8 && !capabilities.smtputf8 {
        // RFC 6531 3.5.
        let text = "the message needs SMTPUTF8, which the server does not offer";
        return refused(Enhanced::new(5, 6, 7), text);
    }
    if mail.eight_bit && !capabilities.eight_bit_mime {
        // RFC 6152 section 3: convert or fail, never send.
        let text = "the message has 8-bit content, and the server does not offer 8BITMIME";
        return refused(Enhanced::new(5, 6, 3), text);
    }
    None
}

/// A refusal of ours, because an address cannot be said in a command.
fn unspeakable(bad: BadCommand, stage: Stage, enhanced: Enhanced) -> Verdict {
    let scope = if stage == Stage::Rcpt {
        Scope::Recipient
    } else {
        Scope::Message
    };
    let enhanced = match bad {
        BadCommand::NotAscii => Enhanced::new(5, 6, 7),
        _ => enhanced,
    };
    Verdict::own(Status::Refused, scope, stage, enhanced, &bad.to_string())
}
