//! An mbox from bytes to what leaves: split, scanned, its header read, its envelope derived, and made canonical.

use super::{Seen, fnv, pieces};
use mailer::mbox::canonical::{self, Rules};
use mailer::mbox::check::LINE_OCTETS_MAX;
use mailer::mbox::envelope;
use mailer::mbox::header::Fields;
use mailer::mbox::scan::MessageScan;
use mailer::mbox::splitter::{Splitter, Step, WINDOW_BYTES_MIN};
use mailer::mbox::{MboxFlavour, sniff};

/// Words of mboxes.
pub const WORDS: &[&[u8]] = &[
    b"From a@b.test Mon Jan  1 00:00:00 2024\n", b"\nFrom ", b"\n\nFrom x Mon Jan  1 00:00:00 2024\n", b">From x\n", b">>From x\n",
    b"\n\n", b"\r\n", b"\n", b"\r", b"\0", b"To: a@b.test\n", b"Cc: a@b.test,\n\tc@d.test\n", b"Bcc: x@y.test\n", b"From: n@s.test\n",
    b"X-Envelope-To: ", b"X-Envelope-From: <>\n", b"Return-Path: <>\n", b"Received: x\n", b"Content-Length: 5\n", b"Content-Length: ",
    b"18446744073709551615", b"Date: x\n", b"Message-ID: <1@x>\n", b"Resent-To: r@b.test\n", b": x\n", b" folded\n", b"\xff", b".\n",
    b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

/// A message as it was found.
#[derive(PartialEq, Eq, Debug, Default)]
struct Found {
    from_line: Vec<u8>,
    content: Vec<u8>,
    notes: Vec<String>,
    header: Vec<u8>,
    fault: Option<String>,
    hash: u64,
}

/// Splits and scans; the window grows by `pieces`.
fn split(file: &[u8], flavour: MboxFlavour, folds: bool, pieces: &[&[u8]]) -> Vec<Found> {
    let (mut splitter, mut scan) = (Splitter::new(flavour), MessageScan::new(folds));
    let (mut found, mut start, mut end) = (Vec::<Found>::new(), 0, 0);
    let mut pieces = pieces.iter();
    loop {
        let window = &file[start..end];
        let step = splitter.next(window, end == file.len());
        match step {
            Step::More => {
                assert!(window.len() < WINDOW_BYTES_MIN, "asks for too much");
                end += pieces
                    .next()
                    .expect("never asks at the end of the file")
                    .len();
            }
            Step::Skip(length) => start += length,
            Step::Begin(length) => {
                scan.begin(&window[..length]);
                let from_line = window[..length].to_vec();
                found.push(Found {
                    from_line,
                    ..Found::default()
                });
                start += length;
            }
            Step::Content(length) | Step::Suspect(length, _) => {
                assert!(length > 0 && length <= window.len());
                scan.content(&window[..length]);
                let message = found.last_mut().expect("a message is open");
                message.content.extend_from_slice(&window[..length]);
                if let Step::Suspect(_, why) = step {
                    message.notes.push(format!("{why:?}"));
                }
                start += length;
            }
            Step::Fault(fault) => {
                scan.fault(fault);
                found
                    .last_mut()
                    .expect("a message is open")
                    .notes
                    .push(format!("{fault:?}"));
            }
            Step::End => finish(found.last_mut().expect("a message is open"), &mut scan),
            Step::Done => {
                assert_eq!(start, file.len());
                return found;
            }
        }
        assert!(start <= end, "covers what it was shown");
    }
}

fn finish(message: &mut Found, scan: &mut MessageScan) {
    message.fault = scan
        .finish()
        .map(|at| format!("{:?} at {}", at.fault, at.offset));
    message.header = scan.header().to_vec();
    message.hash = scan.hash();
}

pub fn play(input: &[u8], seen: &mut Seen) {
    seen.note(format!("{:?}", sniff::kind(input)));
    // One reading an input; which, follows from the input.
    let choice = fnv(input) as usize;
    let flavour = [MboxFlavour::Rd, MboxFlavour::O, MboxFlavour::Cl2][choice % 3];
    let folds = choice & 64 != 0;
    let whole = split(input, flavour, folds, &[input]);
    let cut = split(input, flavour, folds, &pieces(input));
    assert_eq!(whole, cut, "cutting changes nothing");
    for message in &whole {
        let fault = leave(message, Some(flavour), folds);
        seen.note((message.fault.is_some(), message.notes.len().min(3), fault));
    }
    // The same bytes as a file of one message.
    let single = Found {
        content: input.to_vec(),
        ..Found::default()
    };
    seen.note(leave(&single, None, false));
}

/// Reads the header, derives the envelope and makes the bytes that leave; returns what is wrong with it, in a word.
fn leave(message: &Found, flavour: Option<MboxFlavour>, folds: bool) -> Option<String> {
    let content = &message.content;
    let (header_length, _) = canonical::split(content);
    let header = &content[..header_length];
    let mut fields = Fields::default();
    let header_fault = fields.scan(header, folds).err();
    if let Some(fault) = header_fault {
        assert!(fault.offset <= header.len() as u64);
    }
    derive_envelope(header, &fields, &message.from_line);
    if let Some(fault) = header_fault {
        return Some(word(&format!("{:?}", fault.fault)));
    }
    let rules = Rules {
        flavour,
        fold_long_lines: folds,
        date: "Mon, 01 Jan 2024 00:00:00 +0000",
    };
    let mut out = Vec::new();
    match canonical::canonicalise(content, &fields, &rules, &mut out) {
        Ok(facts) => {
            check_canonical(&out);
            assert_eq!(facts.eight_bit, !out.is_ascii());
            if flavour.is_some() {
                // Intake let it pass, or found fault with something else.
                assert!(
                    message.fault.is_none() || !message.notes.is_empty() || folds,
                    "{message:?}"
                );
            }
            None
        }
        Err(fault) => {
            assert!(fault.offset <= content.len() as u64);
            if flavour.is_some() {
                assert!(
                    message.fault.is_some(),
                    "intake must find what sending finds: {message:?}"
                );
            }
            Some(word(&format!("{:?}", fault.fault)))
        }
    }
}

/// Without numbers.
fn word(text: &str) -> String {
    text.replace(|c: char| c.is_ascii_digit(), "")
}

fn derive_envelope(header: &[u8], fields: &Fields, from_line: &[u8]) {
    let rules = envelope::Rules::default();
    let mut recipients = Vec::new();
    envelope::recipients(header, fields, &rules, &mut recipients);
    for recipient in &recipients {
        let (start, end) = (
            recipient.start as usize,
            (recipient.start + recipient.len) as usize,
        );
        assert!(start <= end && end <= header.len());
    }
    let mailboxes = recipients
        .iter()
        .filter_map(|each| each.mailbox.as_ref().ok());
    let mut distinct: Vec<&str> = mailboxes.map(|mailbox| mailbox.as_str()).collect();
    let count = distinct.len();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), count, "each mailbox once");
    if let Err(fault) = envelope::reverse_path(header, fields, from_line, &rules) {
        assert!(fault.offset() <= header.len());
    }
    let _ = envelope::check_journey(fields, &rules);
}

/// RFC 5321 2.3.8, RFC 5322 2.1.1, and no field that must not leave.
fn check_canonical(out: &[u8]) {
    assert!(out.ends_with(b"\r\n"));
    let mut header = true;
    for line in out
        .strip_suffix(b"\r\n")
        .expect("CRLF")
        .split(|&byte| byte == b'\n')
    {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(!line.contains(&b'\r') && !line.contains(&0), "{line:?}");
        assert!(line.len() <= LINE_OCTETS_MAX);
        header &= !line.is_empty();
        let lower = line.to_ascii_lowercase();
        assert!(
            !header || !(lower.starts_with(b"bcc:") || lower.starts_with(b"x-envelope-to:")),
            "{line:?}"
        );
    }
    let line_feeds = out.iter().filter(|&&byte| byte == b'\n').count();
    let line_ends = out.windows(2).filter(|two| two == b"\r\n").count();
    assert_eq!(line_feeds, line_ends, "no LF without CR");
}
