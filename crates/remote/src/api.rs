//! One request, one answer: the transport under lists, watches and writes. Requests are values, so
//! that what a write asks for can be tested without a socket; this module sends them through
//! kube's client, which knows kubeconfigs, credentials and TLS, and knows when to send one again.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use kube::client::Body;
use parking_lot::Mutex;
use wharf_ports::error::{ApiError, StatusReason};

use crate::backoff::Backoff;
use crate::limiter::{Limiter, Rate};
use crate::status;

/// How long an answer may take, its body included. The server gives up after 60 seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);
/// How long a watch may take to begin.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30);
/// How often one request is sent; client-go tries ten times.
const ATTEMPTS_MAX: u32 = 10;
/// The longest `Retry-After` that is waited for; a server that asks for more is asked by the
/// controller's own back-off.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The largest answer that is read: a page of 500 objects of at most 1.5 MiB each is larger, but
/// then the page is what is wrong.
const ANSWER_BYTES_MAX: usize = 512 << 20;

/// A request as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    /// Media type of the body; empty without one.
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
    /// When it may be sent again.
    pub(crate) again: Again,
}

/// When a request may be sent again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// It changes nothing: after any answer that a later one may better.
    Always,
    /// It changes something: only after an answer which says that it was not carried out.
    IfNotDone,
    /// Never: what the refusal means is for the caller to say (an eviction that a budget refuses,
    /// a list that the reflector's own back-off repeats).
    Never,
}

impl Request {
    pub(crate) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            content_type: "",
            body: Bytes::new(),
            again: Again::Always,
        }
    }

    pub(crate) fn send(
        method: Method,
        path: String,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        Self { method, path, content_type, body: body.into(), again: Again::IfNotDone }
    }

    pub(crate) fn with(self, again: Again) -> Self {
        Self { again, ..self }
    }
}

/// Why there is no good answer.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The server refused.
    Refused(ApiError),
    /// The server could not be asked, or its answer was lost; all that is known is why.
    Lost(String),
}

impl Failure {
    /// Whether the server no longer holds the revision asked for, or no longer serves the kind at
    /// all: a list tells how things are.
    pub(crate) fn is_expired(&self) -> bool {
        let Self::Refused(error) = self else { return false };
        matches!(error.reason, StatusReason::Expired | StatusReason::NotFound)
    }

    /// As an outcome. What has become of a request whose answer was lost is open, and that is what
    /// [`StatusReason::Timeout`] says.
    pub(crate) fn into_error(self) -> ApiError {
        match self {
            Self::Refused(error) => error,
            Self::Lost(why) => ApiError::new(
                StatusReason::Timeout,
                format!("no answer from the API server ({why}); the request may have succeeded"),
            ),
        }
    }
}

/// A server, with the limits this client keeps to.
#[derive(Clone)]
pub(crate) struct Api {
    client: kube::Client,
    limiter: Arc<Limiter>,
    backoff: Arc<Mutex<Backoff>>,
}

impl Api {
    pub(crate) fn new(client: kube::Client, rate: Rate, seed: u64) -> Self {
        Self {
            client,
            limiter: Arc::new(Limiter::new(rate)),
            backoff: Arc::new(Mutex::new(Backoff::new(seed, "remote requests"))),
        }
    }

    /// The same server with a limiter of its own, for traffic that must not hold up the rest:
    /// upstream's components have separate clients for Events and for leader election.
    pub(crate) fn with_own_limit(&self, rate: Rate) -> Self {
        Self { limiter: Arc::new(Limiter::new(rate)), ..self.clone() }
    }

