//! What becomes of a request: names are looked up, limits changed, orders given to the queues, their answers put into words.
//!
//! Every order but a look goes into the journal, with what was answered, errors included.
//!
//! INVARIANT: nothing is changed by an order that is answered with an error.
//!
//! Limits: a domain is known from its first recipient on. Where all mail goes to relays, domains cannot be told apart. The
//! nearest name is looked for among the first [`NAMES_LOOKED_AT`].

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::log::Log;
use super::show::Rates;
use crate::control::{Reply, Request};
use crate::engine::levers::Levers;
use crate::engine::resolve::Exchange;
use crate::engine::router::DestinationNames;
use crate::engine::settings::Settings;
use crate::engine::shared::{EarlyEnd, Shared};
use crate::mail::{
    DestinationId, Domain, Enhanced, QueueId, Scope, SiteId, Stage, Status, Verdict,
};
use crate::queue::event::Event;
use crate::queue::{self, Order, Rate, Unpromoted, Whom};

/// How long queues may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Names among which the nearest to a mistyped one is looked for.
const NAMES_LOOKED_AT: usize = 50_000;
/// The most workers or sessions that can be asked for.
const MOST: u32 = 100_000;

/// What a queue answers.
pub(super) type Answer = queue::Answer<Arc<Exchange>>;
/// What was done, or why nothing was, and a hint.
type Outcome = Result<String, (String, Option<String>)>;

/// Carries requests out.
pub struct Operator {
    pub(super) levers: Arc<Levers>,
    pub(super) shared: Arc<Shared>,
    pub(super) names: DestinationNames,
    pub(super) rates: Rates,
    pub(super) began: Instant,
    answers: Receiver<(QueueId, Answer)>,
    number: u64,
    log: Option<Log>,
}

/// Whom a request is about.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Target {
    All,
    Queue(QueueId),
    Domain(DestinationId, Arc<str>),
}

/// New limits.
#[derive(Clone, Copy, Debug)]
struct Limits {
    max_workers: Option<u32>,
    max_sessions: Option<u32>,
    /// `Some(None)`: no limit any more.
    rate: Option<Option<Rate>>,
}

impl Operator {
    /// An operator with these levers. `answers` is where queues answer orders.
    pub fn new(
        levers: Arc<Levers>,
        shared: Arc<Shared>,
        names: DestinationNames,
        answers: Receiver<(QueueId, Answer)>,
    ) -> Operator {
        Operator {
            levers,
            shared,
            names,
            rates: Rates::default(),
            began: Instant::now(),
            answers,
            number: 0,
            log: None,
        }
    }

    /// Writes a journal of orders in this directory from now on.
    pub fn keep_log(&mut self, dir: &Path) {
        self.log = Some(Log::new(dir));
    }

    /// Carries out what the user `uid` asks.
    pub fn obey(&mut self, request: &Request, uid: u32) -> Reply {
        if let Request::Show { sites } = request {
            return self.show(sites.unwrap_or(20).min(1000) as usize);
        }
        let outcome = self.carry_out(request);
        if let Some(log) = &self.log {
            let answer = match &outcome {
                Ok(said) => said.clone(),
                Err((said, _)) => format!("error: {said}"),
            };
            log.add(uid, &in_words(request), &answer);
        }
        match outcome {
            Ok(said) => Reply::Done { said },
            Err((said, hint)) => Reply::Error { said, hint },
        }
    }

    fn carry_out(&mut self, request: &Request) -> Outcome {
        match request {
            Request::Show { .. } => Ok(String::new()),
            Request::Set {
                target,
                max_workers,
                max_sessions,
                rate,
            } => {
                let limits = Limits {
                    max_workers: *max_workers,
                    max_sessions: *max_sessions,
                    rate: rate.as_deref().map(rate_of).transpose()?,
                };
                self.set(target, limits)
            }
            Request::Pause { target } => self.pause(target.as_deref()),
            Request::Resume { target } => self.resume(target.as_deref()),
            Request::Drop { domain } => {
                let (id, name) = self.domain(domain)?;
                let answers = self.tell_all(&Order::Drop(id));
                let hit = hit(&answers);
                Ok(format!(
                    "{} of {name} left pending for this run{}",
                    hit.recipients(),
                    hit.under_way()
                ))
            }
            Request::Fail { domain, reason } => self.fail(domain, reason.as_deref()),
            Request::Promote { domain } => self.promote(domain),
            Request::Demote { domain } => self.demote(domain),
            Request::Stop => {
                self.shared.end_early(EarlyEnd::Order);
                Ok("stopping: transactions under way may end, nothing new begins".into())
            }
        }
    }

