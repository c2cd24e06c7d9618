//! What is refused without a word to the server: it could not take it, or it cannot be said.

use super::Mail;
use crate::mail::{Enhanced, Scope, Stage, Status, Verdict};
use crate::smtp::capabilities::Capabilities;
use crate::smtp::command::BadCommand;

/// A refusal of ours, because the server does not offer what the message needs. Nothing has been sent.
pub(super) fn refusal_of_ours<R>(
    mail: &Mail<'_, R>,
    capabilities: &Capabilities,
) -> Option<Verdict> {
    let refused = |enhanced, text: &str| {
        Some(Verdict::own(
            Status::Refused,
            Scope::Message,
            Stage::Mail,
            enhanced,
            text,
        ))
    };
    match capabilities.size_max {
        // RFC 1870 6.1 leaves it to the client not to try.
        Some(size_max) if mail.size > size_max => {
            let text = format!(
                "the message has {} bytes, the server takes at most {size_max}",
                mail.size
            );
            return refused(Enhanced::new(5, 3, 4), &text);
        }
        _ => {}
    }
    if mail.utf8 && !capabilities.smtputf8 {
        // RFC 6531 3.5.
        let text = "the message needs SMTPUTF8, which the server does not offer";
        return refused(Enhanced::new(5, 6, 7), text);
    }
    if mail.eight_bit && !capabilities.eight_bit_mime {
        // RFC 6152 section 3: convert or fail, never send.
        let text = "the message has 8-bit content, and the server does not offer 8BITMIME";
        return refused(Enhanced::new(5, 6, 3), text);
    }
    None
}

/// A refusal of ours, because an address cannot be said in a command.
pub(super) fn unspeakable(bad: BadCommand, stage: Stage, enhanced: Enhanced) -> Verdict {
    let scope = if stage == Stage::Rcpt {
        Scope::Recipient
    } else {
        Scope::Message
    };
    let enhanced = match bad {
        BadCommand::NotAscii => Enhanced::new(5, 6, 7),
        _ => enhanced,
    };
    Verdict::own(Status::Refused, scope, stage, enhanced, &bad.to_string())
}
