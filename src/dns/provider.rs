//! The sockets that the resolver asks through: those of tokio, but UDP sockets are connected to their name server.
//!
//! The system tells a connected socket of an ICMP "port unreachable", so that a name server that is not there is known at
//! once and not when patience ends; and it keeps datagrams of others away.
//!
//! Limits: where a firewall drops packets silently, only the time limit helps, as ever.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;
use trust_dns_resolver::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider, TokioTime,
};

type Coming<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

/// Makes the resolver's sockets.
#[derive(Clone, Default)]
pub struct Provider(TokioRuntimeProvider);

impl RuntimeProvider for Provider {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = TokioTime;
    type Udp = Connected;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        source: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Coming<Self::Tcp> {
        self.0.connect_tcp(server, source, timeout)
    }

    fn bind_udp(&self, source: SocketAddr, server: SocketAddr) -> Coming<Connected> {
        Box::pin(std::future::ready(Connected::new(source, server)))
    }
}

/// A UDP socket that hears of its server only.
pub struct Connected {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Connected {
    fn new(source: SocketAddr, server: SocketAddr) -> io::Result<Connected> {
        let socket = std::net::UdpSocket::bind(source)?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        Ok(Connected { socket, server })
    }

    /// Takes a datagram, or the error that was announced. `WouldBlock`: the announcement was idle, and is taken back.
    fn receive(&self, buffer: &mut [u8], is_error: bool) -> io::Result<usize> {
        if is_error {
            let take = || Err(self.pending_error());
            self.socket.try_io(Interest::ERROR, take)
        } else {
            self.socket.try_recv(buffer)
        }
    }

    /// What the system has to report; `WouldBlock` if it is nothing.
    fn pending_error(&self) -> io::Error {
        let error = self.socket.take_error().unwrap_or_else(Some);
        error.unwrap_or_else(|| io::ErrorKind::WouldBlock.into())
    }
}

impl DnsUdpSocket for Connected {
    type Time = TokioTime;

    /// As the trait's own, but ends with an error of the socket too: the system announces those in another way than
    /// datagrams, and tokio's receiving methods would sleep on.
    fn recv_from<'a, 'b, 'all>(
        &'a self,
        buffer: &'b mut [u8],
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<(usize, SocketAddr)>> + 'all>>
    where
        'a: 'all,
        'b: 'all,
        Self: 'all,
    {
        const WANTED: Interest = Interest::READABLE.add(Interest::ERROR);
        let mut waiting = Box::pin(self.socket.ready(WANTED));
        Box::pin(poll_fn(move |context| {
            loop {
                let ready = ready!(waiting.as_mut().poll(context))?;
                waiting = Box::pin(self.socket.ready(WANTED));
                match self.receive(buffer, ready.is_error()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => return Poll::Ready(outcome.map(|len| (len, self.server))),
                }
            }
        }))
    }

    fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut room = ReadBuf::new(buffer);
        ready!(self.socket.poll_recv(context, &mut room))?;
        Poll::Ready(Ok((room.filled().len(), self.server)))
    }

    fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        datagram: &[u8],
        _server: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send(context, datagram)
    }
}
