//! The database of a job: settled knowledge, read.
//!
//! `ledger.sqlite` is made by the first fold (see `fold`) and read here: standings for recovery, rows for reports. Whoever
//! reads opens a transaction, so that what it sees belongs together; a fold that wants to commit waits for it.
//!
//! Rows are what people can change with other tools: a word that no version of this program writes is an error that names
//! the row, not a guess.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row as SqlRow, Statement};

use super::error::LedgerError;
use super::outcome::{Attempt, Via, interrupted};
use super::replay::{Details, Line, Names, Recovery, Sending};
use super::schema;
use super::standing::Standing;
use crate::mail::{Passage, QueueId, RecipientNo, Scope, Stage, Status, Verdict};
use crate::retry;

/// A row, but for message and address.
const ROW: &str =
    "SELECT no, status, class, attempts, host_failures, in_doubt, first_attempt, last_attempt,
        sending_since, sending_way, way, code, enhanced, stage, ms, reply
    FROM recipient";

/// How long a fold's commit is waited for.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// The database's file.
pub(super) fn database_path(directory: &Path) -> PathBuf {
    directory.join("ledger.sqlite")
}

/// An open database.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
}

/// What the database says of the journal.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Meta {
    /// The last segment that is in it.
    pub(super) folded: u64,
    /// The last run that is in it.
    pub(super) run: u32,
}

/// A row, but for message and address.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) recipient: RecipientNo,
    pub(super) line: Line,
    way: Option<i64>,
    /// The way of the intent that is open.
    pub(super) sending_way: Option<i64>,
    details: Option<(Verdict, u32)>,
}

