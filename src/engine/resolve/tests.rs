//! Sites, their keys, and the policies towards them.

use super::*;
use crate::engine::settings::{QueueSettings, Settings};
use crate::engine::terms;
use crate::hosts::SiteRow;
use crate::queue::terms::Learned;
use crate::route::QueueRule;
use crate::smtp::Protocol;

fn relay(host: &str, port: u16) -> Relay {
    Relay {
        host: host.into(),
        port,
        protocol: Protocol::Smtp,
        implicit_tls: false,
        socket: None,
    }
}

fn policies() -> Policies {
    let rule = QueueRule {
        name: "d".into(),
        domains: vec![".bank.test".into()],
        mx: Vec::new(),
    };
    Policies {
        general: TlsPolicy::May,
        queues: vec![Some(TlsPolicy::Require), None],
        domains: RouteTable::new(&[rule]).unwrap(),
        of_domains: vec![TlsPolicy::Verify],
    }
}

fn of(policies: &Policies, domain: &str, queue: QueueId) -> TlsPolicy {
    policies.towards(domain, queue, None).0
}

fn finder(relays: Vec<Relay>) -> Finder {
    let strict = QueueRule {
        name: "strict".into(),
        mx: vec!["localhost".into()],
        ..QueueRule::default()
    };
    let routes = Arc::new(RouteTable::new(&[strict]).unwrap());
    let fallback = vec![relay("127.0.0.9", 587)];
    Finder::new(
        Means::Relays(relays),
        fallback,
        25,
        routes,
        Arc::new(policies()),
        Providers::built_in(),
    )
}

#[test]
fn relays_are_one_site_for_all_destinations_of_a_policy() {
    let relays = vec![relay("127.0.0.1", 2525), relay("127.0.0.2", 26)];
    let finder = finder(relays);
    let find = |name: &str, queue: u16| finder.find(name, QueueId(queue)).unwrap();
    let one = find("a.test", 0);
    assert_eq!(one.site, find("b.test", 0).site);
    assert_eq!(one.site, find("b.test", 2).site, "queues share a site");
    let strict = find("a.test", 1);
    assert_eq!(strict.exchange.tls, TlsPolicy::Require);
    let bank = find("x.bank.test", 0);
    assert_eq!(bank.exchange.tls, TlsPolicy::Verify);
    assert!(strict.site != one.site && bank.site != one.site && bank.site != strict.site);
    let ports: Vec<u16> = one
        .exchange
        .plan
        .ordered(&mut fastrand::Rng::with_seed(1))
        .iter()
        .map(|place| one.exchange.relay(place).unwrap().port)
        .collect();
    assert_eq!(ports, [2525, 26]);
}

#[test]
fn the_policy_is_that_of_the_queue_that_the_hosts_lead_to() {
    let finder = finder(vec![relay("localhost", 25)]);
    let found = finder.find("a.test", QueueId::GENERAL).unwrap();
    assert_eq!(found.queue, Some(QueueId(1)));
    assert_eq!(found.exchange.tls, TlsPolicy::Require);
    let found = finder.find("a.test", QueueId(2)).unwrap();
    assert_eq!((found.queue, found.exchange.tls), (None, TlsPolicy::May));
}

#[test]
fn a_policy_is_no_site_where_it_makes_no_difference() {
    let mut relay = relay("127.0.0.1", 465);
    let site = |relay: &Relay, tls| policy_among(std::slice::from_ref(relay), tls);
    use TlsPolicy::{May, Require, Verify};
    assert_ne!(site(&relay, May), site(&relay, Require));
    relay.implicit_tls = true;
    assert_eq!(site(&relay, May), site(&relay, Require));
    assert_ne!(site(&relay, May), site(&relay, Verify));
    relay.socket = Some("/run/lmtp".into());
    assert_eq!(site(&relay, May), site(&relay, Verify));
    assert_eq!(policy_among(&[], Verify), None);
}

#[test]
fn a_failure_names_the_relays_and_not_the_destination() {
    let relays = vec![relay("a.relay.invalid", 25), relay("b.relay.invalid", 25)];
    let finder = finder(relays);
    let subject = finder.subject("a.test", false);
    assert_eq!(subject, "relay a.relay.invalid, b.relay.invalid");
}

