//! The model server: as plain as can be, sharing no code with the program. It reads commands, answers each as the script
//! says, remembers what it accepted, and complains of everything a client must not do.

/// How a command is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// As it should be (which may be a refusal, if the command makes no sense).
    Good,
    /// 450.
    Temp,
    /// 550.
    Perm,
    /// 421, and the connection is closed.
    Bye,
    /// Closed without a reply; the command had no effect.
    Gone,
    /// Closed without a reply; the command had its effect.
    GoneAfter,
    /// The command has its effect; what comes is no reply.
    Garbage,
    /// A reply of a kind that the command cannot get (2xx to DATA, else 354). DATA for nobody: 354, as some servers do.
    Odd,
    /// The command has its effect, and is answered twice.
    Twice,
    /// 452.
    Full,
}

pub const CLASSES: [Class; 10] = [
    Class::Good,
    Class::Temp,
    Class::Perm,
    Class::Bye,
    Class::Gone,
    Class::GoneAfter,
    Class::Garbage,
    Class::Odd,
    Class::Twice,
    Class::Full,
];

/// What was answered; transactions are known by the number in their reverse-path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Greeting,
    Ehlo,
    Helo,
    Rset,
    Mail(usize),
    Rcpt(usize, usize),
    Data(usize),
    Dot(usize),
    LoneDot,
    Quit,
}

/// One answer: to what, how, and where in the server's stream its reply ends (`None`: it gave none).
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub what: What,
    pub class: Class,
    pub end: Option<usize>,
}

/// A message that the model accepted.
#[derive(Debug)]
pub struct Accepted {
    pub transaction: usize,
    pub recipients: Vec<usize>,
    pub content: Vec<u8>,
}

/// How far a client may run ahead; the model's own word for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ahead {
    Not,
    Within,
    Across,
}

#[derive(Default, Debug)]
struct Open {
    transaction: usize,
    recipients: Vec<usize>,
}

pub struct Model {
    ahead: Ahead,
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
    greeted: bool,
    /// Transaction whose MAIL was refused, while its flight lasts: what follows may be an echo.
    refused: Option<usize>,
    /// RSET was refused in this flight: the MAIL behind it could not know.
    reset_refused: bool,
    /// Commands of this flight so far, and whether one of them had to be the last.
    in_flight: usize,
    flight_over: bool,
}

impl Model {
    pub fn new(ahead: Ahead, careless: bool, script: Vec<u8>) -> Model {
        let mut model = Model {
            ahead,
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
            greeted: false,
            refused: None,
            reset_refused: false,
            in_flight: 0,
            flight_over: false,
        };
        model.answer(What::Greeting, "220 model.test");
        model
    }

    /// A flight of the client arrives, or (not `whole`) what came of it before the connection failed.
    pub fn feed(&mut self, flight: &[u8], whole: bool) {
        self.in_flight = 0;
        self.flight_over = false;
        self.input.extend_from_slice(flight);
        while !self.closed {
            let end = if self.in_data {
                self.content_end()
            } else {
                position(&self.input, b"\r\n").map(|at| at + 2)
            };
            let Some(end) = end else { break };
            let unit: Vec<u8> = self.input.drain(..end).collect();
            self.in_flight += 1;
            if self.flight_over || (self.ahead == Ahead::Not && self.in_flight > 1) {
                self.complain(&format!("{:?} came too early", text(&unit)));
            }
            if self.in_data {
                self.take_content(&unit);
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
        let class = self.answer(What::Dot(open.transaction), "250 queued");
        if !matches!(
            class,
            Class::Temp | Class::Perm | Class::Full | Class::Bye | Class::Gone
        ) {
            self.accepted.push(Accepted {
                transaction: open.transaction,
                recipients: open.recipients,
                content,
            });
        }
    }

    fn take_command(&mut self, unit: &[u8]) {
        let line = text(unit);
        let line = line.trim_end_matches("\r\n");
        let verb = line.split([' ', ':']).next().unwrap_or("");
        if !self.greeted && !matches!(verb, "EHLO" | "HELO" | "QUIT") {
            self.complain("a command before EHLO");
        }
        match verb {
            "EHLO" => {
                self.flight_over = true;
                let class = self.answer(
                    What::Ehlo,
                    "250-model.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000",
                );
                self.greeted = takes_effect(class);
            }
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
                }
            }
            "MAIL" => self.take_mail(number_in(line, "<t")),
            "RCPT" => self.take_rcpt(number_in(line, "<r")),
            "DATA" => self.take_data(),
            "QUIT" => {
                self.flight_over = true;
                self.answer(What::Quit, "221 bye");
                self.closed = true;
            }
            _ => self.complain(&format!("not a command: {line:?}")),
        }
    }

    fn take_mail(&mut self, transaction: usize) {
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

/// True if a command answered like this has done what it asks for.
fn takes_effect(class: Class) -> bool {
    matches!(
        class,
        Class::Good | Class::Twice | Class::Garbage | Class::GoneAfter
    )
}

fn position(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The number behind `mark` in `line`.
fn number_in(line: &str, mark: &str) -> usize {
    let start = line.find(mark).unwrap() + mark.len();
    let digits: String = line[start..]
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap()
}
