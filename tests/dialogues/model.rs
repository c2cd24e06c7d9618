//! The model server: as plain as can be, sharing no code with the program. It reads commands, answers each as the script
//! says, remembers what it accepted, and complains of everything a client must not do.

use crate::words::{
    Accepted, Ahead, Answer, CLASSES, Class, Manner, Tls, What, number_in, position, takes_effect,
    text,
};

#[derive(Default, Debug)]
struct Open {
    transaction: usize,
    recipients: Vec<usize>,
}

pub struct Model {
    ahead: Ahead,
    manner: Manner,
    /// Takes RCPT and DATA even if MAIL was refused.
    careless: bool,
    /// The class of the n-th answer; good beyond its end.
    script: Vec<u8>,
    pub answers: Vec<Answer>,
    pub accepted: Vec<Accepted>,
    pub violations: Vec<String>,
    /// All bytes it sent.
    pub stream: Vec<u8>,
    pub closed: bool,
    input: Vec<u8>,
    mail: Option<Open>,
    in_data: bool,
    /// Content by BDAT is due, so many octets.
    in_chunk: Option<usize>,
    /// BDAT was refused, and no RSET has come since.
    chunk_refused: bool,
    greeted: bool,
    /// The handshake is due, or done.
    handshake_due: bool,
    in_tls: bool,
    /// Responses to challenges that are still due, and whether AUTH is done.
    responses_due: usize,
    authenticated: bool,
    /// Transaction whose MAIL was refused, while its flight lasts: what follows may be an echo.
    refused: Option<usize>,
    /// RSET was refused in this flight: the MAIL behind it could not know.
    reset_refused: bool,
    /// Said right behind the 354 of this transaction, before any content has come.
    early: Option<(usize, &'static str)>,
    /// Where that ends in the stream, once it was said.
    pub early_end: Option<usize>,
    /// Commands of this flight so far, and whether one of them had to be the last.
    in_flight: usize,
    flight_over: bool,
}

impl Model {
    pub fn new(ahead: Ahead, manner: Manner, careless: bool, script: Vec<u8>) -> Model {
        let mut model = Model {
            ahead,
            manner,
            careless,
            script,
            answers: Vec::new(),
            accepted: Vec::new(),
            violations: Vec::new(),
            stream: Vec::new(),
            closed: false,
            input: Vec::new(),
            mail: None,
            in_data: false,
            in_chunk: None,
            chunk_refused: false,
            greeted: false,
            handshake_due: false,
            in_tls: false,
            responses_due: 0,
            authenticated: false,
            refused: None,
            reset_refused: false,
            early: None,
            early_end: None,
            in_flight: 0,
            flight_over: false,
        };
        model.answer(What::Greeting, "220 model.test");
        model
    }

