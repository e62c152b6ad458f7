//! A Prometheus as a source: what containers used in the past, for the Vertical Pod Autoscaler;
//! custom and external metrics, for the Horizontal one.
//!
//! Here is how it is asked; what for is in the modules below.
//! <https://prometheus.io/docs/prometheus/latest/querying/api/>

mod history;
mod rules;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use crate::http::{self, AnyCertificate, Request, Tls};

pub(crate) use history::{History, HistorySettings};
pub(crate) use rules::load;
pub(crate) use source::Source;

/// The longest answer that is read: a week by the hour of a hundred thousand containers.
const ANSWER_BYTES_MAX: u64 = 512 << 20;
/// How much is shown of an answer that is no API's.
const SHOWN_MAX: usize = 200;

/// Where a Prometheus is and how it is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `http://` or `https://`, host, port and perhaps a path before `/api/v1`.
    pub(crate) address: String,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
    /// User name and password.
    pub(crate) user: Option<(String, String)>,
    /// A bearer token.
    pub(crate) token: Option<String>,
    /// A file with one; read for each request, since it may be renewed.
    pub(crate) token_file: Option<PathBuf>,
    /// The certificate authorities that are trusted instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// Whether whoever answers is trusted.
    pub(crate) insecure: bool,
}

/// What a Prometheus is the source of.
#[derive(Default)]
pub(crate) struct Sources {
    /// Of what containers used in the past.
    pub(crate) history: Option<(Client, HistorySettings)>,
    /// Of custom and external metrics.
    pub(crate) metrics: Option<Source>,
}

/// A Prometheus that can be asked.
#[derive(Clone)]
pub(crate) struct Client {
    settings: Settings,
    tls: Option<Tls>,
}

impl Client {
    /// Prepares to ask; nothing is sent.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub(crate) fn new(settings: Settings) -> Result<Self, String> {
        let address = settings.address.trim_end_matches('/').to_owned();
        if address.contains('@') {
            return Err(
                "credentials are no part of it; write them as --username and --password".to_owned()
            );
        }
        let tls = match address.split_once("://") {
            Some(("http", _)) => None,
            Some(("https", _)) => {
                let config = Arc::new(tls_config(&settings)?);
                Some(Tls { config, server_name: String::new() })
            }
            _ => {
                return Err(format!(
                    "{address:?} is no address of a Prometheus; write it as http://HOST:PORT or https://HOST:PORT"
                ));
            }
        };
        Ok(Self { settings: Settings { address, ..settings }, tls })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &str {
        &self.settings.address
    }

    /// Asks for the values of a query over a time.
    fn range(&self, query: &str, range: &Range) -> Result<Vec<Series>, String> {
        let Range { start, end, step } = range;
        let path = format!(
            "/api/v1/query_range?query={}&start={start}&end={end}&step={step}",
            encode(query)
        );
        match self.get(&path)? {
            Data::Matrix(series) => Ok(series),
            other => Err(self.wrong(&format!("it answered with a {}, not a matrix", other.name()))),
        }
    }

    /// Asks for the values of a query at a time, in seconds.
    fn instant(&self, query: &str, at: f64) -> Result<Data, String> {
        self.get(&format!("/api/v1/query?query={}&time={at}", encode(query)))
    }

    /// Asks for the values of a query now, by Prometheus' own clock.
    fn now(&self, query: &str) -> Result<Data, String> {
        self.get(&format!("/api/v1/query?query={}", encode(query)))
    }

    /// The same, with answers that take no longer.
    fn in_at_most(mut self, timeout: Duration) -> Self {
        self.settings.timeout = self.settings.timeout.min(timeout);
        self
    }

    fn get(&self, path: &str) -> Result<Data, String> {
        let url = format!("{}{path}", self.settings.address);
        let head = self.authorization().map_err(|error| self.wrong(&error))?;
        let request = Request {
            method: "GET",
            url: &url,
            head: &head,
            body: "",
            timeout: self.settings.timeout,
            answer_max: ANSWER_BYTES_MAX,
        };
        let answer = http::ask(&request, self.tls.clone())
            .map_err(|error| format!("no answer from {}: {error}", self.settings.address))?;
        let read: Result<Answer, _> = serde_json::from_str(&answer.body);
        match read {
            Ok(Answer { status: Status::Success, data: Some(data), .. }) if answer.code == 200 => {
                Ok(data)
            }
            Ok(Answer { status: Status::Error, error_type, error, .. }) => {
                let code = answer.code;
                Err(self.wrong(&format!("it answered {code}: {error_type}: {error}")))
            }
            Err(error) if answer.code == 200 => {
                Err(self.wrong(&format!("its answer is not that of its API ({error})")))
            }
            _ => {
                let body: String = answer.body.trim().chars().take(SHOWN_MAX).collect();
                let body = body.lines().next().unwrap_or_default();
                Err(self.wrong(&format!("it answered {}: {body}", answer.code)))
            }
        }
    }

    fn wrong(&self, what: &str) -> String {
        format!("Prometheus at {}: {what}", self.settings.address)
    }

    fn authorization(&self) -> Result<String, String> {
        let Settings { user, token, token_file, .. } = &self.settings;
        let line = match (user, token, token_file) {
            (Some((user, password)), _, _) => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
            (None, Some(token), _) => format!("Bearer {token}"),
            (None, None, Some(file)) => {
                let token = std::fs::read_to_string(file)
                    .map_err(|error| format!("{}: {error}", file.display()))?;
                format!("Bearer {}", token.trim())
            }
            (None, None, None) => return Ok(String::new()),
        };
        if line.contains(['\r', '\n']) {
            return Err("the credentials for it are more than one line".to_owned());
        }
        Ok(format!("Authorization: {line}\r\n"))
    }
}

/// A time in seconds, with its step.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    start: f64,
    end: f64,
    step: u64,
}

/// An answer of the API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: Status,
    data: Option<Data>,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Status {
    Success,
    Error,
}

/// What a query gives.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", tag = "resultType", content = "result")]
enum Data {
    Matrix(Vec<Series>),
    Vector(Vec<Value>),
    Scalar((f64, Number)),
    String(serde::de::IgnoredAny),
}

impl Data {
    fn name(&self) -> &'static str {
        match self {
            Self::Matrix(_) => "matrix",
            Self::Vector(_) => "vector",
            Self::Scalar(_) => "scalar",
            Self::String(_) => "string",
        }
    }
}

/// A series: times in seconds with values.
#[derive(Debug, Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, Number)>,
}

/// A series at one time.
#[derive(Debug, Deserialize)]
struct Value {
    metric: BTreeMap<String, String>,
    value: (f64, Number),
}

/// A number as Prometheus writes it, in a text; what is none is none. Read without keeping the
/// text: there may be millions of them.
#[derive(Clone, Copy, Debug)]
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl serde::de::Visitor<'_> for Text {
            type Value = Number;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number in a text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
                Ok(Number(match text {
                    "+Inf" => f64::INFINITY,
                    "-Inf" => f64::NEG_INFINITY,
                    _ => text.parse().unwrap_or(f64::NAN),
                }))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// A text as part of a URL's query.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn tls_config(settings: &Settings) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if settings.insecure {
        let verifier = Arc::new(AnyCertificate(provider));
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        return Ok(builder.with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    match &settings.ca_file {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(
            "there are no certificate authorities to trust; name a file with --prometheus-ca-file"
                .to_owned(),
        );
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read(file).map_err(|error| wrong(&error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(wrong(&"it holds no certificate")),
        found => found.map_err(|error| wrong(&error)),
    }
}

#[cfg(test)]
mod tests;
