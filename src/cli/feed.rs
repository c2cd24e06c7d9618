//! An mbox of messages of a job for some of their recipients, to be sent as a batch of its own: mboxrd, with the envelopes in
//! X-Envelope-From and X-Envelope-To.
//!
//! Messages are written as they would leave, but with LF line ends. Fields for the envelope never leave, so the new ones are
//! the only ones. A message that cannot be loaded (it is invalid, or its file has changed) is left out.
//!
//! Memory: the largest message.

use std::io::{self, Write};

use crate::batch::{BatchStore, Content};
use crate::mail::{Mailbox, MessageNo, RecipientNo, ReversePath};

/// Recipients of one copy of a message; a message to very many takes several copies.
const RECIPIENTS_MAX: usize = 1000;
/// The sender in From_ lines: nobody reads it, the envelope is in the header.
const FROM_LINE: &[u8] = b"From MAILER-DAEMON Thu Jan  1 00:00:00 1970\n";

/// How much was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fed {
    /// Messages, each counted once.
    pub messages: u64,
    /// Recipients of them.
    pub recipients: u64,
}

/// Such an mbox in the making.
pub struct Feed<'a, W: Write> {
    store: &'a BatchStore,
    out: io::Result<W>,
    content: Content,
    /// The message whose recipients are being collected.
    message: Option<MessageNo>,
    mailboxes: Vec<Mailbox>,
    is_counted: bool,
    fed: Fed,
}

impl<'a, W: Write> Feed<'a, W> {
    /// An empty one.
    pub fn new(store: &'a BatchStore, out: W) -> Feed<'a, W> {
        Feed {
            store,
            out: Ok(out),
            content: Content::new(),
            message: None,
            mailboxes: Vec::new(),
            is_counted: false,
            fed: Fed::default(),
        }
    }

    /// Adds a recipient; those of one message one after the other.
    pub fn add(&mut self, message: MessageNo, recipient: RecipientNo) {
        if self.message != Some(message) {
            self.write_message();
            self.message = Some(message);
            self.is_counted = false;
        }
        if let Some((_, Ok(mailbox))) = self.store.address(recipient) {
            self.mailboxes.push(mailbox);
        }
        if self.mailboxes.len() == RECIPIENTS_MAX {
            self.write_message();
        }
    }

    /// Writes the message under way for the recipients collected.
    fn write_message(&mut self) {
        let mailboxes = std::mem::take(&mut self.mailboxes);
        let (Some(message), false, Ok(out)) = (self.message, mailboxes.is_empty(), &mut self.out)
        else {
            return;
        };
        if self.store.load(message, &mut self.content).is_err() {
            return;
        }
        let bytes = self.content.bytes();
        match write_message(out, self.content.reverse_path(), &mailboxes, bytes) {
            Err(error) => self.out = Err(error),
            Ok(()) => {
                self.fed.messages += u64::from(!self.is_counted);
                self.fed.recipients += mailboxes.len() as u64;
                self.is_counted = true;
            }
        }
    }

    /// Writes what is left, and hands back where it was written to.
    pub fn finish(mut self) -> (io::Result<W>, Fed) {
        self.write_message();
        (self.out, self.fed)
    }
}

fn write_message(
    out: &mut impl Write,
    reverse_path: &ReversePath,
    mailboxes: &[Mailbox],
    canonical: &[u8],
) -> io::Result<()> {
    out.write_all(FROM_LINE)?;
    writeln!(out, "X-Envelope-From: {reverse_path}")?;
    for mailbox in mailboxes {
        writeln!(out, "X-Envelope-To: <{}>", mailbox.as_str())?;
    }
    for line in canonical.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r\n").unwrap_or(line);
        if is_quoted(line) {
            out.write_all(b">")?;
        }
        out.write_all(line)?;
        out.write_all(b"\n")?;
    }
    out.write_all(b"\n")
}

/// A line that mboxrd quotes once more: "From " behind any number of `>`.
fn is_quoted(line: &[u8]) -> bool {
    let quotes = line.iter().take_while(|byte| **byte == b'>').count();
    line[quotes..].starts_with(b"From ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_quoted_as_mboxrd_has_it() {
        let mut out = Vec::new();
        let mailboxes = [Mailbox::parse(b"c@d.test").unwrap()];
        let canonical = b"Subject: x\r\n\r\nFrom me\r\n>From you\r\n From\r\n>>Fro\r\n";
        write_message(&mut out, &ReversePath::Null, &mailboxes, canonical).unwrap();
        let text = String::from_utf8(out).unwrap();
        let wanted = "From MAILER-DAEMON Thu Jan  1 00:00:00 1970\nX-Envelope-From: <>\nX-Envelope-To: <c@d.test>\n\
            Subject: x\n\n>From me\n>>From you\n From\n>>Fro\n\n";
        assert_eq!(text, wanted);
    }
}
