//! Suppression lists: whom nothing is sent to, by intention.
//!
//! A list is text in CSV: an address or a domain, and perhaps until when and why, a line each. A first line that names columns
//! (`address` or `recipient`, `until`, `reason`, in any order, among others) is obeyed, so a report can be a list. `@example.org` and
//! `example.org` stand for the domain alone, `*.example.org` and `.example.org` for what lies below it. Blank lines and those that begin with `#`
//! say nothing.
//!
//! Addresses are compared without regard to case, local parts too (RFC 5321 2.4 lets servers tell them apart, hardly one does,
//! and who asked not to be mailed means it). Of each only a hash of 128 bits is kept, so a million of them take some 40 MB.
//!
//! INVARIANTS: what is found stands in a list, by name and line, and had not run out when that was read. No clock here: `now`
//! comes with the list.
//! ERRORS: a line that is neither address nor domain, or whose time is none, spoils its list: whoever
//! must not be mailed would be.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use xxhash_rust::xxh3::xxh3_128;

use crate::mail::{Domain, Enhanced, Mailbox, Scope, Stage, Status, Verdict};

/// What the columns of a list may be called.
const ADDRESS_NAMES: [&str; 5] = ["address", "email", "recipient", "domain", "entry"];
const UNTIL_NAMES: [&str; 3] = ["until", "expires", "expiry"];

/// All lists of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Suppression(Arc<Lists>);

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Lists {
    names: Vec<String>,
    people: HashMap<u128, Place>,
    domains: HashMap<Box<str>, Place>,
    /// Whatever lies below these.
    parents: HashMap<Box<str>, Place>,
    /// A list has columns that are not address, until, reason, in this order.
    has_other_columns: bool,
}

/// Which list, and the line in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    list: u32,
    line: u32,
}

/// What is wrong with a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListError {
    /// From 1.
    pub line: u32,
    what: String,
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Where columns stand.
struct Columns {
    address: usize,
    until: Option<usize>,
}

impl Suppression {
    /// Adds the list `text`, called `name` wherever it is spoken of, as it stands at `now`.
    ///
    /// # Errors
    /// A line that cannot be understood; then nothing of the list is added.
    pub fn add(&mut self, name: &str, text: &[u8], now: Timestamp) -> Result<(), ListError> {
        let mut lists = Lists::clone(&self.0);
        lists.add(name, text, now)?;
        self.0 = Arc::new(lists);
        Ok(())
    }

    /// The lists' names, in the order in which they were added.
    pub fn names(&self) -> &[String] {
        &self.0.names
    }

    /// True if a line with an address, a time and a reason does not fit into each list.
    pub fn has_other_columns(&self) -> bool {
        self.0.has_other_columns
    }

    /// True if nobody is on any list.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many addresses and domains there are.
    pub fn len(&self) -> usize {
        let lists = &self.0;
        lists.people.len() + lists.domains.len() + lists.parents.len()
    }

    /// The verdict on mail to `mailbox`, if a list has it: the address itself, its domain, or a domain above that.
    pub fn verdict(&self, mailbox: &Mailbox) -> Option<Verdict> {
        let lists = &*self.0;
        if self.is_empty() {
            return None;
        }
        let domain = mailbox.domain().as_str();
        let above = || {
            let parents = domain.match_indices('.').map(|(at, _)| &domain[at + 1..]);
            parents
                .filter_map(|parent| lists.parents.get(parent))
                .next()
        };
        let place = lists
            .people
            .get(&key(mailbox.as_str()))
            .or_else(|| lists.domains.get(domain))
            .or_else(above)?;
        let name = &lists.names[place.list as usize];
        let text = format!("suppressed: {name}, line {}", place.line);
        let enhanced = Enhanced::new(5, 7, 1);
        Some(Verdict::own(
            Status::Suppressed,
            Scope::Recipient,
            Stage::Batch,
            enhanced,
            &text,
        ))
    }
}

