//! What a server received: files of one message each, headed by the trace fields that this server writes.
//!
//! A watch looks only at files that came after it was made, and only at the messages it is asked about, so that tests may share a
//! server and be run again while it is up.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::expected::{Expected, digest, normal};

/// Postfix answers before its delivery agent has run: the last files come a moment after the last reply.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fields that a server puts before the message it received.
const TRACE_FIELDS: [&str; 11] = [
    "Return-Path",
    "Return-path",
    "Envelope-to",
    "X-Original-To",
    "Delivered-To",
    "Received",
    "X-Client-Addr",
    "X-Client-Proto",
    "X-Helo-Args",
    "X-Mail-Args",
    "X-Rcpt-Args",
];

/// The new messages of one Maildir.
pub struct Maildir {
    folder: PathBuf,
    before: BTreeSet<OsString>,
}

/// One copy, as it was received.
#[derive(Debug)]
struct Copy {
    file: PathBuf,
    reverse_path: String,
    digest: String,
}

/// (Message-ID, recipient) -> every copy of it.
type Copies = BTreeMap<(String, String), Vec<Copy>>;

impl Maildir {
    /// Watches from now on.
    pub fn watch(maildir: &Path) -> Maildir {
        let folder = maildir.join("new");
        let before = names(&folder);
        Maildir { folder, before }
    }

    /// Waits until all of `expected` are there, and fails unless each came exactly once, with its envelope and content unchanged.
    pub fn assert_holds(&self, expected: &[Expected]) {
        let ids: BTreeSet<&str> = expected.iter().map(|row| row.id.as_str()).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut copies = self.copies(&ids);
        while copies.len() < expected.len() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            copies = self.copies(&ids);
        }
        for row in expected {
            let key = (row.id.clone(), row.recipient.clone());
            let found = copies.remove(&key).unwrap_or_default();
            let [copy] = &found[..] else {
                panic!(
                    "{key:?} must be there once, not {} times: {found:?}",
                    found.len()
                )
            };
            assert_eq!(
                copy.digest,
                row.digest,
                "content of {key:?} in {}",
                copy.file.display()
            );
            assert_eq!(
                copy.reverse_path,
                row.reverse_path,
                "reverse-path of {key:?} in {}",
                copy.file.display()
            );
        }
        assert!(
            copies.is_empty(),
            "to recipients it was not for: {copies:?}"
        );
    }

    fn copies(&self, ids: &BTreeSet<&str>) -> Copies {
        let mut copies = Copies::new();
        for name in names(&self.folder).difference(&self.before) {
            let file = self.folder.join(name);
            let raw = fs::read(&file).expect("a message file");
            let received = Received::parse(&raw);
            let Some(id) = message_id(received.content).filter(|id| ids.contains(id.as_str()))
            else {
                continue;
            };
            for recipient in received.recipients {
                let copy = Copy {
                    file: file.clone(),
                    reverse_path: received.reverse_path.clone(),
                    digest: digest(received.content),
                };
                copies
                    .entry((id.clone(), recipient))
                    .or_default()
                    .push(copy);
            }
        }
        copies
    }
}

fn names(folder: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(folder).expect("the server's Maildir");
    entries
        .map(|entry| entry.expect("an entry").file_name())
        .collect()
}

/// A file, taken apart.
struct Received<'a> {
    reverse_path: String,
    recipients: Vec<String>,
    content: &'a [u8],
}

impl<'a> Received<'a> {
    fn parse(raw: &'a [u8]) -> Received<'a> {
        let mut received = Received {
            reverse_path: String::new(),
            recipients: Vec::new(),
            content: raw,
        };
        while let Some((name, value, rest)) = trace_field(received.content) {
            match name {
                "Return-Path" | "Return-path" | "X-Mail-Args" => {
                    received.reverse_path = first_path(&value)
                }
                "Delivered-To" | "Envelope-to" | "X-Rcpt-Args" => {
                    received.recipients.push(normal(&first_path(&value)))
                }
                _ => {}
            }
            // smtp-sink ends each file with an empty line of its own.
            if name == "X-Helo-Args" {
                received.content = rest.strip_suffix(b"\n").unwrap_or(rest);
            } else {
                received.content = rest;
            }
        }
        received
    }
}

/// The field at the start of `raw`, if it is one of trace: its name, its value, what follows it.
fn trace_field(raw: &[u8]) -> Option<(&'static str, String, &[u8])> {
    let colon = raw.iter().position(|&octet| octet == b':')?;
    let name = TRACE_FIELDS
        .into_iter()
        .find(|name| name.as_bytes() == &raw[..colon])?;
    let ends_here =
        |&at: &usize| raw[at] == b'\n' && !matches!(raw.get(at + 1), Some(b' ' | b'\t'));
    let end = (colon..raw.len()).find(ends_here)?;
    Some((
        name,
        String::from_utf8_lossy(&raw[colon + 1..end]).into_owned(),
        &raw[end + 1..],
    ))
}

/// `<a@b> SIZE=1` or `a@b` -> `a@b`.
fn first_path(value: &str) -> String {
    let word = value.split_whitespace().next().unwrap_or_default();
    word.trim_start_matches('<').trim_end_matches('>').into()
}

fn message_id(content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    let header = text.lines().take_while(|line| !line.is_empty());
    header
        .filter_map(|line| line.strip_prefix("Message-ID: "))
        .map(str::to_owned)
        .next()
}
