//! The same batch or stream once more: nothing is sent twice unless somebody says so.

use crate::batch::{Batch, FROM_LINE, message};
use crate::lab::{Lab, SOON, keeping};
use crate::retries::NO_RETRY;

fn two() -> Batch {
    Batch::to_each(["a@a.test", "b@b.test"])
}

/// What the receiver has taken since the start.
#[track_caller]
fn assert_taken(lab: &Lab, messages: u64) {
    assert_eq!(lab.sink.stats().messages, messages);
}

#[test]
fn a_batch_that_was_sent_is_not_sent_again_within_the_guard() {
    let lab = Lab::with_rules(&[]);
    lab.send(&two(), &[]).assert_status(0);
    let again = lab.send_again(&[]);
    again.assert_status(0);
    assert!(
        again.stderr.contains("nothing was sent"),
        "{}",
        again.stderr
    );
    assert_taken(&lab, 2);
    lab.send_again(&["--guard", "0s"]).assert_status(0);
    assert_taken(&lab, 4);
    lab.send_again(&["--again"]).assert_status(0);
    assert_taken(&lab, 6);
}

#[test]
fn a_batch_with_another_name_is_the_same_and_one_with_a_byte_more_is_not() {
    let lab = Lab::with_rules(&[]);
    lab.send(&two(), &[]).assert_status(0);
    let copy = lab.file("copy.mbox", two().bytes());
    lab.start_with(&[], &[&copy]).wait().assert_status(0);
    assert_taken(&lab, 2);
    let longer = lab.file("copy.mbox", [two().bytes(), b"x\n"].concat());
    lab.start_with(&[], &[&longer]).wait().assert_status(0);
    assert_taken(&lab, 4);
}

#[test]
fn a_batch_whose_mail_was_refused_ends_the_second_time_as_the_first() {
    let lab = Lab::with_rules(&["domain=b.test stage=rcpt reply=\"550 5.1.1 unknown\""]);
    lab.send(&two(), &[]).assert_status(1);
    lab.send_again(&[]).assert_status(1);
    assert_taken(&lab, 1);
}

#[test]
fn maildirs_and_single_messages_go_on_where_they_were() {
    let lab = Lab::with_rules(&["domain=late.test stage=rcpt reply=\"450 4.7.1 later\" first=2"]);
    for sub in ["m", "m/new", "m/cur", "m/tmp"] {
        std::fs::create_dir(lab.path(sub)).unwrap();
    }
    let text = |n: usize, domain: &str| message(n, &[&format!("u@{domain}")], "") + "x\n";
    lab.file("m/new/1.a", text(1, "a.test"));
    lab.file("m/new/2.b", text(2, "late.test"));
    let single = lab.file("b.eml", text(3, "late.test"));
    let inputs = [lab.path("m"), single];
    let inputs = [inputs[0].as_path(), inputs[1].as_path()];
    lab.start_with(&NO_RETRY, &inputs).wait().assert_status(75);
    let second = lab.start_with(&SOON, &inputs).wait();
    lab.assert_all_delivered(&second, 3);
}

#[test]
fn a_list_of_recipients_goes_on_where_it_was() {
    let lab = Lab::with_rules(&["domain=c.test stage=rcpt reply=\"450 4.7.1 later\" first=1"]);
    let list = lab.file("members.txt", "u@a.test\nu@b.test\nu@c.test\n");
    let letter = message(1, &[], "") + "hello\n";
    let letter = lab.file("letter.eml", letter);
    let list = ["--to-file", list.to_str().unwrap()];
    let send = |flags: &[&str]| {
        lab.start_with(&[&list[..], flags].concat(), &[&letter])
            .wait()
    };
    send(&NO_RETRY).assert_status(75);
    let second = send(&SOON);
    second.assert_status(0);
    assert_eq!(second.count("delivered"), 3);
    assert_eq!(lab.received(), second.delivered());
    send(&SOON).assert_status(0);
    assert_eq!(lab.received().len(), 3);
}

#[test]
fn a_stream_without_a_name_is_new_each_time() {
    let lab = Lab::with_rules(&[]);
    lab.pipe(&two(), &[]).assert_status(0);
    lab.pipe(&two(), &[]).assert_status(0);
    assert_taken(&lab, 4);
}

#[test]
fn a_named_stream_is_sent_to_those_who_are_not_in_it_yet() {
    let lab = Lab::with_rules(&[]);
    let named = ["--job", "news"];
    lab.assert_all_delivered(&lab.pipe(&two(), &named), 2);
    lab.pipe(&two(), &named).assert_status(0);
    assert_taken(&lab, 2);
    let mut more = two();
    more.add(&["c@c.test"]);
    let third = lab.pipe(&more, &named);
    lab.assert_all_delivered(&third, 3);
    assert_eq!(lab.jobs().len(), 1);
    // Message 3 of the stream is message 3 of the job, since the first two are known.
    assert_eq!(third.row("c@c.test").message, 3);
    lab.pipe(&two(), &["--job", "news", "--again"])
        .assert_status(0);
    assert_taken(&lab, 5);
}

