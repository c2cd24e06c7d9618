//! Rows of the database, written: the statements of a fold, prepared once, and what turns a line into columns.
//!
//! Ways are interned: a recipient's row names its way by a number. Equal ways of a queue have equal bytes within a segment, so finding
//! the number again takes one look into a table and no text is made for it.

use std::collections::HashMap;
use std::fmt::Write;

use rusqlite::{Connection, OptionalExtension, Statement, ToSql, params};

use super::fold::Fold;
use super::outcome::interrupted;
use super::record::ViaRecord;
use super::replay::{Details, Line, Place, Sending};
use super::schema;
use super::store::Row;
use crate::mail::{QueueId, RecipientNo, Verdict};

const INSERT: &str = "INSERT INTO recipient(status, sending_since, sending_way, attempts, host_failures, in_doubt,
        first_attempt, last_attempt, class, code, enhanced, stage, way, ms, reply, no, message, address)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
const UPDATE: &str = "UPDATE recipient SET status = ?1, sending_since = ?2, sending_way = ?3, attempts = ?4,
        host_failures = ?5, in_doubt = ?6, first_attempt = ?7, last_attempt = ?8, class = ?9, code = ?10,
        enhanced = ?11, stage = ?12, way = ?13, ms = ?14, reply = ?15
    WHERE no = ?16";
const UPDATE_STATUS: &str =
    "UPDATE recipient SET status = ?1, sending_since = ?2, sending_way = ?3 WHERE no = ?4";

/// What a fold writes with.
pub(super) struct Pen<'a> {
    fold: &'a Fold<'a>,
    insert: Statement<'a>,
    update: Statement<'a>,
    update_status: Statement<'a>,
    ways: Ways<'a>,
    enhanced: String,
}

/// The columns that tell of the latest attempt.
struct Told<'t> {
    code: u16,
    enhanced: Option<&'t str>,
    stage: &'static str,
    way: Option<i64>,
    ms: u32,
    reply: &'t str,
}

impl<'a> Pen<'a> {
    /// Prepares everything.
    pub(super) fn new(connection: &'a Connection, fold: &'a Fold<'a>) -> rusqlite::Result<Pen<'a>> {
        Ok(Pen {
            fold,
            insert: connection.prepare(INSERT)?,
            update: connection.prepare(UPDATE)?,
            update_status: connection.prepare(UPDATE_STATUS)?,
            ways: Ways::new(connection)?,
            enhanced: String::new(),
        })
    }

    /// A recipient that has no row yet.
    pub(super) fn insert(&mut self, recipient: RecipientNo, line: &Line) -> rusqlite::Result<()> {
        let (message, address) = match self.fold.people.person(recipient) {
            Some((message, address)) => (Some(message.ordinal() as i64), address),
            None => (None, String::new()),
        };
        self.write(None, line, |pen, columns| {
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o] = columns;
            let no = recipient.0;
            pen.execute(params![
                a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, no, message, address
            ])
        })
    }

