//! What each command does to a session: the sequence rules of RFC 5321 4.1.4, and the handler's say in them.

use super::chunk::Chunks;
use super::command::{Command, Extension, Parameters};
use super::content::Content;
use super::policy::Handler;
use super::violation::Violation;
use super::{Next, Phase, Session};

impl Session {
    /// Carries a command out.
    pub(super) fn obey(
        &mut self,
        command: Command<'_>,
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) {
        // BDAT refuses itself, once its octets are out of the way.
        if self.turned_away && !matches!(command, Command::Quit | Command::Bdat(..)) {
            return self.error(503, "5.5.1 No service here", out);
        }
        match command {
            // RFC 2033 4.1: a server of LMTP knows neither HELO nor EHLO, one of SMTP no LHLO.
            Command::Ehlo(_) | Command::Helo(_) if self.settings.lmtp => {
                handler.violation(Violation::UnknownCommand);
                self.error(500, "5.5.1 This is LMTP: LHLO is expected", out);
            }
            Command::Lhlo(_) if !self.settings.lmtp => {
                handler.violation(Violation::UnknownCommand);
                self.error(500, "5.5.1 This is SMTP: EHLO is expected", out);
            }
            Command::Ehlo(name) | Command::Lhlo(name) => self.ehlo(name, out, handler),
            Command::Helo(name) => self.helo(name, out, handler),
            Command::Mail(path, parameters) => self.mail(path, parameters, out, handler),
            Command::Rcpt(path, parameters) => self.rcpt(path, &parameters, out, handler),
            Command::Data => self.data(out, handler),
            Command::Bdat(bytes, is_last) => self.bdat(bytes, is_last, out, handler),
            Command::Rset => {
                self.reset(handler);
                let decision = handler.rset();
                self.settle(decision, 250, "2.0.0 OK", out);
            }
            Command::Auth(mechanism, initial) => self.auth(mechanism, initial, out, handler),
            Command::StartTls => self.starttls(out, handler),
            Command::Noop => self.write(250, "2.0.0 OK", out),
            // RFC 5321 3.5.3: 252 where addresses are not verified.
            Command::Vrfy => self.write(252, "2.5.0 Cannot verify, but will try", out),
            Command::Quit => {
                let decision = handler.quit();
                self.settle(decision, 221, "2.0.0 Bye", out);
                self.end_with(Next::Close);
            }
            Command::Http => {
                handler.violation(Violation::UnknownCommand);
                self.write(421, "4.7.0 This is no web server", out);
                self.end_with(Next::Close);
            }
            Command::Unknown => {
                handler.violation(Violation::UnknownCommand);
                self.error(500, "5.5.2 Unknown command", out);
            }
        }
    }

    fn ehlo(&mut self, name: &str, out: &mut Vec<u8>, handler: &mut impl Handler) {
        if self.settings.helo_only && !self.settings.lmtp {
            return self.error(502, "5.5.1 EHLO is not known here", out);
        }
        self.reset(handler);
        let decision = handler.ehlo(name);
        let lines = self.ehlo_lines(name);
        // The lines of EHLO carry no enhanced code (RFC 2034 4).
        if self.settle(decision, 250, &lines, out) {
            (self.introduced, self.extended) = (true, true);
        }
    }

    fn ehlo_lines(&self, name: &str) -> String {
        let settings = &*self.settings;
        let mut lines = format!("{} greets {name}", settings.name);
        let mut offer = |offered: bool, word: &str| {
            if offered {
                lines.push('\n');
                lines.push_str(word);
            }
        };
        offer(settings.pipelining, "PIPELINING");
        offer(
            settings.size,
            &format!("SIZE {}", settings.content_bytes_max),
        );
        offer(settings.eight_bit_mime, "8BITMIME");
        offer(settings.smtputf8, "SMTPUTF8");
        offer(settings.enhanced_status_codes, "ENHANCEDSTATUSCODES");
        offer(settings.dsn, "DSN");
        offer(settings.chunking, "CHUNKING");
        let auth = self.auth_offer();
        offer(auth.is_some(), auth.as_deref().unwrap_or_default());
        // RFC 3207 4.2: not offered again inside TLS.
        offer(settings.starttls && !self.secured, "STARTTLS");
        for more in &settings.more_extensions {
            offer(true, more);
        }
        lines
    }

    fn helo(&mut self, name: &str, out: &mut Vec<u8>, handler: &mut impl Handler) {
        self.reset(handler);
        let decision = handler.ehlo(name);
        let line = self.settings.name.clone();
        if self.settle(decision, 250, &line, out) {
            (self.introduced, self.extended) = (true, false);
        }
    }

    fn starttls(&mut self, out: &mut Vec<u8>, handler: &mut impl Handler) {
        if !self.settings.starttls {
            return self.unoffered(out, handler);
        }
        // RFC 3207 gives the command no place inside a transaction or inside TLS.
        let refusal = if self.secured {
            "5.5.1 TLS is active already"
        } else if !self.extended {
            "5.5.1 EHLO first"
        } else if self.in_transaction {
            "5.5.1 Not inside a transaction"
        } else {
            let decision = handler.starttls();
            if self.settle(decision, 220, "2.0.0 Ready to start TLS", out) {
                self.end_with(Next::StartTls);
            }
            return;
        };
        handler.violation(Violation::OutOfSequence);
        self.error(503, refusal, out);
    }