    fn pause(&mut self, target: Option<&str>) -> Outcome {
        let (hit, what) = match self.target_or_all(target)? {
            Target::All => {
                let answers = self.tell_all(&Order::Pause(Whom::All));
                (hit(&answers), String::new())
            }
            Target::Queue(queue) => {
                let answers = self.tell(&[queue], &Order::Pause(Whom::Queue));
                (
                    hit(&answers),
                    format!(" of queue {}", self.queue_name(queue)),
                )
            }
            Target::Domain(id, name) => {
                let answers = self.tell_all(&Order::Pause(Whom::Destination(id)));
                (hit(&answers), format!(" of {name}"))
            }
        };
        Ok(format!(
            "{}{what} held{}",
            hit.recipients(),
            hit.under_way()
        ))
    }

    fn resume(&mut self, target: Option<&str>) -> Outcome {
        let (answers, what) = match self.target_or_all(target)? {
            Target::All => (self.tell_all(&Order::Resume(Whom::All)), String::new()),
            Target::Queue(queue) => {
                let answers = self.tell(&[queue], &Order::Resume(Whom::Queue));
                (answers, format!(" of queue {}", self.queue_name(queue)))
            }
            Target::Domain(id, name) => {
                let answers = self.tell_all(&Order::Resume(Whom::Destination(id)));
                (answers, format!(" of {name}"))
            }
        };
        let recipients = hit(&answers).recipients();
        let own = answers
            .iter()
            .filter(|(_, answer)| answer.knows || what.is_empty());
        let own: Vec<_> = own.collect();
        if let Some((queue, _)) = own.iter().find(|(_, answer)| answer.is_paused) {
            let queue = self.queue_name(*queue);
            return Ok(format!(
                "{recipients}{what} still held: queue {queue} is paused"
            ));
        }
        let still: Vec<DestinationId> = match what.starts_with(" of queue") {
            true => own
                .iter()
                .flat_map(|(_, answer)| answer.paused.clone())
                .collect(),
            false => Vec::new(),
        };
        let still = match still.len() {
            0 => String::new(),
            1 => format!("; {} is still paused", self.name_of(still[0])),
            some => format!("; {some} domains are still paused"),
        };
        Ok(format!("{recipients}{what} go on{still}"))
    }

    fn fail(&mut self, domain: &str, reason: Option<&str>) -> Outcome {
        let (id, name) = self.domain(domain)?;
        let text = match reason.map(str::trim).filter(|reason| !reason.is_empty()) {
            Some(reason) => format!("refused by the operator: {reason}"),
            None => "refused by the operator".to_owned(),
        };
        let enhanced = Enhanced::new(5, 7, 1);
        let verdict = Verdict::own(
            Status::Refused,
            Scope::Domain,
            Stage::Batch,
            enhanced,
            &text,
        );
        let answers = self.tell_all(&Order::Fail(id, Arc::new(verdict)));
        let hit = hit(&answers);
        Ok(format!(
            "{} of {name} settled as refused (mail in doubt stays in doubt){}",
            hit.recipients(),
            hit.under_way()
        ))
    }

    fn promote(&mut self, domain: &str) -> Outcome {
        let (id, name) = self.domain(domain)?;
        self.ask_general(&name, &Order::Promote(id))?;
        Ok(format!("the servers of {name} have a queue of their own"))
    }

    fn demote(&mut self, domain: &str) -> Outcome {
        let (id, name) = self.domain(domain)?;
        self.ask_general(&name, &Order::Demote(id))?;
        let said = format!("the mail of {name} goes back to the general queue, and stays there");
        Ok(said)
    }

    /// Orders the general queue to promote a site, or to take it back.
    fn ask_general(&mut self, name: &str, order: &Order) -> Result<(), (String, Option<String>)> {
        let answers = self.tell(&[QueueId::GENERAL], order);
        let answer = answers.into_iter().find_map(|(_, answer)| answer.promotion);
        let is_promotion = matches!(order, Order::Promote(_));
        let why = match answer {
            Some(Ok(_)) => return Ok(()),
            Some(Err(Unpromoted::Already)) if is_promotion => "has a queue of its own already",
            Some(Err(Unpromoted::Already)) => "is in the general queue already",
            Some(Err(Unpromoted::Unknown)) => "has no servers that are known yet",
            Some(Err(Unpromoted::Rests)) => "rests after a failure, or refuses our mail",
            Some(Err(Unpromoted::NoQueue)) => "can have none: all queues for sites are taken",
            Some(Err(Unpromoted::Never)) => "is not for the general queue to promote in this run",
            None => "stays where it is: the queue did not answer",
        };
        Err((format!("{name} {why}"), None))
    }

