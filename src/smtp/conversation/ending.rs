//! How a conversation ends when it does not end by QUIT: lost, garbled, without TLS, given up, recalled.
//!
//! INVARIANT: once the content has left to its end, and until it is answered, every such end leaves its recipients in
//! doubt, whoever is to blame.

use super::{Conversation, State};
use crate::mail::{Enhanced, Verdict};
use crate::smtp::meaning::{self, Failure, Lost};
use crate::smtp::pipeline::Awaited;
use crate::smtp::reply::Garbled;
use crate::smtp::session::no_handshake;

impl Conversation {
    /// The handshake failed, or a certificate that had to fit did not; `text` says why.
    ///
    /// # Panics
    /// Unless [`Conversation::next`] says `StartTls`.
    pub fn tls_failed(&mut self, text: &str) {
        assert!(
            matches!(self.state, State::Handshake),
            "tls_failed() needs a handshake that is due"
        );
        self.close(Some(no_handshake(text)));
    }

    /// The connection failed; `detail` is what the system says of it, perhaps "".
    pub fn on_lost(&mut self, lost: Lost, detail: &str) {
        let awaited = self.blamed();
        let context = self.current.context(self.messages_accepted);
        let failure = meaning::of_loss(awaited, lost, context);
        let mut text = format!("{} {}", lost.describe(), awaited.describe());
        if !detail.is_empty() {
            text.push_str(": ");
            text.push_str(detail);
        }
        // A server that drops what came behind a dot waits for the MAIL that we have sent: both wait for ever. Any other
        // silence has nothing to do with pipelining.
        let suspicious = match lost {
            Lost::TimedOut => self.current.proves_pipelining(),
            Lost::Stopped => false,
            Lost::Eof | Lost::Reset | Lost::Other => true,
        };
        // RFC 3463: x.4.1 is no answer from the host, x.3.2 a system that shuts down, x.4.2 a bad connection.
        let enhanced = match lost {
            Lost::TimedOut => Enhanced::new(4, 4, 1),
            Lost::Stopped => Enhanced::new(4, 3, 2),
            Lost::Eof | Lost::Reset | Lost::Other => Enhanced::new(4, 4, 2),
        };
        self.fail(failure, enhanced, &text, suspicious);
    }

    /// What came is no reply, or a reply too many.
    pub fn on_garbled(&mut self, garbled: Garbled) {
        let awaited = self.blamed();
        let context = self.current.context(self.messages_accepted);
        let failure = meaning::of_garbled(awaited, context);
        let text = format!("protocol error: {garbled} ({})", awaited.describe());
        self.current.distrust();
        self.fail(failure, Enhanced::new(4, 5, 0), &text, true);
    }

    /// Gives the session up (shutdown, content that cannot be read any more): the transaction under way ends with `why`,
    /// what was given ahead is not tried. Where content was sent and not answered the recipients are in doubt all the
    /// same.
    pub fn abandon(&mut self, why: Verdict) {
        let context = self.current.context(self.messages_accepted);
        let why = if context.content_sent {
            let in_doubt = meaning::of_garbled(self.blamed(), context);
            Verdict {
                status: in_doubt.status,
                scope: in_doubt.scope,
                stage: self.blamed().stage(),
                ..why
            }
        } else {
            why
        };
        if !matches!(self.state, State::Closed(_)) {
            self.close(Some(why));
        }
    }

    /// Takes back what was given ahead, while its content has not left and the message before it is answered: the session
    /// ends without another byte. Nothing else could be said: its DATA may have been answered 354 by now, and then RSET
    /// would be content, and a dot would deliver an empty message. Those who are not settled count as not tried. False,
    /// and nothing has changed, if there is no such transaction.
    pub fn recall(&mut self) -> bool {
        let recallable = matches!(self.state, State::Transaction) && self.current.is_recallable();
        if recallable {
            self.close(None);
        }
        recallable
    }

    /// What a verdict names: the reply that is due, or the one to a chunk that has left behind it.
    fn blamed(&self) -> Awaited {
        if self.current.is_chunk_open() {
            Awaited::Bdat
        } else {
            self.awaited()
        }
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
        self.chunking_suspect |= self.current.is_chunk_open();
        let stage = self.blamed().stage();
        let verdict = Verdict::own(failure.status, failure.scope, stage, enhanced, text);
        self.close(Some(verdict));
    }
}
