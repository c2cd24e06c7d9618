//! Control of a run while it goes on: a thread that listens on the socket in the job's directory.
//!
//! One thread serves all connections by poll(2), without waiting for any of them: a connection is one request line and one
//! answer line. A client that says nothing, or half of something, is let go at its deadline; if all places are taken the
//! one that has been silent for the longest goes, so that flooding the socket hurts other clients at worst, never the mail.
//!
//! | file | what |
//! |---|---|
//! | `operator` | what becomes of a request |
//! | `show` | what a run looks like |
//!
//! INVARIANTS: only the same user and root are heard; a request is at most [`REQUEST_MAX`] bytes, connections at most
//! `CLIENTS_MAX`. The socket is gone when [`Control`] is dropped; that of a run that was killed is replaced by the next,
//! which holds the job's lock by then.
//!
//! Limits: orders are obeyed one after the other; while a queue takes its time to answer (at most two seconds) others wait.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::guard::Watch;
use crate::control::socket;
use crate::control::{ANSWER_MAX, REQUEST_MAX, Reply, Request};

mod operator;
mod show;

pub use operator::Operator;

/// Connections at a time.
const CLIENTS_MAX: usize = 16;
/// How long a client may take for its request, and for reading the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// The pause after a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the gauges are looked at, for rates.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// The thread that listens.
#[derive(Debug)]
pub struct Control {
    dir: PathBuf,
    /// Closed to end it.
    alive: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Listens in `dir`, the directory of a job that is held by us.
    ///
    /// # Errors
    /// If there can be no socket.
    pub fn start(dir: &Path, mut operator: Operator, watch: &Watch) -> io::Result<Control> {
        let (alive, end) = UnixStream::pair()?;
        let listener = socket::listen(dir)?;
        operator.keep_log(dir);
        let watch = watch.clone();
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                watch.over("control", || serve(&listener, &end, &mut operator));
            })?;
        Ok(Control {
            dir: dir.to_owned(),
            alive: Some(alive),
            thread: Some(thread),
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // One that cannot be removed is replaced by the next run.
        let _ = socket::remove(&self.dir);
    }
}

/// A connection.
struct Client {
    stream: UnixStream,
    uid: u32,
    since: Instant,
    request: Vec<u8>,
    /// The answer, and how much of it has left.
    answer: Option<(Vec<u8>, usize)>,
}

/// What has become of a connection.
#[derive(PartialEq, Eq)]
enum Fate {
    Goes,
    Stays,
}

fn serve(listener: &UnixListener, end: &UnixStream, operator: &mut Operator) {
    let mut clients: Vec<Client> = Vec::new();
    let mut sampled_at = Instant::now();
    loop {
        if sampled_at.elapsed() >= SAMPLE_EVERY {
            sampled_at = Instant::now();
            operator.sample();
        }
        clients.retain(|client| client.since.elapsed() < DEADLINE);
        let Ok((is_over, is_called, ready)) = wait(listener, end, &clients) else {
            return;
        };
        if is_over {
            return;
        }
        let mut at = 0;
        clients.retain_mut(|client| {
            at += 1;
            !ready[at - 1] || client.attend(operator) == Fate::Stays
        });
        if is_called {
            welcome(listener, &mut clients);
        }
    }
}

/// Waits until something can be done: end of the run, a new client, and whether each client can go on.
fn wait(
    listener: &UnixListener,
    end: &UnixStream,
    clients: &[Client],
) -> io::Result<(bool, bool, Vec<bool>)> {
    let mut fds = vec![
        PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
    ];
    fds.extend(clients.iter().map(|client| {
        let wanted = match client.answer {
            Some(_) => PollFlags::OUT,
            None => PollFlags::IN,
        };
        PollFd::from_borrowed_fd(client.stream.as_fd(), wanted)
    }));
    let time = Timespec::try_from(SAMPLE_EVERY).map_err(io::Error::other)?;
    match poll(&mut fds, Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    let ready = fds[2..].iter().map(is_ready).collect();
    Ok((is_ready(&fds[0]), is_ready(&fds[1]), ready))
}

/// Takes a new connection. One of another user is told so and closed.
fn welcome(listener: &UnixListener, clients: &mut Vec<Client>) {
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
        Err(_) => {
            // No descriptor is left, say: the caller waits, and so do we, since poll does not.
            std::thread::sleep(PAUSE);
            return;
        }
    };
    if stream.set_nonblocking(true).is_err() {
        return;
    }
    let uid = match socket::peer(&stream) {
        Ok(uid) if socket::is_allowed(uid) => uid,
        _ => {
            let said = "this job belongs to another user".to_owned();
            let answer = line(&Reply::Error { said, hint: None });
            // It fits into the buffer of a socket that was just made.
            let _ = (&stream).write(&answer);
            return;
        }
    };
    if clients.len() >= CLIENTS_MAX {
        clients.remove(0);
    }
    clients.push(Client {
        stream,
        uid,
        since: Instant::now(),
        request: Vec::new(),
        answer: None,
    });
}

impl Client {
    /// Goes on with it, as far as that is possible at once.
    fn attend(&mut self, operator: &mut Operator) -> Fate {
        if self.answer.is_none() {
            let fate = self.read();
            let Some(end) = self.request.iter().position(|byte| *byte == b'\n') else {
                if self.request.len() >= REQUEST_MAX {
                    self.reply(&wrong(
                        "a request is one line of at most 4,096 bytes".into(),
                    ));
                    return self.write();
                }
                return fate;
            };
            let reply = match serde_json::from_slice::<Request>(&self.request[..end]) {
                Ok(request) => operator.obey(&request, self.uid),
                Err(error) => wrong(format!("not a request: {error}")),
            };
            self.reply(&reply);
        }
        self.write()
    }

    fn read(&mut self) -> Fate {
        let mut buffer = [0; 1024];
        while self.request.len() < REQUEST_MAX {
            let room = buffer.len().min(REQUEST_MAX - self.request.len());
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => return Fate::Goes,
                Ok(count) => self.request.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Fate::Stays,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Fate::Goes,
            }
        }
        Fate::Stays
    }

    fn reply(&mut self, reply: &Reply) {
        self.since = Instant::now();
        self.answer = Some((line(reply), 0));
    }

    fn write(&mut self) -> Fate {
        let Some((answer, sent)) = &mut self.answer else {
            return Fate::Stays;
        };
        while *sent < answer.len() {
            match self.stream.write(&answer[*sent..]) {
                Ok(0) => return Fate::Goes,
                Ok(count) => *sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Fate::Stays,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Fate::Goes,
            }
        }
        Fate::Goes
    }
}

fn wrong(said: String) -> Reply {
    Reply::Error { said, hint: None }
}

/// An answer as it is sent.
fn line(reply: &Reply) -> Vec<u8> {
    let mut line = serde_json::to_vec(reply).unwrap_or_default();
    if line.is_empty() || line.len() >= ANSWER_MAX {
        line = br#"{"error":{"said":"the answer is too long: ask for fewer sites"}}"#.to_vec();
    }
    line.push(b'\n');
    line
}
