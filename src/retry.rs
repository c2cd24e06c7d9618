//! When a deferred envelope is tried again, and when it is not: the back-off curves and the horizon of a run.
//!
//! A deferral has a class, because a greylisted recipient, a dead host and a lost reply ask for different patience:
//!
//! | class | next attempt | counts as |
//! |---|---|---|
//! | host | `retry_min`/20 x n², at most `retry_max`/4 (15 s, 60 s, 135 s ... 1 h) | host failure |
//! | session | at once, on another session: the server only wanted an end of this one | nothing |
//! | rate, the first two attempts | at once, in front: it is the pace of the site that rests, for all of its mail | attempt |
//! | rate later, message, recipient | `retry_min` x 2^(n-1), at most `retry_max` (5, 10, 20 min ... 4 h) | attempt |
//! | in doubt | `in_doubt_wait`, once; the second time it is held | attempt |
//!
//! Jitter spreads what failed together: +-25 % for hosts; only upwards (at most 20 %) for recipients, since a greylist
//! punishes the early. A hint of the server ("try again in 300 seconds") replaces the curve.
//!
//! INVARIANTS: nothing is planned beyond the horizon (the end of the run, or expiry): such an envelope is left at once,
//! so that a run never waits for an attempt it will not make. No clock: `now` and the random numbers are passed in.

use std::time::{Duration, Instant};

use crate::mail::{Passage, Scope, Status, Verdict};

/// No back-off is shorter, so that nothing spins.
const SHORTEST: Duration = Duration::from_millis(1);
/// No back-off is longer, whatever a server or a configuration asks for: instants must not overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Attempts that are repeated as soon as the pace of the site allows it, if they were put off since we send too fast.
const RATE_ATTEMPTS: u8 = 2;

/// What kind of failure deferred an envelope.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// The host could not be talked to (connect, greeting, EHLO, TLS, lost connection): not the recipient's fault.
    Host,
    /// The server ended the session after earlier mail was accepted on it: no penalty for anybody.
    Session,
    /// We send too fast.
    Rate,
    /// The message was refused for now (MAIL, DATA, the final dot).
    Message,
    /// The recipient was refused for now, as greylisting does.
    Recipient,
    /// The final dot left and its reply never came.
    InDoubt,
}

/// Why an envelope was deferred, and what the server asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deferral {
    /// The kind of failure.
    pub class: Class,
    /// The server's own wish ("try again in N seconds"), if it named one.
    pub not_before: Option<Duration>,
}

impl Deferral {
    /// A deferral without a wish of the server.
    pub fn new(class: Class) -> Deferral {
        Deferral {
            class,
            not_before: None,
        }
    }

    /// The deferral that a verdict amounts to. Only meaningful for verdicts that are deferred or in doubt.
    pub fn of(verdict: &Verdict, not_before: Option<Duration>) -> Deferral {
        Deferral {
            not_before,
            ..Deferral::of_kind(verdict.status, verdict.scope)
        }
    }

    /// The same of a verdict's status and scope.
    pub fn of_kind(status: Status, scope: Scope) -> Deferral {
        let class = match (status, scope) {
            (Status::InDoubt, _) => Class::InDoubt,
            (_, Scope::Local | Scope::Domain | Scope::Host) => Class::Host,
            (_, Scope::Session) => Class::Session,
            (_, Scope::Rate) => Class::Rate,
            (_, Scope::Message) => Class::Message,
            (_, Scope::Recipient) => Class::Recipient,
        };
        Deferral::new(class)
    }
}

impl Passage {
    /// What this becomes by an attempt that ends with `verdict`. Invalid mail was never tried.
    pub fn after(mut self, verdict: &Verdict) -> Passage {
        match verdict.status {
            Status::Invalid => {}
            status if status.is_pending() => self.note(Deferral::of(verdict, None).class),
            _ => self.attempts = self.attempts.saturating_add(1),
        }
        self
    }

    fn note(&mut self, class: Class) {
        match class {
            Class::Session => {}
            Class::Host => self.host_failures = self.host_failures.saturating_add(1),
            Class::InDoubt => {
                self.attempts = self.attempts.saturating_add(1);
                self.in_doubt = true;
            }
            Class::Rate | Class::Message | Class::Recipient => {
                self.attempts = self.attempts.saturating_add(1);
            }
        }
    }
}

