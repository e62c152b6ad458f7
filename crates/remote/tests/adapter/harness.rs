//! An API server in this process, and a client to it that misbehaves on demand.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use wharf_model::kinds::{Kind, Resource, built_in};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::clock::{Clock as _, VirtualClock};
use wharf_ports::cluster::{Cluster as _, ClusterEvent, Delete, Write, WriteId};
use wharf_ports::error::ApiError;
use wharf_ports::metrics::Board;
use wharf_ports::view::View;
use wharf_registry::Registry;
use wharf_remote::{
    Election, LeaseSettings, Rate, RemoteCluster, RemoteMetrics, Server, Settings, StartError,
};
use wharf_server::{Api, ClosedPods, NoExtra, ServerParts, SilentPods, Tokens, User};
use wharf_store::Store;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);
const NOW: Time = Time::from_seconds(1_760_000_000);

/// What goes wrong with one request.
pub(crate) enum Fault {
    /// This is answered instead.
    Answer(u16, Option<u32>, Value),
    /// It is carried out, and the connection breaks before the answer.
    AnswerLost,
}

impl Fault {
    fn status(code: u16, reason: &str, message: &str) -> Self {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": code, "reason": reason, "message": message});
        Self::Answer(code, None, status)
    }

    pub(crate) fn gone() -> Self {
        Self::status(410, "Expired", "too old resource version")
    }

    pub(crate) fn broken() -> Self {
        Self::status(500, "InternalError", "the disk is full")
    }

    pub(crate) fn busy(seconds: u32) -> Self {
        let status = json!({"kind": "Status", "code": 429, "reason": "TooManyRequests"});
        Self::Answer(429, Some(seconds), status)
    }

    pub(crate) fn not_served() -> Self {
        Self::Answer(404, None, json!("404 page not found"))
    }

    /// The custom metrics API in these versions, the first one preferred.
    pub(crate) fn custom_metrics(versions: &[&str]) -> Self {
        let versions: Vec<Value> = versions.iter().map(|v| json!({"version": v})).collect();
        Self::Answer(200, None, json!({"preferredVersion": versions[0], "versions": versions}))
    }

    /// What the aggregator says of an API whose server is away.
    pub(crate) fn unavailable() -> Self {
        Self::Answer(503, None, json!("service unavailable"))
    }

    pub(crate) fn forbidden() -> Self {
        let message = "pods is forbidden: User \"x\" cannot list resource \"pods\"";
        Self::status(403, "Forbidden", message)
    }
}

/// Between client and server.
#[derive(Default)]
struct Between {
    faults: Mutex<VecDeque<(&'static str, &'static str, Fault)>>,
    /// Method, path and body of every request.
    seen: Mutex<Vec<(String, String, Bytes)>>,
    holds_watches: AtomicBool,
    refuses: AtomicBool,
    held: Mutex<Option<&'static str>>,
}

