//! The pipeline: order, bounds, the two lanes.

use super::*;

/// A pipeline behind its greeting.
fn open(level: Pipelining) -> Pipeline {
    let mut pipeline = Pipeline::new(level);
    assert!(!pipeline.has_room(4), "the greeting comes first");
    assert_eq!(pipeline.answered(), Some(Awaited::Greeting));
    pipeline
}

#[test]
fn replies_answer_commands_in_order() {
    let mut pipeline = open(Pipelining::Classic);
    pipeline.write(b"MAIL\r\n", Awaited::Mail);
    pipeline.write(b"RCPT\r\n", Awaited::Rcpt(0));
    pipeline.write(b"DATA\r\n", Awaited::Data);
    assert_eq!(pipeline.output().as_slice(), b"MAIL\r\nRCPT\r\nDATA\r\n");
    assert_eq!(pipeline.unanswered(), 3);
    pipeline.output().clear();
    let order: Vec<_> = std::iter::from_fn(|| pipeline.answered()).collect();
    assert_eq!(order, [Awaited::Mail, Awaited::Rcpt(0), Awaited::Data]);
    assert_eq!(pipeline.unanswered_bytes, 0);
}

#[test]
fn a_reply_cannot_answer_a_command_that_has_not_left() {
    let mut pipeline = open(Pipelining::Classic);
    pipeline.write(b"MAIL\r\n", Awaited::Mail);
    assert_eq!(pipeline.answered(), None);
    pipeline.output().clear();
    pipeline.write(b"RCPT\r\n", Awaited::Rcpt(0));
    assert_eq!(pipeline.answered(), Some(Awaited::Mail));
    assert_eq!(pipeline.answered(), None);
}

#[test]
fn nothing_follows_a_command_that_ends_its_group() {
    for awaited in [
        Awaited::Ehlo,
        Awaited::Helo,
        Awaited::Lhlo,
        Awaited::StartTls,
        Awaited::Auth,
        Awaited::Data,
        Awaited::Quit,
    ] {
        let mut pipeline = open(Pipelining::Cross);
        pipeline.write(b"X\r\n", awaited);
        assert!(!pipeline.has_room(4), "{awaited:?}");
    }
}

#[test]
fn lock_step_has_one_command_unanswered() {
    let mut pipeline = open(Pipelining::None);
    assert!(pipeline.has_room(4));
    pipeline.write(b"MAIL\r\n", Awaited::Mail);
    assert!(!pipeline.has_room(4));
    pipeline.output().clear();
    pipeline.answered();
    assert!(pipeline.has_room(4));
}

#[test]
fn unanswered_commands_are_bounded_in_number_and_bytes() {
    let mut pipeline = open(Pipelining::Classic);
    for i in 0..REPLIES_MAX {
        assert!(pipeline.has_room(4));
        pipeline.write(b"RCPT", Awaited::Rcpt(i));
    }
    assert!(!pipeline.has_room(4));
    pipeline.output().clear();
    pipeline.answered();
    assert!(pipeline.has_room(4));

    let mut pipeline = open(Pipelining::Classic);
    pipeline.write(&[b'x'; BYTES_MAX - 10], Awaited::Mail);
    assert!(pipeline.has_room(10));
    assert!(!pipeline.has_room(11));
    pipeline.output().clear();
    pipeline.answered();
    assert!(pipeline.has_room(11));
}

#[test]
fn commands_behind_the_dot_are_expected_behind_the_dot() {
    let mut pipeline = open(Pipelining::Cross);
    pipeline.open_body();
    pipeline.write(b"MAIL\r\n", Awaited::Mail);
    assert_eq!(pipeline.output_after_dot(), b"MAIL\r\n");
    assert!(pipeline.output().is_empty());
    assert_eq!(pipeline.unanswered(), 0);
    pipeline.close_body([Awaited::Dot]);
    assert_eq!(pipeline.answered(), Some(Awaited::Dot));
    assert_eq!(pipeline.answered(), Some(Awaited::Mail));
}

#[test]
fn only_the_cross_level_writes_behind_the_dot() {
    for (level, room) in [
        (Pipelining::None, false),
        (Pipelining::Classic, false),
        (Pipelining::Cross, true),
    ] {
        let mut pipeline = open(level);
        pipeline.open_body();
        assert_eq!(pipeline.has_room(4), room);
    }
}

#[test]
fn the_lane_behind_the_dot_has_the_same_bounds() {
    let mut pipeline = open(Pipelining::Cross);
    pipeline.open_body();
    for i in 0..REPLIES_MAX - 1 {
        assert!(pipeline.has_room(4));
        pipeline.write(b"RCPT", Awaited::Rcpt(i));
    }
    assert!(!pipeline.has_room(4), "the dot is one of them");
    pipeline.close_body([Awaited::Dot]);
    assert_eq!(pipeline.unanswered(), REPLIES_MAX);
}

#[test]
fn a_chunk_leaves_behind_its_commands_and_is_answered_behind_them() {
    let mut pipeline = open(Pipelining::Classic);
    pipeline.write(b"MAIL\r\n", Awaited::Mail);
    pipeline.write(b"RCPT\r\n", Awaited::Rcpt(0));
    pipeline.open_chunk(b"BDAT 3 LAST\r\n");
    assert_eq!(pipeline.body_due(), Some(Framing::Bdat));
    assert_eq!(pipeline.output(), b"MAIL\r\nRCPT\r\nBDAT 3 LAST\r\n");
    assert_eq!(pipeline.answered(), None, "nothing has left");
    assert!(!pipeline.has_room(4), "nothing goes behind a chunk");
    pipeline.output().clear();
    pipeline.close_body([Awaited::Bdat]);
    let order: Vec<_> = std::iter::from_fn(|| pipeline.answered()).collect();
    assert_eq!(order, [Awaited::Mail, Awaited::Rcpt(0), Awaited::Bdat]);
}

#[test]
fn what_is_written_is_in_no_debug_output() {
    let mut pipeline = open(Pipelining::Classic);
    pipeline.write(b"AUTH PLAIN AHUAcA==\r\n", Awaited::Auth);
    let shown = format!("{pipeline:?}");
    assert!(
        shown.contains("21 bytes") && !shown.contains("65, 85"),
        "{shown}"
    );
}
