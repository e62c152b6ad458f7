//! Carries out writes: so many at a time, and those about one object one after the other in the
//! order in which they were asked for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey, Revision, Typed};
use wharf_ports::cluster::{ClusterEvent, Part, Write, WriteId};
use wharf_ports::error::ApiError;

use crate::api::{Api, Failure, Request};
use crate::requests::{self, Update};
use crate::{decode, path};

/// Writes on their way at once. The rate is the limiter's to keep; this bounds connections when
/// the server is slow to answer.
const IN_FLIGHT_MAX: usize = 64;

/// A write with what is needed to carry it out.
pub(crate) struct Job {
    pub(crate) id: WriteId,
    pub(crate) write: Arc<Write>,
    /// For an update: the object as last told.
    pub(crate) base: Option<Arc<Object>>,
}

impl Job {
    /// What the write is about; `None` if it is about an object that has no name yet, which no
    /// other write can be about.
    fn subject(&self) -> Option<(Kind, ObjectKey)> {
        let subject = self.write.subject();
        (!subject.1.name.is_empty()).then_some(subject)
    }
}

/// Where outcomes go.
#[derive(Clone)]
pub(crate) struct Outcomes {
    pub(crate) sender: mpsc::UnboundedSender<ClusterEvent>,
    pub(crate) arrived: Arc<Notify>,
}

impl Outcomes {
    /// Tells an outcome.
    pub(crate) fn tell(&self, id: WriteId, result: Result<Option<Arc<Object>>, ApiError>) {
        // A reader that has gone does not care.
        let _ = self.sender.send(ClusterEvent::Outcome { id, result });
        self.arrived.notify_one();
    }
}

/// How long an outcome waits for the watch to bring its effect. Long enough for a watch that works;
/// one that is being taken up again must not hold up the writes.
const EFFECT_WAIT: Duration = Duration::from_secs(1);

/// How far the watch of each kind that is followed has got.
pub(crate) type Reached = Arc<BTreeMap<Kind, watch::Receiver<Revision>>>;

/// Waits until the watch has told of what a write has left behind. Controllers are right without
/// it, but one that acts on its own old view does things twice, only to be refused.
async fn effect_seen(reached: &Reached, object: &Object) {
    if let Some(reached) = reached.get(&object.kind()) {
        let mut reached = reached.clone();
        let seen = reached.wait_for(|revision| *revision >= object.revision());
        let _ = tokio::time::timeout(EFFECT_WAIT, seen).await;
    }
}

/// Carries out jobs until no more can come and all are done.
pub(crate) async fn run(
    api: Api,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    outcomes: Outcomes,
    reached: Reached,
) {
    let mut lanes = Lanes::default();
    let mut running: JoinSet<Option<(Kind, ObjectKey)>> = JoinSet::new();
    let mut is_open = true;
    while is_open || !running.is_empty() {
        tokio::select! {
            job = jobs.recv(), if is_open => match job {
                Some(job) => lanes.add(job),
                None => is_open = false,
            },
            Some(done) = running.join_next(), if !running.is_empty() => {
                // A task that panicked would leave its subject busy for ever; there is no way to
                // know which it was, and nothing in a task panics.
                if let Ok(Some(subject)) = done {
                    lanes.free(&subject);
                }
            }
        }
        while running.len() < IN_FLIGHT_MAX
            && let Some(job) = lanes.next()
        {
            let (api, outcomes) = (api.clone(), outcomes.clone());
            let reached = Arc::clone(&reached);
            running.spawn(async move {
                let (id, subject) = (job.id, job.subject());
                let result = carry_out(&api, job.write, job.base).await;
                if let Ok(Some(object)) = &result {
                    effect_seen(&reached, object).await;
                }
                outcomes.tell(id, result);
                subject
            });
        }
    }
}

/// Jobs that wait: those whose subject is free, in order, and behind each busy subject the rest.
#[derive(Default)]
struct Lanes {
    ready: VecDeque<Job>,
    busy: HashMap<(Kind, ObjectKey), VecDeque<Job>>,
}

impl Lanes {
    fn add(&mut self, job: Job) {
        let Some(subject) = job.subject() else {
            self.ready.push_back(job);
            return;
        };
        match self.busy.get_mut(&subject) {
            Some(lane) => lane.push_back(job),
            None => {
                self.busy.insert(subject, VecDeque::new());
                self.ready.push_back(job);
            }
        }
    }

