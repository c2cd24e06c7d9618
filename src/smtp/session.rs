//! The opening of a session: greeting, EHLO (HELO where it is not understood, LHLO to an LMTP server), STARTTLS and EHLO
//! again, AUTH.
//!
//! It ends in what the server offers, or in a verdict that holds for whatever mail was waiting for it: about the host, or,
//! where our credentials are the trouble, about ourselves. What EHLO offers lowers how far the client may run ahead, never
//! raises it: without PIPELINING, and behind a box that masks the greeting, the session goes in lock step.
//!
//! INVARIANTS: nothing that was learned before TLS is believed behind it (RFC 3207 4.2); where policy asks for TLS the
//! opening goes no further without; credentials leave in the clear only if the settings say so; no verdict shows them.

use super::auth::{Credentials, Exchange, Fault};
use super::capabilities::{Capabilities, is_masked_greeting};
use super::command::{self, Command};
use super::meaning::{self, Context, Meaning};
use super::pipeline::{Awaited, Pipeline, Pipelining};
use super::reply::Reply;
use super::settings::{NONCE_OCTETS, Protocol, Settings, TlsPolicy};
use super::transaction::verdict_of;
use crate::mail::{Enhanced, Scope, Stage, Status, Verdict};

/// What a reply of the opening led to.
#[derive(Debug)]
pub(super) enum Opened {
    /// A further reply is due.
    NotYet,
    /// The handshake is due.
    StartTls,
    /// The session is open.
    Ready(Capabilities),
    /// There is no session.
    Failed(Verdict),
}

/// The opening under way.
#[derive(Debug)]
pub(super) struct Opening {
    hello: String,
    protocol: Protocol,
    tls: TlsPolicy,
    credentials: Option<Credentials>,
    auth_in_clear: bool,
    nonce: [u8; NONCE_OCTETS],
    /// The greeting was masked: its host cannot bear pipelining.
    masked: bool,
    in_tls: bool,
    /// The answer to the last EHLO.
    capabilities: Capabilities,
    exchange: Option<Exchange>,
}

impl Opening {
    /// An opening that awaits the greeting; `settings.hello` was checked.
    pub(super) fn new(settings: &Settings) -> Opening {
        Opening {
            hello: settings.hello.clone(),
            protocol: settings.protocol,
            tls: settings.tls,
            credentials: settings.auth.clone(),
            auth_in_clear: settings.auth_in_clear,
            nonce: settings.auth_nonce,
            masked: false,
            in_tls: settings.tls == TlsPolicy::Implicit,
            capabilities: Capabilities::default(),
            exchange: None,
        }
    }

    /// True inside TLS.
    pub(super) fn is_in_tls(&self) -> bool {
        self.in_tls
    }

    /// The handshake succeeded: all is asked again.
    pub(super) fn tls_started(&mut self, pipeline: &mut Pipeline) {
        self.in_tls = true;
        self.capabilities = Capabilities::default();
        self.say_hello(pipeline);
    }

    /// Takes the reply to `awaited` and writes what comes next.
    pub(super) fn on_reply(
        &mut self,
        awaited: Awaited,
        reply: &Reply,
        pipeline: &mut Pipeline,
    ) -> Opened {
        let meaning = meaning::of_reply(awaited, reply.code, reply.enhanced, Context::default());
        match (awaited, meaning) {
            // RFC 3207 4.1: whether to go on without is the client's decision.
            (Awaited::StartTls, Meaning::Failed(_)) if self.tls.bears_clear_text() => {
                self.greet_done(pipeline)
            }
            (_, Meaning::Failed(failure) | Meaning::Ends(failure)) => {
                let mut verdict = verdict_of(failure, awaited, reply);
                if let Some(exchange) = &self.exchange {
                    let text = exchange.conceal(&reply.text());
                    verdict = Verdict::new(
                        verdict.status,
                        verdict.scope,
                        verdict.stage,
                        verdict.code,
                        verdict.enhanced,
                        &text,
                    );
                }
                Opened::Failed(verdict)
            }
            // Any 2xx is a greeting: RFC 5321 4.3.2 lists only 220, but by 4.2 a client must be prepared for codes that are
            // not listed, and go by their first digit.
            (Awaited::Greeting, _) => {
                self.masked = is_masked_greeting(reply);
                self.say_hello(pipeline)
            }
            (_, Meaning::TryHelo) => self.try_helo(pipeline),
            (Awaited::Ehlo | Awaited::Lhlo, _) => {
                self.capabilities = Capabilities::from_ehlo(reply);
                self.after_hello(pipeline)
            }
            (Awaited::StartTls, _) => Opened::StartTls,
            (Awaited::Auth, _) => self.on_auth(reply, pipeline),
            _ => self.after_hello(pipeline),
        }
    }

