//! Threads and processes that want the same job.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use super::*;

/// What a process of [`other_process`] is to do: the state directory and a job or a digest.
const TASK: &str = "MAILER_JOB_TEST_TASK";

/// No test: what a second process does when a test has started one.
#[test]
fn the_other_process() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let (path, rest) = task.split_once('|').unwrap();
    let (what, word) = rest.split_once('|').unwrap();
    let state = StateDir::open(Path::new(path)).unwrap();
    let said = match what {
        "take" => match state.take(word) {
            Ok(job) => {
                println!("\nsaid took {}", job.id());
                wait_for_end();
                return;
            }
            Err(JobError::Held { by, .. }) => format!("held {}", by.map_or(0, |by| by.pid)),
            Err(error) => format!("error {error}"),
        },
        _ => match make_or_join(&state, word) {
            Ok(job) => {
                println!("\nsaid took {}", job.id());
                wait_for_end();
                return;
            }
            Err(id) => format!("found {id}"),
        },
    };
    println!("\nsaid {said}");
}

/// Until the test closes our standard input, or kills us.
fn wait_for_end() {
    let _ = std::io::stdin().lock().read_line(&mut String::new());
}

/// What `send` does: looks for the job of a batch under the lock and makes it if there is none. `Err`: the job that is there,
/// in use by somebody else.
fn make_or_join(state: &StateDir, digest: &str) -> Result<Job, String> {
    let lock = state.lock().unwrap();
    match state.by_digest(digest).unwrap() {
        None => Ok(state.create(&lock, of_batch(digest)).unwrap()),
        Some(card) => match state.take(&card.id) {
            Err(JobError::Held { id, by: Some(_) }) => Err(id),
            // No panic, or the others would wait for us for ever.
            other => Err(format!("{other:?}")),
        },
    }
}

fn other_process(state: &StateDir, what: &str, word: &str) -> Child {
    let task = format!("{}|{what}|{word}", state.path().display());
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "job::tests::races::the_other_process",
            "--nocapture",
        ])
        .env(TASK, task)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The answer of a process; it goes on if it has taken something.
fn answer(child: &mut Child) -> String {
    let mut out = BufReader::new(child.stdout.as_mut().unwrap());
    let mut line = String::new();
    while out.read_line(&mut line).unwrap() > 0 {
        if let Some(said) = line.strip_prefix("said ") {
            return said.trim().to_owned();
        }
        line.clear();
    }
    panic!("it said nothing");
}

#[test]
fn a_held_job_is_refused_with_the_process_that_holds_it_until_that_is_gone() {
    let scratch = Scratch::new();
    let id = scratch.job(1, named("n")).id;
    assert_eq!(scratch.state.holder(&id).unwrap(), None);
    let mut child = other_process(&scratch.state, "take", &id);
    assert_eq!(answer(&mut child), format!("took {id}"));
    let by = match scratch.state.take(&id).unwrap_err() {
        JobError::Held { by: Some(by), .. } => by,
        other => panic!("{other:?}"),
    };
    assert_eq!(by.pid, child.id());
    assert!(by.command.contains("the_other_process"), "{by}");
    assert!(by.since.parse::<jiff::Timestamp>().is_ok(), "{by}");
    assert_eq!(scratch.state.holder(&id).unwrap(), Some(Some(by)));
    // Looking at jobs needs no lock.
    assert_eq!(scratch.state.find(&id).unwrap().id, id);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(scratch.state.holder(&id).unwrap(), None);
    let ours = scratch.state.take(&id).unwrap();
    let mut child = other_process(&scratch.state, "take", &id);
    assert_eq!(
        answer(&mut child),
        format!("held {}", std::process::id()),
        "not the one that died"
    );
    child.wait().unwrap();
    drop(ours);
    scratch.state.take(&id).unwrap();
}

#[test]
fn of_processes_with_the_same_batch_one_makes_the_job_and_the_others_find_it() {
    let scratch = Scratch::new();
    let digest = "77".repeat(32);
    let mut children: Vec<Child> = (0..4)
        .map(|_| other_process(&scratch.state, "make", &digest))
        .collect();
    let mut said: Vec<String> = children.iter_mut().map(answer).collect();
    said.sort();
    let id = scratch.state.by_digest(&digest).unwrap().unwrap().id;
    let found = format!("found {id}");
    assert_eq!(
        said,
        [&found, &found, &found, &format!("took {id}")].map(String::as_str)
    );
    for mut child in children {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    assert_eq!(scratch.state.jobs().unwrap().len(), 1);
}

#[test]
fn of_threads_with_the_same_batch_one_makes_the_job() {
    for round in 0..20 {
        let scratch = Scratch::new();
        let digest = format!("{round:064x}");
        let (start, done) = (Barrier::new(8), Barrier::new(8));
        let found = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let job = make_or_join(&scratch.state, &digest);
                    done.wait();
                    if let Err(found_by_us) = job {
                        found.lock().unwrap().push(found_by_us);
                    }
                });
            }
        });
        let id = scratch.state.by_digest(&digest).unwrap().unwrap().id;
        assert_eq!(found.into_inner().unwrap(), vec![id; 7]);
        assert_eq!(scratch.state.jobs().unwrap().len(), 1);
    }
}

#[test]
fn of_threads_that_take_a_job_one_has_it_at_a_time() {
    let scratch = Scratch::new();
    let id = scratch.job(1, named("n")).id;
    let (inside, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..50 {
                    match scratch.state.take(&id) {
                        Ok(mut job) => {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            job.update(|card| card.runs += 1).unwrap();
                            taken.fetch_add(1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                        Err(JobError::Held { .. }) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    let runs = scratch.state.find(&id).unwrap().runs as usize;
    assert_eq!(runs, taken.into_inner(), "no change was lost");
    assert!(runs > 0);
}

#[test]
fn who_only_looks_whether_a_job_is_held_keeps_nobody_from_taking_it() {
    let scratch = Scratch::new();
    let id = scratch.job(1, named("n")).id;
    let stop = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while stop.load(Ordering::Relaxed) == 0 {
                    scratch.state.holder(&id).unwrap();
                }
            });
        }
        let results: Vec<bool> = (0..200).map(|_| scratch.state.take(&id).is_ok()).collect();
        stop.store(1, Ordering::Relaxed);
        assert!(results.iter().all(|taken| *taken));
    });
}

#[test]
fn a_job_that_is_removed_while_others_want_it_is_taken_by_nobody() {
    for _ in 0..30 {
        let scratch = Scratch::new();
        let id = scratch.job(1, named("n")).id;
        let ours = scratch.state.take(&id).unwrap();
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..20 {
                        let error = scratch.state.take(&id).expect_err("it is held, then gone");
                        let gone = matches!(error, JobError::NotFound { .. });
                        let held = matches!(error, JobError::Held { .. });
                        assert!(gone || held, "{error:?}");
                        if gone {
                            break;
                        }
                    }
                });
            }
            start.wait();
            scratch.state.remove(ours).unwrap();
        });
        assert_eq!(scratch.state.listing().unwrap().cards.len(), 0);
        assert_eq!(scratch.state.listing().unwrap().unreadable.len(), 0);
    }
}
