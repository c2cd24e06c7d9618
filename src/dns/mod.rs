//! The way from a domain to the addresses of its mail exchangers.
//!
//! [`Resolver::route_to`] blocks its caller until the whole plan is known: MX records, then the addresses of every exchange,
//! both families at once. Answers are cached by their TTL and equal questions under way are asked once (hickory does both).
//! The pure rules live in [`plan`], the meaning of failures in [`failure`].
//!
//! INVARIANTS: an error of the DNS is a [`DnsFailure`], a value; no route takes longer than `timeout`, whatever has to be asked
//! for it: three quarters are for the questions, the rest to find out whether anybody answers at all. Loopback and other unfit
//! addresses never leave this module unless `allow_loopback` says so. `/etc/hosts` and search lists play no role in mail routing.
//!
//! "No name server answers at all" is told from "this name is not answered" by asking for the root, which any server answers
//! one way or the other; it matters because the first stops the program and the second only one destination.
//!
//! Limits: no DNSSEC; the addresses of this machine's own interfaces other than loopback are not recognised.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use trust_dns_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use trust_dns_resolver::lookup::Lookup;
use trust_dns_resolver::net::NetError;
use trust_dns_resolver::proto::rr::{Name, RecordType};

mod drive;
pub mod failure;
mod lookup;
pub mod plan;
mod provider;

pub use failure::DnsFailure;
pub use plan::{MxAddress, MxHost, MxPlan};

use drive::{Driver, join_all};
use lookup::{Exchanges, Lack};
use plan::{Candidate, HostAddresses};
use provider::Provider;

/// Longest time that an answer is used, whatever its TTL says.
const TTL_MAX: Duration = Duration::from_secs(86_400);
/// Longest time that "does not exist" is believed.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(3600);
/// Shortest time that a plan is kept: a TTL of 0 must not mean a question per message.
const PLAN_TTL_MIN: Duration = Duration::from_secs(5);

/// Which address families are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Families {
    /// IPv4 and IPv6.
    #[default]
    Both,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl Families {
    fn record_types(self) -> &'static [RecordType] {
        match self {
            Families::Both => &[RecordType::A, RecordType::AAAA],
            Families::Ipv4 => &[RecordType::A],
            Families::Ipv6 => &[RecordType::AAAA],
        }
    }
}

/// How the DNS is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolverSettings {
    /// The name servers; empty means those of the system (`/etc/resolv.conf`).
    pub servers: Vec<SocketAddr>,
    /// How long finding a route may take, all questions together.
    pub timeout: Duration,
    /// How often a question is asked at most; at least 1.
    pub attempts: usize,
    /// True if MX hosts on loopback addresses are fine (tests, labs, `rehearse`).
    pub allow_loopback: bool,
    /// Which families to look up.
    pub families: Families,
    /// Answers kept in the cache, some 3 KB each. Each domain is asked about once; what is asked for again are hosts that many share.
    pub cache_entries: u64,
}

impl Default for ResolverSettings {
    fn default() -> ResolverSettings {
        ResolverSettings {
            servers: Vec::new(),
            timeout: Duration::from_secs(10),
            attempts: 2,
            allow_loopback: false,
            families: Families::Both,
            cache_entries: 4_096,
        }
    }
}

/// The resolver cannot start: no name server configured, or no descriptor or thread to be had.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start the DNS resolver: {}", self.0)
    }
}

impl std::error::Error for StartError {}

type Client = trust_dns_resolver::Resolver<Provider>;

/// Looks up routes. Shared by any number of threads; stops its own thread when dropped.
pub struct Resolver {
    // Before the driver, so that it is dropped while the runtime still lives.
    client: Client,
    driver: Driver,
    settings: ResolverSettings,
}

impl Resolver {
    /// Starts the resolver. Nothing is asked yet.
    pub fn start(settings: ResolverSettings) -> Result<Resolver, StartError> {
        let driver = Driver::start().map_err(|error| StartError(error.to_string()))?;
        let client = driver
            .inside(|| client(&settings))
            .map_err(|error| StartError(error.to_string()))?;
        Ok(Resolver {
            client,
            driver,
            settings,
        })
    }