impl Lists {
    fn add(&mut self, name: &str, text: &[u8], now: Timestamp) -> Result<(), ListError> {
        let list = self.names.len() as u32;
        self.names.push(name.to_owned());
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut columns = None;
        // An entry is a line: a quote that is never closed spoils that line and not the rest of the list.
        for (line, text) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let place = Place { list, line };
            let entered = match fields(text.trim_ascii()) {
                Ok(None) => Ok(()),
                Ok(Some(record)) => self.take(&record, &mut columns, place, now),
                Err(what) => Err(what),
            };
            entered.map_err(|what| ListError { line, what })?;
        }
        Ok(())
    }

    /// Takes up a line: the first may name the columns, all others are entries.
    fn take(
        &mut self,
        record: &csv::ByteRecord,
        columns: &mut Option<Columns>,
        place: Place,
        now: Timestamp,
    ) -> Result<(), String> {
        let columns = match columns {
            Some(columns) => columns,
            None => match named(record) {
                Some(named) => {
                    self.has_other_columns |= named.address != 0 || named.until != Some(1);
                    *columns = Some(named);
                    return Ok(());
                }
                None => columns.insert(Columns {
                    address: 0,
                    until: Some(1),
                }),
            },
        };
        let until = columns.until.and_then(|at| record.get(at));
        match is_over(until.unwrap_or_default(), now)? {
            true => Ok(()),
            false => self.enter(record.get(columns.address).unwrap_or_default(), place),
        }
    }

    fn enter(&mut self, entry: &[u8], place: Place) -> Result<(), String> {
        let what = || {
            let shown: String = String::from_utf8_lossy(entry).chars().take(80).collect();
            format!(
                "{shown:?} is neither an address nor a domain; `@example.org` stands for a domain, `#` begins a remark"
            )
        };
        if let Some(parent) = entry.strip_prefix(b"*.").or(entry.strip_prefix(b".")) {
            let domain = domain(parent).ok_or_else(what)?;
            self.parents.entry(domain).or_insert(place);
            return Ok(());
        }
        let name = entry.strip_prefix(b"@").unwrap_or(entry);
        if name.contains(&b'@') {
            let mailbox = Mailbox::parse(name).map_err(|_| what())?;
            self.people.entry(key(mailbox.as_str())).or_insert(place);
        } else {
            let domain = domain(name).ok_or_else(what)?;
            self.domains.entry(domain).or_insert(place);
        }
        Ok(())
    }
}

/// The fields of a line; `None` if it is blank or a remark.
fn fields(line: &[u8]) -> Result<Option<csv::ByteRecord>, String> {
    if line.is_empty() || line[0] == b'#' {
        return Ok(None);
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .buffer_capacity(line.len())
        .trim(csv::Trim::All)
        .from_reader(line);
    let mut record = csv::ByteRecord::new();
    match reader.read_byte_record(&mut record) {
        Ok(is_there) => Ok(is_there.then_some(record)),
        Err(error) => Err(error.to_string()),
    }
}

/// Names without a dot are rather local parts that lost their domain.
fn domain(name: &[u8]) -> Option<Box<str>> {
    let name = std::str::from_utf8(name).ok()?;
    let domain = Domain::parse(name).ok()?;
    domain
        .as_str()
        .contains('.')
        .then(|| domain.as_str().into())
}

/// An address is known by this, in whatever case it is written.
fn key(address: &str) -> u128 {
    xxh3_128(address.to_lowercase().as_bytes())
}

/// The columns that a first line names, if it does.
fn named(record: &csv::ByteRecord) -> Option<Columns> {
    let at = |names: &[&str]| {
        let is_name = |field: &[u8]| {
            names
                .iter()
                .any(|name| field.eq_ignore_ascii_case(name.as_bytes()))
        };
        names
            .iter()
            .find_map(|name| {
                record
                    .iter()
                    .position(|field| field.eq_ignore_ascii_case(name.as_bytes()))
            })
            .filter(|at| record.get(*at).is_some_and(is_name))
    };
    Some(Columns {
        address: at(&ADDRESS_NAMES)?,
        until: at(&UNTIL_NAMES),
    })
}

/// True if the entry has run out by `now`: a time of RFC 3339, or a date, whose day is still suppressed (UTC).
fn is_over(until: &[u8], now: Timestamp) -> Result<bool, String> {
    if until.is_empty() {
        return Ok(false);
    }
    let text = String::from_utf8_lossy(until);
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at <= now);
    }
    let end = text.parse::<Date>().ok().and_then(|date| {
        let next = date.checked_add(1.day()).ok()?;
        next.to_zoned_datetime(TimeZone::UTC).ok()
    });
    match end {
        Some(end) => Ok(end.timestamp() <= now),
        None => {
            let shown: String = text.chars().take(40).collect();
            Err(format!(
                "{shown:?} is no date as in 2027-01-31, nor a time as in 2027-01-31T12:00:00Z"
            ))
        }
    }
}

#[cfg(test)]
mod tests;
