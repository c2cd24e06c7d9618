//! Folding: what segments of the journal say is put into the database, and the segments are deleted.
//!
//! Recipients are taken in order, so that the database is written from one end to the other. Into a database that exists it is
//! one transaction; where there is none yet, one is built beside its place with no regard for crashes, synced once and renamed.
//!
//! INVARIANTS: a segment is deleted only after what it says is safe from a power loss; a database says which segment is the last
//! one in it, in the transaction that brought it, so no record counts twice, wherever a crash comes: a segment that is in
//! the database already is only deleted. The database's own journal is deleted durably (`synchronous = EXTRA`): with FULL a
//! power loss could bring it back, and with it the time before the transaction, when the segment is gone.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, params};

use super::People;
use super::error::LedgerError;
use super::journal::segment_path;
use super::pen::Pen;
use super::replay::{Line, Names, Segments, Touch, read_segment};
use super::schema;
use super::store::{Meta, Store, database_path, meta};
use crate::mail::RecipientNo;

/// How long readers are waited for.
const BUSY_WAIT: Duration = if cfg!(test) {
    Duration::from_millis(20)
} else {
    Duration::from_secs(10)
};

/// Page cache of a fold, in KiB: recipients come in order, so the pages under way are few.
const CACHE: &str = "PRAGMA cache_size = -4096";

/// Folds `numbers`, sealed segments in order, and deletes them. Those that are in the database already are only deleted.
pub(super) fn fold(
    directory: &Path,
    numbers: &[u64],
    people: &dyn People,
) -> Result<(), LedgerError> {
    let Some(last) = numbers.last().copied() else {
        return Ok(());
    };
    let store = Store::open(directory)?;
    let meta = match &store {
        Some(store) => meta(&store.connection).map_err(LedgerError::database(&store.path))?,
        None => Meta::default(),
    };
    let mut names = Names::default();
    let mut segments = Segments::after(meta.run);
    for number in numbers.iter().filter(|number| **number > meta.folded) {
        let path = segment_path(directory, *number);
        let bytes = read_segment(directory, *number).map_err(LedgerError::io(&path))?;
        segments.push(bytes.unwrap_or_default(), &mut names);
    }
    if last > meta.folded {
        let touches = segments.touches();
        let fold = Fold {
            segments: &segments,
            names: &names,
            people,
            last,
        };
        match store {
            Some(store) => fold.add_to(&store, &touches)?,
            None => fold.build(directory, &touches)?,
        }
    }
    for number in numbers {
        remove(&segment_path(directory, *number))?;
    }
    Ok(())
}

/// Deletes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), LedgerError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LedgerError::Io(path.to_path_buf(), error))
        }
        _ => Ok(()),
    }
}

/// Makes the entries of a directory safe from a power loss.
pub(super) fn sync_directory(directory: &Path) -> Result<(), LedgerError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(LedgerError::io(directory))
}

/// Where a database is built.
pub(super) fn building_path(directory: &Path) -> PathBuf {
    directory.join("ledger.sqlite.new")
}

/// What is folded.
pub(super) struct Fold<'a> {
    pub(super) segments: &'a Segments,
    pub(super) names: &'a Names,
    pub(super) people: &'a dyn People,
    last: u64,
}

impl Fold<'_> {
    /// Into the database that is there, in one transaction.
    fn add_to(&self, store: &Store, touches: &[Touch]) -> Result<(), LedgerError> {
        let fail = LedgerError::database(&store.path);
        let begin = format!("PRAGMA synchronous = EXTRA; {CACHE}; BEGIN IMMEDIATE");
        store.connection.busy_timeout(BUSY_WAIT).map_err(&fail)?;
        store.connection.execute_batch(&begin).map_err(&fail)?;
        let folded = self
            .write_interrupted(store, touches)
            .and_then(|()| self.write(&store.connection, &store.path, touches, Some(store)))
            .and_then(|()| store.connection.execute_batch("COMMIT").map_err(&fail));
        if folded.is_err() {
            let _ = store.connection.execute_batch("ROLLBACK");
        }
        folded
    }

    /// A database where none is: built beside its place.
    fn build(&self, directory: &Path, touches: &[Touch]) -> Result<(), LedgerError> {
        let path = building_path(directory);
        remove(&path)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(LedgerError::io(&path))?;
        let fail = LedgerError::database(&path);
        let connection = Connection::open(&path).map_err(&fail)?;
        let begin = format!("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {CACHE}; BEGIN");
        connection
            .execute_batch(&begin)
            .and_then(|()| connection.execute_batch(schema::SCHEMA))
            .map_err(&fail)?;
        self.write(&connection, &path, touches, None)?;
        connection.execute_batch("COMMIT").map_err(&fail)?;
        connection.close().map_err(|(_, error)| fail(error))?;
        file.sync_all().map_err(LedgerError::io(&path))?;
        let place = database_path(directory);
        fs::rename(&path, &place).map_err(LedgerError::io(&place))?;
        sync_directory(directory)
    }

    /// Recipients of the database whose mail was leaving when their run ended, and that no segment speaks of.
    fn write_interrupted(&self, store: &Store, touches: &[Touch]) -> Result<(), LedgerError> {
        if self.segments.epoch() == 0 {
            return Ok(());
        }
        let fail = LedgerError::database(&store.path);
        let mut sending = store.sending()?;
        let is_touched = |no: &RecipientNo| {
            touches
                .binary_search_by_key(no, |touch| touch.recipient)
                .is_ok()
        };
        sending.retain(|recipient| !is_touched(recipient));
        let mut pen = Pen::new(&store.connection, self).map_err(&fail)?;
        let mut finder = store.finder()?;
        for recipient in sending {
            if let Some(row) = finder.find(recipient)? {
                let mut line = row.line;
                line.replay(&[], self.segments);
                pen.update(&row, &line).map_err(&fail)?;
            }
        }
        Ok(())
    }

    /// What the touches come to, and what is folded now.
    fn write(
        &self,
        connection: &Connection,
        path: &Path,
        touches: &[Touch],
        store: Option<&Store>,
    ) -> Result<(), LedgerError> {
        let fail = LedgerError::database(path);
        let mut pen = Pen::new(connection, self).map_err(&fail)?;
        let mut finder = store.map(Store::finder).transpose()?;
        for touches in touches.chunk_by(|a, b| a.recipient == b.recipient) {
            let recipient = touches[0].recipient;
            let row = match &mut finder {
                Some(finder) => finder.find(recipient)?,
                None => None,
            };
            let mut line = row.as_ref().map_or(Line::NEW, |row| row.line);
            line.replay(touches, self.segments);
            match &row {
                Some(row) => pen.update(row, &line),
                None => pen.insert(recipient, &line),
            }
            .map_err(&fail)?;
        }
        let sql = "INSERT OR REPLACE INTO meta VALUES ('folded', ?1), ('run', ?2)";
        connection
            .execute(sql, params![self.last as i64, self.segments.run()])
            .map_err(&fail)?;
        Ok(())
    }
}
