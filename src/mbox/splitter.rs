//! Finds the messages of an mbox while it is being read.
//!
//! The caller holds a window of unread bytes and asks [`Splitter::next`] what its beginning is; each answer says how many bytes
//! it covers, and [`Step::More`] asks for a longer window. What is covered can be dropped: the splitter itself keeps no bytes, and
//! never asks for more than [`WINDOW_BYTES_MIN`]. How the file is cut into windows makes no difference to where messages begin
//! and end.
//!
//! A From_ line separates messages at the beginning of the file and after an empty line, and only with a date in it; the
//! empty line belongs to it. Lines that come close are content, and reported ([`Suspect`]): if one was meant as a separator, two
//! messages have become one, and the caller must decide what to do about it. In mboxcl2 Content-Length alone decides where a
//! message ends (see `content_length`).
//!
//! Plain content is passed over at the speed of a substring search.

mod content_length;

use super::MboxFlavour;
use super::fault::Fault;
use super::from_line::{FROM_LINE_OCTETS_MAX, Look, look};
use super::line_end_len;
use content_length::ContentLength;
use memchr::memmem::Finder;

/// With a window of this many bytes a step other than [`Step::More`] is certain.
pub const WINDOW_BYTES_MIN: usize = 64 * 1024;

/// Why a line looks like a separator that somebody forgot to quote or to set off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suspect {
    /// `From ` after an empty line, but without a date.
    Dateless,
    /// A complete From_ line, but not after an empty line.
    NoEmptyLine,
}

/// What the beginning of the window is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Not to be told yet: ask again with more bytes, or with the end of the file.
    More,
    /// So many bytes belong to no message.
    Skip(usize),
    /// A message begins; its From_ line has so many bytes.
    Begin(usize),
    /// So many bytes of content.
    Content(usize),
    /// So many bytes of content, in which a line looks like a separator and is not.
    Suspect(usize, Suspect),
    /// The message cannot be sent, for this reason. Covers nothing.
    Fault(Fault),
    /// The message ends before the window. Covers nothing.
    End,
    /// The file ends.
    Done,
}

/// Where the beginning of the window is. Moves: Between -> Content -> Between for mboxrd and mboxo; Between -> Header -> Body
/// -> Behind -> Between for mboxcl2, with a way out to Content once a Content-Length turned out wrong.
#[derive(Debug)]
enum State {
    /// Before a message: empty lines, then a From_ line.
    Between,
    /// In a message that a separator ends; at the beginning of a line or within one.
    Content { at_line_start: bool },
    /// In the header of an mboxcl2 message.
    Header(ContentLength),
    /// In its body, with so many bytes to come.
    Body { left: u64 },
    /// Behind its body, where a separator must follow.
    Behind,
}

/// The splitter of one mbox.
#[derive(Debug)]
pub struct Splitter {
    flavour: MboxFlavour,
    state: State,
    from_at_line_start: Finder<'static>,
}

impl Splitter {
    /// A splitter at the beginning of a file.
    pub fn new(flavour: MboxFlavour) -> Splitter {
        Splitter {
            flavour,
            state: State::Between,
            from_at_line_start: Finder::new(b"\nFrom "),
        }
    }

    /// What the beginning of `window` is. `at_eof`: the file ends with the window.
    pub fn next(&mut self, window: &[u8], at_eof: bool) -> Step {
        match &mut self.state {
            State::Between => self.between(window, at_eof),
            State::Content { at_line_start } => {
                let at_line_start = *at_line_start;
                self.content(window, at_line_start, at_eof)
            }
            State::Header(length) => match length.header_step(window, at_eof) {
                Ok(step) => step,
                Err(Ok(left)) => self.goto(State::Body { left }, window, at_eof),
                Err(Err(fault)) => {
                    self.state = State::Content {
                        at_line_start: true,
                    };
                    Step::Fault(fault)
                }
            },
            State::Body { left } => {
                let len = window
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= len as u64;
                match (len, *left) {
                    (0, 0) => self.goto(State::Behind, window, at_eof),
                    (0, missing) if at_eof => {
                        self.state = State::Content {
                            at_line_start: true,
                        };
                        Step::Fault(Fault::Truncated(missing))
                    }
                    (0, _) => Step::More,
                    _ => Step::Content(len),
                }
            }
            State::Behind => self.behind(window, at_eof),
        }
    }

    fn goto(&mut self, state: State, window: &[u8], at_eof: bool) -> Step {
        self.state = state;
        self.next(window, at_eof)
    }

    fn between(&mut self, window: &[u8], at_eof: bool) -> Step {
        match (window.first(), line_end_len(window)) {
            (None, _) if at_eof => return Step::Done,
            (None, _) => return Step::More,
            (Some(b'\r'), 0) if window.len() == 1 && !at_eof => return Step::More,
            (_, 0) => {}
            (_, empty_line) => return Step::Skip(empty_line),
        }
        let from_line_len = match look(window, at_eof) {
            Look::Undecided => return Step::More,
            Look::Separator(len) | Look::Dateless(len) => len,
            Look::Other => 0, // only at the beginning of a file that is no mbox: one message of its own
        };
        self.state = match self.flavour {
            MboxFlavour::Cl2 => State::Header(ContentLength::default()),
            MboxFlavour::Rd | MboxFlavour::O => State::Content {
                at_line_start: true,
            },
        };
        Step::Begin(from_line_len)
    }

