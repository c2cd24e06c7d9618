//! `mailer resume`: jobs that go on, against receivers in the test's own process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mailer::cli::args::{DeliveryArgs, ReadArgs};
use mailer::cli::flags::JobFlags;
use mailer::job::{Job, JobState, digest};
use mailer::mail::Status;
use mailer::sink::dns::DnsServer;
use mailer::sink::{Sink, SinkConfig, zone_text};

use crate::made::{BATCH, Desk, Said, attempt, latin, reading};

/// Receivers for every domain, which keep what they take.
pub struct Net {
    pub sink: Sink,
    pub dns: DnsServer,
}

impl Net {
    pub fn new(rules: &[&str]) -> Net {
        let config = SinkConfig {
            rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            ..SinkConfig::keeping()
        };
        Net {
            sink: Sink::start(config).unwrap(),
            dns: DnsServer::start(zone_text::parse("SYNTHETIC").unwrap()).unwrap(),
        }
    }

    /// The flags that lead there.
    pub fn flags(&self) -> DeliveryArgs {
        DeliveryArgs {
            dns: vec![self.dns.address()],
            port: Some(self.sink.port()),
            hello: Some("client.test".to_owned()),
            allow_loopback: true,
            ..DeliveryArgs::default()
        }
    }

    /// The same as they are typed, behind `mailer send`.
    pub fn send(&self, desk: &Desk, words: &[&str]) -> Said {
        let (dns, port) = (self.dns.address().to_string(), self.sink.port().to_string());
        let way = ["--dns", &dns, "--port", &port, "--hello", "client.test"];
        desk.run(&[&["send", "--allow-loopback"], &way[..], words].concat())
    }

    /// Who got something, sorted: twice if it came twice.
    pub fn taken(&self) -> Vec<String> {
        let messages = self.sink.messages();
        let mut taken: Vec<String> = messages
            .into_iter()
            .flat_map(|message| message.recipients)
            .collect();
        taken.sort();
        taken
    }
}

/// A batch of one message to these people.
pub fn letter(desk: &Desk, name: &str, people: &[&str]) -> PathBuf {
    let people = people.join(", ");
    desk.file(
        name,
        format!("From: a@b.test\nTo: {people}\nSubject: {name}\n\nhello\n"),
    )
}

fn job(desk: &Desk, net: &Net, name: &str, people: &[&str]) -> Job {
    let batch = letter(desk, name, people);
    desk.job_with(None, &reading(&[&batch]), &net.flags(), usize::MAX)
}

#[test]
fn without_unfinished_jobs_resume_is_silent_and_makes_nothing() {
    let desk = Desk::new();
    let said = desk.run(&["resume"]);
    assert_eq!((said.assert(0).out.as_str(), said.err.as_str()), ("", ""));
    fs::remove_dir_all(desk.state.path()).unwrap();
    desk.run(&["resume"]).assert(0);
    assert!(!desk.state.path().exists());
    desk.run(&["resume", "weekly"]).assert(66);
}

#[test]
fn a_job_goes_on_from_another_directory_for_those_only_who_are_left() {
    let (desk, net) = (Desk::new(), Net::new(&[]));
    let batch = desk.file("batch.mbox", latin(BATCH));
    let job = desk.job_with(None, &reading(&[&batch]), &net.flags(), usize::MAX);
    desk.record(&job, |writer| {
        for no in 0..6 {
            writer.attempt(&attempt(no, Status::Delivered, 250, "ok"));
        }
        writer.attempt(&attempt(6, Status::Held, 0, "in doubt again"));
    });
    let id = job.id().to_owned();
    drop(job);
    fs::create_dir(desk.path("elsewhere")).unwrap();
    let said = desk.run_in("elsewhere", &["resume", &id, "--report", "r.csv"]);
    // One is held, and one is no address.
    said.assert(1);
    assert_eq!(net.taken(), ["eight@f.test", "nine@f.test"]);
    let card = desk.card(&id);
    assert_eq!((card.state, card.exit), (JobState::Finished, Some(1)));
    assert_eq!(card.runs, 2);
    let report = fs::read_to_string(desk.path("elsewhere/r.csv")).unwrap();
    assert_eq!(report, desk.run(&["report", &id]).out);
    assert_eq!(desk.run(&["resume"]).assert(0).err, "");
    let said = desk.run(&["resume", &id]);
    said.assert(1)
        .assert_err(&["is finished, and not everybody has got it", "mailer report"]);
    assert_eq!(net.taken().len(), 2, "nobody gets it twice");
    desk.run(&["settle", &id, "--resend"]).assert(0);
    desk.run(&["resume"]).assert(1);
    assert_eq!(net.taken(), ["eight@f.test", "nine@f.test", "seven@e.test"]);
}

