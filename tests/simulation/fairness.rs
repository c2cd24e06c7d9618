//! Bounded waiting, by hand: who is served when, with few workers and one destination that has very much mail.