#[test]
fn a_person_who_is_in_a_named_stream_twice_gets_each_message_once() {
    let lab = Lab::with_rules(&[]);
    let mut text = Vec::new();
    for (number, who) in [
        (1, "a@a.test"),
        (1, "a@a.test"),
        (2, "a@a.test"),
        (1, "b@a.test"),
    ] {
        text.extend_from_slice(FROM_LINE.as_bytes());
        text.extend_from_slice(message(number, &[who], "").as_bytes());
        text.extend_from_slice(b"x\n\n");
    }
    let mut program = lab.start_with(&["-", "--job", "news"], &[]);
    program.write(&text);
    program.wait().assert_status(0);
    let expected = [(1, "a@a.test"), (1, "b@a.test"), (2, "a@a.test")];
    assert_eq!(lab.received(), expected.map(|(n, who)| (n, who.to_owned())));
}

#[test]
fn in_a_named_stream_a_message_without_a_number_is_known_by_its_content() {
    let lab = Lab::new("SYNTHETIC", keeping(&[]));
    let text = |body: &str| {
        let header = message(1, &["a@a.test"], "").replace("Message-ID", "X-Number");
        format!("{FROM_LINE}{header}{body}\n\n")
    };
    let send = |stream: &str| {
        let mut program = lab.start_with(&["-", "--job", "news"], &[]);
        program.write(stream);
        program.wait().assert_status(0);
    };
    send(&text("one"));
    assert_taken(&lab, 1);
    send(&(text("one") + &text("two")));
    assert_taken(&lab, 2);
}

#[test]
fn a_named_stream_that_was_stopped_goes_on_with_what_is_piped_again() {
    let lab = Lab::with_rules(&["domain=a.test stage=dot delay=1s first=1"]);
    let named = ["--job", "news", "--max-workers", "1"];
    let mut program = lab.start_with(&[&["-"], &named[..]].concat(), &[]);
    let batch = Batch::to_domain("a.test", 5);
    program.write(batch.bytes());
    lab.wait_until(|stats| stats.messages == 1);
    program.terminate();
    program.wait().assert_status(75);
    let second = lab.pipe(&batch, &named);
    lab.assert_all_delivered(&second, 5);
}

#[test]
fn new_people_of_a_job_that_was_finished_long_ago_are_not_expired() {
    let lab = Lab::with_rules(&["domain=c.test stage=rcpt reply=\"450 4.7.1 later\" first=1"]);
    let named = ["--job", "news"];
    lab.pipe(&two(), &named).assert_status(0);
    let card = lab.jobs()[0].join("job.json");
    let text = std::fs::read_to_string(&card).unwrap();
    let mut aged: serde_json::Value = serde_json::from_str(&text).unwrap();
    let created = aged["created_ms"].as_i64().unwrap();
    aged["created_ms"] = (created - 10 * 86_400_000).into();
    std::fs::write(&card, aged.to_string()).unwrap();
    let mut more = two();
    more.add(&["c@c.test"]);
    let second = lab.pipe(&more, &[&named[..], &SOON].concat());
    lab.assert_all_delivered(&second, 3);
    assert_eq!(second.row("c@c.test").attempts, "2");
}

#[test]
fn what_an_earlier_stream_left_is_sent_with_what_the_next_one_brings() {
    let lab = Lab::with_rules(&["domain=a.test stage=rcpt reply=\"450 4.7.1 later\" first=1"]);
    let named = ["--job", "news"];
    lab.pipe(&two(), &[&named[..], &NO_RETRY].concat())
        .assert_status(75);
    let mut text = Vec::from(FROM_LINE);
    text.extend_from_slice(message(3, &["c@c.test"], "").as_bytes());
    let mut program = lab.start_with(&[&["-"], &named[..], &SOON].concat(), &[]);
    program.write(&text);
    let second = program.wait();
    second.assert_status(0);
    assert_eq!((second.count("delivered"), lab.received().len()), (3, 3));
    lab.assert_clean();
}

#[test]
fn two_runs_of_one_batch_at_a_time_are_one_too_many() {
    let lab = Lab::with_rules(&["stage=dot delay=2s first=1"]);
    let program = lab.start(&two(), &[]);
    lab.wait_until(|stats| stats.messages >= 1);
    let second = lab.beside(&[]);
    assert_eq!(second.status, Some(75), "{}", second.stderr);
    assert!(
        second.stderr.contains(&program.id().to_string()),
        "{}",
        second.stderr
    );
    program.wait().assert_status(0);
    assert_taken(&lab, 2);
}
