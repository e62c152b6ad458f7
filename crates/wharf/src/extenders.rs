//! Asks the scheduler's extenders: one POST over a connection of its own, on a thread of its own,
//! since an extender may take its time.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::sync::Notify;
use wharf_ports::extender::{ExtenderAnswer, ExtenderCall, ExtenderCalls};
use wharf_scheduler::config::{Configuration, Extender, ExtenderTls};

use crate::client;
use crate::failure::Failure;
use crate::lab::process_start;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The extenders of a configuration, ready to be asked.
pub(crate) struct Extenders {
    /// How to speak TLS with each, by its place in the configuration; `None` for plain HTTP.
    tls: Vec<Option<Tls>>,
    sender: Sender<ExtenderAnswer>,
    receiver: Receiver<ExtenderAnswer>,
    /// Told of every answer.
    arrivals: Arc<Notify>,
}

#[derive(Clone)]
struct Tls {
    config: Arc<ClientConfig>,
    /// The name the certificate is for, if it is not the URL's.
    server_name: String,
}

impl Extenders {
    /// Prepares to ask the extenders of a configuration; `arrivals` is told when answers come.
    pub(crate) fn new(
        configuration: &Configuration,
        arrivals: Arc<Notify>,
    ) -> Result<Self, Failure> {
        let tls = configuration.extenders.iter().map(prepare).collect::<Result<_, _>>()?;
        let (sender, receiver) = channel();
        Ok(Self { tls, sender, receiver, arrivals })
    }
}

/// How to speak TLS with an extender, if it is to be asked so.
fn prepare(extender: &Extender) -> Result<Option<Tls>, Failure> {
    let wrong = |text: String| {
        Failure::bad_input(format!("extender {} of the scheduler: {text}", extender.url_prefix))
    };
    if !extender.url_prefix.starts_with("https://") {
        return Ok(None);
    }
    let tls = extender.tls.clone().unwrap_or_default();
    let config = tls_config(&tls, extender.enable_https).map_err(wrong)?;
    Ok(Some(Tls { config: Arc::new(config), server_name: tls.server_name }))
}

impl ExtenderCalls for Extenders {
    fn call(&mut self, call: ExtenderCall) {
        let tls = self.tls.get(call.extender).cloned().flatten();
        let (sender, arrivals) = (self.sender.clone(), Arc::clone(&self.arrivals));
        let id = call.id;
        let spawned = std::thread::Builder::new().name("extender".to_owned()).spawn(move || {
            let result =
                post(&call, tls).map_err(|error| format!("no answer from {}: {error}", call.url));
            // The loop may have ended; then nobody waits for it.
            let _ = sender.send(ExtenderAnswer { id, result });
            arrivals.notify_one();
        });
        if let Err(error) = spawned {
            let result = Err(format!("cannot start a thread: {error}"));
            let _ = self.sender.send(ExtenderAnswer { id, result });
            self.arrivals.notify_one();
        }
    }

    fn poll(&mut self, answers: &mut Vec<ExtenderAnswer>) {
        answers.extend(self.receiver.try_iter());
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// What is left of a call's time.
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
            _ => error.into(),
        }
    }
}

/// A connection, plain or with TLS. Whatever the peer does, no call outlasts the deadline: the
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

    fn write(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let length = match &mut self.tls {
                Some(tls) => tls.writer().write(bytes)?,
                None => {
                    self.socket.set_write_timeout(Some(self.deadline.left()?))?;
                    self.socket.write(bytes)?
                }
            };
            self.send()?;
            bytes = &bytes[length..];
        }
        Ok(())
    }

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

fn post(call: &ExtenderCall, tls: Option<Tls>) -> Result<String, AnyError> {
    let deadline = Deadline::after(call.timeout);
    let answer = ask(call, tls, deadline).map_err(|error| match error.downcast() {
        Ok(error) => deadline.tell(*error),
        Err(error) => error,
    })?;
    if answer.code == 200 {
        Ok(answer.body)
    } else {
        Err(format!("it answered {}: {}", answer.code, answer.body.trim()).into())
    }
}

fn ask(
    call: &ExtenderCall,
    tls: Option<Tls>,
    deadline: Deadline,
) -> Result<client::Answer, AnyError> {
    let (_, rest) = call.url.split_once("://").ok_or("its URL has no scheme")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = if tls.is_some() { 443 } else { 80 };
    let explicit = authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    let (host, port) = match explicit {
        Some((host, port)) => (host, port.parse()?),
        None => (authority, port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut connection = Connection::open(host, port, tls, deadline)?;
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
        call.body.len(),
        call.body
    );
    connection.write(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = connection.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..length]);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err("its answer is too long".into());
        }
        if length == 0 || client::is_whole(&bytes) {
            break;
        }
    }
    client::parse(&bytes).ok_or_else(|| "its answer is not HTTP".into())
}

fn tls_config(tls: &ExtenderTls, enable_https: bool) -> Result<ClientConfig, String> {
    let authorities = pem("tlsConfig.ca", &tls.ca_data, &tls.ca_file)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match authorities {
        // As upstream's: HTTPS that is asked for without authorities trusts whoever answers.
        None if tls.insecure || enable_https => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        }
        None => {
            return Err("https needs caFile, caData or insecure in tlsConfig, or enableHTTPS to trust whoever answers".to_owned());
        }
        Some(_) if tls.insecure => {
            return Err(
                "insecure and certificate authorities exclude each other in tlsConfig".to_owned()
            );
        }
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(&authorities) {
                let certificate = certificate.map_err(|error| format!("tlsConfig.ca: {error}"))?;
                roots.add(certificate).map_err(|error| format!("tlsConfig.ca: {error}"))?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| format!("tlsConfig.ca: {error}"))?;
            builder.with_webpki_verifier(verifier)
        }
    };
    let certificate = pem("tlsConfig.cert", &tls.cert_data, &tls.cert_file)?;
    let key = pem("tlsConfig.key", &tls.key_data, &tls.key_file)?;
    match (certificate, key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let certificates = CertificateDer::pem_slice_iter(&certificate)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| format!("tlsConfig.cert: {error}"))?;
            let key = PrivateKeyDer::from_pem_slice(&key)
                .map_err(|error| format!("tlsConfig.key: {error}"))?;
            builder
                .with_client_auth_cert(certificates, key)
                .map_err(|error| format!("tlsConfig.cert: {error}"))
        }
        _ => Err("a client's certificate and its key go together in tlsConfig".to_owned()),
    }
}

/// The data given, or else the file's.
fn pem(field: &str, data: &str, file: &str) -> Result<Option<Vec<u8>>, String> {
    if !data.is_empty() {
        return STANDARD.decode(data).map(Some).map_err(|error| format!("{field}Data: {error}"));
    }
    if file.is_empty() {
        return Ok(None);
    }
    std::fs::read(file).map(Some).map_err(|error| format!("{field}File: {file}: {error}"))
}

/// Takes any certificate, as `insecure` asks for; that its owner has its key is still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

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
