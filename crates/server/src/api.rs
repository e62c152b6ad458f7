//! One request, from its head to its answer: authentication, body, routing, and the few endpoints
//! that are about the server itself. Objects are in [`handlers`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as HttpBody;
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{Semaphore, watch};
use wharf_model::time::Time;
use wharf_ports::clock::Clock;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::metrics::{Board, MetricsApis};
use wharf_registry::Registry;
use wharf_store::Store;

use crate::api_services::{self, EKS_METRICS};
use crate::auth::{Tokens, User, unauthorized};
use crate::body::Body;
use crate::certificates::{self, Signer};
use crate::handlers::{self, Call, DeletedForms};
use crate::logs::PodLogs;
use crate::negotiate::{self, Accepted};
use crate::path::{self, Route};
use crate::processes::PodProcesses;
use crate::query::Query;
use crate::{discovery, openapi, status};

/// The largest request body, upstream's.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Answers from this size on are compressed if the client takes it; upstream's threshold.
const GZIP_BYTES_MIN: usize = 128 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Life of a token when the request names none.
const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(3600);
/// Longest life of a token.
const TOKEN_LIFE_MAX_SECONDS: i64 = 365 * 86_400;

/// Streams of `exec`, `attach` and `port-forward` open at once. Each may be a thread.
const SESSIONS_MAX: usize = 256;

/// A future that borrows, behind a pointer.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Further endpoints under `/wharf/v1/`, of the program that the server is part of. Only
/// authenticated users reach them.
pub trait Extra: Send + Sync {
    /// Answers a request; `path` is what follows `/wharf/v1/`. `None` if there is no such path.
    fn handle<'a>(&'a self, request: ExtraRequest<'a>) -> Later<'a, Option<ExtraResponse>>;

    /// What `/metrics` shows, with its media type; `None` if there is no such path.
    fn metrics(&self) -> Option<(&'static str, String)> {
        None
    }
}

/// A request to an [`Extra`] endpoint.
pub struct ExtraRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path after `/wharf/v1/`.
    pub path: &'a str,
    /// The query, as pairs.
    pub query: &'a Query<'a>,
    /// The body; empty if there is none.
    pub body: &'a Bytes,
}

/// The answer of an [`Extra`] endpoint.
pub enum ExtraResponse {
    /// 200 with JSON.
    Json(Bytes),
    /// 200 with plain text.
    Text(String),
    /// A refusal.
    Refused(ApiError),
}

/// No further endpoints.
pub struct NoExtra;

impl Extra for NoExtra {
    fn handle<'a>(&'a self, _: ExtraRequest<'a>) -> Later<'a, Option<ExtraResponse>> {
        Box::pin(std::future::ready(None))
    }
}

/// What the server is made of.
pub struct ServerParts {
    /// The rules, over the store.
    pub registry: Arc<Registry>,
    /// Cluster time: ages, log times.
    pub clock: Arc<dyn Clock>,
    /// Real time: the life of tokens.
    pub wall: Arc<dyn Clock>,
    /// Issues and checks bearer tokens.
    pub tokens: Tokens,
    /// Signs what CertificateSigningRequests ask for; without one nobody does.
    pub signer: Option<Signer>,
    /// What containers have printed.
    pub logs: Arc<dyn PodLogs>,
    /// What runs in containers.
    pub processes: Arc<dyn PodProcesses>,
    /// What is measured of pods and nodes.
    pub metrics: Arc<Board>,
    /// Which metrics APIs are served.
    pub metrics_apis: MetricsApis,
    /// Further endpoints.
    pub extra: Arc<dyn Extra>,
    /// Whether the simulated cloud runs in another process, which then writes its machines through
    /// this API. Otherwise nobody may.
    pub cloud_is_elsewhere: bool,
    /// Turns true when the server is to stop; watches end then.
    pub stop: watch::Receiver<bool>,
}

/// The Kubernetes API over a store.
pub struct Api {
    pub(crate) parts: ServerParts,
    pub(crate) store: Store,
    pub(crate) started: Time,
    pub(crate) deleted_forms: DeletedForms,
    /// How many more streams of `exec`, `attach` and `port-forward` may be open.
    pub(crate) sessions: Arc<Semaphore>,
}

impl Api {
    /// Puts the parts together.
    pub fn new(parts: ServerParts) -> Arc<Self> {
        let store = parts.registry.store().clone();
        let started = parts.clock.now();
        let api = Self {
            parts,
            store,
            started,
            deleted_forms: DeletedForms::default(),
            sessions: Arc::new(Semaphore::new(SESSIONS_MAX)),
        };
        certificates::sign_waiting(&api);
        Arc::new(api)
    }

