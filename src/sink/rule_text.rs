//! Rules as text, for `mailer sink --rule`:
//!
//! ```text
//! domain=slow.test stage=rcpt delay=5s
//! domain=x.test stage=rcpt reply="450 4.2.1 later" first=1
//! server=127.0.0.9 stage=greeting silence
//! stage=dot lose-reply chance=0.01
//! stage=mail reply="421 4.3.2 closing" after=100
//! stage=starttls inject="250 2.0.0 forged"
//! stage=starttls garbage first=1
//! stage=mail reply="450 4.7.1 too fast" rate=100/1m
//! stage=mail reply="421 4.3.2 busy" every=60s for=20s
//! ```
//!
//! Words are separated by spaces; a value with spaces stands in double quotes. An error names the word. Pure.

use std::fmt;

use super::limit::Limit;
use super::rule::{Action, Rule};
use super::words::{duration, printable_word};
use crate::mail::Stage;
use crate::smtp::server::Reply;

/// A rule that cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleError(String);

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule: {}", self.0)
    }
}

impl std::error::Error for RuleError {}

impl std::str::FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Rule, RuleError> {
        parse(text).map_err(RuleError)
    }
}

fn parse(text: &str) -> Result<Rule, String> {
    let mut rule = Rule::new(Stage::Connect, Action::Usual);
    let (mut stage, mut close) = (None, false);
    let (mut every, mut lasts) = (None, None);
    for (key, value) in split(text)? {
        let key = key.as_str();
        match (key, value.as_deref()) {
            ("stage", Some(value)) => stage = Some(stage_named(value)?),
            ("domain", Some(value)) => rule.domain = Some(value.to_ascii_lowercase()),
            ("server", Some(value)) => rule.server = Some(number(key, value)?),
            ("delay", Some(value)) => rule.delay = duration(value)?,
            ("first", Some(value)) => rule.first = Some(number(key, value)?),
            ("after", Some(value)) => rule.after = number(key, value)?,
            ("chance", Some(value)) => rule.chance = chance(value)?,
            ("rate", Some(value)) => rule.limit = Some(rate(value)?),
            ("every", Some(value)) => every = Some(duration(value)?),
            ("for", Some(value)) => lasts = Some(duration(value)?),
            ("reply", Some(value)) => set_action(&mut rule, Action::Reply(reply(value)?))?,
            ("inject", Some(value)) => set_action(&mut rule, Action::Inject(reply(value)?))?,
            ("garbage", None) => set_action(&mut rule, Action::Garbage)?,
            ("stall", None) => set_action(&mut rule, Action::Stall)?,
            ("drop", None) => set_action(&mut rule, Action::Drop)?,
            ("lose-reply", None) => set_action(&mut rule, Action::LoseReply)?,
            ("silence", None) => set_action(&mut rule, Action::Silence)?,
            ("close", None) => close = true,
            _ => {
                return Err(format!(
                    "unknown word {}",
                    printable_word(&written(key, value.as_deref()))
                ));
            }
        }
    }
    rule.stage = stage.ok_or("`stage=` is missing")?;
    if close {
        rule.action = match rule.action {
            Action::Reply(reply) => Action::ReplyAndClose(reply),
            _ => return Err("`close` needs `reply=`".into()),
        };
    }
    match (every, lasts) {
        (None, None) => {}
        (Some(every), Some(lasts)) if lasts < every && rule.limit.is_none() => {
            rule.limit = Some(Limit::Storm { every, lasts });
        }
        _ => return Err("`every=` needs a shorter `for=`, and no `rate=`".into()),
    }
    check(&rule)?;
    Ok(rule)
}