#[test]
fn a_batch_that_was_overwritten_since_goes_on_from_its_copy() {
    let desk = Desk::new();
    let net = Net::new(&["domain=c.test stage=rcpt first=1 reply=450"]);
    let batch = letter(&desk, "letter.eml", &["one@a.test", "two@c.test"]);
    let port = net.sink.port().to_string();
    let dns = net.dns.address().to_string();
    let said = desk.run(&[
        "send",
        "letter.eml",
        "--dns",
        &dns,
        "--port",
        &port,
        "--hello",
        "client.test",
        "--allow-loopback",
        "--retry-min",
        "2s",
        "--run-for",
        "1s",
    ]);
    said.assert(75).assert_err(&["mailer resume"]);
    fs::write(&batch, "From: x@y.test\nTo: wrong@z.test\n\nother\n").unwrap();
    desk.run(&["resume"]).assert(0);
    assert_eq!(net.taken(), ["one@a.test", "two@c.test"]);
    let two = net.sink.messages().into_iter().last().unwrap();
    let text = String::from_utf8(two.content).unwrap();
    assert!(text.ends_with("\r\n\r\nhello\r\n"), "{text}");
}

#[test]
fn without_a_name_all_that_nobody_runs_go_on_and_the_gravest_status_counts() {
    let desk = Desk::new();
    let net = Net::new(&["domain=no.test stage=rcpt reply=550"]);
    let jobs = [
        job(&desk, &net, "1.eml", &["one@a.test"]),
        job(&desk, &net, "2.eml", &["two@no.test"]),
        job(&desk, &net, "3.eml", &["three@c.test"]),
        job(&desk, &net, "4.eml", &["four@d.test"]),
        job(&desk, &net, "5.eml", &["five@e.test"]),
    ];
    let [first, second, mut cancelled, damaged, held] = jobs;
    cancelled
        .update(|card| card.state = JobState::Cancelled)
        .unwrap();
    let cancelled_id = cancelled.id().to_owned();
    drop((first, second, cancelled));
    let said = desk.run(&["resume"]);
    // The others are in our hands still, or cancelled.
    said.assert(1);
    assert_eq!(net.taken(), ["one@a.test"]);
    fs::write(damaged.dir().join("index"), "").unwrap();
    fs::remove_file(damaged.dir().join("addresses")).unwrap();
    drop(damaged);
    let said = desk.run(&["resume", held.id()]);
    said.assert(75).assert_err(&["is in use by process"]);
    let fifth = held.id().to_owned();
    drop(held);
    let said = desk.run(&["resume"]);
    assert!(said.status > 1, "{said:?}");
    assert_eq!(
        net.taken(),
        ["five@e.test", "one@a.test"],
        "a job that cannot go on keeps no other from it"
    );
    assert_eq!(desk.card(&fifth).state, JobState::Finished);
    let said = desk.run(&["resume", &cancelled_id]);
    said.assert(64).assert_err(&["is cancelled"]);
}

