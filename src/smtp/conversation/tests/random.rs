//! A server that says anything at any time: nothing panics, nothing is lost, nothing grows.

use super::*;
use proptest::prelude::*;

/// What happens when the client waits or has sent something.
#[derive(Clone, Debug)]
enum Event {
    Reply(u16),
    Bytes(Vec<u8>),
    Lost,
}

fn event() -> impl Strategy<Value = Event> {
    let code = prop_oneof![
        6 => Just(250u16),
        3 => Just(354),
        1 => Just(550),
        1 => Just(452),
        1 => Just(421),
        2 => 200u16..600,
    ];
    prop_oneof![
        20 => code.prop_map(Event::Reply),
        1 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Event::Bytes),
        1 => Just(Event::Lost),
    ]
}

/// Hands bytes to the conversation as a driver would.
fn hand_over(talk: &mut Talk, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (used, progress) = talk.parser.feed(rest);
        rest = &rest[used..];
        match progress {
            Progress::Complete => talk.c.on_reply(talk.parser.reply()),
            Progress::Partial => {}
            Progress::Garbled(garbled) => return talk.c.on_garbled(garbled),
        }
    }
}

proptest! {
    #[test]
    fn every_recipient_begun_ends_once_whatever_the_server_says(
        level in prop_oneof![Just(Pipelining::None), Just(Pipelining::Classic), Just(Pipelining::Cross)],
        recipients in 1usize..5,
        flush in any::<bool>(),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let all = ["a@b.test", "c@b.test", "d@b.test", "e@b.test"];
        let mail = mail(&all[..recipients]);
        let mut talk = Talk::new(level);
        talk.says("220 mx\r\n");
        talk.says(EHLO);
        let (mut begun, mut ended) = (0, 0);
        let mut events = events.into_iter();
        loop {
            match talk.c.next() {
                Next::Done(end) => {
                    prop_assert_eq!(end.ends.len(), recipients);
                    ended += 1;
                    continue;
                }
                Next::Closed(_) => break,
                Next::Ready => {
                    talk.c.begin(&mail);
                    begun += 1;
                }
                Next::SendBody if flush => {
                    begun += usize::from(talk.c.begin_ahead(&mail));
                    talk.c.body_sent();
                }
                Next::SendBody | Next::Await(_) => {}
            }
            if flush {
                talk.written();
            }
            prop_assert!(talk.c.unanswered() <= 100 && begun - ended <= 2);
            match events.next() {
                Some(Event::Reply(code)) => hand_over(&mut talk, format!("{code} x\r\n").as_bytes()),
                Some(Event::Bytes(bytes)) => hand_over(&mut talk, &bytes),
                Some(Event::Lost) | None => talk.c.on_lost(Lost::TimedOut, "x"),
            }
        }
        prop_assert_eq!(begun, ended);
    }
}
