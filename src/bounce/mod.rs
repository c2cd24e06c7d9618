//! Bounces and complaints: what a message that came back says of whom.
//!
//! Three kinds are understood: delivery status notifications (RFC 3464, multipart/report), complaints (RFC 5965, ARF), and
//! messages that name who failed in X-Failed-Recipients, as Exim's do. Who is meant: with a [`Verp`] pattern the address that
//! the bounce itself was sent to says it, whatever servers on the way made of the recipient; else Original-Recipient, which
//! is what was asked for, else Final-Recipient.
//!
//! What it means is told in `classify`. Out-of-office replies and whatever else comes to such a mailbox are `None`.
//!
//! INVARIANTS: whatever the bytes are, nothing here panics; at most [`FINDINGS_MAX`] recipients come of one message; texts are
//! printable and short. Nobody is told apart from a forger here: anybody may send a message that looks like a bounce, which
//! is why the mailbox that is read should be one whose address nobody else knows.

mod classify;
mod fields;
mod verp;

use mail_parser::{Message, MessageParser, MessagePart, MimeHeaders};

use crate::mail::Mailbox;
use crate::mail::address_list::AddressList;
use crate::mail::verdict::printable;
pub use classify::Kind;
use classify::{Report, classify};
use fields::{Fields, groups};
pub use verp::{BadPattern, Verp};

/// The most recipients that are taken from one message.
pub const FINDINGS_MAX: usize = 1000;
/// The longest reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// What a message says of one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Who is meant.
    pub recipient: Mailbox,
    /// What it means.
    pub kind: Kind,
    /// The status code of RFC 3463, as given or as found in the reply; empty if there is none.
    pub status: String,
    /// The server's words, printable.
    pub reason: String,
}

/// What a message says of whom; `None` if it is neither bounce nor complaint. One that is, and names nobody, is an empty list.
pub fn read(message: &[u8], verp: Option<&Verp>) -> Option<Vec<Finding>> {
    let message = MessageParser::new().default_header_text().parse(message)?;
    let mut findings = of_delivery_status(&message)
        .or_else(|| of_feedback(&message))
        .or_else(|| of_failed_recipients(&message))?;
    if let Some(who) = verp.and_then(|verp| sent_to(&message, verp)) {
        // One message to one recipient: whatever the servers on the way called him.
        findings.truncate(1);
        match findings.first_mut() {
            Some(finding) => finding.recipient = who,
            None => return Some(Vec::new()),
        }
    }
    Some(findings)
}

fn of_delivery_status(message: &Message<'_>) -> Option<Vec<Finding>> {
    let part = part_of(
        message,
        "message",
        &["delivery-status", "global-delivery-status"],
    )?;
    // The first group is about the message, each of the others about a recipient (RFC 3464 2.1).
    let people = groups(part.contents()).skip(1);
    let finding = |fields: Fields| {
        let asked = fields.get("Original-Recipient").and_then(address_of);
        let recipient = asked.or_else(|| fields.get("Final-Recipient").and_then(address_of))?;
        let report = Report {
            action: fields.get("Action").unwrap_or_default(),
            status: fields.get("Status").unwrap_or_default(),
            diagnostic: fields.get("Diagnostic-Code").unwrap_or_default(),
        };
        Some(told(recipient, &report))
    };
    Some(people.filter_map(finding).take(FINDINGS_MAX).collect())
}

/// RFC 5965: who complained is in Original-Rcpt-To, if the provider tells.
fn of_feedback(message: &Message<'_>) -> Option<Vec<Finding>> {
    let part = part_of(message, "message", &["feedback-report"])?;
    let fields = groups(part.contents()).next().unwrap_or_default();
    let kind = match fields.get("Feedback-Type") {
        Some(kind) if kind.eq_ignore_ascii_case("not-spam") => return None,
        kind => kind.unwrap_or("abuse"),
    };
    let mut people: Vec<Mailbox> = fields
        .all("Original-Rcpt-To")
        .filter_map(|who| Mailbox::parse(who.as_bytes()).ok())
        .collect();
    people.truncate(FINDINGS_MAX);
    let finding = |recipient| Finding {
        recipient,
        kind: Kind::Complaint,
        status: String::new(),
        reason: printable(kind, REASON_BYTES_MAX),
    };
    Some(people.into_iter().map(finding).collect())
}

