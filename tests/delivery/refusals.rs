//! Servers that refuse us as the sender, whatever the mail is: they are left alone for the rest of the run.
//!
//! With one session, what the receiver refused is exact but for the message that was under way behind the last one.

use crate::batch::Batch;
use crate::lab::{Ended, Lab, SOON};

/// What is said once of bad.test.
const STOPPED: &str = "mailer: bad.test's servers refuse our mail as such (550 5.7.26 no SPF, no DKIM): \
     stopped sending there, mail for ";

fn rule(stage: &str, reply: &str) -> String {
    format!("stage={stage} server=127.0.7.1 reply=\"{reply}\"")
}

/// A laboratory where bad.test has the server 127.0.7.1, which obeys this rule; the others take everything.
fn lab(rule: &str) -> Lab {
    let zone = "bad.test MX 10 mx.bad.test\nmx.bad.test A 127.0.7.1\nSYNTHETIC\n";
    Lab::new(zone, crate::lab::keeping(&[rule]))
}

/// Delivers with these keys; with one session per site, unless they say otherwise.
fn send(lab: &Lab, batch: &Batch, keys: &str, arguments: &[&str]) -> Ended {
    let sessions = if keys.contains("max_sessions") {
        ""
    } else {
        "max_sessions = 1\n"
    };
    let config = lab.file("mailer.toml", format!("{sessions}{keys}\n"));
    let all = [&["--config", config.to_str().unwrap()], arguments].concat();
    lab.send(batch, &all)
}

/// Lines on standard error that tell of a stopped site.
fn told(ended: &Ended) -> Vec<&str> {
    let lines = ended.stderr.lines();
    lines.filter(|line| line.contains("as such")).collect()
}

#[test]
fn a_site_that_refuses_us_as_the_sender_is_left_alone_and_the_rest_of_its_mail_stays_queued() {
    for stage in ["mail", "dot"] {
        let lab = lab(&rule(stage, "550 5.7.26 no SPF, no DKIM"));
        let to_bad = (0..300).map(|n| format!("u{n}@bad.test"));
        let to_good = (0..40).map(|n| format!("u{n}@good.test"));
        let ended = send(&lab, &Batch::to_each(to_bad.chain(to_good)), "", &[]);
        ended.assert_status(75);
        lab.assert_agrees(&ended);
        assert_eq!(ended.count("delivered"), 40, "{}", ended.odd());
        let refused = ended.count("refused");
        assert!((10..=11).contains(&refused), "{stage}: {refused} refused");
        assert_eq!(lab.sink.stats().refusals, refused as u64, "{stage}");
        let left: Vec<_> = ended
            .rows
            .iter()
            .filter(|r| r.status == "deferred")
            .collect();
        assert_eq!(left.len(), 300 - refused, "nothing else becomes of them");
        for row in left {
            assert_eq!((&row.code[..], &row.enhanced[..]), ("550", "5.7.26"));
            assert_eq!((&row.stage[..], &row.attempts[..]), (stage, "0"));
            assert!(row.reply.contains("no SPF, no DKIM"), "{row:?}");
        }
        let [line] = told(&ended)[..] else {
            panic!("{stage}: {}", ended.stderr);
        };
        assert!(line.starts_with(STOPPED), "{line}");
    }
}

#[test]
fn with_many_sessions_a_stopped_site_has_refused_at_most_two_more_messages_on_each() {
    let lab = lab(&rule("dot", "550 5.7.26 no SPF, no DKIM"));
    let batch = Batch::to_domain("bad.test", 2000);
    let ended = send(&lab, &batch, "max_sessions = 8", &[]);
    ended.assert_status(75);
    let refused = ended.count("refused");
    assert!((10..=10 + 2 * 8).contains(&refused), "{refused} refused");
    assert_eq!(ended.count("deferred"), 2000 - refused);
}

#[test]
fn the_summary_says_how_much_mail_stays_queued_for_a_stopped_site() {
    let lab = lab(&rule("dot", "550 5.7.26 no SPF, no DKIM"));
    let batch = Batch::to_domain("bad.test", 100);
    let ended = send(&lab, &batch, "sender_refusals = 3", &["--summary"]);
    ended.assert_status(75);
    let refused = ended.count("refused");
    assert!((3..=4).contains(&refused), "{refused} refused");
    let lines = told(&ended);
    assert_eq!(
        lines.len(),
        2,
        "at once, and in the summary: {}",
        ended.stderr
    );
    let queued = format!("mail for {} recipients stays queued", 100 - refused);
    assert!(lines[1].starts_with("bad.test's servers") && lines[1].contains(&queued));
}

#[test]
fn mail_that_such_a_site_defers_is_left_as_well_and_the_run_does_not_wait_for_it() {
    let lab = lab(&rule("dot", "451 4.7.25 no reverse DNS"));
    let batch = Batch::to_domain("bad.test", 60);
    // Its retry would be within the run, and long after the test has given up.
    let ended = send(&lab, &batch, "", &["--retry-min", "10m"]);
    ended.assert_status(75);
    assert_eq!(ended.count("deferred"), 60);
    let tried = ended.rows.iter().filter(|row| row.attempts == "1").count();
    assert!((10..=11).contains(&tried), "{tried} tried");
    assert_eq!(lab.sink.stats().refusals, tried as u64);
    assert_eq!(told(&ended).len(), 1, "{}", ended.stderr);
}

#[test]
fn one_acceptance_among_such_refusals_keeps_a_site_going() {
    let refuse_nine = rule("dot", "550 5.7.26 no") + " first=9";
    let lab = lab(&refuse_nine);
    let ended = send(&lab, &Batch::to_domain("bad.test", 80), "", &[]);
    ended.assert_status(1);
    assert_eq!((ended.count("refused"), ended.count("delivered")), (9, 71));
    lab.assert_agrees(&ended);
    assert_eq!(told(&ended), [""; 0]);
}

#[test]
fn refusals_that_are_about_recipients_or_content_stop_no_site() {
    for reply in ["550 5.1.1 unknown", "550 5.7.1 spam", "550 no"] {
        let lab = lab(&rule("dot", reply));
        let ended = send(&lab, &Batch::to_domain("bad.test", 40), "", &[]);
        ended.assert_status(1);
        assert_eq!(ended.count("refused"), 40, "{reply}");
        assert_eq!(told(&ended), [""; 0]);
    }
}

#[test]
fn no_site_is_stopped_where_that_is_not_wanted() {
    let lab = lab(&rule("dot", "550 5.7.26 no"));
    let batch = Batch::to_domain("bad.test", 40);
    let ended = send(&lab, &batch, "sender_refusals = 0", &SOON);
    ended.assert_status(1);
    assert_eq!(ended.count("refused"), 40);
    assert_eq!(told(&ended), [""; 0]);
}

#[test]
fn one_letter_to_very_many_is_not_refused_to_each_of_them() {
    let lab = lab(&rule("dot", "550 5.7.26 no"));
    let everybody: Vec<_> = (0..200).map(|n| format!("u{n}@bad.test")).collect();
    let everybody: Vec<_> = everybody.iter().map(String::as_str).collect();
    let mut batch = Batch::default();
    batch.add(&everybody);
    let ended = send(&lab, &batch, "max_recipients = 5\nsender_refusals = 4", &[]);
    ended.assert_status(75);
    let refused = ended.count("refused");
    assert!((20..=30).contains(&refused), "{refused} refused");
    assert_eq!(ended.count("deferred"), 200 - refused);
}
