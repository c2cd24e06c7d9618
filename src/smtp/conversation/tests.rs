//! The conversation, driven by hand: what is written, when, and what each recipient's end is. All the combinations are
//! in `tests/dialogues.rs`; here stand the rules one by one.

mod forms;
mod opening;
mod random;
mod transactions;

use super::*;
use crate::mail::Enhanced;
use crate::mail::{Scope, Status};
use crate::smtp::meaning::Lost;
use crate::smtp::reply::{Progress, ReplyParser};
use crate::smtp::transaction::RecipientEnd;

const EHLO: &str = "250-mx.test\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 8BITMIME\r\n";

/// A conversation with somebody who answers as told.
struct Talk {
    c: Conversation,
    parser: ReplyParser,
    /// What left before a reply came.
    wire: String,
}

impl Talk {
    /// Just connected.
    fn new(level: Pipelining) -> Talk {
        Talk::with(Settings {
            level,
            ..Settings::new("client.example")
        })
    }

    /// Just connected, to be held like this.
    fn with(settings: Settings) -> Talk {
        Talk {
            c: Conversation::new(settings).unwrap(),
            parser: ReplyParser::new(),
            wire: String::new(),
        }
    }

    /// Open and ready, with `ehlo` as the reply to EHLO.
    fn open(level: Pipelining, ehlo: &str) -> Talk {
        let mut talk = Talk::new(level);
        talk.says("220 mx.test\r\n");
        assert_eq!(talk.written(), "EHLO client.example\r\n");
        talk.says(ehlo);
        assert!(matches!(talk.c.next(), Next::Ready));
        talk
    }

    /// The server's next replies; before each, what the client has to say leaves.
    fn says(&mut self, bytes: &str) {
        let mut rest = bytes.as_bytes();
        while !rest.is_empty() {
            self.wire = self.written();
            let (used, progress) = self.parser.feed(rest);
            assert_eq!(progress, Progress::Complete);
            rest = &rest[used..];
            self.c.on_reply(self.parser.reply());
        }
    }

    /// What the client wrote since the last time.
    fn written(&mut self) -> String {
        let written = String::from_utf8(std::mem::take(self.c.output())).unwrap();
        assert!(written.len() <= crate::smtp::pipeline::BYTES_MAX);
        std::mem::take(&mut self.wire) + &written
    }

    fn begin(&mut self, recipients: &[&str]) {
        self.c.begin(&mail(recipients));
    }

    /// The ends of the transaction that is done, each in a word or two.
    fn done(&mut self) -> Vec<String> {
        match self.c.next() {
            Next::Done(end) => end.ends.iter().map(word).collect(),
            other => panic!("not done: {other:?}"),
        }
    }

    fn closed(&mut self) -> Option<Verdict> {
        match self.c.next() {
            Next::Closed(why) => {
                assert!(
                    self.c.output().is_empty(),
                    "a closed session writes nothing"
                );
                why
            }
            other => panic!("not closed: {other:?}"),
        }
    }
}

fn mail<'a>(recipients: &'a [&'a str]) -> Mail<'a, &'a str> {
    Mail {
        reverse_path: "s@a.test",
        recipients,
        size: 10,
        eight_bit: false,
        utf8: false,
        dsn: None,
    }
}

fn word(end: &RecipientEnd) -> String {
    match end {
        RecipientEnd::Verdict(verdict) => format!(
            "{} {} {} {}",
            verdict.status.name(),
            verdict.scope.name(),
            verdict.stage.name(),
            verdict.code
        ),
        RecipientEnd::Again => "again".into(),
        RecipientEnd::NotTried => "not tried".into(),
    }
}

#[test]
fn one_flight_of_commands_one_of_content() {
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.begin(&["a@b.test", "c@b.test"]);
    assert_eq!(
        talk.written(),
        "MAIL FROM:<s@a.test> SIZE=10\r\nRCPT TO:<a@b.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n"
    );
    assert_eq!(talk.c.unanswered(), 4);
    talk.says("250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n");
    assert!(matches!(talk.c.next(), Next::SendBody(Framing::Dot)));
    talk.c.body_sent();
    assert!(matches!(talk.c.next(), Next::Await(Stage::Dot)));
    talk.says("250 2.0.0 queued\r\n");
    assert_eq!(
        talk.done(),
        ["delivered recipient dot 250", "refused recipient rcpt 550"]
    );
    assert!(matches!(talk.c.next(), Next::Ready));
    assert_eq!(talk.c.messages_accepted(), 1);
    talk.c.quit();
    assert_eq!(talk.written(), "QUIT\r\n");
    talk.says("221 bye\r\n");
    assert_eq!(talk.closed(), None);
}

