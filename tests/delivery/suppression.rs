//! Whom nothing is sent to: said in the report, remembered in the job, and no reason for anything but status 0.

use crate::batch::Batch;
use crate::lab::Lab;

fn mixed() -> Batch {
    Batch::to_each([
        "ann@good.test",
        "Bob@good.test",
        "c@gone.test",
        "d@sub.gone.test",
        "e@below.test",
        "f@a.below.test",
        "late@good.test",
    ])
}

#[test]
fn who_is_on_a_list_gets_nothing_and_the_report_says_which_line() {
    let lab = Lab::with_rules(&[]);
    let asked = lab.file(
        "asked.csv",
        "address,until,reason\nbob@GOOD.test,,asked\nlate@good.test,2001-01-01\n",
    );
    let gone = lab.file("gone.txt", "# domains\n@gone.test\n*.below.test\n");
    let config = lab.file(
        "mailer.toml",
        format!("suppress = [{:?}]\n", gone.to_str().unwrap()),
    );
    let arguments = [
        "--suppress",
        asked.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
    ];
    let ended = lab.send(&mixed(), &arguments);
    ended.assert_status(0);
    lab.assert_agrees(&ended);
    assert_eq!(
        (ended.count("suppressed"), ended.count("delivered")),
        (3, 4),
        "{}",
        ended.stderr
    );
    for (who, list, line) in [
        ("Bob@good.test", &asked, 2),
        ("c@gone.test", &gone, 2),
        ("f@a.below.test", &gone, 3),
    ] {
        let row = ended.row(who);
        let text = format!("suppressed: {}, line {line}", list.display());
        assert_eq!(
            (row.status.as_str(), row.reply.as_str()),
            ("suppressed", text.as_str())
        );
    }
}

#[test]
fn mail_that_an_earlier_run_left_is_held_back_too() {
    let lab = Lab::with_rules(&["domain=good.test stage=rcpt reply=\"451 4.3.0 later\" first=3"]);
    let ended = lab.send(&mixed(), &["--run-for", "1ms", "--retry-min", "1h"]);
    ended.assert_status(75);
    let left = ended.count("deferred") + ended.count("queued");
    assert!(left > 0, "{}", ended.stderr);
    let all = lab.file(
        "all.txt",
        "good.test\ngone.test\nsub.gone.test\nbelow.test\na.below.test\n",
    );
    let jobs = lab.jobs();
    let job = jobs[0].file_name().unwrap().to_str().unwrap();
    let report = lab.path("report.csv");
    let arguments = [
        job,
        "--suppress",
        all.to_str().unwrap(),
        "--report",
        report.to_str().unwrap(),
    ];
    let ended = lab.resume(&arguments);
    ended.assert_status(0);
    assert_eq!(ended.count("suppressed"), left, "{}", ended.stderr);
    lab.assert_agrees(&ended);
}

#[test]
fn a_list_that_cannot_be_understood_stops_everything() {
    let lab = Lab::with_rules(&[]);
    let list = lab.file("list.txt", "ann@good.test\nbob at good.test\n");
    let ended = lab.send(&mixed(), &["--suppress", list.to_str().unwrap()]);
    assert_eq!(ended.status, Some(65), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("list.txt: suppression list: line 2: \"bob at good.test\" is neither"),
        "{}",
        ended.stderr
    );
    let ended = lab.send_again(&["--suppress", "/nowhere/list.txt"]);
    assert_eq!(ended.status, Some(66), "{}", ended.stderr);
    assert!(lab.received().is_empty());
}