    fn set(&mut self, target: &str, limits: Limits) -> Outcome {
        let numbers = [limits.max_workers, limits.max_sessions];
        if numbers
            .iter()
            .flatten()
            .any(|most| !(1..=MOST).contains(most))
        {
            return Err((format!("a maximum is between 1 and {MOST}"), None));
        }
        if numbers == [None; 2] && limits.rate.is_none() {
            let hint = "mailer ctl set QUEUE max-workers=N max-sessions=N rate=R";
            return Err(("set what?".into(), Some(hint.into())));
        }
        match self.target(target)? {
            Target::All | Target::Queue(QueueId::GENERAL) => self.set_general(limits),
            Target::Queue(queue) => self.set_queue(queue, limits),
            Target::Domain(id, name) => self.set_site(id, &name, limits),
        }
    }

    fn set_general(&mut self, limits: Limits) -> Outcome {
        let queues = self.levers.routes.queues() as u32;
        if limits.max_workers.is_some_and(|most| most < queues) {
            let text = format!("there are {queues} queues: each needs a worker");
            return Err((text, None));
        }
        let room = self.levers.room;
        Ok(self.levers.change(|settings| {
            let mut said = Vec::new();
            if let Some(most) = limits.max_workers {
                let before = std::mem::replace(&mut settings.workers_max, most.min(room));
                said.push(changed(most.min(room), before, "workers"));
                if most > room {
                    said.push(format!("this machine has room for {room}"));
                }
            }
            if let Some(most) = limits.max_sessions {
                let before = std::mem::replace(&mut settings.sessions_per_site, most);
                said.push(changed(most, before, "sessions with a site"));
            }
            if let Some(rate) = limits.rate {
                let before = std::mem::replace(&mut settings.rate, rate);
                said.push(format!("{} to a site", changed_rate(rate, before)));
            }
            format!("all queues together: {}", said.join("; "))
        }))
    }

    fn set_queue(&mut self, queue: QueueId, limits: Limits) -> Outcome {
        let name = self.queue_name(queue);
        let said = self.levers.change(|settings| {
            let (workers_max, sessions) = (settings.workers_max, settings.sessions_per_site);
            let own = settings.queues.iter_mut().find(|own| own.name == name)?;
            let mut said = Vec::new();
            if let Some(most) = limits.max_workers {
                let before = own.workers_max.replace(most).unwrap_or(workers_max);
                said.push(changed(most, before, "workers"));
                if most > workers_max {
                    said.push(format!("all queues together have {workers_max}"));
                }
            }
            if let Some(most) = limits.max_sessions {
                let before = own.sessions_per_site.replace(most).unwrap_or(sessions);
                said.push(changed(most, before, "sessions with a site"));
                if most > sessions {
                    said.push(format!("the general maximum is {sessions}"));
                }
            }
            if let Some(rate) = limits.rate {
                let before = std::mem::replace(&mut own.rate, rate);
                said.push(changed_rate(rate, before));
            }
            Some(format!("queue {name}: {}", said.join("; ")))
        });
        // A configuration that was read again may have lost it.
        said.ok_or_else(|| (format!("queue {name} is not in the configuration"), None))
    }

    fn set_site(&mut self, id: DestinationId, name: &str, limits: Limits) -> Outcome {
        if limits.max_workers.is_some() {
            let hint = "its sessions are limited by max-sessions=N";
            let text = format!("{name} is a domain: only queues have workers of their own");
            return Err((text, Some(hint.into())));
        }
        let (site, others) = self.site_of(id, name)?;
        let mut said = Vec::new();
        let permits = &self.levers.permits;
        let before = permits.site_status(site);
        permits.set_site_bounds(site, limits.max_sessions, limits.rate);
        if let Some(most) = limits.max_sessions {
            said.push(changed(most, before.bounds.max, "sessions"));
        }
        if let Some(rate) = limits.rate {
            let before = before.rate_per_minute.map(|rate| format!("{rate:.0}/min"));
            said.push(format!(
                "{}, until now {}",
                rate_in_words(rate),
                before.as_deref().unwrap_or("without limit")
            ));
        }
        // Queues that were refused for the old limit look again.
        self.levers.change(|_| ());
        let others = match others {
            0 => String::new(),
            1 => " and another domain that its servers serve".to_owned(),
            some => format!(" and {some} other domains that its servers serve"),
        };
        Ok(format!("{name}{others}: {}", said.join("; ")))
    }

