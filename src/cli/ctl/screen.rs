//! The screen of `mailer ctl show`: totals, queues, the busiest sites. Plain text, a line at most as wide as names are long.

use std::fmt::Write;

use crate::control::{QueueRow, Shown, SiteRow};
use crate::mail::verdict::printable;
use crate::report::summary::plural;

/// The screen for the job of this name.
pub fn screen(name: &str, shown: &Shown) -> String {
    let mut out = String::new();
    head(&mut out, name, shown);
    queues(&mut out, &shown.queues, shown.max_workers);
    sites(&mut out, &shown.sites);
    out
}

fn head(out: &mut String, name: &str, shown: &Shown) {
    let seconds = shown.elapsed_ms / 1000;
    let time = format!(
        "{}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    let state = match (shown.is_stopping, shown.is_paused) {
        (true, _) => ", stopping",
        (false, true) => ", all mail paused",
        (false, false) => "",
    };
    let _ = writeln!(out, "job {name}: process {}, {time}{state}", shown.pid);
    let counts: Vec<String> = shown
        .counts
        .iter()
        .map(|(status, count)| format!("{status} {count}"))
        .collect();
    let reading = if shown.is_read { "" } else { " (reading)" };
    let _ = writeln!(
        out,
        "{} of {}{reading}: {}; {:.0}/s",
        plural(shown.recipients, "recipient"),
        plural(shown.messages, "message"),
        counts.join(", "),
        shown.per_second
    );
    if !shown.paused.is_empty() {
        let names: Vec<String> = shown
            .paused
            .iter()
            .map(|name| printable(name, 80))
            .collect();
        let _ = writeln!(out, "paused: {}", names.join(", "));
    }
}

fn queues(out: &mut String, rows: &[QueueRow], max_workers: u32) {
    let _ = writeln!(
        out,
        "\n{:<22}{:>9}{:>7}{:>10}{:>9}{:>9}{:>9}{:>10}{:>8}",
        "QUEUE", "WORKERS", "READY", "WAITING", "HELD", "DELAYED", "IN HAND", "SETTLED", "PER S"
    );
    for row in rows {
        let paused = if row.is_paused { "  paused" } else { "" };
        let _ = writeln!(
            out,
            "{:<22}{:>9}{:>7}{:>10}{:>9}{:>9}{:>9}{:>10}{:>8.0}{paused}",
            printable(&row.name, 21),
            format!("{}/{}", row.workers, row.max_workers),
            row.ready,
            row.waiting - row.held.min(row.waiting),
            row.held,
            row.delayed,
            row.in_hand,
            row.settled,
            row.per_second
        );
    }
    let workers: u64 = rows.iter().map(|row| row.workers).sum();
    let _ = writeln!(
        out,
        "{:<22}{:>9}",
        "all",
        format!("{workers}/{max_workers}")
    );
}

fn sites(out: &mut String, rows: &[SiteRow]) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n{:<30}{:>10}{:>9}{:>9}{:>8}{:>9}  {:<8} ERROR",
        "SITE", "SESSIONS", "RATE/MIN", "WAITING", "HELD", "IN HAND", "GATE"
    );
    for row in rows {
        let rate = row.rate_per_minute;
        let rate = rate.map_or("-".to_owned(), |rate| format!("{rate:.0}"));
        let line = format!(
            "{:<30}{:>10}{rate:>9}{:>9}{:>8}{:>9}  {:<8} {}",
            site_name(row),
            format!("{}/{}", row.sessions, row.window),
            row.waiting,
            row.held,
            row.in_hand,
            row.gate,
            printable(row.error.as_deref().unwrap_or(""), 200)
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// `big.test` or `big.test +3`: the domain with most of the mail, and how many others its servers serve.
fn site_name(row: &SiteRow) -> String {
    let others = match row.domains.saturating_sub(1) {
        0 => String::new(),
        some => format!(" +{some}"),
    };
    let name = printable(&row.domain, 28 - others.len().min(10));
    format!("{name}{others}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_has_a_line_for_each_queue_and_site_and_no_control_characters() {
        let shown = Shown {
            pid: 7,
            elapsed_ms: 3_723_000,
            messages: 1,
            recipients: 9,
            counts: vec![("delivered".into(), 4), ("queued".into(), 5)],
            paused: vec!["a\u{1b}.test".into()],
            max_workers: 256,
            queues: vec![QueueRow {
                name: "big".into(),
                workers: 3,
                max_workers: 20,
                waiting: 5,
                held: 2,
                is_paused: true,
                ..QueueRow::default()
            }],
            sites: vec![SiteRow {
                domain: "a.test".into(),
                domains: 3,
                sessions: 2,
                window: 20,
                gate: "paused".into(),
                error: Some("450 4.7.1 l\u{1b}ater (at rcpt)".into()),
                ..SiteRow::default()
            }],
            ..Shown::default()
        };
        let text = screen("20261123-200001-3f9a (x.mbox)", &shown);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "job 20261123-200001-3f9a (x.mbox): process 7, 1:02:03",
                "9 recipients of 1 message (reading): delivered 4, queued 5; 0/s",
                "paused: a?.test",
            ]
        );
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(lines[5]), "big 3/20 0 3 2 0 0 0 0 paused");
        assert_eq!(words(lines[6]), "all 3/256");
        let site = "a.test +2 2/20 - 0 0 0 paused 450 4.7.1 l?ater (at rcpt)";
        assert_eq!(words(lines[9]), site);
        assert!(!text.contains('\u{1b}'));
    }
}
