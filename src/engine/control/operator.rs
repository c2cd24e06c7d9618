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

use super::show::Rates;

use crate::control::log::Log;
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
use crate::queue::{self, Order, Unpromoted, Whom};

mod limits;
mod words;

use limits::Limits;
use words::{hit, in_words, rate_of};

/// How long queues may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Why a site does not move.
const RESTS: &str = "rests after a failure, or refuses our mail";
/// Names among which the nearest to a mistyped one is looked for.
const NAMES_LOOKED_AT: usize = 50_000;

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
            Request::Drop { domain } => self.drop_mail(domain),
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
                let answers = self.tell(&self.with_promoted(queue), &Order::Pause(Whom::Queue));
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
                let answers = self.tell(&self.with_promoted(queue), &Order::Resume(Whom::Queue));
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

    fn drop_mail(&mut self, domain: &str) -> Outcome {
        let (id, name) = self.domain(domain)?;
        let answers = self.tell_all(&Order::Drop(id));
        let hit = hit(&answers);
        Ok(format!(
            "{} of {name} left pending for this run{}",
            hit.recipients(),
            hit.under_way()
        ))
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
        self.ask_general(id, &name, &Order::Promote(id))?;
        Ok(format!("the servers of {name} have a queue of their own"))
    }

    fn demote(&mut self, domain: &str) -> Outcome {
        let (id, name) = self.domain(domain)?;
        // The queue that has the site knows whether it can give it back.
        let promoted = self.with_promoted(QueueId::GENERAL).split_off(1);
        let answers = self.tell(&promoted, &Order::Demote(id));
        let known = answers
            .into_iter()
            .filter_map(|(_, answer)| answer.promotion);
        let mut known = known.filter(|it| matches!(it, Ok(_) | Err(Unpromoted::Rests)));
        match known.next() {
            Some(Ok(_)) => {}
            Some(Err(_)) => return Err((format!("{name} {RESTS}"), None)),
            None => self.ask_general(id, &name, &Order::Demote(id))?,
        }
        let said = format!("the mail of {name} goes back to the general queue, and stays there");
        Ok(said)
    }

    /// Orders the general queue to promote a site, or to take it back.
    fn ask_general(
        &mut self,
        id: DestinationId,
        name: &str,
        order: &Order,
    ) -> Result<(), (String, Option<String>)> {
        let answers = self.tell(&[QueueId::GENERAL], order);
        let answer = answers.into_iter().find_map(|(_, answer)| answer.promotion);
        let is_promotion = matches!(order, Order::Promote(_));
        let why = match answer {
            Some(Ok(_)) => return Ok(()),
            Some(Err(Unpromoted::Already)) if is_promotion => "has a queue of its own already",
            Some(Err(Unpromoted::Already)) => "is in the general queue already",
            Some(Err(Unpromoted::Unknown)) => match self.configured_queue_of(id) {
                Some(queue) => return Err((format!("{name} belongs to queue {queue}"), None)),
                None => "has no servers that are known yet",
            },
            Some(Err(Unpromoted::Rests)) => RESTS,
            Some(Err(Unpromoted::NoQueue)) => "can have none: all queues for sites are taken",
            Some(Err(Unpromoted::Never)) => "is not for the general queue to promote in this run",
            None => "stays where it is: the queue did not answer",
        };
        Err((format!("{name} {why}"), None))
    }

    /// The queue of the configuration that handles a destination, if one does.
    fn configured_queue_of(&mut self, id: DestinationId) -> Option<String> {
        let look = Order::Look {
            sites: 0,
            about: Some(id),
        };
        let configured = (1..self.levers.routes.queues()).map(|at| QueueId(at as u16));
        let answers = self.tell(&configured.collect::<Vec<_>>(), &look);
        let (queue, _) = answers.iter().find(|(_, answer)| answer.knows)?;
        Some(self.queue_name(*queue))
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

    /// A queue; with the general one, those for the sites that were promoted out of it, or will be.
    fn with_promoted(&self, queue: QueueId) -> Vec<QueueId> {
        let slots = match queue {
            QueueId::GENERAL => self.levers.routes.queues()..self.levers.inboxes.len(),
            _ => 0..0,
        };
        let promoted = slots.map(|at| QueueId(at as u16));
        std::iter::once(queue).chain(promoted).collect()
    }

    /// Gives an order to queues, and waits for their answers. A queue that has ended gives none, nor does one for a promoted
    /// site before it has had any: it obeys when it starts.
    fn tell(&mut self, queues: &[QueueId], order: &Order) -> Vec<(QueueId, Answer)> {
        self.number += 1;
        let number = self.number;
        let tell = |queue: &&QueueId| {
            let is_there = self.levers.slots.has_thread(**queue);
            let is_for_now = matches!(order, Order::Look { .. } | Order::Demote(_));
            if !is_there && is_for_now {
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
        let all = (0..self.levers.routes.queues()).map(|at| QueueId(at as u16));
        if found.is_none() && all.into_iter().any(|id| self.queue_name(id) == text) {
            let hint = format!("`mailer ctl pause {text}` holds all of its mail");
            return Err((format!("{text} is a queue: name a domain"), Some(hint)));
        }
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
