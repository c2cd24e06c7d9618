//! The fallback relay: where mail goes that its own hosts would not take.
//!
//! After so many failures an envelope goes to the fallback relay instead of its MX hosts. What fails is counted where it is
//! felt: attempts of the envelope itself (those of earlier runs, too), look-ups of its destination in a row, failures of its
//! site in a row. The last two move all mail that waits there, since mail that only waits is never tried itself.
//!
//! Each destination has a fallback destination: its number with the highest bit set, so that nothing has to be numbered and
//! both ends know whose it is. It has a waiting list, look-ups, a site and back-offs like any other.
//!
//! INVARIANTS: what went to the fallback relay stays there: nothing leads from a fallback destination to another one. Mail
//! in doubt rests before it goes there as it would before it is sent again. Mail for a name that does not exist is refused.

use super::backlog::State;
use super::dispatcher::{Dispatcher, Turn};
use super::site::Gate;
use crate::mail::{DestinationId, Envelope, QueueId};
use crate::retry::Class;

/// Set in the numbers of fallback destinations; the router counts up from 0 and never comes here.
const BIT: u32 = 1 << 31;

/// The fallback destination of a destination: itself, if it is one.
pub fn fallback_of(destination: DestinationId) -> DestinationId {
    DestinationId(destination.0 | BIT)
}

/// The destination that mail had before it went to the fallback relay, and true if it did.
pub fn origin_of(destination: DestinationId) -> (DestinationId, bool) {
    let origin = DestinationId(destination.0 & !BIT);
    (origin, origin != destination)
}

impl<P: Clone> Dispatcher<P> {
    /// Sends those of `envelopes`, which are for destination `d`, to the fallback relay that have failed often enough.
    /// Returns the others.
    pub(super) fn divert(
        &mut self,
        d: u32,
        envelopes: Vec<Envelope>,
        in_front: bool,
        t: &mut Turn<'_, P>,
    ) -> Vec<Envelope> {
        if !self.can_fall_back(d) {
            return envelopes;
        }
        let all = self.is_given_up(d);
        let (mut diverted, staying): (Vec<_>, Vec<_>) = envelopes
            .into_iter()
            .partition(|envelope| all || self.has_failed_enough(envelope));
        if !diverted.is_empty() {
            // Whoever tried it, it was with somebody else.
            diverted
                .iter_mut()
                .for_each(|envelope| envelope.last_worker = None);
            let fallback = self.backlog.slot(fallback_of(self.backlog[d].id));
            if self.is_promoted() {
                // A promoted queue has one site, and that is not the relay.
                self.backlog
                    .set_state(fallback, State::Moved(QueueId::GENERAL));
            }
            self.admit(fallback, diverted, in_front, t);
        }
        staying
    }

    /// True if an envelope that has just been deferred goes to the fallback relay, and at once: the rest that its deferral
    /// asks for is for the sake of hosts that it leaves alone from now on.
    pub(super) fn falls_back_now(
        &self,
        d: u32,
        envelope: &Envelope,
        class: Class,
        t: &Turn<'_, P>,
    ) -> bool {
        class != Class::InDoubt
            && self.can_fall_back(d)
            && self.has_failed_enough(envelope)
            && self.config.retry.beyond(t.now).is_none()
    }

    /// True if the hosts of destination `d` are given up: in pauses, its mail goes to the fallback relay.
    pub(super) fn is_given_up(&self, d: u32) -> bool {
        match &self.backlog[d].state {
            State::Failed { .. } => self.is_enough(self.backlog[d].failures),
            State::Known { site, .. } => self.is_site_given_up(*site),
            _ => false,
        }
    }

    /// True if site `s` has failed so often that mail for it goes to the fallback relay while it is paused.
    pub(super) fn is_site_given_up(&self, s: u32) -> bool {
        let site = &self.sites[s];
        matches!(site.gate, Gate::Paused(_)) && self.is_enough(site.failures)
    }

    fn can_fall_back(&self, d: u32) -> bool {
        let (_, is_fallback) = origin_of(self.backlog[d].id);
        self.config.fallback_after.is_some() && !is_fallback
    }

    fn has_failed_enough(&self, envelope: &Envelope) -> bool {
        let passage = envelope.passage;
        self.is_enough(u32::from(passage.attempts) + u32::from(passage.host_failures))
    }

    fn is_enough(&self, failures: u32) -> bool {
        self.config
            .fallback_after
            .is_some_and(|after| failures >= after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_destination_knows_whose_it_is_and_has_none_itself() {
        let destination = DestinationId(7);
        let fallback = fallback_of(destination);
        assert_eq!(origin_of(fallback), (destination, true));
        assert_eq!(origin_of(destination), (destination, false));
        assert_eq!(fallback_of(fallback), fallback);
    }
}
