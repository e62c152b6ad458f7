//! One HTTP request over a connection of its own, plain or with TLS, that never outlasts its time:
//! for programs that are asked from a thread of their own.

use std::io::{BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use crate::client::{self, Answer};
use crate::lab::process_start;

/// The longest head of an answer that is read.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// What stands in the way of an answer.
pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// The method.
    pub(crate) method: &'a str,
    /// Where, with its scheme.
    pub(crate) url: &'a str,
    /// Lines of its head besides the usual ones, each with its end.
    pub(crate) head: &'a str,
    /// The body; JSON unless it is empty.
    pub(crate) body: &'a str,
    /// How long all of it may take.
    pub(crate) timeout: Duration,
    /// The longest answer that is read.
    pub(crate) answer_max: u64,
}

/// How to speak TLS with a server.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    /// The name the certificate is for, if it is not the URL's.
    pub(crate) server_name: String,
}

/// Sends a request and waits for the answer. Without `tls` it is sent in the clear.
pub(crate) fn ask(request: &Request<'_>, tls: Option<Tls>) -> Result<Answer, AnyError> {
    let deadline = Deadline::after(request.timeout);
    try_ask(request, tls, deadline).map_err(|error| match error.downcast() {
        Ok(error) => deadline.tell(*error),
        Err(error) => error,
    })
}

fn try_ask(
    request: &Request<'_>,
    tls: Option<Tls>,
    deadline: Deadline,
) -> Result<Answer, AnyError> {
    let (_, rest) = request.url.split_once("://").ok_or("its URL has no scheme")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = if tls.is_some() { 443 } else { 80 };
    let explicit = authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    let (host, port) = match explicit {
        Some((host, port)) => (host, port.parse()?),
        None => (authority, port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut connection = Connection::open(host, port, tls, deadline)?;
    let Request { method, head, body, .. } = request;
    let about = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    };
    let text = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nAccept: application/json\r\n\
         {about}{head}\r\n{body}",
    );
    connection.write_all(text.as_bytes())?;
    let limited = connection.take(request.answer_max + HEAD_BYTES_MAX);
    client::read_answer(&mut BufReader::with_capacity(64 << 10, limited), request.answer_max)
}

/// What is left of a request's time.
#[derive(Clone, Copy)]
struct Deadline {
    end: Duration,
    timeout: Duration,
}

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self { end: process_start().elapsed().saturating_add(timeout), timeout }
    }

    /// At least a millisecond: a socket takes no less for a time-out.
    fn left(self) -> std::io::Result<Duration> {
        let left = self.end.saturating_sub(process_start().elapsed());
        if left < Duration::from_millis(1) {
            Err(std::io::ErrorKind::TimedOut.into())
        } else {
            Ok(left)
        }
    }

    /// What a time-out is called.
    fn tell(self, error: std::io::Error) -> AnyError {
        match error.kind() {
            // The latter is what a socket says whose time is over.
            std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => {
                format!("it takes longer than {:?}", self.timeout).into()
            }
            std::io::ErrorKind::UnexpectedEof => "its answer breaks off".into(),
            _ => error.into(),
        }
    }
}

/// A connection, plain or with TLS. Whatever the peer does, no request outlasts the deadline: the
/// socket is given what is left of the time before each of its own calls.
struct Connection {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    deadline: Deadline,
}

impl Connection {
    fn open(host: &str, port: u16, tls: Option<Tls>, deadline: Deadline) -> Result<Self, AnyError> {
        let mut addresses = (host, port).to_socket_addrs()?.peekable();
        // One name may stand for the addresses of several networks, not all of which are served.
        let socket = loop {
            let address = addresses.next().ok_or("its host has no address")?;
            match TcpStream::connect_timeout(&address, deadline.left()?) {
                Ok(socket) => break socket,
                Err(error) if addresses.peek().is_none() => return Err(error.into()),
                Err(_) => {}
            }
        };
        socket.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Self { socket, tls: None, deadline }) };
        let name = if tls.server_name.is_empty() { host } else { &tls.server_name };
        let name = ServerName::try_from(name.to_owned())?;
        let client = Box::new(ClientConnection::new(tls.config, name)?);
        let mut connection = Self { socket, tls: Some(client), deadline };
        connection.shake_hands()?;
        Ok(connection)
    }

    fn shake_hands(&mut self) -> std::io::Result<()> {
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            self.send()?;
            if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) && !self.receive()? {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.send()
    }

    /// Sends what TLS has to say.
    fn send(&mut self) -> std::io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            self.socket.set_write_timeout(Some(self.deadline.left()?))?;
            tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Takes in what there is for TLS. Returns whether there may be more.
    fn receive(&mut self) -> std::io::Result<bool> {
        let Some(tls) = &mut self.tls else { return Ok(false) };
        self.socket.set_read_timeout(Some(self.deadline.left()?))?;
        let length = tls.read_tls(&mut self.socket)?;
        let taken = tls.process_new_packets().map_err(std::io::Error::other);
        // An alert tells the peer why.
        let _ = self.send();
        taken.map(|_| length > 0)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = match &mut self.tls {
            Some(tls) => tls.writer().write(bytes)?,
            None => {
                self.socket.set_write_timeout(Some(self.deadline.left()?))?;
                self.socket.write(bytes)?
            }
        };
        self.send()?;
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.send()
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let Some(tls) = &mut self.tls else {
                self.socket.set_read_timeout(Some(self.deadline.left()?))?;
                return self.socket.read(buffer);
            };
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.receive()?;
                }
                // A peer that closes without TLS's goodbye.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(0),
                done => return done,
            }
        }
    }
}

/// Takes any certificate, for who asks for that; that its owner has its key is still checked.
#[derive(Debug)]
pub(crate) struct AnyCertificate(pub(crate) Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
