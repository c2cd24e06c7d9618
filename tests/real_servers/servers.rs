//! Where the servers are that `scripts/servers` started.
//!
//! Returns `None`, after a line on stderr, if they are not there and need not be; panics if they are required.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A receiving server that keeps what it gets.
pub struct Server {
    /// The word in its variables' names.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where its messages are, one file each.
    pub maildir: PathBuf,
}

/// The server of that name.
pub fn server(name: &'static str) -> Option<Server> {
    Some(Server {
        name,
        address: address(name)?,
        maildir: variable(&format!("{name}_MAILDIR"))?.into(),
    })
}

/// Only where it listens.
pub fn address(name: &str) -> Option<SocketAddr> {
    variable(name).map(|text| text.parse().expect("scripts/servers writes ADDRESS:PORT"))
}

/// The file with the certificate that all servers show.
pub fn certificate() -> Option<String> {
    variable("CERTIFICATE")
}

/// Postfix's `smtp-sink`, for tests that start it themselves.
pub struct SinkProgram {
    /// The program.
    pub path: PathBuf,
    /// Where it finds its libraries.
    pub libraries: String,
}

/// Where it is.
pub fn sink_program() -> Option<SinkProgram> {
    Some(SinkProgram {
        path: variable("SMTP_SINK_PROGRAM")?.into(),
        libraries: variable("SMTP_SINK_LIBRARIES")?,
    })
}

/// What `scripts/servers` says of this name.
pub fn variable(name: &str) -> Option<String> {
    let name = format!("MAILER_TEST_{name}");
    let value = env::var(&name).ok();
    if value.is_none() {
        assert!(
            env::var_os("MAILER_TEST_REQUIRE_SERVERS").is_none(),
            "{name} is not set, and this run requires the servers"
        );
        eprintln!("skipped: needs scripts/test ({name} is not set)");
    }
    value
}