#[test]
fn a_domain_s_policy_goes_before_its_queue_s_and_that_before_the_general_one() {
    let policies = policies();
    assert_eq!(of(&policies, "x.bank.test", QueueId(1)), TlsPolicy::Verify);
    assert_eq!(of(&policies, "bank.test", QueueId(1)), TlsPolicy::Require);
    assert_eq!(of(&policies, "a.test", QueueId(2)), TlsPolicy::May);
    assert_eq!(of(&policies, "a.test", QueueId::GENERAL), TlsPolicy::May);
}

#[test]
fn fallback_relays_are_a_site_of_their_own_under_the_policy_of_the_destination() {
    let finder = finder(vec![relay("127.0.0.1", 2525)]);
    let own = finder.find("a.test", QueueId::GENERAL).unwrap();
    let fallback = |name: &str, queue| finder.find_fallback(name, QueueId(queue)).unwrap();
    let found = fallback("a.test", 0);
    assert_ne!(found.site, own.site);
    assert_eq!(found.site, fallback("b.test", 2).site);
    assert_eq!((found.queue, found.exchange.tls), (None, TlsPolicy::May));
    assert_eq!(found.exchange.relays[0].port, 587);
    assert_eq!(fallback("x.bank.test", 0).exchange.tls, TlsPolicy::Verify);
    let subject = finder.subject("a.test", true);
    assert_eq!(subject, "fallback relay 127.0.0.9");
}

#[test]
fn sites_are_numbered_by_their_set_of_hosts() {
    let finder = finder(vec![relay("::1", 1)]);
    let site = |name: &str| finder.site((name.into(), None)).0;
    let (a, b) = (site("mx1.a.test"), site("mx1.b.test"));
    assert_ne!(a, b);
    assert_eq!(a, site("mx1.a.test"));
}

#[test]
fn a_provider_that_is_known_for_tls_gets_nothing_in_clear_unless_somebody_says_so() {
    let all = Providers::built_in();
    let google = all.named("google").map(|provider| &**provider);
    let mut policies = policies();
    let towards =
        |policies: &Policies, domain: &str, queue| policies.towards(domain, QueueId(queue), google);
    let may = (TlsPolicy::Require, PolicyOrigin::Provider);
    assert_eq!(towards(&policies, "a.test", 0), may);
    let bank = (TlsPolicy::Verify, PolicyOrigin::Domain);
    assert_eq!(towards(&policies, "x.bank.test", 0), bank);
    policies.queues[1] = Some(TlsPolicy::May);
    assert_eq!(
        towards(&policies, "a.test", 2),
        (TlsPolicy::May, PolicyOrigin::Queue)
    );
    policies.general = TlsPolicy::None;
    assert_eq!(
        towards(&policies, "a.test", 0),
        (TlsPolicy::None, PolicyOrigin::General)
    );
    let proton = all.named("proton").map(|provider| &**provider);
    policies.general = TlsPolicy::May;
    assert_eq!(
        policies.towards("a.test", QueueId(0), proton).1,
        PolicyOrigin::General
    );
}

fn plan_of(site: &str) -> MxPlan {
    MxPlan {
        site: site.into(),
        hosts: Vec::new(),
        ttl: Duration::ZERO,
    }
}

#[test]
fn domains_of_a_provider_are_one_site_whatever_their_hosts() {
    let finder = finder(Vec::new());
    let all = Providers::built_in();
    let found = |site: &str| {
        let provider = all.of_hosts(site.split(',')).cloned();
        let tls = (TlsPolicy::May, PolicyOrigin::General);
        finder.found(plan_of(site), Vec::new(), provider, tls, None)
    };
    let one = found("a.mail.protection.outlook.com");
    let two = found("b.mail.protection.outlook.com");
    assert_eq!((one.site, &*one.key), (two.site, "provider office365"));
    let mixed = found("b.mail.protection.outlook.com,mx.example.org");
    assert_ne!(mixed.site, one.site);
    assert_eq!(&*mixed.key, "b.mail.protection.outlook.com,mx.example.org");
    // Limits are known, but for each of its sets.
    let (eu, us) = (found("eu.mimecast.com"), found("us.mimecast.com"));
    assert_ne!(eu.site, us.site);
    assert_eq!(&*eu.exchange.provider.unwrap().name, "mimecast");
}

