//! The resolver against the in-process name server: every way a domain can have, lack or hide its mail exchangers.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailer::dns::{DnsFailure, Families, MxPlan, Resolver, ResolverSettings};
use mailer::mail::{Scope, Stage, Status};
use mailer::sink::dns::DnsServer;
use mailer::sink::zone::{Kind, Zone};
use mailer::sink::zone_text;

const ZONE: &str = "
    plain.test      MX 20 mx2.plain.test
    plain.test      MX 10 mx1.plain.test
    mx1.plain.test  A 192.0.2.1
    mx2.plain.test  A 192.0.2.2
    dual.test       MX 10 mx.dual.test
    mx.dual.test    A 192.0.2.3
    mx.dual.test    AAAA 2001:db8::3
    implicit.test   A 192.0.2.4
    implicit6.test  AAAA 2001:db8::4
    alias.test      CNAME plain.test
    aliasmx.test    MX 10 mxalias.test
    mxalias.test    CNAME mx1.plain.test
    null.test       NULLMX
    mixed.test      MX 0 .
    mixed.test      MX 10 mx1.plain.test
    nothing.test    MX 10 gone.nothing.test
    below.empty.test A 192.0.2.5
    half.test       MX 10 gone.half.test
    half.test       MX 20 broken.test
    good.test       MX 10 gone.good.test
    good.test       MX 20 broken.test
    good.test       MX 30 mx1.plain.test
    local.test      MX 10 lo.local.test
    lo.local.test   A 127.0.0.5
    lo.local.test   AAAA ::1
    ttl.test     60 MX 10 mx1.ttl.test
    mx1.ttl.test 30 A 192.0.2.6
    noexchange.test MX 10 implicit.test
    noexchange.test A 192.0.2.99
    slow.test       A 192.0.2.7
    DELAY slow.test 50ms
    SERVFAIL broken.test
    SILENT quiet.test
    lost.test       MX 10 mx.quiet.test
    NXDOMAIN gone.test
";

fn server() -> DnsServer {
    DnsServer::start(zone_text::parse(ZONE).unwrap()).unwrap()
}

fn settings(servers: Vec<SocketAddr>) -> ResolverSettings {
    ResolverSettings {
        servers,
        timeout: Duration::from_secs(5),
        attempts: 1,
        ..ResolverSettings::default()
    }
}

fn resolver(server: &DnsServer) -> Resolver {
    Resolver::start(settings(vec![server.address()])).unwrap()
}

/// For questions that are never answered.
fn impatient(servers: Vec<SocketAddr>) -> Resolver {
    let settings = ResolverSettings {
        timeout: Duration::from_millis(500),
        ..settings(servers)
    };
    Resolver::start(settings).unwrap()
}

fn hosts(plan: &MxPlan) -> Vec<(u16, &str)> {
    plan.hosts
        .iter()
        .map(|h| (h.preference, &*h.name))
        .collect()
}

#[test]
fn mx_records_come_in_order_with_their_addresses() {
    let server = server();
    let plan = resolver(&server).route_to("Plain.TEST").unwrap();
    assert_eq!(
        hosts(&plan),
        [(10, "mx1.plain.test"), (20, "mx2.plain.test")]
    );
    assert_eq!(plan.hosts[0].addresses, [Ipv4Addr::new(192, 0, 2, 1)]);
    assert_eq!(&*plan.site, "mx1.plain.test,mx2.plain.test");
}

#[test]
fn both_families_are_looked_up_or_the_one_that_is_wanted() {
    let server = server();
    let plan = resolver(&server).route_to("dual.test").unwrap();
    assert_eq!(plan.hosts[0].addresses.len(), 2);
    for (families, v6) in [(Families::Ipv4, false), (Families::Ipv6, true)] {
        let only = ResolverSettings {
            families,
            ..settings(vec![server.address()])
        };
        let plan = Resolver::start(only)
            .unwrap()
            .route_to("dual.test")
            .unwrap();
        assert_eq!(plan.hosts[0].addresses.len(), 1);
        assert_eq!(plan.hosts[0].addresses[0].is_ipv6(), v6);
    }
}

#[test]
fn without_mx_records_the_domain_is_its_own_exchange() {
    let server = server();
    let resolver = resolver(&server);
    let plan = resolver.route_to("Implicit.test.").unwrap();
    assert_eq!(hosts(&plan), [(0, "implicit.test")]);
    assert_eq!(&*plan.site, "implicit.test");
    assert!(resolver.route_to("implicit6.test").unwrap().hosts[0].addresses[0].is_ipv6());
}

