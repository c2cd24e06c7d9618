//! What a run looks like: totals and queues from the gauges, sites from the queues and the permit table.
//!
//! Rates are of the last ten seconds, from samples of the gauges that the control thread takes each second.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::operator::{Answer, Operator};
use crate::control::{QueueRow, Reply, Shown, SiteRow};
use crate::engine::resolve::Exchange;
use crate::engine::status::Gauges;
use crate::mail::{QueueId, SiteId, Status, Verdict};
use crate::queue::{GateView, Order, SiteReport};

/// Samples that are kept.
const SAMPLES: usize = 10;

/// How many recipients each queue had settled at some moments, the oldest first.
#[derive(Default)]
pub(super) struct Rates {
    samples: VecDeque<(Instant, Vec<u64>)>,
}

impl Rates {
    fn add(&mut self, now: Instant, settled: Vec<u64>) {
        if self.samples.len() >= SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, settled));
    }

    /// Recipients settled per second by each queue since the oldest sample.
    fn now(&self, now: Instant, settled: &[u64]) -> Vec<f64> {
        let Some((then, before)) = self.samples.front() else {
            return vec![0.0; settled.len()];
        };
        // A moment after the first sample says little.
        let seconds = now.duration_since(*then).as_secs_f64().max(0.1);
        let pairs = settled.iter().zip(before);
        pairs
            .map(|(now, then)| now.saturating_sub(*then) as f64 / seconds)
            .collect()
    }
}

fn settled(gauges: &Gauges) -> Vec<u64> {
    let queues = gauges.queues.iter();
    queues.map(|queue| queue.settled.load(Relaxed)).collect()
}

impl Operator {
    /// Looks at the gauges, for rates. Once a second.
    pub fn sample(&mut self) {
        let settled = settled(&self.shared.gauges);
        self.rates.add(Instant::now(), settled);
    }

    /// How things are, with at most so many sites.
    pub(super) fn show(&mut self, sites: usize) -> Reply {
        let answers = self.tell_all(&Order::Look { sites, about: None });
        let gauges = Arc::clone(&self.shared.gauges);
        let settled = settled(&gauges);
        let rates = self.rates.now(Instant::now(), &settled);
        let settings = self.settings();
        let counts = Status::ALL.map(|status| (status.name().to_owned(), gauges.count(status)));
        let mut paused: Vec<_> = answers
            .iter()
            .flat_map(|(_, answer)| answer.paused.clone())
            .collect();
        paused.sort();
        paused.dedup();
        let mut queues = Vec::new();
        for (at, gauge) in gauges.queues.iter().enumerate() {
            let queue = QueueId(at as u16);
            let answer = answers.iter().find(|(id, _)| *id == queue);
            let name = self.queue_name(queue);
            if name.is_empty() {
                continue; // it waits for a site to be promoted
            }
            let own = settings.queues.iter().find(|own| own.name == name);
            queues.push(QueueRow {
                max_workers: own
                    .and_then(|own| own.workers_max)
                    .unwrap_or(settings.workers_max),
                name,
                workers: gauge.workers.load(Relaxed),
                ready: gauge.ready.load(Relaxed),
                waiting: gauge.waiting.load(Relaxed),
                held: gauge.held.load(Relaxed),
                delayed: gauge.delayed.load(Relaxed),
                in_hand: gauge.in_hand.load(Relaxed),
                settled: settled[at],
                per_second: rates[at],
                is_paused: answer.is_some_and(|(_, answer)| answer.is_paused),
            });
        }
        Reply::Show(Box::new(Shown {
            pid: std::process::id(),
            elapsed_ms: self.began.elapsed().as_millis() as u64,
            is_stopping: self.shared.is_stopping(),
            is_read: gauges.read.load(Relaxed),
            messages: gauges.messages.load(Relaxed),
            recipients: gauges.recipients.load(Relaxed),
            counts: counts.into_iter().filter(|(_, count)| *count > 0).collect(),
            per_second: rates.iter().sum(),
            max_workers: settings.workers_max,
            is_paused: !answers.is_empty() && answers.iter().all(|(_, answer)| answer.is_paused),
            paused: paused.into_iter().map(|id| self.name_of(id)).collect(),
            queues,
            sites: self.sites(answers, sites),
        }))
    }

    /// The busiest sites of all queues; what several queues say of one is added up.
    fn sites(&self, answers: Vec<(QueueId, Answer)>, most: usize) -> Vec<SiteRow> {
        let mut rows: HashMap<SiteId, SiteRow> = HashMap::new();
        for (queue, answer) in answers {
            for report in answer.sites {
                let site = report.view.site;
                let row = rows
                    .entry(site)
                    .or_insert_with(|| self.site_row(queue, &report));
                row.waiting += report.view.waiting as u64;
                row.held += report.held as u64;
                row.in_hand += report.in_hand as u64;
                row.left += report.view.left as u64;
            }
        }
        let mut rows: Vec<SiteRow> = rows.into_values().collect();
        let key = |row: &SiteRow| (row.waiting + row.held + row.in_hand, row.sessions, row.left);
        rows.sort_by(|a, b| key(b).cmp(&key(a)).then(a.domain.cmp(&b.domain)));
        rows.truncate(most);
        rows
    }

    /// A row whose sums are still to be made.
    fn site_row(&self, queue: QueueId, report: &SiteReport<Arc<Exchange>>) -> SiteRow {
        let status = self.levers.permits.site_status(report.view.site);
        let best = report.plan.plan.hosts.first();
        SiteRow {
            host: best.map_or_else(String::new, |host| host.name.to_string()),
            domain: self.name_of(report.destination),
            domains: report.destinations,
            queue: self.queue_name(queue),
            sessions: status.held,
            window: status.window,
            rate_per_minute: status.rate_per_minute,
            gate: gate(report.view.gate).to_owned(),
            error: report.failure.as_deref().map(reason),
            ..SiteRow::default()
        }
    }
}

/// The word for a gate.
fn gate(gate: GateView) -> &'static str {
    match gate {
        GateView::Open => "open",
        GateView::Narrow => "narrow",
        GateView::Paused => "paused",
        GateView::Probe => "probe",
        GateView::Probing => "probing",
        GateView::Stopped => "stopped",
    }
}

/// `450 4.7.1 later (at rcpt)`.
fn reason(verdict: &Verdict) -> String {
    let mut said = String::new();
    if verdict.code > 0 {
        said.push_str(&format!("{} ", verdict.code));
    }
    if let Some(enhanced) = verdict.enhanced {
        said.push_str(&format!("{enhanced} "));
    }
    format!("{said}{} (at {})", verdict.text, verdict.stage.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rates_are_of_the_last_ten_samples() {
        let start = Instant::now();
        let mut rates = Rates::default();
        assert_eq!(rates.now(start, &[5]), [0.0]);
        for second in 0..30 {
            let now = start + Duration::from_secs(second);
            rates.add(now, vec![second * 100, 7]);
        }
        let now = start + Duration::from_secs(30);
        assert_eq!(rates.now(now, &[5000, 7]), [3000.0 / 10.0, 0.0]);
    }
}
