//! The connection threads of a server in this process: started, counted, woken and waited for in one place.
//!
//! INVARIANTS: after [`Crew::stop`] returns no thread of the crew runs and none can start; a thread that panics still leaves
//! the crew, so that stopping never hangs on it; no lock is held while a thread works.
//!
//! A thread blocks only in its own stream (shut down by `stop`) or in [`Crew::pause`] (ended by `stop`).

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A set of threads, each with the connection it serves.
#[derive(Default)]
pub struct Crew {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    stopping: bool,
    last: u64,
    open: HashMap<u64, Arc<TcpStream>>,
}

impl Crew {
    fn state(&self) -> MutexGuard<'_, State> {
        // Only map operations run under this lock; poison carries no meaning.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread that serves `stream`. The stream is dropped, and so closed, if that is not possible (any more).
    pub fn serve(
        self: &Arc<Self>,
        stream: TcpStream,
        stack_bytes: usize,
        work: impl FnOnce(&TcpStream) + Send + 'static,
    ) -> io::Result<()> {
        let stream = Arc::new(stream);
        let number = {
            let mut state = self.state();
            if state.stopping {
                return Ok(());
            }
            state.last += 1;
            let number = state.last;
            state.open.insert(number, stream.clone());
            number
        };
        let leave = Leave {
            crew: self.clone(),
            number,
        };
        std::thread::Builder::new()
            .name("peer".into())
            .stack_size(stack_bytes)
            .spawn(move || {
                let _leave = leave;
                work(&stream);
            })
            .map(|_| ())
    }

    /// Waits so long, or until the crew is stopped. True if it still works.
    pub fn pause(&self, time: Duration) -> bool {
        let (state, _) = self
            .stopped
            .wait_timeout_while(self.state(), time, |state| !state.stopping)
            .unwrap_or_else(PoisonError::into_inner);
        !state.stopping
    }

    /// True once [`Crew::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Closes every connection and waits until all threads have ended.
    pub fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        self.stopped.notify_all();
        for stream in state.open.values() {
            // A stream that its peer has closed already cannot be shut down again: just what is wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
        while !state.open.is_empty() {
            state = self
                .stopped
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Accepts until the crew stops, handing each connection to `greet`. Wake it by connecting once after `stop`.
    pub fn accept(&self, listener: &TcpListener, mut greet: impl FnMut(TcpStream)) {
        loop {
            let accepted = listener.accept();
            if self.is_stopping() {
                return;
            }
            match accepted {
                Ok((stream, _)) => greet(stream),
                // Out of descriptors, or a peer that was gone before it was met: neither must turn this into a busy loop.
                Err(_) => {
                    self.pause(Duration::from_millis(5));
                }
            }
        }
    }
}

/// Takes a thread off the list, however it ends.
struct Leave {
    crew: Arc<Crew>,
    number: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut state = self.crew.state();
        state.open.remove(&self.number);
        if state.stopping {
            self.crew.stopped.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn stopping_ends_threads_that_read_pause_or_panic() {
        let crew = Arc::new(Crew::default());
        let mut clients = Vec::new();
        for way in 0..3 {
            let (client, server) = pair();
            clients.push(client);
            let inner = crew.clone();
            crew.serve(server, 128 * 1024, move |mut stream| match way {
                0 => assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0),
                1 => assert!(!inner.pause(Duration::from_secs(600))),
                _ => std::panic::resume_unwind(Box::new("on purpose")),
            })
            .unwrap();
        }
        crew.stop();
        assert!(crew.state().open.is_empty());
        let (mut client, server) = pair();
        crew.serve(server, 128 * 1024, |_| panic!("started after the end"))
            .unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "refused by closing");
    }
}
