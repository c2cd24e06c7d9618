//! What this machine does not give: a state directory that can be written, descriptors, threads, room in files, name servers,
//! somebody who reads. Each run ends, with a status of the list and a line that says why, and what it left can be gone on
//! with.
//!
//! Permissions and the limit of processes do not hold for root: where they matter, root becomes a user who has nothing else
//! running.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::batch::Batch;
use crate::disk::make_dir;
use crate::lab::{Ended, Lab};

const PEOPLE: usize = 20;

fn batch() -> Batch {
    Batch::to_each((0..PEOPLE).map(|n| format!("u{n}@d{}.test", n % 4)))
}

/// The program as a user who is not root, in a directory of that user.
struct Stranger<'a> {
    lab: &'a Lab,
    program: PathBuf,
    /// `None` if we are not root ourselves.
    user: Option<u32>,
}

impl Stranger<'_> {
    fn new(lab: &Lab) -> Stranger<'_> {
        let directory = lab.path("");
        let is_root = directory.metadata().unwrap().uid() == 0;
        // Nobody else has this number, and no other test: its processes are those of this test alone.
        let user =
            is_root.then(|| 1_000_000 + std::process::id() * 8 + u32::from(lab.sink.port() % 8));
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        // The one that was built may lie where only root can go.
        let program = lab.path("mailer");
        fs::copy(env!("CARGO_BIN_EXE_mailer"), &program).unwrap();
        lab.file("batch.mbox", batch().bytes());
        let state = lab.path("state");
        make_dir(&state);
        chown(state, user, user).unwrap();
        Stranger { lab, program, user }
    }

    /// Sends the batch, with these limits of prlimit(1).
    fn send(&self, limits: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new("prlimit");
        command.args(limits).arg(&self.program);
        command.args(["send", "--allow-loopback", "--hello", "client.test"]);
        command.args(["--dns", &self.lab.dns.address().to_string()]);
        command.args(["--port", &self.lab.sink.port().to_string()]);
        command.arg("--state").arg(self.lab.path("state"));
        command.arg(self.lab.path("batch.mbox"));
        command
            .env("XDG_CONFIG_HOME", "/proc/nope")
            .stdin(Stdio::null());
        command.current_dir("/");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        (output.status.code(), stderr)
    }
}

/// Everybody got it, once.
#[track_caller]
fn assert_everybody(lab: &Lab) {
    assert_eq!(lab.received().len(), PEOPLE);
    lab.assert_clean();
}