#[test]
fn with_mx_records_addresses_of_the_domain_play_no_role() {
    let server = server();
    let plan = resolver(&server).route_to("noexchange.test").unwrap();
    assert_eq!(hosts(&plan), [(10, "implicit.test")]);
}

#[test]
fn aliases_are_followed_for_domains_and_for_exchanges() {
    let server = server();
    let resolver = resolver(&server);
    let plan = resolver.route_to("alias.test").unwrap();
    assert_eq!(&*plan.site, "mx1.plain.test,mx2.plain.test");
    let plan = resolver.route_to("aliasmx.test").unwrap();
    assert_eq!(hosts(&plan), [(10, "mxalias.test")]);
    assert_eq!(plan.hosts[0].addresses, [Ipv4Addr::new(192, 0, 2, 1)]);
}

#[test]
fn hard_failures_are_told_apart() {
    let server = server();
    let resolver = resolver(&server);
    for (domain, failure) in [
        ("gone.test", DnsFailure::NoSuchDomain),
        ("unheard-of.example", DnsFailure::NoSuchDomain),
        ("null.test", DnsFailure::NullMx),
        ("empty.test", DnsFailure::NoAddress),
        ("nothing.test", DnsFailure::Unresolvable),
        ("local.test", DnsFailure::OnlyLoopback),
        ("localhost", DnsFailure::OnlyLoopback),
        ("bad domain.test", DnsFailure::BadName),
        ("[127.0.0.1]", DnsFailure::OnlyLoopback),
        ("[what]", DnsFailure::BadLiteral),
    ] {
        assert_eq!(resolver.route_to(domain), Err(failure.clone()), "{domain}");
        assert_eq!(failure.verdict(domain).status, Status::Refused);
    }
}

#[test]
fn soft_failures_defer_the_domain() {
    let server = server();
    let resolver = impatient(vec![server.address()]);
    let failure = resolver.route_to("broken.test").unwrap_err();
    assert!(
        matches!(&failure, DnsFailure::ServerFailed(text) if text.contains("Server Failure")),
        "{failure:?}"
    );
    let verdict = failure.verdict("broken.test");
    assert_eq!(
        (verdict.status, verdict.scope, verdict.stage),
        (Status::Deferred, Scope::Domain, Stage::Dns)
    );
    assert_eq!(resolver.route_to("quiet.test"), Err(DnsFailure::TimedOut));
}

#[test]
fn a_soft_error_of_one_exchange_dominates_hard_ones_but_not_a_good_one() {
    let server = server();
    let resolver = resolver(&server);
    assert!(resolver.route_to("half.test").unwrap_err().is_soft());
    let plan = resolver.route_to("good.test").unwrap();
    assert_eq!(hosts(&plan), [(30, "mx1.plain.test")]);
    assert_eq!(&*plan.site, "broken.test,gone.good.test,mx1.plain.test");
    assert!(plan.ttl <= Duration::from_secs(60));
}

#[test]
fn a_root_exchange_among_others_is_passed_over() {
    let server = server();
    let plan = resolver(&server).route_to("mixed.test").unwrap();
    assert_eq!(hosts(&plan), [(10, "mx1.plain.test")]);
}

#[test]
fn loopback_is_used_when_asked_for() {
    let server = server();
    let open = ResolverSettings {
        allow_loopback: true,
        ..settings(vec![server.address()])
    };
    let resolver = Resolver::start(open).unwrap();
    assert_eq!(
        resolver.route_to("local.test").unwrap().hosts[0]
            .addresses
            .len(),
        2
    );
    assert!(resolver.route_to("[127.0.0.1]").is_ok());
}

#[test]
fn answers_are_cached_and_the_shortest_ttl_counts() {
    let server = server();
    let resolver = resolver(&server);
    for _ in 0..5 {
        let plan = resolver.route_to("ttl.test").unwrap();
        assert!(plan.ttl <= Duration::from_secs(30), "{:?}", plan.ttl);
        assert_eq!(
            resolver.route_to("gone.test"),
            Err(DnsFailure::NoSuchDomain)
        );
    }
    assert_eq!(server.asked_for("ttl.test", Kind::Mx), 1);
    assert_eq!(server.asked_for("mx1.ttl.test", Kind::A), 1);
    assert_eq!(server.asked_for("mx1.ttl.test", Kind::Aaaa), 1);
    assert_eq!(server.asked_for("gone.test", Kind::Mx), 1);
}