/// What cannot be: actions at stages that have no such thing.
fn check(rule: &Rule) -> Result<(), String> {
    let stage = rule.stage;
    let after_rcpt = matches!(stage, Stage::Rcpt | Stage::Data | Stage::Body | Stage::Dot);
    if rule.domain.is_some() && !after_rcpt {
        return Err(format!(
            "`domain=` cannot be known at stage `{}`",
            stage.name()
        ));
    }
    if rule.action == Action::Usual && rule.delay.is_zero() {
        return Err(
            "nothing to do: give `reply=`, `delay=`, `drop`, `silence`, `inject=`, `lose-reply`, \
             `garbage` or `stall`"
                .into(),
        );
    }
    if rule.action == Action::LoseReply && stage != Stage::Dot {
        return Err("`lose-reply` needs `stage=dot`".into());
    }
    let speaks = matches!(
        rule.action,
        Action::Reply(_) | Action::ReplyAndClose(_) | Action::Inject(_)
    );
    if stage == Stage::Connect && speaks {
        return Err(
            "`reply=` and `inject=` need a later stage than `connect` (`greeting` is the first)"
                .into(),
        );
    }
    if matches!(rule.action, Action::Garbage | Action::Stall) && stage != Stage::StartTls {
        return Err("`garbage` and `stall` need `stage=starttls`".into());
    }
    Ok(())
}

fn set_action(rule: &mut Rule, action: Action) -> Result<(), String> {
    if rule.action != Action::Usual {
        return Err("only one of `reply=`, `drop`, `silence` and other actions".into());
    }
    rule.action = action;
    Ok(())
}

fn stage_named(word: &str) -> Result<Stage, String> {
    Stage::of_session()
        .find(|stage| stage.name() == word)
        .ok_or_else(|| {
            let known: Vec<&str> = Stage::of_session().map(Stage::name).collect();
            format!(
                "unknown stage {} (known: {})",
                printable_word(word),
                known.join(", ")
            )
        })
}

/// `450 4.2.1 later`: a code from 200 to 599 and a text.
fn reply(value: &str) -> Result<Reply, String> {
    let problem = || {
        format!(
            "bad reply {} (like \"450 4.2.1 later\")",
            printable_word(value)
        )
    };
    let (code, text) = value.split_once(' ').unwrap_or((value, ""));
    let code: u16 = code.parse().map_err(|_| problem())?;
    if !(200..600).contains(&code) || text.chars().any(char::is_control) {
        return Err(problem());
    }
    Ok(Reply::new(code, text))
}

/// `100/1m`: more than that many within that time are too many.
fn rate(value: &str) -> Result<Limit, String> {
    let problem = || format!("bad rate {} (like 100/1m)", printable_word(value));
    let (most, per) = value.split_once('/').ok_or_else(problem)?;
    let most: u32 = most.parse().map_err(|_| problem())?;
    let per = duration(per)?;
    if per.is_zero() {
        return Err(problem());
    }
    Ok(Limit::Rate(most, per))
}

fn chance(value: &str) -> Result<f64, String> {
    match value.parse::<f64>() {
        Ok(chance) if (0.0..=1.0).contains(&chance) => Ok(chance),
        _ => Err(format!("bad chance {} (0 to 1)", printable_word(value))),
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| {
        format!(
            "bad value in {}",
            printable_word(&written(key, Some(value)))
        )
    })
}

fn written(key: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("{key}={value}"),
        None => key.to_owned(),
    }
}

/// The words of a rule: `key`, or `key=value` where the value may be quoted.
fn split(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let key_end = rest
            .find(|c: char| c == '=' || c.is_whitespace())
            .unwrap_or(rest.len());
        let key = rest[..key_end].to_owned();
        rest = &rest[key_end..];
        let value = match rest.strip_prefix('=') {
            None => None,
            Some(after) => {
                let (value, after) = value_and_rest(after)?;
                rest = after;
                Some(value)
            }
        };
        words.push((key, value));
        rest = rest.trim_start();
    }
    Ok(words)
}

