//! `mailer jobs`, `mailer status`, `mailer report`: what a person sees of a job, running or not.

use std::fs;
use std::io::Write;

use mailer::mail::{RecipientNo, Status};

use crate::made::{BATCH, Desk, THEN, attempt, latin, reading, via};

#[test]
fn without_jobs_there_is_nothing_to_see_and_nothing_is_made() {
    let desk = Desk::new();
    let said = desk.run(&["jobs"]);
    assert_eq!((said.assert(0).out.as_str(), said.err.as_str()), ("", ""));
    desk.run(&["status"])
        .assert(0)
        .assert_err(&["there is no job"]);
    let said = desk.run(&["status", "2026"]);
    said.assert(66)
        .assert_err(&["mailer: there is no job 2026", "hint: mailer jobs"]);
    fs::remove_dir_all(desk.state.path()).unwrap();
    desk.run(&["jobs"]).assert(0);
    desk.run(&["report", "x"]).assert(66);
    assert!(!desk.state.path().exists());
}

#[test]
fn a_directory_that_others_may_write_into_is_refused_with_what_to_type() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    fs::set_permissions(desk.state.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let hint = format!("hint: chmod 700 {}", desk.state.path().display());
    for command in [&["jobs"][..], &["status"], &["cancel", "x"]] {
        let said = desk.run(command);
        said.assert(77).assert_err(&["others may write", &hint]);
    }
}

#[test]
fn jobs_are_listed_with_their_states() {
    let desk = Desk::new();
    let batch = desk.file("batch.mbox", latin(BATCH));
    let mut first = desk.job(Some("weekly"), &reading(&[&batch]));
    first
        .update(|card| {
            card.exit = Some(75);
            card.counts.insert("delivered".into(), 3);
            card.counts.insert("deferred".into(), 2);
            card.counts.insert("held".into(), 4);
        })
        .unwrap();
    let id = first.id().to_owned();
    drop(first);
    let second = desk.job(None, &reading(&[&batch]));
    let said = desk.run(&["jobs"]);
    let lines: Vec<Vec<&str>> = said
        .assert(0)
        .out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let from = batch.to_string_lossy().into_owned();
    let from = from.as_str();
    assert_eq!(lines.len(), 3, "{}", said.out);
    assert_eq!(
        lines[1],
        [
            id.as_str(),
            "open",
            "1",
            "75",
            "10",
            "3",
            "2",
            "4",
            "weekly",
            from
        ]
    );
    assert_eq!(
        lines[2],
        [
            second.id(),
            "running",
            "1",
            "-",
            "10",
            "0",
            "0",
            "0",
            "-",
            from
        ]
    );
}

#[test]
fn a_damaged_card_is_told_and_hides_no_other_job() {
    let desk = Desk::new();
    let (good, bad) = (desk.every_fate(), desk.every_fate());
    fs::write(bad.dir().join("job.json"), "{").unwrap();
    let said = desk.run(&["jobs"]);
    said.assert(65).assert_out(&[good.id()]);
    said.assert_err(&[bad.id(), "its card cannot be used", "hint: restore "]);
    desk.run(&["status", bad.id()]).assert(65);
    desk.run(&["status", good.id()]).assert(0);
}

#[test]
fn status_says_how_far_a_job_has_come_what_is_wrong_and_what_to_type() {
    let desk = Desk::new();
    let job = desk.every_fate();
    let id = job.id().to_owned();
    drop(job);
    let said = desk.run(&["status"]);
    let state = desk.state.path().display();
    said.assert(0).assert_out(&[
        &format!("job {id}: open\n"),
        "batch.mbox  (mailer send batch.mbox)",
        ", 1 run\n",
        "10 recipients of 3 messages\n",
        "  delivered          1   10.0 %\n",
        "  refused            2   20.0 %\n",
        "  deferred           1   10.0 %\n",
        "  in-doubt           1   10.0 %\n",
        "  held               1   10.0 %\n",
        "  expired            2   20.0 %\n",
        "  invalid            1   10.0 %\n",
        "  queued             1   10.0 %\n",
        "by queue                delivered  pending   failed\n",
        "  big                           1        0        1\n",
        "  general                       0        2        5\n",
        "may have been delivered:\n",
        "  in-doubt  four@c.test  message 2, 2026-11-23 15:00:00 at mx1.test[192.0.2.1]\n",
        "  held      five@d.test  message 2, 2026-11-23 15:00:00 at mx0.test[192.0.2.1]\n",
        "     4  mx1.test: 554 5.1.1 not this message (at rcpt, mx1.test)\n",
        &format!("next: mailer resume {id} --state {state}\n"),
        &format!("     mailer settle {id} --delivered|--resend --to ADDRESS --state {state}"),
        &format!("mailer report {id} --failed --to-dir DIR --state {state}\n"),
        &format!("mailer retry {id} --refused --state {state}"),
    ]);
    let again = desk.run(&["status", &id[..17]]);
    assert_eq!(again.out, said.out, "by a beginning of its name");
}

