//! The promise, by crashing: `mailer send` and `mailer resume` are killed with SIGKILL at random moments, again and again, until a
//! run ends by itself. After each kill and at the end independent accounts are compared: what the job's files say, what `mailer
//! status` and `mailer report` make of them, and what the receivers, which live in the test's process and survive, have taken.
//!
//! | after each kill | whoever got mail is delivered or in doubt; whoever is delivered got mail; of each session at most one transaction is in doubt |
//! |---|---|
//! | at the end | lost: nobody; twice: only who was in doubt at a kill, and it shows; with `--in-doubt hold`: nobody |
//!
//! `CRASH_ROUNDS` (60) and `CRASH_SEED` (1) choose how many rounds and which; a red round says how to run it alone. The seed
//! chooses what is done when; what a kill interrupts is up to the machine. `scripts/crash` runs many with the program as it is
//! released.
//!
//! No sleep stands for an event here: kills come at random times, and that is the point of them.

mod autopsy; // what is left after a kill, compared with what arrived
#[path = "../delivery/batch.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod batch; // messages that can be told apart when they arrive
mod guard; // one run after another, and two at once
mod job; // what the commands about jobs say, compared with the job's files
mod knife; // when a run is killed
#[path = "../delivery/lab.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod lab; // receiver, DNS server, rows of the report
mod overwritten; // another batch in the place of the one that was being sent
mod resumed; // jobs that go on by `mailer resume`, whatever has become of their batch
mod rounds; // random kills
mod run; // the program, and ways to end it
mod stage; // the batch, the receivers' manners, and what must become of everybody
mod stops; // signals, and receivers that never answer
