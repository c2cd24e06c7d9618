//! A fuzzer that any `cargo test` runs: seeds are mutated for a while, and each target checks what must hold for any bytes.
//!
//! - `FUZZ_SECS`: how long each target runs (2); `FUZZ_SEED`: where the random sequence begins (1), so that a run can be repeated.
//! - Seeds of a target are the files of `fixtures/fuzz/TARGET/`; each is played as it is before anything is mutated, so every finding
//!   of the past is a test for ever. An input that leads to something new is kept in memory as a further seed; what is new is told by
//!   a digest of what the target saw ([`Seen`]), not by coverage. `scripts/fuzz` drives the same targets with libFuzzer, by coverage.
//! - A finding (a panic, or an input that takes longer than [`HANG`]) is written to `fixtures/fuzz/TARGET/finding-HASH`, which is then
//!   to be committed with the fix.

mod mutate;
mod targets;

use std::collections::HashSet;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use targets::{Seen, TARGETS, Target};

/// No input of a few kilobytes may take so long, debug build and busy machine included.
const HANG: Duration = Duration::from_secs(20);
/// The longest input that is made.
const INPUT_BYTES_MAX: usize = 8192;
/// Inputs that led to something new, at most.
const SEEDS_MAX: usize = 4000;

fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text}"))
    })
}

fn folder(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/fuzz")
        .join(target.name)
}

/// The files of the target's folder, in the order of their names.
fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder(target)).expect("each target has seeds");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let read = |path: PathBuf| std::fs::read(path).expect("a seed");
    paths.into_iter().map(read).collect()
}

/// FNV-1a: names findings, and is the same everywhere.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn keep(target: &Target, input: &[u8]) -> PathBuf {
    let path = folder(target).join(format!("finding-{:016x}", digest(input)));
    std::fs::write(&path, input).expect("room for a finding");
    path
}

/// Plays one input; a panic is kept as a finding and goes on.
fn play(target: &Target, input: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let result = panic::catch_unwind(AssertUnwindSafe(|| (target.play)(input, &mut seen)));
    if let Err(cause) = result {
        eprintln!("finding: {}", keep(target, input).display());
        panic::resume_unwind(cause);
    }
    seen.digest()
}

/// What is being played and since when, for the watch.
type Clock = Arc<Mutex<Option<(Instant, Vec<u8>)>>>;

/// Ends the process if an input takes too long: nothing else gets out of an endless loop.
fn watch(target: &'static Target, clock: &Clock) {
    let clock = Arc::downgrade(clock);
    std::thread::spawn(move || {
        while let Some(clock) = clock.upgrade() {
            let late = clock.lock().expect("no panic with it held");
            if let Some((since, input)) = &*late
                && since.elapsed() > HANG
            {
                eprintln!(
                    "finding: {} hangs: {}",
                    target.name,
                    keep(target, input).display()
                );
                std::process::abort();
            }
            drop(late);
            drop(clock);
            std::thread::sleep(HANG / 10);
        }
    });
}

fn fuzz(name: &str) {
    let target: &'static Target = TARGETS.iter().find(|t| t.name == name).expect("a target");
    let clock = Clock::default();
    watch(target, &clock);
    let timed = |input: &[u8]| {
        *clock.lock().expect("no panic with it held") = Some((Instant::now(), input.to_vec()));
        let seen = play(target, input);
        *clock.lock().expect("no panic with it held") = None;
        seen
    };
    let mut corpus = seeds(target);
    assert!(!corpus.is_empty(), "{name} has no seeds");
    let mut known: HashSet<u64> = corpus.iter().map(|seed| timed(seed)).collect();
    let mut rng = fastrand::Rng::with_seed(setting("FUZZ_SEED", 1));
    let end = Instant::now() + Duration::from_secs(setting("FUZZ_SECS", 2));
    let mut played = 0u64;
    while Instant::now() < end {
        let input = mutate::input(&mut rng, &corpus, target.words, INPUT_BYTES_MAX);
        played += 1;
        if known.insert(timed(&input)) && corpus.len() < SEEDS_MAX {
            corpus.push(input);
        }
    }
    println!(
        "fuzz: {name}: {played} inputs, {} kinds of outcome, no finding",
        known.len()
    );
    assert!(played > 0);
}

#[test]
fn replies() {
    fuzz("replies");
}

#[test]
fn capabilities() {
    fuzz("capabilities");
}

#[test]
fn addresses() {
    fuzz("addresses");
}

#[test]
fn dots() {
    fuzz("dots");
}

#[test]
fn mbox() {
    fuzz("mbox");
}

#[test]
fn conversation() {
    fuzz("conversation");
}

#[test]
fn server() {
    fuzz("server");
}

#[test]
fn every_target_has_a_test() {
    let source = include_str!("main.rs");
    for target in TARGETS {
        assert!(
            source.contains(&format!("fuzz(\"{}\");", target.name)),
            "{}",
            target.name
        );
    }
}
