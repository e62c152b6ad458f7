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
    StreamOwned,
};
use tokio::sync::Notify;
use wharf_ports::extender::{ExtenderAnswer, ExtenderCall, ExtenderCalls};
use wharf_scheduler::Plugin;
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

/// Refuses what extenders cannot do here.
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

/// Refuses configurations with extenders that are to do what they cannot do here.
pub(crate) fn check(configuration: &Configuration) -> Result<(), Failure> {
    let Some(first) = configuration.extenders.first() else { return Ok(()) };
    let mut extenders = configuration.extenders.iter();
    if let Some(extender) = extenders.find(|extender| !extender.preempt_verb.is_empty()) {
        return Err(Failure::bad_input(format!(
            "extenders have no say in preemption here: take preemptVerb of {} out of the scheduler's configuration",
            extender.url_prefix
        )));
    }
    let gangs =
        |profile: &wharf_scheduler::Profile| profile.permit.contains(&Plugin::GangScheduling);
    if configuration.profiles.iter().any(gangs) {
        return Err(Failure::bad_input(format!(
            "extenders have no say in gangs here: take {} or the plugin GangScheduling out of the scheduler's configuration",
            first.url_prefix
        )));
    }
    Ok(())
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
struct Deadline(Duration);

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self(process_start().elapsed().saturating_add(timeout))
    }

    fn left(&self) -> Result<Duration, AnyError> {
        let left = self.0.saturating_sub(process_start().elapsed());
        if left.is_zero() { Err("it takes too long".into()) } else { Ok(left) }
    }
}

/// A connection, plain or with TLS.
enum Connection {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let stream: &mut dyn Write = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream,
        };
        stream.write_all(bytes)?;
        stream.flush()
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

fn post(call: &ExtenderCall, tls: Option<Tls>) -> Result<String, AnyError> {
    let deadline = Deadline::after(call.timeout);
    let (_, rest) = call.url.split_once("://").ok_or("its URL has no scheme")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = if tls.is_some() { 443 } else { 80 };
    let explicit = authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    let (host, port) = match explicit {
        Some((host, port)) => (host, port.parse()?),
        None => (authority, port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = (host, port).to_socket_addrs()?.next().ok_or("its host has no address")?;
    let socket = TcpStream::connect_timeout(&address, deadline.left()?)?;
    socket.set_nodelay(true)?;
    let mut connection = match tls {
        None => Connection::Plain(socket),
        Some(tls) => {
            let name = if tls.server_name.is_empty() { host } else { &tls.server_name };
            let name = ServerName::try_from(name.to_owned())?;
            let client = ClientConnection::new(tls.config, name)?;
            Connection::Tls(Box::new(StreamOwned::new(client, socket)))
        }
    };
    connection.socket().set_write_timeout(Some(deadline.left()?))?;
    connection.socket().set_read_timeout(Some(deadline.left()?))?;
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
        connection.socket().set_read_timeout(Some(deadline.left()?))?;
        match connection.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            // A peer that closes without TLS's goodbye.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.into()),
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err("its answer is too long".into());
        }
        if client::is_whole(&bytes) {
            break;
        }
    }
    let answer = client::parse(&bytes).ok_or("its answer is not HTTP")?;
    if answer.code == 200 {
        Ok(answer.body)
    } else {
        Err(format!("it answered {}: {}", answer.code, answer.body.trim()).into())
    }
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
