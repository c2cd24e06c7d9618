//! `set`: limits of all queues together, of one queue, of the site of a domain.
//!
//! What is set for queues changes the settings that are in force, as the configuration does when it is read again: the later
//! one wins. What is set for a site goes to the permit table, and stays.

use super::words::{changed, changed_rate, rate_in_words};
use super::{Operator, Outcome, Target};
use crate::mail::{DestinationId, QueueId};
use crate::queue::Rate;

/// The most workers or sessions that can be asked for.
const MOST: u32 = 100_000;

/// New limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_workers: Option<u32>,
    pub(super) max_sessions: Option<u32>,
    /// `Some(None)`: no limit any more.
    pub(super) rate: Option<Option<Rate>>,
}

impl Operator {
    /// Puts limits into force, and tells what held until now.
    pub(super) fn set(&mut self, target: &str, limits: Limits) -> Outcome {
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
        // Those for promoted sites do with what there is: they need a worker only while they have a site.
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
                said.push(format!("to each site {}", changed_rate(rate, before)));
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
            let general = self.settings().sessions_per_site;
            if most > general {
                said.push(format!("the general maximum is {general}"));
            }
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
}
