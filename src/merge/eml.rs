//! A template that is a complete message, as a mail program saved it: its texts are decoded, what is attached is kept.

use mail_parser::{MessageParser, MimeHeaders, PartType};

/// A file that a message carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Carried {
    pub(super) name: String,
    pub(super) content_type: String,
    /// What `cid:` names it by in HTML; `None` if it is attached.
    pub(super) content_id: Option<String>,
    pub(super) bytes: Vec<u8>,
}

/// The parts of a message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Parts {
    pub(super) text: Option<String>,
    pub(super) html: Option<String>,
    pub(super) carried: Vec<Carried>,
}

/// The parts of a complete message; `None` if it is none.
pub(super) fn parts(bytes: &[u8]) -> Option<Parts> {
    let message = MessageParser::new().parse(bytes)?;
    let mut parts = Parts::default();
    for (id, part) in message.parts.iter().enumerate() {
        let id = id as u32;
        match &part.body {
            PartType::Text(text) if message.text_body.contains(&id) && parts.text.is_none() => {
                parts.text = Some(unix(text));
            }
            PartType::Html(text) if message.html_body.contains(&id) && parts.html.is_none() => {
                parts.html = Some(unix(text));
            }
            PartType::Multipart(_) => {}
            _ => {
                let content_type = part.content_type().map_or_else(
                    || "application/octet-stream".to_owned(),
                    |kind| {
                        format!(
                            "{}/{}",
                            kind.c_type,
                            kind.c_subtype.as_deref().unwrap_or("*")
                        )
                    },
                );
                parts.carried.push(Carried {
                    name: part.attachment_name().unwrap_or_default().to_owned(),
                    content_type,
                    content_id: part.content_id().map(str::to_owned),
                    bytes: part.contents().to_vec(),
                });
            }
        }
    }
    Some(parts)
}

/// The text of a header field with its encoded-words (RFC 2047) decoded.
pub(super) fn decoded(value: &str) -> String {
    if !value.contains("=?") {
        return value.to_owned();
    }
    let field = format!("Subject: {value}\r\n\r\n");
    let message = MessageParser::new().parse(field.as_bytes());
    let subject = message.as_ref().and_then(|message| message.subject());
    subject.unwrap_or(value).to_owned()
}

/// Lines that end as ours do.
pub(super) fn unix(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}