    /// Answers a request. `certificate` is the user of a verified client certificate.
    pub async fn handle<B>(
        self: &Arc<Self>,
        request: Request<B>,
        certificate: Option<&Arc<User>>,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let result = self.admit(&head, body, certificate).await;
        let response = result.unwrap_or_else(|error| status::refuse(&error));
        compress(&head, response)
    }

    /// Authenticates before the body is read, so that strangers cannot send one.
    async fn admit<B>(
        self: &Arc<Self>,
        head: &Parts,
        body: B,
        certificate: Option<&Arc<User>>,
    ) -> Result<Response<Body>, ApiError>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let route = path::parse(head.uri.path());
        let query = Query::parse(head.uri.query().unwrap_or_default());
        if let Some(Route::Health { endpoint, check }) = &route {
            return Ok(self.health(endpoint, check, &query));
        }
        if matches!(route, Some(Route::Version)) {
            return only_get(head, || json(discovery::version().clone()));
        }
        let user =
            self.parts.tokens.authenticate(certificate, &head.headers, self.parts.wall.now())?;
        if user.name.is_empty() {
            return Err(unauthorized());
        }
        let route = route.ok_or_else(status::no_such_path)?;
        let body = match head.method {
            Method::POST | Method::PUT | Method::PATCH | Method::DELETE => {
                read_body(head, body).await?
            }
            _ => Bytes::new(),
        };
        self.answer(head, route, query, body, &user).await
    }

    async fn answer(
        self: &Arc<Self>,
        head: &Parts,
        route: Route<'_>,
        query: Query<'_>,
        body: Bytes,
        user: &Arc<User>,
    ) -> Result<Response<Body>, ApiError> {
        let apis = self.parts.metrics_apis;
        match route {
            Route::Resource(path) if !apis.serve(path.group) => Err(status::no_such_path()),
            Route::Resource(path) => {
                let accepted = negotiate::accepted(&head.headers)?;
                let call = Call { head, path, query, body, user, accepted };
                handlers::resource(self, call).await
            }
            Route::Private(path) => self.private(head, path, &query, &body).await,
            Route::Metrics => match self.parts.extra.metrics() {
                Some((media_type, text)) => {
                    only_get(head, || typed_response(text.into(), media_type))
                }
                None => Err(status::no_such_path()),
            },
            _ => only_get(head, || self.document(head, &route))?,
        }
    }

    /// Documents that do not depend on what is stored.
    fn document(&self, head: &Parts, route: &Route<'_>) -> Result<Response<Body>, ApiError> {
        let accepted = negotiate::accepted(&head.headers)?;
        let apis = self.parts.metrics_apis;
        let found = match route {
            Route::Group(group) | Route::GroupVersion(group, _) if !apis.serve(group) => None,
            Route::Root => Some(discovery::root(apis)),
            Route::Api | Route::Apis => return Ok(self.groups(route, accepted)),
            Route::Group(EKS_METRICS) | Route::GroupVersion(EKS_METRICS, _)
                if api_services::has_eks_metrics(self) =>
            {
                let version = match route {
                    Route::GroupVersion(_, version) => Some(*version),
                    _ => None,
                };
                api_services::eks_metrics(version).map(|document| document.to_string().into())
            }
            Route::Group(name) => discovery::group(name),
            Route::GroupVersion(handlers::metrics::CUSTOM, version @ ("v1beta1" | "v1beta2")) => {
                Some(handlers::metrics::custom_resources(self, version))
            }
            Route::GroupVersion(group, version) => discovery::resource_list(group, version),
            Route::OpenApiV2 | Route::OpenApiV3 | Route::OpenApiV3Path(_) => {
                return openapi::answer(head, route, accepted);
            }
            _ => None,
        };
        found.map(json).ok_or_else(status::no_such_path)
    }

    fn groups(&self, route: &Route<'_>, accepted: Accepted) -> Response<Body> {
        let core = matches!(route, Route::Api);
        let apis = self.parts.metrics_apis;
        match accepted.discovery {
            Some(form) => {
                let mut response = typed_response(
                    discovery::aggregated(core, form, apis),
                    discovery::aggregated_media_type(form),
                );
                response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
                response
            }
            None if core => json(discovery::api_versions().clone()),
            None => json(discovery::group_list(apis)),
        }
    }

    /// `/healthz`, `/livez`, `/readyz`.
    fn health(&self, endpoint: &str, check: &str, query: &Query<'_>) -> Response<Body> {
        let stopping = *self.parts.stop.borrow();
        let checks = [
            ("ping", true),
            ("store", self.store.failure().is_none()),
            ("shutdown", endpoint != "readyz" || !stopping),
        ];
        let mut report = String::new();
        let mut healthy = true;
        let mut known = check.is_empty();
        for (name, passes) in checks {
            if !check.is_empty() && check != name {
                continue;
            }
            known = true;
            healthy &= passes;
            report +=
                &if passes { format!("[+]{name} ok\n") } else { format!("[-]{name} failed\n") };
        }
        if !known {
            return status::refuse(&status::no_such_path());
        }
        let text = match (healthy, query.flag("verbose")) {
            (true, Some(true)) if check.is_empty() => {
                format!("{report}{endpoint} check passed\n")
            }
            (true, _) => "ok".to_owned(),
            (false, _) => format!("{report}{endpoint} check failed\n"),
        };
        let mut response = typed_response(text.into(), "text/plain; charset=utf-8");
        if !healthy {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        response
    }

    async fn private(
        &self,
        head: &Parts,
        path: &str,
        query: &Query<'_>,
        body: &Bytes,
    ) -> Result<Response<Body>, ApiError> {
        if path == "token" {
            if head.method != Method::POST {
                return Err(status::no_such_method());
            }
            let life = match query.integer("ttlSeconds")? {
                None => TOKEN_LIFE_DEFAULT,
                Some(seconds @ 1..=TOKEN_LIFE_MAX_SECONDS) => {
                    Duration::from_secs(seconds.unsigned_abs())
                }
                Some(_) => {
                    return Err(status::bad_request(format!(
                        "ttlSeconds must be between 1 and {TOKEN_LIFE_MAX_SECONDS}"
                    )));
                }
            };
            let token = self.parts.tokens.issue(self.parts.wall.now(), life);
            return Ok(typed_response(token.into(), "text/plain; charset=utf-8"));
        }
        let request = ExtraRequest { method: &head.method, path, query, body };
        match self.parts.extra.handle(request).await {
            Some(ExtraResponse::Json(bytes)) => Ok(json(bytes)),
            Some(ExtraResponse::Text(text)) => {
                Ok(typed_response(text.into(), "text/plain; charset=utf-8"))
            }
            Some(ExtraResponse::Refused(error)) => Err(error),
            None => Err(status::no_such_path()),
        }
    }

    /// Waits until what is answered would survive a crash.
    pub(crate) async fn durable(&self, revision: u64) -> Result<(), ApiError> {
        self.store.wait_durable(revision).await.map_err(|error| {
            ApiError::new(StatusReason::InternalError, format!("Internal error occurred: {error}"))
        })
    }

    /// Cluster time.
    pub(crate) fn now(&self) -> Time {
        self.parts.clock.now()
    }
}

