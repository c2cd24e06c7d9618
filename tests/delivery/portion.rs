//! A part of a job: so many recipients, some domains, a sample to oneself. The rest waits, and nobody gets anything twice.

use crate::batch::Batch;
use crate::lab::Lab;

fn six() -> Batch {
    Batch::to_each([
        "a@one.test",
        "b@two.test",
        "c@one.test",
        "d@three.test",
        "e@two.test",
        "f@one.test",
    ])
}

#[test]
fn a_limited_run_leaves_the_rest_queued_and_the_next_one_goes_on() {
    let lab = Lab::with_rules(&[]);
    let first = lab.send(&six(), &["--limit", "2"]);
    first.assert_status(75);
    assert_eq!((first.count("delivered"), first.count("queued")), (2, 4));
    let second = lab.send(&six(), &["--only", "ONE.test", "--limit", "5"]);
    second.assert_status(75);
    let got: Vec<String> = second.delivered().into_iter().map(|(_, who)| who).collect();
    assert_eq!(
        got,
        ["a@one.test", "b@two.test", "c@one.test", "f@one.test"]
    );
    let rest = lab.send(&six(), &[]);
    rest.assert_status(0);
    assert_eq!(rest.count("delivered"), 6);
    lab.assert_agrees(&rest);
    assert_eq!(lab.sink.stats().messages, 6, "nobody got it twice");
}

#[test]
fn samples_go_to_one_address_and_touch_no_job() {
    let lab = Lab::with_rules(&[]);
    let samples = lab.send(&six(), &["--test-to", "me@mine.test"]);
    samples.assert_status(0);
    let said = "3 samples sent to me@mine.test, and nothing to anybody else";
    assert!(samples.stderr.contains(said), "{}", samples.stderr);
    assert_eq!(samples.rows.len(), 3);
    assert!(!lab.path("state/jobs").exists(), "a job was made");
    let got = lab.sink.messages();
    assert_eq!(got.len(), 3);
    assert!(
        got.iter().all(|one| one.recipients == ["me@mine.test"]),
        "{got:?}"
    );
    let all = lab.send(&six(), &[]);
    all.assert_status(0);
    assert_eq!(all.count("delivered"), 6);
}

#[test]
fn once_per_recipient_means_whatever_the_message_is() {
    let lab = Lab::with_rules(&[]);
    let once = ["--job", "invitation", "--once-per-recipient"];
    let first = lab.pipe(&Batch::to_each(["a@one.test", "b@two.test"]), &once);
    first.assert_status(0);
    // Other messages, by other numbers; Bob is in both, and Carl is there twice.
    let mut more = Batch::to_each(["x@nobody.test"; 0]);
    for who in ["b@two.test", "c@one.test", "C@one.test", "c@one.test"] {
        more.add_with(&[who], "X-Other: yes\n", b"another text\n");
    }
    let second = lab.pipe(&more, &once);
    second.assert_status(0);
    let mut got: Vec<String> = lab
        .sink
        .messages()
        .into_iter()
        .flat_map(|one| one.recipients)
        .collect();
    got.sort();
    assert_eq!(
        got,
        ["C@one.test", "a@one.test", "b@two.test", "c@one.test"]
    );
    let other = lab.pipe(&more, &["--job", "invitation"]);
    other.assert_status(64);
    let said = "job invitation was begun with --once-per-recipient";
    assert!(other.stderr.contains(said), "{}", other.stderr);
}
