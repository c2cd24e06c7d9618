//! Large providers of mailboxes: which MX hosts are theirs, what is known of their limits, and which of their replies ask us
//! to slow down.
//!
//! The data is `providers.toml` beside this file, which says where each figure comes from; a file of the user's goes before it,
//! provider by provider and key by key. Where all MX hosts of a domain are one provider's, [`Providers::of_hosts`] says so:
//! its domains are one site then, however many sets of hosts they have. Everybody else is a site by the exact set.
//!
//! [`Providers::judge`] corrects what a reply means (`smtp::meaning` knows no providers): a deferral that the table knows as
//! "too fast" is about our rate, whatever was answered, and one that it knows as a limit of the session is about that. Replies to
//! RCPT are compared with the provider's own list only, never with those that hold for everybody: a greylist's words are about
//! a recipient, and stay so.
//!
//! INVARIANTS: a suffix matches whole labels, and hosts below it only; one host of somebody else's in the set and it is no
//! provider's; a pattern with nothing to compare does not exist; only deferrals that a reply is behind are ever changed, and
//! never one of the opening to [`Scope::Session`]: whether a session too many or a sick host said it, its site knows.
//!
//! Text that cannot be used is a [`ProvidersError`] that says where. Nothing here panics but on a broken `providers.toml`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use super::normal_name;
use crate::mail::{Enhanced, Scope, Stage, Status, Verdict};
use crate::queue::pace::{Rate, RateError};

/// The data that comes with the program.
const BUILT_IN: &str = include_str!("providers.toml");
/// The table of replies that hold for everybody.
const ANY: &str = "any";
/// The longest name of a provider, since it is shown in tables and kept as a key.
const NAME_MAX: usize = 64;

/// What is known of one provider.
#[derive(Clone, PartialEq, Debug)]
pub struct Provider {
    /// Its name.
    pub name: Arc<str>,
    /// Its MX hosts: exact, or `.suffix` for all below.
    pub mx: Vec<String>,
    /// All its domains are one site.
    pub rolls_up: bool,
    /// Sessions at a time.
    pub sessions: Option<u32>,
    /// Messages in one session.
    pub messages_per_session: Option<u32>,
    /// Messages in a time.
    pub rate: Option<Rate>,
    /// Mail never goes there in clear.
    pub expects_tls: bool,
    replies: Replies,
}

/// Replies with a known meaning.
#[derive(Clone, PartialEq, Default, Debug)]
struct Replies {
    throttle: Vec<Pattern>,
    session_limit: Vec<Pattern>,
}

/// What a reply is recognised by; at least one of both is there.
#[derive(Clone, PartialEq, Debug)]
struct Pattern {
    enhanced: Option<Enhanced>,
    /// In lower case.
    text: Option<String>,
}

/// All providers.
#[derive(Clone, Debug)]
pub struct Providers {
    all: Vec<Arc<Provider>>,
    exact: HashMap<String, usize>,
    suffixes: HashMap<String, usize>,
    any: Replies,
}

/// Why a file of providers cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProvidersError {
    /// The byte of the text where it stands, if that is known.
    pub at: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ProvidersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ProvidersError {}

