//! A server that says anything at any time: nothing panics, nothing is lost, nothing grows.

use super::*;
use crate::smtp::auth::{Credentials, Secret};
use crate::smtp::settings::{Protocol, TlsPolicy};
use proptest::prelude::*;

/// What 250 offers, whatever it answers.
const EVERYTHING: &str =
    "250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n";

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
        2 => Just(220),
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

/// A conversation that may begin with TLS and AUTH, speak LMTP and use BDAT.
fn any_settings(level: Pipelining, (tls, auth, lmtp, bdat): (bool, bool, bool, bool)) -> Settings {
    let secret = Secret::Password("x".into());
    Settings {
        level,
        tls: if tls { TlsPolicy::May } else { TlsPolicy::None },
        auth: auth.then(|| Credentials::new("u", secret, None).unwrap()),
        auth_in_clear: true,
        protocol: if lmtp { Protocol::Lmtp } else { Protocol::Smtp },
        bdat_bytes_max: if bdat { 1000 } else { 0 },
        ..Settings::new("client.example")
    }
}

proptest! {
    #[test]
    fn every_recipient_begun_ends_once_whatever_the_server_says(
        level in prop_oneof![Just(Pipelining::None), Just(Pipelining::Classic), Just(Pipelining::Cross)],
        recipients in 1usize..5,
        flush in any::<bool>(),
        manner in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let all = ["a@b.test", "c@b.test", "d@b.test", "e@b.test"];
        let mail = mail(&all[..recipients]);
        let mut talk = Talk::with(any_settings(level, manner));
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
                Next::StartTls => {
                    talk.c.tls_started();
                    continue;
                }
                Next::SendBody(_) if flush => {
                    begun += usize::from(talk.c.begin_ahead(&mail));
                    talk.c.body_sent();
                }
                Next::SendBody(_) | Next::Await(_) => {}
            }
            if flush {
                talk.written();
            }
            prop_assert!(talk.c.unanswered() <= 100 && begun - ended <= 2);
            match events.next() {
                Some(Event::Reply(code)) => {
                    let offer = if code == 250 { EVERYTHING } else { "" };
                    hand_over(&mut talk, format!("{offer}{code} x\r\n").as_bytes());
                }
                Some(Event::Bytes(bytes)) => hand_over(&mut talk, &bytes),
                Some(Event::Lost) | None => talk.c.on_lost(Lost::TimedOut, "x"),
            }
        }
        prop_assert_eq!(begun, ended);
    }
}
