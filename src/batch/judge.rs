//! What is wrong with a message that has passed, and where: for the rows of the report, and for people.

use super::problem::{Problem, What};
use super::reader::BatchReader;
use super::window::newlines;
use crate::mbox::envelope::{self, EnvelopeFault};
use crate::mbox::fault::FaultAt;

impl BatchReader {
    pub(super) fn unreadable(&mut self, error: String) -> Problem {
        self.reverse_path = None;
        self.found.clear();
        self.problem(0, self.intake.begin.line, What::Unreadable(error))
    }

    /// Derives the envelope of the message that has passed, and what keeps it from being sent, if anything.
    pub(super) fn judge(&mut self) -> Option<Problem> {
        let options = &self.store.options;
        let rules = options.envelope_rules();
        let scan = &self.intake.scan;
        let header = scan.header();
        let content_fault = scan.first_fault();
        let header_fault = self.fields.scan(header, options.fold_long_lines).err();
        envelope::recipients(header, &self.fields, &rules, &mut self.found);
        let reverse_path = envelope::reverse_path(header, &self.fields, scan.from_line(), &rules);
        let envelope_fault = envelope::check_journey(&self.fields, &rules)
            .and(reverse_path.as_ref().map(|_| ()).map_err(|fault| *fault))
            .err();
        self.reverse_path = reverse_path.ok();
        // The fault that comes first in the message; header faults count from behind the From_ line.
        let header_start = scan.from_line().len() as u64;
        if let Some(FaultAt { fault, offset }) = header_fault
            && content_fault.is_none_or(|content| header_start + offset < content.offset)
        {
            return Some(self.header_problem(offset as usize, What::Content(fault)));
        }
        if let Some(FaultAt { fault, offset }) = content_fault {
            return Some(self.problem(offset, self.intake.fault_line, What::Content(fault)));
        }
        if let Some(fault) = envelope_fault {
            return Some(self.header_problem(fault.offset(), What::Envelope(fault)));
        }
        (self.found.is_empty() && !rules.recipients_elsewhere)
            .then(|| self.header_problem(0, What::Envelope(EnvelopeFault::NoRecipients)))
    }

    pub(super) fn add_dateless(&mut self) {
        for i in 0..self.intake.dateless.len() {
            let (file_offset, line) = self.intake.dateless[i];
            let offset = file_offset - self.intake.begin.file_offset;
            let problem = self.problem(offset, line, What::Dateless);
            self.problems.push(problem);
        }
    }

    /// A problem at `offset` of the header.
    pub(super) fn header_problem(&self, offset: usize, what: What) -> Problem {
        self.address_problem(&mut (0, 0), offset, what)
    }

    /// The same for one of many, which come in order: `known` is an offset of the header and the lines before it, so that the
    /// lines of a header of bad addresses are not counted from its beginning for each.
    pub(super) fn address_problem(
        &self,
        known: &mut (usize, u64),
        offset: usize,
        what: What,
    ) -> Problem {
        let scan = &self.intake.scan;
        let header = scan.header();
        let end = offset.min(header.len());
        if end < known.0 {
            *known = (0, 0);
        }
        *known = (end, known.1 + newlines(&header[known.0..end]));
        let line = self.intake.begin.line + newlines(scan.from_line()) + known.1;
        self.problem((scan.from_line().len() + offset) as u64, line, what)
    }

    /// A problem at `offset` of the message.
    pub(super) fn problem(&self, offset: u64, line: u64, what: What) -> Problem {
        Problem {
            source: self.intake.file_name(),
            message: Some(self.message_no() as u64 + 1),
            line,
            offset: self.intake.begin.file_offset + offset,
            what,
        }
    }
}
