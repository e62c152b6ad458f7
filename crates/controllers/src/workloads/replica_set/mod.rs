//! ReplicaSets: as many pods as asked for, made from a template.
//!
//! Follows <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/>. Pods are
//! created and deleted many at a time; until the view shows all of them done, none are created or
//! deleted, so that a view that lags behind makes no pod too many. A pod's name is chosen here, as
//! the API server would generate it, so that it can be recognised when it appears.

pub(super) mod rank;
mod replicated;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use rustc_hash::FxHashMap;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::is_active;
use wharf_model::random::Random;
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::events::event;
use super::owners::{controller_of, controller_reference};
use rank::Candidate;
pub use replicated::Replicated;

/// The most pods created or deleted at a time, upstream's `burstReplicas`.
const BURST: usize = 500;
/// After so long changes that do not show up are no longer waited for.
const EXPECTATION_MAX: Duration = Duration::from_secs(300);
/// The wait after refused creations doubles from the first to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Pods of a large set change one after the other. A set is looked at after a wait that grows with
/// its size, so that the work for many changes grows with their number and not with its square.
const SETTLE_PER_POD: Duration = Duration::from_micros(20);
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Sets up to this size are looked at without a wait.
const SMALL: usize = 50;

/// The ReplicaSet controller.
pub type ReplicaSetController = PodReplicator<ReplicaSet>;
/// The controller of ReplicationControllers, upstream's replication manager.
pub type ReplicationManager = PodReplicator<ReplicationController>;

/// Keeps as many pods as an object of kind `T` asks for.
#[derive(Debug)]
pub struct PodReplicator<T> {
    sets: FxHashMap<ObjectKey, Tracked>,
    /// Pods without a managing owner.
    orphans: BTreeSet<ObjectKey>,
    kind: PhantomData<fn() -> T>,
}

impl<T> Default for PodReplicator<T> {
    fn default() -> Self {
        Self { sets: FxHashMap::default(), orphans: BTreeSet::new(), kind: PhantomData }
    }
}

/// What is remembered of a ReplicaSet between looks.
#[derive(Debug, Default)]
struct Tracked {
    /// Names of pods asked for that have not shown up.
    creating: BTreeSet<CompactString>,
    /// Names of pods whose deletion was asked for and has not shown up.
    deleting: BTreeSet<CompactString>,
    /// Since when that is so.
    since: Time,
    /// Pods that showed up and whose event is to be written.
    created: Vec<CompactString>,
    deleted: Vec<CompactString>,
    /// Refusals whose event is to be written.
    failed: Vec<String>,
    /// The last refusal, until a creation succeeds.
    failure: Option<String>,
    /// Refused attempts since the last creation that succeeded, and when the next one may be.
    attempts: u32,
    retry_at: Time,
    size: usize,
}

impl Tracked {
    /// Whether pods may be created or deleted now.
    fn settled(&self, now: Time) -> bool {
        (self.creating.is_empty() && self.deleting.is_empty())
            || self.since + EXPECTATION_MAX <= now
    }
}

