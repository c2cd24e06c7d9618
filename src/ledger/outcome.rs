//! One attempt as the ledger keeps it, and its form in the ledger's file.
//!
//! The form: a head of fixed length, little-endian, whose last fields are the lengths of the strings in the tail. It is
//! written and read by one process only, so it carries no version and no checksum.

use std::net::IpAddr;
use std::sync::Arc;

use crate::mail::{Enhanced, QueueId, RecipientNo, Scope, Stage, Status, Verdict};

/// One attempt to deliver to one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// For whom.
    pub recipient: RecipientNo,
    /// What became of it.
    pub verdict: Verdict,
    /// On which way.
    pub via: Via,
    /// Attempts so far, this one included.
    pub attempts: u16,
    /// When it ended: milliseconds since 1970, UTC.
    pub at: i64,
    /// How long it took, from its first command to its verdict, in milliseconds.
    pub took_ms: u32,
}

/// The way an attempt took: all that recipients of one transaction share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Via {
    /// The queue that handled it.
    pub queue: QueueId,
    /// The server's name; empty if there was none to talk to.
    pub mx: Arc<str>,
    /// The server's address, if one was connected to.
    pub ip: Option<IpAddr>,
    /// Protocol and cipher, empty on a plain session.
    pub tls: Arc<str>,
}

impl Via {
    /// No way yet: no server has been talked to.
    pub fn none(queue: QueueId) -> Via {
        Via {
            queue,
            mx: "".into(),
            ip: None,
            tls: "".into(),
        }
    }
}

/// Where a recipient stands in the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Its status.
    pub status: Status,
    /// When the first attempt ended: milliseconds since 1970, UTC.
    pub first_at: Option<i64>,
    /// The latest attempt.
    pub last: Option<Attempt>,
}

/// Length of a record's head in bytes.
pub const HEAD_LEN: usize = 56;
const SCOPES: [Scope; 7] = [
    Scope::Local,
    Scope::Domain,
    Scope::Host,
    Scope::Session,
    Scope::Rate,
    Scope::Message,
    Scope::Recipient,
];

impl Attempt {
    /// Appends the record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let verdict = &self.verdict;
        let (family, ip) = match self.via.ip {
            None => (0, [0; 16]),
            Some(IpAddr::V4(v4)) => (4, v4.to_ipv6_mapped().octets()),
            Some(IpAddr::V6(v6)) => (6, v6.octets()),
        };
        let enhanced = verdict.enhanced.unwrap_or(Enhanced::new(0, 0, 0));
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&ip);
        out.extend_from_slice(&self.took_ms.to_le_bytes());
        for word in [
            self.attempts,
            self.via.queue.0,
            verdict.code,
            enhanced.subject,
            enhanced.detail,
            length(&self.via.mx),
            length(&self.via.tls),
            length(&verdict.text),
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.push(family);
        out.push(verdict.status.index() as u8);
        out.push(place(&SCOPES, verdict.scope));
        out.push(place(&Stage::ALL, verdict.stage));
        out.push(enhanced.class);
        out.resize(out.len() + 7, 0);
        for text in [&*self.via.mx, &*self.via.tls, &verdict.text] {
            out.extend_from_slice(&text.as_bytes()[..usize::from(length(text))]);
        }
    }
}

/// How many bytes of `text` are kept: all, or as many whole characters as 65,535 bytes hold.
fn length(text: &str) -> u16 {
    let mut kept = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(kept) {
        kept -= 1;
    }
    kept as u16
}

fn place<T: PartialEq>(all: &[T], one: T) -> u8 {
    all.iter()
        .position(|each| *each == one)
        .map_or(u8::MAX, |at| at as u8)
}

/// Length of the tail that belongs to `head`.
pub fn tail_len(head: &[u8; HEAD_LEN]) -> usize {
    (5..8).map(|field| usize::from(word(head, field))).sum()
}

fn word(head: &[u8; HEAD_LEN], field: usize) -> u16 {
    let at = 28 + 2 * field;
    u16::from_le_bytes([head[at], head[at + 1]])
}

/// Reads a record back. `None` if it is none.
pub fn decode(head: &[u8; HEAD_LEN], tail: &[u8], recipient: RecipientNo) -> Option<Attempt> {
    let at = i64::from_le_bytes(head[..8].try_into().ok()?);
    let octets: [u8; 16] = head[8..24].try_into().ok()?;
    let took_ms = u32::from_le_bytes(head[24..28].try_into().ok()?);
    let v6 = std::net::Ipv6Addr::from(octets);
    let ip = match head[44] {
        4 => Some(IpAddr::V4(v6.to_ipv4_mapped()?)),
        6 => Some(IpAddr::V6(v6)),
        _ => None,
    };
    let (mx, rest) = tail.split_at_checked(usize::from(word(head, 5)))?;
    let (tls, text) = rest.split_at_checked(usize::from(word(head, 6)))?;
    let enhanced = Enhanced::new(head[48], word(head, 3), word(head, 4));
    let verdict = Verdict {
        status: *Status::ALL.get(usize::from(head[45]))?,
        scope: *SCOPES.get(usize::from(head[46]))?,
        stage: *Stage::ALL.get(usize::from(head[47]))?,
        code: word(head, 2),
        enhanced: (enhanced.class != 0).then_some(enhanced),
        text: String::from_utf8(text.to_vec()).ok()?,
    };
    let via = Via {
        queue: QueueId(word(head, 1)),
        mx: std::str::from_utf8(mx).ok()?.into(),
        ip,
        tls: std::str::from_utf8(tls).ok()?.into(),
    };
    Some(Attempt {
        recipient,
        verdict,
        via,
        attempts: word(head, 0),
        at,
        took_ms,
    })
}

#[cfg(test)]
impl Attempt {
    /// The first attempt for the first recipient, refused at RCPT: for tests of what is made of attempts.
    pub fn refused(text: &str, via: Via) -> Attempt {
        let enhanced = Some(Enhanced::new(5, 1, 1));
        let (status, scope) = (Status::Refused, Scope::Recipient);
        Attempt {
            recipient: RecipientNo(0),
            verdict: Verdict::new(status, scope, Stage::Rcpt, 550, enhanced, text),
            via,
            attempts: 1,
            at: 0,
            took_ms: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        for (ip, enhanced) in [
            (None, None),
            ("::1".parse().ok(), Some(Enhanced::new(5, 7, 515))),
            ("10.0.0.1".parse().ok(), None),
        ] {
            let attempt = Attempt {
                recipient: RecipientNo(9),
                verdict: Verdict::new(
                    Status::Refused,
                    Scope::Domain,
                    Stage::Dns,
                    0,
                    enhanced,
                    "übel",
                ),
                via: Via {
                    queue: QueueId(1),
                    mx: "mx".into(),
                    ip,
                    tls: "TLSv1.3".into(),
                },
                attempts: 300,
                at: 1_700_000_000_123,
                took_ms: 7,
            };
            let mut bytes = Vec::new();
            attempt.encode(&mut bytes);
            let head = bytes[..HEAD_LEN].try_into().unwrap();
            assert_eq!(tail_len(head), bytes.len() - HEAD_LEN);
            assert_eq!(
                decode(head, &bytes[HEAD_LEN..], RecipientNo(9)),
                Some(attempt)
            );
        }
    }
}
