//! Rows as columns, both ways.
//!
//! Reading believes nothing: people and other programs can write into the file. What is not of the kind that is written there
//! counts as unknown, and a row whose essence is unknown as none. Nothing here fails or panics for what a column holds.

use rusqlite::Row;

use super::row::{AddressRow, SiteRow};
use super::schema::{level_name, level_named};
use crate::queue::terms::Learned;

pub(super) const ADDRESS: &str =
    "SELECT ip, level, no_chunking, suspected_ms, failures, dead_until_ms, tls_failed_first_ms,
    tls_failed_latest_ms, tls, capabilities, rtt_ms, seen_ms FROM address";
pub(super) const SITE: &str =
    "SELECT key, source, window, sessions_ceiling, messages_per_session, rate_per_minute,
    learned_ms, seen_ms FROM site";
pub(super) const INSERT_ADDRESS: &str =
    "INSERT OR REPLACE INTO address(ip, level, no_chunking, suspected_ms, failures, dead_until_ms,
    tls_failed_first_ms, tls_failed_latest_ms, tls, capabilities, rtt_ms, seen_ms)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
pub(super) const INSERT_SITE: &str =
    "INSERT OR REPLACE INTO site(key, source, window, sessions_ceiling, messages_per_session,
    rate_per_minute, learned_ms, seen_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

pub(super) fn write_address(
    statement: &mut rusqlite::Statement<'_>,
    row: &AddressRow,
) -> rusqlite::Result<usize> {
    statement.execute(rusqlite::params![
        row.ip.to_string(),
        level_name(row.level),
        row.no_chunking,
        row.suspected_ms,
        row.failures,
        row.dead_until_ms,
        row.tls_failed_ms.map(|(first, _)| first),
        row.tls_failed_ms.map(|(_, latest)| latest),
        row.tls.as_deref(),
        row.capabilities.as_deref(),
        row.rtt_ms,
        row.seen_ms,
    ])
}

pub(super) fn write_site(
    statement: &mut rusqlite::Statement<'_>,
    row: &SiteRow,
) -> rusqlite::Result<usize> {
    statement.execute(rusqlite::params![
        &*row.key,
        &*row.source,
        row.learned.window,
        row.learned.sessions_ceiling,
        row.learned.messages_per_session,
        row.learned.rate_per_minute,
        row.learned_ms,
        row.seen_ms,
    ])
}

/// A row of the table of addresses; `None` if it holds what is never written there.
pub(super) fn read_address(row: &Row<'_>) -> rusqlite::Result<Option<AddressRow>> {
    let read = || {
        let tls_failed = number(row, 6).zip(number(row, 7));
        Some(AddressRow {
            ip: text(row, 0)?.parse().ok()?,
            level: level_named(&text(row, 1)?)?,
            no_chunking: number(row, 2)? != 0,
            suspected_ms: number(row, 3),
            failures: count(row, 4)?,
            dead_until_ms: number(row, 5),
            tls_failed_ms: tls_failed,
            tls: text(row, 8).map(Into::into),
            capabilities: text(row, 9).map(Into::into),
            rtt_ms: count(row, 10),
            seen_ms: number(row, 11)?,
        })
    };
    Ok(read())
}

pub(super) fn read_site(row: &Row<'_>) -> rusqlite::Result<SiteRow> {
    Ok(SiteRow {
        key: text(row, 0).unwrap_or_default().into(),
        source: text(row, 1).unwrap_or_default().into(),
        learned: Learned {
            window: count(row, 2).unwrap_or(0),
            sessions_ceiling: count(row, 3),
            messages_per_session: count(row, 4),
            rate_per_minute: row.get(5).ok(),
        },
        learned_ms: number(row, 6).unwrap_or(0),
        seen_ms: number(row, 7).unwrap_or(0),
    })
}

/// A column as text, without what could repaint a terminal.
fn text(row: &Row<'_>, column: usize) -> Option<String> {
    let value: Option<String> = row.get(column).ok()?;
    value.map(|value| crate::mail::verdict::printable(&value, 8192))
}

fn number(row: &Row<'_>, column: usize) -> Option<i64> {
    row.get::<_, Option<i64>>(column).ok()?
}

fn count(row: &Row<'_>, column: usize) -> Option<u32> {
    u32::try_from(number(row, column)?).ok()
}