/// A 200 answer with JSON.
pub(crate) fn json(body: Bytes) -> Response<Body> {
    typed_response(body, "application/json")
}

/// A 200 answer of some media type.
pub(crate) fn typed_response(body: Bytes, media: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::Full(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn only_get<T>(head: &Parts, answer: impl FnOnce() -> T) -> Result<T, ApiError> {
    match head.method {
        Method::GET | Method::HEAD => Ok(answer()),
        _ => Err(status::no_such_method()),
    }
}

async fn read_body<B>(head: &Parts, body: B) -> Result<Bytes, ApiError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || {
        ApiError::new(
            StatusReason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {BODY_BYTES_MAX}"),
        )
    };
    let announced = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    let collected =
        tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            Err(status::bad_request(format!("the body of the request could not be read: {error}")))
        }
        Err(_) => Err(ApiError::new(
            StatusReason::Timeout,
            "the body of the request did not arrive in time",
        )),
    }
}

/// Compresses a large answer for a client that takes it.
fn compress(head: &Parts, mut response: Response<Body>) -> Response<Body> {
    let large = match response.body() {
        Body::Full(bytes) => bytes.len() >= GZIP_BYTES_MIN,
        Body::Lazy(_) => true,
        Body::Stream(_) => false,
    };
    if !large || !negotiate::accepts_gzip(&head.headers) {
        return response;
    }
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    response.map(Body::gzip)
}
