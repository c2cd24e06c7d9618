//! Where a run's socket is, who may be at the other end, and the client's side of a conversation.
//!
//! The socket stands in the job's directory, which nobody but its owner can enter. The address of a Unix socket holds 108
//! bytes; a longer path is reached by way of `/proc/self/fd/N` for the open directory.
//!
//! Limits: the client gives up after [`PATIENCE`]; a run that is stopped by the terminal (SIGSTOP) does not answer.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;

use super::{ANSWER_MAX, Reply, Request};

/// The socket's name in the directory of a job.
pub const NAME: &str = "ctl";
/// Paths up to this length are used as they are.
const PATH_MAX: usize = 100;
/// How long a client waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Calls `act` with an address of the socket in `dir` that is short enough.
fn with_address<T>(dir: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = dir.join(NAME);
    if path.as_os_str().len() <= PATH_MAX {
        return act(&path);
    }
    let dir = File::open(dir)?;
    act(Path::new(&format!(
        "/proc/self/fd/{}/{NAME}",
        dir.as_raw_fd()
    )))
}

/// Listens in the directory of a job that is held by us: a socket that is there is a dead run's.
///
/// # Errors
/// If the file system has no sockets, or the directory cannot be written.
pub fn listen(dir: &Path) -> io::Result<UnixListener> {
    remove(dir)?;
    let listener = with_address(dir, |path| UnixListener::bind(path))?;
    fs::set_permissions(dir.join(NAME), Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes the socket, if there is one.
///
/// # Errors
/// If it cannot be removed.
pub fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The user at the other end.
///
/// # Errors
/// If the system does not tell.
pub fn peer(stream: &impl AsFd) -> io::Result<u32> {
    Ok(socket_peercred(stream)?.uid.as_raw())
}

/// True if this user may control what we run: ourselves, and root.
pub fn is_allowed(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Asks the run whose job lies in `dir`.
///
/// # Errors
/// `NotFound` and `ConnectionRefused`: nobody listens there. Else: it went away, did not answer in time, or answered nonsense.
pub fn ask(dir: &Path, request: &Request) -> io::Result<Reply> {
    let mut stream = with_address(dir, |path| UnixStream::connect(path))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream).take(ANSWER_MAX as u64);
    reader.read_until(b'\n', &mut answer)?;
    if answer.last() != Some(&b'\n') {
        let text = "the run has ended, or its answer is cut off";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    Ok(serde_json::from_slice(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(listener: &UnixListener) {
        listener.set_nonblocking(false).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        assert!(is_allowed(peer(&stream).unwrap()));
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert_eq!(line, "{\"order\":\"stop\"}\n");
        stream.write_all(b"{\"done\":{\"said\":\"ok\"}}\n").unwrap();
    }

    #[test]
    fn a_run_is_reached_under_a_short_path_and_a_very_long_one_and_a_dead_runs_socket_is_replaced()
    {
        let scratch = tempfile::tempdir().unwrap();
        let long = scratch.path().join("d".repeat(120));
        fs::create_dir(&long).unwrap();
        for dir in [scratch.path(), &long] {
            drop(listen(dir).unwrap());
            let gone = ask(dir, &Request::Stop).unwrap_err();
            assert_eq!(gone.kind(), io::ErrorKind::ConnectionRefused);
            let listener = listen(dir).unwrap();
            let mode = fs::metadata(dir.join(NAME)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            std::thread::scope(|scope| {
                scope.spawn(|| serve(&listener));
                let said = "ok".to_owned();
                assert_eq!(ask(dir, &Request::Stop).unwrap(), Reply::Done { said });
            });
            remove(dir).unwrap();
            let gone = ask(dir, &Request::Stop).unwrap_err();
            assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        }
    }
}
