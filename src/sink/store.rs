//! What becomes of messages that were taken: nothing, memory, a Maildir or an mbox.
//!
//! Files begin with `X-Envelope-From` and `X-Envelope-To` fields, as `mailer send` reads them; the content follows as it came
//! (a Maildir file keeps its CRLF, an mbox has LF and `>`-quoted From_ lines: mboxrd).
//!
//! INVARIANT: an error of [`Store::keep`] means that the message was not kept; the client is told so.
//!
//! Limits: nothing is synced to disk. This is a test receiver.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::config::{SinkError, Storage};

/// A message that was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// Which session brought it; counts from 1 in order of the connections.
    pub session: u64,
    /// The client's end of the connection.
    pub peer: SocketAddr,
    /// Our end.
    pub server: SocketAddr,
    /// Empty for the null reverse-path.
    pub reverse_path: String,
    /// As accepted, in their order.
    pub recipients: Vec<String>,
    /// Without dot-stuffing, possibly cut at the storage's limit.
    pub content: Vec<u8>,
    /// Octets of the whole content.
    pub content_bytes: u64,
    /// BODY=8BITMIME was declared.
    pub eight_bit: bool,
    /// SMTPUTF8 was declared.
    pub smtputf8: bool,
    /// It came inside TLS.
    pub tls: bool,
}

/// Where messages go.
pub(super) enum Store {
    Count,
    Memory {
        content_bytes_max: usize,
        messages: Mutex<Vec<Received>>,
    },
    Maildir {
        directory: PathBuf,
        number: AtomicU64,
    },
    Mbox(Mutex<File>),
}

impl Store {
    /// Makes or opens what is needed.
    pub fn open(storage: &Storage) -> Result<Store, SinkError> {
        let attempt = |path: &Path| format!("keep messages in {}", path.display());
        match storage {
            Storage::Count => Ok(Store::Count),
            Storage::Memory { content_bytes_max } => Ok(Store::Memory {
                content_bytes_max: *content_bytes_max,
                messages: Mutex::default(),
            }),
            Storage::Maildir(directory) => {
                for sub in ["tmp", "new", "cur"] {
                    fs::create_dir_all(directory.join(sub))
                        .map_err(|cause| SinkError::new(attempt(directory), cause))?;
                }
                Ok(Store::Maildir {
                    directory: directory.clone(),
                    number: AtomicU64::new(0),
                })
            }
            Storage::Mbox(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                let file = file.map_err(|cause| SinkError::new(attempt(path), cause))?;
                Ok(Store::Mbox(Mutex::new(file)))
            }
        }
    }

    /// How much of a message's content is to be handed over.
    pub fn content_bytes_wanted(&self) -> usize {
        match self {
            Store::Count => 0,
            Store::Memory {
                content_bytes_max, ..
            } => *content_bytes_max,
            Store::Maildir { .. } | Store::Mbox(_) => usize::MAX,
        }
    }

    /// Keeps a message. `make` is called only if it is wanted.
    pub fn keep(&self, make: impl FnOnce() -> Received) -> io::Result<()> {
        match self {
            Store::Count => Ok(()),
            Store::Memory { messages, .. } => {
                let message = make();
                messages
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(message);
                Ok(())
            }
            Store::Maildir { directory, number } => {
                write_maildir(directory, number.fetch_add(1, Ordering::Relaxed), &make())
            }
            Store::Mbox(file) => {
                let bytes = mbox_entry(&make());
                // One write, so that entries of several sessions cannot mix.
                file.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .write_all(&bytes)
            }
        }
    }

    /// Copies of the messages in memory.
    pub fn messages(&self) -> Vec<Received> {
        match self {
            Store::Memory { messages, .. } => messages
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            _ => Vec::new(),
        }
    }
}

