//! `failed.mbox` and `failed.csv`: who surely has not got his mail can get it from there, and nobody else does.

use std::fs;
use std::path::Path;

use mailer::cli::args::ReadArgs;
use mailer::mail::{RecipientNo, Status};
use serde_json::Value;

use crate::made::{BATCH, Desk, THEN, latin, reading};

/// What `mailer inspect` understands of a batch.
fn inspected(desk: &Desk, path: &Path) -> Vec<Value> {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_mailer"))
        .args(["inspect", "--json"])
        .arg(path)
        .current_dir(desk.path(""))
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn addresses(message: &Value) -> Vec<&str> {
    let recipients = message["recipients"].as_array().unwrap().iter();
    recipients
        .map(|recipient| recipient["address"].as_str().unwrap())
        .collect()
}

#[test]
fn failed_messages_are_the_same_bytes_for_those_only_who_have_not_got_them() {
    let desk = Desk::new();
    let id = desk.every_fate().id().to_owned();
    fs::create_dir(desk.path("out")).unwrap();
    let said = desk.run(&["report", &id, "--failed", "--to-dir", "out"]);
    said.assert(0).assert_out(&[
        "out/failed.csv: 7 recipients; out/failed.mbox: 3 messages to 3 recipients\n",
        "4 recipients only in failed.csv",
    ]);
    let csv = fs::read_to_string(desk.path("out/failed.csv")).unwrap();
    assert_eq!(csv, desk.run(&["report", &id, "--failed"]).out);
    let failed = inspected(&desk, &desk.path("out/failed.mbox"));
    let whole = inspected(&desk, &desk.path("batch.mbox"));
    assert_eq!(addresses(&failed[0]), ["two@a.test"]);
    assert_eq!(addresses(&failed[1]), ["six@e.test"], "seven may have it");
    assert_eq!(addresses(&failed[2]), ["eight@f.test"]);
    // As the From_ line of the batch has it.
    assert_eq!(failed[0]["reverse_path"], "a@b.test");
    assert_eq!(failed[1]["reverse_path"], "bounce@b.test");
    for at in [0, 2] {
        assert_eq!(failed[at]["sha256"], whole[at]["sha256"]);
        assert!(failed[at]["sha256"].is_string());
    }
    // The second got its Date from the job, and keeps it.
    let text = fs::read(desk.path("out/failed.mbox")).unwrap();
    let text: String = text.into_iter().map(char::from).collect();
    assert!(text.contains("\nDate: Mon, 23 Nov 2026 15:00:00 +0000\n"));
    assert!(text.contains("\ncaf\u{e9}\n") && text.contains("\n>From me\n"));
    assert!(!text.contains('\r'));
}

#[test]
fn a_cancelled_jobs_pending_mail_is_fed_back_too() {
    let desk = Desk::new();
    let id = desk.every_fate().id().to_owned();
    desk.run(&["cancel", &id]).assert(0);
    desk.run(&["report", &id, "--failed", "--to-dir", "."])
        .assert(0);
    let failed = inspected(&desk, &desk.path("failed.mbox"));
    assert_eq!(addresses(&failed[0]), ["two@a.test", "three@c.test"]);
    assert_eq!(addresses(&failed[1]), ["six@e.test"]);
    assert_eq!(addresses(&failed[2]), ["eight@f.test", "nine@f.test"]);
}

#[test]
fn a_message_that_changed_is_only_in_the_table() {
    let desk = Desk::new();
    let id = desk.every_fate().id().to_owned();
    let changed = BATCH.replace("Hello", "Jello");
    desk.file("batch.mbox", latin(&changed));
    let said = desk.run(&["report", &id, "--failed", "--to-dir", "."]);
    said.assert(0).assert_out(&["2 messages to 2 recipients"]);
    let text = fs::read(desk.path("failed.mbox")).unwrap();
    let text: String = text.into_iter().map(char::from).collect();
    assert!(!text.contains("ello"), "{text}");
}

#[test]
fn the_batch_of_the_job_is_not_overwritten() {
    let desk = Desk::new();
    let batch = desk.file("failed.mbox", latin(BATCH));
    let id = desk.job(None, &reading(&[&batch])).id().to_owned();
    let said = desk.run(&["report", &id, "--failed", "--to-dir", "."]);
    said.assert(64)
        .assert_err(&["failed.mbox: is the batch of the job", "hint: name another"]);
    assert_eq!(fs::read(&batch).unwrap(), latin(BATCH));
    assert!(!desk.path("failed.csv").exists());
    let said = desk.run(&["report", &id, "--failed", "--to-dir", "nowhere"]);
    said.assert(73);
    desk.run(&["report", &id, "--to-dir", "."]).assert(64);
}

#[test]
fn a_message_to_very_many_takes_several_copies() {
    let desk = Desk::new();
    let letter = desk.file("letter.eml", "From: a@b.test\nSubject: x\n\nhello\n");
    let people: String = (0..2500).map(|n| format!("p{n}@c.test\n")).collect();
    let read = ReadArgs {
        batch: vec![letter],
        to_file: Some(desk.file("people", people)),
        ..ReadArgs::default()
    };
    let job = desk.job(None, &read);
    let refused: Vec<RecipientNo> = (0..2500)
        .filter(|n| n % 500 != 7)
        .map(RecipientNo)
        .collect();
    desk.record(&job, |writer| {
        writer.left(THEN, Status::Refused, &refused);
    });
    let id = job.id().to_owned();
    drop(job);
    let said = desk.run(&["report", &id, "--failed", "--to-dir", "."]);
    said.assert(0)
        .assert_out(&["failed.mbox: 1 message to 2495 recipients\n"]);
    let failed = inspected(&desk, &desk.path("failed.mbox"));
    let met: Vec<&str> = failed.iter().flat_map(addresses).collect();
    let wanted: Vec<String> = refused
        .iter()
        .map(|no| format!("p{}@c.test", no.0))
        .collect();
    assert_eq!(met, wanted);
    assert_eq!(failed.len(), 3);
    assert_eq!(failed[0]["sha256"], failed[2]["sha256"]);
}
