//! A state directory with jobs in it, made by the rooms that a run uses, and the program run on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use mailer::batch::{BatchReader, BatchStore, Input, ReadOptions};
use mailer::cli::args::{DeliveryArgs, ReadArgs};
use mailer::cli::flags::JobFlags;
use mailer::job::{Job, JobCard, NewCard, StateDir, stamps};
use mailer::ledger::{Attempt, Ledger, Options, People, Via, Writer};
use mailer::mail::{
    Enhanced, MessageNo, Passage, QueueId, RecipientNo, Scope, Stage, Status, Verdict,
};

/// Milliseconds since 1970: 2026-11-23 15:00:00 UTC.
pub const THEN: i64 = 1_795_446_000_000;

/// A batch with one recipient of every fate: see [`every_fate`].
pub const BATCH: &str = "\
From a@b.test Mon Nov 23 12:00:00 2026
From: News <news@b.test>
To: one@a.test, two@a.test, three@c.test
Subject: first
Date: Mon, 23 Nov 2026 12:00:00 +0000
Message-ID: <1@b.test>

Hello
>From me
.
bye

From a@b.test Mon Nov 23 12:00:00 2026
From: news@b.test
X-Envelope-From: bounce@b.test
X-Envelope-To: four@c.test, five@d.test
X-Envelope-To: six@e.test, seven@e.test
Subject: second, without Date and Message-ID

caf\u{e9}

From a@b.test Mon Nov 23 12:00:00 2026
From: news@b.test
To: eight@f.test, not an address, nine@f.test
Subject: third
Date: Mon, 23 Nov 2026 12:00:00 +0000

x

";

/// The program's answer.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    fn of(out: Output) -> Said {
        Said {
            status: out.status.code().unwrap(),
            out: String::from_utf8(out.stdout).unwrap(),
            err: String::from_utf8(out.stderr).unwrap(),
        }
    }

    /// Asserts the exit status; an error is one line and at most one hint.
    #[track_caller]
    pub fn assert(&self, status: i32) -> &Said {
        assert_eq!(self.status, status, "{self:#?}");
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    #[track_caller]
    pub fn assert_out(&self, wanted: &[&str]) -> &Said {
        for text in wanted {
            assert!(self.out.contains(text), "no {text:?} in:\n{}", self.out);
        }
        self
    }

    #[track_caller]
    pub fn assert_err(&self, wanted: &[&str]) -> &Said {
        for text in wanted {
            assert!(self.err.contains(text), "no {text:?} in:\n{}", self.err);
        }
        self
    }
}

/// A scratch directory with a state directory in it.
pub struct Desk {
    dir: tempfile::TempDir,
    pub state: StateDir,
}

/// The people of a batch.
struct Folk(BatchStore);

impl People for Folk {
    fn person(&self, recipient: RecipientNo) -> Option<(MessageNo, String)> {
        self.0.person(recipient)
    }
}

impl Desk {
    pub fn new() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        Desk { dir, state }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Runs `mailer` with these arguments and the state directory.
    pub fn run(&self, arguments: &[&str]) -> Said {
        self.run_in("", arguments)
    }

    /// The same from another directory.
    pub fn run_in(&self, directory: &str, arguments: &[&str]) -> Said {
        Said::of(self.command(directory, arguments).output().unwrap())
    }

    /// Runs `mailer`, and does something to its process, whose number is handed over.
    pub fn run_with(&self, arguments: &[&str], act: impl FnOnce(u32)) -> Said {
        let mut command = self.command("", arguments);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        act(child.id());
        Said::of(child.wait_with_output().unwrap())
    }

    fn command(&self, directory: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailer"));
        command
            .args(arguments)
            .args(["--state", &self.state.path().to_string_lossy()])
            .current_dir(self.path(directory))
            .env("XDG_CONFIG_HOME", "/proc/nope")
            .env("HOME", "/proc/nope")
            .env("TZ", "UTC");
        command
    }

    /// A job of the files in `batch`, read to their end; nothing is sent yet.
    pub fn job(&self, name: Option<&str>, read: &ReadArgs) -> Job {
        self.job_with(name, read, &DeliveryArgs::default(), usize::MAX)
    }

    /// The same with these flags; `messages_max`: what was read of it.
    pub fn job_with(
        &self,
        name: Option<&str>,
        read: &ReadArgs,
        delivery: &DeliveryArgs,
        messages_max: usize,
    ) -> Job {
        let flags = JobFlags::of(read, delivery, self.dir.path());
        let lock = self.state.lock().unwrap();
        let card = NewCard {
            name: name.map(str::to_owned),
            date: "Mon, 23 Nov 2026 15:00:00 +0000".to_owned(),
            cwd: self.dir.path().to_string_lossy().into_owned(),
            command: ["mailer", "send", "batch.mbox"].map(String::from).to_vec(),
            inputs: stamps(&read.batch, read.to_file.as_deref()).unwrap(),
            flags: flags.to_value().unwrap(),
            ..NewCard::default()
        };
        let mut job = self.state.create(&lock, card).unwrap();
        let options = ReadOptions {
            to_file: read.to_file.clone(),
            ..options(&job)
        };
        let store = Arc::new(BatchStore::create_in(options, job.dir()).unwrap());
        let inputs = read
            .batch
            .iter()
            .map(|path| Input::from_arg(path.as_os_str()));
        let mut reader = BatchReader::open(inputs.collect(), Arc::clone(&store)).unwrap();
        while store.message_count() < messages_max && reader.next_arrival().unwrap().is_some() {}
        store.flush().unwrap();
        job.update(|card| {
            card.runs = 1;
            card.read_to_end = store.is_read_to_end();
            card.recipients = store.recipient_count() as u64;
        })
        .unwrap();
        job
    }