    /// Sends a request, again if it may be, and gives the body of a good answer.
    pub(crate) async fn call(&self, request: &Request) -> Result<Bytes, Failure> {
        let mut attempt = 1;
        loop {
            self.limiter.acquire().await;
            let failure = match self.once(request).await {
                Ok(body) => return Ok(body),
                Err(failure) => failure,
            };
            let Some(wait) = wait_before_again(request.again, &failure) else {
                return Err(failure);
            };
            if attempt == ATTEMPTS_MAX {
                return Err(failure);
            }
            attempt += 1;
            let pause = match wait {
                Some(asked) => asked + self.backoff.lock().below(asked / 4),
                None => self.backoff.lock().after(attempt - 1),
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn once(&self, request: &Request) -> Result<Bytes, Failure> {
        let exchange = async {
            let (code, headers, body) = self.send(request).await?;
            let body = collect(body).await?;
            if (200..300).contains(&code) {
                return Ok(body);
            }
            Err(Failure::Refused(status::refusal(code, &headers, &body)))
        };
        tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or_else(|_| {
            Err(Failure::Lost(format!("nothing for {} s", ANSWER_TIMEOUT.as_secs())))
        })
    }

    /// Starts a watch; the body is its stream.
    pub(crate) async fn watch(&self, path: String) -> Result<Body, Failure> {
        self.limiter.acquire().await;
        let start = async {
            let (code, headers, body) = self.send(&Request::get(path)).await?;
            if code == 200 {
                return Ok(body);
            }
            let body = collect(body).await?;
            Err(Failure::Refused(status::refusal(code, &headers, &body)))
        };
        tokio::time::timeout(WATCH_TIMEOUT, start).await.unwrap_or_else(|_| {
            Err(Failure::Lost(format!("nothing for {} s", WATCH_TIMEOUT.as_secs())))
        })
    }

    async fn send(&self, request: &Request) -> Result<(u16, HeaderMap, Body), Failure> {
        let mut built = http::Request::builder()
            .method(request.method.clone())
            .uri(&request.path)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::USER_AGENT, concat!("wharf/", env!("CARGO_PKG_VERSION")));
        if !request.content_type.is_empty() {
            built = built.header(http::header::CONTENT_TYPE, request.content_type);
        }
        let built = built
            .body(Body::from(request.body.clone()))
            .map_err(|error| Failure::Lost(error.to_string()))?;
        let answer =
            self.client.send(built).await.map_err(|error| Failure::Lost(explain(&error)))?;
        let (head, body) = answer.into_parts();
        Ok((head.status.as_u16(), head.headers, body))
    }
}

/// Whether to send a request again after a failure: `None` for no, `Some(None)` after a back-off,
/// `Some(Some(_))` after the time the server asks for.
#[expect(clippy::option_option, reason = "the two levels are two different questions")]
fn wait_before_again(again: Again, failure: &Failure) -> Option<Option<Duration>> {
    let Failure::Refused(error) = failure else {
        return (again == Again::Always).then_some(None);
    };
    let asked = error.retry_after_seconds.map(|seconds| Duration::from_secs(u64::from(seconds)));
    if asked.is_some_and(|asked| asked > RETRY_AFTER_MAX) {
        return None;
    }
    match (again, error.reason) {
        (Again::Never, _) => None,
        // 429 is told before anything was done; so is a 503 that says when to come back.
        (_, StatusReason::TooManyRequests) => Some(asked),
        (_, StatusReason::ServiceUnavailable) if asked.is_some() => Some(asked),
        (
            Again::Always,
            StatusReason::ServiceUnavailable | StatusReason::InternalError | StatusReason::Timeout,
        ) => Some(asked),
        _ => None,
    }
}

async fn collect(mut body: Body) -> Result<Bytes, Failure> {
    let mut collected = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Lost(explain(&error)))?;
        if let Ok(data) = frame.into_data() {
            collected.extend_from_slice(&data);
            if collected.len() > ANSWER_BYTES_MAX {
                let max = ANSWER_BYTES_MAX >> 20;
                return Err(Failure::Lost(format!("the answer is longer than {max} MiB")));
            }
        }
    }
    Ok(collected.into())
}

/// An error with its causes in one line; each says what the one before it did not.
pub(crate) fn explain(error: &kube::Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = match error {
        // Their own text repeats that of their source.
        kube::Error::Service(source) => Some(source.as_ref()),
        kube::Error::HyperError(source) => Some(source),
        kube::Error::Auth(source) => Some(source),
        other => Some(other),
    };
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.contains(&line) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&line);
        }
        cause = error.source();
    }
    if text.is_empty() {
        error.source().map_or_else(String::new, ToString::to_string)
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: StatusReason, retry_after: Option<u32>) -> Failure {
        let mut error = ApiError::new(reason, "no");
        error.retry_after_seconds = retry_after;
        Failure::Refused(error)
    }

    #[test]
    fn only_what_was_surely_not_done_is_sent_again() {
        let lost = Failure::Lost("reset".to_owned());
        assert_eq!(wait_before_again(Again::Always, &lost), Some(None));
        assert_eq!(wait_before_again(Again::IfNotDone, &lost), None);
        let busy = refused(StatusReason::TooManyRequests, Some(3));
        let three = Some(Some(Duration::from_secs(3)));
        assert_eq!(wait_before_again(Again::Always, &busy), three);
        assert_eq!(wait_before_again(Again::IfNotDone, &busy), three);
        assert_eq!(wait_before_again(Again::Never, &busy), None);
        let away = refused(StatusReason::TooManyRequests, Some(3_600));
        assert_eq!(wait_before_again(Again::Always, &away), None);
        let down = refused(StatusReason::ServiceUnavailable, None);
        assert_eq!(wait_before_again(Again::Always, &down), Some(None));
        assert_eq!(wait_before_again(Again::IfNotDone, &down), None);
        let starting = refused(StatusReason::ServiceUnavailable, Some(3));
        assert_eq!(wait_before_again(Again::IfNotDone, &starting), three);
        let bug = refused(StatusReason::InternalError, None);
        assert_eq!(wait_before_again(Again::Always, &bug), Some(None));
        assert_eq!(wait_before_again(Again::IfNotDone, &bug), None);
        let conflict = refused(StatusReason::Conflict, None);
        assert_eq!(wait_before_again(Again::Always, &conflict), None);
    }

    #[test]
    fn a_lost_answer_leaves_open_what_was_done() {
        let error = Failure::Lost("connection reset".to_owned()).into_error();
        assert_eq!(error.reason, StatusReason::Timeout);
        assert!(error.retryable());
    }
}