#[test]
fn without_pipelining_each_command_waits() {
    for (level, ehlo) in [
        (Pipelining::None, EHLO),
        (Pipelining::Cross, "250 mx.test\r\n"),
    ] {
        let mut talk = Talk::open(level, ehlo);
        talk.begin(&["a@b.test"]);
        for (command, reply) in [
            ("MAIL", "250 ok\r\n"),
            ("RCPT", "250 ok\r\n"),
            ("DATA", "354 go\r\n"),
        ] {
            let written = talk.written();
            assert!(written.starts_with(command) && written.matches("\r\n").count() == 1);
            talk.says(reply);
        }
        assert!(matches!(talk.c.next(), Next::SendBody(Framing::Dot)));
        assert!(!talk.c.begin_ahead(&mail(&["d@b.test"])));
    }
}

#[test]
fn a_masked_greeting_means_lock_step() {
    let mut talk = Talk::new(Pipelining::Cross);
    talk.says("220 **************2******\r\n");
    talk.says(EHLO);
    assert_eq!(talk.c.level(), Pipelining::None);
    talk.c.set_level(Pipelining::Cross);
    assert_eq!(talk.c.level(), Pipelining::None);
}

#[test]
fn a_session_lost_behind_the_dot_leaves_one_in_doubt_and_one_untried() {
    let mut talk = Talk::open(Pipelining::Cross, EHLO);
    talk.begin(&["a@b.test", "x@b.test"]);
    talk.says("250 ok\r\n250 ok\r\n450 later\r\n354 go\r\n");
    assert!(talk.c.begin_ahead(&mail(&["c@b.test", "no address"])));
    talk.c.body_sent();
    talk.c.on_lost(Lost::Reset, "os error 104");
    assert_eq!(
        talk.done(),
        ["in-doubt message dot 0", "deferred recipient rcpt 450"]
    );
    assert_eq!(talk.done(), ["not tried", "refused recipient rcpt 0"]);
    let why = talk.closed().unwrap();
    assert!(why.text.contains("reset") && why.text.contains("os error 104"));
    assert!(talk.c.is_pipelining_suspect());
    assert!(!talk.c.may_reuse());
}

#[test]
fn a_session_lost_while_the_body_is_written_is_deferred() {
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.begin(&["a@b.test"]);
    talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.c.on_lost(Lost::Eof, "");
    assert_eq!(talk.done(), ["deferred host body 0"]);
}

#[test]
fn a_reset_that_is_refused_ends_the_session_and_hurts_no_host() {
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.begin(&["a@b.test"]);
    talk.says("250 ok\r\n550 no\r\n503 none\r\n");
    assert_eq!(talk.done(), ["refused recipient rcpt 550"]);
    talk.begin(&["c@b.test"]);
    talk.says("500 what\r\n");
    assert_eq!(talk.done(), ["deferred session rset 500"]);
    assert!(talk.closed().is_some());
}

#[test]
fn any_positive_completion_is_a_greeting_and_nothing_else_is() {
    for code in [200, 220, 221, 250, 299] {
        let mut talk = Talk::new(Pipelining::Classic);
        talk.says(&format!("{code} mx\r\n"));
        assert_eq!(talk.written(), "EHLO client.example\r\n", "{code}");
    }
    for code in [300, 334, 354, 450, 554] {
        let mut talk = Talk::new(Pipelining::Classic);
        talk.says(&format!("{code} mx\r\n"));
        let why = talk.closed().unwrap();
        assert_eq!((why.status, why.scope), (Status::Deferred, Scope::Host));
    }
}

#[test]
fn helo_follows_an_ehlo_that_is_not_understood() {
    let mut talk = Talk::new(Pipelining::Classic);
    talk.says("220 mx\r\n");
    talk.written();
    talk.says("502 what\r\n");
    assert_eq!(talk.written(), "HELO client.example\r\n");
    talk.says("250 mx\r\n");
    assert!(matches!(talk.c.next(), Next::Ready));
    assert_eq!(talk.c.level(), Pipelining::None);
}

#[test]
fn a_host_that_does_not_want_to_talk_is_deferred() {
    for replies in [
        &["554 no\r\n"][..],
        &["421 busy\r\n"],
        &["220 mx\r\n", "421 busy\r\n"],
        &["220 mx\r\n", "450 busy\r\n"],
        &["220 mx\r\n", "500 what\r\n", "550 no\r\n"],
    ] {
        let mut talk = Talk::new(Pipelining::Classic);
        for reply in replies {
            talk.written();
            talk.says(reply);
        }
        let why = talk.closed().unwrap();
        assert_eq!((why.status, why.scope), (Status::Deferred, Scope::Host));
    }
}

#[test]
fn a_server_that_shuts_down_after_messages_has_a_limit_and_no_fault() {
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.begin(&["a@b.test"]);
    talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.c.body_sent();
    talk.says("250 ok\r\n");
    talk.done();
    talk.begin(&["c@b.test"]);
    talk.says("421 enough\r\n");
    assert_eq!(talk.done(), ["deferred session mail 421"]);
    assert_eq!(talk.closed().unwrap().scope, Scope::Session);
}

#[test]
fn a_shutdown_while_nothing_is_due_closes_the_session() {
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.says("421 idle too long\r\n");
    assert_eq!(talk.closed().unwrap().code, 421);

    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.says("250 what\r\n");
    assert!(talk.closed().unwrap().text.contains("protocol error"));
}

