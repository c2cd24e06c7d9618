//! What becomes of a run one of whose threads panics: a bug of ours ends it in order, it never waits for ever.
//!
//! A worker that panics has settled its mail (`desk`), and its queue makes another one: that is forgiven once in a run, and told at
//! its end. Whatever comes after it ends the run, as does a panic of any other thread.
//!
//! Every thread of a run does its work under a [`Watch`]. The first such panic is kept with the thread's name; from that moment
//! no transaction is begun, since the panic hook sets the mark before anything unwinds. Then the queues are told to stop,
//! and the ledger's thread goes on until the last worker is gone: what is in flight settles as it always does, what a
//! worker that panicked had begun is in doubt (`desk`), what the ledger was being told of as delivered when it panicked is
//! too, and all else stays pending.
//!
//! INVARIANTS: a panic is noted before the thread's own values are dropped or, if no hook ran, right after; the ledger's
//! thread is woken after each change that its end depends on, so it needs no timer. A worker counts as alive from before
//! its thread is started until its last word to the ledger is said.
//!
//! The hook is the process's: it says nothing of watched threads, whose panics are told once, by the face, in one line; all
//! others it hands to the hook that was there before. With RUST_BACKTRACE set it hands on these, too.
//!
//! Limits: a panic that aborts (one while unwinding) cannot be caught. The DNS library's own thread is not watched.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Once};

use crossbeam_channel::Sender;

use super::book::Entry;
use super::queue::Inbox;
use super::run::stop_all;
use super::shared::Shared;
use crate::mail::verdict::printable;
use crate::queue::event::Event;

/// Bytes of a panic's message that are kept.
const TEXT_MAX: usize = 500;

/// A thread of the engine has panicked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Breakdown {
    /// Which thread.
    pub thread: String,
    /// The panic's message and place, escaped.
    pub text: String,
}

/// Watches over threads of a run.
#[derive(Clone)]
pub struct Watch {
    shared: Arc<Shared>,
    inboxes: Arc<[Sender<Inbox>]>,
}

thread_local! {
    /// The run that this thread works for, and its name.
    static WATCHED: RefCell<Option<Watched>> = const { RefCell::new(None) };
}

/// A thread that is watched.
struct Watched {
    shared: Arc<Shared>,
    name: String,
    is_worker: bool,
}

impl Watch {
    /// A watch over the run whose queues have these inboxes.
    pub fn new(shared: Arc<Shared>, inboxes: &[Sender<Inbox>]) -> Watch {
        set_hook();
        Watch {
            shared,
            inboxes: inboxes.into(),
        }
    }

    /// Does `body` as the thread `name`. `None` if it panicked: then the run ends.
    pub fn over<T>(&self, name: &str, body: impl FnOnce() -> T) -> Option<T> {
        self.over_thread(name, false, body)
    }

    /// Does `body` as the worker `name`: its panic ends the run only if it is not the first.
    pub fn over_worker(&self, name: &str, body: impl FnOnce()) {
        self.over_thread(name, true, body);
    }

    fn over_thread<T>(&self, name: &str, is_worker: bool, body: impl FnOnce() -> T) -> Option<T> {
        let watched = Watched {
            shared: Arc::clone(&self.shared),
            name: name.to_owned(),
            is_worker,
        };
        WATCHED.set(Some(watched));
        let outcome = catch_unwind(AssertUnwindSafe(body));
        let watched = WATCHED.take();
        match outcome {
            Ok(value) => Some(value),
            Err(payload) => {
                // Noted by the hook already, unless it was another's.
                let text = message_of(&*payload);
                if watched.is_some_and(|watched| watched.note(text)) {
                    self.end_run();
                }
                None
            }
        }
    }

    fn end_run(&self) {
        stop_all(&self.shared, &self.inboxes);
        // Idle workers need not wait for more.
        for inbox in &*self.inboxes {
            let _ = inbox.send(Event::InputClosed);
        }
        self.shared.book.enter(Entry::Wake);
    }
}

/// A worker counts as alive as long as this lives.
pub struct Alive(Arc<Shared>);

impl Alive {
    /// One more.
    pub fn new(shared: Arc<Shared>) -> Alive {
        shared.workers_alive.fetch_add(1, SeqCst);
        Alive(shared)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.workers_alive.fetch_sub(1, SeqCst);
        if self.0.breakdown().is_some() {
            self.0.book.enter(Entry::Wake);
        }
    }
}

fn message_of(payload: &(dyn Any + Send)) -> &str {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    let text = owned.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message")
}

fn set_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_ours = WATCHED.try_with(|watched| note_watched(watched, info)) == Ok(true);
            if !is_ours || std::env::var_os("RUST_BACKTRACE").is_some_and(|set| set != "0") {
                before(info);
            }
        }));
    });
}

/// True if the thread is watched: then its panic is noted.
fn note_watched(watched: &RefCell<Option<Watched>>, info: &PanicHookInfo<'_>) -> bool {
    let Ok(watched) = watched.try_borrow() else {
        return false;
    };
    let Some(watched) = &*watched else {
        return false;
    };
    let place = info
        .location()
        .map(|at| format!(" ({}:{})", at.file(), at.line()));
    let text = format!(
        "{}{}",
        message_of(info.payload()),
        place.unwrap_or_default()
    );
    watched.note(&text);
    true
}

impl Watched {
    /// Notes a panic. True if it ends the run: then nothing new is begun from here on. In this order: who sees the run stop must
    /// find out why.
    fn note(&self, text: &str) -> bool {
        let what = Breakdown {
            thread: self.name.clone(),
            text: printable(text, TEXT_MAX),
        };
        if self.is_worker && self.shared.forgive(&what) {
            return false;
        }
        self.shared.break_down(what);
        self.shared.stop();
        true
    }
}