#[test]
fn the_next_retry_is_told_by_the_patience_of_the_job() {
    let desk = Desk::new();
    let batch = desk.file("batch.mbox", latin(BATCH));
    let job = desk.job(None, &reading(&[&batch]));
    let now = jiff::Timestamp::now().as_millisecond();
    desk.record(&job, |writer| {
        let mut later = attempt(0, Status::Deferred, 450, "later");
        later.at = now;
        writer.attempt(&later);
        later.recipient = RecipientNo(1);
        later.passage.attempts = 4;
        writer.attempt(&later);
    });
    let said = desk.run(&["status", job.id()]);
    let line = said
        .out
        .lines()
        .find_map(|line| line.strip_prefix("next retry: about "));
    let at: jiff::civil::DateTime = line.unwrap().parse().unwrap();
    let at = at.to_zoned_datetime(jiff::tz::TimeZone::UTC).unwrap();
    let wait = at.timestamp().as_millisecond() - now;
    // --retry-min is 5 minutes, with at most 20 % of jitter.
    assert!((299_000..=361_000).contains(&wait), "{wait}");
    desk.record(&job, |writer| {
        let mut earlier = attempt(2, Status::Deferred, 450, "later");
        earlier.at = THEN - 86_400_000;
        writer.attempt(&earlier);
    });
    desk.run(&["status", job.id()])
        .assert_out(&["next retry: due now\n"]);
}