impl Store {
    /// Opens the database of a job. `None` if nothing was folded yet.
    pub(super) fn open(directory: &Path) -> Result<Option<Store>, LedgerError> {
        let path = database_path(directory);
        match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LedgerError::Io(path, error)),
            Ok(there) if !there.is_file() => {
                let what = "no regular file: nothing that this program has made".to_owned();
                return Err(LedgerError::Damaged(path, what));
            }
            Ok(_) => {}
        }
        // For writing too if that is allowed: what a crash left half done is put right by whoever comes next.
        // No SQLITE_OPEN_NOFOLLOW: it refuses links anywhere above, too, and a home directory may well be behind one. The
        // file was looked at just now, and its directory is ours alone.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(BUSY_WAIT)?;
            let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            Ok((connection, version))
        };
        let (connection, version) = open().map_err(LedgerError::database(&path))?;
        if version != schema::VERSION {
            let what = format!("a database of another version ({version}) of this program");
            return Err(LedgerError::Damaged(path, what));
        }
        Ok(Some(Store { connection, path }))
    }

    /// From here on everything that is read belongs together.
    pub(super) fn begin_reading(&self) -> Result<Meta, LedgerError> {
        self.connection
            .execute_batch("BEGIN")
            .and_then(|()| meta(&self.connection))
            .map_err(LedgerError::database(&self.path))
    }

    /// What is read afterwards may be newer.
    pub(super) fn end_reading(&self) -> Result<(), LedgerError> {
        self.connection
            .execute_batch("COMMIT")
            .map_err(LedgerError::database(&self.path))
    }

    /// The standings of all recipients that have a row.
    pub(super) fn recover(&self, recovery: &mut Recovery) -> Result<(), LedgerError> {
        let sql = "SELECT no, status, class, attempts, host_failures, in_doubt, first_attempt, last_attempt,
                sending_since, CASE WHEN status = 'deferred' THEN reply END
            FROM recipient ORDER BY no";
        let fail = LedgerError::database(&self.path);
        let mut statement = self.connection.prepare(sql).map_err(&fail)?;
        let mut rows = statement.query([]).map_err(&fail)?;
        while let Some(row) = rows.next().map_err(&fail)? {
            let (recipient, line) = self.line(row)?;
            *recovery.standing(recipient) = line.standing;
            if let Some(reply) = row.get::<_, Option<String>>(9).map_err(&fail)? {
                recovery.hear(recipient, line.standing.status, &reply);
            }
            if let Sending::Row(at) = line.sending {
                recovery.sending.insert(recipient, at);
            }
        }
        Ok(())
    }

    /// The first columns of a row, as `recover` asks for them.
    fn line(&self, row: &SqlRow<'_>) -> Result<(RecipientNo, Line), LedgerError> {
        read_line(row).map_err(|error| match error {
            Odd::Sql(error) => LedgerError::database(&self.path)(error),
            Odd::Value(no) => {
                let what = format!("the row of recipient {no} holds what was never written there");
                LedgerError::Damaged(self.path.clone(), what)
            }
        })
    }

    /// Finds rows one by one.
    pub(super) fn finder(&self) -> Result<Finder<'_>, LedgerError> {
        let sql = format!("{ROW} WHERE no = ?1");
        let statement = self.connection.prepare(&sql);
        let statement = statement.map_err(LedgerError::database(&self.path))?;
        Ok(Finder {
            store: self,
            statement,
        })
    }

    /// At most `count` rows, of recipients from `first` on, in order.
    pub(super) fn rows_from(
        &self,
        first: RecipientNo,
        count: usize,
    ) -> Result<Vec<Row>, LedgerError> {
        let fail = LedgerError::database(&self.path);
        let sql = format!("{ROW} WHERE no >= ?1 ORDER BY no LIMIT ?2");
        let mut statement = self.connection.prepare(&sql).map_err(&fail)?;
        let mut rows = statement.query((first.0, count as i64)).map_err(&fail)?;
        let mut found = Vec::with_capacity(count.min(1024));
        while let Some(row) = rows.next().map_err(&fail)? {
            found.push(self.read_row(row)?);
        }
        Ok(found)
    }

    fn read_row(&self, row: &SqlRow<'_>) -> Result<Row, LedgerError> {
        let (recipient, line) = self.line(row)?;
        let rest = || {
            Ok(Row {
                recipient,
                line,
                sending_way: row.get(9)?,
                way: row.get(10)?,
                details: read_details(row, &line)?,
            })
        };
        rest().map_err(LedgerError::database(&self.path))
    }

    /// Recipients that were being sent to, in order.
    pub(super) fn sending(&self) -> Result<Vec<RecipientNo>, LedgerError> {
        let fail = LedgerError::database(&self.path);
        let sql = "SELECT no FROM recipient WHERE status = ?1 ORDER BY no";
        let mut statement = self.connection.prepare(sql).map_err(&fail)?;
        let found = statement
            .query_map([schema::SENDING], |row| row.get(0).map(RecipientNo))
            .and_then(Iterator::collect);
        found.map_err(&fail)
    }

    /// How many rows there are of each status, in the order of [`Status::ALL`]. Recipients being sent to are left out.
    pub(super) fn counts(&self) -> Result<[u64; Status::ALL.len()], LedgerError> {
        let fail = LedgerError::database(&self.path);
        let sql = "SELECT status, count(*) FROM recipient GROUP BY status";
        let mut statement = self.connection.prepare(sql).map_err(&fail)?;
        let mut rows = statement.query([]).map_err(&fail)?;
        let mut counts = [0; Status::ALL.len()];
        while let Some(row) = rows.next().map_err(&fail)? {
            let word = row.get_ref(0).map_err(&fail)?;
            let at = |status| Status::ALL.iter().position(|each| *each == status);
            let count: i64 = row.get(1).map_err(&fail)?;
            if let Some(at) = schema::status(word).flatten().and_then(at) {
                counts[at] += count.unsigned_abs();
            }
        }
        Ok(counts)
    }

    /// All ways, by their ids.
    pub(super) fn ways(&self, names: &mut Names) -> Result<HashMap<i64, Via>, LedgerError> {
        let fail = LedgerError::database(&self.path);
        let sql = "SELECT id, queue, mx, ip, tls FROM way";
        let mut statement = self.connection.prepare(sql).map_err(&fail)?;
        let mut rows = statement.query([]).map_err(&fail)?;
        let mut ways = HashMap::new();
        while let Some(row) = rows.next().map_err(&fail)? {
            let (id, via) = read_way(row, names).map_err(&fail)?;
            ways.insert(id, via);
        }
        Ok(ways)
    }
}

/// Finds rows one by one.
pub(super) struct Finder<'a> {
    store: &'a Store,
    statement: Statement<'a>,
}

impl Finder<'_> {
    /// The row of a recipient, if it has one.
    pub(super) fn find(&mut self, recipient: RecipientNo) -> Result<Option<Row>, LedgerError> {
        let fail = LedgerError::database(&self.store.path);
        let mut rows = self.statement.query([recipient.0]).map_err(&fail)?;
        let row = rows.next().map_err(&fail)?;
        row.map(|row| self.store.read_row(row)).transpose()
    }
}