/// What is done with mail whose final dot was sent and never answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InDoubt {
    /// Sent again once, after [`RetryPolicy::in_doubt_wait`]; held if that ends in doubt as well.
    #[default]
    Resend,
    /// Never sent again: held at once.
    Hold,
}

/// The patience of a run.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// The first back-off of a recipient (`--retry-min`).
    pub retry_min: Duration,
    /// The longest back-off (`--retry-max`).
    pub retry_max: Duration,
    /// How long mail in doubt rests before it is sent again (`--in-doubt-wait`).
    pub in_doubt_wait: Duration,
    /// What becomes of mail in doubt (`--in-doubt`).
    pub in_doubt: InDoubt,
    /// The end of the time for retries (`--run-for`). First attempts may go on after it.
    pub stop_at: Option<Instant>,
    /// When deferred mail expires (`--expire`).
    pub expire_at: Option<Instant>,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            retry_min: Duration::from_secs(5 * 60),
            retry_max: Duration::from_secs(4 * 3600),
            in_doubt_wait: Duration::from_secs(30 * 60),
            in_doubt: InDoubt::Resend,
            stop_at: None,
            expire_at: None,
        }
    }
}

/// What to do with an envelope that came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Try again at once.
    Now,
    /// Try again at this instant.
    At(Instant),
    /// Not in this run: it is left with this status.
    Leave(Status),
}

