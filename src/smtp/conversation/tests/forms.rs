//! Other forms of a transaction: LMTP, content by BDAT, notifications, limits of domains.

use super::*;
use crate::smtp::dsn::{Dsn, Notify, Ret};
use crate::smtp::reply::Garbled;
use crate::smtp::settings::Protocol;

const CHUNKING: &str = "250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n";

fn lmtp(level: Pipelining) -> Talk {
    let mut talk = Talk::with(Settings {
        protocol: Protocol::Lmtp,
        level,
        ..Settings::new("client.example")
    });
    talk.says("220 mx\r\n");
    assert_eq!(talk.written(), "LHLO client.example\r\n");
    talk.says(EHLO);
    talk
}

/// Three recipients named, the second refused, and the content sent.
fn lmtp_sent() -> Talk {
    let mut talk = lmtp(Pipelining::Classic);
    talk.begin(&["a@b.test", "c@b.test", "d@b.test"]);
    talk.written();
    talk.says("250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n");
    talk.c.body_sent();
    assert_eq!(talk.c.unanswered(), 2);
    talk
}

fn chunking(bytes_max: u64) -> Talk {
    let mut talk = Talk::with(Settings {
        bdat_bytes_max: bytes_max,
        level: Pipelining::Classic,
        ..Settings::new("client.example")
    });
    talk.says("220 mx\r\n");
    talk.says(CHUNKING);
    talk.written();
    talk
}

/// Two recipients, and the content behind them.
fn chunk_sent() -> Talk {
    let mut talk = chunking(10);
    talk.begin(&["a@b.test", "c@b.test"]);
    assert!(matches!(talk.c.next(), Next::SendBody(Framing::Bdat)));
    assert_eq!(
        talk.written(),
        "MAIL FROM:<s@a.test>\r\nRCPT TO:<a@b.test>\r\nRCPT TO:<c@b.test>\r\nBDAT 10 LAST\r\n"
    );
    talk.c.body_sent();
    talk
}

#[test]
fn lmtp_answers_the_dot_once_for_each_recipient_accepted() {
    let mut talk = lmtp_sent();
    talk.says("250 stored\r\n452 4.2.2 full\r\n");
    assert_eq!(
        talk.done(),
        [
            "delivered recipient dot 250",
            "refused recipient rcpt 550",
            "deferred recipient dot 452"
        ]
    );
    assert_eq!(talk.c.messages_accepted(), 1);
    assert!(matches!(talk.c.next(), Next::Ready));
    talk.begin(&["a@b.test"]);
    assert!(talk.written().starts_with("MAIL"));
}

#[test]
fn those_whom_lmtp_did_not_answer_are_in_doubt() {
    let mut talk = lmtp_sent();
    talk.says("250 stored\r\n");
    talk.c.on_lost(Lost::Eof, "");
    assert_eq!(talk.done()[0], "delivered recipient dot 250");

    let mut talk = lmtp_sent();
    talk.says("421 bye\r\n");
    assert_eq!(
        talk.done(),
        [
            "deferred host dot 421",
            "refused recipient rcpt 550",
            "in-doubt message dot 421"
        ]
    );
    let mut talk = lmtp_sent();
    talk.c.on_lost(Lost::Reset, "");
    assert_eq!(talk.done()[2], "in-doubt message dot 0");
}

#[test]
fn lmtp_has_no_helo_and_never_goes_across_messages() {
    let talk = lmtp(Pipelining::Cross);
    assert_eq!(talk.c.level(), Pipelining::Classic);
    let mut talk = lmtp(Pipelining::Classic);
    talk.c.set_level(Pipelining::Cross);
    assert_eq!(talk.c.level(), Pipelining::Classic);

    let mut talk = Talk::with(Settings {
        protocol: Protocol::Lmtp,
        ..Settings::new("client.example")
    });
    talk.says("220 mx\r\n500 this is SMTP\r\n");
    assert_eq!(talk.closed().unwrap().scope, Scope::Host);
}

#[test]
fn lmtp_sends_no_dot_for_nobody() {
    let mut talk = lmtp(Pipelining::Classic);
    talk.begin(&["a@b.test"]);
    talk.written();
    talk.says("250 ok\r\n550 no\r\n354 go\r\n");
    assert_eq!(talk.done(), ["refused recipient rcpt 550"]);
    assert!(talk.closed().is_some());
}

#[test]
fn a_chunk_takes_one_flight() {
    let mut talk = chunk_sent();
    assert!(matches!(talk.c.next(), Next::Await(Stage::Mail)));
    talk.says("250 ok\r\n550 no\r\n250 ok\r\n250 queued\r\n");
    assert_eq!(
        talk.done(),
        ["refused recipient rcpt 550", "delivered recipient dot 250"]
    );
    assert_eq!(talk.c.messages_accepted(), 1);
    talk.begin(&["a@b.test"]);
    assert!(
        talk.written().starts_with("MAIL"),
        "a chunk that was taken needs no RSET"
    );
}

