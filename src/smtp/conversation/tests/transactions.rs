//! Transactions: recipients, echoes, lone dots, full transactions, what a server does not offer.

use super::*;

#[test]
fn the_next_message_leaves_with_the_dot_of_this_one() {
    let mut talk = Talk::open(Pipelining::Cross, EHLO);
    talk.begin(&["a@b.test"]);
    talk.written();
    talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
    for _ in 0..3 {
        assert!(talk.c.begin_ahead(&mail(&["c@b.test"])));
        assert!(!talk.c.begin_ahead(&mail(&["d@b.test"])), "one, no more");
        assert_eq!(
            talk.c.output_after_dot(),
            b"MAIL FROM:<s@a.test> SIZE=10\r\nRCPT TO:<c@b.test>\r\nDATA\r\n"
        );
        assert_eq!(talk.written(), "");
        talk.c.body_sent();
        assert!(talk.c.output_after_dot().is_empty());
        assert_eq!(talk.c.unanswered(), 4);
        talk.says("250 queued\r\n");
        assert_eq!(talk.done(), ["delivered recipient dot 250"]);
        assert!(matches!(talk.c.next(), Next::Await(Stage::Mail)));
        talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
        assert!(matches!(talk.c.next(), Next::SendBody(Framing::Dot)));
    }
}

#[test]
fn an_early_reply_to_the_body_counts_and_ends_the_session() {
    for (reply, end) in [
        ("552 too much\r\n", "refused message body 552"),
        ("451 4.7.0 slow\r\n", "deferred rate body 451"),
        ("421 bye\r\n", "deferred host body 421"),
        ("250 what\r\n", "deferred host body 250"),
    ] {
        let mut talk = Talk::open(Pipelining::Cross, EHLO);
        talk.begin(&["a@b.test"]);
        talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
        assert!(talk.c.begin_ahead(&mail(&["c@b.test"])));
        talk.says(reply);
        assert_eq!(talk.done(), [end]);
        assert_eq!(talk.done(), ["not tried"]);
        assert!(talk.closed().is_some());
    }
}

