//! The opening of a session: greeting, EHLO, HELO where EHLO is not understood.
//!
//! It ends in what the server offers, or in a verdict about the host that holds for whatever mail was waiting for it.
//! What EHLO offers lowers how far the client may run ahead, never raises it: without PIPELINING, and behind a box that
//! masks the greeting, the session goes in lock step.
//!
//! Limit: STARTTLS comes between EHLO and the first transaction; [`Capabilities::starttls`] is known here already, the
//! step itself is not taken.

use super::capabilities::{Capabilities, is_masked_greeting};
use super::command::{self, Command};
use super::meaning::{self, Context, Meaning};
use super::pipeline::{Awaited, Pipeline, Pipelining};
use super::reply::Reply;
use super::transaction::verdict_of;
use crate::mail::Verdict;

/// What a reply of the opening led to.
#[derive(Debug)]
pub(super) enum Opened {
    /// A further reply is due.
    NotYet,
    /// The session is open.
    Ready(Capabilities),
    /// The host does not want to talk to us.
    Failed(Verdict),
}

/// The opening under way.
#[derive(Debug)]
pub(super) struct Opening {
    /// The greeting was masked: its host cannot bear pipelining.
    masked: bool,
}

impl Opening {
    /// An opening that awaits the greeting.
    pub(super) fn new() -> Opening {
        Opening { masked: false }
    }

    /// Takes the reply to `awaited` and writes what comes next, in the name of `hello`.
    pub(super) fn on_reply(
        &mut self,
        awaited: Awaited,
        reply: &Reply,
        hello: &str,
        pipeline: &mut Pipeline,
    ) -> Opened {
        let meaning = meaning::of_reply(awaited, reply.code, reply.enhanced, Context::default());
        match (awaited, meaning) {
            (_, Meaning::Failed(failure) | Meaning::Ends(failure)) => {
                Opened::Failed(verdict_of(failure, awaited, reply))
            }
            (Awaited::Greeting, _) => {
                self.masked = is_masked_greeting(reply);
                say_hello(Command::Ehlo(hello), Awaited::Ehlo, pipeline);
                Opened::NotYet
            }
            (_, Meaning::TryHelo) => {
                say_hello(Command::Helo(hello), Awaited::Helo, pipeline);
                Opened::NotYet
            }
            (Awaited::Ehlo, _) => {
                let capabilities = Capabilities::from_ehlo(reply);
                if self.masked || !capabilities.pipelining {
                    pipeline.set_level(Pipelining::None);
                }
                Opened::Ready(capabilities)
            }
            _ => {
                pipeline.set_level(Pipelining::None);
                Opened::Ready(Capabilities::default())
            }
        }
    }
}

/// Writes EHLO or HELO; the name was checked when the conversation was made.
fn say_hello(hello: Command<'_>, awaited: Awaited, pipeline: &mut Pipeline) {
    let mut line = Vec::new();
    command::write(hello, &mut line).expect("the name was checked by Conversation::new");
    pipeline.write(&line, awaited);
}
