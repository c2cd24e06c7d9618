//! Mailboxes: the forward-paths and reverse-paths of envelopes (RFC 5321 4.1.2), parsed once and safe ever after.
//!
//! [`Mailbox::parse_addr_spec`] takes the raw text of an addr-spec as it stands in a header (folded, with comments, quoted or
//! not) and gives the one spelling in which it goes over the wire: local part quoted only where RFC 5321 asks for it, domain
//! normalised. So two spellings of one mailbox compare equal, and a mailbox can be parsed again from the same bytes at any time.
//!
//! INVARIANT: [`Mailbox::as_str`] holds no control character, line end, NUL or invisible character, and at most
//! [`PATH_OCTETS_MAX`] octets: nobody can smuggle a command through it. Local parts keep their case: only the receiver knows
//! whether it matters.
//!
//! Limits: 64 octets of local part (RFC 5321 4.5.3.1.1) in a forward-path. Reverse-paths are let off, up to the limit of the
//! whole path: bounce addresses with the recipient's address in them exceed it every day and are read only by who made them.

use super::address_lexer::{Lexer, is_atext};
use super::address_list::AddressList;
use super::domain::Domain;
use std::fmt;

/// The longest local part of a forward-path, in octets (RFC 5321 4.5.3.1.1).
pub const LOCAL_OCTETS_MAX: usize = 64;
/// The longest `local@domain`, in octets: RFC 5321 4.5.3.1.3 allows 256 with the angle brackets.
pub const PATH_OCTETS_MAX: usize = 254;

/// Why a text is no address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AddressFault {
    /// Nothing where an address was expected.
    Empty,
    /// `<>` where a recipient was expected.
    NullPath,
    /// More than one address where one was expected.
    Several,
    /// No `@`.
    NoAt,
    /// Nothing before the `@`.
    LocalEmpty,
    /// A dot at the edge of the local part, or two in a row: such a local part must be quoted.
    DotInLocal,
    /// The local part has more than 64 octets.
    LocalTooLong,
    /// The address has more than 254 octets.
    PathTooLong,
    /// Nothing after the `@`.
    DomainEmpty,
    /// Two dots in a row, or one at the beginning, in the domain.
    LabelEmpty,
    /// A label of more than 63 octets.
    LabelTooLong,
    /// A domain of more than 255 octets.
    DomainTooLong,
    /// A character that no domain has.
    BadDomain,
    /// A label begins or ends with a hyphen.
    HyphenAtEdge,
    /// An IP address without the brackets of an address literal.
    BareIp,
    /// Brackets that hold no IPv4 address and no `IPv6:` address.
    BadLiteral,
    /// An internationalised name that UTS 46 does not allow.
    BadIdn,
    /// A character that cannot stand here.
    Unexpected(char),
    /// A control or invisible character in the local part.
    Invisible,
    /// Octets that are not UTF-8.
    NotUtf8,
    /// A quoted string that does not end.
    UnterminatedQuote,
    /// A comment that does not end.
    UnterminatedComment,
    /// Comments nested too deep.
    CommentTooDeep,
    /// `<` without `>`.
    UnterminatedAngle,
    /// Text after the closing `>`.
    TextAfterAngle,
    /// A group within a group, or an address where the name of a group should be.
    BadGroup,
}

impl fmt::Display for AddressFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressFault::Empty => "no address",
            AddressFault::NullPath => "the null path <> is no recipient",
            AddressFault::Several => "more than one address",
            AddressFault::NoAt => "no @",
            AddressFault::LocalEmpty => "nothing before the @",
            AddressFault::DotInLocal => {
                "a dot at the edge of the local part or two in a row need quotes"
            }
            AddressFault::LocalTooLong => "local part of more than 64 octets",
            AddressFault::PathTooLong => "address of more than 254 octets",
            AddressFault::DomainEmpty => "nothing after the @",
            AddressFault::LabelEmpty => "an empty label in the domain",
            AddressFault::LabelTooLong => "a label of more than 63 octets in the domain",
            AddressFault::DomainTooLong => "domain of more than 255 octets",
            AddressFault::BadDomain => "a character that no domain has",
            AddressFault::HyphenAtEdge => "a label of the domain begins or ends with a hyphen",
            AddressFault::BareIp => "an IP address must stand in brackets, as in user@[192.0.2.1]",
            AddressFault::BadLiteral => "brackets without an IPv4 or IPv6: address",
            AddressFault::BadIdn => "not a valid internationalised domain name",
            AddressFault::Unexpected(c) => return write!(f, "unexpected {c:?}"),
            AddressFault::Invisible => "a control or invisible character in the local part",
            AddressFault::NotUtf8 => "not UTF-8",
            AddressFault::UnterminatedQuote => "a quoted string that does not end",
            AddressFault::UnterminatedComment => "a comment that does not end",
            AddressFault::CommentTooDeep => "comments nested too deep",
            AddressFault::UnterminatedAngle => "'<' without '>'",
            AddressFault::TextAfterAngle => "text after '>'",
            AddressFault::BadGroup => "an address, or a group within a group, before ':'",
        })
    }
}

