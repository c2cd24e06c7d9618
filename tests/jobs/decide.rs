//! `mailer settle`, `mailer retry`, `mailer cancel`: what a person decides is in the ledger, and the card goes by it.

use mailer::job::JobState;
use mailer::mail::Status;

use crate::made::{BATCH, Desk, attempt, latin, reading};

/// The statuses that have changed, as `address status`.
fn changes(before: &[(String, String)], after: &[(String, String)]) -> Vec<String> {
    let changed = before
        .iter()
        .zip(after)
        .filter(|(before, after)| before != after);
    changed
        .map(|(_, (recipient, status))| format!("{recipient} {status}"))
        .collect()
}

#[test]
fn nobody_decides_about_a_job_that_somebody_runs() {
    let desk = Desk::new();
    let job = desk.every_fate();
    let before = desk.fates(job.id());
    for command in [
        &["cancel", job.id()][..],
        &["settle", job.id(), "--delivered"],
        &["retry", job.id(), "--refused"],
    ] {
        let said = desk.run(command);
        let (by, stop) = (
            format!(
                "job {} is in use by process {}",
                job.id(),
                std::process::id()
            ),
            format!("kill {}", std::process::id()),
        );
        said.assert(75).assert_err(&[&by, "hint: ", &stop]);
        assert_eq!(said.out, "");
    }
    assert_eq!(desk.fates(job.id()), before);
    assert_eq!(desk.card(job.id()).state, JobState::Open);
}

#[test]
fn settle_decides_about_all_in_doubt_or_one_and_about_nobody_else() {
    let desk = Desk::new();
    let id = desk.every_fate().id().to_owned();
    let before = desk.fates(&id);
    let said = desk.run(&["settle", &id, "--delivered", "--to", "<FIVE@d.test>"]);
    said.assert(0)
        .assert_out(&[&format!("job {id}: 1 recipient settled as delivered\n")]);
    let one = desk.fates(&id);
    assert_eq!(changes(&before, &one), ["five@d.test delivered"]);
    let said = desk.run(&["settle", &id, "--resend"]);
    said.assert(0)
        .assert_out(&["1 recipient queued to be sent again", "next: mailer resume"]);
    assert_eq!(changes(&one, &desk.fates(&id)), ["four@c.test queued"]);
    let card = desk.card(&id);
    assert_eq!((card.counts["delivered"], card.counts["queued"]), (2, 2));
    assert!(!card.counts.contains_key("held"), "{:?}", card.counts);
    let said = desk.run(&["settle", &id, "--delivered"]);
    said.assert(0)
        .assert_err(&["nobody's mail is in doubt or held"]);
}

#[test]
fn settle_changes_nothing_if_an_address_is_not_one_to_decide_about() {
    let desk = Desk::new();
    let id = desk.every_fate().id().to_owned();
    let before = desk.fates(&id);
    for wrong in ["one@a.test", "nobody@x.test", "six@e.test"] {
        let said = desk.run(&[
            "settle",
            &id,
            "--resend",
            "--to",
            "five@d.test",
            "--to",
            wrong,
        ]);
        said.assert(64).assert_err(&[wrong, "hint: mailer status"]);
    }
    desk.run(&["settle", &id]).assert(64);
    desk.run(&["settle", &id, "--delivered", "--resend"])
        .assert(64);
    assert_eq!(desk.fates(&id), before);
}

#[test]
fn the_last_decision_finishes_a_job_and_another_attempt_opens_it_again() {
    let desk = Desk::new();
    let batch = desk.file("batch.mbox", latin(BATCH));
    let mut job = desk.job(None, &reading(&[&batch]));
    job.update(|card| card.exit = Some(75)).unwrap();
    desk.record(&job, |writer| {
        for no in 0..9 {
            writer.attempt(&attempt(no, Status::Delivered, 250, "ok"));
        }
        writer.attempt(&attempt(9, Status::InDoubt, 0, "lost"));
    });
    let id = job.id().to_owned();
    drop(job);
    desk.run(&["settle", &id, "--delivered"]).assert(0);
    let card = desk.card(&id);
    assert_eq!((card.state, card.exit), (JobState::Finished, Some(0)));
    assert!(card.finished_ms.is_some());
    let job = desk.state.take(&id).unwrap();
    desk.record(&job, |writer| {
        writer.attempt(&attempt(3, Status::Refused, 550, "no"));
        writer.left(1, Status::Refused, &[mailer::mail::RecipientNo(3)]);
    });
    drop(job);
    desk.run(&["retry", &id, "--refused"]).assert(0);
    let card = desk.card(&id);
    assert_eq!((card.state, card.exit), (JobState::Open, Some(75)));
    assert_eq!(card.finished_ms, None);
}

#[test]
fn retry_queues_what_was_refused_or_has_expired_or_all_of_a_domain() {
    let desk = Desk::new();
    let id = desk.every_fate().id().to_owned();
    let before = desk.fates(&id);
    desk.run(&["retry", &id]).assert(64);
    desk.run(&["retry", &id, "--to", "no domain"]).assert(64);
    let said = desk.run(&["retry", &id, "--to", "nowhere.test"]);
    said.assert(0).assert_err(&["there is no such mail"]);
    assert_eq!(desk.fates(&id), before);
    let said = desk.run(&["retry", &id, "--to", "C.test"]);
    said.assert(0).assert_out(&[
        "1 recipient queued again\n",
        &format!("next: mailer resume {id}"),
    ]);
    let domain = desk.fates(&id);
    assert_eq!(changes(&before, &domain), ["three@c.test queued"]);
    desk.run(&["retry", &id, "--refused", "--to", "a.test"])
        .assert(0);
    let narrowed = desk.fates(&id);
    assert_eq!(changes(&domain, &narrowed), ["two@a.test queued"]);
    desk.run(&["retry", &id, "--refused"]).assert(0);
    assert_eq!(
        changes(&narrowed, &desk.fates(&id)),
        [
            "six@e.test queued",
            "seven@e.test queued",
            "eight@f.test queued"
        ]
    );
}

#[test]
fn a_cancelled_job_stays_cancelled_and_its_mail_can_be_written_out() {
    let desk = Desk::new();
    let id = desk.every_fate().id().to_owned();
    let before = desk.fates(&id);
    let said = desk.run(&["cancel", &id]);
    said.assert(0).assert_out(&[
        &format!("job {id} is cancelled; 3 recipients still pending"),
        &format!("mailer report {id} --failed --to-dir DIR"),
    ]);
    let card = desk.card(&id);
    assert_eq!(card.state, JobState::Cancelled);
    assert!(card.finished_ms.is_some());
    assert_eq!(card.counts["queued"], 1);
    assert_eq!(desk.fates(&id), before, "what is known stays");
    let said = desk.run(&["cancel", &id]);
    said.assert(0).assert_err(&["is cancelled already"]);
    for command in [
        &["retry", &id, "--refused"][..],
        &["settle", &id, "--resend"],
    ] {
        desk.run(command).assert(64).assert_err(&["is cancelled"]);
    }
    desk.run(&["settle", &id, "--delivered"]).assert(0);
    assert_eq!(desk.card(&id).state, JobState::Cancelled);
    let said = desk.run(&["status", &id]);
    said.assert_out(&["cancelled", "next: mailer report"]);
    assert!(!said.out.contains("resume"), "{}", said.out);
    let failed = desk.run(&["report", &id, "--failed"]);
    failed.assert_out(&["three@c.test,deferred", "nine@f.test,queued"]);
}
