//! Capabilities: what a server offers in its reply to EHLO.
//!
//! A fixed handful of words is understood, all else is passed over: nothing here grows with what a server sends. A word
//! whose parameters make no sense counts as offered without them (SIZE, LIMITS) - a server that cannot count is no reason
//! to be unable to send.
//!
//! Nothing fails or panics. What is learned before STARTTLS must be forgotten after it (RFC 3207 4.2): take
//! [`Capabilities::default`] and ask again.

use std::fmt;

use super::reply::Reply;

/// What the server offers; [`Capabilities::default`] is what plain HELO gives: nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// Commands may be written ahead of their replies (RFC 2920).
    pub pipelining: bool,
    /// SIZE may be declared (RFC 1870).
    pub size: bool,
    /// The largest message the server takes, if it says so. "SIZE 0" says that there is no fixed limit.
    pub size_max: Option<u64>,
    /// 8-bit content (RFC 6152).
    pub eight_bit_mime: bool,
    /// UTF-8 in addresses and header fields (RFC 6531).
    pub smtputf8: bool,
    /// BDAT (RFC 3030).
    pub chunking: bool,
    /// TLS can be started (RFC 3207).
    pub starttls: bool,
    /// Delivery status notifications by request (RFC 3461).
    pub dsn: bool,
    /// Replies bear enhanced status codes (RFC 2034).
    pub enhanced_status_codes: bool,
    /// Mechanisms for AUTH (RFC 4954).
    pub auth: AuthMechanisms,
    /// Limits the server announces (RFC 9422).
    pub limits: Limits,
}

/// Mechanisms that this program may come to use; others are passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AuthMechanisms {
    /// PLAIN (RFC 4616).
    pub plain: bool,
    /// LOGIN (never standardised, offered widely).
    pub login: bool,
    /// CRAM-MD5 (RFC 2195).
    pub cram_md5: bool,
    /// SCRAM-SHA-1 (RFC 5802).
    pub scram_sha_1: bool,
    /// SCRAM-SHA-256 (RFC 7677).
    pub scram_sha_256: bool,
    /// XOAUTH2 (Google's and Microsoft's bearer token).
    pub xoauth2: bool,
    /// OAUTHBEARER (RFC 7628).
    pub oauthbearer: bool,
}

/// Limits of RFC 9422; `None` where the server names none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Transactions in one session.
    pub mail_max: Option<u32>,
    /// Recipients of one transaction.
    pub rcpt_max: Option<u32>,
    /// Recipient domains of one transaction.
    pub rcpt_domain_max: Option<u32>,
}

impl Capabilities {
    /// Reads the reply to EHLO. Its first line is the server's name (RFC 5321 4.1.1.1), the others one word each.
    pub fn from_ehlo(reply: &Reply) -> Capabilities {
        let mut capabilities = Capabilities::default();
        for line in reply.lines().skip(1) {
            capabilities.add_line(line);
        }
        capabilities
    }

    /// Adds what one line offers; words are compared without regard to case (RFC 5321 2.4).
    fn add_line(&mut self, line: &[u8]) {
        // "AUTH=PLAIN LOGIN" is how servers before RFC 2554 spoke; some still say both.
        let mut words = line
            .split(|&byte| matches!(byte, b' ' | b'\t' | b'='))
            .filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else {
            return;
        };
        let is = |name: &str| keyword.eq_ignore_ascii_case(name.as_bytes());
        if is("PIPELINING") {
            self.pipelining = true;
        } else if is("SIZE") {
            self.size = true;
            self.size_max = words.next().and_then(number).filter(|&max| max > 0);
        } else if is("8BITMIME") {
            self.eight_bit_mime = true;
        } else if is("SMTPUTF8") {
            self.smtputf8 = true;
        } else if is("CHUNKING") {
            self.chunking = true;
        } else if is("STARTTLS") {
            self.starttls = true;
        } else if is("DSN") {
            self.dsn = true;
        } else if is("ENHANCEDSTATUSCODES") {
            self.enhanced_status_codes = true;
        } else if is("AUTH") {
            words.for_each(|word| self.auth.add(word));
        } else if is("LIMITS") {
            // Here the '=' separates name and value: take the line again, word by word.
            line.split(|&byte| matches!(byte, b' ' | b'\t'))
                .skip(1)
                .for_each(|word| self.limits.add(word));
        }
    }
}

impl AuthMechanisms {
    fn add(&mut self, word: &[u8]) {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        self.plain |= is("PLAIN");
        self.login |= is("LOGIN");
        self.cram_md5 |= is("CRAM-MD5");
        self.scram_sha_1 |= is("SCRAM-SHA-1");
        self.scram_sha_256 |= is("SCRAM-SHA-256");
        self.xoauth2 |= is("XOAUTH2");
        self.oauthbearer |= is("OAUTHBEARER");
    }
}

impl Limits {
    /// `NAME=VALUE`, the value of one to six digits (RFC 9422 section 3); a limit of 0 would forbid all mail and is
    /// taken for a mistake.
    fn add(&mut self, word: &[u8]) {
        let Some(equals) = memchr::memchr(b'=', word) else {
            return;
        };
        let (name, value) = (&word[..equals], &word[equals + 1..]);
        let value = number(value)
            .filter(|&value| (1..=999_999).contains(&value))
            .map(|value| value as u32);
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        if is("MAILMAX") {
            self.mail_max = value;
        } else if is("RCPTMAX") {
            self.rcpt_max = value;
        } else if is("RCPTDOMAINMAX") {
            self.rcpt_domain_max = value;
        }
    }
}

