//! Delivery status notifications by request (RFC 3461): what is asked of the server, and how it is written.
//!
//! Values leave in xtext (section 4): no byte of an envelope identifier or an address can end a parameter or a line. The
//! parameters are written by `command::write` alone, and only to a server that offers DSN.
//!
//! INVARIANTS: what is written here is printable ASCII without space, "=" or "+" but as xtext has them. Nothing panics.
//! Limit: one wish for all recipients of a transaction.

use std::io::Write as _;

/// The longest ENVID and ORCPT value (RFC 3461 section 4), and what they and their keywords add to a line.
const ENVID_BYTES_MAX: usize = 100;
const ORCPT_BYTES_MAX: usize = 500;
/// What the parameters of MAIL add to the length of its line.
pub(super) const MAIL_BYTES: usize = " RET=FULL ENVID=".len() + ENVID_BYTES_MAX;
/// What the parameters of RCPT add to the length of its line.
pub(super) const RCPT_BYTES: usize = " NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=".len() + ORCPT_BYTES_MAX;

/// How much of the message a notification of failure brings back (RFC 3461 4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header.
    Hdrs,
}

/// When the server notifies (RFC 3461 4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notify {
    /// Under no circumstances.
    Never,
    /// In the cases chosen; with none chosen it is left to the server.
    On {
        /// It was delivered.
        success: bool,
        /// It could not be delivered.
        failure: bool,
        /// It is late.
        delay: bool,
    },
}

/// What notifications are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dsn {
    /// What a notification of failure brings back; `None`: the server's choice.
    pub ret: Option<Ret>,
    /// Our name for the envelope, repeated in notifications: printable ASCII, at most 100 bytes in xtext.
    pub envid: Option<String>,
    /// When; `None`: the server's choice.
    pub notify: Option<Notify>,
    /// Tell the server the original recipient: the forward-path itself.
    pub orcpt: bool,
}

impl Dsn {
    /// True if the envelope identifier can be sent.
    pub fn is_sayable(&self) -> bool {
        self.envid.as_deref().is_none_or(|envid| {
            let is_printable = envid.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            is_printable && !envid.is_empty() && xtext(envid).len() <= ENVID_BYTES_MAX
        })
    }

    /// Writes the parameters of MAIL; the identifier must be sayable.
    pub(super) fn write_mail(&self, out: &mut Vec<u8>) {
        match self.ret {
            Some(Ret::Full) => out.extend_from_slice(b" RET=FULL"),
            Some(Ret::Hdrs) => out.extend_from_slice(b" RET=HDRS"),
            None => {}
        }
        if let Some(envid) = &self.envid {
            out.extend_from_slice(b" ENVID=");
            out.extend_from_slice(xtext(envid).as_bytes());
        }
    }

    /// Writes the parameters of RCPT for `path`.
    pub(super) fn write_rcpt(&self, path: &str, out: &mut Vec<u8>) {
        if let Some(notify) = self.notify {
            notify.write(out);
        }
        if self.orcpt {
            let value = if path.is_ascii() {
                format!("rfc822;{}", xtext(path))
            } else {
                format!("utf-8;{}", utf8_xtext(path))
            };
            // Longer, the line could not be sent: the server then takes the forward-path itself for the original.
            if value.len() <= ORCPT_BYTES_MAX {
                out.extend_from_slice(b" ORCPT=");
                out.extend_from_slice(value.as_bytes());
            }
        }
    }
}

impl Notify {
    fn write(self, out: &mut Vec<u8>) {
        let cases = match self {
            Notify::Never => return out.extend_from_slice(b" NOTIFY=NEVER"),
            Notify::On {
                success,
                failure,
                delay,
            } => [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")],
        };
        let mut mark: &[u8] = b" NOTIFY=";
        for (_, name) in cases.into_iter().filter(|(chosen, _)| *chosen) {
            out.extend_from_slice(mark);
            out.extend_from_slice(name.as_bytes());
            mark = b",";
        }
    }
}

/// xtext (RFC 3461 section 4): all but printable ASCII, and "+" and "=", as "+" and two digits.
fn xtext(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' | 0..=b' ' | 0x7f.. => {
                // Writing to a Vec cannot fail.
                let _ = write!(out, "+{byte:02X}");
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).expect("xtext is ASCII")
}

/// utf-8-addr-xtext (RFC 6533 section 3): what is not a plain character, as `\x{..}`.
fn utf8_xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '+' | '=' | '\\' => out.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
            '!'..='~' => out.push(c),
            _ => out.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rcpt(dsn: &Dsn, path: &str) -> String {
        let mut out = Vec::new();
        dsn.write_rcpt(path, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_cannot_leave_their_parameter() {
        let dsn = Dsn {
            ret: Some(Ret::Hdrs),
            envid: Some("a b+c=d>".into()),
            notify: Some(Notify::Never),
            orcpt: true,
        };
        let mut out = Vec::new();
        dsn.write_mail(&mut out);
        assert_eq!(out, b" RET=HDRS ENVID=a+20b+2Bc+3Dd>");
        assert_eq!(
            rcpt(&dsn, "\"x y\"+z@b.test"),
            " NOTIFY=NEVER ORCPT=rfc822;\"x+20y\"+2Bz@b.test"
        );
        assert_eq!(
            rcpt(&dsn, "ä+\\@b.test"),
            " NOTIFY=NEVER ORCPT=utf-8;\\x{E4}\\x{2B}\\x{5C}@b.test"
        );
    }

    #[test]
    fn cases_are_listed_and_none_is_nothing() {
        let on = |success, failure, delay| Dsn {
            notify: Some(Notify::On {
                success,
                failure,
                delay,
            }),
            ..Dsn::default()
        };
        assert_eq!(
            rcpt(&on(true, true, true), "a@b"),
            " NOTIFY=SUCCESS,FAILURE,DELAY"
        );
        assert_eq!(rcpt(&on(false, true, false), "a@b"), " NOTIFY=FAILURE");
        assert_eq!(rcpt(&on(false, false, false), "a@b"), "");
        assert_eq!(rcpt(&Dsn::default(), "a@b"), "");
    }

    #[test]
    fn identifiers_are_short_and_printable() {
        let of = |envid: &str| Dsn {
            envid: Some(envid.into()),
            ..Dsn::default()
        };
        assert!(of("job 7/12").is_sayable());
        for envid in ["", "a\r\nb", "ä", "\0", &"x".repeat(101), &"+".repeat(34)] {
            assert!(!of(envid).is_sayable(), "{envid:?}");
        }
    }

    #[test]
    fn an_original_recipient_that_is_too_long_is_left_out() {
        let dsn = Dsn {
            orcpt: true,
            ..Dsn::default()
        };
        assert_eq!(rcpt(&dsn, &format!("{}@b.test", "+".repeat(200))), "");
    }
}
