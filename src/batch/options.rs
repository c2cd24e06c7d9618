//! How a batch is to be read: what the command line says about it.

use crate::mail::ReversePath;
use crate::mbox::{MboxFlavour, canonical, envelope};
use std::path::PathBuf;

/// The user's wishes, the same for every input of a batch.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// `--mbox`: mboxrd if not given.
    pub flavour: Option<MboxFlavour>,
    /// `--from`: the reverse-path of messages without `X-Envelope-From`.
    pub from: Option<ReversePath>,
    /// `--resend`: messages that have been on a journey are sent all the same.
    pub resend: bool,
    /// `--to-file`: the recipients of the one message of the batch, one per line.
    pub to_file: Option<PathBuf>,
    /// `--fold-long-lines`: break lines over 998 octets instead of refusing their message.
    pub fold_long_lines: bool,
    /// `--once-per-recipient`: in a job with a name, mail is known by its recipient alone.
    pub once_per_recipient: bool,
    /// Where standard input is kept until it is sent. The file has no name: it vanishes with the process.
    pub spool_dir: PathBuf,
    /// What the user typed behind `mailer`, for hints that say how to type it again.
    pub command: &'static str,
    /// The value of a Date field, for messages without one. The same for all attempts of a run.
    pub date: String,
}

impl ReadOptions {
    /// Nothing special. `date`: RFC 5322 3.3, for messages without a Date.
    pub fn new(date: String) -> ReadOptions {
        ReadOptions {
            flavour: None,
            from: None,
            resend: false,
            to_file: None,
            fold_long_lines: false,
            once_per_recipient: false,
            spool_dir: std::env::temp_dir(),
            command: "send",
            date,
        }
    }

    pub(super) fn envelope_rules(&self) -> envelope::Rules<'_> {
        envelope::Rules {
            from: self.from.as_ref(),
            resend: self.resend,
            recipients_elsewhere: self.to_file.is_some(),
        }
    }

    pub(super) fn canonical_rules(&self, flavour: Option<MboxFlavour>) -> canonical::Rules<'_> {
        canonical::Rules {
            flavour,
            fold_long_lines: self.fold_long_lines,
            date: &self.date,
        }
    }
}
