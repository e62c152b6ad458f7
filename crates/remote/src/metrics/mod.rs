//! The Metrics port over a cluster's metrics APIs: `metrics.k8s.io`, `custom.metrics.k8s.io` and
//! `external.metrics.k8s.io`.
//!
//! Whoever asks never waits. A question without a fresh answer is sent by a task, and counted as
//! deferred ([`Metrics::deferred`]): the autoscaler puts its pass off by a moment and finds the
//! answer then. So requests go out when passes are due, as upstream's do, and what a pass sees was
//! measured for it. A refusal is an answer too, in client-go's words; so is silence, after a while.
//! Nothing stale is ever given out: an answer counts for [`FRESH`] of cluster time.
//!
//! Public contract: <https://github.com/kubernetes/metrics>.

mod answer;
mod question;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wharf_model::metrics::{NodeMetrics, PodMetrics, Sample};
use wharf_model::time::Time;
use wharf_ports::clock::Clock;
use wharf_ports::metrics::{MetricQuery, Metrics, PodQuery};

use crate::api::{Again, Api, Failure, Request};
use crate::connect::Server;
use answer::{Answer, Versions};
use question::{CUSTOM, Question};

/// For how long of cluster time an answer counts: less than a sync period, so that every pass has
/// its own, and long enough for one that was put off to find it.
const FRESH: Duration = Duration::from_secs(10);
/// For how long of real time it counts at least: a lab's ten seconds may be over in an instant.
const FRESH_REAL: Duration = Duration::from_millis(250);
/// How long an answer may take before silence is the answer: a sync period.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Questions under way at once; more wait their turn.
const UNDER_WAY_MAX: usize = 16;
/// A question that nobody has asked for this long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);
/// How long the version of the custom metrics API is taken for granted: upstream's client looks
/// anew every sync period.
const VERSION_FRESH: Duration = Duration::from_secs(15);

/// The metrics APIs of a remote cluster.
pub struct RemoteMetrics {
    shared: Arc<Shared>,
    /// Where requests run: whoever asks is on a thread of its own.
    runtime: Handle,
    deferred: AtomicU64,
}

struct Shared {
    api: Api,
    url: String,
    clock: Arc<dyn Clock>,
    kept: Mutex<BTreeMap<Question, Kept>>,
    slots: Semaphore,
    version: tokio::sync::Mutex<Option<(Instant, Result<&'static str, String>)>>,
}

/// What is known of a question.
struct Kept {
    answer: Option<Given>,
    under_way: bool,
    asked: Instant,
}

/// An answer, with when it came by both clocks.
struct Given {
    answer: Result<Answer, String>,
    at: Time,
    since: Instant,
}

impl RemoteMetrics {
    /// The metrics APIs of this server, asked on the current runtime. `clock` is the cluster's.
    pub fn new(server: &Server, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            api: server.api.with_own_limit(server.rate),
            url: server.url.clone(),
            clock,
            kept: Mutex::default(),
            slots: Semaphore::new(UNDER_WAY_MAX),
            version: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared), runtime: Handle::current(), deferred: AtomicU64::new(0) }
    }

    /// The answer if there is a fresh one; else it is sent for.
    fn ask(&self, question: Question, now: Time) -> Result<Answer, String> {
        let mut kept = self.shared.kept.lock();
        let here = Instant::now();
        if !kept.contains_key(&question) {
            kept.retain(|_, one| one.under_way || here - one.asked < FORGOTTEN_AFTER);
        }
        let one = kept.entry(question.clone()).or_insert_with(|| Kept {
            answer: None,
            under_way: false,
            asked: here,
        });
        one.asked = here;
        if let Some(given) = &one.answer
            && (now.since(given.at) < FRESH || here - given.since < FRESH_REAL)
        {
            return given.answer.clone();
        }
        if !std::mem::replace(&mut one.under_way, true) {
            let shared = Arc::clone(&self.shared);
            self.runtime.spawn(async move { shared.fetch(question).await });
        }
        self.deferred.fetch_add(1, Ordering::Relaxed);
        Err("the metrics API has been asked and has not answered yet".to_owned())
    }
}

