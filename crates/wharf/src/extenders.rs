//! Asks the scheduler's extenders: one POST over a connection of its own, on a thread of its own,
//! since an extender may take its time.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Notify;
use wharf_ports::extender::{ExtenderAnswer, ExtenderCall, ExtenderCalls};
use wharf_scheduler::config::{Configuration, Extender, ExtenderTls};

use crate::failure::Failure;
use crate::http::{self, AnyCertificate, AnyError, Request, Tls};

/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The extenders of a configuration, ready to be asked.
pub(crate) struct Extenders {
    /// How to speak TLS with each, by its place in the configuration; `None` for plain HTTP.
    tls: Vec<Option<Tls>>,
    sender: Sender<ExtenderAnswer>,
    receiver: Receiver<ExtenderAnswer>,
    /// Told of every answer.
    arrivals: Arc<Notify>,
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

fn post(call: &ExtenderCall, tls: Option<Tls>) -> Result<String, AnyError> {
    let request = Request {
        method: "POST",
        url: &call.url,
        head: "",
        body: &call.body,
        timeout: call.timeout,
        answer_max: ANSWER_BYTES_MAX,
    };
    let answer = http::ask(&request, tls)?;
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
