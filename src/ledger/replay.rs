//! Segments of the journal, read again: what they say of each recipient, on top of what the database says.
//!
//! [`Segments`] holds the bytes of some segments, in order, and finds which record touches whom. [`Line`] is what comes of
//! one recipient: its standing, and where the record is that tells the details. `recover` is the short form for all
//! recipients of a job at once, which keeps nothing but standings. Both go by the rules of `standing`.
//!
//! A segment belongs to one run: its first record says which. An intent that is open when a segment of a later run begins was
//! interrupted by the end of its run. Where that first record cannot be read, a later run is assumed: mail may be held for a
//! person to decide then, and is never sent once more than promised.
//!
//! Limits: a segment is read whole, so reading takes as much memory as the segments are long.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::frames::{self, Frames};
use super::journal::segment_path;
use super::record::{AttemptRecord, MARK, NAME, Record, ViaRecord};
use super::standing::{Said, Standing};
use crate::mail::{QueueId, RecipientNo, Status};
use crate::smtp::meaning::retry_hint;

/// Names of queues and their numbers now; the names of earlier runs stand behind those of this one.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn new(queues: &[String]) -> Names {
        Names(queues.to_vec())
    }

    /// The number of the queue with this name, a new one if need be.
    pub(super) fn id(&mut self, name: &str) -> QueueId {
        let at = self.0.iter().position(|each| each == name);
        let at = at.unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        });
        QueueId(u16::try_from(at).unwrap_or(u16::MAX))
    }

    pub(super) fn name(&self, queue: QueueId) -> &str {
        self.0.get(queue.index()).map_or("", String::as_str)
    }
}

/// Where a record lies. In words of 32 bits, so that a [`Touch`] takes 16 bytes: there are two of a recipient in a fold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    segment: u32,
    /// From the highest word.
    offset: [u32; 2],
}

/// A record that touches a recipient.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Touch {
    pub(super) recipient: RecipientNo,
    place: Place,
}

/// What the queues of one segment are called now.
#[derive(Debug, Default)]
struct Queues {
    /// At its start.
    first: Vec<QueueId>,
    /// From these offsets on, in order.
    later: Vec<(u64, QueueId, QueueId)>,
}

impl Queues {
    /// Those of a segment, by the names that it gives them.
    fn of(bytes: &[u8], first: Vec<QueueId>, names: &mut Names) -> Queues {
        let mut later = Vec::new();
        let mark = [MARK[0], MARK[1], NAME];
        for offset in memchr::memmem::find_iter(bytes, &mark) {
            if let Some((Record::Name { queue, name }, _)) = frames::read_frame(&bytes[offset..]) {
                later.push((offset as u64, queue, names.id(name)));
            }
        }
        Queues { first, later }
    }

    /// What a queue is called at an offset.
    fn at(&self, offset: u64, queue: QueueId) -> Option<QueueId> {
        let named = |(at, which, _): &&(u64, QueueId, QueueId)| *which == queue && *at < offset;
        let later = self.later.iter().rev().find(named);
        later
            .map(|(.., now)| *now)
            .or_else(|| self.first.get(queue.index()).copied())
    }
}

/// Some segments in memory.
#[derive(Debug, Default)]
pub(super) struct Segments {
    bytes: Vec<Vec<u8>>,
    /// How many runs began since that of the database, for each segment.
    epochs: Vec<u32>,
    /// What the queues of each segment's run are called now.
    queues: Vec<Queues>,
    run: u32,
    skipped: u64,
}

impl Segments {
    /// No segments, behind a database whose latest run is `run`.
    pub(super) fn after(run: u32) -> Segments {
        Segments {
            run,
            ..Segments::default()
        }
    }

    /// Adds the bytes of the next segment.
    pub(super) fn push(&mut self, bytes: Vec<u8>, names: &mut Names) {
        let epoch = self.epoch();
        let (epoch, queues) = match Frames::new(&bytes).next() {
            Some((0, Record::Run { number, queues, .. })) => {
                let is_later = number > self.run;
                self.run = self.run.max(number);
                let queues = queues.iter().map(|name| names.id(name)).collect();
                (epoch + u32::from(is_later), queues)
            }
            _ => (epoch + 1, Vec::new()),
        };
        self.epochs.push(epoch);
        self.queues.push(Queues::of(&bytes, queues, names));
        self.bytes.push(bytes);
    }