#[test]
fn a_damaged_card_is_told_and_keeps_no_other_job_from_going_on() {
    let (desk, net) = (Desk::new(), Net::new(&[]));
    let bad = job(&desk, &net, "1.eml", &["one@a.test"]);
    fs::write(bad.dir().join("job.json"), "{").unwrap();
    drop(job(&desk, &net, "2.eml", &["two@b.test"]));
    let said = desk.run(&["resume"]);
    said.assert(65)
        .assert_err(&[bad.id(), "its card cannot be used"]);
    assert_eq!(net.taken(), ["two@b.test"]);
}

#[test]
fn a_batch_that_is_not_there_is_waited_for_and_sent_when_it_is_back() {
    let (desk, net) = (Desk::new(), Net::new(&[]));
    let batch = desk.file("batch.mbox", latin(BATCH));
    let job = desk.job_with(None, &reading(&[&batch]), &net.flags(), usize::MAX);
    let id = job.id().to_owned();
    drop(job);
    let away = desk.path("away.mbox");
    fs::rename(&batch, &away).unwrap();
    // Nothing is tried twice in so short a time: the curve of hosts begins with 15 seconds.
    let said = desk.run(&["resume", &id, "--run-for", "3s"]);
    let keep = format!(
        "job {id}: 3 messages could not be copied: keep the batch as it is until `mailer resume`"
    );
    said.assert(75).assert_err(&[&keep]);
    let report = desk.run(&["report", &id]).out;
    let told = report.matches("the batch file cannot be opened: ").count();
    assert!(told > 0, "{report}");
    let count = |name: &str| desk.card(&id).counts.get(name).copied().unwrap_or(0);
    assert_eq!(
        (count("invalid"), count("queued") + count("deferred")),
        (1, 9)
    );
    assert_eq!(net.taken().len(), 0);
    fs::rename(&away, &batch).unwrap();
    let said = desk.run(&["resume", &id, "--retry-min", "100ms", "--retry-max", "1s"]);
    said.assert(1);
    assert_eq!(net.taken().len(), 9);
    assert_eq!((count("invalid"), count("delivered")), (1, 9));
}

/// A batch with other words of the same length behind its first messages.
fn other_end(first: usize) -> Vec<u8> {
    let place = BATCH.match_indices("\nFrom a@b").nth(first - 1).unwrap().0;
    let (known, rest) = BATCH.split_at(place);
    latin(&format!("{known}{}", rest.replace("@f.test", "@w.test")))
}

#[test]
fn another_batch_in_the_place_of_one_that_was_not_read_to_its_end_is_nobodys() {
    // All of it is other mail, though the job knows nothing of it yet; or the end is, behind what the job knows.
    let wholly = latin(&BATCH.replace(".test", ".wrong"));
    for (known, other, taken) in [(0, wholly, 0), (2, other_end(2), 7)] {
        let (desk, net) = (Desk::new(), Net::new(&[]));
        let batch = desk.file("batch.mbox", latin(BATCH));
        let mut job = desk.job_with(None, &reading(&[&batch]), &net.flags(), known);
        let digest = digest(std::slice::from_ref(&batch), None, &job.card().numbering).unwrap();
        job.update(|card| card.digest = Some(digest.text)).unwrap();
        let id = job.id().to_owned();
        drop(job);
        desk.file("batch.mbox", other);
        for _ in 0..2 {
            let said = desk.run(&["resume", &id]);
            said.assert(65).assert_err(&[
                "batch.mbox: has changed since it was first read: it is another batch",
                "what had not been read of the batch is not part of this job",
                "hint: once it is what it was, `mailer resume` reads it on",
            ]);
            assert_eq!(net.taken().len(), taken, "{known}");
            assert_eq!(desk.card(&id).state, JobState::Open);
        }
        fs::remove_file(&batch).unwrap();
        desk.run(&["resume"])
            .assert(66)
            .assert_err(&["batch.mbox: cannot open: "]);
        assert_eq!(net.taken().len(), taken, "{known}");
        // Another file with the same content is the batch.
        desk.file("batch.mbox", latin(BATCH));
        desk.run(&["resume"]).assert(1);
        assert_eq!(net.taken().len(), 9);
        assert!(net.taken().iter().all(|one| one.ends_with(".test")));
        assert_eq!(desk.card(&id).state, JobState::Finished);
    }
}

