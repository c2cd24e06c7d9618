//! What a site's replies say of us as the sender, and when that ends the run for the site.
//!
//! A server that complains of SPF, DKIM, DMARC, reverse DNS or our reputation will complain of the next message as well:
//! going on would have a whole list refused for good because of a record that is mended in an hour. So a site that has
//! refused or deferred `sender_refusals` distinct messages as such, and has accepted none in between, is stopped for the
//! rest of the run: what waits for it is left with the server's verdict as the reason, what the server has refused
//! stays refused, and what is in other workers' hands settles as ever.
//!
//! - Only an acceptance (for one recipient at least) starts the count again; other refusals and failures say nothing here.
//! - A message counts once, however many recipients, transactions and attempts it had. But where one message is all the
//!   mail that the site has had, the runs of it that were refused count instead, those for recipients not tried before: a
//!   letter to very many must not be refused to each of them.
//! - A site that has had fewer messages than that is not stopped: little is left that could be spared.
//! - While a complaint is the latest word, runs are one message long and none is given ahead, and a worker gives the
//!   rest of its run back at a complaint: so at most two messages per session are under way when the site is stopped.
//!
//! Each queue judges by itself, from what its own workers report: the permit table, which is all that queues share, is
//! touched per session and never per message, and knows nothing of replies.
//!
//! INVARIANTS: nothing is assigned to a stopped site and none of its mail waits or is delayed; it is never opened again.

use std::collections::HashSet;
use std::sync::Arc;

use super::backlog::State;
use super::dispatcher::{Dispatcher, Turn};
use super::event::Action;
use super::site::Gate;
use crate::mail::{Envelope, MessageNo, Verdict};

/// What the replies to a run say of us as the sender, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct SenderReplies {
    /// The latest message that was accepted.
    accepted: Option<MessageNo>,
    /// The messages refused or deferred because of the sender since then.
    refused: Vec<MessageNo>,
    /// One of these refusals met a recipient that was not tried before.
    is_new: bool,
    /// The latest of them.
    verdict: Option<Arc<Verdict>>,
}

impl SenderReplies {
    /// The server took `message` for a recipient.
    pub fn accept(&mut self, message: MessageNo) {
        *self = SenderReplies {
            accepted: Some(message),
            ..SenderReplies::default()
        };
    }

    /// The server refused or deferred `message` because of the sender. `is_new`: for a recipient not tried before.
    pub fn refuse(&mut self, message: MessageNo, is_new: bool, verdict: &Verdict) {
        if self.accepted == Some(message) {
            return; // other recipients of it got it: it is not refused as such
        }
        if self.refused.last() != Some(&message) {
            self.refused.push(message);
        }
        self.is_new |= is_new;
        self.verdict = Some(Arc::new(verdict.clone()));
    }

    /// True if the latest word on the sender was a complaint.
    pub fn ends_refused(&self) -> bool {
        !self.refused.is_empty()
    }
}

/// What a site thinks of us.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Messages refused or deferred because of the sender since the latest acceptance.
    refused: HashSet<MessageNo>,
    /// Runs in which that met recipients not tried before.
    runs: u32,
    mail: Mail,
}

/// The mail that a site has had so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Mail {
    #[default]
    None,
    One(MessageNo),
    Several,
}

impl Standing {
    /// Mail comes for the site.
    pub(super) fn note_mail(&mut self, envelopes: &[Envelope]) {
        for envelope in envelopes {
            match self.mail {
                Mail::None => self.mail = Mail::One(envelope.message),
                Mail::One(message) if message == envelope.message => {}
                Mail::One(_) => self.mail = Mail::Several,
                Mail::Several => return,
            }
        }
    }

    /// True while a complaint is the latest word.
    pub(super) fn is_suspect(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Notes what a run was answered. True if the site refuses us as such, by this limit.
    fn hear(&mut self, replies: &SenderReplies, limit: u32) -> bool {
        if replies.accepted.is_some() {
            self.refused.clear();
            self.runs = 0;
        }
        self.refused.extend(&replies.refused);
        self.runs = self.runs.saturating_add(u32::from(replies.is_new));
        let is_sole = matches!(self.mail, Mail::One(_));
        let reached = |count: usize| count >= limit as usize;
        replies.ends_refused()
            && (reached(self.refused.len()) || is_sole && reached(self.runs as usize))
    }
}

impl<P: Clone> Dispatcher<P> {
    /// A run of worker `w` for destination `d` has met the servers of site `s`: what they said of the sender may stop the site.
    pub(super) fn judge_sender(
        &mut self,
        w: u32,
        s: u32,
        d: u32,
        replies: SenderReplies,
        t: &mut Turn<'_, P>,
    ) {
        let limit = self.config.sender_refusals;
        if limit == 0 || self.stopped || self.sites[s].gate == Gate::Stopped {
            return;
        }
        let was_suspect = self.sites[s].standing.is_suspect();
        let refuses = self.sites[s].standing.hear(&replies, limit);
        if was_suspect && !self.sites[s].standing.is_suspect() {
            self.touch(s); // runs may be given ahead again
        }
        if let Some(verdict) = replies.verdict.filter(|_| refuses) {
            self.stop_site(s, d, verdict, t);
            self.recall_next(w, t);
        }
    }

