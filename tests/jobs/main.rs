//! The commands about jobs, run as a user does: on jobs whose ledgers the tests wrote themselves, so that every state there is
//! can be looked at without a server.

mod decide; // settle, retry, cancel
mod feed; // failed.mbox and failed.csv, fed back
mod look; // jobs, status, report
mod made; // a state directory with a job in it, and the program
mod named; // which job a send goes on with, and how old its mail is
mod purge; // what is forgotten
mod resume; // jobs that go on
