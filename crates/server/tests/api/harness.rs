//! An API over an empty cluster, and a client of it.

use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tokio::sync::watch;
use wharf_model::object::Object;
use wharf_model::time::Time;
use wharf_ports::clock::VirtualClock;
use wharf_ports::metrics::Board;
use wharf_registry::Registry;
use wharf_server::{
    Api, Body, ClosedPods, LogLine, LogPart, NoExtra, PodLogs, ServerParts, Tokens, User,
};
use wharf_store::Store;

/// The cluster's and the wall clock's time in these tests.
pub(crate) const NOW: Time = Time::from_seconds(1_790_000_000);

/// An API and its administrator.
pub(crate) struct Cluster {
    pub(crate) api: Arc<Api>,
    pub(crate) store: Store,
    pub(crate) clock: Arc<VirtualClock>,
    pub(crate) tokens: Tokens,
    pub(crate) logs: Arc<Printed>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) board: Arc<Board>,
    user: Arc<User>,
}

/// Logs that a test writes itself.
#[derive(Default)]
pub(crate) struct Printed(pub(crate) Mutex<LogPart>);

impl Printed {
    pub(crate) fn print(&self, seconds: i64, text: &str) {
        let line = LogLine { time: Time::from_seconds(seconds), text: text.to_owned() };
        self.0.lock().expect("not poisoned").lines.push(line);
    }
    pub(crate) fn finish(&self) {
        self.0.lock().expect("not poisoned").finished = true;
    }
}

impl PodLogs for Printed {
    fn read(&self, _: &Object, _: &str, _: bool, from: u64) -> LogPart {
        let mut part = self.0.lock().expect("not poisoned").clone();
        let from = usize::try_from(from).expect("small").min(part.lines.len());
        part.lines.drain(..from);
        part
    }
}

/// An answer, its body read to the end.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }
    /// `404 NotFound: pods "x" not found`.
    pub(crate) fn refusal(&self) -> String {
        let status = self.json();
        assert_eq!(status["kind"], "Status", "{status}");
        assert_eq!(status["code"], self.code);
        format!(
            "{} {}: {}",
            self.code,
            status["reason"].as_str().unwrap_or_default(),
            status["message"].as_str().unwrap_or_default()
        )
    }
    /// The names of a list's items.
    pub(crate) fn names(&self) -> Vec<String> {
        assert_eq!(self.code, 200, "{:?}", self.body);
        let list = self.json();
        list["items"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned())
            .collect()
    }
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(VirtualClock::starting_at(NOW));
        let store = Store::ephemeral();
        let registry = Arc::new(Registry::new(store.clone(), clock.clone(), 7));
        registry.bootstrap().expect("the first objects");
        let (stop, stopped) = watch::channel(false);
        let logs = Arc::new(Printed::default());
        let board = Board::new();
        let api = Api::new(ServerParts {
            registry,
            clock: clock.clone(),
            wall: clock.clone(),
            tokens: Tokens::new(&[1; 32]),
            signer: None,
            logs: logs.clone(),
            processes: Arc::new(ClosedPods),
            metrics: Arc::clone(&board),
            metrics_apis: Default::default(),
            extra: Arc::new(NoExtra),
            cloud_is_elsewhere: false,
            stop: stopped,
        });
        Self {
            api,
            store,
            clock,
            tokens: Tokens::new(&[1; 32]),
            logs,
            stop,
            board,
            user: User::admin(),
        }
    }

    /// Sends a request with headers, as the administrator or as nobody.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        as_admin: bool,
    ) -> Response<Body> {
        self.api.handle(request, as_admin.then_some(&self.user)).await
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).expect("a request");
        let (head, body) = self.send(request, true).await.into_parts();
        let body = Body::collect(body).await;
        Answer { code: head.status.as_u16(), headers: head.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"").await
    }
    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, &[], body.to_string().as_bytes()).await
    }
    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, &[], body.to_string().as_bytes()).await
    }
    pub(crate) async fn merge(&self, path: &str, body: Value) -> Answer {
        let headers = [("content-type", "application/merge-patch+json")];
        self.call("PATCH", path, &headers, body.to_string().as_bytes()).await
    }
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, &[], b"").await
    }

    /// Opens a watch.
    pub(crate) async fn watch(&self, path: &str) -> Events {
        self.watch_as(path, "application/json").await
    }

    /// Opens a watch of some form.
    pub(crate) async fn watch_as(&self, path: &str, accept: &str) -> Events {
        let request = Request::builder().uri(path).header("accept", accept);
        let request = request.body(Full::new(Bytes::new())).expect("a request");
        let response = self.send(request, true).await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body(), text: String::new() }
    }

    /// Makes a ConfigMap with a label.
    pub(crate) async fn config_map(&self, name: &str, tier: &str) {
        let answer = self
            .post(
                "/api/v1/namespaces/default/configmaps",
                json!({"metadata": {"name": name, "labels": {"tier": tier}}, "data": {"k": "v"}}),
            )
            .await;
        assert_eq!(answer.code, 201, "{:?}", answer.body);
    }

    /// Makes a pod of one container.
    pub(crate) async fn pod(&self, name: &str) {
        let answer = self
            .post(
                "/api/v1/namespaces/default/pods",
                json!({"metadata": {"name": name, "labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}),
            )
            .await;
        assert_eq!(answer.code, 201, "{:?}", answer.body);
    }
}

/// The events of a watch.
pub(crate) struct Events {
    body: Body,
    text: String,
}

impl Events {
    /// The next event; `None` when the watch has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let event = serde_json::from_str(line).expect("an event");
                self.text = rest.to_owned();
                return Some(event);
            }
            let frame = self.body.frame().await?.expect("a frame");
            let data = frame.into_data().expect("data");
            self.text.push_str(std::str::from_utf8(&data).expect("UTF-8"));
        }
    }

    /// The next events as `ADDED a`.
    pub(crate) async fn words(&mut self, count: usize) -> Vec<String> {
        let mut words = Vec::new();
        for _ in 0..count {
            let event = self.next().await.expect("an event");
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            words.push(format!("{} {name}", event["type"].as_str().unwrap_or_default()));
        }
        words
    }
}