    fn next(&mut self) -> Option<Job> {
        self.ready.pop_front()
    }

    /// The job about `subject` is done.
    fn free(&mut self, subject: &(Kind, ObjectKey)) {
        let Some(lane) = self.busy.get_mut(subject) else { return };
        match lane.pop_front() {
            Some(next) => self.ready.push_back(next),
            None => {
                self.busy.remove(subject);
            }
        }
    }
}

async fn carry_out(
    api: &Api,
    write: Arc<Write>,
    base: Option<Arc<Object>>,
) -> Result<Option<Arc<Object>>, ApiError> {
    let pods = Kind::of::<Pod>();
    let done = match &*write {
        Write::Create(object) => {
            return send(api, object.kind(), &requests::create(&**object)).await.map(Some);
        }
        Write::Update { object, part } => return update(api, &**object, *part, base).await,
        Write::Delete(delete) => api.call(&requests::delete(delete)).await,
        Write::Bind { pod, uid, node } => api.call(&requests::bind(pods, pod, uid, node)).await,
        Write::Scale { kind, key, uid, replicas } => {
            api.call(&requests::scale(*kind, key, uid, *replicas)).await
        }
        Write::Evict { pod, uid } => api.call(&requests::evict(pods, pod, uid)).await,
        // Events go their own way.
        Write::Record(_) => return Ok(None),
    };
    done.map(|_| None).map_err(Failure::into_error)
}

async fn update(
    api: &Api,
    object: &dyn Typed,
    part: Part,
    base: Option<Arc<Object>>,
) -> Result<Option<Arc<Object>>, ApiError> {
    let kind = object.kind();
    let base = match base {
        Some(base) => base,
        // Written before it was seen, such as right after its creation.
        None => {
            let path = path::object(kind, &ObjectKey::of(object.meta()));
            send(api, kind, &Request::get(path)).await?
        }
    };
    let mut update = Update::new(&base, object, part);
    let mut latest = base;
    for (subresource, change) in std::mem::take(&mut update.patches) {
        latest = send(api, kind, &update.request(subresource, &change)).await?;
        if update.version.is_some() {
            update.version = Some(latest.revision().to_string());
        }
    }
    Ok(Some(latest))
}

/// Sends a request whose answer is an object.
async fn send(api: &Api, kind: Kind, request: &Request) -> Result<Arc<Object>, ApiError> {
    let body = api.call(request).await.map_err(Failure::into_error)?;
    let unreadable = |why: &dyn std::fmt::Display| Failure::Lost(why.to_string()).into_error();
    let text = std::str::from_utf8(&body).map_err(|error| unreadable(&error))?;
    decode::object(kind, text).map_err(|error| unreadable(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u64, name: &str) -> Job {
        let write = Write::Bind {
            pod: ObjectKey::namespaced("n", name),
            uid: name.into(),
            node: "node".into(),
        };
        Job { id: WriteId(id), write: Arc::new(write), base: None }
    }

    #[test]
    fn writes_about_one_object_wait_for_each_other() {
        let mut lanes = Lanes::default();
        for (id, name) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
            lanes.add(job(id, name));
        }
        let ready = |lanes: &mut Lanes| -> Vec<u64> {
            std::iter::from_fn(|| lanes.next()).map(|job| job.id.0).collect()
        };
        assert_eq!(ready(&mut lanes), [1, 3]);
        let a = job(0, "a").subject().expect("a name");
        lanes.free(&a);
        assert_eq!(ready(&mut lanes), [2]);
        lanes.free(&a);
        lanes.add(job(5, "a"));
        assert_eq!(ready(&mut lanes), [4]);
        lanes.free(&a);
        assert_eq!(ready(&mut lanes), [5]);
        lanes.free(&a);
        assert!(!lanes.busy.contains_key(&a));
    }

    #[test]
    fn objects_without_a_name_wait_for_nobody() {
        let mut lanes = Lanes::default();
        for id in 0..3 {
            let mut pod = Pod::default();
            pod.metadata.generate_name = Some("web-".to_owned());
            pod.metadata.namespace = Some("n".to_owned());
            let write = Arc::new(Write::Create(Box::new(pod)));
            lanes.add(Job { id: WriteId(id), write, base: None });
        }
        assert_eq!(std::iter::from_fn(|| lanes.next()).count(), 3);
    }
}
