//! Servers that refuse us as the sender, whatever the mail is: they are left alone for the rest of the run.
//!
//! With one session, what the receiver saw is exact: the messages it refused, and what was under way behind the last.

use mailer::mail::Stage;
use mailer::sink::SinkConfig;

use crate::batch::Batch;
use crate::lab::{Ended, Lab, SOON, keeping};
use crate::retries::NO_RETRY;

const REFUSES: &str = "domain=bad.test stage=dot reply=\"550 5.7.26 no SPF, no DKIM\"";
const STOPPED: &str = "bad.test's servers refuse our mail as such (550 5.7.26 no SPF, no DKIM)";

/// Delivers with one session per site and these keys.
fn send(lab: &Lab, batch: &Batch, keys: &str, arguments: &[&str]) -> Ended {
    let config = lab.file("mailer.toml", format!("max_sessions = 1\n{keys}\n"));
    let all = [&["--config", config.to_str().unwrap()], arguments].concat();
    lab.send(batch, &all)
}

/// Messages to bad.test that the receiver saw the end of.
fn seen(lab: &Lab) -> u64 {
    lab.sink.stats().stages[&Stage::Dot]
}

#[test]
fn a_site_that_refuses_us_as_the_sender_is_left_alone_and_the_rest_of_its_mail_stays_queued() {
    let lab = Lab::with_rules(&[REFUSES]);
    let to_bad = (0..300).map(|n| format!("u{n}@bad.test"));
    let to_good = (0..40).map(|n| format!("u{n}@good.test"));
    let ended = send(&lab, &Batch::to_each(to_bad.chain(to_good)), "", &["--summary"]);
    ended.assert_status(75);
    println!("{}", ended.stderr);
    println!("{}", lab.sink.stats());
}