    /// Nothing more is sent to site `s` in this run: its mail is left, what was given ahead is asked back.
    fn stop_site(&mut self, s: u32, d: u32, verdict: Arc<Verdict>, t: &mut Turn<'_, P>) {
        let mut mail = Vec::new();
        while let Some(d) = self.sites[s].destinations.front() {
            mail.push((d, self.withdraw(d)));
        }
        for d in self.held_of(s) {
            mail.push((d, self.withdraw(d)));
        }
        let backlog = &self.backlog;
        let is_its = |d| matches!(backlog[d].state, State::Known { site, .. } if site == s);
        for group in self.delayed.take_of(is_its).chunk_by(|a, b| a.0 == b.0) {
            let envelopes = group.iter().map(|(_, envelope)| *envelope).collect();
            mail.push((group[0].0, envelopes));
        }
        let site = &mut self.sites[s];
        site.gate = Gate::Stopped;
        site.failure = Some(Arc::clone(&verdict));
        site.standing = Standing::default();
        t.actions.push(Action::SiteStopped {
            site: site.id,
            destination: self.backlog[d].id,
            verdict,
            left: mail.iter().map(|(_, envelopes)| envelopes.len()).sum(),
        });
        for (d, envelopes) in mail {
            self.admit(d, envelopes, false, t);
        }
        for w in self.workers.all() {
            if self.workers[w].session == Some(s) {
                self.recall(w, t);
            }
        }
        self.touch(s);
    }

    /// True if nothing more is sent to the site of destination `d` in this run.
    pub(super) fn is_site_stopped(&self, d: u32) -> bool {
        matches!(self.backlog[d].state, State::Known { site, .. } if self.sites[site].gate == Gate::Stopped)
    }

    /// Mail of destination `d` is left; if that is because its site is stopped, it is counted.
    pub(super) fn note_left(&mut self, d: u32, count: usize) {
        if let State::Known { site, .. } = self.backlog[d].state
            && self.sites[site].gate == Gate::Stopped
        {
            self.sites[site].left += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Enhanced, RecipientNo, Scope, Stage, Status};

    fn replies(said: &[(u32, bool)]) -> SenderReplies {
        let enhanced = Some(Enhanced::new(5, 7, 26));
        let verdict = Verdict::new(
            Status::Refused,
            Scope::Message,
            Stage::Dot,
            550,
            enhanced,
            "no",
        );
        let mut replies = SenderReplies::default();
        for &(message, accepted) in said {
            match accepted {
                true => replies.accept(MessageNo(message)),
                false => replies.refuse(MessageNo(message), true, &verdict),
            }
        }
        replies
    }

    fn standing(messages: &[u32]) -> Standing {
        let mut standing = Standing::default();
        for &message in messages {
            standing.note_mail(&[Envelope::new(MessageNo(message), RecipientNo(0))]);
        }
        standing
    }

    #[test]
    fn distinct_messages_in_a_row_count() {
        let mut standing = standing(&[1, 2, 3]);
        assert!(!standing.hear(&replies(&[(1, false), (2, false)]), 3));
        assert!(!standing.hear(&replies(&[(2, false)]), 3), "the same again");
        assert!(!standing.hear(&replies(&[]), 3), "nothing about the sender");
        assert!(standing.hear(&replies(&[(3, false)]), 3));
    }

    #[test]
    fn an_acceptance_starts_the_count_again() {
        let mut standing = standing(&[1, 2, 3]);
        standing.hear(&replies(&[(1, false), (2, false)]), 3);
        let mixed = replies(&[(3, false), (4, true), (5, false)]);
        assert!(mixed.ends_refused());
        assert!(!standing.hear(&mixed, 3));
        assert!(standing.is_suspect());
        assert!(!standing.hear(&replies(&[(6, false), (7, true)]), 1));
        assert!(!standing.is_suspect());
    }

    #[test]
    fn a_message_that_one_of_its_recipients_got_is_not_refused() {
        for said in [[(1, true), (1, false)], [(1, false), (1, true)]] {
            assert!(!replies(&said).ends_refused(), "{said:?}");
        }
    }

    #[test]
    fn the_runs_of_a_message_count_if_it_is_all_that_the_site_has_had() {
        let mut sole = standing(&[1, 1]);
        assert!(!sole.hear(&replies(&[(1, false), (1, false)]), 2));
        let mut retry = replies(&[(1, false)]);
        retry.is_new = false;
        assert!(!sole.hear(&retry, 2), "the same recipients once more");
        assert!(sole.hear(&replies(&[(1, false)]), 2));
        let mut one_of_two = standing(&[1, 2]);
        for _ in 0..9 {
            assert!(!one_of_two.hear(&replies(&[(1, false)]), 2));
        }
    }
}