    /// The site of a destination, and how many other domains it serves.
    fn site_of(
        &mut self,
        id: DestinationId,
        name: &str,
    ) -> Result<(SiteId, usize), (String, Option<String>)> {
        let look = Order::Look {
            sites: 0,
            about: Some(id),
        };
        let answers = self.tell_all(&look);
        let found = answers.iter().find_map(|(_, answer)| answer.site);
        let (site, count) = found.ok_or_else(|| {
            let text = format!("the servers of {name} are not known yet");
            (text, Some("try again in a moment".to_owned()))
        })?;
        Ok((site, count.saturating_sub(1)))
    }

    /// Gives an order to all queues.
    pub(super) fn tell_all(&mut self, order: &Order) -> Vec<(QueueId, Answer)> {
        let all: Vec<QueueId> = (0..self.levers.inboxes.len())
            .map(|at| QueueId(at as u16))
            .collect();
        self.tell(&all, order)
    }

    /// Gives an order to queues, and waits for their answers. A queue that has ended gives none, nor does one for a promoted
    /// site before it has had any: it obeys when it starts.
    fn tell(&mut self, queues: &[QueueId], order: &Order) -> Vec<(QueueId, Answer)> {
        self.number += 1;
        let number = self.number;
        let tell = |queue: &&QueueId| {
            let is_there = self.levers.slots.has_thread(**queue);
            if !is_there && matches!(order, Order::Look { .. }) {
                return false;
            }
            let order = order.clone();
            let event = Event::Order { number, order };
            self.levers.inboxes[queue.index()].send(event).is_ok() && is_there
        };
        let told = queues.iter().filter(tell).count();
        let until = Instant::now() + PATIENCE;
        let mut answers = Vec::new();
        while answers.len() < told {
            match self.answers.recv_deadline(until) {
                Ok((queue, answer)) if answer.number == number => answers.push((queue, answer)),
                Ok(_) => {} // late, to an order before
                Err(_) => break,
            }
        }
        answers.sort_by_key(|(queue, _)| queue.index());
        answers
    }

    pub(super) fn queue_name(&self, queue: QueueId) -> String {
        let gauges = self.shared.gauges.queues.get(queue.index());
        gauges.map_or_else(String::new, |gauges| gauges.name().to_string())
    }

    pub(super) fn name_of(&self, id: DestinationId) -> String {
        let (origin, _) = queue::origin_of(id);
        let name = self.names.get(origin.index());
        name.map_or("?".to_owned(), |name| name.to_string())
    }

    fn target_or_all(&self, text: Option<&str>) -> Result<Target, (String, Option<String>)> {
        text.map_or(Ok(Target::All), |text| self.target(text))
    }

    fn target(&self, text: &str) -> Result<Target, (String, Option<String>)> {
        // A queue for a promoted site goes by the name of a domain: it is the domain that is meant.
        let all = (0..self.levers.routes.queues()).map(|at| QueueId(at as u16));
        if let Some(queue) = all.into_iter().find(|id| self.queue_name(*id) == text) {
            return Ok(Target::Queue(queue));
        }
        if text == "all" {
            return Ok(Target::All);
        }
        self.domain(text).map(|(id, name)| Target::Domain(id, name))
    }

    /// A domain of this run.
    fn domain(&self, text: &str) -> Result<(DestinationId, Arc<str>), (String, Option<String>)> {
        let parsed = Domain::parse(text).ok();
        let wanted = parsed.as_ref().map_or(text, Domain::as_str);
        let found = self.names.iter().find(|(_, name)| ***name == *wanted);
        let Some((at, name)) = found else {
            let text = format!("no queue and no domain that was met so far is called `{text}`");
            let near = self.nearest(wanted);
            return Err((text, near.map(|name| format!("did you mean `{name}`?"))));
        };
        if !self.shared.settings.relays.is_empty() {
            let text = format!("all mail goes to relays: that of {name} is not told apart");
            return Err((text, Some("name a queue instead".into())));
        }
        Ok((DestinationId(at as u32), Arc::clone(name)))
    }

