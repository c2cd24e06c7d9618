//! The blocking driver of one session: moves bytes between a [`Wire`] and a [`Conversation`], and nothing else.
//!
//! Each wait for a reply has a deadline of its own, by the stage that the reply belongs to. What a reply means is decided
//! in `smtp`; what becomes of mail, by the worker.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use socket2::Socket;

use super::settings::Timeouts;
use crate::dns::MxAddress;
use crate::mail::{SiteId, Stage, Verdict};
use crate::net::{Wire, WireError};
use crate::smtp::conversation::{Conversation, Next};
use crate::smtp::dot;
use crate::smtp::meaning::Lost;
use crate::smtp::pipeline::{Framing, Pipelining};
use crate::smtp::reply::{Garbled, Progress, ReplyParser};
use crate::smtp::settings::Settings as ConversationSettings;
use crate::smtp::transaction::{Mail, TransactionEnd};

/// How long a reply is looked for after the content could not be written: it says why (RFC 5321 allows a server to
/// refuse before the end of the content), and it has mostly arrived already.
const EARLY_REPLY_WAIT: Duration = Duration::from_secs(2);

/// An open session.
#[derive(Debug)]
pub struct Session {
    /// The site it belongs to.
    pub site: SiteId,
    /// The server's name.
    pub mx: Arc<str>,
    /// The server's address.
    pub ip: IpAddr,
    wire: Wire,
    conversation: Conversation,
    parser: ReplyParser,
    level_max: Pipelining,
    timeouts: Timeouts,
    data_rate_min: u64,
    opened_at: Instant,
    stuffed: Vec<u8>,
}

/// What a transaction needs next.
#[derive(Debug)]
pub enum Turn {
    /// The server waits for the content: [`Session::send_body`].
    Body,
    /// A transaction is over.
    Done(TransactionEnd),
    /// Nothing is under way: [`Session::begin`].
    Ready,
    /// The session is over.
    Closed(Option<Verdict>),
}

/// How a session is to be held.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Our name in EHLO.
    pub hello: String,
    /// How far to run ahead of the server at most; a session starts at classic pipelining.
    pub level: Pipelining,
    /// Recipients of one transaction, at most.
    pub recipients_max: usize,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// The least rate at which the server must take content, in bytes per second.
    pub data_rate_min: u64,
}

impl Session {
    /// Greeting and EHLO on a connection just opened.
    ///
    /// # Errors
    /// The verdict for the mail that was to be sent over it; its scope is the host.
    pub fn open(
        stream: Socket,
        site: SiteId,
        place: &MxAddress,
        manner: Manner,
    ) -> Result<Session, Verdict> {
        let settings = ConversationSettings {
            level: manner.level.min(Pipelining::Classic),
            recipients_max: manner.recipients_max,
            ..ConversationSettings::new(manner.hello)
        };
        let conversation =
            Conversation::new(settings).map_err(|bad| unsayable(&bad.to_string()))?;
        let mut session = Session {
            site,
            mx: Arc::clone(&place.host),
            ip: place.address,
            wire: Wire::new(stream),
            conversation,
            parser: ReplyParser::new(),
            level_max: manner.level,
            timeouts: manner.timeouts,
            data_rate_min: manner.data_rate_min,
            opened_at: Instant::now(),
            stuffed: Vec::new(),
        };
        match session.turn() {
            Turn::Ready => Ok(session),
            Turn::Closed(Some(why)) => Err(why),
            other => unreachable!("a session that opens is ready or closed, not {other:?}"),
        }
    }

    /// Begins a transaction. The session must be ready.
    pub fn begin(&mut self, mail: &Mail<'_, String>) {
        self.conversation.begin(mail);
    }

    /// Gives the next transaction ahead of the final dot, if the session runs that far ahead.
    pub fn begin_ahead(&mut self, mail: &Mail<'_, String>) -> bool {
        self.conversation.begin_ahead(mail)
    }

    /// True if [`Session::begin_ahead`] has a chance: worth loading the next message for.
    pub fn runs_ahead(&self) -> bool {
        self.conversation.level() == Pipelining::Cross
            && self.conversation.may_reuse()
            && self.conversation.body_due() != Some(Framing::Bdat)
    }

    /// A message was taken: the server keeps up, so the session may run as far ahead as is allowed for the host.
    pub fn trust(&mut self) {
        if self.conversation.level() < self.level_max && self.conversation.capabilities().pipelining
        {
            self.conversation.set_level(self.level_max);
        }
    }

    /// The level at which the session ended in a way that running ahead may have caused, if it did.
    pub fn suspected_level(&self) -> Option<Pipelining> {
        self.conversation
            .is_pipelining_suspect()
            .then(|| self.conversation.level())
    }

    /// Writes and reads until something is to be decided.
    pub fn turn(&mut self) -> Turn {
        loop {
            match self.conversation.next() {
                Next::Await(stage) => self.exchange(stage),
                Next::SendBody(_) => return Turn::Body,
                // The settings above never ask for TLS.
                Next::StartTls => self.conversation.tls_failed("no TLS was asked for"),
                Next::Done(end) => return Turn::Done(end),
                Next::Closed(why) => return Turn::Closed(why),
                Next::Ready if self.wire.input().is_empty() => return Turn::Ready,
                // Nothing was asked, something was said: a farewell, or a server out of step.
                Next::Ready => self.take_unasked(),
            }
        }
    }