/// The words of EHLO, in one line.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        let offered = [
            (self.pipelining, "PIPELINING"),
            (self.eight_bit_mime, "8BITMIME"),
            (self.smtputf8, "SMTPUTF8"),
            (self.chunking, "CHUNKING"),
            (self.starttls, "STARTTLS"),
            (self.dsn, "DSN"),
            (self.enhanced_status_codes, "ENHANCEDSTATUSCODES"),
            (self.auth != AuthMechanisms::default(), "AUTH"),
        ];
        for (_, word) in offered.iter().filter(|(is_offered, _)| *is_offered) {
            words.push((*word).to_owned());
        }
        if self.size {
            let max = self.size_max.map(|max| format!("={max}"));
            words.push(format!("SIZE{}", max.unwrap_or_default()));
        }
        let limits = [
            ("MAILMAX", self.limits.mail_max),
            ("RCPTMAX", self.limits.rcpt_max),
            ("RCPTDOMAINMAX", self.limits.rcpt_domain_max),
        ];
        let known = limits
            .iter()
            .filter_map(|(name, max)| Some((name, (*max)?)));
        words.extend(known.map(|(name, max)| format!("{name}={max}")));
        f.write_str(&words.join(" "))
    }
}

/// Decimal digits as a number; `None` if there are none, others among them, or too many (RFC 1870 allows twenty).
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// True for a greeting whose words an old firewall has painted over with asterisks (`220 *****2***0**`): such a box
/// mishandles pipelined commands whatever EHLO offers (known as the PIX bug).
pub fn is_masked_greeting(reply: &Reply) -> bool {
    let text = reply.lines().next().unwrap_or_default();
    let stars = text.iter().filter(|&&byte| byte == b'*').count();
    stars > 3 && stars * 2 >= text.len()
}

#[cfg(test)]
mod tests {
    use super::super::reply::{Progress, ReplyParser};
    use super::*;
    use proptest::prelude::*;

    fn reply(lines: &[&str]) -> Reply {
        let mut parser = ReplyParser::new();
        for (i, line) in lines.iter().enumerate() {
            let mark = if i + 1 == lines.len() { ' ' } else { '-' };
            let (_, progress) = parser.feed(format!("250{mark}{line}\r\n").as_bytes());
            assert!(!matches!(progress, Progress::Garbled(_)));
        }
        parser.reply().clone()
    }

    fn offered(lines: &[&str]) -> Capabilities {
        Capabilities::from_ehlo(&reply(&[&["mx.example"], lines].concat()))
    }

    #[test]
    fn every_word_is_understood_whatever_its_case() {
        let all = offered(&[
            "pipelining",
            "SIZE 1048576",
            "8BitMime",
            "SMTPUTF8",
            "CHUNKING",
            "STARTTLS",
            "DSN",
            "ENHANCEDSTATUSCODES",
            "AUTH PLAIN LOGIN SCRAM-SHA-256",
            "LIMITS RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=1",
        ]);
        let expected = Capabilities {
            pipelining: true,
            size: true,
            size_max: Some(1_048_576),
            eight_bit_mime: true,
            smtputf8: true,
            chunking: true,
            starttls: true,
            dsn: true,
            enhanced_status_codes: true,
            auth: AuthMechanisms {
                plain: true,
                login: true,
                scram_sha_256: true,
                ..AuthMechanisms::default()
            },
            limits: Limits {
                mail_max: Some(5),
                rcpt_max: Some(20),
                rcpt_domain_max: Some(1),
            },
        };
        assert_eq!(all, expected);
        assert_eq!(
            all.to_string(),
            "PIPELINING 8BITMIME SMTPUTF8 CHUNKING STARTTLS DSN ENHANCEDSTATUSCODES AUTH SIZE=1048576 \
             MAILMAX=5 RCPTMAX=20 RCPTDOMAINMAX=1"
        );
        assert_eq!(Capabilities::default().to_string(), "");
    }

    #[test]
    fn the_first_line_offers_nothing() {
        assert_eq!(
            Capabilities::from_ehlo(&reply(&["PIPELINING"])),
            Capabilities::default()
        );
    }

    #[test]
    fn sizes_that_name_no_limit_are_no_limit() {
        for line in [
            "SIZE",
            "SIZE 0",
            "SIZE x",
            "SIZE 99999999999999999999",
            "SIZE 12a",
        ] {
            let capabilities = offered(&[line]);
            assert_eq!(
                (capabilities.size, capabilities.size_max),
                (true, None),
                "{line}"
            );
        }
        assert_eq!(offered(&["SIZE=77"]).size_max, Some(77));
    }

    #[test]
    fn the_old_form_of_auth_is_understood() {
        let auth = offered(&["AUTH=PLAIN xoauth2 GSSAPI"]).auth;
        assert!(auth.plain && auth.xoauth2 && !auth.login);
    }

    #[test]
    fn limits_that_make_no_sense_are_none() {
        let limits = offered(&["LIMITS RCPTMAX=0 MAILMAX=1234567 =3 RCPTDOMAINMAX X=1"]).limits;
        assert_eq!(limits, Limits::default());
    }

    #[test]
    fn junk_is_passed_over() {
        assert_eq!(
            offered(&["", " ", "X-FOO \u{1b}", "PIPELININGX", "=", "XPIPELINING"]),
            Capabilities::default()
        );
    }

    #[test]
    fn a_masked_greeting_is_seen() {
        assert!(is_masked_greeting(&reply(&["********2****0*0*****"])));
        assert!(!is_masked_greeting(&reply(&[
            "mx.example ESMTP ** no spam **"
        ])));
        assert!(!is_masked_greeting(&reply(&[""])));
    }

    proptest! {
        #[test]
        fn no_line_can_make_it_panic(line in prop::collection::vec(any::<u8>(), 0..80)) {
            Capabilities::default().add_line(&line);
        }
    }
}
