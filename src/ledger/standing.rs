//! Where a recipient stands, and how each record of the journal changes that: the one place that says so.
//!
//! | record | what it changes |
//! |---|---|
//! | intent | nothing yet: the recipient is being sent to until an attempt or a left record follows |
//! | attempt | everything: status, passage, time, class. In doubt for the second time is held |
//! | left | the status only; deferred, for pending mail: nothing, its intent was not carried out |
//! | a later run begins, or the job is recovered, while an intent is open | as an attempt that ended in doubt |
//!
//! The last record wins, but for two that can come late because each thread writes in its own time: after a final attempt
//! one that failed changes nothing, and after a final state without an attempt (expired, held) one that failed tells its
//! reasons and leaves the status. Nobody reopens a settled recipient but an intent or a left record.
//!
//! INVARIANT: once a recipient was in doubt it stays marked so, whatever comes: its mail is sent again by itself at most once
//! in the life of a job.

use super::outcome::interrupted;
use crate::mail::{Passage, Scope, Status};

/// Where a recipient stands: what is needed to go on with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its status.
    pub status: Status,
    /// What its envelope has been through.
    pub passage: Passage,
    /// When the first attempt ended: milliseconds since 1970. `None` if there was none.
    pub first_at: Option<i64>,
    /// When the last attempt ended.
    pub last_at: Option<i64>,
    /// Who was hurt by the last verdict.
    pub class: Option<Scope>,
}

/// What an attempt says of its recipient's standing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) at: i64,
    pub(super) status: Status,
    pub(super) class: Scope,
    pub(super) passage: Passage,
}

impl Standing {
    /// Nothing has been tried.
    pub const NEW: Standing = Standing {
        status: Status::Queued,
        passage: Passage {
            attempts: 0,
            host_failures: 0,
            in_doubt: false,
        },
        first_at: None,
        last_at: None,
        class: None,
    };

    /// An attempt has ended. `was_sending`: an intent was open. True if it is the latest attempt now.
    pub(super) fn attempt(&mut self, said: Said, was_sending: bool) -> bool {
        let is_late = !self.status.is_pending() && !was_sending && said.status != Status::Delivered;
        let is_left = matches!(self.status, Status::Expired | Status::Held);
        if is_late && !is_left {
            return false;
        }
        let again = said.status == Status::InDoubt && self.passage.in_doubt;
        if !(is_late && said.status.is_pending()) {
            self.status = if again { Status::Held } else { said.status };
        }
        let in_doubt = self.passage.in_doubt || said.passage.in_doubt;
        self.passage = Passage {
            in_doubt,
            ..said.passage
        };
        self.first_at.get_or_insert(said.at);
        self.last_at = Some(said.at);
        self.class = Some(said.class);
        true
    }

    /// The status changes without an attempt. Pending mail does not become deferred or in doubt that way, only by attempts: its
    /// intent was not carried out.
    pub(super) fn leave(&mut self, status: Status) {
        let is_withdrawn = matches!(status, Status::Deferred | Status::InDoubt);
        if !(is_withdrawn && self.status.is_pending()) {
            self.status = status;
        }
    }

    /// The run ended while an intent of this time was open.
    pub(super) fn interrupt(&mut self, at: i64) {
        let verdict = interrupted();
        let said = Said {
            at,
            status: verdict.status,
            class: verdict.scope,
            passage: self.passage.after(&verdict),
        };
        self.attempt(said, true);
    }
}