/// An API server with a client.
pub(crate) struct Lab {
    api: Arc<Api>,
    registry: Arc<Registry>,
    clock: Arc<VirtualClock>,
    /// What is measured.
    pub(crate) board: Arc<Board>,
    between: Arc<Between>,
    /// Counts the cuts: a watch ends when it changes.
    cuts: watch::Sender<u64>,
    _stop: watch::Sender<bool>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(VirtualClock::starting_at(NOW));
        let registry = Arc::new(Registry::new(Store::ephemeral(), clock.clone(), 7));
        registry.bootstrap().expect("the first objects");
        let (stop, stopped) = watch::channel(false);
        let board = Board::new();
        let api = Api::new(ServerParts {
            registry: Arc::clone(&registry),
            clock: clock.clone(),
            wall: clock.clone(),
            tokens: Tokens::new(&[1; 32]),
            signer: None,
            logs: Arc::new(SilentPods),
            processes: Arc::new(ClosedPods),
            metrics: Arc::clone(&board),
            metrics_apis: Default::default(),
            extra: Arc::new(NoExtra),
            cloud_is_elsewhere: false,
            stop: stopped,
        });
        let between = Arc::new(Between::default());
        Self { api, registry, clock, board, between, cuts: watch::channel(0).0, _stop: stop }
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// Lets cluster time pass.
    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance_to(self.clock.now() + by);
    }

    /// The paths of the requests so far that begin so.
    pub(crate) fn requests(&self, start: &str) -> Vec<String> {
        let seen = self.between.seen.lock();
        seen.iter()
            .map(|(_, path, _)| path.clone())
            .filter(|path| path.starts_with(start))
            .collect()
    }

    /// Requests whose path begins so are never answered.
    pub(crate) fn hold(&self, start: &'static str) {
        *self.between.held.lock() = Some(start);
    }

    pub(crate) async fn metrics(&self) -> RemoteMetrics {
        RemoteMetrics::new(&self.server().await, self.clock.clone())
    }

    pub(crate) fn create(&self, object: impl Resource) {
        self.registry.apply(Write::Create(Box::new(object))).expect("a valid object");
    }

    pub(crate) fn delete<T: Resource>(&self, key: &ObjectKey) {
        let object = self.registry.store().get(Kind::of::<T>(), key).expect("it is there");
        let delete = Delete::of(&object).with_grace(0);
        self.registry.apply(Write::Delete(delete)).expect("it can be deleted");
    }

    pub(crate) fn list<T: Resource>(&self) -> Vec<T> {
        let (objects, _) = self.registry.store().list(Kind::of::<T>(), None);
        objects
            .iter()
            .map(|object| serde_json::from_slice(&object.json_unkept()).expect("it decodes"))
            .collect()
    }

    /// The next request whose path holds `path` meets a fault.
    pub(crate) fn fault(&self, method: &'static str, path: &'static str, fault: Fault) {
        self.between.faults.lock().push_back((method, path, fault));
    }

    /// Every watch there is breaks.
    pub(crate) fn cut_watches(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// New watches wait.
    pub(crate) fn hold_watches(&self, hold: bool) {
        self.between.holds_watches.store(hold, Ordering::SeqCst);
    }

    /// The server is away for good.
    pub(crate) fn refuse_everything(&self) {
        self.between.refuses.store(true, Ordering::SeqCst);
    }

    /// How often all of a resource was listed from the start.
    pub(crate) fn lists_of(&self, plural: &str) -> usize {
        let seen = self.between.seen.lock();
        let start = format!("/{plural}?limit=");
        let is_list = |path: &String| path.contains(&start) && !path.contains("continue=");
        seen.iter().filter(|(_, path, _)| is_list(path)).count()
    }

    /// The bodies of the requests with a method whose path holds `path`.
    pub(crate) fn bodies(&self, method: &str, path: &str) -> Vec<Value> {
        let seen = self.between.seen.lock();
        seen.iter()
            .filter(|(verb, at, _)| verb == method && at.contains(path))
            .map(|(_, _, body)| serde_json::from_slice(body).unwrap_or_default())
            .collect()
    }

    fn client(&self) -> kube::Client {
        let (api, between) = (Arc::clone(&self.api), Arc::clone(&self.between));
        let cuts = self.cuts.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (api, between, cuts) = (Arc::clone(&api), Arc::clone(&between), cuts.subscribe());
            async move { serve(api, between, cuts, request).await }
        });
        kube::Client::new(service, "default")
    }

    pub(crate) async fn server(&self) -> Server {
        let rate = Rate { qps: 0.0, burst: 0 };
        Server::over(self.client(), "https://lab".to_owned(), rate, 1).await.expect("it answers")
    }

    pub(crate) async fn try_start(&self) -> Result<Run, StartError> {
        let settings = Settings {
            kinds: built_in().to_vec(),
            seed: 1,
            clock: self.clock.clone(),
            log: Arc::new(|_| {}),
        };
        let (cluster, view) = RemoteCluster::start(&self.server().await, settings).await?;
        Ok(Run { cluster, view, next: 0 })
    }

    pub(crate) async fn start(&self) -> Run {
        self.try_start().await.expect("everything can be listed")
    }

    pub(crate) async fn election(&self, settings: LeaseSettings) -> Election {
        let server = self.server().await;
        Election::new(&server, settings, self.clock.clone(), 1, Arc::new(|_| {}))
    }
}

/// The adapter with the view it keeps up to date.
pub(crate) struct Run {
    pub(crate) cluster: RemoteCluster,
    pub(crate) view: View,
    next: u64,
}

impl Run {
    /// Takes in what comes until the view is as wanted.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&View) -> bool) {
        let arrived = self.cluster.arrivals();
        let looked = async {
            loop {
                self.take();
                if wanted(&self.view) {
                    return;
                }
                arrived.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, looked).await.unwrap_or_else(|_| panic!("no {what}"));
    }