    /// A job of [`BATCH`] in which all has happened that can.
    pub fn every_fate(&self) -> Job {
        let batch = self.file("batch.mbox", latin(BATCH));
        let job = self.job(None, &reading(&[&batch]));
        self.record(&job, every_fate);
        job
    }

    /// Writes to the ledger of a job, as one run of it.
    pub fn record(&self, job: &Job, write: impl FnOnce(&mut Writer)) {
        let (mut ledger, mut writer) = self.ledger(job);
        write(&mut writer);
        writer.flush().unwrap();
        drop(writer);
        ledger.finish().unwrap();
    }

    /// The ledger of a job, open.
    pub fn ledger(&self, job: &Job) -> (Ledger, Writer) {
        let store = BatchStore::reopen(options(job), job.dir()).unwrap();
        let queues = Options {
            queues: vec!["general".to_owned(), "big".to_owned()],
            ..Options::default()
        };
        let ledger = Ledger::open(job.dir(), queues, Arc::new(Folk(store))).unwrap();
        let writer = Writer::new(ledger.journal());
        (ledger, writer)
    }

    /// The card of a job as it is now.
    pub fn card(&self, id: &str) -> JobCard {
        self.state.find(id).unwrap()
    }

    /// Recipient and status of each row of the report.
    pub fn fates(&self, id: &str) -> Vec<(String, String)> {
        let said = self.run(&["report", id]);
        said.assert(0);
        let mut rows = csv::Reader::from_reader(said.out.as_bytes());
        let rows = rows.records().map(|row| {
            let row = row.unwrap();
            (row[1].to_owned(), row[2].to_owned())
        });
        rows.collect()
    }

    /// The status of one recipient.
    #[track_caller]
    pub fn fate(&self, id: &str, address: &str) -> String {
        let fates = self.fates(id);
        let found = fates.iter().find(|(recipient, _)| recipient == address);
        found
            .unwrap_or_else(|| panic!("{address}: {fates:?}"))
            .1
            .clone()
    }
}

fn options(job: &Job) -> ReadOptions {
    ReadOptions::new(job.card().date.clone())
}

/// How these files are read.
pub fn reading(batch: &[&Path]) -> ReadArgs {
    ReadArgs {
        batch: batch.iter().map(|path| path.to_path_buf()).collect(),
        ..ReadArgs::default()
    }
}

/// Text as bytes in Latin-1.
pub fn latin(text: &str) -> Vec<u8> {
    text.chars().map(|c| c as u8).collect()
}

/// An attempt of recipient `no`, in the queue `big`.
pub fn attempt(no: u32, status: Status, code: u16, text: &str) -> Attempt {
    let stage = match status {
        Status::InDoubt | Status::Delivered => Stage::Dot,
        Status::Invalid => Stage::Batch,
        _ => Stage::Rcpt,
    };
    let enhanced = (code >= 400).then(|| Enhanced::new((code / 100) as u8, 1, 1));
    Attempt {
        recipient: RecipientNo(no),
        verdict: Verdict::new(status, Scope::Recipient, stage, code, enhanced, text),
        via: via(no),
        passage: Passage {
            attempts: 1,
            host_failures: 0,
            in_doubt: matches!(status, Status::InDoubt | Status::Held),
        },
        at: THEN + i64::from(no),
        took_ms: 7,
    }
}

pub fn via(no: u32) -> Via {
    Via {
        queue: QueueId(u16::from(no < 2)),
        mx: format!("mx{}.test", no % 2).into(),
        ip: "192.0.2.1".parse().ok(),
        tls: "".into(),
    }
}

/// One recipient of every fate. Nine (10) is queued.
fn every_fate(writer: &mut Writer) {
    for attempt in [
        attempt(0, Status::Delivered, 250, "ok"),
        attempt(1, Status::Refused, 550, "no such user"),
        attempt(2, Status::Deferred, 450, "try later"),
        attempt(3, Status::InDoubt, 0, "the connection was lost"),
        attempt(4, Status::Held, 0, "in doubt again"),
        attempt(5, Status::Deferred, 451, "busy"),
        attempt(6, Status::InDoubt, 0, "the connection was lost"),
        attempt(7, Status::Refused, 554, "not this message"),
        attempt(8, Status::Invalid, 0, "no address"),
    ] {
        writer.attempt(&attempt);
    }
    // Six had its time; seven was in doubt before its time was over.
    let expired = [RecipientNo(5), RecipientNo(6)];
    writer.left(THEN + 100, Status::Expired, &expired);
}
