//! Listening sockets that nobody outside this machine can reach.
//!
//! One socket on 0.0.0.0 tied to the device `lo` serves all of 127/8 at once, so that every test domain can have addresses of
//! its own; packets of other devices never reach it. Where the system has no such thing or forbids it, the addresses of a
//! list are bound one by one.
//!
//! INVARIANT: a socket returned is bound to loopback addresses only, or to the loopback device.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::config::{Listen, SinkError};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The sockets of a receiver.
pub(super) struct Listeners {
    pub sockets: Vec<TcpListener>,
    pub port: u16,
    /// True if one socket serves all of 127/8.
    pub whole: bool,
}

/// Opens what is asked for. With port 0 all sockets share the port that the first one is given.
pub(super) fn open(listen: &Listen, port: u16) -> Result<Listeners, SinkError> {
    let addresses = match listen {
        Listen::Addresses(addresses) => addresses,
        Listen::AllLoopback(instead) => match all_loopback(port) {
            Ok(socket) => {
                let port = port_of(&socket, port)?;
                return Ok(Listeners {
                    sockets: vec![socket],
                    port,
                    whole: true,
                });
            }
            // Taken is taken; anything else says that the system has no sockets tied to a device.
            Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => {
                return Err(SinkError::new(
                    format!("listen on 127.0.0.0/8 port {port}"),
                    cause,
                ));
            }
            Err(_) => instead,
        },
    };
    let mut port = port;
    let mut sockets = Vec::new();
    for &address in addresses {
        let socket = one(SocketAddr::new(address, port))?;
        port = port_of(&socket, port)?;
        sockets.push(socket);
    }
    if sockets.is_empty() {
        let cause = io::Error::new(io::ErrorKind::InvalidInput, "no address is given");
        return Err(SinkError::new("listen", cause));
    }
    Ok(Listeners {
        sockets,
        port,
        whole: false,
    })
}

fn port_of(socket: &TcpListener, port: u16) -> Result<u16, SinkError> {
    socket
        .local_addr()
        .map(|address| address.port())
        .map_err(|cause| SinkError::new(format!("learn the port (asked for {port})"), cause))
}

fn one(address: SocketAddr) -> Result<TcpListener, SinkError> {
    let attempt = || format!("listen on {address}");
    if !address.ip().is_loopback() {
        let cause = io::Error::new(
            io::ErrorKind::InvalidInput,
            "only loopback addresses are allowed",
        );
        return Err(SinkError::new(attempt(), cause));
    }
    let domain = Domain::for_address(address);
    let socket = stream_socket(domain).map_err(|cause| SinkError::new(attempt(), cause))?;
    bind(socket, address).map_err(|cause| SinkError::new(attempt(), cause))
}

/// 0.0.0.0, tied to the loopback device before it is bound.
fn all_loopback(port: u16) -> io::Result<TcpListener> {
    let socket = stream_socket(Domain::IPV4)?;
    tie_to_loopback(&socket)?;
    bind(
        socket,
        SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
    )
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn tie_to_loopback(socket: &Socket) -> io::Result<()> {
    socket.bind_device(Some(b"lo"))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn tie_to_loopback(_: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn stream_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // So that a receiver can be started again while old connections linger in TIME-WAIT.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn bind(socket: Socket, address: SocketAddr) -> io::Result<TcpListener> {
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn several_addresses_share_one_port() {
        let addresses = vec!["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()];
        let listeners = open(&Listen::Addresses(addresses), 0).unwrap();
        for host in ["127.0.0.1", "127.0.0.2"] {
            assert!(TcpStream::connect((host, listeners.port)).is_ok(), "{host}");
        }
        assert!(TcpStream::connect(("127.0.0.3", listeners.port)).is_err());
    }

    #[test]
    fn other_than_loopback_is_refused() {
        for address in ["0.0.0.0", "192.0.2.1", "::"] {
            let listen = Listen::Addresses(vec![address.parse().unwrap()]);
            let error = open(&listen, 0).err().unwrap().to_string();
            assert!(error.contains("only loopback"), "{error}");
        }
    }

    #[test]
    fn a_port_in_use_is_an_error_with_the_port_in_it() {
        let first = open(&Listen::AllLoopback(vec![Ipv4Addr::LOCALHOST.into()]), 0).unwrap();
        let again = open(
            &Listen::AllLoopback(vec![Ipv4Addr::LOCALHOST.into()]),
            first.port,
        );
        let error = again.err().unwrap().to_string();
        assert!(error.contains(&first.port.to_string()), "{error}");
    }
}