    /// A recipient that has a row, from which `line` was made.
    pub(super) fn update(&mut self, row: &Row, line: &Line) -> rusqlite::Result<()> {
        if line.details == Details::Row {
            let (since, way) = self.sending(Some(row), line)?;
            let no = row.recipient.0;
            self.update_status
                .execute(params![status(line), since, way, no])?;
            return Ok(());
        }
        self.write(Some(row), line, |pen, columns| {
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o] = columns;
            let no = row.recipient.0;
            pen.execute(params![a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, no])
        })
    }

    /// The first fifteen columns, bound to the statement that fits.
    fn write(
        &mut self,
        row: Option<&Row>,
        line: &Line,
        bind: impl FnOnce(&mut Statement<'a>, [&dyn ToSql; 15]) -> rusqlite::Result<usize>,
    ) -> rusqlite::Result<()> {
        let (since, way) = self.sending(row, line)?;
        let verdict = interrupted();
        let mut enhanced = std::mem::take(&mut self.enhanced);
        let told = self.told(row, line, &verdict, &mut enhanced)?;
        let statement = match row {
            Some(_) => &mut self.update,
            None => &mut self.insert,
        };
        let standing = &line.standing;
        let done = bind(
            statement,
            [
                &status(line),
                &since,
                &way,
                &standing.passage.attempts,
                &standing.passage.host_failures,
                &standing.passage.in_doubt,
                &line.standing.first_at,
                &standing.last_at,
                &standing.class.map(|class| class.name()),
                &told.as_ref().map(|told| told.code),
                &told.as_ref().and_then(|told| told.enhanced),
                &told.as_ref().map(|told| told.stage),
                &told.as_ref().and_then(|told| told.way),
                &told.as_ref().map(|told| told.ms),
                &told.as_ref().map(|told| told.reply),
            ],
        );
        self.enhanced = enhanced;
        done.map(|_| ())
    }

    /// Since when and how a recipient is being sent to, if it is.
    fn sending(
        &mut self,
        row: Option<&Row>,
        line: &Line,
    ) -> rusqlite::Result<(Option<i64>, Option<i64>)> {
        match line.sending {
            Sending::No => Ok((None, None)),
            Sending::Row(at) => Ok((Some(at), row.and_then(|row| row.sending_way))),
            Sending::Since(place) => match self.fold.segments.intent(place) {
                Some((at, via)) => Ok((Some(at), Some(self.ways.id(self.fold, place, &via)?))),
                None => Ok((None, None)),
            },
        }
    }

    fn told<'t>(
        &mut self,
        row: Option<&Row>,
        line: &Line,
        interrupted: &'t Verdict,
        enhanced: &'t mut String,
    ) -> rusqlite::Result<Option<Told<'t>>>
    where
        'a: 't,
    {
        enhanced.clear();
        let of_interrupted = |way: Option<i64>, enhanced: &'t mut String| {
            if let Some(code) = interrupted.enhanced {
                let _ = write!(enhanced, "{code}");
            }
            Told {
                code: interrupted.code,
                enhanced: Some(enhanced.as_str()),
                stage: interrupted.stage.name(),
                way,
                ms: 0,
                reply: &interrupted.text,
            }
        };
        Ok(match line.details {
            Details::None | Details::Row => None,
            Details::InterruptedRow => {
                let way = row.and_then(|row| row.sending_way);
                Some(of_interrupted(way, enhanced))
            }
            Details::Interrupted(place) => {
                let way = match self.fold.segments.intent(place) {
                    Some((_, via)) => Some(self.ways.id(self.fold, place, &via)?),
                    None => None,
                };
                Some(of_interrupted(way, enhanced))
            }
            Details::Attempt(place) => match self.fold.segments.attempt(place) {
                Some(attempt) => {
                    if let Some(code) = attempt.enhanced {
                        let _ = write!(enhanced, "{code}");
                    }
                    Some(Told {
                        code: attempt.code,
                        enhanced: attempt.enhanced.map(|_| enhanced.as_str()),
                        stage: attempt.stage.name(),
                        way: Some(self.ways.id(self.fold, place, &attempt.via)?),
                        ms: attempt.took_ms,
                        reply: attempt.text,
                    })
                }
                None => None,
            },
        })
    }
}

fn status(line: &Line) -> &'static str {
    match line.sending {
        Sending::No => line.standing.status.name(),
        Sending::Row(_) | Sending::Since(_) => schema::SENDING,
    }
}

/// The numbers of ways, by their bytes.
type Known = HashMap<Box<[u8]>, i64>;

/// Numbers of ways.
struct Ways<'a> {
    find: Statement<'a>,
    insert: Statement<'a>,
    /// For each segment, and what the queue is called: by the bytes that a way has there.
    known: HashMap<(u32, QueueId), Known>,
}

impl<'a> Ways<'a> {
    fn new(connection: &'a Connection) -> rusqlite::Result<Ways<'a>> {
        let find = "SELECT id FROM way WHERE queue = ?1 AND mx = ?2 AND ip = ?3 AND tls = ?4";
        let insert = "INSERT INTO way(queue, mx, ip, tls) VALUES (?1, ?2, ?3, ?4)";
        Ok(Ways {
            find: connection.prepare(find)?,
            insert: connection.prepare(insert)?,
            known: HashMap::new(),
        })
    }

    fn id(&mut self, fold: &Fold<'_>, place: Place, via: &ViaRecord<'_>) -> rusqlite::Result<i64> {
        let queue = fold.segments.queue(place, via.queue);
        let known = self.known.entry((place.segment(), queue)).or_default();
        if let Some(id) = known.get(via.bytes) {
            return Ok(*id);
        }
        let queue = fold.names.name(queue);
        let ip = via.ip.map(|ip| ip.to_string()).unwrap_or_default();
        let way = params![queue, via.mx, ip, via.tls];
        let found = self.find.query_row(way, |row| row.get(0)).optional()?;
        let id = match found {
            Some(id) => id,
            None => self.insert.insert(way)?,
        };
        known.insert(via.bytes.into(), id);
        Ok(id)
    }
}