    /// The hosts that take mail for `domain` (A-labels, or an address literal). Blocks; see the module for how long.
    pub fn route_to(&self, domain: &str) -> Result<MxPlan, DnsFailure> {
        if domain.starts_with('[') {
            return plan::literal(domain, self.settings.allow_loopback);
        }
        let name = lookup::question_name(domain).ok_or(DnsFailure::BadName)?;
        let bounds = self.bounds();
        let found = match self.ask(&name, RecordType::MX, bounds.questions) {
            Ok(answer) => lookup::exchanges(&answer),
            // RFC 5321 5.1: only "no MX records" leads to the implicit MX, an error does not.
            Err(Lack::NoData) => return self.implicit_route(domain, bounds),
            Err(lack) => return Err(self.failure(lack, bounds)),
        };
        if found.named.is_empty() && found.has_root {
            return Err(DnsFailure::NullMx);
        }
        self.explicit_route(found, bounds)
    }

    /// RFC 5321 5.1: without MX records the domain itself is its exchange, with preference 0.
    fn implicit_route(&self, domain: &str, bounds: Bounds) -> Result<MxPlan, DnsFailure> {
        let name = domain.trim_end_matches('.').to_ascii_lowercase();
        match self.assemble(vec![(0, Arc::from(name))], TTL_MAX, bounds) {
            Err(DnsFailure::Unresolvable) => Err(DnsFailure::NoAddress),
            result => result,
        }
    }

    /// The route by MX records; addresses of the domain itself play no role then (RFC 5321 5.1).
    fn explicit_route(&self, found: Exchanges, bounds: Bounds) -> Result<MxPlan, DnsFailure> {
        let exchanges = plan::select_exchanges(found.named);
        self.assemble(exchanges, found.ttl, bounds)
    }

    /// Looks up the addresses of all exchanges at once and puts the plan together.
    fn assemble(
        &self,
        exchanges: Vec<(u16, Arc<str>)>,
        ttl: Duration,
        bounds: Bounds,
    ) -> Result<MxPlan, DnsFailure> {
        let types = self.settings.families.record_types();
        let questions: Vec<(Name, RecordType)> = exchanges
            .iter()
            .filter_map(|(_, host)| lookup::question_name(host))
            .flat_map(|name| types.iter().map(move |&kind| (name.clone(), kind)))
            .collect();
        let answers = self.ask_all(&questions, bounds.questions);
        let candidates = exchanges
            .into_iter()
            .zip(answers.chunks(types.len()))
            .map(|((preference, name), answers)| Candidate {
                preference,
                name,
                addresses: host_addresses(answers),
            })
            .collect();
        match plan::assemble(candidates, self.settings.allow_loopback, ttl) {
            Ok(mut plan) => {
                plan.ttl = plan.ttl.clamp(PLAN_TTL_MIN, TTL_MAX);
                Ok(plan)
            }
            Err(DnsFailure::TimedOut) => Err(self.failure(Lack::Unanswered, bounds)),
            Err(failure) => Err(failure),
        }
    }

    /// One question.
    fn ask(&self, name: &Name, kind: RecordType, until: Instant) -> Result<Lookup, Lack> {
        let question = self
            .driver
            .inside(|| Box::pin(self.client.lookup(name.clone(), kind)));
        let answer = self.driver.wait_for(self.limited(question, until));
        in_our_words(answer)
    }

    /// Many questions at once; answers in their order.
    fn ask_all(
        &self,
        questions: &[(Name, RecordType)],
        until: Instant,
    ) -> Vec<Result<Lookup, Lack>> {
        let all = self.driver.inside(|| {
            join_all(questions.iter().map(|(name, kind)| {
                let question = Box::pin(self.client.lookup(name.clone(), *kind));
                self.limited(question, until)
            }))
        });
        self.driver
            .wait_for(all)
            .into_iter()
            .map(in_our_words)
            .collect()
    }

    /// How long may be asked, from now on.
    fn bounds(&self) -> Bounds {
        let (now, patience) = (Instant::now(), self.settings.timeout);
        Bounds {
            questions: now + for_questions(patience),
            all: now + patience,
        }
    }