impl Row {
    /// The attempt that is the latest according to `line`, which was made from this row.
    pub(super) fn attempt(&self, line: &Line, ways: &HashMap<i64, Via>) -> Option<Attempt> {
        let (verdict, took_ms, way) = match line.details {
            Details::InterruptedRow => (interrupted(), 0, self.sending_way),
            _ => {
                let (verdict, took_ms) = self.details.clone()?;
                (verdict, took_ms, self.way)
            }
        };
        let via = way.and_then(|way| ways.get(&way));
        Some(Attempt {
            recipient: self.recipient,
            verdict: Verdict {
                status: line.standing.status,
                ..verdict
            },
            via: via.cloned().unwrap_or_else(|| Via::none(QueueId(u16::MAX))),
            passage: line.standing.passage,
            at: line.standing.last_at?,
            took_ms,
        })
    }
}

/// What the database says of the journal.
pub(super) fn meta(connection: &Connection) -> rusqlite::Result<Meta> {
    let value = |key: &str| {
        connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
                row.get::<_, i64>(0)
            })
            .optional()
    };
    Ok(Meta {
        folded: value("folded")?.unwrap_or(0).try_into().unwrap_or(0),
        run: value("run")?.unwrap_or(0).try_into().unwrap_or(0),
    })
}

enum Odd {
    Sql(rusqlite::Error),
    Value(i64),
}

impl From<rusqlite::Error> for Odd {
    fn from(error: rusqlite::Error) -> Odd {
        Odd::Sql(error)
    }
}

fn read_line(row: &SqlRow<'_>) -> Result<(RecipientNo, Line), Odd> {
    let no: i64 = row.get(0)?;
    let odd = || Odd::Value(no);
    let recipient = RecipientNo(u32::try_from(no).map_err(|_| odd())?);
    let status = schema::status(row.get_ref(1)?).ok_or_else(odd)?;
    let count =
        |column| -> Result<u8, Odd> { u8::try_from(row.get::<_, i64>(column)?).map_err(|_| odd()) };
    let last_at: Option<i64> = row.get(7)?;
    let class = match row.get_ref(2)? {
        rusqlite::types::ValueRef::Null => None,
        word => Some(schema::class(word).ok_or_else(odd)?),
    };
    let passage = Passage {
        attempts: count(3)?,
        host_failures: count(4)?,
        in_doubt: count(5)? != 0,
    };
    let standing = Standing {
        status: status.unwrap_or(retry::pending(passage)),
        passage,
        first_at: row.get(6)?,
        last_at,
        class,
    };
    let since: Option<i64> = row.get(8)?;
    let line = Line {
        standing,
        details: last_at.map_or(Details::None, |_| Details::Row),
        sending: match status {
            Some(_) => Sending::No,
            None => Sending::Row(since.unwrap_or(0)),
        },
    };
    Ok((recipient, line))
}

/// The verdict of a row and how long its attempt took, if there was an attempt.
fn read_details(row: &SqlRow<'_>, line: &Line) -> rusqlite::Result<Option<(Verdict, u32)>> {
    if line.details != Details::Row {
        return Ok(None);
    }
    let code: Option<i64> = row.get(11)?;
    let stage = schema::stage(row.get_ref(13)?).unwrap_or(Stage::Batch);
    let ms: Option<i64> = row.get(14)?;
    let text = row.get_ref(15)?.as_str_or_null();
    let verdict = Verdict::new(
        line.standing.status,
        line.standing.class.unwrap_or(Scope::Recipient),
        stage,
        code.and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
        schema::enhanced(row.get_ref(12)?),
        text.ok().flatten().unwrap_or_default(),
    );
    let ms = ms.and_then(|ms| u32::try_from(ms).ok()).unwrap_or(0);
    Ok(Some((verdict, ms)))
}

fn read_way(row: &SqlRow<'_>, names: &mut Names) -> rusqlite::Result<(i64, Via)> {
    let text = |column| {
        row.get_ref(column)
            .map(|value| value.as_str().unwrap_or(""))
    };
    let via = Via {
        queue: names.id(text(1)?),
        mx: Arc::from(text(2)?),
        ip: text(3)?.parse().ok(),
        tls: Arc::from(text(4)?),
    };
    Ok((row.get(0)?, via))
}
