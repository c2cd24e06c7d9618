//! What earlier runs of a job have left: taken up again before the batch is read on.
//!
//! Of each recipient that is not settled the ledger knows what it has been through, and when it was tried last; the time
//! before which it rests follows from that and from the curves of the retry policy, so that no due time is kept anywhere.
//!
//! In a job to which mail comes again and again no age is that of all: what earlier runs left is as old as its first attempt.
//!
//! INVARIANT: each recipient of the job that is pending is handed on, settled, or left as it is here, exactly once.
//! Errors: an address that cannot be read is an error of the run; its recipient stays pending.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::book::Entry;
use super::parts;
use super::router::{Addressed, unsent_attempt};
use super::settings::Settings;
use super::shared::Shared;
use super::teller::Teller;
use crate::batch::{BatchStore, ContentError};
use crate::ledger::{Ledger, Standing};
use crate::mail::{
    Enhanced, Envelope, MessageNo, Passage, RecipientNo, Scope, Stage, Status, Verdict,
};
use crate::retry::{self, Deferral, RetryPolicy};

/// Recipients handed to the router at once.
const CHUNK: usize = 256;

/// Where the recipients of a job stood when this run began.
#[derive(Debug)]
pub struct Past {
    /// True for recipients that are settled for good, by number.
    settled: Vec<bool>,
    /// So many of them are in the store.
    in_store: usize,
    /// Of the others, those that were tried.
    tried: HashMap<RecipientNo, (Standing, Option<Duration>)>,
    /// How long their deferred mail rests.
    policy: RetryPolicy,
    now: (Instant, i64),
    /// Deferred mail that was first tried before this has expired, if each recipient has an age of its own.
    expired_before: Option<i64>,
}

impl Past {
    /// Of all recipients in `store`, what `ledger` knows. A loss of power may have cost the index what the journal still has:
    /// those recipients are read from the batch again, and known when they arrive. `None` if there are none.
    pub fn of(ledger: &Ledger, store: &BatchStore, settings: &Settings) -> Option<Past> {
        let in_store = store.recipient_count();
        let count = in_store.max(ledger.len());
        if count == 0 {
            return None;
        }
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let mut tried = HashMap::new();
        let standings = (0..count as u32).map(RecipientNo).map(|recipient| {
            let standing = anew(ledger.standing(recipient));
            let is_settled = !standing.status.is_pending();
            if !is_settled && standing.last_at.is_some() {
                tried.insert(recipient, (standing, ledger.wish(recipient)));
            }
            is_settled
        });
        Some(Past {
            settled: standings.collect(),
            in_store,
            tried,
            policy: parts::retry_policy(settings),
            now: (Instant::now(), now_ms),
            expired_before: expired_before(settings, now_ms),
        })
    }

    /// True if a recipient's deferred mail is too old to be tried again.
    fn has_expired(&self, recipient: RecipientNo) -> bool {
        let first_at = self
            .tried
            .get(&recipient)
            .filter(|(standing, _)| standing.status == Status::Deferred)
            .and_then(|(standing, _)| standing.first_at);
        matches!((first_at, self.expired_before), (Some(first), Some(limit)) if first < limit)
    }

    /// What a recipient has been through, and the time before which it rests. `None` if it is settled.
    pub fn left(
        &self,
        recipient: RecipientNo,
        rng: &mut fastrand::Rng,
    ) -> Option<(Passage, Option<Instant>)> {
        if self.settled.get(recipient.index()).copied() == Some(true) {
            return None;
        }
        let tried = self.tried.get(&recipient);
        Some(tried.map_or((Passage::default(), None), |tried| {
            (tried.0.passage, self.due(tried, rng))
        }))
    }

    /// The time before which a recipient rests: its last attempt, and the rest that its failure or its server asks for.
    fn due(
        &self,
        (standing, wish): &(Standing, Option<Duration>),
        rng: &mut fastrand::Rng,
    ) -> Option<Instant> {
        let (now, now_ms) = self.now;
        if standing.status == Status::Queued {
            return Some(now);
        }
        let last_at = standing.last_at?;
        let deferral = Deferral {
            not_before: *wish,
            ..Deferral::of_kind(standing.status, standing.class?)
        };
        let rest = self.policy.rest(standing.passage, deferral, rng);
        // A clock that was set back must not make mail wait for more than its rest.
        let since = Duration::from_millis(now_ms.saturating_sub(last_at).max(0) as u64);
        now.checked_add(rest.saturating_sub(since))
    }
}

