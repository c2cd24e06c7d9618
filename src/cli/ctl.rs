//! `mailer ctl`: look at a job that runs, and change what it does.
//!
//! The words become a request, the run answers it over the socket in the job's directory (`control`). Without a name the
//! only job that runs is meant; if there are several, or none, that is said with their names, and nothing is done.

use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::Result;

use super::args::{CtlArgs, CtlOrder, CtlShow, StateArgs};
use super::exit::{Exit, Failure};
use super::{job, say};
use crate::control::socket;
use crate::control::{Reply, Request, Shown};
use crate::job::{JobCard, StateDir};

mod screen;

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(1);

/// How often `--watch` asks a run that does not take orders yet: for two seconds.
const FIRST_ASKS: u32 = 10;
/// How long it waits in between.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Runs the command.
///
/// # Errors
/// A [`Failure`]: there is no such run, it does not know what is meant, or it cannot be reached.
pub fn run(args: &CtlArgs) -> Result<Exit> {
    let order = args.order.clone();
    let order = order.unwrap_or(CtlOrder::Show(CtlShow::default()));
    let request = request(&order)?;
    let state = args.state();
    let (dir, card) = find(&state, args.job.as_deref())?;
    let run = Run {
        dir,
        card,
        state: &state,
    };
    match &order {
        CtlOrder::Show(show) => run.show(&request, show),
        _ => match run.ask(&request)? {
            Reply::Done { said } => {
                say::to_stdout(&format!("{said}\n"))?;
                Ok(Exit::Done)
            }
            other => Err(unexpected(other)),
        },
    }
}

/// What the words mean.
fn request(order: &CtlOrder) -> Result<Request> {
    Ok(match order.clone() {
        CtlOrder::Show(CtlShow { sites, .. }) => Request::Show { sites },
        CtlOrder::Set { target, limits } => set(target, &limits)?,
        CtlOrder::Pause { target } => Request::Pause { target },
        CtlOrder::Resume { target } => Request::Resume { target },
        CtlOrder::Promote { domain } => Request::Promote { domain },
        CtlOrder::Demote { domain } => Request::Demote { domain },
        CtlOrder::Drop { domain } => Request::Drop { domain },
        CtlOrder::Fail { domain, reason } => Request::Fail { domain, reason },
        CtlOrder::Stop => Request::Stop,
    })
}

fn set(target: String, limits: &[String]) -> Result<Request> {
    let (mut max_workers, mut max_sessions, mut rate) = (None, None, None);
    for limit in limits {
        let wrong = |text: String| {
            Failure::new(Exit::Usage, text)
                .hint("mailer ctl set QUEUE max-workers=N max-sessions=N rate=R")
        };
        let Some((key, value)) = limit.split_once('=') else {
            return Err(wrong(format!("`{limit}` is not KEY=VALUE")).into());
        };
        let number = || {
            let number = value.parse::<u32>().ok().filter(|number| *number > 0);
            number.ok_or_else(|| wrong(format!("{key}: `{value}` is not a number from 1 up")))
        };
        match key.replace('_', "-").as_str() {
            "max-workers" => max_workers = Some(number()?),
            "max-sessions" => max_sessions = Some(number()?),
            "rate" => rate = Some(value.to_owned()),
            _ => return Err(wrong(format!("`{key}` is no limit")).into()),
        }
    }
    Ok(Request::Set {
        target,
        max_workers,
        max_sessions,
        rate,
    })
}

/// The job that is meant: one that runs.
fn find(args: &StateArgs, text: Option<&str>) -> Result<(StateDir, JobCard)> {
    if let Some(text) = text {
        return job::find(args, text);
    }
    let none = || {
        let jobs = job::typed("jobs", args);
        Failure::new(Exit::NoInput, "no job is running")
            .hint(format!("`{jobs}` lists those there are"))
    };
    let state = job::look(args)?.ok_or_else(none)?;
    let mut running = Vec::new();
    for card in state.jobs().map_err(job::failure)? {
        if state.holder(&card.id).map_err(job::failure)?.is_some() {
            running.push(card);
        }
    }
    if running.len() > 1 {
        let names: Vec<String> = running.iter().map(named).collect();
        let text = format!("{} jobs are running: {}", names.len(), names.join("; "));
        let ctl = job::typed(&format!("ctl {} show", running[0].id), args);
        return Err(Failure::new(Exit::Usage, text)
            .hint(format!("name one, as in: {ctl}"))
            .into());
    }
    let card = running.pop().ok_or_else(none)?;
    Ok((state, card))
}

