//! The database as people see it. The comments are part of the schema, so `sqlite3 hosts.sqlite .schema` shows them.

use crate::smtp::Pipelining;

/// `application_id` of the file: "mlrh".
pub(super) const APPLICATION: i64 = 0x6d6c_7268;
/// `user_version` of a file of this form.
pub(super) const VERSION: i64 = 1;

/// Makes everything.
pub(super) const SCHEMA: &str = "
CREATE TABLE address(
    -- What was met at one address. Times are milliseconds since 1970, UTC.
    ip TEXT PRIMARY KEY,
    level TEXT NOT NULL, -- how far it is safe to run ahead of it: cross, classic, none
    no_chunking INTEGER NOT NULL, -- 1: BDAT went wrong
    suspected_ms INTEGER, -- when one of these two last became worse; they hold for 30 days
    failures INTEGER NOT NULL, -- connections that failed in a row
    dead_until_ms INTEGER, -- it is left out until then, for an hour at most
    tls_failed_first_ms INTEGER, -- handshakes that failed, none having worked in between; they count for an hour
    tls_failed_latest_ms INTEGER,
    tls TEXT, -- how the last session was protected; empty: it was not
    capabilities TEXT, -- what it offered last
    rtt_ms INTEGER, -- how long it took to open the last connection
    seen_ms INTEGER NOT NULL -- the row is forgotten 30 days after this
) WITHOUT ROWID;
CREATE TABLE site(
    -- What was learned of a site from one of our addresses.
    key TEXT NOT NULL, -- 'provider NAME', 'relay HOST:PORT', or the names of its MX hosts, in order, with commas
    source TEXT NOT NULL, -- our address; empty: the system's choice
    window INTEGER NOT NULL, -- sessions that it bore, 0: not known; halved after a day, forgotten after 7
    sessions_ceiling INTEGER, -- sessions that it refuses more than
    messages_per_session INTEGER, -- messages that it takes in one session
    rate_per_minute REAL, -- messages a minute that it does not bear more than; forgotten after 7 days
    learned_ms INTEGER NOT NULL, -- when that was confirmed last
    seen_ms INTEGER NOT NULL, -- the row is forgotten 30 days after this
    PRIMARY KEY(key, source)
) WITHOUT ROWID;
PRAGMA application_id = 1835823720;
PRAGMA user_version = 1;
";

/// The word for a level.
pub(super) fn level_name(level: Pipelining) -> &'static str {
    match level {
        Pipelining::None => "none",
        Pipelining::Classic => "classic",
        Pipelining::Cross => "cross",
    }
}

/// The level of this name.
pub(super) fn level_named(name: &str) -> Option<Pipelining> {
    let all = [Pipelining::None, Pipelining::Classic, Pipelining::Cross];
    all.into_iter().find(|level| level_name(*level) == name)
}
