//! Frames: what is written is read back, and damage costs the frames that it is in and nothing else.

use super::*;
use crate::ledger::frames::{Frames, read_frame};
use crate::ledger::record::{self, PAYLOAD_MAX, Record};

/// A journal with a frame of each kind, and where its frames begin.
fn journal() -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut starts = Vec::new();
    let queues = ["general".to_owned(), "big".to_owned()];
    let some = [
        RecipientNo(3),
        RecipientNo(0xfffe),
        RecipientNo(0xfeff_fffe),
    ];
    let mut put = |fill: &dyn Fn(&mut Vec<u8>)| {
        starts.push(bytes.len());
        fill(&mut bytes);
    };
    put(&|out| record::put_run(out, 7, 1_700_000_000_000, &queues));
    put(&|out| record::put_intent(out, 5, &via(2), some.iter().copied()));
    put(&|out| record::put_attempt(out, &attempt(3, Status::Delivered, 6)));
    put(&|out| record::put_left(out, 8, Status::Held, &some));
    put(&|out| record::put_attempt(out, &attempt(4, Status::InDoubt, -1)));
    put(&|out| record::put_name(out, QueueId(9), "a.test"));
    starts.push(bytes.len());
    (bytes, starts)
}

fn found(bytes: &[u8]) -> (Vec<Record<'_>>, u64) {
    let mut frames = Frames::new(bytes);
    let records = frames.by_ref().map(|(_, record)| record).collect();
    (records, frames.skipped())
}

#[test]
fn every_kind_reads_back_as_it_was_written() {
    let (bytes, _) = journal();
    let (records, skipped) = found(&bytes);
    assert_eq!((records.len(), skipped), (6, 0));
    assert!(
        matches!(&records[0], Record::Run { number: 7, started_at: 1_700_000_000_000, queues } if queues == &["general", "big"])
    );
    let Record::Intent {
        at,
        via: way,
        recipients,
    } = &records[1]
    else {
        panic!("{records:?}")
    };
    let numbers: Vec<u32> = recipients.iter().map(|recipient| recipient.0).collect();
    assert_eq!((*at, numbers), (5, vec![3, 0xfffe, 0xfeff_fffe]));
    assert_eq!(way.to_via(QueueId(0)), via(2));
    let (queue, name) = (QueueId(9), "a.test");
    assert_eq!(records[5], Record::Name { queue, name });
    assert!(matches!(
        &records[3],
        Record::Left {
            at: 8,
            status: Status::Held,
            ..
        }
    ));
}

#[test]
fn attempts_of_all_shapes_read_back_as_they_were_written() {
    let text = "ü".repeat(Verdict::TEXT_MAX / 2);
    for status in Status::ALL {
        for (ip, enhanced) in [(None, None), (Some("::1"), Some(Enhanced::new(0, 0, 0)))] {
            let mut attempt = attempt(9, status, i64::MIN);
            attempt.verdict.enhanced = enhanced;
            attempt.verdict.text.clone_from(&text);
            attempt.via.ip = ip.map(|ip| ip.parse().unwrap());
            attempt.via.queue = QueueId(515);
            attempt.passage.host_failures = 255;
            attempt.took_ms = u32::MAX;
            let mut bytes = Vec::new();
            record::put_attempt(&mut bytes, &attempt);
            let Some((Record::Attempt(read), length)) = read_frame(&bytes) else {
                panic!("{attempt:?}")
            };
            assert_eq!(length, bytes.len());
            assert_eq!(read.to_attempt(read.via.queue), attempt);
        }
    }
}

#[test]
fn scopes_and_stages_have_their_places_by_name() {
    for scope in record::SCOPES {
        assert_eq!(record::scope_named(scope.name()), Some(scope));
    }
    for stage in record::STAGES {
        assert_eq!(record::stage_named(stage.name()), Some(stage));
    }
}

#[test]
fn very_many_recipients_take_several_frames_and_no_frame_is_too_long() {
    let all: Vec<RecipientNo> = (0..40_000).map(RecipientNo).collect();
    let mut bytes = Vec::new();
    record::put_intent(&mut bytes, 1, &via(0), all.iter().copied());
    record::put_left(&mut bytes, 1, Status::Expired, &all);
    let mut back = [Vec::new(), Vec::new()];
    let mut last = 0;
    for (at, record) in Frames::new(&bytes) {
        assert!(at - last <= PAYLOAD_MAX);
        last = at;
        match record {
            Record::Intent { recipients, .. } => back[0].extend(recipients.iter()),
            Record::Left { recipients, .. } => back[1].extend(recipients.iter()),
            other => panic!("{other:?}"),
        }
    }
    assert!(back == [all.clone(), all]);
    let mut nobody = Vec::new();
    record::put_intent(&mut nobody, 1, &via(0), std::iter::empty());
    assert!(nobody.is_empty());
}

#[test]
fn of_every_prefix_exactly_the_whole_frames_are_read() {
    let (bytes, starts) = journal();
    let (records, _) = found(&bytes);
    for end in 0..=bytes.len() {
        let whole = starts.iter().filter(|start| **start <= end).count() - 1;
        let (read, skipped) = found(&bytes[..end]);
        assert_eq!(read, records[..whole], "cut at {end}");
        assert_eq!(skipped, (end - starts[whole]) as u64, "cut at {end}");
    }
}

#[test]
fn of_every_suffix_exactly_the_whole_frames_are_read() {
    let (bytes, starts) = journal();
    let (records, _) = found(&bytes);
    for begin in 0..=bytes.len() {
        let lost = starts.iter().filter(|start| **start < begin).count();
        let (read, _) = found(&bytes[begin..]);
        assert_eq!(read, records[lost.min(records.len())..], "from {begin}");
    }
}

#[test]
fn a_damaged_byte_costs_its_frame_and_no_other() {
    let (bytes, starts) = journal();
    let (records, _) = found(&bytes);
    for at in 0..bytes.len() {
        let hurt = starts.iter().filter(|start| **start <= at).count() - 1;
        let mut want = records.clone();
        want.remove(hurt);
        for flip in [0x01, 0x02, 0x10, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            assert_eq!(found(&bytes).0, want, "byte {at} ^ {flip:#x}");
        }
    }
}

/// Half of the bytes could be of the head of a frame.
fn odd(rng: &mut fastrand::Rng) -> u8 {
    let any = rng.u8(..);
    rng.choice([0xff, 0xfe, 1, 2, any, any, any]).unwrap_or(any)
}

#[test]
fn garbage_between_frames_is_passed_over() {
    let (bytes, starts) = journal();
    let (records, _) = found(&bytes);
    let mut rng = fastrand::Rng::with_seed(4);
    for _ in 0..300 {
        let mut mixed = Vec::new();
        let mut garbage = 0;
        for range in starts.windows(2) {
            let count = rng.usize(..40);
            garbage += count;
            mixed.extend((0..count).map(|_| odd(&mut rng)));
            mixed.extend_from_slice(&bytes[range[0]..range[1]]);
        }
        assert_eq!(found(&mixed), (records.clone(), garbage as u64));
    }
}

#[test]
fn random_bytes_are_no_records() {
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..rng.usize(..200)).map(|_| odd(&mut rng)).collect();
        let (records, skipped) = found(&bytes);
        assert_eq!((records.len(), skipped), (0, bytes.len() as u64));
    }
}