    /// The command of an extension that EHLO did not offer.
    pub(super) fn unoffered(&mut self, out: &mut Vec<u8>, handler: &mut impl Handler) {
        handler.violation(Violation::UnofferedCommand);
        self.error(502, "5.5.1 Not offered here", out);
    }

    fn mail(
        &mut self,
        path: &str,
        parameters: Parameters,
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) {
        self.mail_tried = true;
        if !self.introduced || self.in_transaction {
            handler.violation(Violation::OutOfSequence);
            let text = if self.introduced {
                "5.5.1 Nested MAIL"
            } else {
                "5.5.1 EHLO first"
            };
            return self.error(503, text, out);
        }
        if self.settings.auth_required && !self.authenticated {
            // RFC 4954 6.
            return self.error(530, "5.7.0 Authentication is required", out);
        }
        if !self.parameters_are_offered(&parameters, out, handler) {
            return;
        }
        if parameters
            .size
            .is_some_and(|size| size > self.settings.content_bytes_max)
        {
            return self.write(552, "5.3.4 Message too big", out);
        }
        self.check_utf8(path, parameters.smtputf8, handler);
        self.transaction.reverse_path.clear();
        self.transaction.reverse_path.push_str(path);
        self.transaction.recipients.clear();
        self.transaction.declared_size = parameters.size;
        self.transaction.eight_bit = parameters.eight_bit;
        self.transaction.smtputf8 = parameters.smtputf8;
        let decision = handler.mail(&self.transaction);
        self.in_transaction = self.settle(decision, 250, "2.1.0 OK", out);
        self.rcpt_tried = false;
    }

    fn rcpt(
        &mut self,
        path: &str,
        parameters: &Parameters,
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) {
        if !self.in_transaction {
            if !self.mail_tried {
                handler.violation(Violation::OutOfSequence);
            }
            return self.error(503, "5.5.1 MAIL first", out);
        }
        self.rcpt_tried = true;
        if self.chunks.is_some() {
            handler.violation(Violation::OutOfSequence);
            return self.error(503, "5.5.1 RCPT after BDAT", out);
        }
        if path.is_empty() {
            handler.violation(Violation::BadSyntax);
            return self.error(501, "5.1.3 The null path is no recipient", out);
        }
        if !self.parameters_are_offered(parameters, out, handler) {
            return;
        }
        self.check_utf8(path, self.transaction.smtputf8, handler);
        if self.transaction.recipients.len() >= self.settings.recipients_max {
            return self.write(452, "4.5.3 Too many recipients", out);
        }
        let decision = handler.rcpt(&self.transaction, path);
        if self.settle(decision, 250, "2.1.5 OK", out) {
            self.transaction.recipients.push(path.to_owned());
        }
    }

    fn data(&mut self, out: &mut Vec<u8>, handler: &mut impl Handler) {
        if self.chunks.is_some() {
            // RFC 3030 2: DATA and BDAT exclude each other within a transaction.
            handler.violation(Violation::OutOfSequence);
            self.chunks = Some(Chunks::Failed);
            return self.error(503, "5.5.1 DATA after BDAT: RSET first", out);
        }
        if self.transaction.recipients.is_empty() || !self.in_transaction {
            // After refused MAIL or RCPT in the same group DATA is no mistake (RFC 2920 3.1).
            if !(self.mail_tried && (self.rcpt_tried || !self.in_transaction)) {
                handler.violation(Violation::OutOfSequence);
            }
            // RFC 2033 4.2 demands 503 where SMTP has 554 too.
            let code = if self.settings.lmtp { 503 } else { 554 };
            return self.error(code, "5.5.1 No valid recipients", out);
        }
        let decision = handler.data(&self.transaction);
        if self.settle(decision, 354, "End with <CRLF>.<CRLF>", out) && self.phase == Phase::Command
        {
            self.content = Content::new();
            self.phase = Phase::Content(false);
        }
    }

    /// A parameter of an extension that EHLO did not offer is refused with 555 (RFC 5321 4.1.1.11).
    fn parameters_are_offered(
        &mut self,
        parameters: &Parameters,
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) -> bool {
        let settings = &self.settings;
        let all_offered = parameters.used.iter().all(|extension| {
            self.extended
                && match extension {
                    Extension::Size => settings.size,
                    Extension::EightBitMime => settings.eight_bit_mime,
                    Extension::SmtpUtf8 => settings.smtputf8,
                    Extension::Dsn => settings.dsn,
                    Extension::Auth => settings.auth.is_some(),
                }
        });
        if !all_offered {
            handler.violation(Violation::UnofferedParameter);
            self.error(
                555,
                "5.5.4 Parameter of an extension that is not offered",
                out,
            );
        }
        all_offered
    }

    fn check_utf8(&self, path: &str, declared: bool, handler: &mut impl Handler) {
        if !declared && !path.is_ascii() {
            handler.violation(Violation::Utf8Undeclared);
        }
    }
}