#[test]
fn limits_announced_by_the_server_are_kept() {
    let ehlo = "250-mx\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=2 RCPTMAX=1\r\n";
    let mut talk = Talk::open(Pipelining::Cross, ehlo);
    assert_eq!(talk.c.recipients_max(), 1);
    talk.begin(&["a@b.test", "c@b.test"]);
    talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
    assert!(talk.c.begin_ahead(&mail(&["c@b.test"])));
    talk.c.body_sent();
    talk.says("250 ok\r\n");
    assert_eq!(talk.done(), ["delivered recipient dot 250", "again"]);
    talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
    assert!(!talk.c.begin_ahead(&mail(&["d@b.test"])), "the third");
    talk.c.body_sent();
    talk.says("250 ok\r\n");
    let Next::Done(end) = talk.c.next() else {
        panic!("done");
    };
    assert!(!end.reusable && !talk.c.may_reuse());
}

#[test]
fn giving_up_behind_the_dot_leaves_doubt_and_before_it_none() {
    let why = || {
        let enhanced = Enhanced::new(4, 3, 0);
        Verdict::own(
            Status::Deferred,
            Scope::Local,
            Stage::Body,
            enhanced,
            "stop",
        )
    };
    for (dot, end) in [
        (false, "deferred local body 0"),
        (true, "in-doubt message dot 0"),
    ] {
        let mut talk = Talk::open(Pipelining::Classic, EHLO);
        talk.begin(&["a@b.test"]);
        talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
        if dot {
            talk.c.body_sent();
        }
        talk.c.abandon(why());
        assert_eq!(talk.done(), [end]);
        assert!(talk.closed().is_some());
    }
}

#[test]
fn a_limit_of_messages_behind_a_dot_is_no_reason_to_run_less_far_ahead_once_that_has_worked() {
    for (messages, is_suspect) in [(1, true), (3, false)] {
        let mut talk = Talk::open(Pipelining::Cross, EHLO);
        talk.begin(&["a@b.test"]);
        talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
        for _ in 1..messages {
            assert!(talk.c.begin_ahead(&mail(&["c@b.test"])));
            talk.c.body_sent();
            talk.says("250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n");
            talk.done();
        }
        assert!(talk.c.begin_ahead(&mail(&["c@b.test"])));
        talk.c.body_sent();
        talk.says("250 taken\r\n421 enough\r\n");
        assert_eq!(talk.c.is_pipelining_suspect(), is_suspect, "{messages}");
    }
}

#[test]
fn what_left_behind_a_dot_is_recalled_without_another_byte() {
    // Not answered, accepted, at 354: in each case the only thing to do is to leave.
    for replies in ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"] {
        let mut talk = Talk::open(Pipelining::Cross, EHLO);
        talk.begin(&["a@b.test"]);
        talk.written();
        assert!(!talk.c.recall(), "it was not given ahead");
        talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
        assert!(talk.c.begin_ahead(&mail(&["c@b.test"])));
        talk.c.body_sent();
        assert!(!talk.c.recall(), "the message before it is not answered");
        talk.says("250 ok\r\n");
        talk.says(replies);
        assert!(talk.c.recall());
        assert_eq!(talk.done(), ["delivered recipient dot 250"]);
        assert_eq!(talk.done(), ["not tried"]);
        assert_eq!(talk.closed(), None);
        assert_eq!((talk.written(), talk.c.unanswered()), (String::new(), 0));
        assert!(!talk.c.may_reuse() && !talk.c.is_pipelining_suspect());
    }
}

#[test]
fn a_recall_leaves_what_was_answered_and_what_has_left() {
    let mut talk = Talk::open(Pipelining::Cross, EHLO);
    talk.begin(&["a@b.test"]);
    talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
    assert!(talk.c.begin_ahead(&mail(&["c@b.test", "d@b.test"])));
    talk.c.body_sent();
    talk.says("250 ok\r\n");
    talk.done();
    talk.says("250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n");
    talk.c.body_sent();
    assert!(!talk.c.recall(), "its content has left");
    talk.says("250 ok\r\n");
    assert_eq!(
        talk.done(),
        ["refused recipient rcpt 550", "delivered recipient dot 250"]
    );
    assert!(!talk.c.recall(), "nothing is under way");
    assert!(matches!(talk.c.next(), Next::Ready));
}

#[test]
fn our_name_must_be_sayable() {
    assert!(Conversation::new(Settings::new("x\r\nDATA")).is_err());
}

#[test]
fn nothing_is_given_ahead_below_the_cross_level() {
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.begin(&["a@b.test"]);
    talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
    assert!(!talk.c.begin_ahead(&mail(&["c@b.test"])));
    talk.c.set_level(Pipelining::Cross);
    assert!(talk.c.begin_ahead(&mail(&["c@b.test"])));
}

#[test]
fn a_server_that_hangs_up_on_quit_is_no_failure() {
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.c.quit();
    talk.written();
    talk.c.on_lost(Lost::Eof, "");
    assert_eq!(talk.closed(), None);
}