fn write_maildir(directory: &Path, number: u64, message: &Received) -> io::Result<()> {
    let seconds = jiff::Timestamp::now().as_second();
    let name = format!("{seconds}.{}_{number}.sink", std::process::id());
    let unfinished = directory.join("tmp").join(&name);
    let mut bytes = envelope_fields(message, "\r\n");
    bytes.extend_from_slice(&message.content);
    let written = fs::write(&unfinished, bytes)
        .and_then(|()| fs::rename(&unfinished, directory.join("new").join(&name)));
    if written.is_err() {
        // What is left in tmp would be swept up one day; try to be tidy, the error that counts is the first.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn envelope_fields(message: &Received, line_end: &str) -> Vec<u8> {
    let mut fields = format!("X-Envelope-From: <{}>{line_end}", message.reverse_path);
    for recipient in &message.recipients {
        fields.push_str(&format!("X-Envelope-To: <{recipient}>{line_end}"));
    }
    fields.into_bytes()
}

/// One entry of an mboxrd file.
fn mbox_entry(message: &Received) -> Vec<u8> {
    let sender = match message.reverse_path.as_str() {
        "" => "MAILER-DAEMON",
        path => path,
    };
    // Spaces (quoted local parts) would make the From_ line ambiguous.
    let sender = sender.replace(char::is_whitespace, "_");
    let time = jiff::Timestamp::now();
    let mut out = format!("From {sender} {}\n", time.strftime("%a %b %e %H:%M:%S %Y")).into_bytes();
    out.extend_from_slice(&envelope_fields(message, "\n"));
    for line in message.content.split_inclusive(|&b| b == b'\n') {
        let (text, ended) = match line.strip_suffix(b"\n") {
            Some(text) => (text.strip_suffix(b"\r").unwrap_or(text), true),
            None => (line, false),
        };
        let unquoted = text.iter().position(|&b| b != b'>').unwrap_or(text.len());
        if text[unquoted..].starts_with(b"From ") {
            out.push(b'>');
        }
        out.extend_from_slice(text);
        if ended {
            out.push(b'\n');
        }
    }
    if !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Received {
        Received {
            session: 1,
            peer: "127.0.0.1:1".parse().unwrap(),
            server: "127.0.0.1:2".parse().unwrap(),
            reverse_path: "a@a.test".into(),
            recipients: vec!["b@b.test".into(), "c@c.test".into()],
            content: b"Subject: x\r\n\r\nFrom here\r\n>From there\r\nfrom\r\n".to_vec(),
            content_bytes: 47,
            eight_bit: false,
            smtputf8: false,
            tls: false,
        }
    }

    #[test]
    fn an_mbox_entry_is_quoted_so_that_it_can_be_read_back() {
        let text = String::from_utf8(mbox_entry(&message())).unwrap();
        assert!(text.starts_with("From a@a.test "), "{text}");
        assert!(text.ends_with(
            "X-Envelope-From: <a@a.test>\nX-Envelope-To: <b@b.test>\nX-Envelope-To: <c@c.test>\n\
             Subject: x\n\n>From here\n>>From there\nfrom\n\n"
        ));
    }

    #[test]
    fn maildir_and_mbox_grow_by_each_message() {
        let directory = tempfile::tempdir().unwrap();
        let maildir = Store::open(&Storage::Maildir(directory.path().join("m"))).unwrap();
        let mbox_path = directory.path().join("mbox");
        let mbox = Store::open(&Storage::Mbox(mbox_path.clone())).unwrap();
        for store in [&maildir, &mbox] {
            store.keep(message).unwrap();
            store.keep(message).unwrap();
        }
        assert_eq!(
            fs::read_dir(directory.path().join("m/new"))
                .unwrap()
                .count(),
            2
        );
        let text = fs::read_to_string(mbox_path).unwrap();
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with("From "))
                .count(),
            2
        );
    }

    #[test]
    fn what_cannot_be_kept_is_an_error_that_names_the_place() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Store::open(&Storage::Maildir(file.clone())).err().unwrap();
        assert!(error.to_string().contains("file"), "{error}");
        let store = Store::open(&Storage::Maildir(directory.path().join("m"))).unwrap();
        fs::remove_dir_all(directory.path().join("m")).unwrap();
        assert!(store.keep(message).is_err());
    }
}
