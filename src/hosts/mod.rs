//! The host memory: what runs have learned of receivers, kept for the next one in `hosts.sqlite` in the state directory.
//!
//! A row per address (does it answer, does TLS work, how far is it safe to run ahead of it, what does it offer) and one per site
//! and address of ours (sessions that it bears, limits that were met). The tables and their columns are described in the
//! schema itself. How long a row is believed is in [`row`].
//!
//! Nothing of it is precious: the file may be deleted at any time, also while a run uses it. A file that is damaged, of a newer
//! version or not ours is set aside as `hosts.sqlite.bad` and a new one begun; [`Opened::warning`] says so, and never is that a
//! reason not to send. Several runs share the file: transactions are short, the last one to write a row wins, and who would
//! have to wait longer than a moment gets an error and tries again later.
//!
//! INVARIANTS: the file is for its owner only; a value that this program does not write is passed over, not believed; reads and
//! writes are bounded by what is asked for, and the file by [`ROWS_MAX`] rows of a kind.
//!
//! Errors are [`HostsError`]: path and reason. Limits: an address is one host, whatever its port. The file is not synced: what a
//! loss of power leaves of it may be set aside by the next run.

mod columns;
mod error;
mod row;
mod schema;

use std::fs::{self, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

pub use error::HostsError;
pub use row::{AddressRow, KEPT_MS, SiteRow};

use columns::{
    ADDRESS, INSERT_ADDRESS, INSERT_SITE, SITE, read_address, read_site, write_address, write_site,
};

/// The file's name in the state directory.
pub const FILE: &str = "hosts.sqlite";
/// What a file that cannot be used is set aside as.
const BAD: &str = "hosts.sqlite.bad";
/// How long another run's transaction is waited for.
const BUSY_WAIT: Duration = Duration::from_millis(500);
/// Rows of a transaction, so that nobody waits for long.
const CHUNK: usize = 500;
/// Rows of a kind that are kept, the latest first.
pub const ROWS_MAX: u32 = 100_000;

/// The memory, open.
#[derive(Debug)]
pub struct HostStore {
    connection: Connection,
    path: PathBuf,
}

/// What came of opening it for a run.
#[derive(Debug, Default)]
pub struct Opened {
    /// The memory; `None`: the run does without.
    pub store: Option<HostStore>,
    /// What a person should know, in one line.
    pub warning: Option<String>,
}

impl HostStore {
    /// Opens the memory of a state directory for a run, which must be there; makes it if it is missing, and anew if it cannot
    /// be used.
    pub fn open(state: &Path) -> Opened {
        let inode = inode(&state.join(FILE));
        let error = match HostStore::open_or_make(state) {
            Ok(store) => return Opened::with(store, None),
            Err(error) => error,
        };
        if !error.is_unfit {
            return Opened {
                store: None,
                warning: Some(format!("{error}: this run does without host memory")),
            };
        }
        let aside = match set_aside(state, inode) {
            Ok(()) => format!("{error}: set aside as {BAD}, and a new one begun"),
            Err(failure) => {
                return Opened {
                    store: None,
                    warning: Some(format!(
                        "{error}, and cannot be set aside ({failure}): this run does without host memory"
                    )),
                };
            }
        };
        match HostStore::open_or_make(state) {
            Ok(store) => Opened::with(store, Some(aside)),
            Err(again) => Opened {
                store: None,
                warning: Some(format!("{again}: this run does without host memory")),
            },
        }
    }

    fn open_or_make(state: &Path) -> Result<HostStore, HostsError> {
        let path = state.join(FILE);
        let mut options = OpenOptions::new();
        // SQLite gives its journal the mode of its database.
        match options.write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(HostsError::new(&path, false, error));
            }
            _ => {}
        }
        HostStore::open_file(path)
    }

    /// Opens the memory of a state directory to look at it, or to forget something. `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn open_existing(state: &Path) -> Result<Option<HostStore>, HostsError> {
        let path = state.join(FILE);
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(HostsError::new(&path, false, error)),
            Ok(_) => HostStore::open_file(path).map(Some),
        }
    }

    fn open_file(path: PathBuf) -> Result<HostStore, HostsError> {
        match path.symlink_metadata() {
            Ok(there) if !there.is_file() => {
                return Err(HostsError::new(&path, true, "no regular file"));
            }
            Ok(_) => {}
            Err(error) => return Err(HostsError::new(&path, false, error)),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&path, flags).and_then(|connection| {
            connection.busy_timeout(BUSY_WAIT)?;
            connection.pragma_update(None, "synchronous", "OFF")?;
            Ok(connection)
        });
        let connection = opened.map_err(HostsError::sql(&path))?;
        let mut store = HostStore { connection, path };
        store.check()?;
        Ok(store)
    }

    /// Makes the tables if the file is empty; refuses what is not ours.
    fn check(&mut self) -> Result<(), HostsError> {
        let fail = HostsError::sql(&self.path);
        if self.form().map_err(&fail)? == (0, 0, 0) {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(&fail)?;
            // Another run may have been faster.
            let objects: i64 = transaction
                .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
                .map_err(&fail)?;
            if objects == 0 {
                transaction.execute_batch(schema::SCHEMA).map_err(&fail)?;
            }
            transaction.commit().map_err(&fail)?;
        }
        let unfit = |reason: &str| HostsError::new(&self.path, true, reason);
        match self.form().map_err(&fail)? {
            (schema::APPLICATION, schema::VERSION, _) => {}
            (schema::APPLICATION, version, _) => {
                return Err(unfit(&format!("of another version ({version})")));
            }
            _ => return Err(unfit("not a host memory of this program")),
        }
        // Whatever else is damaged shows when it is read; this much must be there.
        for sql in [ADDRESS, SITE] {
            let read = self
                .connection
                .prepare(&format!("{sql} LIMIT 1"))
                .and_then(|mut statement| statement.query([])?.next().map(drop));
            read.map_err(|error| unfit(&error.to_string()))?;
        }
        Ok(())
    }

    /// Application, version, and how many objects there are.
    fn form(&self) -> rusqlite::Result<(i64, i64, i64)> {
        let ask = |sql: &str| self.connection.query_row(sql, [], |row| row.get(0));
        Ok((
            ask("PRAGMA application_id")?,
            ask("PRAGMA user_version")?,
            ask("SELECT count(*) FROM sqlite_schema")?,
        ))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if nothing is remembered.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn is_empty(&self) -> Result<bool, HostsError> {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM address) AND NOT EXISTS (SELECT 1 FROM site)";
        let empty = self.connection.query_row(sql, [], |row| row.get(0));
        empty.map_err(HostsError::sql(&self.path))
    }

    /// What still holds of an address.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn address(&self, ip: IpAddr, now_ms: i64) -> Result<Option<AddressRow>, HostsError> {
        let sql = format!("{ADDRESS} WHERE ip = ?1");
        let found = self
            .connection
            .prepare(&sql)
            .and_then(|mut found| found.query_row([ip.to_string()], read_address).optional());
        let row = found.map_err(HostsError::sql(&self.path))?;
        Ok(row.flatten().and_then(|row| row.at(now_ms)))
    }

    /// What still holds of a site, from each of our addresses.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn site(&self, key: &str, now_ms: i64) -> Result<Vec<SiteRow>, HostsError> {
        let sql = format!("{SITE} WHERE key = ?1 ORDER BY source");
        self.sites_of(&sql, &[&key], now_ms)
    }

    fn sites_of(
        &self,
        sql: &str,
        parameters: &[&dyn rusqlite::ToSql],
        now_ms: i64,
    ) -> Result<Vec<SiteRow>, HostsError> {
        let read = || {
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map(parameters, read_site)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = read().map_err(HostsError::sql(&self.path))?;
        Ok(rows.into_iter().filter_map(|row| row.at(now_ms)).collect())
    }

    /// Everything that still holds, in order of names.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn all(&self, now_ms: i64) -> Result<(Vec<SiteRow>, Vec<AddressRow>), HostsError> {
        let sites = self.sites_of(&format!("{SITE} ORDER BY key, source"), &[], now_ms)?;
        let read = || {
            let mut statement = self.connection.prepare(&format!("{ADDRESS} ORDER BY ip"))?;
            let rows = statement.query_map([], read_address)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = read().map_err(HostsError::sql(&self.path))?;
        let addresses = rows.into_iter().flatten();
        Ok((sites, addresses.filter_map(|row| row.at(now_ms)).collect()))
    }

    /// Writes rows in place of those of the same address, or site and source.
    ///
    /// # Errors
    /// If it cannot be written; what came before the failure stays.
    pub fn save(&mut self, addresses: &[AddressRow], sites: &[SiteRow]) -> Result<(), HostsError> {
        for chunk in addresses.chunks(CHUNK) {
            self.write(INSERT_ADDRESS, chunk, write_address)?;
        }
        for chunk in sites.chunks(CHUNK) {
            self.write(INSERT_SITE, chunk, write_site)?;
        }
        Ok(())
    }

    fn write<T>(
        &mut self,
        sql: &str,
        rows: &[T],
        write: fn(&mut rusqlite::Statement<'_>, &T) -> rusqlite::Result<usize>,
    ) -> Result<(), HostsError> {
        let mut all = || {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut statement = transaction.prepare(sql)?;
                for row in rows {
                    write(&mut statement, row)?;
                }
            }
            transaction.commit()
        };
        all().map_err(HostsError::sql(&self.path))
    }

    /// Forgets what is too old, and of what is left the oldest if it is too much.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sweep(&mut self, now_ms: i64) -> Result<(), HostsError> {
        let oldest = now_ms.saturating_sub(KEPT_MS);
        for (table, key) in [("address", "ip"), ("site", "key, source")] {
            let old = format!("DELETE FROM {table} WHERE seen_ms < ?1");
            let many = format!(
                "DELETE FROM {table} WHERE ({key}) IN
                    (SELECT {key} FROM {table} ORDER BY seen_ms DESC LIMIT -1 OFFSET {ROWS_MAX})"
            );
            let count = format!("SELECT count(*) FROM {table}");
            let connection = &self.connection;
            let swept = connection.execute(&old, [oldest]).and_then(|_| {
                let rows: u32 = connection.query_row(&count, [], |row| row.get(0))?;
                if rows > ROWS_MAX {
                    connection.execute(&many, [])?;
                }
                Ok(())
            });
            swept.map_err(HostsError::sql(&self.path))?;
        }
        Ok(())
    }

    /// Forgets sites and addresses of these names. Returns how many rows that were.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn forget(&mut self, keys: &[&str], ips: &[IpAddr]) -> Result<usize, HostsError> {
        let mut all = || {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut gone = 0;
            for key in keys {
                gone += transaction.execute("DELETE FROM site WHERE key = ?1", [key])?;
            }
            for ip in ips {
                gone +=
                    transaction.execute("DELETE FROM address WHERE ip = ?1", [ip.to_string()])?;
            }
            transaction.commit()?;
            Ok(gone)
        };
        all().map_err(HostsError::sql(&self.path))
    }

    /// Forgets everything. Returns how many rows that were.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn forget_all(&mut self) -> Result<usize, HostsError> {
        let mut all = || {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let gone = transaction.execute("DELETE FROM site", [])?
                + transaction.execute("DELETE FROM address", [])?;
            transaction.commit()?;
            Ok(gone)
        };
        all().map_err(HostsError::sql(&self.path))
    }
}

impl Opened {
    fn with(store: HostStore, warning: Option<String>) -> Opened {
        Opened {
            store: Some(store),
            warning,
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    path.symlink_metadata().ok().map(|there| there.ino())
}

/// Renames the file, if it is still the one with that inode: another run may have set it aside just now.
fn set_aside(state: &Path, seen: Option<u64>) -> io::Result<()> {
    let path = state.join(FILE);
    if seen.is_none() || inode(&path) != seen {
        return Ok(());
    }
    // A journal beside it would be taken for that of the new file.
    for journal in [
        "hosts.sqlite-journal",
        "hosts.sqlite-wal",
        "hosts.sqlite-shm",
    ] {
        match fs::remove_file(state.join(journal)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, state.join(BAD))
}

#[cfg(test)]
mod tests;
