//! What settings become: the tables and configurations that a run is put together from.
//!
//! Nothing is started here, and nothing of the mail is known. What contradicts itself is a [`StartError`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::permits::PermitLimits;
use super::resolve::{Finder, Means, Policies};
use super::run::StartError;
use super::settings::{DomainSettings, QueueSettings, Settings};
use super::sources;
use crate::dns::{Resolver, ResolverSettings};
use crate::mail::QueueId;
use crate::net::TlsNeeds;
use crate::queue::terms::{Bounds, SiteTerms};
use crate::queue::{DispatcherConfig, PromoteRules, Promotion};
use crate::retry::RetryPolicy;
use crate::route::{QueueRule, RouteTable};
use crate::smtp::TlsPolicy;

/// A promoted queue that has had no mail for so long hands its site back.
const PROMOTED_REST: Duration = Duration::from_secs(10);

/// Which queue handles what.
pub(super) fn routes(settings: &Settings) -> Result<RouteTable, StartError> {
    let rule = |queue: &QueueSettings| QueueRule {
        name: queue.name.clone(),
        domains: queue.domains.clone(),
        mx: queue.mx.clone(),
    };
    let rules: Vec<QueueRule> = settings.queues.iter().map(rule).collect();
    RouteTable::new(&rules).map_err(|error| StartError::Routes(error.to_string()))
}

/// The names of all queues, the general one first.
pub(super) fn queue_names(routes: &RouteTable) -> Vec<String> {
    let ids = (0..routes.queues()).map(|at| QueueId(at as u16));
    ids.map(|id| routes.name(id).to_owned()).collect()
}

/// How many queues there are for promoted sites. A worker is kept for each queue that has none, of a quarter of all workers:
/// there are no more queues than that. Relays are one site, which is nobody's to be promoted.
pub(super) fn promoted_queues(settings: &Settings) -> u16 {
    if !settings.promote.is_on || !settings.relays.is_empty() {
        return 0;
    }
    let configured = settings.queues.len() as u32 + 1;
    let room = (settings.workers_max / 4).saturating_sub(configured);
    settings
        .promote
        .queues_max
        .min(u16::try_from(room).unwrap_or(u16::MAX))
}

/// How hosts are found.
pub(super) fn means(settings: &Settings) -> Result<Means, StartError> {
    if !settings.relays.is_empty() {
        return Ok(Means::Relays(settings.relays.clone()));
    }
    let resolver = Resolver::start(ResolverSettings {
        servers: settings.dns.clone(),
        timeout: settings.dns_timeout,
        allow_loopback: settings.allow_loopback,
        ..ResolverSettings::default()
    });
    resolver
        .map(|resolver| Means::Dns(Box::new(resolver)))
        .map_err(|error| StartError::Resolver(error.to_string()))
}

/// What finds exchanges and names sites.
pub(super) fn finder(
    settings: &Settings,
    routes: &Arc<RouteTable>,
    policies: &Arc<Policies>,
) -> Result<Finder, StartError> {
    Ok(Finder::new(
        means(settings)?,
        settings.fallback.clone(),
        settings.port,
        Arc::clone(routes),
        Arc::clone(policies),
        Arc::clone(&settings.providers),
    ))
}

/// Who is protected how.
pub(super) fn policies(settings: &Settings) -> Result<Policies, StartError> {
    let rule = |domain: &DomainSettings| QueueRule {
        name: domain.pattern.clone(),
        domains: vec![domain.pattern.clone()],
        mx: Vec::new(),
    };
    let rules: Vec<QueueRule> = settings.domains.iter().map(rule).collect();
    let domains = RouteTable::new(&rules).map_err(|error| StartError::Routes(error.to_string()))?;
    Ok(Policies {
        general: settings.tls,
        queues: settings.queues.iter().map(|queue| queue.tls).collect(),
        domains,
        of_domains: settings.domains.iter().map(|domain| domain.tls).collect(),
    })
}

/// The connectors that the policies in force can ask for.
pub(super) fn tls_needs(settings: &Settings) -> TlsNeeds {
    let of_domains = settings.domains.iter().map(|domain| domain.tls);
    let of_queues = settings.queues.iter().filter_map(|queue| queue.tls);
    let policies: Vec<TlsPolicy> = of_domains.chain(of_queues).chain([settings.tls]).collect();
    let verifies = |policy: &TlsPolicy| *policy == TlsPolicy::Verify;
    // A relay with implicit TLS has it whatever the policy, which then only says whether its certificate matters.
    let mut relays = settings.relays.iter().chain(&settings.fallback);
    let is_implicit = relays.any(|relay| relay.implicit_tls);
    let accepts = |policy: &TlsPolicy| match policy {
        TlsPolicy::None => is_implicit,
        TlsPolicy::May | TlsPolicy::Require | TlsPolicy::Implicit => true,
        TlsPolicy::Verify => false,
    };
    TlsNeeds {
        accepting: policies.iter().any(accepts),
        verifying: policies.iter().any(verifies),
    }
}

