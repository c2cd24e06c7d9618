//! A job with a name: its batch comes again and again, and only mail that is new arrives.

use super::job::{facts, message, read_some};
use super::*;

/// One run of the job: what arrived, message by message, and how many recipients were known.
fn run(job: &Path, text: &str) -> (Vec<Vec<String>>, u64) {
    run_with(job, stream(vec![text.into()]).0, options(), usize::MAX)
}

fn run_with(
    job: &Path,
    inputs: Vec<Input>,
    options: ReadOptions,
    messages: usize,
) -> (Vec<Vec<String>>, u64) {
    let store = if job.join("index").exists() {
        BatchStore::reopen(options, job)
    } else {
        Ok(BatchStore::create_in(options, job).unwrap())
    };
    let store = Arc::new(store.unwrap());
    let known = facts(&store);
    let mut reader = BatchReader::open_named(inputs, store.clone()).unwrap();
    let mut arrived = Vec::new();
    while arrived.len() < messages
        && let Some(arrival) = reader.next_arrival().unwrap()
    {
        assert_eq!(arrival.message.index(), known.len() + arrived.len());
        let texts = arrival
            .recipients
            .iter()
            .map(|one| match &one.outcome {
                Ok(mailbox) => mailbox.to_string(),
                Err(_) => format!("!{}", store.recipient_text(one.no)),
            })
            .collect();
        arrived.push(texts);
        store.flush().unwrap();
    }
    let all = facts(&store);
    assert_eq!(all[..known.len()], known);
    assert_eq!(
        facts(&BatchStore::reopen(store.options().clone(), job).unwrap()),
        all
    );
    (arrived, reader.repeated())
}

fn mail(to: &str, id: &str, body: &str) -> String {
    format!("{FROM}From: s@x.test\nX-Envelope-To: {to}\n{id}\n{body}\n\n")
}

const NOTHING: Vec<Vec<String>> = vec![];

#[test]
fn the_same_stream_adds_nothing() {
    let job = tempfile::tempdir().unwrap();
    let text = format!(
        "{}{}{FROM}To: bad\n\n\0\n\n{FROM}From: s@x.test\n\nto nobody\n\n",
        message(1),
        message(2)
    );
    let (arrived, repeated) = run(job.path(), &text);
    assert_eq!(
        arrived,
        [
            vec!["r1@x.test", "!not an address", "a1@y.test"],
            vec!["r2@x.test", "!not an address", "a2@y.test"],
            vec!["!bad"],
            vec!["!"]
        ]
    );
    assert_eq!(repeated, 0);
    for _ in 0..2 {
        assert_eq!(run(job.path(), &text), (NOTHING, 8));
    }
}

#[test]
fn new_people_and_new_messages_are_added() {
    let job = tempfile::tempdir().unwrap();
    let id = "Message-ID: <1>\n";
    run(job.path(), &mail("a@x.test", id, "hi"));
    let more =
        mail("a@X.test, b@x.test", id, "hi, all") + &mail("a@x.test", "Message-ID:\n  <2>\n", "hi");
    let (arrived, repeated) = run(job.path(), &more);
    assert_eq!(arrived, [["b@x.test"], ["a@x.test"]]);
    assert_eq!(repeated, 1);
    let again = more + &mail("A@x.test", id, "hi");
    let (arrived, repeated) = run(job.path(), &again);
    assert_eq!(arrived, [["A@x.test"]], "local parts are what they are");
    assert_eq!(repeated, 3);
}

#[test]
fn without_a_message_id_the_content_counts() {
    let job = tempfile::tempdir().unwrap();
    run(job.path(), &mail("a@x.test", "", "hi"));
    // Another From_ line, another date for messages without one, and one more recipient: the same mail.
    let other = mail("a@x.test, b@x.test", "", "hi").replace("Jan  1", "Jan  2");
    let later = ReadOptions::new("Tue, 02 Jan 2024 00:00:00 +0000".to_owned());
    let inputs = stream(vec![other.clone().into_bytes()]).0;
    let (arrived, repeated) = run_with(job.path(), inputs, later, usize::MAX);
    assert_eq!((arrived, repeated), (vec![vec!["b@x.test".to_owned()]], 1));
    let (arrived, _) = run(job.path(), &other.replace("hi", "hello"));
    assert_eq!(arrived, [["a@x.test", "b@x.test"]]);
    let empty =
        mail("a@x.test", "Message-ID:\n", "one") + &mail("a@x.test", "Message-ID:\n", "two");
    assert_eq!(run(job.path(), &empty).0, [["a@x.test"], ["a@x.test"]]);
}

#[test]
fn a_person_may_get_several_messages_and_each_once() {
    let job = tempfile::tempdir().unwrap();
    let (one, two) = ("Message-ID: <1>\n", "Message-ID: <2>\n");
    let text =
        mail("a@x.test", one, "hi") + &mail("a@x.test", two, "hi") + &mail("a@x.test", one, "hi");
    let (arrived, repeated) = run(job.path(), &text);
    assert_eq!(arrived, [["a@x.test"], ["a@x.test"]]);
    assert_eq!(repeated, 1);
}

#[test]
fn what_was_put_right_is_new() {
    let job = tempfile::tempdir().unwrap();
    let bad = mail("a@x.test, b@", "Message-ID: <1>\n", "hi\0");
    assert_eq!(run(job.path(), &bad).0, [["!a@x.test", "!b@"]]);
    let good = bad.replace('\0', "").replace("b@", "b@x.test");
    assert_eq!(run(job.path(), &good).0, [["a@x.test", "b@x.test"]]);
    assert_eq!(run(job.path(), &good), (NOTHING, 2));
}

#[test]
fn a_stream_that_was_cut_short_brings_its_rest() {
    let text: String = (0..5).map(message).collect();
    for known in 0..5 {
        let job = tempfile::tempdir().unwrap();
        let inputs = stream(vec![text.clone().into_bytes()]).0;
        let (arrived, _) = run_with(job.path(), inputs, options(), known);
        assert_eq!(arrived.len(), known);
        let (arrived, repeated) = run(job.path(), &text);
        assert_eq!((arrived.len(), repeated as usize), (5 - known, 3 * known));
        let store = Arc::new(BatchStore::reopen(options(), job.path()).unwrap());
        assert!(store.is_read_to_end());
        let mut reader = BatchReader::open(vec![], store.clone()).unwrap();
        assert!(read_some(&mut reader, &store, 9).is_empty());
    }
}

#[test]
fn a_list_may_grow() {
    let job = tempfile::tempdir().unwrap();
    let (dir, list) = file("list", "a@x.test\nbad\nb@x.test\n");
    let many = ReadOptions {
        to_file: Some(list.clone()),
        ..options()
    };
    let eml = || {
        stream(vec![
            b"From: s@x.test\nTo: l@x.test\nMessage-ID: <1>\n\nhi\n".to_vec(),
        ])
        .0
    };
    let run = || run_with(job.path(), eml(), many.clone(), usize::MAX);
    assert_eq!(run().0, [["a@x.test", "!bad", "b@x.test"]]);
    assert_eq!(run(), (NOTHING, 3));
    fs::write(&list, "c@x.test\nb@X.test\nbad\nd@x.test\n").unwrap();
    assert_eq!(run().0, [["c@x.test", "d@x.test"]]);
    assert_eq!(run(), (NOTHING, 4));
    drop(dir);
}