    /// How many runs began since that of the database.
    pub(super) fn epoch(&self) -> u32 {
        self.epochs.last().copied().unwrap_or(0)
    }

    /// The latest run.
    pub(super) fn run(&self) -> u32 {
        self.run
    }

    /// Bytes that no record could be read from.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Every record that touches somebody, in the order of recipients, and of writing for each.
    pub(super) fn touches(&mut self) -> Vec<Touch> {
        let mut touches = Vec::new();
        self.skipped = 0;
        for (segment, bytes) in (0..).zip(&self.bytes) {
            let mut frames = Frames::new(bytes);
            for (offset, record) in frames.by_ref() {
                let offset = offset as u64;
                let offset = [(offset >> 32) as u32, offset as u32];
                let place = Place { segment, offset };
                let mut touch = |recipient| touches.push(Touch { recipient, place });
                match record {
                    Record::Run { .. } | Record::Name { .. } => {}
                    Record::Attempt(attempt) => touch(attempt.recipient),
                    Record::Intent { recipients, .. } | Record::Left { recipients, .. } => {
                        recipients.iter().for_each(touch);
                    }
                }
            }
            self.skipped += frames.skipped();
        }
        touches.sort_unstable();
        touches
    }

    fn record(&self, place: Place) -> Option<Record<'_>> {
        let bytes = self.bytes.get(place.segment as usize)?;
        let frame = bytes.get(usize::try_from(place.offset()).ok()?..)?;
        frames::read_frame(frame).map(|(record, _)| record)
    }

    /// The attempt at `place`.
    pub(super) fn attempt(&self, place: Place) -> Option<AttemptRecord<'_>> {
        match self.record(place)? {
            Record::Attempt(attempt) => Some(attempt),
            _ => None,
        }
    }

    /// The intent at `place`: when, and on which way.
    pub(super) fn intent(&self, place: Place) -> Option<(i64, ViaRecord<'_>)> {
        match self.record(place)? {
            Record::Intent { at, via, .. } => Some((at, via)),
            _ => None,
        }
    }

    /// What the queue of a way in the segment of `place` is called now.
    pub(super) fn queue(&self, place: Place, queue: QueueId) -> QueueId {
        let queues = self.queues.get(place.segment as usize);
        let found = queues.and_then(|queues| queues.at(place.offset(), queue));
        found.unwrap_or(QueueId(u16::MAX))
    }

    fn epoch_of(&self, place: Place) -> u32 {
        self.epochs
            .get(place.segment as usize)
            .copied()
            .unwrap_or(0)
    }
}

impl Place {
    fn offset(self) -> u64 {
        let [high, low] = self.offset;
        u64::from(high) << 32 | u64::from(low)
    }

    /// Which of the segments it is in.
    pub(super) fn segment(self) -> u32 {
        self.segment
    }
}

/// Where the details of the latest attempt are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Details {
    /// There was no attempt.
    None,
    /// In the recipient's row.
    Row,
    /// The row is that of a recipient being sent to, and its run was interrupted.
    InterruptedRow,
    /// In this record of an attempt.
    Attempt(Place),
    /// In this intent: its run was interrupted.
    Interrupted(Place),
}

/// The intent that is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sending {
    /// None is.
    No,
    /// That of the row, of this time.
    Row(i64),
    /// This one.
    Since(Place),
}

/// What is known of one recipient.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) standing: Standing,
    pub(super) details: Details,
    pub(super) sending: Sending,
}

impl Line {
    /// Nothing is known.
    pub(super) const NEW: Line = Line {
        standing: Standing::NEW,
        details: Details::None,
        sending: Sending::No,
    };

    /// Adds what `touches`, all of one recipient and in order, say. An intent that a later run found open was interrupted.
    pub(super) fn replay(&mut self, touches: &[Touch], segments: &Segments) {
        for touch in touches {
            let epoch = segments.epoch_of(touch.place);
            self.interrupt_before(epoch, segments);
            match segments.record(touch.place) {
                Some(Record::Attempt(attempt)) => self.attempt(touch.place, &attempt),
                Some(Record::Intent { .. }) => self.sending = Sending::Since(touch.place),
                Some(Record::Left { status, .. }) => {
                    self.standing.leave(status);
                    self.sending = Sending::No;
                }
                Some(Record::Run { .. } | Record::Name { .. }) | None => {}
            }
        }
        self.interrupt_before(segments.epoch(), segments);
    }

