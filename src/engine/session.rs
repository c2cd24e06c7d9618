//! The blocking driver of one session: moves bytes between a [`Wire`] and a [`Conversation`], and nothing else.
//!
//! Each wait for a reply has a deadline of its own, by the stage that the reply belongs to. What a reply means is decided
//! in `smtp`; what becomes of mail, by the worker.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use socket2::Socket;

use super::desk::SessionEnd;
use super::settings::Timeouts;
use crate::mail::{Enhanced, Scope, SiteId, SourceNo, Stage, Status, Verdict};
use crate::net::{Tls, Wire, WireError};
use crate::smtp::capabilities::Capabilities;
use crate::smtp::{
    self, Conversation, Framing, Garbled, Lost, Mail, Next, Pipelining, Progress, ReplyParser,
    TlsPolicy, TransactionEnd, dot, no_handshake,
};

/// How long a reply is looked for after the content could not be written: it says why (RFC 5321 allows a server to
/// refuse before the end of the content), and it has mostly arrived already.
const EARLY_REPLY_WAIT: Duration = Duration::from_secs(2);

/// Content of so many bytes leaves in several writes, and the server may say something meanwhile: so one look is taken
/// before its final dot. Shorter content leaves with its dot at once, right behind the 354 that was read: a look would
/// cost a system call for each message and see nothing.
const LOOK_BYTES_MIN: usize = 64 * 1024;

/// An open session.
#[derive(Debug)]
pub struct Session {
    /// The site it belongs to.
    pub site: SiteId,
    /// The server's name.
    pub mx: Arc<str>,
    /// The server's address, if it has one.
    pub ip: Option<IpAddr>,
    /// The source address it is made from.
    pub source: SourceNo,
    /// How the session is protected; empty: it is not.
    pub tls: Arc<str>,
    wire: Wire,
    conversation: Conversation,
    parser: ReplyParser,
    level_max: Pipelining,
    verify: bool,
    timeouts: Timeouts,
    data_rate_min: u64,
    opened_at: Instant,
    stuffed: Vec<u8>,
    cut: Arc<AtomicBool>,
    is_implicit: bool,
    is_clear_by_policy: bool,
}

/// What a transaction needs next.
#[derive(Debug)]
pub enum Turn {
    /// The handshake is due.
    Handshake,
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
    /// What the conversation is told.
    pub conversation: smtp::Settings,
    /// How far to run ahead of the server at most, once it has proved that it keeps up.
    pub level_max: Pipelining,
    /// The server's certificate must fit its name.
    pub verify: bool,
    /// TLS is not used although it may be offered, since policy says so.
    pub clear_by_policy: bool,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// The least rate at which the server must take content, in bytes per second.
    pub data_rate_min: u64,
    /// Set before connections are cut from another thread: then nobody else is to blame.
    pub cut: Arc<AtomicBool>,
}

/// Whom a session is with.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The site it belongs to.
    pub site: SiteId,
    /// The server's name.
    pub mx: Arc<str>,
    /// The server's address, if it has one.
    pub ip: Option<IpAddr>,
    /// The source address it is made from.
    pub source: SourceNo,
}

impl Session {
    /// A session on a connection just opened: nothing has been said yet.
    ///
    /// # Errors
    /// Our own name cannot be said.
    pub fn begin_opening(stream: Socket, peer: Peer, manner: Manner) -> Result<Session, Verdict> {
        let is_implicit = manner.conversation.tls == TlsPolicy::Implicit;
        let conversation =
            Conversation::new(manner.conversation).map_err(|bad| unsayable(&bad.to_string()))?;
        Ok(Session {
            site: peer.site,
            mx: peer.mx,
            ip: peer.ip,
            source: peer.source,
            tls: "".into(),
            wire: Wire::new(stream),
            conversation,
            parser: ReplyParser::new(),
            level_max: manner.level_max,
            verify: manner.verify,
            timeouts: manner.timeouts,
            data_rate_min: manner.data_rate_min,
            opened_at: Instant::now(),
            stuffed: Vec::new(),
            cut: manner.cut,
            is_implicit,
            is_clear_by_policy: manner.clear_by_policy,
        })
    }