/// A text that is no address: where and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressError {
    /// Offset in the text that was parsed.
    pub offset: usize,
    /// The reason.
    pub fault: AddressFault,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.fault, self.offset)
    }
}

impl std::error::Error for AddressError {}

/// `local@domain` in wire form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailbox {
    path: Box<str>,
    domain: Domain,
}

impl Mailbox {
    /// Parses one recipient as people type it: `a@b.example`, `<a@b.example>` or `Name <a@b.example>`.
    pub fn parse(text: &[u8]) -> Result<Mailbox, AddressError> {
        sole(AddressList::new(text))
    }

    /// Parses the raw text of an addr-spec (RFC 5322 3.4.1, comments and folding included): what a range given by
    /// [`AddressList`] holds.
    pub fn parse_addr_spec(text: &[u8]) -> Result<Mailbox, AddressError> {
        parse_addr_spec(text, LOCAL_OCTETS_MAX)
    }

    /// `local@domain`, ready to stand between `<` and `>` in a command.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// The local part, quoted if it must be.
    pub fn local(&self) -> &str {
        &self.path[..self.path.len() - self.domain.as_str().len() - 1]
    }

    /// The domain: the destination.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// True if only a server with SMTPUTF8 can take it. A non-ASCII domain does not count: it is sent as A-labels (RFC 6531 3.2).
    pub fn needs_utf8(&self) -> bool {
        !self.path.is_ascii()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// Where failure notices go (RFC 5321 4.1.1.2).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum ReversePath {
    /// `<>`: nowhere. Used by notices themselves.
    #[default]
    Null,
    /// To this mailbox.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// Parses `<>`, `a@b.example`, `<a@b.example>` or `Name <a@b.example>`.
    pub fn parse(text: &[u8]) -> Result<ReversePath, AddressError> {
        if is_null_path(text) {
            return Ok(ReversePath::Null);
        }
        sole(AddressList::reverse(text)).map(ReversePath::Mailbox)
    }

    /// The first mailbox of a list, as a message's From field names its author.
    pub fn parse_first(list: &[u8]) -> Result<ReversePath, AddressError> {
        match AddressList::reverse(list).next() {
            Some(entry) => entry.mailbox.map(ReversePath::Mailbox),
            None => Err(EMPTY),
        }
    }

    /// What stands between `<` and `>` in MAIL FROM: empty for the null reverse-path.
    pub fn as_str(&self) -> &str {
        self.mailbox().map_or("", Mailbox::as_str)
    }

    /// The mailbox, if it is not null.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            ReversePath::Null => None,
            ReversePath::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// True if only a server with SMTPUTF8 can take it.
    pub fn needs_utf8(&self) -> bool {
        self.mailbox().is_some_and(Mailbox::needs_utf8)
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

const EMPTY: AddressError = AddressError {
    offset: 0,
    fault: AddressFault::Empty,
};

fn sole(mut list: AddressList<'_>) -> Result<Mailbox, AddressError> {
    let first = list.next().ok_or(EMPTY)?.mailbox?;
    match list.next() {
        None => Ok(first),
        Some(second) => Err(AddressError {
            offset: second.range.start,
            fault: AddressFault::Several,
        }),
    }
}

fn is_null_path(text: &[u8]) -> bool {
    let mut lexer = Lexer::new(text, 0);
    for want in *b"<>" {
        if lexer.skip_cfws().is_err() || lexer.peek() != Some(want) {
            return false;
        }
        lexer.bump();
    }
    lexer.skip_cfws().is_ok() && lexer.peek().is_none()
}

/// The one parser of addresses. `local_octets_max` is all that differs between forward-paths and reverse-paths.
pub(super) fn parse_addr_spec(
    text: &[u8],
    local_octets_max: usize,
) -> Result<Mailbox, AddressError> {
    match parse_plain(text, local_octets_max) {
        Some(mailbox) => Ok(mailbox),
        None => parse_by_lexer(text, local_octets_max),
    }
}

/// Whatever RFC 5322 allows, and the errors.
fn parse_by_lexer(text: &[u8], local_octets_max: usize) -> Result<Mailbox, AddressError> {
    let mut lexer = Lexer::new(text, 0);
    lexer.skip_cfws()?;
    let start = lexer.pos();
    let at = |offset, fault| AddressError { offset, fault };
    let local = local_part(&mut lexer)?;
    let local = std::str::from_utf8(&local).map_err(|_| at(start, AddressFault::NotUtf8))?;
    if local.chars().any(is_invisible) {
        return Err(at(start, AddressFault::Invisible));
    }
    lexer.skip_cfws()?;
    let domain_at = lexer.pos();
    let domain = domain_text(&mut lexer)?;
    let domain = std::str::from_utf8(&domain).map_err(|_| at(domain_at, AddressFault::NotUtf8))?;
    let domain = Domain::parse(domain).map_err(|fault| at(domain_at, fault))?;

    let mut path = String::with_capacity(local.len() + domain.as_str().len() + 3);
    push_local(&mut path, local);
    if path.len() > local_octets_max {
        return Err(at(start, AddressFault::LocalTooLong));
    }
    path.push('@');
    path.push_str(domain.as_str());
    if path.len() > PATH_OCTETS_MAX {
        return Err(at(start, AddressFault::PathTooLong));
    }
    Ok(Mailbox {
        path: path.into_boxed_str(),
        domain,
    })
}

/// `local@domain` as nearly every batch has it: a dot-string and a name, in ASCII, nothing around them. It copies the text once,
/// where the lexer below builds each part; `None` means only that the lexer is to look at it.
fn parse_plain(text: &[u8], local_octets_max: usize) -> Option<Mailbox> {
    let at = memchr::memchr(b'@', text)?;
    let (local, name) = (&text[..at], &text[at + 1..]);
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let is_local = local.is_ascii() && is_dot_string(local);
    if at > local_octets_max || !is_local || !name.iter().copied().all(is_plain) {
        return None;
    }
    let domain = Domain::parse(std::str::from_utf8(name).ok()?).ok()?;
    let local = std::str::from_utf8(local).ok()?;
    let length = local.len() + 1 + domain.as_str().len();
    if length > PATH_OCTETS_MAX {
        return None;
    }
    let mut path = String::with_capacity(length);
    path.push_str(local);
    path.push('@');
    path.push_str(domain.as_str());
    Some(Mailbox {
        path: path.into_boxed_str(),
        domain,
    })
}

/// True for atoms with single dots between them (RFC 5321 4.1.2).
fn is_dot_string(local: &[u8]) -> bool {
    let is_atom = |atom: &[u8]| !atom.is_empty() && atom.iter().copied().all(is_atext);
    local.split(|b| *b == b'.').all(is_atom)
}

/// Words and dots up to the `@`, which is consumed; what they mean, unquoted. Takes RFC 5322's obsolete forms, too (4.4:
/// quoted and plain words mixed, white space around the dots): they mean the same.
fn local_part(lexer: &mut Lexer<'_>) -> Result<Vec<u8>, AddressError> {
    let mut local = Vec::new();
    loop {
        lexer.skip_cfws()?;
        match lexer.peek() {
            Some(b'"') => lexer.quoted(|b| local.push(b))?,
            Some(b) if is_atext(b) => local.extend_from_slice(lexer.atom()),
            Some(b'.') => return Err(lexer.fault(AddressFault::DotInLocal)),
            Some(b'@') if local.is_empty() => return Err(lexer.fault(AddressFault::LocalEmpty)),
            Some(b'@') => return Err(lexer.fault(AddressFault::DotInLocal)),
            other => return Err(unexpected(lexer, other)),
        }
        lexer.skip_cfws()?;
        match lexer.peek() {
            Some(b'.') => local.push(b'.'),
            Some(b'@') => break lexer.bump(),
            other => return Err(unexpected(lexer, other)),
        }
        lexer.bump();
    }
    Ok(local)
}

/// Atoms and dots, or an address literal, up to the end of the text.
fn domain_text(lexer: &mut Lexer<'_>) -> Result<Vec<u8>, AddressError> {
    let mut domain = Vec::new();
    if lexer.peek() == Some(b'[') {
        domain.extend_from_slice(lexer.literal()?);
        lexer.skip_cfws()?;
    } else {
        loop {
            lexer.skip_cfws()?;
            domain.extend_from_slice(lexer.atom());
            lexer.skip_cfws()?;
            if lexer.peek() != Some(b'.') {
                break;
            }
            domain.push(b'.');
            lexer.bump();
        }
    }
    match lexer.peek() {
        None => Ok(domain),
        Some(b) => Err(lexer.fault(AddressFault::Unexpected(char::from(b)))),
    }
}

fn unexpected(lexer: &Lexer<'_>, found: Option<u8>) -> AddressError {
    lexer.fault(match found {
        None => AddressFault::NoAt,
        Some(b) => AddressFault::Unexpected(char::from(b)),
    })
}

/// RFC 5321 4.1.2: a dot-string goes as it is, all else as a quoted string with only `"` and `\` escaped.
fn push_local(path: &mut String, local: &str) {
    if is_dot_string(local.as_bytes()) {
        path.push_str(local);
        return;
    }
    path.push('"');
    for c in local.chars() {
        if matches!(c, '"' | '\\') {
            path.push('\\');
        }
        path.push(c);
    }
    path.push('"');
}

/// Characters that would let two addresses look alike, repaint a terminal or break a command; only a space is fine (in quotes).
fn is_invisible(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
