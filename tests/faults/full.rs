//! Each operation on the state directory fails in turn: no room, a broken disk, a write of half of its bytes; once, or from
//! then on, as a disk that has filled up.
//!
//! Whatever fails, the run ends with a status of the list and says in a line what it could not do; and nobody gets mail of
//! whom no intent was recorded: once the disk is well again, the job goes on with all that is in doubt held, and nobody gets
//! anything twice, and everybody is delivered to or held. A sync that failed is never tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use crate::batch::Batch;
use crate::disk::make_dir;
use crate::lab::{Ended, Lab, Row};
use crate::shim::{self, Fault, Kind, Op};
use crate::{each, is_full};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// How operations fail: the one in turn, and those behind it.
const WAYS: [(i32, i32); 4] = [(ENOSPC, ENOSPC), (EIO, 0), (0, 0), (0, ENOSPC)];

/// Statuses that a run may end with whose disk failed it. 0: what failed did not matter.
const STATUSES: [i32; 4] = [0, 73, 74, 75];

fn batch() -> Batch {
    let mut batch = Batch::to_each((0..10).map(|n| format!("u{n}@d{}.test", n % 3)));
    batch.add(&["v1@d1.test", "v2@d1.test"]);
    batch
}

/// Everybody in it.
const EVERYBODY: usize = 12;

const FLAGS: [&str; 4] = ["--in-doubt", "hold", "--max-workers", "4"];

/// A run with a fault, and its operations.
fn run(lab: &Lab, fault: Option<Fault>) -> (Ended, Vec<Op>) {
    make_dir(&lab.path("state"));
    let batch = lab.file("batch.mbox", batch().bytes());
    let log = lab.path("log");
    let ended = shim::start(lab, &log, fault, &FLAGS, &[&batch]).wait();
    (ended, shim::read_log(&log, lab))
}

/// A fault, and what happens with it.
fn try_fault(fault: Fault) -> Result<bool, String> {
    let lab = Lab::with_rules(&[]);
    let (ended, ops) = run(&lab, Some(fault));
    if !ops.iter().any(|op| op.is_injected) {
        return Ok(false);
    }
    check_end(&ended)?;
    check_syncs(&ops)?;
    let first: BTreeSet<_> = lab.received().into_iter().collect();
    // By `mailer resume` every other time; where there is no job yet, it has nothing to do.
    let mut held = match fault.at % 2 {
        0 => resume(&lab)?,
        _ => BTreeSet::new(),
    };
    let ended = lab.send_again(&FLAGS);
    // Finished all the same: with the status of the run that did it.
    let is_done = ended.status == Some(74) && ended.stderr.contains("this batch was sent");
    if !is_done && !matches!(ended.status, Some(0 | 1)) {
        return Err(format!("going on: {:?} {}", ended.status, ended.stderr));
    }
    let mut times: BTreeMap<_, usize> = BTreeMap::new();
    for one in lab.received() {
        *times.entry(one).or_default() += 1;
    }
    if let Some((who, _)) = times.iter().find(|(_, times)| **times > 1) {
        return Err(format!("{who:?} gets it twice"));
    }
    // A job that was finished by its first run makes no report, and nobody of it is held.
    held.extend(ended.pairs(&["held"]));
    let known = times.keys().chain(&held).collect::<BTreeSet<_>>().len();
    if known != EVERYBODY {
        return Err(format!(
            "{} got it at first, {} in all, {} are held",
            first.len(),
            times.len(),
            held.len()
        ));
    }
    Ok(true)
}

/// Goes on with whatever job there is. Gives those who are held then.
fn resume(lab: &Lab) -> Result<BTreeSet<(u64, String)>, String> {
    let report = lab.path("resumed.csv");
    let output = Command::new(env!("CARGO_BIN_EXE_mailer"))
        .arg("resume")
        .arg("--state")
        .arg(lab.path("state"))
        .arg("--report")
        .arg(&report)
        .env("XDG_CONFIG_HOME", "/proc/nope")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if !matches!(output.status.code(), Some(0 | 1)) {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("resume: {:?} {stderr}", output.status));
    }
    let report = std::fs::read(report).unwrap_or_default();
    let rows = csv::Reader::from_reader(&report[..]).into_deserialize();
    let held = rows
        .map(|row| row.unwrap())
        .filter(|row: &Row| row.status == "held");
    Ok(held.map(|row| (row.message, row.recipient)).collect())
}

/// The status is one of the list, and other than 0 only with a line that says why.
fn check_end(ended: &Ended) -> Result<(), String> {
    let says = |what: &str| ended.stderr.contains(what);
    let status = ended.status.unwrap_or(-1);
    let lines = ended.stderr.lines();
    let longest = lines.clone().map(str::len).max().unwrap_or(0);
    if !STATUSES.contains(&status) || says("panicked") || longest > 600 {
        return Err(format!("status {:?}: {}", ended.status, ended.stderr));
    }
    let why = [
        "No space left",
        "Input/output error",
        "no storage space",
        "os error",
        "cannot be",
        "failed to fill",
    ];
    let is_said = ended.stderr.contains("mailer: ") && why.iter().any(|why| says(why));
    match status == 0 || is_said {
        true => Ok(()),
        false => Err(format!(
            "status {status} without a reason: {}",
            ended.stderr
        )),
    }
}

/// After a sync that failed, that file is not synced again.
fn check_syncs(ops: &[Op]) -> Result<(), String> {
    let is_sync = |op: &&Op| op.kind == Kind::Sync;
    let failed = ops
        .iter()
        .enumerate()
        .find(|(_, op)| op.is_injected && is_sync(op));
    let Some((at, failed)) = failed else {
        return Ok(());
    };
    let mut later = ops[at + 1..].iter().filter(is_sync);
    match later.find(|op| op.inode == failed.inode && op.path == failed.path) {
        Some(op) => Err(format!("{} is synced again", op.path)),
        None => Ok(()),
    }
}

/// How many operations a run has that nothing happens to.
fn operations() -> usize {
    let lab = Lab::with_rules(&[]);
    let (ended, ops) = run(&lab, None);
    ended.assert_status(0);
    ops.len()
}

#[test]
fn whatever_operation_fails_nobody_is_lost_and_nobody_gets_it_twice() {
    let count = operations();
    assert!(count > 40, "{count}");
    let failures = std::sync::Mutex::new(Vec::new());
    let tried = std::sync::atomic::AtomicUsize::new(0);
    let every = if is_full() { 1 } else { 2 };
    // The order of operations is not the same in each run, and some are not logged: some more than were counted.
    let faults = |way: usize| {
        let (errno, then) = WAYS[way];
        (1 + way % every..=count + 12)
            .step_by(every)
            .map(move |at| Fault { at, errno, then })
    };
    let faults: Vec<Fault> = (0..WAYS.len()).flat_map(faults).collect();
    each(&faults, |fault| match try_fault(*fault) {
        Ok(true) => {
            tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(false) => {}
        Err(error) => failures.lock().unwrap().push(format!("{fault:?}: {error}")),
    });
    let failures = failures.into_inner().unwrap();
    let tried = tried.into_inner();
    println!(
        "{count} operations, {tried} faults, {} failures",
        failures.len()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(tried > count, "{tried}");
}