    /// A bound on the whole of a question, CNAME chains and TCP included.
    fn limited<F>(
        &self,
        question: F,
        until: Instant,
    ) -> impl Future<Output = Option<F::Output>> + Send
    where
        F: Future + Send,
    {
        let limited = self
            .driver
            .inside(|| Box::pin(tokio::time::timeout_at(until.into(), question)));
        MapOk(limited)
    }

    /// The failure a lack of records means; asks for the root when nothing was answered.
    fn failure(&self, lack: Lack, bounds: Bounds) -> DnsFailure {
        if lack.is_answer() || self.is_answered_until(bounds.all) {
            lack.failure()
        } else {
            DnsFailure::NoServer
        }
    }

    /// True if a name server answers at all. Used when a question was not, and by the checks before a run.
    pub fn is_answered_at_all(&self) -> bool {
        self.is_answered_until(self.bounds().all)
    }

    fn is_answered_until(&self, until: Instant) -> bool {
        let root = Name::root();
        // An answer from the cache would prove nothing.
        self.client.clear_lookup_cache(root.clone(), RecordType::NS);
        match self.ask(&root, RecordType::NS, until) {
            Ok(_) => true,
            Err(lack) => lack.is_answer(),
        }
    }
}

/// One host's answers, one per family, as one outcome.
fn host_addresses(answers: &[Result<Lookup, Lack>]) -> HostAddresses {
    let mut addresses = Vec::new();
    let mut ttl = TTL_MAX;
    let mut soft = None;
    for answer in answers {
        match answer {
            Ok(answer) => {
                addresses.extend(lookup::addresses(answer));
                ttl = ttl.min(lookup::ttl_of(answer));
            }
            Err(Lack::NoSuchName | Lack::NoData) => {}
            Err(lack) => soft = Some(lack.clone()),
        }
    }
    match soft {
        Some(lack) if addresses.is_empty() => HostAddresses::Failed(lack.failure()),
        None if addresses.is_empty() => HostAddresses::Missing,
        soft => HostAddresses::Found {
            addresses,
            ttl,
            complete: soft.is_none(),
        },
    }
}

/// Until when may be asked.
#[derive(Clone, Copy)]
struct Bounds {
    /// About the destination.
    questions: Instant,
    /// At all.
    all: Instant,
}

/// The part of all patience that the questions may use up.
fn for_questions(patience: Duration) -> Duration {
    patience / 4 * 3
}

/// Turns `Result<T, Elapsed>` into `Option<T>`.
struct MapOk<F>(std::pin::Pin<Box<tokio::time::Timeout<F>>>);

impl<F: Future> Future for MapOk<F> {
    type Output = Option<F::Output>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        self.0.as_mut().poll(context).map(Result::ok)
    }
}

/// `None` is a question that outlived all patience.
fn in_our_words(answer: Option<Result<Lookup, NetError>>) -> Result<Lookup, Lack> {
    match answer {
        None => Err(Lack::Unanswered),
        Some(answer) => answer.map_err(|error| Lack::from_error(&error)),
    }
}

/// The configured hickory resolver.
fn client(settings: &ResolverSettings) -> Result<Client, NetError> {
    let mut builder = if settings.servers.is_empty() {
        Client::builder(Provider::default())?
    } else {
        let servers = settings.servers.iter().map(|&server| name_server(server));
        Client::builder_with_config(
            ResolverConfig::from_name_servers(servers.collect()),
            Provider::default(),
        )
    };
    set_options(builder.options_mut(), settings);
    builder.build()
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let ways = vec![
        at_port(ConnectionConfig::udp()),
        at_port(ConnectionConfig::tcp()),
    ];
    let address: IpAddr = server.ip();
    NameServerConfig::new(address, true, ways)
}

fn set_options(options: &mut ResolverOpts, settings: &ResolverSettings) {
    let attempts = settings.attempts.clamp(1, 16);
    options.timeout = for_questions(settings.timeout) / attempts as u32;
    // hickory counts the repetitions after the first attempt.
    options.attempts = attempts - 1;
    options.cache_size = settings.cache_entries;
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_max_ttl = Some(TTL_MAX);
    options.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
    // The limit is for one TCP connection to a name server, which all truncated answers share.
    options.max_active_requests = 1024;
}