/// A table of the file.
#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields)]
struct Keys {
    mx: Option<Vec<String>>,
    roll_up: Option<bool>,
    sessions: Option<u32>,
    messages_per_session: Option<u32>,
    rate: Option<String>,
    tls: Option<Expectation>,
    throttle: Option<Vec<PatternKeys>>,
    session_limit: Option<Vec<PatternKeys>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Expectation {
    May,
    Require,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct PatternKeys {
    enhanced: Option<String>,
    text: Option<String>,
}

type Tables = BTreeMap<String, Keys>;

impl Keys {
    /// These keys, and where they are silent, those of `other`.
    fn or(self, other: Keys) -> Keys {
        Keys {
            mx: self.mx.or(other.mx),
            roll_up: self.roll_up.or(other.roll_up),
            sessions: self.sessions.or(other.sessions),
            messages_per_session: self.messages_per_session.or(other.messages_per_session),
            rate: self.rate.or(other.rate),
            tls: self.tls.or(other.tls),
            throttle: self.throttle.or(other.throttle),
            session_limit: self.session_limit.or(other.session_limit),
        }
    }
}

impl Providers {
    /// Those that come with the program.
    pub fn built_in() -> Arc<Providers> {
        static ALL: LazyLock<Arc<Providers>> = LazyLock::new(|| {
            let made = parse(BUILT_IN).and_then(Providers::new);
            Arc::new(made.expect("providers.toml is tested"))
        });
        Arc::clone(&ALL)
    }

    /// Those that come with the program, with what `text`, a file of the user's, says first.
    ///
    /// # Errors
    /// [`ProvidersError`].
    pub fn with(text: &str) -> Result<Providers, ProvidersError> {
        let mut tables = parse(BUILT_IN)?;
        for (name, keys) in parse(text)? {
            let before = tables.remove(&name).unwrap_or_default();
            tables.insert(name, keys.or(before));
        }
        Providers::new(tables)
    }

    fn new(mut tables: Tables) -> Result<Providers, ProvidersError> {
        let any = tables.remove(ANY).unwrap_or_default();
        if any.mx.is_some() || any.sessions.is_some() || any.rate.is_some() || any.tls.is_some() {
            return wrong("[any] has replies only: throttle and session_limit".into());
        }
        let mut providers = Providers {
            all: Vec::new(),
            exact: HashMap::new(),
            suffixes: HashMap::new(),
            any: replies(ANY, &any)?,
        };
        for (name, keys) in tables {
            providers.add(name, keys)?;
        }
        Ok(providers)
    }

    fn add(&mut self, name: String, keys: Keys) -> Result<(), ProvidersError> {
        let is_fit = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_fit) {
            return wrong(format!(
                "{name:?} is no name of a provider: letters, digits and -_. only"
            ));
        }
        if keys.sessions == Some(0) || keys.messages_per_session == Some(0) {
            return wrong(format!("[{name}]: a limit of 0 would never send"));
        }
        let replies = replies(&name, &keys)?;
        let rate = keys.rate.as_deref().map(str::parse).transpose();
        let rate = rate.map_err(|error: RateError| ProvidersError {
            at: None,
            message: format!("[{name}]: {error}"),
        })?;
        let provider = Provider {
            name: name.as_str().into(),
            mx: keys.mx.unwrap_or_default(),
            rolls_up: keys.roll_up.unwrap_or(true),
            sessions: keys.sessions,
            messages_per_session: keys.messages_per_session,
            rate,
            expects_tls: keys.tls == Some(Expectation::Require),
            replies,
        };
        for pattern in &provider.mx {
            self.claim(pattern, &name)?;
        }
        self.all.push(Arc::new(provider));
        Ok(())
    }

    /// Hosts that match `pattern` are those of the provider that is about to be added.
    fn claim(&mut self, pattern: &str, name: &str) -> Result<(), ProvidersError> {
        let suffix = pattern
            .strip_prefix("*.")
            .or_else(|| pattern.strip_prefix('.'));
        let Some(host) = normal_name(suffix.unwrap_or(pattern)) else {
            return wrong(format!(
                "[{name}]: {pattern:?} is neither a host nor of the form \".example.com\""
            ));
        };
        let map = match suffix {
            Some(_) => &mut self.suffixes,
            None => &mut self.exact,
        };
        let number = self.all.len();
        match map.insert(host, number) {
            Some(first) if first != number => wrong(format!(
                "{pattern:?} is claimed by {} and by {name}",
                self.all[first].name
            )),
            _ => Ok(()),
        }
    }

    /// The provider that all of these hosts belong to.
    pub fn of_hosts<'a>(&self, hosts: impl IntoIterator<Item = &'a str>) -> Option<&Arc<Provider>> {
        let mut hosts = hosts.into_iter();
        let first = self.of_host(hosts.next()?)?;
        hosts
            .all(|host| self.of_host(host) == Some(first))
            .then(|| &self.all[first])
    }