    fn say_hello(&mut self, pipeline: &mut Pipeline) -> Opened {
        match self.protocol {
            Protocol::Smtp => say(Command::Ehlo(&self.hello), Awaited::Ehlo, pipeline),
            Protocol::Lmtp => say(Command::Lhlo(&self.hello), Awaited::Lhlo, pipeline),
        }
    }

    /// EHLO is not understood. A server of HELO has no extensions: where one is needed there is no use in asking.
    fn try_helo(&mut self, pipeline: &mut Pipeline) -> Opened {
        if self.needs_tls() && !self.tls.bears_clear_text() {
            return Opened::Failed(no_tls());
        }
        say(Command::Helo(&self.hello), Awaited::Helo, pipeline)
    }

    fn needs_tls(&self) -> bool {
        !self.in_tls && self.tls.wants_starttls()
    }

    /// What the server offers is known.
    fn after_hello(&mut self, pipeline: &mut Pipeline) -> Opened {
        if self.needs_tls() && self.capabilities.starttls {
            return say(Command::StartTls, Awaited::StartTls, pipeline);
        }
        if self.needs_tls() && !self.tls.bears_clear_text() {
            return Opened::Failed(no_tls());
        }
        self.greet_done(pipeline)
    }

    /// With TLS or without, as it will stay.
    fn greet_done(&mut self, pipeline: &mut Pipeline) -> Opened {
        if self.masked || !self.capabilities.pipelining {
            pipeline.set_level(Pipelining::None);
        }
        let Some(credentials) = self.credentials.take() else {
            return Opened::Ready(self.capabilities);
        };
        if !self.in_tls && !self.auth_in_clear {
            let text = "the credentials are not sent without TLS, and there is none";
            return Opened::Failed(not_authenticated(Scope::Local, 11, text));
        }
        let Some(mechanism) = credentials.choose(self.capabilities.auth) else {
            let text = "the server offers no mechanism of AUTH that fits the credentials";
            return Opened::Failed(not_authenticated(Scope::Local, 4, text));
        };
        let mut exchange = Exchange::new(&credentials, mechanism, &self.nonce);
        let initial = exchange.initial();
        let command = Command::Auth(exchange.name(), initial.as_deref());
        say(command, Awaited::Auth, pipeline);
        self.exchange = Some(exchange);
        Opened::NotYet
    }

    /// A challenge, or success.
    fn on_auth(&mut self, reply: &Reply, pipeline: &mut Pipeline) -> Opened {
        let exchange = self.exchange.as_mut().expect("AUTH was said");
        let went = if reply.code < 300 {
            exchange.on_success().map(|()| None)
        } else {
            let mut lines = reply.lines();
            match (lines.next(), lines.next()) {
                (Some(challenge), None) => exchange.on_challenge(challenge).map(Some),
                _ => Err(Fault::NotBase64),
            }
        };
        match went {
            Ok(Some(response)) => say(Command::Response(&response), Awaited::Auth, pipeline),
            Ok(None) => {
                self.exchange = None;
                Opened::Ready(self.capabilities)
            }
            // RFC 5802: the server's way to say 535.
            Err(Fault::Refused) => {
                let text = Fault::Refused.to_string();
                Opened::Failed(not_authenticated(Scope::Local, 8, &text))
            }
            Err(fault) => Opened::Failed(not_authenticated(Scope::Host, 0, &fault.to_string())),
        }
    }
}

/// Writes a command whose parts were checked before: our name by the conversation, all of AUTH by its exchange.
fn say(command: Command<'_>, awaited: Awaited, pipeline: &mut Pipeline) -> Opened {
    let mut line = Vec::new();
    command::write(command, &mut line).expect("names and base64 were checked when they were made");
    pipeline.write(&line, awaited);
    Opened::NotYet
}

/// RFC 3463 3.8: x.7.4 is a security feature that is not there.
fn no_tls() -> Verdict {
    let text = "the policy requires TLS, and the server does not offer STARTTLS";
    let enhanced = Enhanced::new(4, 7, 4);
    Verdict::own(
        Status::Deferred,
        Scope::Host,
        Stage::StartTls,
        enhanced,
        text,
    )
}

/// The verdict if the handshake failed: RFC 3463 3.8, x.7.5 is a cryptographic failure.
pub fn no_handshake(text: &str) -> Verdict {
    let text = format!("the TLS handshake failed: {text}");
    let enhanced = Enhanced::new(4, 7, 5);
    Verdict::own(
        Status::Deferred,
        Scope::Host,
        Stage::StartTls,
        enhanced,
        &text,
    )
}

/// AUTH cannot be done, or did not end well; 4.7.`detail` as RFC 3463 and RFC 4954 section 6 have it.
fn not_authenticated(scope: Scope, detail: u16, text: &str) -> Verdict {
    let enhanced = Enhanced::new(4, 7, detail);
    Verdict::own(Status::Deferred, scope, Stage::Auth, enhanced, text)
}
