//! Progress on a terminal: an overall bar and the busiest queues. Drawn on standard error, never in a pipe.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::status::{Gauges, QueueGauges};
use crate::mail::Status;

const QUEUES_SHOWN: usize = 4;

/// The bars. They vanish when dropped.
#[derive(Debug)]
pub struct Progress {
    all: MultiProgress,
    total: ProgressBar,
    queues: Vec<ProgressBar>,
    before: Option<(Instant, Vec<u64>)>,
}

impl Progress {
    /// Bars on standard error.
    pub fn begin() -> Progress {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total = all.add(ProgressBar::new(0).with_style(style("{bar:28} {pos}/{len} {msg}")));
        Progress {
            all,
            total,
            queues: Vec::new(),
            before: None,
        }
    }

    /// Draws the gauges as they are `now`. Call it about ten times a second.
    pub fn tick(&mut self, gauges: &Gauges, now: Instant) {
        let pending: u64 = [Status::Queued, Status::Deferred, Status::InDoubt]
            .iter()
            .map(|s| gauges.count(*s))
            .sum();
        let recipients = gauges.recipients.load(Relaxed);
        self.total.set_length(recipients);
        self.total.set_position(recipients.saturating_sub(pending));
        self.total.set_message(headline(gauges));
        self.show_queues(gauges, now);
    }

    /// A line above the bars.
    pub fn note(&self, line: &str) {
        // A terminal that is gone needs no note.
        let _ = self.all.println(line);
    }

    fn show_queues(&mut self, gauges: &Gauges, now: Instant) {
        let settled: Vec<u64> = gauges
            .queues
            .iter()
            .map(|queue| queue.settled.load(Relaxed))
            .collect();
        let rates = match &self.before {
            Some((then, before)) => {
                let seconds = now.duration_since(*then).as_secs_f64();
                if seconds < 1.0 {
                    return;
                }
                settled
                    .iter()
                    .zip(before)
                    .map(|(now, then)| now.saturating_sub(*then) as f64 / seconds)
                    .collect()
            }
            None => vec![0.0; settled.len()],
        };
        self.before = Some((now, settled));
        let mut busiest: Vec<(usize, &QueueGauges)> = gauges.queues.iter().enumerate().collect();
        busiest.retain(|(_, queue)| queue.workers.load(Relaxed) + queue.waiting.load(Relaxed) > 0);
        busiest.sort_by_key(|(_, queue)| {
            std::cmp::Reverse(queue.waiting.load(Relaxed) + queue.workers.load(Relaxed))
        });
        busiest.truncate(QUEUES_SHOWN);
        while self.queues.len() < busiest.len() {
            self.queues.push(
                self.all
                    .add(ProgressBar::new(0).with_style(style("  {msg}"))),
            );
        }
        for (row, bar) in self.queues.iter().enumerate() {
            let text = busiest
                .get(row)
                .map(|(at, queue)| line(queue, rates[*at]))
                .unwrap_or_default();
            bar.set_message(text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        for bar in self.queues.iter().chain([&self.total]) {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn headline(gauges: &Gauges) -> String {
    let mut text = format!("delivered {}", gauges.count(Status::Delivered));
    for status in [
        Status::Refused,
        Status::Deferred,
        Status::InDoubt,
        Status::Invalid,
    ] {
        let count = gauges.count(status);
        if count > 0 {
            text.push_str(&format!(", {} {count}", status.name()));
        }
    }
    let held: u64 = gauges.queues.iter().map(|q| q.held.load(Relaxed)).sum();
    if held > 0 {
        text.push_str(&format!(", {held} paused (mailer ctl resume)"));
    }
    if !gauges.read.load(Relaxed) {
        text.push_str(" (reading)");
    }
    text
}

fn line(queue: &QueueGauges, rate: f64) -> String {
    format!(
        "{:<10} {:>4} workers {:>5} sending {:>8} waiting {:>7} delayed {:>6.0}/s",
        crate::mail::verdict::printable(&queue.name(), 10),
        queue.workers.load(Relaxed),
        queue.in_hand.load(Relaxed),
        queue.waiting.load(Relaxed),
        queue.delayed.load(Relaxed),
        rate
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headline_names_only_what_happened() {
        let gauges = Gauges::new(&["general".into()]);
        let mut counts = [0; Status::ALL.len()];
        counts[0] = 5;
        counts[1] = 2;
        gauges.show_counts(&counts);
        assert_eq!(headline(&gauges), "delivered 5, refused 2 (reading)");
    }

    #[test]
    fn a_queue_line_fits_a_narrow_terminal() {
        let gauges = Gauges::new(&["a queue of a very long name".into()]);
        assert!(line(&gauges.queues[0], 123.4).len() < 80);
    }
}