#[test]
fn an_answer_too_long_for_udp_comes_by_tcp() {
    let mut zone = Zone::new();
    for n in 0..200 {
        zone.add_mx("many.test", n, &format!("exchange-number-{n}.many.test"));
        zone.add_address(
            &format!("exchange-number-{n}.many.test"),
            Ipv4Addr::new(192, 0, 2, 1).into(),
        );
    }
    let server = DnsServer::start(zone).unwrap();
    let plan = resolver(&server).route_to("many.test").unwrap();
    assert_eq!(plan.hosts.len(), 16);
    assert_eq!(&*plan.hosts[0].name, "exchange-number-0.many.test");
    assert!(server.counts().tcp >= 1);
}

#[test]
fn a_name_server_that_never_answers_is_our_own_trouble() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver = impatient(vec![silent.local_addr().unwrap()]);
    let start = Instant::now();
    let failure = resolver.route_to("plain.test").unwrap_err();
    assert_eq!(failure, DnsFailure::NoServer);
    let verdict = failure.verdict("plain.test");
    assert_eq!(
        (verdict.status, verdict.scope),
        (Status::Deferred, Scope::Local)
    );
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(!resolver.is_answered_at_all());
}

#[test]
fn a_name_server_that_is_not_there_is_known_at_once() {
    // Its port was free a moment ago.
    let address = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let patient = ResolverSettings {
        timeout: Duration::from_secs(120),
        ..settings(vec![address])
    };
    let start = Instant::now();
    let failure = Resolver::start(patient).unwrap().route_to("plain.test");
    assert_eq!(failure, Err(DnsFailure::NoServer));
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn the_patience_is_for_the_whole_route_whatever_has_to_be_asked_for_it() {
    let server = server();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let limit = Duration::from_secs(2);
    for (address, domain, failure) in [
        // The root is asked for as well.
        (
            silent.local_addr().unwrap(),
            "plain.test",
            DnsFailure::NoServer,
        ),
        // Asked for by its MX, its addresses, and the root.
        (server.address(), "lost.test", DnsFailure::TimedOut),
    ] {
        let usual = ResolverSettings {
            servers: vec![address],
            timeout: limit,
            ..ResolverSettings::default()
        };
        let resolver = Resolver::start(usual).unwrap();
        let start = Instant::now();
        assert_eq!(resolver.route_to(domain), Err(failure));
        let took = start.elapsed();
        assert!(took < limit + limit / 2, "{domain}: {took:?}");
    }
}

#[test]
fn a_second_name_server_is_asked_when_the_first_is_dead() {
    let server = server();
    let silent = UdpSocket::bind("127.0.0.3:0").unwrap();
    let both = ResolverSettings {
        timeout: Duration::from_secs(2),
        ..settings(vec![silent.local_addr().unwrap(), server.address()])
    };
    assert!(
        Resolver::start(both)
            .unwrap()
            .route_to("plain.test")
            .is_ok()
    );
}

#[test]
fn many_threads_share_one_resolver() {
    let server = DnsServer::start(Zone::synthetic()).unwrap();
    let patient = ResolverSettings {
        allow_loopback: true,
        timeout: Duration::from_secs(10),
        ..settings(vec![server.address()])
    };
    let resolver = Arc::new(Resolver::start(patient).unwrap());
    let threads: Vec<_> = (0..32)
        .map(|thread| {
            let resolver = resolver.clone();
            std::thread::spawn(move || {
                for n in 0..20 {
                    let domain = format!("d{}.test", (thread + n) % 40);
                    let plan = resolver.route_to(&domain).unwrap();
                    assert_eq!(plan.hosts.len(), 2, "{domain}");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_slow_name_delays_no_other() {
    let server = server();
    let patient = ResolverSettings {
        timeout: Duration::from_secs(5),
        ..settings(vec![server.address()])
    };
    let resolver = Resolver::start(patient).unwrap();
    let start = Instant::now();
    assert!(resolver.route_to("slow.test").is_ok());
    assert!(
        start.elapsed() >= Duration::from_millis(100),
        "MX and A were both delayed"
    );
}
