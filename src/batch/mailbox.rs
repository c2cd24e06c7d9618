//! The messages of a mailbox that came back, one after the other and as they are: an mbox, a Maildir, a single message, or
//! any of the first and last as a stream.
//!
//! INVARIANTS: memory is a window and the first [`MESSAGE_BYTES_MAX`] of one message, whatever comes; the files are only read.
//! Errors: what cannot be read, and what is neither mbox nor message; messages before it have been seen.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::maildir::PARTS;
use super::source::{Input, list};
use super::window::Window;
use crate::mbox::MboxFlavour;
use crate::mbox::sniff::{FileKind, kind};
use crate::mbox::splitter::{Splitter, Step, WINDOW_BYTES_MIN};

/// So much of a message is kept; what machines say in bounces comes early in them.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Hands each message of `input` to `each`.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`]: no mailbox. Any other: the input cannot be read.
pub fn each_message(input: Input, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    match input {
        Input::Stream(_, mut stream) => of_stream(&mut stream, each),
        Input::Path(path) if path.is_dir() => of_maildir(&path, each),
        Input::Path(path) => of_stream(&mut File::open(path)?, each),
    }
}

fn of_maildir(path: &Path, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let parts: Vec<_> = PARTS.iter().map(|part| path.join(part)).collect();
    if !parts.iter().any(|part| part.is_dir()) {
        return Err(no_mailbox(
            "a directory without new/ and cur/ is no Maildir",
        ));
    }
    for part in parts.iter().filter(|part| part.is_dir()) {
        for name in list(part)? {
            let mut message = Vec::new();
            let file = match File::open(part.join(name)) {
                // A mail reader may move a message while the Maildir is read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            file.take(MESSAGE_BYTES_MAX as u64)
                .read_to_end(&mut message)?;
            each(&message);
        }
    }
    Ok(())
}

fn of_stream(stream: &mut dyn Read, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut window = Window::new();
    while window.bytes().len() < WINDOW_BYTES_MIN && !window.is_at_eof() {
        window.fill(|_, buffer| stream.read(buffer))?;
    }
    match kind(window.bytes()) {
        FileKind::Empty => Ok(()),
        FileKind::Mbox => of_mbox(&mut window, stream, each),
        FileKind::Message => {
            let mut message = window.bytes().to_vec();
            let more = MESSAGE_BYTES_MAX.saturating_sub(message.len());
            stream.take(more as u64).read_to_end(&mut message)?;
            each(&message);
            Ok(())
        }
        FileKind::Compressed(by, command) => Err(no_mailbox(&format!(
            "compressed by {by}: {command} FILE | mailer bounces -"
        ))),
        _ => Err(no_mailbox("neither an mbox nor a message")),
    }
}

fn of_mbox(
    window: &mut Window,
    stream: &mut dyn Read,
    each: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    let mut splitter = Splitter::new(MboxFlavour::Rd);
    let mut message = Vec::new();
    loop {
        match splitter.next(window.bytes(), window.is_at_eof()) {
            Step::More => window.fill(|_, buffer| stream.read(buffer))?,
            Step::Skip(len) => window.consume(len),
            Step::Begin(len) => {
                message.clear();
                window.consume(len);
            }
            Step::Content(len) | Step::Suspect(len, _) => {
                let room = MESSAGE_BYTES_MAX.saturating_sub(message.len());
                message.extend_from_slice(&window.bytes()[..len.min(room)]);
                window.consume(len);
            }
            Step::Fault(_) => {}
            Step::End => each(&message),
            Step::Done => return Ok(()),
        }
    }
}

fn no_mailbox(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
