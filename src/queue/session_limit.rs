//! The number of messages that a server takes in one session, learned from how sessions end.
//!
//! A server with such a limit answers the MAIL after it with 421, or just closes. Nobody is to blame, but a session that we end
//! ourselves in time costs no refused attempt. Two endings in a row after the same number of messages make it the limit, four
//! if sessions have carried more before (the limit was lowered, or it is chance: in a storm all sessions end somewhere). An
//! ending earlier than the limit takes it back unless it agrees with the next.
//!
//! A limit can be raised, and then nothing would ever tell: after every 50 sessions that were ended at the limit, one
//! more message is allowed. The first session that is cut there takes that back; the first that carries it removes the limit.
//!
//! INVARIANTS: a configured limit is never passed; a learned one by one message at most. Messages are counted once
//! they are accepted. A server that counts each MAIL ends sessions with refused ones among them earlier: such endings agree
//! with none of the others, and are not learned from.

/// So many sessions end at the limit before one more message is tried.
const QUITS: u32 = 50;

/// What is known of a site's limit of messages per session.
#[derive(Clone, Debug, Default)]
pub struct SessionLimit {
    configured: Option<u32>,
    learned: Option<u32>,
    /// The last ending, and how many in a row agreed with it.
    ending: Option<(u32, u32)>,
    /// The longest session so far.
    longest: u32,
    quits: u32,
}

impl SessionLimit {
    /// With the limit that the configuration or a profile names, and the one that an earlier run learned.
    pub fn new(configured: Option<u32>, learned: Option<u32>) -> SessionLimit {
        SessionLimit {
            configured: configured.map(|limit| limit.max(1)),
            learned: learned.map(|limit| limit.max(1)),
            ..SessionLimit::default()
        }
    }

    /// After how many messages we end a session.
    pub fn limit(&self) -> Option<u32> {
        let learned = self
            .learned
            .map(|limit| limit.saturating_add(u32::from(self.probes())));
        match (self.configured, learned) {
            (Some(configured), Some(learned)) => Some(configured.min(learned)),
            (configured, learned) => configured.or(learned),
        }
    }

    /// The limit that was learned, without the one that is tried.
    pub fn learned(&self) -> Option<u32> {
        self.learned
    }

    fn probes(&self) -> bool {
        self.quits >= QUITS
    }

    /// The server ended a session (421, or it closed) that had carried so many messages.
    pub fn note_ended(&mut self, messages: u32) {
        if messages == 0 {
            return;
        }
        self.note_longest(messages);
        self.quits = 0;
        let agreed = match self.ending {
            Some((same, agreed)) if same == messages => agreed.saturating_add(1),
            _ => 1,
        };
        self.ending = Some((messages, agreed));
        let wanted = if self.longest > messages { 4 } else { 2 };
        if agreed >= wanted {
            self.learned = Some(messages);
            self.longest = messages;
        } else if agreed >= 2 && self.learned.is_some_and(|limit| messages < limit) {
            self.learned = None;
        }
    }

    /// A session has carried so many messages, and was not ended by the server. To be told when it is closed.
    pub fn note_carried(&mut self, messages: u32) {
        self.note_longest(messages);
        if self.ending.is_some_and(|(ending, _)| messages > ending) {
            self.ending = None;
        }
        if self.learned == Some(messages) {
            self.quits = self.quits.saturating_add(1);
        }
    }

    fn note_longest(&mut self, messages: u32) {
        self.longest = self.longest.max(messages);
        if self.learned.is_some_and(|limit| messages > limit) {
            self.learned = None;
            self.quits = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_endings_that_agree_are_a_limit() {
        let mut limit = SessionLimit::new(None, None);
        limit.note_ended(20);
        assert_eq!(limit.limit(), None);
        limit.note_ended(20);
        assert_eq!(limit.limit(), Some(20));
        limit.note_ended(0);
        assert_eq!(limit.limit(), Some(20));
    }

    #[test]
    fn a_storm_teaches_nothing() {
        let mut limit = SessionLimit::new(None, None);
        limit.note_carried(90);
        for ending in [31, 17, 17, 17, 44, 90, 12] {
            limit.note_ended(ending);
            assert_eq!(limit.limit(), None, "after {ending}");
        }
    }

    #[test]
    fn a_longer_session_between_them_speaks_against_it() {
        let mut limit = SessionLimit::new(None, None);
        limit.note_ended(20);
        limit.note_carried(21);
        limit.note_ended(20);
        assert_eq!(limit.limit(), None);
    }

    #[test]
    fn a_lowered_limit_is_found() {
        let mut limit = SessionLimit::new(None, Some(100));
        limit.note_carried(100);
        for _ in 0..4 {
            limit.note_ended(20);
        }
        assert_eq!(limit.limit(), Some(20));
    }

    #[test]
    fn a_raised_limit_is_found_by_one_more_message_now_and_then() {
        let mut limit = SessionLimit::new(None, Some(20));
        for _ in 0..QUITS {
            assert_eq!(limit.limit(), Some(20));
            limit.note_carried(20);
        }
        assert_eq!(limit.limit(), Some(21));
        limit.note_ended(20);
        assert_eq!(limit.limit(), Some(20));
        for _ in 0..QUITS {
            limit.note_carried(20);
        }
        limit.note_carried(21);
        assert_eq!(limit.limit(), None);
    }

    #[test]
    fn a_configured_limit_is_never_passed() {
        let mut limit = SessionLimit::new(Some(20), Some(20));
        for _ in 0..=QUITS {
            limit.note_carried(20);
        }
        assert_eq!(limit.limit(), Some(20));
        limit.note_ended(7);
        limit.note_ended(7);
        limit.note_ended(7);
        limit.note_ended(7);
        assert_eq!(limit.limit(), Some(7));
    }
}
