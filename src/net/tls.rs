//! TLS on a connection that is open: the platform's library through native-tls, and what was agreed on.
//!
//! native-tls names neither the protocol nor the cipher. Both stand in the ServerHello, which every handshake sends in
//! clear (RFC 8446 4.1.3), so the stream below the library keeps its first bytes and `hello::read` looks them up.
//!
//! Two kinds of connector are made once and shared, since making one reads the system's certificates (tens of
//! milliseconds): one that accepts any certificate, one that verifies chain and name. Both refuse what is older than
//! TLS 1.2 (RFC 8996) and send the server's name (SNI). Those that will be needed are made at the start: one that cannot
//! be made is our own trouble, and must not look like a server that cannot shake hands, which `may` goes around in clear.
//!
//! A handshake obeys one deadline as a whole, however slowly its bytes drip in.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use native_tls::{Certificate, HandshakeError, Identity, Protocol, TlsConnector, TlsStream};
use socket2::Socket;

mod hello;

/// Bytes of the server's first flight that are kept: the ServerHello stands in them.
const HELLO_BYTES_KEPT: usize = 512;
/// How long one read of a handshake may block before its deadline is looked at again.
const TICK_MAX: Duration = Duration::from_secs(5);

/// What is trusted, and who we are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsFiles {
    /// Certificates (PEM) trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate with its chain (PEM), and its key (PKCS #8, PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Which connectors a run needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TlsNeeds {
    /// One that accepts any certificate.
    pub accepting: bool,
    /// One that verifies chain and name.
    pub verifying: bool,
}

/// The connectors of a run.
pub struct Tls {
    accepting: Option<TlsConnector>,
    verifying: Option<TlsConnector>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Why the connectors cannot be made.
#[derive(Clone, Debug)]
pub struct TlsError {
    /// Which file, if it is one's fault.
    pub path: Option<PathBuf>,
    /// What is wrong.
    pub text: String,
}

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", path.display(), self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// What a handshake agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// `TLSv1.3`.
    pub protocol: &'static str,
    /// The cipher suite's name, or its number.
    pub cipher: String,
    /// The name in the server's certificate.
    pub peer: Option<String>,
    /// Whether the certificate was verified.
    pub verified: bool,
}

impl std::fmt::Display for Agreed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let trust = if self.verified {
            "verified"
        } else {
            "unverified"
        };
        write!(f, "{} {} {trust}", self.protocol, self.cipher)?;
        match &self.peer {
            Some(peer) => write!(f, " {}", crate::mail::verdict::printable(peer, 100)),
            None => Ok(()),
        }
    }
}

impl Tls {
    /// The connectors that are needed. Files that are named are looked at even if nobody needs them.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate, or the library's refusal.
    pub fn new(files: &TlsFiles, needs: TlsNeeds) -> Result<Tls, TlsError> {
        let verifying = needs.verifying || files.ca.is_some() || files.identity.is_some();
        let make = |verify| connector(files, verify);
        Ok(Tls {
            accepting: needs.accepting.then(|| make(false)).transpose()?,
            verifying: verifying.then(|| make(true)).transpose()?,
        })
    }

    fn connector(&self, verify: bool) -> &TlsConnector {
        let made = if verify {
            &self.verifying
        } else {
            &self.accepting
        };
        made.as_ref()
            .expect("the connectors that policies ask for are made at the start")
    }

