//! The program, and ways to end it.
//!
//! INVARIANT: a run that is dropped is killed and waited for, and one that does not end is too: no test leaves a process or hangs.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Lab, PATIENCE, Row};

/// How often a condition outside of this process is looked at.
pub const LOOK: Duration = Duration::from_millis(1);

/// A run of `mailer send` or `mailer resume`.
pub struct Run {
    child: Child,
    feeder: Option<JoinHandle<()>>,
    files: Files,
    was_over: bool,
}

/// Where a run leaves what it says.
struct Files {
    report: PathBuf,
    stderr: PathBuf,
}

/// What a run that ended by itself came to.
pub struct Ended {
    pub status: i32,
    pub stderr: String,
    /// Empty if there is no report.
    pub rows: Vec<Row>,
    /// Its job had ended before: nothing was to be done.
    pub was_over: bool,
}

impl Run {
    /// Sends the file `batch`, or what is fed to standard input, with these flags as well.
    pub fn start(lab: &Lab, flags: &[&str], batch: Option<&Path>, stdin: Option<&[u8]>) -> Run {
        Run::named(lab, "run", flags, batch, stdin)
    }

    /// The same with files of its own, for one that runs beside another.
    pub fn named(
        lab: &Lab,
        name: &str,
        flags: &[&str],
        batch: Option<&Path>,
        stdin: Option<&[u8]>,
    ) -> Run {
        let mut command = mailer(lab, "send");
        command
            .args(["--dns", &lab.dns.address().to_string()])
            .args(["--port", &lab.sink.port().to_string()])
            .args(["--allow-loopback", "--hello", "client.test"])
            .args(flags)
            .args(batch);
        Run::launch(lab, name, command, stdin)
    }

    /// Goes on with the job of this id, or with all there are, from another directory.
    pub fn resume(lab: &Lab, id: Option<&str>) -> Run {
        Run::resume_with(lab, id, &[])
    }

    /// The same with these flags.
    pub fn resume_with(lab: &Lab, id: Option<&str>, flags: &[&str]) -> Run {
        let elsewhere = lab.path("elsewhere");
        std::fs::create_dir_all(&elsewhere).unwrap();
        let mut command = mailer(lab, "resume");
        command.args(id).args(flags).current_dir(elsewhere);
        Run::launch(lab, "run", command, None)
    }

    fn launch(lab: &Lab, name: &str, mut command: Command, stdin: Option<&[u8]>) -> Run {
        let files = Files {
            report: lab.path(&format!("{name}.csv")),
            stderr: lab.path(&format!("{name}.err")),
        };
        // A report of the run before must not be taken for this one's.
        let _ = std::fs::remove_file(&files.report);
        let was_over = jobs(lab).iter().any(|job| is_over(job));
        command
            .arg("--report")
            .arg(&files.report)
            .stdin(if stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::null())
            .stderr(File::create(&files.stderr).unwrap());
        let mut child = command.spawn().unwrap();
        let feeder = stdin.map(|bytes| {
            let (mut pipe, bytes) = (child.stdin.take().unwrap(), bytes.to_vec());
            // A reader that was killed does not take all of it.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)))
        });
        Run {
            child,
            feeder,
            files,
            was_over,
        }
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True once it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Kills it as `kill -9` does. False if it had ended before.
    pub fn kill(mut self) -> bool {
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        status.signal().is_some()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Sends SIGTERM until it ends: signals that come at once are one.
    pub fn terminate_for_good(mut self) -> Ended {
        let end = Instant::now() + PATIENCE;
        while !self.has_ended() {
            assert!(Instant::now() < end, "it does not stop");
            self.terminate();
            std::thread::park_timeout(50 * LOOK);
        }
        self.wait()
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Ended {
        let end = Instant::now() + PATIENCE;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "it does not end: {}", self.stderr());
            std::thread::park_timeout(LOOK);
        };
        let stderr = self.stderr();
        assert!(!stderr.contains("panicked"), "{stderr}");
        let report = std::fs::read(&self.files.report).unwrap_or_default();
        Ended {
            status: status.code().unwrap_or(-1),
            stderr,
            rows: rows(&report),
            was_over: self.was_over,
        }
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(&self.files.stderr).unwrap_or_default()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // After `wait` it has ended and these do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(feeder) = self.feeder.take() {
            let _ = feeder.join();
        }
    }
}

/// The program with a command and the laboratory's state directory.
fn mailer(lab: &Lab, command: &str) -> Command {
    let mut mailer = Command::new(env!("CARGO_BIN_EXE_mailer"));
    mailer
        .arg(command)
        .arg("--state")
        .arg(lab.path("state"))
        .env("XDG_CONFIG_HOME", "/proc/nope")
        .env("HOME", "/proc/nope");
    mailer
}

/// What a command about jobs answers. Nothing is wrong with it.
///
/// # Panics
/// If the command fails.
pub fn ask<S: AsRef<OsStr>>(lab: &Lab, command: &str, arguments: &[S]) -> String {
    let out = mailer(lab, command).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command}: {}: {stderr}", out.status);
    String::from_utf8(out.stdout).unwrap()
}

/// The rows of a report.
pub fn rows(report: &[u8]) -> Vec<Row> {
    let rows = csv::Reader::from_reader(report).into_deserialize();
    rows.map(|row| row.unwrap()).collect()
}

/// The id of a job.
pub fn id(job: &Path) -> &str {
    job.file_name().unwrap().to_str().unwrap()
}

/// True if nothing is left to do of a job, as its card says.
fn is_over(job: &Path) -> bool {
    let card = std::fs::read(job.join("job.json")).unwrap();
    let card: serde_json::Value = serde_json::from_slice(&card).unwrap();
    card["state"] != "open"
}

/// The directories of the jobs in the laboratory's state directory, oldest first.
pub fn jobs(lab: &Lab) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(lab.path("state/jobs"));
    let entries = entries.map(|entries| entries.map(|entry| entry.unwrap().path()));
    let mut jobs: Vec<PathBuf> = entries.map(Iterator::collect).unwrap_or_default();
    // One that was being made when its maker was killed has no name yet, or no card, and nothing was sent of it.
    jobs.retain(|job| !id(job).starts_with('.') && job.join("job.json").exists());
    jobs.sort();
    jobs
}

/// Waits until nobody is connected: everything that the dead had sent has been taken.
pub fn settle(lab: &Lab) {
    lab.wait_until(|stats| stats.open == 0);
}
