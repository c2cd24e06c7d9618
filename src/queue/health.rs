//! Health: tells a sick site from a sick message.
//!
//! A 4xx to MAIL or the dot is about the message, says the reply table. When a site answers every message so, it is about
//! the site, and trying the rest of the backlog one by one would cost each of its messages an attempt. What counts is the
//! last [`SPAN`] *distinct* messages: one message that is put off for all its recipients says nothing about the site.
//!
//! INVARIANTS: at most [`SPAN`] messages are remembered, each once; a site is sick only if none of them went. What went
//! includes what was refused for good: a site that judges mail works.

use std::collections::VecDeque;

use crate::mail::MessageNo;

/// So many different messages in a row have to be put off.
pub const SPAN: usize = 8;

/// The last few messages that were tried at a site.
#[derive(Clone, Debug, Default)]
pub struct Health {
    last: VecDeque<(MessageNo, bool)>,
}

impl Health {
    /// A site of which nothing is known is well.
    pub fn new() -> Health {
        Health::default()
    }

    /// What became of `message`: it `went` (accepted for somebody, or refused for good), or it was put off as a message.
    pub fn note(&mut self, message: MessageNo, went: bool) {
        if let Some(at) = self.last.iter().position(|known| known.0 == message) {
            if went {
                // It is the latest news: what came before it leaves first.
                self.last.remove(at);
                self.last.push_back((message, true));
            }
            return;
        }
        if self.last.len() == SPAN {
            self.last.pop_front();
        }
        self.last.push_back((message, went));
    }

    /// Whether the last [`SPAN`] different messages were all put off.
    pub fn is_sick(&self) -> bool {
        self.last.len() == SPAN && self.last.iter().all(|(_, went)| !went)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_different_messages_put_off_make_a_site_sick() {
        let mut health = Health::new();
        for message in 0..8 {
            assert!(!health.is_sick(), "after {message}");
            health.note(MessageNo(message), false);
        }
        assert!(health.is_sick());
    }

    #[test]
    fn what_went_again_and_again_is_not_forgotten_for_what_was_put_off_in_between() {
        let mut health = Health::new();
        for message in 0..20 {
            health.note(MessageNo(u32::MAX), true);
            health.note(MessageNo(message), false);
            assert!(!health.is_sick(), "after {message}");
        }
    }

    #[test]
    fn one_message_for_many_recipients_does_not() {
        let mut health = Health::new();
        for _ in 0..1_000 {
            health.note(MessageNo(7), false);
        }
        assert!(!health.is_sick());
    }

    #[test]
    fn one_that_went_speaks_for_the_site_until_eight_others_did_not() {
        let mut health = Health::new();
        for message in 0..7 {
            health.note(MessageNo(message), false);
        }
        health.note(MessageNo(7), true);
        for message in 8..15 {
            health.note(MessageNo(message), false);
            assert!(!health.is_sick(), "after {message}");
        }
        health.note(MessageNo(15), false);
        assert!(health.is_sick());
    }

    #[test]
    fn a_message_that_goes_for_its_next_recipient_has_gone() {
        let mut health = Health::new();
        for message in 0..8 {
            health.note(MessageNo(message), false);
        }
        health.note(MessageNo(3), true);
        health.note(MessageNo(3), false);
        assert!(!health.is_sick());
    }
}
