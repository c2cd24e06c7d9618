//! Sites with much of the mail get queues of their own while the run goes on.

use crate::batch::Batch;
use crate::lab::{Ended, Lab, SOON};

/// `large` messages to large.test, among them `small` to domains that have no more than one each.
fn mixed(large: usize, small: usize) -> Batch {
    let every = large.div_ceil(small);
    let mut recipients = Vec::new();
    for n in 0..large {
        recipients.push(format!("u{n}@large.test"));
        if n % every == 0 {
            recipients.push(format!("u@small{n}.test"));
        }
    }
    Batch::to_each(recipients)
}

fn send(lab: &Lab, batch: &Batch, config: &str, flags: &[&str]) -> Ended {
    let config = lab.file("mailer.toml", config);
    lab.send(
        batch,
        &[&["--config", config.to_str().unwrap()], flags].concat(),
    )
}

/// How many rows of large.test, and how many others, say that this queue had them.
fn of_queue(ended: &Ended, queue: &str) -> (usize, usize) {
    let rows = ended.rows.iter().filter(|row| row.queue == queue);
    let large = rows
        .clone()
        .filter(|row| row.recipient.ends_with("@large.test"));
    let large = large.count();
    (large, rows.count() - large)
}

/// Two sessions, each of which is kept busy: what is behind waits long enough to be seen.
const SLOW: &str = "domain=large.test stage=dot delay=10ms";
/// One of the others stays pending for a while: a site that is alone needs no queue of its own.
const PENDING: &str = "domain=small0.test stage=dot delay=1500ms";

#[test]
fn a_large_site_gets_a_queue_of_its_own_that_the_report_names_after_it() {
    let lab = Lab::with_rules(&[SLOW, PENDING]);
    let ended = send(&lab, &mixed(400, 100), "max_sessions = 2\n", &[]);
    lab.assert_all_delivered(&ended, 500);
    let (own, others) = of_queue(&ended, "large.test");
    assert_eq!(others, 0, "a promoted queue has one site");
    // Whatever the general queue's workers held when it was promoted is theirs.
    assert!(own >= 200, "{own} of 400");
    assert_eq!(of_queue(&ended, "general"), (400 - own, 100));
}

#[test]
fn without_promotion_and_for_a_single_site_and_for_relays_the_general_queue_has_all() {
    let lab = Lab::with_rules(&[SLOW]);
    let off = "max_sessions = 2\npromote = false\n";
    let ended = send(&lab, &mixed(120, 30), off, &[]);
    lab.assert_all_delivered(&ended, 150);
    assert_eq!(of_queue(&ended, "general"), (120, 30));
    let lab = Lab::with_rules(&[SLOW]);
    let batch = Batch::to_domain("large.test", 120);
    let ended = send(&lab, &batch, "max_sessions = 2\n", &[]);
    lab.assert_all_delivered(&ended, 120);
    assert_eq!(of_queue(&ended, "general"), (120, 0));
}

#[test]
fn deferred_mail_moves_with_its_site_and_is_tried_again_there() {
    let lab = Lab::with_rules(&[
        SLOW,
        PENDING,
        "domain=large.test stage=rcpt reply=\"450 4.2.1 later\" first=100",
    ]);
    let flags = [&SOON[..], &["--max-workers", "16"]].concat();
    let ended = send(&lab, &mixed(300, 50), "max_sessions = 2\n", &flags);
    lab.assert_all_delivered(&ended, 350);
    let (own, others) = of_queue(&ended, "large.test");
    assert!(own >= 150 && others == 0, "{own} of 300");
    let again = |row: &&crate::lab::Row| row.attempts != "1" && row.queue == "large.test";
    let again = ended.rows.iter().filter(again).count();
    assert!(again >= 50, "{again} of 100");
}

#[test]
fn what_each_queue_was_called_is_known_after_a_kill() {
    let lab = Lab::with_rules(&[SLOW, PENDING]);
    let config = lab.file("mailer.toml", "max_sessions = 2\n");
    let batch = mixed(700, 100);
    let program = lab.start(&batch, &["--config", config.to_str().unwrap()]);
    lab.wait_until(|stats| stats.messages >= 600);
    drop(program); // kill -9
    let known = "SELECT count(*) FROM report WHERE queue = 'large.test'";
    let ended = lab.resume(&["--in-doubt-wait", "1s", "--retry-min", "1s"]);
    ended.assert_status(0);
    assert!(lab.ask_ledger(known) >= 100, "{}", lab.ask_ledger(known));
    let other = "SELECT count(*) FROM report WHERE queue NOT IN ('general', 'large.test')";
    assert_eq!(lab.ask_ledger(other), 0);
}
