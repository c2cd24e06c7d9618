//! Small batches made by the tests: the mbox, and what must arrive of it.

use std::io::Write as _;
use std::path::PathBuf;

use super::expected::{Expected, digest, normal};

/// A batch that is about to be written.
pub struct Batch {
    mbox: Vec<u8>,
    /// One row per recipient.
    pub expected: Vec<Expected>,
    unique: String,
    directory: tempfile::TempDir,
}

impl Batch {
    /// An empty one.
    pub fn new(label: &str) -> Batch {
        let directory = tempfile::tempdir().expect("a directory for the batch");
        // The directory's random name makes Message-IDs that no other run uses.
        let name = directory
            .path()
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .replace('.', "");
        Batch {
            mbox: Vec::new(),
            expected: Vec::new(),
            unique: format!("{label}{name}"),
            directory,
        }
    }

    /// Adds a message; `quoted` is `body` as an mboxrd file has it.
    pub fn add(&mut self, recipients: &[&str], body: &[u8], quoted: &[u8]) {
        let message = self.expected.last().map_or(1, |row| row.message + 1);
        let id = format!("<{message}.{}@sender.test>", self.unique);
        let header = format!(
            "From: News <news@sender.test>\nTo: {}\nSubject: awkward\nDate: Mon, 17 Nov 2025 06:00:00 +0100\nMessage-ID: {id}\nX-Folded: one\n\ttwo\n  {}\n\n",
            // sendmail writes lists of addresses anew, in this form; what is in this form already is left alone.
            recipients.join(", "),
            "long ".repeat(180),
        );
        self.mbox
            .extend_from_slice(b"From news@sender.test Mon Nov 17 06:00:00 2025\n");
        self.mbox.extend_from_slice(header.as_bytes());
        self.mbox.extend_from_slice(quoted);
        self.mbox.extend_from_slice(b"\n");
        let digest = digest(&[header.as_bytes(), body].concat());
        self.expected
            .extend(recipients.iter().map(|recipient| Expected {
                message,
                id: id.clone(),
                reverse_path: "news@sender.test".into(),
                recipient: normal(recipient),
                digest: digest.clone(),
                needs_utf8: false,
            }));
    }

    /// Writes it; the file lives as long as the batch.
    pub fn write(&self) -> PathBuf {
        let path = self.directory.path().join("batch.mbox");
        let mut file = std::fs::File::create(&path).expect("the batch file");
        file.write_all(&self.mbox).expect("room for it");
        path
    }
}

/// A plain message to each.
pub fn of_recipients(label: &str, recipients: &[&str]) -> Batch {
    let mut batch = Batch::new(label);
    for recipient in recipients {
        batch.add(&[recipient], b"Hello.\n", b"Hello.\n");
    }
    batch
}

/// `count` messages of about `octets` each, to one recipient each, all of one domain.
pub fn of_size(label: &str, count: usize, octets: usize) -> Batch {
    let mut batch = Batch::new(label);
    let body = "A line of a letter that is like many others.\n".repeat(octets / 45);
    for n in 0..count {
        let recipient = format!("r{n}@many.nodns.test");
        batch.add(&[&recipient], body.as_bytes(), body.as_bytes());
    }
    batch
}

/// Bodies that careless senders change, and one too large for any buffer.
pub fn awkward(label: &str) -> Batch {
    let mut batch = Batch::new(label);
    let to = |n: usize| format!("r{n}@d{n}.nodns.test");
    let same: [&[u8]; 8] = [
        b".\n",
        b"..\n.\n...\n\n.x\n",
        b"\n\n\n",
        b"",
        "Grüße, 8-bit, and a line of 998 octets:\n".as_bytes(),
        b"\xff\xfe not UTF-8 at all\n",
        b"tab\there, trailing blanks  \n \n",
        b"R3LDvMOfZQ==\n.R3LDvMOfZQ==\n",
    ];
    for (n, body) in same.iter().enumerate() {
        batch.add(&[&to(n)], body, body);
    }
    batch.add(
        &[&to(10)],
        b"From here\n>From there\n",
        b">From here\n>>From there\n",
    );
    let longest = [&[b'x'; 998][..], b"\n"].concat();
    batch.add(&[&to(11)], &longest, &longest);
    let large = ".A line that begins with a dot, many times over\n".repeat(20_000);
    batch.add(&[&to(12)], large.as_bytes(), large.as_bytes());
    batch.add(
        &["a@one.nodns.test", "b@one.nodns.test", "c@two.nodns.test"],
        b"to three\n",
        b"to three\n",
    );
    batch
}