    /// The number of the provider that a host belongs to: an exact name goes before a suffix, a long one before a short one.
    fn of_host(&self, host: &str) -> Option<usize> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if let Some(number) = self.exact.get(&host) {
            return Some(*number);
        }
        let mut rest = host.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(number) = self.suffixes.get(parent) {
                return Some(*number);
            }
            rest = parent;
        }
        None
    }

    /// The provider of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Provider>> {
        self.all.iter().find(|each| *each.name == *name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.all.iter()
    }

    /// Who is hurt according to the table, if it knows better than the verdict on mail for this provider.
    pub fn judge(&self, provider: Option<&Provider>, verdict: &Verdict) -> Option<Scope> {
        if verdict.status != Status::Deferred
            || !(400..500).contains(&verdict.code)
            || verdict.scope == Scope::Local
        {
            return None;
        }
        let own = provider.map(|provider| &provider.replies);
        let common = (verdict.stage != Stage::Rcpt).then_some(&self.any);
        let lists: Vec<&Replies> = own.into_iter().chain(common).collect();
        let text = verdict.text.to_ascii_lowercase();
        let is_one = |list: &[Pattern]| list.iter().any(|each| each.fits(verdict, &text));
        if lists.iter().any(|list| is_one(&list.throttle)) {
            return Some(Scope::Rate);
        }
        let carries_mail = matches!(
            verdict.stage,
            Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Body | Stage::Dot
        );
        (carries_mail && lists.iter().any(|list| is_one(&list.session_limit)))
            .then_some(Scope::Session)
    }
}

impl Pattern {
    /// True if the verdict, whose text in lower case is `text`, is what this stands for.
    fn fits(&self, verdict: &Verdict, text: &str) -> bool {
        self.enhanced
            .is_none_or(|wanted| verdict.enhanced == Some(wanted))
            && self.text.as_ref().is_none_or(|part| text.contains(part))
    }
}

fn parse(text: &str) -> Result<Tables, ProvidersError> {
    toml::from_str(text).map_err(|error| ProvidersError {
        at: error.span().map(|span| span.start),
        message: error.message().to_owned(),
    })
}

fn wrong<T>(message: String) -> Result<T, ProvidersError> {
    Err(ProvidersError { at: None, message })
}

fn replies(name: &str, keys: &Keys) -> Result<Replies, ProvidersError> {
    let list = |patterns: &Option<Vec<PatternKeys>>| -> Result<Vec<Pattern>, ProvidersError> {
        let patterns = patterns.iter().flatten();
        patterns.map(|keys| pattern(name, keys)).collect()
    };
    Ok(Replies {
        throttle: list(&keys.throttle)?,
        session_limit: list(&keys.session_limit)?,
    })
}

fn pattern(name: &str, keys: &PatternKeys) -> Result<Pattern, ProvidersError> {
    let enhanced = match &keys.enhanced {
        None => None,
        Some(text) => match enhanced(text) {
            Some(code) if code.class == 4 => Some(code),
            _ => {
                return wrong(format!(
                    "[{name}]: {text:?} is no status code for now, such as \"4.7.28\""
                ));
            }
        },
    };
    let text = keys.text.as_ref().map(|text| text.to_ascii_lowercase());
    if enhanced.is_none() && text.as_ref().is_none_or(|text| text.trim().is_empty()) {
        return wrong(format!(
            "[{name}]: a reply is recognised by `enhanced`, by `text`, or by both"
        ));
    }
    Ok(Pattern { enhanced, text })
}

/// Reads "4.7.28".
fn enhanced(text: &str) -> Option<Enhanced> {
    let mut parts = text.split('.');
    let class = parts.next()?.parse().ok()?;
    let subject = parts.next()?.parse().ok()?;
    let detail = parts.next()?.parse().ok()?;
    let code = Enhanced::new(class, subject, detail);
    (parts.next().is_none() && code.to_string() == text).then_some(code)
}

#[cfg(test)]
mod tests;