#[test]
fn echoes_of_a_refused_mail_are_no_verdicts() {
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.begin(&["a@b.test", "c@b.test"]);
    talk.written();
    talk.says("451 later\r\n503 no mail\r\n550 no\r\n503 no rcpt\r\n");
    assert_eq!(talk.done(), ["deferred message mail 451"; 2]);
    talk.begin(&["a@b.test"]);
    let written = talk.written();
    assert!(written.starts_with("RSET\r\nMAIL") && written.ends_with("DATA\r\n"));
    talk.says("250 reset\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert!(matches!(talk.c.next(), Next::SendBody(Framing::Dot)));
    talk.c.body_sent();
    talk.says("250 ok\r\n");
    talk.done();
    talk.begin(&["a@b.test"]);
    assert!(talk.written().starts_with("MAIL"), "a dot needs no RSET");
}

#[test]
fn data_for_nobody_gets_a_lone_dot() {
    for reply in ["250 ok\r\n", "554 no content\r\n"] {
        let mut talk = Talk::open(Pipelining::Classic, EHLO);
        talk.begin(&["a@b.test"]);
        talk.written();
        talk.says("250 ok\r\n550 no\r\n354 go\r\n");
        assert_eq!(talk.written(), ".\r\n");
        assert!(matches!(talk.c.next(), Next::Await(Stage::Dot)));
        talk.says(reply);
        assert_eq!(talk.done(), ["refused recipient rcpt 550"]);
        assert_eq!(talk.c.messages_accepted(), 0);
        talk.begin(&["a@b.test"]);
        assert!(talk.written().starts_with("MAIL"), "no RSET behind a dot");
    }
}

#[test]
fn a_lone_dot_is_never_written_where_it_would_deliver_an_empty_message() {
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.begin(&["a@b.test"]);
    talk.written();
    // MAIL refused, but RCPT and DATA accepted: this server is not to be trusted with a dot.
    talk.says("550 no\r\n250 ok\r\n354 go\r\n");
    assert_eq!(talk.done(), ["refused message mail 550"]);
    assert!(talk.closed().is_some());
}

#[test]
fn where_nobody_was_accepted_data_is_not_said_at_all_in_lock_step() {
    let mut talk = Talk::open(Pipelining::None, EHLO);
    talk.begin(&["a@b.test"]);
    talk.says("250 ok\r\n450 later\r\n");
    assert!(!talk.written().contains("DATA"));
    assert_eq!(talk.done(), ["deferred recipient rcpt 450"]);
}

#[test]
fn a_refused_data_is_the_verdict_of_those_accepted() {
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.begin(&["a@b.test", "c@b.test"]);
    talk.says("250 ok\r\n250 ok\r\n550 no\r\n451 later\r\n");
    assert_eq!(
        talk.done(),
        ["deferred message data 451", "refused recipient rcpt 550"]
    );
}

#[test]
fn too_many_recipients_are_for_another_transaction() {
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.begin(&["a@b.test", "b@b.test", "c@b.test", "d@b.test"]);
    talk.says("250 ok\r\n250 ok\r\n250 ok\r\n452 4.5.3 many\r\n552 many\r\n354 go\r\n");
    talk.c.body_sent();
    talk.says("250 ok\r\n");
    let delivered = "delivered recipient dot 250";
    assert_eq!(talk.done(), [delivered, delivered, "again", "again"]);
    assert_eq!(talk.c.recipients_max(), 2);
    talk.begin(&["c@b.test", "d@b.test", "e@b.test"]);
    assert!(!talk.written().contains("e@b.test"));
}

#[test]
fn a_full_mailbox_does_not_pass_for_a_full_transaction() {
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.begin(&["a@b.test", "b@b.test", "c@b.test"]);
    talk.says("250 ok\r\n250 ok\r\n452 full\r\n250 ok\r\n354 go\r\n");
    talk.c.body_sent();
    talk.says("250 ok\r\n");
    let delivered = "delivered recipient dot 250";
    assert_eq!(talk.done(), [delivered, "again", delivered]);
    assert_eq!(talk.c.recipients_max(), 100, "a later one was taken");
}

#[test]
fn in_lock_step_a_full_transaction_asks_for_no_more() {
    let mut talk = Talk::open(Pipelining::None, EHLO);
    talk.begin(&["a@b.test", "b@b.test", "c@b.test"]);
    talk.says("250 ok\r\n250 ok\r\n");
    talk.written();
    talk.says("452 many\r\n");
    assert_eq!(talk.written(), "DATA\r\n");
    talk.says("354 go\r\n");
    talk.c.body_sent();
    talk.says("250 ok\r\n");
    assert_eq!(talk.done()[1..], ["again", "again"]);
}

#[test]
fn many_recipients_leave_in_several_flights_within_the_bounds() {
    let recipients: Vec<String> = (0..500).map(|i| format!("user-{i}@b.test")).collect();
    let mut talk = Talk::open(Pipelining::Classic, EHLO);
    talk.c.recipients_max = 1000;
    talk.c.begin(&Mail {
        reverse_path: "s@a.test",
        recipients: &recipients,
        size: 1,
        eight_bit: false,
        utf8: false,
        dsn: None,
    });
    let mut all = String::new();
    let mut flights = 0;
    while !matches!(talk.c.next(), Next::SendBody(Framing::Dot)) {
        let flight = talk.written();
        assert!(!flight.is_empty() && talk.c.unanswered() <= 100);
        flights += 1;
        for line in flight.lines() {
            talk.says(if line == "DATA" {
                "354 go\r\n"
            } else {
                "250 ok\r\n"
            });
        }
        all.push_str(&flight);
    }
    assert!((5..12).contains(&flights), "{flights} flights");
    assert_eq!(all.matches("RCPT").count(), 500);
    talk.c.body_sent();
    talk.says("250 ok\r\n");
    assert_eq!(talk.done(), vec!["delivered recipient dot 250"; 500]);
}

#[test]
fn what_the_server_cannot_take_is_refused_without_a_word() {
    let mut talk = Talk::open(Pipelining::Classic, "250-mx\r\n250 SIZE 100\r\n");
    for (mail, enhanced) in [
        (
            Mail {
                size: 101,
                ..mail(&["a@b.test"])
            },
            Enhanced::new(5, 3, 4),
        ),
        (
            Mail {
                eight_bit: true,
                ..mail(&["a@b.test"])
            },
            Enhanced::new(5, 6, 3),
        ),
        (
            Mail {
                utf8: true,
                ..mail(&["a@b.test"])
            },
            Enhanced::new(5, 6, 7),
        ),
        (
            Mail {
                reverse_path: "no\r\nDATA",
                ..mail(&["a@b.test"])
            },
            Enhanced::new(5, 1, 7),
        ),
        (mail(&["ä@b.test"]), Enhanced::new(5, 6, 7)),
    ] {
        talk.c.begin(&mail);
        let Next::Done(end) = talk.c.next() else {
            panic!("settled at once");
        };
        let [RecipientEnd::Verdict(verdict)] = &end.ends[..] else {
            panic!("one verdict");
        };
        assert_eq!(
            (verdict.status, verdict.enhanced),
            (Status::Refused, Some(enhanced))
        );
        assert!(end.reusable);
        assert_eq!(talk.written(), "");
        assert!(matches!(talk.c.next(), Next::Ready));
    }
}

#[test]
fn parameters_are_given_only_where_they_are_offered_and_needed() {
    let ehlo = "250-mx\r\n250-SIZE\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n";
    let mut talk = Talk::open(Pipelining::Classic, ehlo);
    talk.c.begin(&Mail {
        eight_bit: true,
        utf8: true,
        ..mail(&["ä@b.test"])
    });
    let written = talk.written();
    assert!(written.contains(" SIZE=10 BODY=8BITMIME SMTPUTF8\r\n"));

    let mut talk = Talk::open(Pipelining::Classic, "250 mx\r\n");
    talk.begin(&["a@b.test"]);
    assert!(talk.written().starts_with("MAIL FROM:<s@a.test>\r\n"));
}

#[test]
fn a_message_that_comes_ahead_and_needs_what_is_not_offered_is_settled_in_its_turn() {
    let mut talk = Talk::open(Pipelining::Cross, EHLO);
    talk.begin(&["a@b.test"]);
    talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
    assert!(talk.c.begin_ahead(&Mail {
        size: 5000,
        ..mail(&["c@b.test"])
    }));
    assert!(talk.c.output_after_dot().is_empty());
    talk.c.body_sent();
    talk.says("250 ok\r\n");
    assert_eq!(talk.done(), ["delivered recipient dot 250"]);
    assert_eq!(talk.done(), ["refused message mail 0"]);
    assert!(matches!(talk.c.next(), Next::Ready));
}

#[test]
fn a_greylist_behind_the_content_is_about_the_message_and_not_our_rate() {
    for (text, scope) in [
        ("451 4.7.1 Try again later, Greylisted", "message"),
        ("451-4.7.1 sorry\r\n451 4.7.1 gray list", "message"),
        ("451 4.7.1 Try again later", "rate"),
    ] {
        let mut talk = Talk::open(Pipelining::Classic, EHLO);
        talk.begin(&["a@b.test"]);
        talk.says("250 ok\r\n250 ok\r\n354 go\r\n");
        assert!(matches!(talk.c.next(), Next::SendBody(Framing::Dot)));
        talk.c.body_sent();
        talk.says(&format!("{text}\r\n"));
        assert_eq!(talk.done(), [format!("deferred {scope} dot 451")]);
    }
}