impl RetryPolicy {
    /// Notes a failed attempt in `passage` and says when the next one is.
    pub fn after(
        &self,
        passage: &mut Passage,
        deferral: Deferral,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Next {
        let was_in_doubt = passage.in_doubt;
        passage.note(deferral.class);
        if deferral.class == Class::Session {
            return Next::Now;
        }
        let expired = self.expire_at.is_some_and(|end| now > end);
        if deferral.class == Class::Rate && passage.attempts <= RATE_ATTEMPTS && !expired {
            return Next::Now;
        }
        if deferral.class == Class::InDoubt && (was_in_doubt || self.in_doubt == InDoubt::Hold) {
            return Next::Leave(Status::Held);
        }
        let due = now + self.rest(*passage, deferral, rng);
        match self.beyond(due) {
            // It may have been delivered: that is for a person to know, and to decide.
            Some(Status::Expired) if passage.in_doubt => Next::Leave(Status::Held),
            Some(Status::Expired) => Next::Leave(Status::Expired),
            Some(_) => Next::Leave(pending(*passage)),
            None => Next::At(due),
        }
    }

    /// How long an envelope with this past rests after an attempt that ended like this, and which `passage` counts already.
    /// A run that goes on with what another one left asks this, too: so no due time has to be kept.
    pub fn rest(&self, passage: Passage, deferral: Deferral, rng: &mut fastrand::Rng) -> Duration {
        match deferral.class {
            Class::Session => Duration::ZERO,
            Class::Host => self.host_back_off(u32::from(passage.host_failures), rng),
            Class::InDoubt => jitter_up(self.in_doubt_wait, rng),
            Class::Rate | Class::Message | Class::Recipient => {
                self.recipient_back_off(u32::from(passage.attempts), deferral.not_before, rng)
            }
        }
    }

    /// The pause of a host, site or name server after `failures` failures in a row: quadratic, as OpenSMTPD's routes
    /// have it, so that a short outage costs seconds and a long one few connections.
    pub fn host_back_off(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let n = failures.clamp(1, 1000);
        let delay = (self.retry_min / 20).saturating_mul(n * n);
        let delay = delay.min(self.retry_max / 4).clamp(SHORTEST, LONGEST);
        delay.mul_f64(0.75 + 0.5 * rng.f64())
    }

    /// The rest of a recipient after its attempt number `attempts`.
    fn recipient_back_off(
        &self,
        attempts: u32,
        hint: Option<Duration>,
        rng: &mut fastrand::Rng,
    ) -> Duration {
        let doublings = attempts.saturating_sub(1).min(20);
        let curve = self
            .retry_min
            .saturating_mul(1 << doublings)
            .min(self.retry_max);
        let delay = match hint {
            // A server that keeps asking for a few seconds is believed three times.
            Some(hint) if attempts <= 3 => hint,
            Some(hint) => hint.max(curve),
            None => curve,
        };
        jitter_up(delay, rng)
    }

    /// The status of something that cannot be tried before `due`, or `None` if `due` is within the horizon.
    pub fn beyond(&self, due: Instant) -> Option<Status> {
        let stops_first = |e: Instant| self.stop_at.is_some_and(|s| s < e);
        match self.expire_at {
            Some(expiry) if due > expiry && !stops_first(expiry) => Some(Status::Expired),
            _ if self.stop_at.is_some_and(|s| due > s) => Some(Status::Deferred),
            _ => None,
        }
    }
}

/// The status in which an envelope with this past is left, if nothing more is known of it.
pub fn pending(passage: Passage) -> Status {
    if passage.in_doubt {
        Status::InDoubt
    } else if passage.attempts > 0 || passage.host_failures > 0 {
        Status::Deferred
    } else {
        Status::Queued
    }
}

/// `delay`, and up to a fifth more.
fn jitter_up(delay: Duration, rng: &mut fastrand::Rng) -> Duration {
    delay
        .clamp(SHORTEST, LONGEST)
        .mul_f64(1.0 + 0.2 * rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(policy: &RetryPolicy, passage: &mut Passage, class: Class) -> (Instant, Next) {
        let now = Instant::now();
        let mut rng = fastrand::Rng::with_seed(7);
        let next = policy.after(passage, Deferral::new(class), now, &mut rng);
        (now, next)
    }

    fn delay(policy: &RetryPolicy, passage: &mut Passage, class: Class) -> Duration {
        match after(policy, passage, class) {
            (now, Next::At(due)) => due - now,
            (_, other) => panic!("expected a delay, got {other:?}"),
        }
    }

    #[test]
    fn a_recipient_is_never_retried_before_the_minimum_and_waits_twice_as_long_each_time() {
        let policy = RetryPolicy::default();
        let mut passage = Passage::default();
        let mut least = 300.0;
        for attempt in 1..=12 {
            let secs = delay(&policy, &mut passage, Class::Recipient).as_secs_f64();
            assert!(
                secs >= least && secs <= least * 1.2,
                "attempt {attempt}: {secs}"
            );
            least = f64::min(least * 2.0, 4.0 * 3600.0);
        }
        assert_eq!(passage.attempts, 12);
        assert_eq!(passage.host_failures, 0);
    }

    #[test]
    fn a_host_failure_is_not_the_recipients_attempt_and_backs_off_by_squares() {
        let policy = RetryPolicy::default();
        let mut passage = Passage::default();
        for n in 1..=20u32 {
            let secs = delay(&policy, &mut passage, Class::Host).as_secs_f64();
            let middle = f64::min(15.0 * f64::from(n * n), 3600.0);
            assert!(
                secs >= middle * 0.75 && secs <= middle * 1.25,
                "failure {n}: {secs}"
            );
        }
        assert_eq!(passage.attempts, 0);
        assert_eq!(passage.host_failures, 20);
    }

    #[test]
    fn mail_in_doubt_is_resent_once_and_held_the_second_time() {
        let policy = RetryPolicy::default();
        let mut passage = Passage::default();
        assert!(delay(&policy, &mut passage, Class::InDoubt) >= policy.in_doubt_wait);
        assert!(passage.in_doubt);
        let (_, second) = after(&policy, &mut passage, Class::InDoubt);
        assert_eq!(second, Next::Leave(Status::Held));
    }

    #[test]
    fn mail_that_was_in_doubt_is_held_where_other_mail_expires() {
        let policy = RetryPolicy {
            expire_at: Some(Instant::now() + Duration::from_secs(60)),
            ..RetryPolicy::default()
        };
        let mut passage = Passage::default();
        let (_, next) = after(&policy, &mut passage, Class::Recipient);
        assert_eq!(next, Next::Leave(Status::Expired));
        let (_, next) = after(&policy, &mut Passage::default(), Class::InDoubt);
        assert_eq!(next, Next::Leave(Status::Held));
        passage.in_doubt = true;
        let (_, next) = after(&policy, &mut passage, Class::Recipient);
        assert_eq!(next, Next::Leave(Status::Held));
    }

    #[test]
    fn mail_in_doubt_is_held_at_once_where_that_is_asked_for() {
        let policy = RetryPolicy {
            in_doubt: InDoubt::Hold,
            ..RetryPolicy::default()
        };
        let (_, next) = after(&policy, &mut Passage::default(), Class::InDoubt);
        assert_eq!(next, Next::Leave(Status::Held));
    }

    #[test]
    fn a_hint_of_the_server_replaces_the_curve() {
        let policy = RetryPolicy::default();
        let mut rng = fastrand::Rng::with_seed(1);
        let now = Instant::now();
        let deferral = Deferral {
            class: Class::Recipient,
            not_before: Some(Duration::from_secs(60)),
        };
        let mut passage = Passage::default();
        let Next::At(due) = policy.after(&mut passage, deferral, now, &mut rng) else {
            panic!("expected a retry");
        };
        let secs = (due - now).as_secs_f64();
        assert!((60.0..=72.0).contains(&secs), "{secs}");
    }

    #[test]
    fn what_is_due_after_the_end_of_the_run_is_left_at_once() {
        let policy = RetryPolicy {
            stop_at: Some(Instant::now() + Duration::from_secs(60)),
            ..RetryPolicy::default()
        };
        let left = |passage: &mut Passage, class| after(&policy, passage, class).1;
        assert_eq!(
            left(&mut Passage::default(), Class::Recipient),
            Next::Leave(Status::Deferred)
        );
        assert_eq!(
            left(&mut Passage::default(), Class::InDoubt),
            Next::Leave(Status::InDoubt)
        );
        assert!(matches!(
            left(&mut Passage::default(), Class::Host),
            Next::At(_)
        ));
    }

    #[test]
    fn expiry_within_the_run_is_final_and_after_it_is_not() {
        let now = Instant::now();
        let secs = |n| Some(now + Duration::from_secs(n));
        let mut policy = RetryPolicy {
            stop_at: secs(1000),
            expire_at: secs(100),
            ..RetryPolicy::default()
        };
        assert_eq!(policy.beyond(secs(101).unwrap()), Some(Status::Expired));
        assert_eq!(policy.beyond(secs(99).unwrap()), None);
        policy.expire_at = secs(5000);
        assert_eq!(policy.beyond(secs(6000).unwrap()), Some(Status::Deferred));
    }

    #[test]
    fn what_the_ledger_is_told_of_an_attempt_is_what_the_queue_makes_of_it() {
        use crate::mail::Stage;
        let policy = RetryPolicy::default();
        for status in [Status::Deferred, Status::InDoubt] {
            for scope in [
                Scope::Host,
                Scope::Session,
                Scope::Rate,
                Scope::Message,
                Scope::Recipient,
            ] {
                let verdict = Verdict::new(status, scope, Stage::Rcpt, 450, None, "later");
                let mut passage = Passage::default();
                let told = passage.after(&verdict);
                let deferral = Deferral::of(&verdict, None);
                let mut rng = fastrand::Rng::with_seed(1);
                policy.after(&mut passage, deferral, Instant::now(), &mut rng);
                assert_eq!(told, passage, "{status:?} {scope:?}");
            }
        }
        let verdict = |status| Verdict::new(status, Scope::Message, Stage::Dot, 250, None, "");
        let delivered = Passage::default().after(&verdict(Status::Delivered));
        assert_eq!(delivered.attempts, 1);
        let invalid = Passage::default().after(&verdict(Status::Invalid));
        assert_eq!(invalid, Passage::default());
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        let policy = RetryPolicy {
            retry_min: Duration::MAX / 8,
            retry_max: Duration::MAX,
            in_doubt_wait: Duration::MAX,
            ..RetryPolicy::default()
        };
        let mut passage = Passage {
            attempts: 255,
            host_failures: 255,
            in_doubt: false,
        };
        delay(&policy, &mut passage, Class::Host);
        delay(&policy, &mut passage, Class::Rate);
        delay(&policy, &mut passage, Class::InDoubt);
    }
}