#[test]
fn a_chunk_for_nobody_is_an_echo_and_a_reset_is_due() {
    for reply in ["503 no recipients\r\n", "554 no recipients\r\n"] {
        let mut talk = chunk_sent();
        talk.says("250 ok\r\n550 no\r\n450 later\r\n");
        talk.says(reply);
        assert_eq!(
            talk.done(),
            ["refused recipient rcpt 550", "deferred recipient rcpt 450"]
        );
        talk.begin(&["a@b.test"]);
        // Behind a RSET that may be refused no content leaves unasked.
        let written = talk.written();
        assert!(written.starts_with("RSET\r\n") && written.ends_with("DATA\r\n"));
    }
}

#[test]
fn a_refused_mail_is_the_verdict_of_a_chunk_too() {
    let mut talk = chunk_sent();
    talk.says("451 later\r\n503 what\r\n503 what\r\n503 what\r\n");
    assert_eq!(talk.done(), ["deferred message mail 451"; 2]);
    assert!(!talk.c.is_chunking_suspect());
}

#[test]
fn content_that_a_server_takes_in_spite_of_a_refused_mail_is_delivered() {
    let mut talk = chunk_sent();
    talk.says("550 no\r\n250 ok\r\n503 what\r\n250 queued\r\n");
    assert_eq!(
        talk.done(),
        ["delivered recipient dot 250", "refused message mail 550"]
    );
}

#[test]
fn a_chunk_that_is_refused_is_the_verdict_of_those_accepted() {
    let mut talk = chunk_sent();
    talk.says("250 ok\r\n250 ok\r\n250 ok\r\n552 5.3.4 too big\r\n");
    assert_eq!(talk.done(), ["refused message dot 552"; 2]);
    assert!(matches!(talk.c.next(), Next::Ready));
}

#[test]
fn a_server_that_does_not_know_bdat_after_all_is_left_and_remembered() {
    for code in [500, 502, 503] {
        let mut talk = chunk_sent();
        talk.says("250 ok\r\n250 ok\r\n250 ok\r\n");
        talk.says(&format!("{code} what\r\n"));
        assert_eq!(talk.done(), vec![format!("deferred message dot {code}"); 2]);
        assert!(talk.closed().is_some() && talk.c.is_chunking_suspect());
    }
}

#[test]
fn from_its_last_byte_on_a_chunk_is_in_doubt() {
    let losses: [fn(&mut Talk); 3] = [
        |talk| talk.c.on_lost(Lost::Eof, ""),
        |talk| talk.c.on_garbled(Garbled::NoCode),
        |talk| talk.says("354 what\r\n"),
    ];
    for lose in losses {
        let mut talk = chunk_sent();
        lose(&mut talk);
        assert!(
            talk.done()
                .iter()
                .all(|end| end.starts_with("in-doubt message"))
        );

        let mut talk = chunk_sent();
        talk.says("250 ok\r\n550 no\r\n");
        lose(&mut talk);
        let done = talk.done();
        assert_eq!(done[0], "refused recipient rcpt 550");
        assert!(done[1].starts_with("in-doubt message"));
    }
    let mut talk = chunk_sent();
    talk.says("421 bye\r\n");
    assert_eq!(talk.done(), ["deferred host mail 421"; 2]);

    // A server that refuses and hangs up has refused.
    let mut talk = chunk_sent();
    talk.says("550 you are blocked\r\n");
    talk.c.on_lost(Lost::Eof, "");
    assert_eq!(talk.done(), ["refused message mail 550"; 2]);
}

#[test]
fn before_its_last_byte_a_chunk_is_deferred() {
    let mut talk = chunking(10);
    talk.begin(&["a@b.test"]);
    talk.says("451 too busy\r\n");
    assert!(matches!(talk.c.next(), Next::SendBody(Framing::Bdat)));
    talk.c.on_lost(Lost::Reset, "");
    assert_eq!(talk.done(), ["deferred message mail 451"]);

    let mut talk = chunking(10);
    talk.begin(&["a@b.test"]);
    talk.written();
    talk.c.on_lost(Lost::Reset, "");
    assert_eq!(talk.done(), ["deferred host body 0"]);
}

#[test]
fn a_reply_before_anything_has_left_answers_no_chunk() {
    let mut talk = chunking(10);
    talk.begin(&["a@b.test"]);
    let (_, progress) = talk.parser.feed(b"250 what\r\n");
    assert_eq!(progress, Progress::Complete);
    talk.c.on_reply(talk.parser.reply());
    assert_eq!(talk.done(), ["deferred host body 0"]);
    assert!(talk.closed().unwrap().text.contains("protocol error"));
}

