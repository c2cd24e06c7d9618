//! The one place that knows of futures: a thread that keeps the resolver's runtime turning, and a join.
//!
//! A `current_thread` runtime drives its sockets and timers only while some thread sits in its `block_on`. One thread does
//! nothing else, until told to stop; callers block on their own look-up through the runtime's handle, so answers from the
//! cache never leave the calling thread.
//!
//! INVARIANT: [`Driver`] is dropped only when nobody is inside [`Driver::wait_for`] (callers borrow it).

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};

/// A runtime with the thread that turns it; stopped and joined when dropped.
pub struct Driver {
    handle: Handle,
    stop: Arc<StopMark>,
    thread: Option<JoinHandle<()>>,
}

/// Set once; wakes the driving thread.
#[derive(Default)]
struct StopMark(Mutex<(bool, Option<Waker>)>);

impl StopMark {
    fn state(&self) -> MutexGuard<'_, (bool, Option<Waker>)> {
        // Nothing that panics runs under this lock, so poison carries no meaning.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver {
    /// Starts the runtime and its thread.
    pub fn start() -> io::Result<Driver> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let handle = runtime.handle().clone();
        let stop = Arc::new(StopMark::default());
        let seen = stop.clone();
        let thread = std::thread::Builder::new()
            .name("dns".into())
            .stack_size(512 * 1024)
            .spawn(move || {
                runtime.block_on(poll_fn(|context| {
                    let mut state = seen.state();
                    if state.0 {
                        return Poll::Ready(());
                    }
                    state.1 = Some(context.waker().clone());
                    Poll::Pending
                }));
            })?;
        Ok(Driver {
            handle,
            stop,
            thread: Some(thread),
        })
    }

    /// Blocks the calling thread until `work` is done.
    pub fn wait_for<F: Future>(&self, work: F) -> F::Output {
        self.handle.block_on(work)
    }

    /// Runs `make` where timers and sockets of the runtime can be created.
    pub fn inside<T>(&self, make: impl FnOnce() -> T) -> T {
        let _entered = self.handle.enter();
        make()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.stop.state();
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the driving thread has been printed by its hook; there is nothing to add while dropping.
            let _ = thread.join();
        }
    }
}

/// Waits for all of a handful of futures at once; results in the order given. Every wake-up polls all that are pending, which
/// is fine for the few dozen look-ups of one domain.
pub fn join_all<'a, T: Unpin + 'a, F: Future<Output = T> + Send + 'a>(
    futures: impl IntoIterator<Item = F>,
) -> impl Future<Output = Vec<T>> + 'a {
    let mut pending: Vec<Pin<Box<dyn Future<Output = T> + Send + 'a>>> = Vec::new();
    for future in futures {
        pending.push(Box::pin(future));
    }
    let mut done: Vec<Option<T>> = pending.iter().map(|_| None).collect();
    poll_fn(move |context| {
        for (future, result) in pending.iter_mut().zip(&mut done) {
            if result.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            Poll::Ready(done.iter_mut().filter_map(Option::take).collect())
        } else {
            Poll::Pending
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn joined_futures_give_their_results_in_order() {
        let driver = Driver::start().unwrap();
        let joined = driver.inside(|| {
            join_all((0..8u64).map(|n| {
                let mut sleep = Box::pin(tokio::time::sleep(Duration::from_millis(8 - n)));
                poll_fn(move |context| sleep.as_mut().poll(context).map(|()| n))
            }))
        });
        assert_eq!(driver.wait_for(joined), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_to_join_is_done_at_once() {
        let driver = Driver::start().unwrap();
        let none: Vec<std::future::Ready<u8>> = Vec::new();
        assert!(driver.wait_for(join_all(none)).is_empty());
    }
}
