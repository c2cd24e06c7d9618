//! The words in which the model server is told what to answer, and tells what it did.

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
    Lhlo,
    StartTls,
    Auth,
    Rset,
    Mail(usize),
    Rcpt(usize, usize),
    Data(usize),
    Dot(usize),
    DotFor(usize, usize),
    Bdat(usize),
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

/// What the server is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Manner {
    pub tls: Tls,
    /// AUTH is needed before MAIL: by PLAIN, or (true) by LOGIN.
    pub auth: Option<bool>,
    pub lmtp: bool,
    /// It offers CHUNKING.
    pub chunking: bool,
}

/// What the server and the client make of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tls {
    /// The client wants none.
    #[default]
    None,
    /// The client takes it where it is offered.
    May,
    /// The client sends no mail without it.
    Require,
    /// As before, but the handshake fails.
    Broken,
    /// The client sends no mail without it, and the server does not offer it.
    Missing,
}

/// True if a command answered like this has done what it asks for.
pub fn takes_effect(class: Class) -> bool {
    matches!(
        class,
        Class::Good | Class::Twice | Class::Garbage | Class::GoneAfter
    )
}

pub fn position(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The number behind `mark` in `line`.
pub fn number_in(line: &str, mark: &str) -> usize {
    let start = line.find(mark).unwrap() + mark.len();
    let digits: String = line[start..]
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap()
}