/// Exim's way: the field names them, the text says why.
fn of_failed_recipients(message: &Message<'_>) -> Option<Vec<Finding>> {
    let is_named = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case("X-Failed-Recipients");
    let named: Vec<&str> = message
        .headers_raw()
        .filter(is_named)
        .map(|(_, value)| value)
        .collect();
    if named.is_empty() {
        return None;
    }
    let text = message.body_text(0).unwrap_or_default();
    let people = named.iter().flat_map(|value| value.split(','));
    let people = people.filter_map(|who| Mailbox::parse(who.trim().as_bytes()).ok());
    let finding = |recipient: Mailbox| {
        let report = Report {
            action: "failed",
            status: "",
            diagnostic: said_of(&text, recipient.as_str()),
        };
        told(recipient, &report)
    };
    Some(people.take(FINDINGS_MAX).map(finding).collect())
}

/// What follows an address in the text of a bounce, up to the next empty line.
fn said_of<'t>(text: &'t str, address: &str) -> &'t str {
    let behind = text.split_once(address).map_or("", |(_, behind)| behind);
    let behind = behind.trim_start_matches([':', '>', ' ', '\r', '\n']);
    let end = behind.find("\n\n").or(behind.find("\r\n\r\n"));
    &behind[..end.unwrap_or(behind.len())]
}

fn told(recipient: Mailbox, report: &Report<'_>) -> Finding {
    let (kind, status) = classify(report);
    let reason: Vec<&str> = report.diagnostic.split_whitespace().collect();
    let reason = reason.join(" ");
    let words = reason
        .strip_prefix("smtp; ")
        .or(reason.strip_prefix("smtp;"));
    Finding {
        recipient,
        kind,
        status,
        reason: printable(words.unwrap_or(&reason), REASON_BYTES_MAX),
    }
}

/// `rfc822; user@example.org` (RFC 3464 2.3.1); what was asked for is in xtext (RFC 3461 4).
fn address_of(value: &str) -> Option<Mailbox> {
    let (kind, address) = value.split_once(';')?;
    let address = address.trim();
    let is_known = ["rfc822", "utf-8"]
        .iter()
        .any(|known| kind.trim().eq_ignore_ascii_case(known));
    if !is_known {
        return None;
    }
    let plain = Mailbox::parse(address.as_bytes());
    match fields::from_xtext(address) {
        Some(decoded) if decoded != address => Mailbox::parse(decoded.as_bytes()).or(plain).ok(),
        _ => plain.ok(),
    }
}

/// Whom a bounce that was sent to an address of the pattern is about.
fn sent_to(message: &Message<'_>, verp: &Verp) -> Option<Mailbox> {
    let fields = ["Delivered-To", "X-Original-To", "Envelope-To", "To"];
    let mut values = fields.iter().flat_map(|name| {
        message
            .headers_raw()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    });
    values.find_map(|value| {
        let mut entries = AddressList::new(value.as_bytes());
        entries.find_map(|entry| verp.recipient(&entry.mailbox.ok()?))
    })
}

fn part_of<'m, 'x>(
    message: &'m Message<'x>,
    kind: &str,
    subtypes: &[&str],
) -> Option<&'m MessagePart<'x>> {
    message.parts.iter().find(|part| {
        part.content_type().is_some_and(|of| {
            let subtype = of.subtype().unwrap_or_default();
            of.ctype().eq_ignore_ascii_case(kind)
                && subtypes
                    .iter()
                    .any(|each| subtype.eq_ignore_ascii_case(each))
        })
    })
}

#[cfg(test)]
mod tests;
