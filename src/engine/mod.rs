//! The engine: threads and what they say to each other. The only place that starts any, the resolver's driver and the
//! test receiver aside.
//!
//! | file | what |
//! |---|---|
//! | `run` | puts a run together and takes it apart |
//! | `router`, `past`, `portion` | intake thread, router thread; what earlier runs left; which of it this run takes |
//! | `queue` | a queue's thread: an actor around its dispatcher |
//! | `worker`, `desk`, `teller`, `parcel` | a worker's thread; the envelopes it answers for; the attempts it tells; the message it sends |
//! | `dial`, `sources`, `session` | opening a session; from which address; the blocking driver of one |
//! | `hosts`, `memory`, `reach` | what is known of hosts; what other runs knew and will know; whether the network can be reached at all |
//! | `resolve`, `pool` | the resolver pool's work; its threads |
//! | `permits`, `shared` | what queues share; what all threads share |
//! | `promoted` | the queues for promoted sites |
//! | `control` | orders of the operator: the socket, what becomes of them, what is shown |
//! | `levers` | what can be changed while a run goes on |
//! | `limits` | how many workers this machine has room for |
//! | `stop_on` | when a run stops because too much of it goes wrong |
//! | `book` | the ledger's thread |
//! | `guard` | what becomes of the run if a thread panics |
//! | `parts`, `terms` | what settings become; what is known of a site before its first session |
//! | `settings`, `status` | what a run is told; what is seen of it |
//! | `explain` | how mail for a domain would be sent |
//!
//! INVARIANTS: no lock is held over I/O; nobody but a worker blocks on a mail server's socket; absent: printing,
//! argument parsing, knowledge of SMTP beyond "await, send body, done".

pub mod book;
pub mod control;
pub mod desk;
pub mod dial;
pub mod explain;
pub mod guard;
pub mod hosts;
pub mod levers;
pub mod limits;
pub mod memory;
pub mod parcel;
mod parts;
pub mod past;
pub mod permits;
pub mod pool;
pub mod portion;
pub mod promoted;
pub mod queue;
pub mod reach;
pub mod resolve;
pub mod router;
pub mod run;
pub mod session;
pub mod settings;
pub mod shared;
pub mod sources;
pub mod start;
pub mod status;
pub mod stop_on;
pub mod stops;
pub mod teller;
mod terms;
pub mod worker;