    /// Shakes hands as `name` is expected to, before `deadline`.
    ///
    /// # Errors
    /// What went wrong, in words.
    ///
    /// # Panics
    /// If [`TlsNeeds`] did not name this kind of connector.
    pub fn handshake(
        &self,
        socket: Arc<Socket>,
        name: &str,
        verify: bool,
        deadline: Instant,
    ) -> Result<(Box<TlsStream<Below>>, Agreed), String> {
        let connector = self.connector(verify);
        let below = Below {
            socket,
            kept: Vec::new(),
            keeps: true,
            deadline,
        };
        let mut outcome = connector.connect(name, below);
        let mut stream = loop {
            match outcome {
                Ok(stream) => break stream,
                Err(HandshakeError::Failure(error)) => return Err(error.to_string()),
                Err(HandshakeError::WouldBlock(_)) if Instant::now() >= deadline => {
                    return Err("timed out".into());
                }
                Err(HandshakeError::WouldBlock(half)) => outcome = half.handshake(),
            }
        };
        let (protocol, cipher) = hello::read(&stream.get_ref().kept).unwrap_or(("TLS", "?".into()));
        let below = stream.get_mut();
        (below.keeps, below.kept) = (false, Vec::new());
        let peer = stream
            .peer_certificate()
            .ok()
            .flatten()
            .and_then(|certificate| name_in(&certificate));
        let agreed = Agreed {
            protocol,
            cipher,
            peer,
            verified: verify,
        };
        Ok((Box::new(stream), agreed))
    }
}

fn connector(files: &TlsFiles, verify: bool) -> Result<TlsConnector, TlsError> {
    let mut builder = TlsConnector::builder();
    builder
        .min_protocol_version(Some(Protocol::Tlsv12))
        .use_sni(true);
    if !verify {
        builder
            .danger_accept_invalid_certs(true)
            .danger_accept_invalid_hostnames(true);
    }
    if let Some(path) = &files.ca {
        builder.disable_built_in_roots(true);
        for certificate in certificates(path)? {
            builder.add_root_certificate(certificate);
        }
    }
    if let Some((chain, key)) = &files.identity {
        let bad = |error: native_tls::Error| fault(chain, &error);
        builder.identity(Identity::from_pkcs8(&read(chain)?, &read(key)?).map_err(bad)?);
    }
    builder.build().map_err(|error| TlsError {
        path: None,
        text: error.to_string(),
    })
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, TlsError> {
    let stack =
        openssl::x509::X509::stack_from_pem(&read(path)?).map_err(|error| fault(path, &error))?;
    if stack.is_empty() {
        return Err(fault(path, &"holds no certificate in PEM form"));
    }
    let convert = |certificate: openssl::x509::X509| {
        let der = certificate.to_der().map_err(|error| fault(path, &error))?;
        Certificate::from_der(&der).map_err(|error| fault(path, &error))
    };
    stack.into_iter().map(convert).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| fault(path, &error))
}

fn fault(path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError {
        path: Some(path.to_path_buf()),
        text: error.to_string(),
    }
}

/// The first DNS name of a certificate, else its common name.
fn name_in(certificate: &Certificate) -> Option<String> {
    let x509 = openssl::x509::X509::from_der(&certificate.to_der().ok()?).ok()?;
    let alternative = x509.subject_alt_names().and_then(|names| {
        names
            .iter()
            .find_map(|name| name.dnsname().map(str::to_owned))
    });
    alternative.or_else(|| {
        let entry = x509
            .subject_name()
            .entries_by_nid(openssl::nid::Nid::COMMONNAME)
            .next()?;
        entry.data().to_string().ok()
    })
}

/// The connection below the library. Shared, so that another thread can cut it.
///
/// The library reads on until a record is whole, however slowly its bytes drip in: so the deadline is looked at here,
/// before each read and write of the socket.
#[derive(Debug)]
pub struct Below {
    socket: Arc<Socket>,
    kept: Vec<u8>,
    keeps: bool,
    deadline: Instant,
}

impl Below {
    /// What is read and written from now on is so before `deadline`; later, it would block.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Time-outs of the socket for the next call, or `WouldBlock` if the deadline has passed.
    fn tick(&self, set: fn(&Socket, Option<Duration>) -> io::Result<()>) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        set(
            &self.socket,
            Some(left.min(TICK_MAX).max(Duration::from_millis(1))),
        )
    }
}

impl Read for Below {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tick(Socket::set_read_timeout)?;
        let count = (&*self.socket).read(buffer)?;
        if self.keeps {
            let room = HELLO_BYTES_KEPT - self.kept.len();
            self.kept.extend_from_slice(&buffer[..count.min(room)]);
        }
        Ok(count)
    }
}

impl Write for Below {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tick(Socket::set_write_timeout)?;
        (&*self.socket).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
