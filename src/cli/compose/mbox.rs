//! A composed message in an mbox (mboxrd), with its envelope in the fields that `mailer send` takes first and never sends on.

use std::io::{self, Write};

use crate::mbox::MboxFlavour;
use crate::merge::Composed;

/// Writes a message. `date`: of the separator, as asctime gives it.
pub(super) fn write(out: &mut dyn Write, composed: &Composed, date: &str) -> io::Result<()> {
    let sender = match composed.reverse_path.as_str() {
        // A quoted local part may hold blanks, and the separator must not.
        path if path.is_empty() || path.contains(' ') => "MAILER-DAEMON",
        path => path,
    };
    writeln!(out, "From {sender} {date}")?;
    writeln!(out, "X-Envelope-From: {}", composed.reverse_path)?;
    for (number, recipient) in composed.recipients.iter().enumerate() {
        let (begin, end) = match number {
            0 => ("X-Envelope-To: ", ""),
            _ => (",\n ", ""),
        };
        write!(out, "{begin}{recipient}{end}")?;
    }
    out.write_all(b"\n")?;
    for line in composed.message.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if MboxFlavour::Rd.is_quoted(text) || text.starts_with(b"From ") {
            out.write_all(b">")?;
        }
        out.write_all(text)?;
        out.write_all(b"\n")?;
    }
    out.write_all(b"\n")
}