impl<T: Replicated> PodReplicator<T> {
    /// A controller that expects nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn queue(&self, key: &ObjectKey, queue: &mut Enqueue) {
        let size = self.sets.get(key).map_or(0, |tracked| tracked.size);
        let wait = if size <= SMALL {
            Duration::ZERO
        } else {
            SETTLE_MAX.min(SETTLE_PER_POD * u32::try_from(size).unwrap_or(u32::MAX))
        };
        queue.after(WorkKey::object(Kind::of::<T>(), key), wait);
    }

    fn observe_pod(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let pod = change.object();
        if change.new.is_some() && pod.header().controller().is_none() {
            if pod.header().deleting.is_none() {
                self.orphans.insert(change.key().clone());
                for set in matching_sets::<T>(pod, view) {
                    self.queue(set.key(), queue);
                }
            }
        } else {
            self.orphans.remove(change.key());
        }
        let owners = change.old.iter().chain(&change.new);
        let owners = owners.filter_map(|version| controller_of::<T>(version, view));
        let owners: BTreeSet<ObjectKey> = owners.map(|owner| owner.key().clone()).collect();
        for owner in owners {
            if let Some(tracked) = self.sets.get_mut(&owner) {
                let name = &change.key().name;
                let there = change.new.as_ref();
                if there.is_some() && tracked.creating.remove(name) {
                    tracked.created.push(name.clone());
                    (tracked.failure, tracked.attempts) = (None, 0);
                }
                let going = there.is_none_or(|pod| pod.header().deleting.is_some());
                if going && tracked.deleting.remove(name) {
                    tracked.deleted.push(name.clone());
                }
            }
            self.queue(&owner, queue);
        }
    }

    fn sync(&mut self, object: &Object, owner: &T, context: &mut Context<'_>) -> Step {
        let set = &*owner.as_set();
        let (now, view) = (context.now, context.view);
        let mut step = Step { independent: true, ..Step::default() };
        let Some(spec) = set.spec.as_ref() else { return step };
        let Ok(selector) = Selector::from_api(Some(&spec.selector)) else { return step };
        let mut pods: Vec<(&Object, &Pod)> = Vec::new();
        let deleting = object.header().deleting.is_some();
        for owned in view.owned_by(object.uid(), Kind::of::<Pod>()) {
            let Some(pod) = owned.typed::<Pod>() else { continue };
            if owned.header().controller().is_none_or(|owner| owner.uid != object.uid()) {
                continue;
            }
            if selector.matches_with(|key| owned.header().label(key)) {
                pods.push((owned, pod));
            } else if owned.header().deleting.is_none() && !deleting {
                step.write(release(pod, object));
            }
        }
        let tracked = self.sets.entry(object.key().clone()).or_default();
        tracked.size = pods.len();
        if !tracked.failed.is_empty() {
            let wait = RETRY_FIRST * 2_u32.saturating_pow(tracked.attempts.min(20));
            tracked.retry_at = now + wait.min(RETRY_MAX);
            tracked.attempts += 1;
        }
        tracked.tell(T::COMPONENT, object, &mut step);
        if !deleting {
            let adopted = self
                .orphans
                .range(namespace_start(object.key())..)
                .take_while(|key| key.namespace == object.key().namespace)
                .filter_map(|key| adopt(key, &selector, owner, view));
            let before = step.writes.len();
            step.writes.extend(adopted);
            let adopting = step.writes.len() > before;
            if tracked.settled(now) && !adopting && tracked.retry_at <= now {
                manage(tracked, object, owner, set, &pods, context.random, now, view, &mut step);
            }
        }
        let failure = tracked.failure.as_deref();
        let all = pods.iter().map(|(_, pod)| *pod);
        let (status, next) = status::status(set, all, failure, now);
        if let Some(mut changed) = owner.with_status(status) {
            changed.metadata_mut().resource_version = None;
            step.write(Write::Update { object: Box::new(changed), part: Part::Status });
        }
        let expectation = (!tracked.settled(now)).then(|| tracked.since + EXPECTATION_MAX);
        let retry = (tracked.retry_at > now).then_some(tracked.retry_at);
        let wakes = next.into_iter().chain(expectation).chain(retry);
        step.again = wakes.min().map(|at| at.since(now));
        step
    }
}

impl Tracked {
    /// Writes the events of what has happened since the last look.
    fn tell(&mut self, component: &str, set: &Object, step: &mut Step) {
        let normal = |reason, text| event(set, EventType::Normal, component, reason, text);
        for name in self.created.drain(..) {
            step.write(normal("SuccessfulCreate", format!("Created pod: {name}")));
        }
        for name in self.deleted.drain(..) {
            step.write(normal("SuccessfulDelete", format!("Deleted pod: {name}")));
        }
        for error in self.failed.drain(..) {
            let text = format!("Error creating: {error}");
            step.write(event(set, EventType::Warning, component, "FailedCreate", text));
        }
    }
}

impl<T: Replicated> Controller for PodReplicator<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        if kind == Kind::of::<Pod>() {
            self.observe_pod(change, view, queue);
        } else if kind == Kind::of::<T>() {
            queue.now(WorkKey::object(kind, change.key()));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let object = context.view.object(Kind::of::<T>(), &key.key);
        let Some((object, set)) = object.and_then(|object| Some((object, object.typed::<T>()?)))
        else {
            self.sets.remove(&key.key);
            return Step::done();
        };
        self.sync(object, set, context)
    }

    fn refused(&mut self, key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        let Some(tracked) = self.sets.get_mut(&key.key) else { return OnError::Forget };
        match write {
            Write::Create(pod) => {
                let name = pod.meta().name.as_deref().unwrap_or_default();
                tracked.creating.remove(name);
                // Another pod has the name by chance; the next one will be free.
                if error.reason != StatusReason::AlreadyExists {
                    tracked.failed.push(error.message.clone());
                    tracked.failure = Some(error.message.clone());
                }
            }
            Write::Delete(delete) => {
                tracked.deleting.remove(&delete.key.name);
            }
            _ if error.reason == StatusReason::NotFound => return OnError::Forget,
            _ => {}
        }
        OnError::Retry
    }
}

