//! Opening a connection within a deadline, from a chosen source address if there is one.
//!
//! Returns a blocking stream with TCP_NODELAY set: the client writes whole flights, so Nagle's algorithm could only add
//! the 40 ms of a delayed acknowledgement.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connects to `peer` by TCP before `deadline`. `source` is used if it is of the peer's family.
///
/// # Errors
/// What the system says; `TimedOut` if the deadline came first.
pub fn connect(peer: SocketAddr, source: Option<IpAddr>, deadline: Instant) -> io::Result<Socket> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source.filter(|source| source.is_ipv4() == peer.is_ipv4()) {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&peer.into(), left.max(Duration::from_millis(1)))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// Whether connections can be made from this address.
///
/// # Errors
/// What the system says: mostly that the address is not one of this machine.
pub fn can_bind(source: IpAddr) -> io::Result<()> {
    let address = SocketAddr::new(source, 0);
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.bind(&address.into())
}

/// Connects to a socket of this machine (LMTP servers listen on such) before `deadline`: a server whose backlog is full
/// would block us.
///
/// # Errors
/// What the system says; `TimedOut` if the deadline came first.
pub fn connect_unix(path: &Path, deadline: Instant) -> io::Result<Socket> {
    let left = deadline.saturating_duration_since(Instant::now());
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(left.max(Duration::from_millis(1))))?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::ErrorKind::TimedOut.into())
        }
        Err(error) => Err(error),
        Ok(()) => Ok(socket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn connects_from_the_chosen_source_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let source = "127.0.0.9".parse().unwrap();
        let stream = connect(listener.local_addr().unwrap(), Some(source), deadline).unwrap();
        let (_, seen) = listener.accept().unwrap();
        assert_eq!(seen.ip(), source);
        assert!(stream.tcp_nodelay().unwrap());
    }

    #[test]
    fn a_source_address_of_the_other_family_is_left_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        assert!(
            connect(
                listener.local_addr().unwrap(),
                Some("::1".parse().unwrap()),
                deadline
            )
            .is_ok()
        );
    }

    #[test]
    fn an_address_of_another_machine_cannot_be_bound() {
        assert!(can_bind("127.0.0.77".parse().unwrap()).is_ok());
        assert!(can_bind("192.0.2.1".parse().unwrap()).is_err());
    }

    #[test]
    fn a_deadline_that_has_passed_opens_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = connect(listener.local_addr().unwrap(), None, Instant::now()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
