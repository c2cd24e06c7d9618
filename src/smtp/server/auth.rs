//! AUTH (RFC 4954): from the command to 235 or a refusal. The mechanisms themselves are in `sasl.rs`.
//!
//! While an exchange goes on every line of the client is a response, whatever it looks like; `*` gives up (RFC 4954 4).
//!
//! INVARIANT: an exchange ends with the reply that is not 334; what it leaves is one bit, which RSET keeps and TLS forgets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Session;
use super::policy::Handler;
use super::sasl::{AuthSettings, Exchange, Mechanism, Step};
use super::violation::Violation;

impl Session {
    /// What EHLO says of AUTH, if anything.
    pub(super) fn auth_offer(&self) -> Option<String> {
        let auth = self.settings.auth.as_ref()?;
        let names: Vec<&str> = auth.mechanisms.iter().map(|m| m.name()).collect();
        (self.secured || !auth.only_in_tls).then(|| format!("AUTH {}", names.join(" ")))
    }

    /// AUTH.
    pub(super) fn auth(
        &mut self,
        mechanism: &str,
        initial: Option<&str>,
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) {
        let settings = self.settings.clone();
        let Some(auth) = settings.auth.as_ref().filter(|_| self.extended) else {
            return self.unoffered(out, handler);
        };
        if auth.only_in_tls && !self.secured {
            handler.violation(Violation::UnofferedCommand);
            return self.error(538, "5.7.11 Encryption is required for AUTH", out);
        }
        // RFC 4954 4: once a session, and not inside a transaction.
        if self.authenticated || self.in_transaction {
            handler.violation(Violation::OutOfSequence);
            return self.error(503, "5.5.1 AUTH has no place here", out);
        }
        let known = Mechanism::named(mechanism).filter(|known| auth.mechanisms.contains(known));
        let Some(mechanism) = known else {
            return self.error(504, "5.5.4 Mechanism is not offered", out);
        };
        let exchange = Exchange::new(mechanism);
        match initial {
            None => {
                self.challenge(exchange.first_challenge(), out);
                self.exchange = Some(exchange);
            }
            // RFC 4954 4: an initial response that is empty is written `=`.
            Some("=") => self.respond(auth, exchange, b"", out, handler),
            Some(text) => self.response(auth, exchange, text.as_bytes(), out, handler),
        }
    }

    /// A line while an exchange goes on.
    pub(super) fn auth_line(
        &mut self,
        exchange: Exchange,
        line: &[u8],
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) {
        let settings = self.settings.clone();
        match &settings.auth {
            Some(_) if line == b"*" => self.error(501, "5.7.0 Given up", out),
            Some(auth) => self.response(auth, exchange, line, out, handler),
            None => self.unoffered(out, handler),
        }
    }

    /// A response in base64.
    fn response(
        &mut self,
        auth: &AuthSettings,
        exchange: Exchange,
        text: &[u8],
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) {
        match BASE64.decode(text) {
            Ok(response) => self.respond(auth, exchange, &response, out, handler),
            Err(_) => {
                handler.violation(Violation::BadSyntax);
                self.error(501, "5.5.2 Not base64", out);
            }
        }
    }

    fn respond(
        &mut self,
        auth: &AuthSettings,
        mut exchange: Exchange,
        response: &[u8],
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) {
        match exchange.respond(auth, &handler.nonce(), response) {
            Step::Challenge(challenge) => {
                self.challenge(&challenge, out);
                self.exchange = Some(exchange);
            }
            Step::Success => {
                let decision = handler.auth(&auth.user);
                self.authenticated = self.settle(decision, 235, "2.7.0 Authenticated", out);
            }
            Step::Failure => self.error(535, "5.7.8 Credentials are not valid", out),
            Step::Malformed => {
                handler.violation(Violation::BadSyntax);
                self.error(501, "5.5.2 Not what the mechanism has here", out);
            }
        }
    }

    /// RFC 4954 4: 334, a space, and base64, which may be empty.
    fn challenge(&self, challenge: &[u8], out: &mut Vec<u8>) {
        self.write(334, &BASE64.encode(challenge), out);
    }
}