    fn nearest(&self, wanted: &str) -> Option<String> {
        let queues = (0..self.levers.routes.queues()).map(|at| self.queue_name(QueueId(at as u16)));
        let domains = self.names.iter().take(NAMES_LOOKED_AT);
        let all = queues.chain(domains.map(|(_, name)| name.to_string()));
        let far = |name: String| (strsim::damerau_levenshtein(wanted, &name), name);
        let near = all.map(far).min()?;
        (near.0 <= wanted.len().div_ceil(3)).then_some(near.1)
    }

    /// The settings whose limits are in force.
    pub(super) fn settings(&self) -> Settings {
        self.levers.in_force()
    }
}

/// What an order has hit, in all queues.
struct Hit {
    recipients: usize,
    in_hand: usize,
}

fn hit(answers: &[(QueueId, Answer)]) -> Hit {
    Hit {
        recipients: answers.iter().map(|(_, answer)| answer.recipients).sum(),
        in_hand: answers.iter().map(|(_, answer)| answer.in_hand).sum(),
    }
}

impl Hit {
    /// `5,200 recipients`.
    fn recipients(&self) -> String {
        match self.recipients {
            1 => "1 recipient".into(),
            some => format!("{} recipients", grouped(some)),
        }
    }

    fn under_way(&self) -> String {
        match self.in_hand {
            0 => String::new(),
            some => format!(
                "; {} in workers' hands: messages under way end, the rest comes back",
                grouped(some)
            ),
        }
    }
}

/// `5,200`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<String> = groups
        .map(|group| String::from_utf8_lossy(group).into_owned())
        .collect();
    groups.join(",")
}

/// `at most 20 workers, until now 3`.
fn changed(now: u32, before: u32, what: &str) -> String {
    format!("at most {now} {what}, until now {before}")
}

/// A rate as it is typed.
fn rate_of(text: &str) -> Result<Option<Rate>, (String, Option<String>)> {
    match text {
        "none" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|error| (format!("rate: {error}"), None)),
    }
}

/// `at most 600/min`.
fn rate_in_words(rate: Option<Rate>) -> String {
    rate.map_or("no limit of the rate".to_owned(), |rate| {
        format!("at most {rate}")
    })
}

fn changed_rate(now: Option<Rate>, before: Option<Rate>) -> String {
    let before = before.map_or("without limit".to_owned(), |rate| rate.to_string());
    format!("{}, until now {before}", rate_in_words(now))
}

/// An order as it could have been typed.
fn in_words(request: &Request) -> String {
    let with = |verb: &str, target: &Option<String>| match target {
        Some(target) => format!("{verb} {target}"),
        None => verb.to_owned(),
    };
    match request {
        Request::Show { .. } => "show".into(),
        Request::Set {
            target,
            max_workers,
            max_sessions,
            rate,
        } => {
            let mut words = format!("set {target}");
            let numbers = [("max-workers", max_workers), ("max-sessions", max_sessions)];
            for (key, value) in numbers {
                if let Some(value) = value {
                    words.push_str(&format!(" {key}={value}"));
                }
            }
            if let Some(rate) = rate {
                words.push_str(&format!(" rate={rate}"));
            }
            words
        }
        Request::Pause { target } => with("pause", target),
        Request::Resume { target } => with("resume", target),
        Request::Promote { domain } => format!("promote {domain}"),
        Request::Demote { domain } => format!("demote {domain}"),
        Request::Drop { domain } => format!("drop {domain}"),
        Request::Fail { domain, reason } => match reason {
            Some(reason) => format!("fail {domain} --reason {reason}"),
            None => format!("fail {domain}"),
        },
        Request::Stop => "stop".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_in_threes() {
        let shown = [0, 7, 999, 1000, 5200, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "7", "999", "1,000", "5,200", "1,234,567"]);
    }

    #[test]
    fn an_order_is_journaled_as_it_could_be_typed() {
        let set = Request::Set {
            target: "big".into(),
            max_workers: Some(4),
            max_sessions: None,
            rate: Some("9/s".into()),
        };
        assert_eq!(in_words(&set), "set big max-workers=4 rate=9/s");
        assert_eq!(in_words(&Request::Pause { target: None }), "pause");
    }
}
