//! Batches of small messages. Each has a number in its Message-ID, which is its number in the report, so that what arrives
//! can be compared with what was reported.

/// The line before each message of an mbox file.
pub const FROM_LINE: &str = "From sender@batch.test Thu Jan  1 00:00:00 2026\n";

/// An mbox in the making.
#[derive(Clone, Default)]
pub struct Batch {
    text: Vec<u8>,
    count: usize,
}

impl Batch {
    /// One message for each recipient.
    pub fn to_each<S: AsRef<str>>(recipients: impl IntoIterator<Item = S>) -> Batch {
        let mut batch = Batch::default();
        for recipient in recipients {
            batch.add(&[recipient.as_ref()]);
        }
        batch
    }

    /// `count` messages, to `u1@domain`, `u2@domain` ...
    pub fn to_domain(domain: &str, count: usize) -> Batch {
        Batch::to_each((1..=count).map(|n| format!("u{n}@{domain}")))
    }

    /// One message more, for these recipients.
    pub fn add(&mut self, recipients: &[&str]) -> &mut Batch {
        self.add_with(recipients, "", b"hello\n")
    }

    /// One message more, with further header fields (whole lines) and this body.
    pub fn add_with(&mut self, recipients: &[&str], fields: &str, body: &[u8]) -> &mut Batch {
        self.count += 1;
        let from_line = if self.text.is_empty() { "" } else { "\n" };
        self.text.extend_from_slice(from_line.as_bytes());
        self.text.extend_from_slice(FROM_LINE.as_bytes());
        self.text
            .extend_from_slice(message(self.count, recipients, fields).as_bytes());
        self.text.extend_from_slice(body);
        self
    }

    /// The messages of another batch after those of this one.
    pub fn bytes(&self) -> &[u8] {
        &self.text
    }
}

/// The header of message number `number`, with the empty line after it.
pub fn message(number: usize, recipients: &[&str], fields: &str) -> String {
    let to: String = recipients
        .iter()
        .map(|recipient| format!("X-Envelope-To: <{recipient}>\n"))
        .collect();
    format!(
        "X-Envelope-From: <sender@batch.test>\n{to}From: sender@batch.test\n\
         Date: Thu, 01 Jan 2026 00:00:00 +0000\nMessage-ID: <{number}@batch.test>\n{fields}\
         Subject: number {number}\n\n"
    )
}

/// The number of a message that has arrived.
pub fn number_of(content: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(content);
    let id = text
        .split_once("Message-ID: <")
        .and_then(|(_, rest)| rest.split_once("@batch.test>"));
    id.and_then(|(number, _)| number.parse().ok())
        .unwrap_or_else(|| panic!("no number in {text}"))
}