impl Metrics for RemoteMetrics {
    fn pod_metrics(&self, pods: &PodQuery<'_>, now: Time) -> Result<Vec<PodMetrics>, String> {
        match self.ask(Question::of_pods(pods), now)? {
            Answer::Pods(pods) => Ok(pods.to_vec()),
            _ => Err(WRONG_ANSWER.to_owned()),
        }
    }

    fn node_metrics(&self, now: Time) -> Result<Vec<NodeMetrics>, String> {
        match self.ask(Question::Nodes, now)? {
            Answer::Nodes(nodes) => Ok(nodes.to_vec()),
            _ => Err(WRONG_ANSWER.to_owned()),
        }
    }

    fn samples(&self, query: &MetricQuery<'_>, now: Time) -> Result<Vec<Sample>, String> {
        match self.ask(Question::of_metric(query), now)? {
            Answer::Samples(samples) => Ok(samples.to_vec()),
            _ => Err(WRONG_ANSWER.to_owned()),
        }
    }

    fn deferred(&self) -> Option<u64> {
        Some(self.deferred.load(Ordering::Relaxed))
    }
}

const WRONG_ANSWER: &str = "the metrics API answered another question";

impl Shared {
    /// Sends a question and keeps what comes of it.
    async fn fetch(&self, question: Question) {
        let asked = async {
            // The semaphore is never closed.
            let _slot = self.slots.acquire().await;
            self.answer_to(&question).await
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| {
            Err(self.unreached(&question.path(CUSTOM_UNKNOWN), "context deadline exceeded"))
        });
        let given = Given { answer, at: self.clock.now(), since: Instant::now() };
        if let Some(kept) = self.kept.lock().get_mut(&question) {
            kept.under_way = false;
            kept.answer = Some(given);
        }
    }

    async fn answer_to(&self, question: &Question) -> Result<Answer, String> {
        let version = match question.group() {
            CUSTOM => self.custom_version().await?,
            _ => CUSTOM_UNKNOWN,
        };
        let path = question.path(version);
        let body = self.get(&path).await.map_err(|failure| match failure {
            Failure::Refused(error) => answer::refusal(&error, &question.subject()),
            Failure::Lost(why) => self.unreached(&path, &why),
        })?;
        question.read(&body)
    }

    /// Which version of the custom metrics API there is. Looked up by one task at a time.
    async fn custom_version(&self) -> Result<&'static str, String> {
        let mut known = self.version.lock().await;
        if let Some((since, version)) = &*known
            && since.elapsed() < VERSION_FRESH
        {
            return version.clone();
        }
        let path = format!("/apis/{CUSTOM}");
        let version = match self.get(&path).await {
            Ok(body) => Versions::read(&body).and_then(|versions| versions.chosen()),
            Err(Failure::Refused(error)) if answer::is_absent(&error) => {
                Err(format!("no custom metrics API ({CUSTOM}) registered"))
            }
            Err(Failure::Refused(error)) => Err(error.message),
            Err(Failure::Lost(why)) => Err(self.unreached(&path, &why)),
        };
        *known = Some((Instant::now(), version.clone()));
        version
    }

    async fn get(&self, path: &str) -> Result<bytes::Bytes, Failure> {
        // The next pass asks again; until then only a server that says when is asked once more.
        self.api.call(&Request::get(path.to_owned()).with(Again::IfNotDone)).await
    }

    fn unreached(&self, path: &str, why: &str) -> String {
        format!("Get \"{}{path}\": {why}", self.url)
    }
}

/// Stands for the version in a path whose API has no choice of them, or before it is known.
const CUSTOM_UNKNOWN: &str = "v1beta2";