/// What all queues share: the limits of the queues of these names, the general one first.
pub(super) fn permit_limits<'a>(
    settings: &Settings,
    workers_max: u32,
    queues: impl Iterator<Item = &'a str>,
) -> PermitLimits {
    let own = |name: &str| settings.queues.iter().find(|queue| queue.name == name);
    let limits = |name: &str| match own(name) {
        Some(queue) => (queue.sessions_per_site, queue.rate, queue.connect_rate),
        None => (None, None, None),
    };
    let terms = if settings.relays.is_empty() {
        site_terms(settings)
    } else {
        relay_terms(settings)
    };
    PermitLimits {
        workers_max,
        terms,
        source_rate: settings.source_rate,
        queues: queues.map(limits).collect(),
    }
}

/// What is known of any site before its first session.
pub(super) fn site_terms(settings: &Settings) -> SiteTerms {
    SiteTerms {
        bounds: Bounds {
            start: settings.window_start.unwrap_or(1),
            max: settings.sessions_per_site,
            step: settings.window_step,
        },
        rate: settings.rate,
        connect_rate: settings.connect_rate,
        ..SiteTerms::default()
    }
}

/// What is known of relays: they are the user's own, and need not be felt for.
pub(super) fn relay_terms(settings: &Settings) -> SiteTerms {
    let mut terms = site_terms(settings);
    terms.bounds.start = settings.window_start.unwrap_or(terms.bounds.max);
    terms
}

/// How a queue decides.
pub(super) fn dispatcher_config(id: QueueId, settings: &Settings) -> DispatcherConfig {
    let own = id
        .index()
        .checked_sub(1)
        .and_then(|at| settings.queues.get(at));
    let configured = settings.queues.len();
    let rules = PromoteRules {
        share: settings.promote.share,
        min: settings.promote.min,
        ..PromoteRules::new(QueueId(configured as u16 + 1), promoted_queues(settings))
    };
    let promotion = match id {
        _ if rules.queues == 0 => Promotion::Never,
        QueueId::GENERAL => Promotion::Watch(rules),
        id if id.index() > configured => Promotion::Promoted(PROMOTED_REST),
        _ => Promotion::Never,
    };
    let workers_max = own
        .and_then(|queue| queue.workers_max)
        .unwrap_or(settings.workers_max);
    DispatcherConfig {
        recipients_max: settings.recipients_max,
        sender_refusals: settings.sender_refusals,
        fallback_after: (!settings.fallback.is_empty()).then_some(settings.fallback_after),
        idle: settings.idle,
        promotion,
        sources: sources::count(&settings.bind),
        session_backlog: settings.session_backlog,
        retry: retry_policy(settings),
        ..DispatcherConfig::new(id, workers_max)
    }
}

/// How patient the run is.
pub(super) fn retry_policy(settings: &Settings) -> RetryPolicy {
    let now = Instant::now();
    let retry = &settings.retry;
    RetryPolicy {
        retry_min: retry.min,
        retry_max: retry.max,
        in_doubt_wait: retry.in_doubt_wait,
        in_doubt: retry.in_doubt,
        stop_at: now.checked_add(retry.run_for),
        expire_at: now.checked_add(retry.expire.saturating_sub(settings.age)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::settings::Relay;
    use crate::smtp::Protocol;

    #[test]
    fn the_connectors_that_any_policy_can_ask_for_are_made_and_no_others() {
        let needs = |general: TlsPolicy, domain: Option<TlsPolicy>, implicit_tls: bool| {
            let domain = domain.map(|tls| DomainSettings {
                pattern: "bank.test".into(),
                tls,
            });
            let relay = Relay {
                host: "relay.test".into(),
                port: 465,
                protocol: Protocol::Smtp,
                implicit_tls,
                socket: None,
            };
            let needs = tls_needs(&Settings {
                tls: general,
                domains: domain.into_iter().collect(),
                relays: vec![relay],
                ..Settings::default()
            });
            (needs.accepting, needs.verifying)
        };
        use TlsPolicy::{May, None as No, Require, Verify};
        assert_eq!(needs(No, None, false), (false, false));
        assert_eq!(needs(No, None, true), (true, false));
        assert_eq!(needs(May, None, false), (true, false));
        assert_eq!(needs(Verify, None, true), (false, true));
        assert_eq!(needs(No, Some(Require), false), (true, false));
        assert_eq!(needs(May, Some(Verify), false), (true, true));
    }
}