    /// TLS if it is due at once, greeting, EHLO, STARTTLS and AUTH.
    ///
    /// # Errors
    /// The verdict for the mail that was to be sent over it; its scope is the host, or local if it is our fault.
    pub fn open(mut self, tls: &Tls) -> Result<Session, Verdict> {
        if self.is_implicit {
            self.shake_hands_first(tls)?;
        }
        loop {
            match self.turn() {
                Turn::Ready => return Ok(self),
                Turn::Handshake => self.start_tls(tls),
                Turn::Closed(Some(why)) => return Err(why),
                other => unreachable!("a session that opens is ready or closed, not {other:?}"),
            }
        }
    }

    /// STARTTLS was answered 220. A byte that is there already came in clear and must not be taken for what comes
    /// encrypted (CVE-2021-38371): the session ends.
    fn start_tls(&mut self, tls: &Tls) {
        if !self.wire.input().is_empty() {
            return self.conversation.on_garbled(Garbled::Surplus);
        }
        match self.shake_hands(tls) {
            Ok(()) => self.conversation.tls_started(),
            Err(_) if self.cut.load(Relaxed) => self.lose(&WireError::Closed),
            Err(text) => self.conversation.tls_failed(&text),
        }
    }

    /// TLS from the first byte on.
    fn shake_hands_first(&mut self, tls: &Tls) -> Result<(), Verdict> {
        let Err(text) = self.shake_hands(tls) else {
            return Ok(());
        };
        if self.cut.load(Relaxed) {
            self.lose(&WireError::Closed);
            if let Next::Closed(Some(why)) = self.conversation.next() {
                return Err(why);
            }
        }
        Err(no_handshake(&text))
    }

    fn shake_hands(&mut self, tls: &Tls) -> Result<(), String> {
        let deadline = Instant::now() + self.timeouts.starttls;
        let agreed = self.wire.start_tls(tls, &self.mx, self.verify, deadline)?;
        self.tls = agreed.to_string().into();
        Ok(())
    }

    /// True if the session is protected as `policy` asks for.
    pub fn satisfies(&self, policy: TlsPolicy) -> bool {
        if self.ip.is_none() {
            // A socket of this machine: nobody reads along.
            return true;
        }
        match policy {
            TlsPolicy::None => true,
            // Where TLS is a wish it has to be tried: what was opened in clear on purpose is not for this mail.
            TlsPolicy::May => self.conversation.is_in_tls() || !self.is_clear_by_policy,
            TlsPolicy::Require | TlsPolicy::Implicit => self.conversation.is_in_tls(),
            TlsPolicy::Verify => self.conversation.is_in_tls() && self.verify,
        }
    }

    /// What the server offers.
    pub fn capabilities(&self) -> &Capabilities {
        self.conversation.capabilities()
    }

    /// True if BDAT went wrong in a way that was not the mail's fault.
    pub fn is_chunking_suspect(&self) -> bool {
        self.conversation.is_chunking_suspect()
    }

    /// Begins a transaction. The session must be ready.
    pub fn begin(&mut self, mail: &Mail<'_, String>) {
        self.conversation.begin(mail);
    }

    /// Gives the next transaction ahead of the final dot, if the session runs that far ahead.
    pub fn begin_ahead(&mut self, mail: &Mail<'_, String>) -> bool {
        self.conversation.begin_ahead(mail)
    }