fn value_and_rest(text: &str) -> Result<(String, &str), String> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, rest) = quoted
            .split_once('"')
            .ok_or_else(|| format!("no closing quote after {}", printable_word(text)))?;
        return Ok((value.to_owned(), rest));
    }
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    Ok((text[..end].to_owned(), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn parsed(text: &str) -> Rule {
        text.parse().unwrap()
    }

    #[test]
    fn the_examples_of_the_header_are_read() {
        let rule = parsed("domain=Slow.test stage=rcpt delay=5s");
        assert_eq!(
            rule,
            Rule::new(Stage::Rcpt, Action::Usual)
                .for_domain("slow.test")
                .delayed(Duration::from_secs(5))
        );
        let rule = parsed("domain=x.test  stage=rcpt reply=\"450 4.2.1 later\" first=1 ");
        let later = Action::Reply(Reply::new(450, "4.2.1 later"));
        assert_eq!(
            rule,
            Rule::new(Stage::Rcpt, later).for_domain("x.test").first(1)
        );
        let rule = parsed("server=127.0.0.9 stage=greeting silence");
        assert_eq!(
            rule,
            Rule::new(Stage::Greeting, Action::Silence).for_server([127, 0, 0, 9].into())
        );
        assert_eq!(parsed("stage=dot lose-reply chance=0.01").chance, 0.01);
        assert_eq!(
            parsed("stage=mail reply=\"421 4.3.2 closing\" after=100").after,
            100
        );
        let forged = Action::Inject(Reply::new(250, "2.0.0 forged"));
        assert_eq!(
            parsed("stage=starttls inject=\"250 2.0.0 forged\"").action,
            forged
        );
        assert_eq!(
            parsed("stage=starttls garbage first=1"),
            Rule::new(Stage::StartTls, Action::Garbage).first(1)
        );
        assert_eq!(
            parsed("stage=mail drop rate=100/1m").limit,
            Some(Limit::Rate(100, Duration::from_secs(60)))
        );
        let storm = Limit::Storm {
            every: Duration::from_secs(60),
            lasts: Duration::from_secs(20),
        };
        assert_eq!(
            parsed("stage=mail drop every=60s for=20s").limit,
            Some(storm)
        );
        let closing = Action::ReplyAndClose(Reply::new(554, "no"));
        assert_eq!(
            parsed("stage=greeting close reply=\"554 no\"").action,
            closing
        );
    }

    #[test]
    fn an_error_names_the_word() {
        for (text, part) in [
            ("", "`stage=`"),
            ("stage=rcpt", "nothing to do"),
            ("stage=lunch drop", "`lunch`"),
            ("stage=rcpt dorp", "`dorp`"),
            ("stage=rcpt reply=999", "`999`"),
            ("stage=rcpt reply=\"450 x", "no closing quote"),
            ("stage=rcpt reply=\"450 a\nb\"", "bad reply"),
            ("stage=rcpt drop silence", "only one of"),
            ("stage=mail domain=a.test drop", "`domain=`"),
            ("stage=rcpt lose-reply", "`stage=dot`"),
            ("stage=connect reply=\"554 no\"", "`reply=`"),
            ("stage=connect inject=\"250 no\"", "`inject=`"),
            ("stage=rcpt garbage", "`stage=starttls`"),
            ("stage=dot stall", "`stage=starttls`"),
            ("stage=rcpt drop close", "`close`"),
            ("stage=rcpt delay=5", "`5`"),
            ("stage=rcpt drop first=x", "`first=x`"),
            ("stage=rcpt drop server=local", "`server=local`"),
            ("stage=rcpt drop rate=5", "`5`"),
            ("stage=rcpt drop rate=5/0s", "`5/0s`"),
            ("stage=rcpt drop every=5s", "`for=`"),
            ("stage=rcpt drop every=5s for=5s", "`for=`"),
            ("stage=rcpt drop rate=5/1s every=5s for=1s", "`rate=`"),
            ("stage=rcpt drop chance=2", "`2`"),
            ("stage=rcpt drop chance=NaN", "`NaN`"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