#[track_caller]
fn assert_says(ended: &Ended, status: i32, words: &[&str]) {
    ended.assert_status(status);
    for word in words {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
}

#[test]
fn a_state_directory_that_is_read_only_is_named_and_nothing_is_sent() {
    let lab = Lab::with_rules(&[]);
    let stranger = Stranger::new(&lab);
    let state = lab.path("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o500)).unwrap();
    let (status, stderr) = stranger.send(&[]);
    assert_eq!(status, Some(77), "{stderr}");
    assert!(stderr.contains(state.to_str().unwrap()), "{stderr}");
    assert_eq!(lab.sink.stats().connections, 0);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let (status, stderr) = stranger.send(&[]);
    assert_eq!(status, Some(0), "{stderr}");
    assert_everybody(&lab);
}

#[test]
fn a_state_directory_that_is_a_file_is_named_and_nothing_is_sent() {
    let lab = Lab::with_rules(&[]);
    let state = lab.file("state", "precious");
    let ended = lab.send(&batch(), &[]);
    assert!(
        matches!(ended.status, Some(73 | 77)),
        "{:?} {}",
        ended.status,
        ended.stderr
    );
    assert!(ended.stderr.contains("is no directory"), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(state).unwrap(), "precious");
    assert_eq!(lab.sink.stats().connections, 0);
}

/// A run that sends slowly, whose state directory is lost after the first messages.
fn lose_state(lose: impl Fn(&Path)) {
    let lab = Lab::with_rules(&["stage=dot delay=700ms"]);
    let program = lab.start(&batch(), &["--max-workers", "4"]);
    lab.wait_until(|stats| stats.messages >= 1);
    lose(&lab.path("state"));
    let ended = program.wait();
    assert_says(&ended, 74, &["mailer: the ledger cannot be written"]);
    let sent = lab.received().len();
    assert!(sent < PEOPLE, "nothing more is begun");
    lab.assert_clean();
}

#[test]
fn a_state_directory_that_vanishes_ends_the_run() {
    lose_state(|state| fs::remove_dir_all(state).unwrap());
}

#[test]
fn a_state_directory_in_whose_place_there_is_a_file_ends_the_run() {
    lose_state(|state| {
        fs::rename(state, state.with_extension("old")).unwrap();
        fs::write(state, "").unwrap();
    });
}

#[test]
fn descriptors_that_do_not_suffice_are_said_so_and_few_are_enough() {
    for (count, status) in [(20, 73), (30, 73), (64, 0)] {
        let lab = Lab::with_rules(&[]);
        let stranger = Stranger::new(&lab);
        let limit = format!("--nofile={count}");
        let (ended, stderr) = stranger.send(&[&limit]);
        assert_eq!(ended, Some(status), "{count}: {stderr}");
        let line = format!("the limit of open files ({count})");
        assert!(stderr.contains(&line), "{stderr}");
        if status != 0 {
            assert_eq!(lab.sink.stats().connections, 0);
            let (ended, stderr) = stranger.send(&[]);
            assert_eq!(ended, Some(0), "{stderr}");
        }
        assert_everybody(&lab);
    }
}

#[test]
fn threads_that_do_not_suffice_are_said_so_and_few_are_enough() {
    // Where we are not root our own user has others running, and how many is not known.
    for (count, status) in [(8, 73), (30, 73), (72, 0)] {
        let lab = Lab::with_rules(&[]);
        let stranger = Stranger::new(&lab);
        let limit = format!("--nproc={count}");
        let (ended, stderr) = stranger.send(&[&limit]);
        let others = stranger.user.is_none() && matches!(ended, Some(70 | 71 | 73 | 75));
        assert!(
            ended == Some(status) || others,
            "{count}: {ended:?} {stderr}"
        );
        assert!(stderr.contains("mailer: "), "{stderr}");
        if ended != Some(0) {
            let (ended, stderr) = stranger.send(&[]);
            assert_eq!(ended, Some(0), "{stderr}");
        }
        assert_everybody(&lab);
    }
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_no_death() {
    // From less than a card to more than the ledger.
    for bytes in [0, 100, 1000, 3000, 4000, 10_000, 1_000_000] {
        let lab = Lab::with_rules(&[]);
        let stranger = Stranger::new(&lab);
        let limit = format!("--fsize={bytes}");
        let (status, stderr) = stranger.send(&[&limit]);
        assert!(
            matches!(status, Some(0 | 73 | 74)),
            "{bytes}: {status:?} {stderr}"
        );
        if status != Some(0) {
            // The latter is what SQLite says.
            let is_said = ["File too large", "disk I/O error"].map(|why| stderr.contains(why));
            assert!(is_said.contains(&true), "{bytes}: {stderr}");
        }
        assert_eq!(status == Some(0), bytes == 1_000_000, "{bytes}: {stderr}");
        let (status, stderr) = stranger.send(&[]);
        // 74: all was delivered, but for the ledger's last fold.
        let is_done = status == Some(74) && stderr.contains("this batch was sent");
        assert!(is_done || status == Some(0), "{bytes}: {status:?} {stderr}");
        assert_everybody(&lab);
    }
}

#[test]
fn without_name_servers_nothing_is_lost() {
    let lab = Lab::with_rules(&[]);
    // Nobody answers on this port: it was just given back.
    let silent = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let batch = lab.file("batch.mbox", batch().bytes());
    let output = Command::new(env!("CARGO_BIN_EXE_mailer"))
        .args(["send", "--allow-loopback", "--dns", &silent.to_string()])
        .args(["--dns-timeout", "200ms", "--retry-min", "100ms"])
        .arg("--state")
        .arg(lab.path("state"))
        .arg(&batch)
        .env("XDG_CONFIG_HOME", "/proc/nope")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(stderr.contains("no name server answers"), "{stderr}");
    lab.send_again(&["--retry-min", "100ms"]).assert_status(0);
    assert_everybody(&lab);
}

#[test]
fn a_report_that_nobody_reads_costs_no_mail_and_the_job_is_finished() {
    let lab = Lab::with_rules(&[]);
    let batch = lab.file("batch.mbox", batch().bytes());
    let run = || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mailer"))
            .args(["send", "--allow-loopback", "--report", "-"])
            .args(["--dns", &lab.dns.address().to_string()])
            .args(["--port", &lab.sink.port().to_string()])
            .arg("--state")
            .arg(lab.path("state"))
            .arg(&batch)
            .env("XDG_CONFIG_HOME", "/proc/nope")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (status, stderr) = run();
    assert_eq!(status, Some(74), "{stderr}");
    assert!(
        stderr.contains("the report could not be written"),
        "{stderr}"
    );
    assert_everybody(&lab);
    let (_, stderr) = run();
    assert!(
        stderr.contains("nothing was sent: this batch was sent"),
        "{stderr}"
    );
    assert_everybody(&lab);
}