/// `20261123-200001-3f9a (tonight.mbox)`.
fn named(card: &JobCard) -> String {
    format!("{} ({})", card.id, job::origin(card))
}

/// A job and the way to its run.
struct Run<'a> {
    dir: StateDir,
    card: JobCard,
    state: &'a StateArgs,
}

impl Run<'_> {
    /// Asks the run. An error that it answers is one of ours.
    fn ask(&self, request: &Request) -> Result<Reply> {
        let reply = socket::ask(&self.dir.job_dir(&self.card.id), request);
        match reply.map_err(|error| self.unreachable(&error))? {
            Reply::Error { said, hint } => {
                let failure = Failure::new(Exit::Usage, said);
                Err(match hint {
                    Some(hint) => failure.hint(hint).into(),
                    None => failure.into(),
                })
            }
            reply => Ok(reply),
        }
    }

    fn unreachable(&self, error: &io::Error) -> anyhow::Error {
        let id = &self.card.id;
        let is_running = matches!(self.dir.holder(id), Ok(Some(_)));
        if !is_running {
            let status = job::typed(&format!("status {id}"), self.state);
            return Failure::new(Exit::NoInput, format!("job {id} is not running"))
                .hint(format!("`{status}` tells how far it came"))
                .into();
        }
        let nobody_listens = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        );
        if nobody_listens {
            let text = format!("job {id} is at its beginning or end and takes no orders");
            return Failure::new(Exit::Pending, text)
                .hint("try again in a moment")
                .into();
        }
        let exit = match error.kind() {
            io::ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Io,
        };
        Failure::new(exit, format!("job {id} cannot be asked: {error}")).into()
    }

    fn show(&self, request: &Request, show: &CtlShow) -> Result<Exit> {
        let is_terminal = io::stdout().is_terminal();
        let mut is_first = true;
        let mut asks_left = if show.watch { FIRST_ASKS } else { 0 };
        loop {
            let shown = match self.ask(request) {
                Ok(Reply::Show(shown)) => shown,
                Ok(other) => return Err(unexpected(other)),
                // It was there a second ago: it has come to its end.
                Err(_) if !is_first => return Ok(Exit::Done),
                // A run that begins listens in a moment.
                Err(error) if asks_left > 0 && is_passing(&error) => {
                    asks_left -= 1;
                    std::thread::sleep(FIRST_WAIT);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let text = self.text(&shown, show)?;
            if show.watch && is_terminal && !show.json {
                // From the top; each line is cleared to its end, and what is below.
                let text = text.replace('\n', "\x1b[K\n");
                say::to_stdout(&format!("\x1b[H{text}\x1b[J"))?;
            } else {
                say::to_stdout(&text)?;
            }
            if !show.watch {
                return Ok(Exit::Done);
            }
            is_first = false;
            std::thread::sleep(EVERY);
        }
    }

    fn text(&self, shown: &Shown, show: &CtlShow) -> Result<String> {
        if show.json {
            return Ok(serde_json::to_string(shown)? + "\n");
        }
        Ok(screen::screen(&named(&self.card), shown))
    }
}

/// True if the run is there, but takes no orders at its beginning or end.
fn is_passing(error: &anyhow::Error) -> bool {
    let failure = error.downcast_ref::<Failure>();
    failure.is_some_and(|failure| failure.exit == Exit::Pending)
}

fn unexpected(reply: Reply) -> anyhow::Error {
    Failure::new(Exit::Software, format!("the run answers {reply:?}")).into()
}