/// Creates the pods that are missing or deletes those that are too many.
#[expect(clippy::too_many_arguments, reason = "one look's facts, used here alone")]
fn manage<T: Replicated>(
    tracked: &mut Tracked,
    object: &Object,
    owner: &T,
    set: &ReplicaSet,
    pods: &[(&Object, &Pod)],
    random: &mut Random,
    now: Time,
    view: &View,
    step: &mut Step,
) {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let wanted = usize::try_from(wanted).unwrap_or(0);
    let active: Vec<_> = pods.iter().filter(|(_, pod)| is_active(pod)).collect();
    tracked.creating.clear();
    tracked.deleting.clear();
    tracked.since = now;
    if active.len() < wanted {
        for _ in 0..(wanted - active.len()).min(BURST) {
            let pod = new_pod(owner, set, random);
            let name: CompactString = pod.metadata.name.as_deref().unwrap_or_default().into();
            if tracked.creating.insert(name) {
                step.write(Write::Create(Box::new(pod)));
            }
        }
    } else if active.len() > wanted {
        let surplus = active.len() - wanted;
        let together = pods_per_node(object, view);
        let mut candidates: Vec<_> = active
            .into_iter()
            .map(|(object, pod)| {
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                let together = node.and_then(|node| together.get(node)).copied().unwrap_or(0);
                (*object, Candidate { pod, together })
            })
            .collect();
        candidates.sort_by(|(_, left), (_, right)| rank::compare(left, right, now));
        for (pod, _) in candidates.into_iter().take(surplus.min(BURST)) {
            tracked.deleting.insert(pod.key().name.clone());
            step.write(Write::Delete(Delete::of(pod)));
        }
    }
}

/// How many active pods of the set, and of the other sets of its Deployment, each node has.
fn pods_per_node<'v>(set: &Object, view: &'v View) -> BTreeMap<&'v str, usize> {
    let related: Vec<&Object> = match controller_of::<Deployment>(set, view) {
        Some(deployment) => view
            .owned_by(deployment.uid(), Kind::of::<ReplicaSet>())
            .map(|object| object.as_ref())
            .collect(),
        None => vec![set],
    };
    let mut counts = BTreeMap::new();
    for set in related {
        for pod in view.owned_by(set.uid(), Kind::of::<Pod>()) {
            let Some(pod) = pod.typed::<Pod>().filter(|pod| is_active(pod)) else { continue };
            if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
                *counts.entry(node).or_default() += 1;
            }
        }
    }
    counts
}

/// A pod of the set, named as the API server would name it.
fn new_pod<T: Replicated>(owner: &T, set: &ReplicaSet, random: &mut Random) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let from = template.metadata.unwrap_or_default();
    let generate = format!("{}-", set.metadata.name.as_deref().unwrap_or_default());
    let mut pod = Pod { spec: template.spec, ..Pod::default() };
    let meta = &mut pod.metadata;
    meta.name = Some(random.generated_name(&generate));
    meta.generate_name = Some(generate);
    meta.namespace.clone_from(&set.metadata.namespace);
    meta.labels = from.labels;
    meta.annotations = from.annotations;
    meta.finalizers = from.finalizers;
    meta.owner_references = Some(vec![controller_reference(owner)]);
    pod
}

/// Gives a pod up that the selector no longer matches.
fn release(pod: &Pod, set: &Object) -> Write {
    let mut pod = pod.clone();
    if let Some(owners) = &mut pod.metadata.owner_references {
        owners.retain(|owner| owner.uid != set.uid());
    }
    Write::Update { object: Box::new(pod), part: Part::Main }
}

/// Takes a pod on that the selector matches and nobody manages.
fn adopt<T: Replicated>(
    key: &ObjectKey,
    selector: &Selector,
    owner: &T,
    view: &View,
) -> Option<Write> {
    let object = view.object(Kind::of::<Pod>(), key)?;
    let header = object.header();
    let pod = object.typed::<Pod>().filter(|pod| is_active(pod))?;
    if header.controller().is_some() || !selector.matches_with(|key| header.label(key)) {
        return None;
    }
    let mut pod = pod.clone();
    pod.metadata.owner_references.get_or_insert_default().push(controller_reference(owner));
    Some(Write::Update { object: Box::new(pod), part: Part::Main })
}

/// ReplicaSets that would take this pod on.
fn matching_sets<'v, T: Replicated>(
    pod: &'v Object,
    view: &'v View,
) -> impl Iterator<Item = &'v Object> {
    view.objects_in(Kind::of::<T>(), &pod.key().namespace)
        .filter(|object| {
            let set = object.typed::<T>().map(Replicated::as_set);
            let spec = set.as_ref().and_then(|set| set.spec.as_ref());
            spec.and_then(|spec| Selector::from_api(Some(&spec.selector)).ok())
                .is_some_and(|selector| selector.matches_with(|key| pod.header().label(key)))
        })
        .map(|object| object.as_ref())
}

fn namespace_start(key: &ObjectKey) -> ObjectKey {
    ObjectKey { namespace: key.namespace.clone(), name: CompactString::default() }
}

#[cfg(test)]
mod tests;