    /// Gets one reply: from what was read already, else by writing what is due and reading more.
    fn exchange(&mut self, stage: Stage) {
        let deadline = Instant::now() + self.time_for(stage);
        loop {
            if !self.wire.input().is_empty() {
                let (used, progress) = self.parser.feed(self.wire.input());
                self.wire.consume(used);
                match progress {
                    Progress::Complete => return self.conversation.on_reply(self.parser.reply()),
                    Progress::Garbled(garbled) => return self.conversation.on_garbled(garbled),
                    Progress::Partial => {}
                }
            }
            if let Err(error) = self
                .flush(deadline)
                .and_then(|()| self.wire.fill(deadline).map(drop))
            {
                return self.lose(&error);
            }
        }
    }

    fn flush(&mut self, deadline: Instant) -> Result<(), WireError> {
        let output = self.conversation.output();
        if output.is_empty() {
            return Ok(());
        }
        let written = self.wire.send(&mut [IoSlice::new(output)], deadline);
        output.clear();
        written.map_err(|(_, error)| error)
    }

    fn take_unasked(&mut self) {
        let (used, progress) = self.parser.feed(self.wire.input());
        self.wire.consume(used);
        match progress {
            Progress::Complete => self.conversation.on_reply(self.parser.reply()),
            Progress::Partial | Progress::Garbled(_) => {
                self.conversation.on_garbled(Garbled::Surplus)
            }
        }
    }

    /// Writes the content, its final dot and what was given ahead, in one flight. Call it at [`Turn::Body`].
    pub fn send_body(&mut self, content: &[u8]) {
        let mut stuffed = std::mem::take(&mut self.stuffed);
        stuffed.clear();
        let is_chunk = self.conversation.body_due() == Some(Framing::Bdat);
        let body = if !is_chunk && dot::needs_stuffing(content) {
            dot::stuff_into(content, &mut stuffed);
            &stuffed[..]
        } else {
            content
        };
        let end = if is_chunk { b"" } else { dot::end_of(body) };
        let before = std::mem::take(self.conversation.output());
        let until_dot = before.len() + body.len() + end.len();
        let mut parts =
            [&before[..], body, end, self.conversation.output_after_dot()].map(IoSlice::new);
        let slowest = Duration::from_secs(body.len() as u64 / self.data_rate_min.max(1));
        let deadline = Instant::now() + self.timeouts.body.max(slowest);
        match self.wire.send(&mut parts, deadline) {
            Ok(()) => self.conversation.body_sent(),
            Err((sent, error)) => {
                if sent >= until_dot {
                    self.conversation.body_sent();
                }
                self.look_for_early_reply(&error);
            }
        }
        self.stuffed = stuffed;
    }

    fn look_for_early_reply(&mut self, error: &WireError) {
        let deadline = Instant::now() + EARLY_REPLY_WAIT;
        loop {
            let (used, progress) = self.parser.feed(self.wire.input());
            self.wire.consume(used);
            match progress {
                // Replies to the commands of a BDAT flight come before the one to its content.
                Progress::Complete => self.conversation.on_reply(self.parser.reply()),
                Progress::Garbled(_) => return self.lose(error),
                Progress::Partial => {}
            }
            if self.conversation.body_due().is_none() {
                return;
            }
            if self.wire.input().is_empty() && self.wire.fill(deadline).is_err() {
                return self.lose(error);
            }
        }
    }

    fn lose(&mut self, error: &WireError) {
        let (lost, detail) = match error {
            WireError::TimedOut => (Lost::TimedOut, String::new()),
            WireError::Closed => (Lost::Eof, String::new()),
            WireError::Flooded => return self.conversation.on_garbled(Garbled::TooLong),
            WireError::Failed(error) if is_reset(error) => (Lost::Reset, String::new()),
            WireError::Failed(error) => (Lost::Other, error.to_string()),
        };
        self.conversation.on_lost(lost, &detail);
    }

    fn time_for(&self, stage: Stage) -> Duration {
        let t = &self.timeouts;
        match stage {
            Stage::Greeting => t.greeting,
            Stage::Ehlo | Stage::StartTls | Stage::Auth => t.ehlo,
            Stage::Mail => t.mail,
            Stage::Rcpt => t.rcpt,
            Stage::Data => t.data,
            Stage::Dot => t.dot,
            Stage::Body => t.body,
            _ => t.rset,
        }
    }

    /// True if the session can carry another transaction: not too old, not used up, and, if it was idle, not left by
    /// the server meanwhile.
    pub fn is_fit(&mut self, was_idle: bool, age_max: Duration) -> bool {
        self.conversation.may_reuse()
            && self.opened_at.elapsed() < age_max
            && !(was_idle && self.wire.has_unasked_input())
    }

    /// The most recipients a transaction of this session can have.
    pub fn recipients_max(&self) -> usize {
        self.conversation.recipients_max()
    }

    /// A handle to cut the connection from another thread.
    pub fn handle(&self) -> Weak<Socket> {
        self.wire.handle()
    }

    /// Says QUIT if the session is in a state to, and closes. The reply is not waited for: nothing depends on it.
    pub fn close(mut self) {
        if matches!(self.conversation.next(), Next::Ready) {
            self.conversation.quit();
            // Whether QUIT arrives changes nothing for any mail.
            let _ = self.flush(Instant::now() + Duration::from_secs(1));
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn unsayable(reason: &str) -> Verdict {
    let code = crate::mail::Enhanced::new(5, 5, 4);
    let text = format!("our own name for EHLO cannot be used: {reason}");
    Verdict::own(
        crate::mail::Status::Deferred,
        crate::mail::Scope::Local,
        Stage::Ehlo,
        code,
        &text,
    )
}