    /// This reply comes right behind the 354 of transaction `t`.
    pub fn with_early_reply(self, early: Option<(usize, &'static str)>) -> Model {
        Model { early, ..self }
    }

    /// A flight of the client arrives, or (not `whole`) what came of it before the connection failed.
    pub fn feed(&mut self, flight: &[u8], whole: bool) {
        self.in_flight = 0;
        self.flight_over = false;
        self.input.extend_from_slice(flight);
        while !self.closed {
            let end = match self.in_chunk {
                Some(octets) => (self.input.len() >= octets).then_some(octets),
                None if self.in_data => self.content_end(),
                None => position(&self.input, b"\r\n").map(|at| at + 2),
            };
            let Some(end) = end else { break };
            let unit: Vec<u8> = self.input.drain(..end).collect();
            self.in_flight += 1;
            if self.flight_over || (self.ahead == Ahead::Not && self.in_flight > 1) {
                self.complain(&format!("{:?} came too early", text(&unit)));
            }
            if self.in_chunk.is_some() {
                self.take_chunk(unit);
            } else if self.in_data {
                self.take_content(&unit);
            } else if self.responses_due > 0 {
                self.take_response(&unit);
            } else {
                self.take_command(&unit);
            }
        }
        if whole && !self.closed && !self.input.is_empty() {
            self.complain("a flight ended within a command");
        }
        self.refused = None;
        self.reset_refused = false;
    }

    /// Where the content ends, final dot included.
    fn content_end(&self) -> Option<usize> {
        if self.input.starts_with(b".\r\n") {
            return Some(3);
        }
        position(&self.input, b"\r\n.\r\n").map(|at| at + 5)
    }

    fn take_content(&mut self, unit: &[u8]) {
        if self.early_end.is_some() {
            self.complain("content behind a reply to it");
        }
        self.in_data = false;
        self.flight_over = self.ahead != Ahead::Across;
        let mut content = Vec::new();
        let lines = text(unit);
        for line in lines.split_inclusive("\r\n") {
            if line != ".\r\n" {
                content.extend_from_slice(line.strip_prefix('.').unwrap_or(line).as_bytes());
            }
        }
        let open = self.mail.take().unwrap_or_default();
        if open.recipients.is_empty() {
            if !content.is_empty() {
                self.complain("content for nobody");
            }
            self.answer(What::LoneDot, "250 nothing done");
            return;
        }
        if content.is_empty() {
            self.complain("an empty message for somebody");
        }
        if self.manner.lmtp {
            return self.answer_each(open, content);
        }
        let class = self.answer(What::Dot(open.transaction), "250 queued");
        if takes_content(class) {
            self.accepted.push(Accepted {
                transaction: open.transaction,
                recipients: open.recipients,
                content,
            });
        }
    }

    /// RFC 2033: a reply for each recipient.
    fn answer_each(&mut self, open: Open, content: Vec<u8>) {
        let mut recipients = Vec::new();
        for recipient in open.recipients {
            if self.closed {
                break;
            }
            let class = self.answer(What::DotFor(open.transaction, recipient), "250 stored");
            if takes_content(class) {
                recipients.push(recipient);
            }
        }
        self.accepted.push(Accepted {
            transaction: open.transaction,
            recipients,
            content,
        });
    }

    fn take_chunk(&mut self, content: Vec<u8>) {
        self.in_chunk = None;
        self.flight_over = true;
        let transaction = self.transaction_or_echo("BDAT");
        let open = self.mail.take().unwrap_or_default();
        let for_nobody = open.recipients.is_empty();
        let reply = if for_nobody {
            "554 no recipients"
        } else {
            "250 queued"
        };
        let class = self.answer(What::Bdat(transaction), reply);
        self.chunk_refused = for_nobody || !takes_content(class);
        if !for_nobody && takes_content(class) {
            self.accepted.push(Accepted {
                transaction,
                recipients: open.recipients,
                content,
            });
        }
    }

    fn take_command(&mut self, unit: &[u8]) {
        let line = text(unit);
        let line = line.trim_end_matches("\r\n");
        let verb = line.split([' ', ':']).next().unwrap_or("");
        if !self.greeted && !matches!(verb, "EHLO" | "HELO" | "LHLO" | "QUIT") {
            self.complain("a command before EHLO");
        }
        if self.handshake_due {
            self.complain("a command instead of the handshake");
        }
        if self.manner.lmtp && matches!(verb, "EHLO" | "HELO") {
            self.complain("SMTP's greeting to an LMTP server");
        }
        match verb {
            "EHLO" => {
                self.flight_over = true;
                let offer = self.offer();
                let class = self.answer(What::Ehlo, &offer);
                self.greeted = takes_effect(class);
            }
            "LHLO" => {
                self.flight_over = true;
                let offer = self.offer();
                let class = self.answer(What::Lhlo, &offer);
                self.greeted = takes_effect(class);
            }
            "STARTTLS" => {
                self.flight_over = true;
                if self.in_tls || self.mail.is_some() {
                    self.complain("STARTTLS within TLS or a transaction");
                }
                self.handshake_due = takes_effect(self.answer(What::StartTls, "220 go"));
            }
            "AUTH" => self.take_auth(line),
            "HELO" => {
                self.flight_over = true;
                // Whoever had to say HELO has not been offered PIPELINING.
                self.ahead = Ahead::Not;
                self.greeted = takes_effect(self.answer(What::Helo, "250 model.test"));
            }
            "RSET" => {
                self.reset_refused = !takes_effect(self.answer(What::Rset, "250 reset"));
                if !self.reset_refused {
                    self.mail = None;
                    self.chunk_refused = false;
                }
            }
            "MAIL" => self.take_mail(number_in(line, "<t")),
            "RCPT" => self.take_rcpt(number_in(line, "<r")),
            "DATA" => self.take_data(),
            "BDAT" => {
                if !self.manner.chunking || !line.ends_with(" LAST") {
                    self.complain("BDAT that was not offered, or not all at once");
                }
                self.in_chunk = Some(number_in(line, "BDAT "));
            }
            "QUIT" => {
                self.flight_over = true;
                self.answer(What::Quit, "221 bye");
                self.closed = true;
            }
            _ => self.complain(&format!("not a command: {line:?}")),
        }
    }

    /// The reply to EHLO.
    fn offer(&self) -> String {
        let mut offer = "250-model.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n".to_string();
        if self.manner.chunking {
            offer += "250-CHUNKING\r\n";
        }
        if !self.in_tls && !matches!(self.manner.tls, Tls::Missing) {
            offer += "250-STARTTLS\r\n";
        }
        match self.manner.auth {
            Some(true) => offer += "250-AUTH LOGIN\r\n",
            Some(false) => offer += "250-AUTH PLAIN\r\n",
            None => {}
        }
        offer + "250 SIZE 100000"
    }

    /// The client says that the handshake went well: what it was told before counts no more.
    pub fn tls_started(&mut self) {
        if !self.handshake_due {
            self.complain("a handshake that nobody asked for");
        }
        self.handshake_due = false;
        self.in_tls = true;
        self.greeted = false;
    }

    fn take_auth(&mut self, line: &str) {
        self.flight_over = true;
        if self.authenticated || self.mail.is_some() {
            self.complain("AUTH twice, or within a transaction");
        }
        if self.manner.tls != Tls::None && !self.in_tls {
            self.complain("credentials in the clear");
        }
        let by_login = self.manner.auth == Some(true);
        // "u" and "p": NUL u NUL p.
        let expected = if by_login {
            "AUTH LOGIN"
        } else {
            "AUTH PLAIN AHUAcA=="
        };
        if line != expected {
            self.complain(&format!("not {expected:?}: {line:?}"));
        }
        if by_login {
            if takes_effect(self.answer(What::Auth, "334 VXNlcm5hbWU6")) {
                self.responses_due = 2;
            }
        } else {
            self.authenticated = takes_effect(self.answer(What::Auth, "235 welcome"));
        }
    }

    fn take_response(&mut self, unit: &[u8]) {
        self.flight_over = true;
        let (expected, reply) = match self.responses_due {
            2 => ("dQ==\r\n", "334 UGFzc3dvcmQ6"),
            _ => ("cA==\r\n", "235 welcome"),
        };
        if text(unit) != expected {
            self.complain(&format!("not {expected:?}: {:?}", text(unit)));
        }
        let went = takes_effect(self.answer(What::Auth, reply));
        self.authenticated = went && self.responses_due == 1;
        self.responses_due = if went { self.responses_due - 1 } else { 0 };
    }

    /// Complains of mail that must not be here yet.
    fn check_protection(&mut self) {
        if self.manner.auth.is_some() && !self.authenticated {
            self.complain("MAIL without AUTH");
        }
        if !matches!(self.manner.tls, Tls::None | Tls::May) && !self.in_tls {
            self.complain("MAIL without TLS");
        }
        if self.chunk_refused && !self.reset_refused {
            self.complain("MAIL behind a BDAT that was refused");
        }
    }

    fn take_mail(&mut self, transaction: usize) {
        self.check_protection();
        if self.mail.is_some() && !self.reset_refused {
            self.complain("MAIL within a transaction");
        }
        if takes_effect(self.answer(What::Mail(transaction), "250 sender ok")) {
            self.mail = Some(Open {
                transaction,
                recipients: Vec::new(),
            });
        } else {
            self.refused = Some(transaction);
            if self.careless {
                self.mail = Some(Open {
                    transaction,
                    recipients: Vec::new(),
                });
            }
        }
    }

    fn take_rcpt(&mut self, recipient: usize) {
        let transaction = self.transaction_or_echo("RCPT");
        let reply = if self.mail.is_some() {
            "250 recipient ok"
        } else {
            "503 no sender"
        };
        if takes_effect(self.answer(What::Rcpt(transaction, recipient), reply))
            && let Some(open) = &mut self.mail
        {
            open.recipients.push(recipient);
        }
    }

    fn take_data(&mut self) {
        self.flight_over = true;
        let transaction = self.transaction_or_echo("DATA");
        let for_nobody = self
            .mail
            .as_ref()
            .is_none_or(|open| open.recipients.is_empty());
        if for_nobody && self.in_flight == 1 {
            self.complain("DATA although nobody was accepted");
        }
        let reply = if for_nobody {
            "554 no recipients"
        } else {
            "354 go"
        };
        let class = self.answer(What::Data(transaction), reply);
        if let Some((early_in, early)) = self.early
            && early_in == transaction
            && class == Class::Good
            && !for_nobody
        {
            self.stream.extend_from_slice(early.as_bytes());
            self.stream.extend_from_slice(b"\r\n");
            self.early_end = Some(self.stream.len());
        }
        self.in_data = if for_nobody {
            class == Class::Odd
        } else {
            takes_effect(class)
        };
    }

    /// The transaction a command belongs to; it must be open, or its MAIL have been refused in this very flight.
    fn transaction_or_echo(&mut self, verb: &str) -> usize {
        match (&self.mail, self.refused) {
            (_, Some(transaction)) => transaction,
            (Some(open), None) => open.transaction,
            (None, None) => {
                self.complain(&format!("{verb} outside a transaction"));
                usize::MAX
            }
        }
    }

    /// Answers as the script says; `good` is what it should be.
    fn answer(&mut self, what: What, good: &str) -> Class {
        let choice = self.script.get(self.answers.len()).copied().unwrap_or(0);
        let class = CLASSES[usize::from(choice)];
        let odd = match what {
            What::Data(_) if good.starts_with("354") => "250 odd",
            _ => "354 odd",
        };
        let reply = match class {
            Class::Good | Class::Twice => good,
            Class::Temp => "450 4.2.0 later",
            Class::Perm => "550 5.1.1 never",
            Class::Full => "452 4.5.3 enough",
            Class::Bye => "421 4.3.2 bye",
            Class::Garbage => "what?",
            Class::Odd => odd,
            Class::Gone | Class::GoneAfter => "",
        };
        self.closed |= matches!(class, Class::Bye | Class::Gone | Class::GoneAfter);
        let mut end = None;
        if !reply.is_empty() {
            self.stream.extend_from_slice(reply.as_bytes());
            self.stream.extend_from_slice(b"\r\n");
            end = Some(self.stream.len());
        }
        if class == Class::Twice {
            self.stream.extend_from_slice(good.as_bytes());
            self.stream.extend_from_slice(b"\r\n");
        }
        self.answers.push(Answer { what, class, end });
        class
    }

    fn complain(&mut self, of: &str) {
        self.violations.push(of.to_string());
    }
}

/// True if a server that answers the content like this has it.
fn takes_content(class: Class) -> bool {
    takes_effect(class) || class == Class::Odd
}
