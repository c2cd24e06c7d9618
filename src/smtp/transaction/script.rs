//! The script of a transaction: all its commands, built and checked before the first leaves.
//!
//! INVARIANTS: a recipient whose path cannot be said is settled and in no command; content leaves by BDAT only where all
//! commands fit into one flight, so that nothing is left to be written behind it.

use super::refusal::{refusal_of_ours, unspeakable};
use super::{Mail, Standing, Transaction};
use crate::mail::{Enhanced, Stage, Verdict};
use crate::smtp::capabilities::Capabilities;
use crate::smtp::command::{self, BadCommand, Command, MailParameters, RcptParameters};
use crate::smtp::domains::Domains;
use crate::smtp::pipeline::{Awaited, BYTES_MAX, REPLIES_MAX};
use crate::smtp::settings::Protocol;

/// On what terms a transaction is begun.
#[derive(Debug)]
pub(in crate::smtp) struct Terms<'a> {
    /// What the server offers.
    pub(in crate::smtp) capabilities: &'a Capabilities,
    pub(in crate::smtp) protocol: Protocol,
    /// The most recipients that take part.
    pub(in crate::smtp) recipients_max: usize,
    /// The domains that the session may name.
    pub(in crate::smtp) domains: &'a mut Domains,
    /// RSET comes first.
    pub(in crate::smtp) reset: bool,
    /// Content of at most so many octets may leave by BDAT.
    pub(in crate::smtp) bdat_bytes_max: u64,
}

impl Transaction {
    /// Builds the commands for `mail`.
    pub(in crate::smtp) fn prepare<R: AsRef<str>>(
        &mut self,
        mail: &Mail<'_, R>,
        mut terms: Terms<'_>,
    ) {
        self.clear();
        self.protocol = terms.protocol;
        if let Some(refusal) = refusal_of_ours(mail, terms.capabilities) {
            return self.settle_all(mail.recipients.len(), &refusal);
        }
        if terms.reset {
            self.add(Command::Rset, Awaited::Rset)
                .expect("RSET has no argument");
        }
        let dsn = mail.dsn.filter(|_| terms.capabilities.dsn);
        let parameters = MailParameters {
            size: terms.capabilities.size.then_some(mail.size),
            eight_bit: mail.eight_bit && terms.capabilities.eight_bit_mime,
            utf8: mail.utf8,
            dsn,
        };
        if let Err(bad) = self.add(Command::Mail(mail.reverse_path, parameters), Awaited::Mail) {
            let refusal = unspeakable(bad, Stage::Mail, Enhanced::new(5, 1, 7));
            return self.settle_all(mail.recipients.len(), &refusal);
        }
        let parameters = RcptParameters {
            utf8: mail.utf8,
            dsn,
        };
        for recipient in mail.recipients {
            self.add_recipient(recipient.as_ref(), parameters, &mut terms);
        }
        if self.open_rcpts == 0 {
            self.drop_commands();
        } else if self.fits_a_chunk(mail.size, &terms) {
            self.chunk = Some(mail.size);
        } else {
            self.add(Command::Data, Awaited::Data)
                .expect("DATA has no argument");
        }
    }

    /// True if all of the transaction can leave in one flight, content included.
    fn fits_a_chunk(&self, size: u64, terms: &Terms<'_>) -> bool {
        (1..=terms.bdat_bytes_max).contains(&size)
            && self.script.len() <= BYTES_MAX
            && self.commands.len() < REPLIES_MAX
    }

    pub(super) fn drop_commands(&mut self) {
        self.script.clear();
        self.commands.clear();
        self.pumped = 0;
    }

    fn add(&mut self, command: Command<'_>, awaited: Awaited) -> Result<(), BadCommand> {
        command::write(command, &mut self.script)?;
        self.commands.push((awaited, self.script.len()));
        Ok(())
    }

    fn add_recipient(&mut self, path: &str, parameters: RcptParameters<'_>, terms: &mut Terms<'_>) {
        let number = self.standings.len();
        if self.open_rcpts >= terms.recipients_max || !terms.domains.admit(path) {
            self.standings.push(Standing::Again);
            return;
        }
        let standing = match self.add(Command::Rcpt(path, parameters), Awaited::Rcpt(number)) {
            Ok(()) => {
                self.open_rcpts += 1;
                Standing::Open
            }
            Err(bad) => Standing::Settled(unspeakable(bad, Stage::Rcpt, Enhanced::new(5, 1, 3))),
        };
        self.standings.push(standing);
    }

    /// Nothing is sent; `verdict` is everybody's.
    fn settle_all(&mut self, recipients: usize, verdict: &Verdict) {
        self.drop_commands();
        self.standings
            .extend((0..recipients).map(|_| Standing::Settled(verdict.clone())));
    }
}