#[test]
fn chunks_are_for_small_content_offered_and_wished_for() {
    for (bytes_max, ehlo) in [(0, CHUNKING), (9, CHUNKING), (10, EHLO)] {
        let mut talk = Talk::with(Settings {
            bdat_bytes_max: bytes_max,
            level: Pipelining::Classic,
            ..Settings::new("client.example")
        });
        talk.says("220 mx\r\n");
        talk.says(ehlo);
        talk.begin(&["a@b.test"]);
        assert!(talk.written().ends_with("DATA\r\n"));
    }
    // More commands than one flight holds.
    let recipients: Vec<String> = (0..100).map(|i| format!("u{i}@b.test")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let mut talk = chunking(10);
    talk.begin(&recipients);
    let first = talk.written();
    for _ in first.lines() {
        talk.says("250 ok\r\n");
    }
    let all = first + &talk.written();
    assert!(all.ends_with("DATA\r\n") && !all.contains("BDAT"));
}

#[test]
fn nothing_is_given_ahead_behind_a_chunk() {
    let mut talk = chunking(10);
    talk.c.set_level(Pipelining::Cross);
    talk.begin(&["a@b.test"]);
    assert!(!talk.c.begin_ahead(&mail(&["c@b.test"])));
}

#[test]
fn notifications_are_asked_for_where_they_are_offered() {
    let dsn = Dsn {
        ret: Some(Ret::Hdrs),
        envid: Some("job=1".into()),
        notify: Some(Notify::Never),
        orcpt: true,
    };
    let wish = Mail {
        dsn: Some(&dsn),
        ..mail(&["a@b.test"])
    };
    let mut talk = Talk::open(
        Pipelining::Classic,
        "250-mx\r\n250-PIPELINING\r\n250 DSN\r\n",
    );
    talk.c.begin(&wish);
    assert_eq!(
        talk.written(),
        "MAIL FROM:<s@a.test> RET=HDRS ENVID=job+3D1\r\nRCPT TO:<a@b.test> NOTIFY=NEVER ORCPT=rfc822;a@b.test\r\nDATA\r\n"
    );
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.c.begin(&wish);
    let written = talk.written();
    assert!(!written.contains("NOTIFY") && !written.contains("RET"));
}

#[test]
fn recipients_of_a_domain_too_many_are_for_another_session() {
    let ehlo = "250-mx\r\n250-PIPELINING\r\n250 LIMITS RCPTDOMAINMAX=1\r\n";
    let mut talk = Talk::open(Pipelining::Classic, ehlo);
    talk.begin(&["a@b.test", "c@d.test", "e@B.test"]);
    assert!(!talk.written().contains("d.test"));
    talk.says("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    talk.c.body_sent();
    talk.says("250 ok\r\n");
    let Next::Done(end) = talk.c.next() else {
        panic!("done");
    };
    assert_eq!(end.ends[1], RecipientEnd::Again);
    assert!(!end.reusable && !talk.c.may_reuse());
}

#[test]
fn silence_behind_commands_given_ahead_is_suspicious() {
    let mut talk = Talk::open(Pipelining::Cross, EHLO);
    talk.begin(&["a@b.test"]);
    talk.written();
    talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
    assert!(talk.c.begin_ahead(&mail(&["c@b.test"])));
    talk.c.body_sent();
    talk.says("250 ok\r\n");
    talk.done();
    // The server has thrown away what came behind the dot.
    talk.c.on_lost(Lost::TimedOut, "");
    assert_eq!(talk.done(), ["deferred host mail 0"]);
    assert!(talk.c.is_pipelining_suspect());

    let mut talk = Talk::open(Pipelining::Cross, EHLO);
    talk.begin(&["a@b.test"]);
    talk.written();
    talk.c.on_lost(Lost::TimedOut, "");
    assert!(!talk.c.is_pipelining_suspect());

    // A server that is silent on the dot itself has not come to what is behind it.
    let mut talk = Talk::open(Pipelining::Cross, EHLO);
    talk.begin(&["a@b.test"]);
    talk.written();
    talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
    assert!(talk.c.begin_ahead(&mail(&["c@b.test"])));
    talk.c.body_sent();
    talk.c.on_lost(Lost::TimedOut, "");
    assert_eq!(talk.done(), ["in-doubt message dot 0"]);
    assert_eq!(talk.done(), ["not tried"]);
    assert!(!talk.c.is_pipelining_suspect());
}

#[test]
fn an_early_refusal_of_the_content_says_nothing_about_pipelining() {
    for (reply, suspect) in [("554 spam\r\n", false), ("421 what\r\n", true)] {
        let mut talk = Talk::open(Pipelining::Cross, EHLO);
        talk.begin(&["a@b.test"]);
        talk.written();
        talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
        assert!(talk.c.begin_ahead(&mail(&["c@b.test"])));
        talk.says(reply);
        assert_eq!(talk.c.is_pipelining_suspect(), suspect, "{reply}");
    }
}