    /// Content up to the next line that must be looked at. An empty line at the end of the window is held back until it is
    /// known whether a separator follows.
    fn content(&mut self, window: &[u8], at_line_start: bool, at_eof: bool) -> Step {
        if window.is_empty() && !at_eof {
            return Step::More;
        }
        let mut certain = 0; // bytes at the beginning that are known to be content
        if at_line_start {
            match self.line_start(window, at_eof) {
                Ok(len) => certain = len,
                Err(step) => return step,
            }
        } else if window.is_empty() {
            return self.end();
        }
        let search_from = certain.saturating_sub(1);
        let line = self.from_at_line_start.find(&window[search_from..]);
        let len = if let Some(lf) = line.map(|i| search_from + i) {
            // Stop before that line; before the empty line, if one precedes it.
            empty_line_before(window, lf + 1, at_line_start).unwrap_or(lf + 1)
        } else if at_eof {
            // The last empty line of the file belongs to no message.
            empty_line_before(window, window.len(), at_line_start).unwrap_or(window.len())
        } else {
            self.complete_lines(window, at_line_start)
        };
        match len.max(certain) {
            0 => Step::More,
            len => self.advance(window, len),
        }
    }

    /// Looks at a line start: `Ok` with the bytes that are plain content for certain, `Err` with a step.
    fn line_start(&mut self, window: &[u8], at_eof: bool) -> Result<usize, Step> {
        let empty_line = line_end_len(window);
        let rest = &window[empty_line..];
        if rest.is_empty() {
            return Err(if at_eof { self.end() } else { Step::More });
        }
        if empty_line == 0 && window == b"\r" && !at_eof {
            return Err(Step::More);
        }
        match look(rest, at_eof) {
            Look::Undecided => Err(Step::More),
            Look::Other => Ok(empty_line),
            Look::Separator(_) if empty_line > 0 => Err(self.end()),
            Look::Separator(len) => Err(self.suspect(len, Suspect::NoEmptyLine)),
            Look::Dateless(len) if empty_line > 0 => {
                Err(self.suspect(empty_line + len, Suspect::Dateless))
            }
            Look::Dateless(len) => Ok(len),
        }
    }

    /// Without the end of the file: the lines that are complete, but for an empty one at the end. A line that does not end
    /// within the smallest window is passed on in pieces.
    fn complete_lines(&self, window: &[u8], at_line_start: bool) -> usize {
        let lines = memchr::memrchr(b'\n', window).map_or(0, |lf| lf + 1);
        let len = empty_line_before(window, lines, at_line_start).unwrap_or(lines);
        if len == 0 && window.len() >= WINDOW_BYTES_MIN {
            return window.len();
        }
        len
    }

    fn advance(&mut self, window: &[u8], len: usize) -> Step {
        self.state = State::Content {
            at_line_start: window[len - 1] == b'\n',
        };
        Step::Content(len)
    }

    fn suspect(&mut self, len: usize, why: Suspect) -> Step {
        self.state = State::Content {
            at_line_start: true,
        };
        Step::Suspect(len, why)
    }

    fn end(&mut self) -> Step {
        self.state = State::Between;
        Step::End
    }

    /// mboxcl2, behind the body: at most the end of its last line and one empty line, then a From_ line or the end.
    fn behind(&mut self, window: &[u8], at_eof: bool) -> Step {
        let first = line_end_len(window);
        let second = line_end_len(&window[first..]);
        let rest = &window[first + second..];
        let undecided = rest.is_empty() || rest == b"\r" || look(rest, at_eof) == Look::Undecided;
        if undecided && !at_eof {
            return Step::More;
        }
        if rest.is_empty() || matches!(look(rest, at_eof), Look::Separator(_)) {
            return self.end();
        }
        // Find the next separator as in the other flavours; what lies in between belongs to the broken message.
        self.state = State::Content {
            at_line_start: false,
        };
        Step::Fault(Fault::WrongContentLength)
    }
}

/// The start of the empty line that ends at `end`, which is the start of a line.
fn empty_line_before(window: &[u8], end: usize, at_line_start: bool) -> Option<usize> {
    let before = window[..end].strip_suffix(b"\n")?;
    let before = before.strip_suffix(b"\r").unwrap_or(before);
    let is_line_start = before.last().map_or(at_line_start, |&b| b == b'\n');
    is_line_start.then_some(before.len())
}

const _: () = assert!(WINDOW_BYTES_MIN > 2 * FROM_LINE_OCTETS_MAX);

#[cfg(test)]
mod tests;
