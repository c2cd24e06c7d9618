//! The database as people see it: its tables, its view, and the words in its columns.
//!
//! The comments are part of the schema, so `sqlite3 ledger.sqlite .schema` shows them.

use rusqlite::types::ValueRef;

use super::record::{scope_named, stage_named};
use crate::mail::{Enhanced, Scope, Stage, Status};

/// `user_version` of a database of this form.
pub(super) const VERSION: i64 = 1;

/// The status of a recipient whose mail may be leaving.
pub(super) const SENDING: &str = "sending";

/// Makes everything.
pub(super) const SCHEMA: &str = "
CREATE TABLE recipient(
    -- One row for each recipient that something is known of. No row: queued, nothing was tried.
    no INTEGER PRIMARY KEY, -- the recipient's number in the batch, from 0
    message INTEGER, -- the message's number, from 1
    address TEXT NOT NULL,
    status TEXT NOT NULL, -- queued, sending, delivered, refused, deferred, in-doubt, held, expired, suppressed, invalid
    code INTEGER, -- of the last reply; 0: the verdict is our own. This and the next columns are NULL without an attempt
    enhanced TEXT, -- RFC 3463: '5.1.1'
    class TEXT, -- who is hurt: local, domain, host, session, rate, message, recipient
    stage TEXT, -- what was answered: batch, dns, connect, greeting, ehlo, starttls, auth, mail, rcpt, data, body, dot, rset, quit
    way INTEGER REFERENCES way(id), -- how the last attempt went
    attempts INTEGER NOT NULL, -- attempts that count against the recipient
    host_failures INTEGER NOT NULL, -- attempts that failed before the recipient was named
    in_doubt INTEGER NOT NULL, -- 1: it was in doubt once
    first_attempt INTEGER, -- milliseconds since 1970, UTC
    last_attempt INTEGER, -- the same
    ms INTEGER, -- how long the last attempt took
    reply TEXT, -- the last reply's text, or why there was none
    sending_since INTEGER, -- while the status is 'sending': since when, in milliseconds
    sending_way INTEGER REFERENCES way(id) -- and how
);
CREATE TABLE way(
    -- Queue, server and session that attempts went through.
    id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    mx TEXT NOT NULL,
    ip TEXT NOT NULL,
    tls TEXT NOT NULL,
    UNIQUE(queue, mx, ip, tls)
);
CREATE TABLE meta(
    -- 'folded': the last segment of the journal that is in here; 'run': the last run of it.
    key TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;
INSERT INTO meta VALUES ('folded', 0), ('run', 0);
CREATE VIEW report AS
    -- The columns of `mailer report`, as text. Recipients without a row are not in it: they are queued.
    SELECT coalesce(CAST(message AS TEXT), '') AS message,
        address AS recipient,
        status,
        CASE WHEN code > 0 THEN CAST(code AS TEXT) ELSE '' END AS code,
        coalesce(enhanced, '') AS enhanced,
        coalesce(class, '') AS class,
        coalesce(stage, '') AS stage,
        coalesce(mx, '') AS mx,
        coalesce(ip, '') AS ip,
        coalesce(tls, '') AS tls,
        coalesce(queue, '') AS queue,
        CASE WHEN last_attempt IS NULL THEN '' ELSE CAST(attempts + host_failures AS TEXT) END AS attempts,
        coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', first_attempt / 1000.0, 'unixepoch'), '') AS first_attempt,
        coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', last_attempt / 1000.0, 'unixepoch'), '') AS last_attempt,
        coalesce(CAST(ms AS TEXT), '') AS ms,
        coalesce(reply, '') AS reply
    FROM recipient LEFT JOIN way ON way.id = recipient.way
    ORDER BY no;
PRAGMA user_version = 1;
";

/// A status column: a status, or that the recipient is being sent to.
pub(super) fn status(value: ValueRef<'_>) -> Option<Option<Status>> {
    let word = value.as_str().ok()?;
    if word == SENDING {
        return Some(None);
    }
    let found = Status::ALL.into_iter().find(|each| each.name() == word);
    found.map(Some)
}

/// A class column.
pub(super) fn class(value: ValueRef<'_>) -> Option<Scope> {
    scope_named(value.as_str().ok()?)
}

/// A stage column.
pub(super) fn stage(value: ValueRef<'_>) -> Option<Stage> {
    stage_named(value.as_str().ok()?)
}

/// An enhanced column.
pub(super) fn enhanced(value: ValueRef<'_>) -> Option<Enhanced> {
    let mut parts = value.as_str().ok()?.split('.');
    let enhanced = Enhanced::new(
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    );
    parts.next().is_none().then_some(enhanced)
}