    /// Sends a write and waits for its outcome.
    pub(crate) async fn write(&mut self, write: Write) -> Result<Option<Arc<Object>>, ApiError> {
        let id = WriteId(self.next);
        self.next += 1;
        self.cluster.submit(id, write.into());
        let arrived = self.cluster.arrivals();
        let looked = async {
            loop {
                let outcome = self.take().into_iter().find(|(of, _)| *of == id);
                if let Some((_, result)) = outcome {
                    return result;
                }
                arrived.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, looked).await.expect("every write has an outcome")
    }

    #[expect(clippy::type_complexity, reason = "an outcome is what it is")]
    fn take(&mut self) -> Vec<(WriteId, Result<Option<Arc<Object>>, ApiError>)> {
        let mut events = Vec::new();
        self.cluster.poll(&self.view, &mut events);
        let mut outcomes = Vec::new();
        for event in events {
            match event {
                ClusterEvent::Changed(change) => {
                    assert!(self.view.apply(&change), "{change:?} was told twice or too late");
                }
                ClusterEvent::Outcome { id, result } => outcomes.push((id, result)),
            }
        }
        outcomes
    }
}

type Refused = Box<dyn std::error::Error + Send + Sync>;

async fn serve(
    api: Arc<Api>,
    between: Arc<Between>,
    mut cuts: watch::Receiver<u64>,
    request: Request<Body>,
) -> Result<Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Refused>>, Refused> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
    let method = head.method.as_str().to_owned();
    between.seen.lock().push((method.clone(), path.clone(), body.clone()));
    if between.refuses.load(Ordering::SeqCst) {
        return Err("connection refused".into());
    }
    let held = *between.held.lock();
    if held.is_some_and(|start| path.starts_with(start)) {
        std::future::pending::<()>().await;
    }
    let is_watch = path.contains("watch=1");
    while is_watch && between.holds_watches.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    let fault = {
        let mut faults = between.faults.lock();
        let met = |(verb, part, _): &(&str, &str, Fault)| *verb == method && path.contains(part);
        let at = faults.iter().position(met);
        at.and_then(|at| faults.remove(at)).map(|(_, _, fault)| fault)
    };
    if let Some(Fault::Answer(code, retry_after, status)) = fault {
        let mut answer = Response::builder().status(code);
        if let Some(seconds) = retry_after {
            answer = answer.header("Retry-After", seconds);
        }
        let body = Full::new(Bytes::from(status.to_string()));
        return Ok(answer.body(body.map_err(|never: Infallible| match never {}).boxed_unsync())?);
    }
    let request = Request::from_parts(head, Full::new(body));
    let answer = api.handle(request, Some(&User::admin())).await;
    if fault.is_some() {
        return Err("connection reset".into());
    }
    let (head, mut body) = answer.into_parts();
    if !is_watch {
        let body = body.map_err(|never: Infallible| match never {}).boxed_unsync();
        return Ok(Response::from_parts(head, body));
    }
    // A watch is passed on frame by frame until it is cut.
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    cuts.mark_unchanged();
    tokio::spawn(async move {
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                _ = cuts.changed() => {
                    let _ = sender.send(Err(Refused::from("connection reset"))).await;
                    return;
                }
            };
            let Some(Ok(frame)) = frame else { return };
            if sender.send(Ok(frame)).await.is_err() {
                return;
            }
        }
    });
    Ok(Response::from_parts(head, Passed(receiver).boxed_unsync()))
}

/// A body whose frames come over a channel.
struct Passed(tokio::sync::mpsc::Receiver<Result<http_body::Frame<Bytes>, Refused>>);

impl http_body::Body for Passed {
    type Data = Bytes;
    type Error = Refused;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Refused>>> {
        self.0.poll_recv(context)
    }
}

/// A pod that nothing is wrong with.
pub(crate) fn pod(name: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.namespace = Some("default".to_owned());
    pod.spec = Some(PodSpec {
        containers: vec![Container {
            name: "main".to_owned(),
            image: Some("pause".to_owned()),
            ..Container::default()
        }],
        ..PodSpec::default()
    });
    pod
}

/// A node.
pub(crate) fn node(name: &str) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    node
}