#[test]
fn the_terms_of_a_site_come_from_its_queue_then_its_provider_then_all_and_from_what_was_learned() {
    let finder = finder(Vec::new());
    let all = Providers::built_in();
    let found = |site: &str, queue| {
        let provider = all.of_hosts(site.split(',')).cloned();
        let tls = (TlsPolicy::May, PolicyOrigin::General);
        finder.found(plan_of(site), Vec::new(), provider, tls, queue)
    };
    let mut settings = Settings::default();
    let google = found("aspmx.l.google.com", None);
    let terms = |settings: &Settings, found: &Found, rows: &[SiteRow]| {
        let terms = terms::of_site(settings, found, QueueId::GENERAL, rows);
        terms.map(|terms| terms.in_force())
    };
    assert_eq!(terms(&settings, &found("mx.a.test", None), &[]), None);
    let of_profile = terms(&settings, &google, &[]).unwrap();
    assert_eq!(of_profile.bounds.max, 5);
    assert_eq!(of_profile.messages_per_session, Some(50));
    settings.queues = vec![QueueSettings {
        sessions_per_site: Some(12),
        ..QueueSettings::default()
    }];
    let of_queue = found("aspmx.l.google.com", Some(QueueId(1)));
    assert_eq!(terms(&settings, &of_queue, &[]).unwrap().bounds.max, 12);
    settings.sessions_per_site = 3;
    assert_eq!(terms(&settings, &of_queue, &[]).unwrap().bounds.max, 3);
    let free = found("mx1.free.fr", None);
    assert_eq!(
        terms(&settings, &free, &[]).unwrap().rate,
        "1/s".parse().ok()
    );
    settings.rate = "30/min".parse().ok();
    assert_eq!(terms(&settings, &free, &[]).unwrap().rate, settings.rate);
    let row = |source: &str, window, ceiling| SiteRow {
        key: "mx.a.test".into(),
        source: source.into(),
        learned: Learned {
            window,
            sessions_ceiling: ceiling,
            ..Learned::default()
        },
        learned_ms: 0,
        seen_ms: 0,
    };
    let rows = [
        row("", 7, None),
        row("192.0.2.1", 9, Some(9)),
        row("192.0.2.2", 4, None),
    ];
    let learned = |settings: &Settings| {
        let terms = terms(settings, &found("mx.a.test", None), &rows);
        terms.and_then(|terms| terms.learned).unwrap()
    };
    assert_eq!(learned(&settings).window, 7);
    settings.bind = ["192.0.2.1", "192.0.2.2"]
        .map(|ip| ip.parse().unwrap())
        .to_vec();
    let careful = learned(&settings);
    assert_eq!((careful.window, careful.sessions_ceiling), (4, Some(9)));
}

#[test]
fn a_site_is_introduced_once_and_to_everybody_who_meets_it_at_the_same_time() {
    let finder = finder(vec![relay("127.0.0.1", 2525)]);
    let (one, two) = (
        finder.find("a.test", QueueId::GENERAL).unwrap(),
        finder.find("b.test", QueueId::GENERAL).unwrap(),
    );
    let mut times = 0;
    one.meet(|| times += 1);
    two.meet(|| times += 1);
    assert_eq!(times, 1);
}

#[test]
fn a_provider_s_session_serves_only_domains_with_that_server() {
    let all = Providers::built_in();
    let exchange = |name: &str, tls, provider: Option<&str>| Exchange {
        plan: MxPlan {
            hosts: vec![MxHost {
                preference: 1,
                name: name.into(),
                addresses: vec!["192.0.2.1".parse().unwrap()],
            }],
            ..plan_of(name)
        },
        port: 25,
        relays: Vec::new(),
        tls,
        provider: provider.and_then(|name| all.named(name)).cloned(),
    };
    let (same, other) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
    let of = |tls, provider| exchange("a.mail.protection.outlook.com", tls, provider);
    let rolled = of(TlsPolicy::May, Some("office365"));
    assert!(rolled.leads_to("a.mail.protection.outlook.com", other));
    assert!(rolled.leads_to("b.mail.protection.outlook.com", same));
    assert!(!rolled.leads_to("b.mail.protection.outlook.com", other));
    let verified = of(TlsPolicy::Verify, Some("office365"));
    assert!(!verified.leads_to("b.mail.protection.outlook.com", same));
    assert!(verified.leads_to("a.mail.protection.outlook.com", other));
    assert!(of(TlsPolicy::May, None).leads_to("b.mail.protection.outlook.com", other));
    assert!(of(TlsPolicy::May, Some("mimecast")).leads_to("x", other));
}