    /// Takes back what was given ahead, by ending the session, if that can be: see [`Conversation::recall`].
    pub fn recall(&mut self) -> bool {
        self.conversation.recall()
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
                Next::StartTls => return Turn::Handshake,
                Next::SendBody(_) if self.wire.input().is_empty() => return Turn::Body,
                Next::SendBody(_) => self.take_before_body(),
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

    /// The content has not left, and there is input: replies to commands before a chunk, a refusal that comes early, or
    /// something out of step. Taken now, since behind the content it would count as the reply to it.
    fn take_before_body(&mut self) {
        let (used, progress) = self.parser.feed(self.wire.input());
        self.wire.consume(used);
        match progress {
            Progress::Complete => self.conversation.on_reply(self.parser.reply()),
            Progress::Partial if self.conversation.is_reply_due() => {}
            Progress::Partial => self.conversation.on_garbled(Garbled::Surplus),
            Progress::Garbled(garbled) => self.conversation.on_garbled(garbled),
        }
    }

    /// Writes the content, its final dot and what was given ahead, in one flight (but for a look before the dot of long
    /// content: the dot is kept back if the server has spoken); or the commands and the content as one
    /// chunk (RFC 3030). Call it at [`Turn::Body`].
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
        let end: &[u8] = if is_chunk { b"" } else { dot::end_of(body) };
        let before = std::mem::take(self.conversation.output());
        let until_end = before.len() + body.len() + end.len();
        let mut parts =
            [&before[..], body, end, self.conversation.output_after_dot()].map(IoSlice::new);
        let slowest = Duration::from_secs(body.len() as u64 / self.data_rate_min.max(1));
        let deadline = Instant::now() + self.timeouts.body.max(slowest);
        let is_long = !is_chunk && body.len() >= LOOK_BYTES_MIN;
        let (content, rest) = parts.split_at_mut(if is_long { 2 } else { 4 });
        let mut written = self.wire.send(content, deadline);
        let mut spoke = false;
        if is_long && written.is_ok() {
            // Behind the dot, what has come by now would count as the reply to it.
            spoke = self.wire.has_unasked_input();
            if !spoke {
                let earlier = before.len() + body.len();
                let later = self.wire.send(rest, deadline);
                written = later.map_err(|(sent, error)| (earlier + sent, error));
            }
        }
        match written {
            Ok(()) if spoke => self.look_for_early_reply(None),
            Ok(()) => self.conversation.body_sent(),
            Err((sent, error)) => {
                if sent >= until_end {
                    self.conversation.body_sent();
                }
                self.look_for_early_reply(Some(error));
            }
        }
        self.stuffed = stuffed;
    }

    /// The content did not leave to its end: `error` says why, or the server has said something.
    fn look_for_early_reply(&mut self, error: Option<WireError>) {
        let deadline = Instant::now() + EARLY_REPLY_WAIT;
        loop {
            let (used, progress) = self.parser.feed(self.wire.input());
            self.wire.consume(used);
            match progress {
                // Replies to the commands of a BDAT flight come before the one to its content.
                Progress::Complete => self.conversation.on_reply(self.parser.reply()),
                Progress::Garbled(garbled) => {
                    return match error {
                        Some(error) => self.lose(&error),
                        None => self.conversation.on_garbled(garbled),
                    };
                }
                Progress::Partial => {}
            }
            if self.conversation.body_due().is_none() {
                return;
            }
            if self.wire.input().is_empty()
                && let Err(silence) = self.wire.fill(deadline)
            {
                return self.lose(&error.unwrap_or(silence));
            }
        }
    }

    fn lose(&mut self, error: &WireError) {
        let (lost, detail) = match error {
            _ if self.cut.load(Relaxed) => (Lost::Stopped, String::new()),
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
            Stage::Ehlo => t.ehlo,
            Stage::StartTls => t.starttls,
            Stage::Auth => t.auth,
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

    /// Who ended it, or would end it by closing it now. A session that failed was ended by nobody.
    pub fn end(&mut self) -> SessionEnd {
        let messages = Some(self.conversation.messages_accepted());
        match self.conversation.next() {
            _ if self.cut.load(Relaxed) => SessionEnd::default(),
            Next::Closed(why) if why.as_ref().is_none_or(|why| why.scope == Scope::Session) => {
                SessionEnd {
                    by_server: messages,
                    by_us: None,
                }
            }
            Next::Ready => SessionEnd {
                by_server: None,
                by_us: messages,
            },
            _ => SessionEnd::default(),
        }
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
    let text = format!("our own name for EHLO cannot be used: {reason}");
    Verdict::own(
        Status::Deferred,
        Scope::Local,
        Stage::Ehlo,
        Enhanced::new(4, 5, 4),
        &text,
    )
}
