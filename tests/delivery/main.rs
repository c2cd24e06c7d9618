//! The mission, end to end: the real binary delivers to real sockets, and each test compares two independent accounts of
//! it: the report that `mailer` writes, and what the receivers took.
//!
//! Every test has a receiver ([`mailer::sink::Sink`], normally all of 127/8) and a DNS server with a zone of its own, both
//! in the test's process and on free ports, so that all tests run at once. Nothing is asserted about time: where one thing
//! has to come before another, the receiver holds a reply back or the test waits for the receiver's counters.

mod again; // the same batch or stream once more
mod auth; // as whom a relay is spoken to
mod batch; // messages that can be told apart when they arrive
mod cache; // sessions that are used again
mod clones; // messages with several recipients
mod control; // orders that are given while mail is sent
mod dns; // where mail goes
mod dot; // what comes before a final dot, and what has left behind it
mod explain; // how mail for a domain would be sent
mod fallback; // servers that take what others did not
mod finish; // ending in time, and going on
mod inputs; // from what a batch can be read
mod jobs; // going on without the batch
mod lab; // receiver, DNS server and the program under test
mod limits; // how many workers and sessions there are
mod live; // limits that change while mail is sent
mod memory; // what is remembered of receivers
mod nights; // what the second run knows from the first
mod pace; // how many sessions, and how fast
mod peers; // servers that no standard foresees
mod portion; // a part of the mail now, the rest later; samples
mod promotion; // sites that get queues of their own while the run goes on
mod queues; // which queue handles what, and that none waits for another
mod refusals; // servers that want no mail of ours
mod relay; // mail for everybody through servers of one's own
mod resume; // mail that one run leaves and a later one takes up
mod retries; // what becomes of mail that was not taken at once
mod signals; // being stopped
mod smtp; // what servers offer, refuse and leave out
mod suppression; // whom nothing is sent to
mod tls; // what is said encrypted, and what is not said at all
mod turns; // how often a message waits for the server