/// The time of first attempts before which deferred mail has expired now. `None` if nothing has: none of it is so old, or all
/// of it has one age, which the queues know.
fn expired_before(settings: &Settings, now_ms: i64) -> Option<i64> {
    let expire = i64::try_from(settings.retry.expire.as_millis()).unwrap_or(i64::MAX);
    let limit = now_ms.saturating_sub(expire);
    settings
        .came_since
        .filter(|since| *since < limit)
        .map(|_| limit)
}

/// What a person has queued again after it was tried begins anew, and at once. That it was in doubt once stays known: if
/// it ends so again, it is held.
fn anew(standing: Standing) -> Standing {
    if standing.status != Status::Queued {
        return standing;
    }
    Standing {
        passage: Passage {
            in_doubt: standing.passage.in_doubt,
            ..Passage::default()
        },
        ..standing
    }
}

/// Hands on all mail that earlier runs left, in input order.
pub fn take_up(
    past: &Past,
    shared: &Shared,
    teller: &mut Teller,
    to_router: &Sender<Vec<Addressed>>,
) {
    let mut rng = fastrand::Rng::new();
    if let Some(last) = past.in_store.checked_sub(1) {
        let last = RecipientNo(last as u32);
        shared.book.enter(Entry::Admitted { last });
    }
    let gauges = &shared.gauges;
    gauges.recipients.fetch_add(past.in_store as u64, Relaxed);
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut left = Vec::new();
    for number in 0..shared.store.message_count() as u32 {
        let message = MessageNo(number);
        gauges.messages.fetch_add(1, Relaxed);
        let Some(record) = shared.store.message(message) else {
            continue;
        };
        let first = record.first_recipient();
        for recipient in (first..first + record.recipients()).map(RecipientNo) {
            let Some((passage, not_before)) = past.left(recipient, &mut rng) else {
                continue;
            };
            if past.has_expired(recipient) {
                left.push((recipient, Status::Expired));
                if left.len() >= CHUNK {
                    teller.leave(std::mem::take(&mut left));
                }
                continue;
            }
            let mut envelope = Envelope::new(message, recipient);
            envelope.passage = passage;
            let mailbox = match shared.store.address(recipient) {
                Some((_, Ok(mailbox))) => mailbox,
                Some((_, Err(ContentError::Io(error)))) => {
                    // That the disk fails says nothing of the recipient: the run ends, and the next one asks again.
                    shared.book.fail(&error);
                    teller.leave(vec![(recipient, retry::pending(passage))]);
                    continue;
                }
                _ => {
                    teller.add(&unsent_attempt(&envelope, unfit()));
                    continue;
                }
            };
            if let Some(verdict) = shared.settings.suppression.verdict(&mailbox) {
                teller.add(&unsent_attempt(&envelope, verdict));
                continue;
            }
            if !shared.settings.portion.takes(mailbox.domain()) {
                left.push((recipient, retry::pending(passage)));
                if left.len() >= CHUNK {
                    teller.leave(std::mem::take(&mut left));
                }
                continue;
            }
            chunk.push(Addressed {
                envelope,
                not_before,
                domain: mailbox.domain().clone(),
            });
            if chunk.len() >= CHUNK {
                let _ = to_router.send(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK)));
            }
        }
    }
    let _ = to_router.send(chunk);
    teller.leave(left);
}

/// Found unfit by the run that read it, which did not come to record why.
fn unfit() -> Verdict {
    let text = "the message or the address cannot be sent: `mailer inspect` shows why";
    let enhanced = Enhanced::new(5, 6, 0);
    Verdict::own(
        Status::Invalid,
        Scope::Message,
        Stage::Batch,
        enhanced,
        text,
    )
}

#[cfg(test)]
mod tests;