/// What `flags` say of where the batch comes from is replaced by a pipe.
fn as_if_piped(job: &mut Job, net: &Net, pipe: &str) {
    let read = ReadArgs {
        batch: vec![Path::new(pipe).to_owned()],
        ..ReadArgs::default()
    };
    let flags = JobFlags::of(&read, &net.flags(), Path::new("/"));
    let flags = flags.to_value().unwrap();
    job.update(|card| {
        card.flags = flags;
        card.inputs.clear();
    })
    .unwrap();
}

#[test]
fn a_batch_that_was_not_read_to_its_end_is_read_on_and_a_pipe_is_not() {
    // The second one is what a shell made of `<(COMMAND)`: nothing is there when the job goes on.
    let pipes = [None, Some("-"), Some("/dev/fd/863")];
    for (pipe, wanted) in pipes.into_iter().zip([9, 7, 7]) {
        let (desk, net) = (Desk::new(), Net::new(&[]));
        let batch = desk.file("batch.mbox", latin(BATCH));
        let mut job = desk.job_with(None, &reading(&[&batch]), &net.flags(), 2);
        if let Some(pipe) = pipe {
            as_if_piped(&mut job, &net, pipe);
        }
        let id = job.id().to_owned();
        drop(job);
        desk.run(&["resume"]).assert(i32::from(pipe.is_none()));
        assert_eq!(net.taken().len(), wanted);
        assert_eq!(desk.card(&id).state, JobState::Finished);
        desk.run(&["resume"]).assert(0);
        assert_eq!(net.taken().len(), wanted);
    }
}

/// Two jobs of one message each; the receiver answers the dot of the first one late.
fn two_jobs(desk: &Desk) -> (Net, [String; 2]) {
    let net = Net::new(&["stage=dot delay=2s first=1"]);
    let first = job(desk, &net, "1.eml", &["one@a.test"]).id().to_owned();
    let second = job(desk, &net, "2.eml", &["two@b.test"]).id().to_owned();
    (net, [first, second])
}

/// Asserts that the first of two jobs came to its end, and that the second was not begun.
#[track_caller]
fn assert_only_the_first(desk: &Desk, net: &Net, [first, second]: &[String; 2], said: &Said) {
    said.assert(75)
        .assert_err(&["1 unfinished job was not gone on with"]);
    assert_eq!(net.taken(), ["one@a.test"]);
    assert_eq!(desk.card(first).state, JobState::Finished);
    let card = desk.card(second);
    assert_eq!((card.state, card.runs), (JobState::Open, 1));
}

#[test]
fn a_signal_in_one_job_keeps_the_next_from_being_begun() {
    let desk = Desk::new();
    let (net, jobs) = two_jobs(&desk);
    let said = desk.run_with(&["resume"], |process| {
        assert!(
            net.sink
                .wait_until(|stats| stats.messages == 1, Duration::from_secs(60))
        );
        let kill = format!("kill -TERM {process}");
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
    });
    assert_only_the_first(&desk, &net, &jobs, &said);
    desk.run(&["resume"]).assert(0);
    assert_eq!(net.taken(), ["one@a.test", "two@b.test"]);
}

#[test]
fn the_time_of_a_resume_is_that_of_all_its_jobs_together() {
    let desk = Desk::new();
    let (net, jobs) = two_jobs(&desk);
    let said = desk.run(&["resume", "--run-for", "1s"]);
    assert_only_the_first(&desk, &net, &jobs, &said);
    desk.run(&["resume", "--run-for", "1h"]).assert(0);
    assert_eq!(net.taken(), ["one@a.test", "two@b.test"]);
}
