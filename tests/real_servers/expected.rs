//! What must arrive: the table that the fixture's generator writes beside it, and rows that tests make of their own messages.

use sha2::{Digest, Sha256};

/// One recipient of one message.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Number of the message in the batch, from 1.
    pub message: u32,
    /// Its Message-ID, with the angle brackets.
    pub id: String,
    /// The reverse-path, without angle brackets.
    pub reverse_path: String,
    /// The forward-path, normalised by [`normal`].
    pub recipient: String,
    /// SHA-256 of the content with LF line ends, in hexadecimal.
    pub digest: String,
    /// True if only a server that offers SMTPUTF8 may get it.
    pub needs_utf8: bool,
}

/// Every recipient of fixtures/newsletter.mbox.
pub fn newsletter() -> Vec<Expected> {
    let table = std::fs::read_to_string("fixtures/newsletter.expected.tsv").expect("the fixture");
    table.lines().skip(1).map(row).collect()
}

fn row(line: &str) -> Expected {
    let columns: Vec<&str> = line.split('\t').collect();
    let [message, id, reverse_path, recipient, digest, needs] = columns[..] else {
        panic!("six columns: {line}")
    };
    Expected {
        message: message.parse().expect("a number"),
        id: id.into(),
        reverse_path: reverse_path.into(),
        recipient: normal(recipient),
        digest: digest.into(),
        needs_utf8: needs == "utf8",
    }
}

/// The digest as the table has it.
pub fn digest(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect()
}

/// An address in the form that is compared: the domain in lower-case A-labels, the local part in lower case too, since Postfix
/// writes it so in Delivered-To.
pub fn normal(address: &str) -> String {
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    let domain = idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.into());
    format!("{}@{}", local.to_lowercase(), domain)
}