#[test]
fn a_running_job_is_looked_at_without_disturbing_it() {
    let desk = Desk::new();
    let job = desk.every_fate();
    let (mut ledger, mut writer) = desk.ledger(&job);
    let due = [RecipientNo(9), RecipientNo(2)];
    writer.intend(THEN + 200, &via(0), due.into_iter()).unwrap();
    // The index has an end that is just being written.
    let index = job.dir().join("index");
    let mut file = fs::File::options().append(true).open(&index).unwrap();
    file.write_all(b"half a frame").unwrap();
    let before = fs::read(&index).unwrap();
    for _ in 0..2 {
        let said = desk.run(&["status"]);
        said.assert(0).assert_out(&[
            &format!("job {}: running\n", job.id()),
            &format!("  run by   process {} since ", std::process::id()),
            "  queued             2   20.0 %  (2 being sent to)\n",
            "  in-doubt           1   10.0 %\n",
            ", 1 run\n",
            &format!("next: to stop it: kill {}\n", std::process::id()),
        ]);
    }
    assert_eq!(desk.fate(job.id(), "three@c.test"), "queued");
    assert_eq!(fs::read(&index).unwrap(), before, "nothing is cut off");
    let names: Vec<String> = fs::read_dir(job.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(names.is_empty(), "{names:?}");
    // The run goes on as if nobody had looked.
    let mut three = attempt(2, Status::Delivered, 250, "ok");
    three.at = THEN + 300;
    writer.attempt(&three);
    writer.flush().unwrap();
    drop(writer);
    ledger.finish().unwrap();
    let id = job.id().to_owned();
    drop(job);
    let said = desk.run(&["status"]);
    said.assert_out(&["delivered          2", "in-doubt           2"]);
    assert_eq!(desk.fate(&id, "three@c.test"), "delivered");
    assert_eq!(desk.fate(&id, "nine@f.test"), "in-doubt", "its run died");
}

#[test]
fn a_look_at_a_job_writes_nothing_not_even_where_nothing_can_be_written() {
    let desk = Desk::new();
    let job = desk.every_fate();
    let id = job.id().to_owned();
    let entries = |dir: &std::path::Path| {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let facts = entries.map(|entry| {
            (
                entry.file_name(),
                entry.metadata().unwrap().modified().unwrap(),
            )
        });
        facts.collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = entries(job.dir());
    let directory_before = fs::metadata(job.dir()).unwrap().modified().unwrap();
    for command in ["status", "report"] {
        let out = std::process::Command::new("sh")
            .args([
                "-c",
                "ulimit -f 0; exec \"$@\"",
                "sh",
                env!("CARGO_BIN_EXE_mailer"),
                command,
                &id,
            ])
            .args(["--state", &desk.state.path().to_string_lossy()])
            .env("XDG_CONFIG_HOME", "/proc/nope")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(
            out.status.code(),
            Some(0),
            "{command}: {said} {}",
            out.status
        );
    }
    assert_eq!(entries(job.dir()), before);
    let directory_after = fs::metadata(job.dir()).unwrap().modified().unwrap();
    assert_eq!(
        directory_after, directory_before,
        "nothing is made for a while either"
    );
}

#[test]
fn copies_that_looks_were_made_in_once_are_swept_by_whoever_has_the_job() {
    let desk = Desk::new();
    let job = desk.every_fate();
    let (id, dir) = (job.id().to_owned(), job.dir().to_owned());
    drop(job);
    let left = dir.join(".look-a1B2");
    fs::create_dir(&left).unwrap();
    fs::copy(dir.join("index"), left.join("index")).unwrap();
    desk.run(&["status", &id]).assert(0);
    assert!(left.exists(), "who only looks changes nothing");
    desk.run(&["cancel", &id]).assert(0);
    assert!(!left.exists() && dir.join("index").exists());
}

#[test]
fn a_job_that_was_made_and_no_more_is_empty() {
    let desk = Desk::new();
    let lock = desk.state.lock().unwrap();
    let card = mailer::job::NewCard {
        flags: serde_json::json!({}),
        ..Default::default()
    };
    let id = desk.state.create(&lock, card).unwrap().id().to_owned();
    let said = desk.run(&["status", &id]);
    said.assert(0)
        .assert_out(&["0 recipients of 0 messages as far as the batch was read\n"]);
    assert!(desk.fates(&id).is_empty());
}

#[test]
fn a_report_has_a_row_for_everybody_in_the_order_of_the_batch() {
    let desk = Desk::new();
    let id = desk.every_fate().id().to_owned();
    let said = desk.run(&["report", &id]);
    let lines: Vec<&str> = said.assert(0).out.lines().collect();
    assert_eq!(
        lines[0],
        "message,recipient,status,code,enhanced,class,stage,mx,ip,tls,queue,attempts,first_attempt,last_attempt,ms,reply"
    );
    assert_eq!(lines.len(), 11, "{}", said.out);
    assert_eq!(
        lines[2],
        "1,two@a.test,refused,550,5.1.1,recipient,rcpt,mx1.test,192.0.2.1,,big,1,\
         2026-11-23T15:00:00.001Z,2026-11-23T15:00:00.001Z,7,no such user"
    );
    assert_eq!(lines[10], "3,nine@f.test,queued,,,,,,,,,,,,,");
    let fates: Vec<String> = desk
        .fates(&id)
        .into_iter()
        .map(|(recipient, status)| format!("{recipient} {status}"))
        .collect();
    assert_eq!(
        fates,
        [
            "one@a.test delivered",
            "two@a.test refused",
            "three@c.test deferred",
            "four@c.test in-doubt",
            "five@d.test held",
            "six@e.test expired",
            "seven@e.test expired",
            "eight@f.test refused",
            "not an address invalid",
            "nine@f.test queued",
        ]
    );
    let failed = desk.run(&["report", &id, "--failed"]);
    let failed: Vec<&str> = failed.assert(0).out.lines().skip(1).collect();
    assert_eq!(failed, [&lines[2..3], &lines[4..10]].concat());
}

#[test]
fn a_report_for_people_has_a_line_for_each() {
    let desk = Desk::new();
    let id = desk.every_fate().id().to_owned();
    let said = desk.run(&["report", &id, "--format", "text"]);
    let lines: Vec<&str> = said.assert(0).out.lines().collect();
    assert_eq!(lines.len(), 10);
    assert_eq!(
        lines[1],
        "     1  refused    two@a.test  550 5.1.1 no such user (at rcpt, mx1.test)"
    );
    assert_eq!(lines[9], "     3  queued     nine@f.test");
    let failed = desk.run(&["report", &id, "--failed", "--format", "text"]);
    assert_eq!(failed.assert(0).out.lines().count(), 7);
}

#[test]
fn the_next_retry_is_when_the_server_asked_for_it_and_at_once_for_who_is_queued_again() {
    let desk = Desk::new();
    let batch = desk.file("batch.mbox", latin(BATCH));
    let job = desk.job(None, &reading(&[&batch]));
    let now = jiff::Timestamp::now().as_millisecond();
    desk.record(&job, |writer| {
        let mut later = attempt(0, Status::Deferred, 450, "try again in 40 minutes");
        later.at = now;
        writer.attempt(&later);
        let mut refused = attempt(1, Status::Refused, 550, "not now");
        refused.at = now;
        writer.attempt(&refused);
    });
    let said = desk.run(&["status", job.id()]);
    let mut lines = said.out.lines();
    let line = lines.find_map(|line| line.strip_prefix("next retry: about "));
    let at: jiff::civil::DateTime = line.unwrap().parse().unwrap();
    let at = at.to_zoned_datetime(jiff::tz::TimeZone::UTC).unwrap();
    let wait = at.timestamp().as_millisecond() - now;
    // With at most 20 % of jitter.
    assert!((2_399_000..=2_881_000).contains(&wait), "{wait}");
    let id = job.id().to_owned();
    drop(job);
    desk.run(&["retry", &id, "--refused"]).assert(0);
    desk.run(&["status", &id])
        .assert_out(&["  queued             9", "next retry: due now\n"]);
}