    fn attempt(&mut self, place: Place, attempt: &AttemptRecord<'_>) {
        let was_sending = self.sending != Sending::No;
        self.sending = Sending::No;
        if self.standing.attempt(attempt.said(), was_sending) {
            self.details = Details::Attempt(place);
        }
    }

    fn interrupt_before(&mut self, epoch: u32, segments: &Segments) {
        let began = match self.sending {
            Sending::No => return,
            Sending::Row(_) => 0,
            Sending::Since(place) => segments.epoch_of(place),
        };
        if epoch > began {
            self.interrupt(segments);
        }
    }

    /// The run of the open intent, if there is one, is over.
    pub(super) fn interrupt(&mut self, segments: &Segments) {
        let (at, details) = match std::mem::replace(&mut self.sending, Sending::No) {
            Sending::No => return,
            Sending::Row(at) => (at, Details::InterruptedRow),
            Sending::Since(place) => {
                let at = segments.intent(place).map_or(0, |(at, _)| at);
                (at, Details::Interrupted(place))
            }
        };
        self.standing.interrupt(at);
        self.details = details;
    }
}

impl AttemptRecord<'_> {
    fn said(&self) -> Said {
        Said {
            at: self.at,
            status: self.status,
            class: self.scope,
            passage: self.passage,
        }
    }
}

/// Standings of all recipients, in the making.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// By recipient; those behind the end are new.
    pub(super) standings: Vec<Standing>,
    /// Intents that are open, and their times.
    pub(super) sending: HashMap<RecipientNo, i64>,
    /// What servers asked for whose mail is deferred: how long after the last attempt the next one may be.
    pub(super) wishes: HashMap<RecipientNo, Duration>,
    /// The latest run.
    pub(super) run: u32,
    /// Bytes that no record could be read from.
    pub(super) skipped: u64,
}

impl Recovery {
    /// Adds what a segment says.
    pub(super) fn replay(&mut self, bytes: &[u8]) {
        let mut frames = Frames::new(bytes);
        let mut is_first = true;
        for (offset, record) in frames.by_ref() {
            let run = match record {
                Record::Run { number, .. } if offset == 0 => Some(number),
                _ => None,
            };
            if std::mem::take(&mut is_first) && run.is_none_or(|number| number > self.run) {
                self.run = self.run.max(run.unwrap_or(0));
                self.interrupt();
            }
            self.enter(record);
        }
        if is_first {
            self.interrupt();
        }
        self.skipped += frames.skipped();
    }

    fn enter(&mut self, record: Record<'_>) {
        match record {
            Record::Run { .. } | Record::Name { .. } => {}
            Record::Intent { at, recipients, .. } => {
                self.sending
                    .extend(recipients.iter().map(|recipient| (recipient, at)));
            }
            Record::Attempt(attempt) => {
                let was_sending = self.sending.remove(&attempt.recipient).is_some();
                self.hear(attempt.recipient, attempt.status, attempt.text);
                self.standing(attempt.recipient)
                    .attempt(attempt.said(), was_sending);
            }
            Record::Left {
                status, recipients, ..
            } => {
                for recipient in recipients.iter() {
                    self.sending.remove(&recipient);
                    self.standing(recipient).leave(status);
                }
            }
        }
    }

    /// The latest verdict of a recipient: if it asks for a rest of its own, that is remembered.
    pub(super) fn hear(&mut self, recipient: RecipientNo, status: Status, text: &str) {
        match retry_hint(text).filter(|_| status == Status::Deferred) {
            Some(wish) => self.wishes.insert(recipient, wish),
            None => self.wishes.remove(&recipient),
        };
    }

    /// The run of all open intents is over.
    pub(super) fn interrupt(&mut self) {
        for (recipient, at) in std::mem::take(&mut self.sending) {
            self.standing(recipient).interrupt(at);
        }
    }

    pub(super) fn standing(&mut self, recipient: RecipientNo) -> &mut Standing {
        let at = recipient.index();
        if at >= self.standings.len() {
            self.standings.resize(at + 1, Standing::NEW);
        }
        &mut self.standings[at]
    }
}

/// The bytes of segment `number`. `None` if it is gone: it was folded in the meantime.
pub(super) fn read_segment(directory: &Path, number: u64) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(segment_path(directory, number)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
