//! DaemonSets: a pod on every node that suits.
//!
//! Follows <https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/>. The pod of a node
//! names it in its affinity, and the scheduler binds it there; Fargate's nodes, which no pod but
//! their own tolerates, are left out by their taint. Until the view shows all pods that were made or
//! deleted, no others are.

pub(crate) mod nodes;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_model::kinds::Kind;
use wharf_model::labels::CONTROLLER_REVISION_HASH;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::events::event;
use super::owners::controller_of;
use super::revision::{self, History};
use nodes::Fit;
use plan::{DaemonPod, Facts};

const COMPONENT: &str = "daemonset-controller";
/// The most pods made or deleted at a time, upstream's `BurstReplicas`.
const BURST: usize = 250;
/// After so long changes that do not show up are no longer waited for.
const EXPECTATION_MAX: Duration = Duration::from_secs(300);
/// A look visits every node: pods that change one after the other are looked at together.
const SETTLE_PER_NODE: Duration = Duration::from_micros(20);
const SETTLE_MAX: Duration = Duration::from_secs(1);
const SMALL: usize = 50;
/// How long a pod that has ended is left before another takes its place: from the first time to the
/// longest, doubling.
const ENDED_FIRST: Duration = Duration::from_secs(1);
const ENDED_MAX: Duration = Duration::from_secs(900);

/// The DaemonSet controller.
#[derive(Debug, Default)]
pub struct DaemonSetController {
    sets: BTreeMap<ObjectKey, Tracked>,
}

/// What is remembered of a DaemonSet between looks.
#[derive(Debug, Default)]
struct Tracked {
    /// Names of pods asked for, or whose deletion was asked for, that have not shown up.
    creating: BTreeSet<CompactString>,
    deleting: BTreeSet<CompactString>,
    /// Since when that is so.
    since: Time,
    /// Pods that showed up, or began to go, and whose event is to be written.
    created: Vec<CompactString>,
    deleted: Vec<CompactString>,
    /// Refusals whose event is to be written.
    failed: Vec<String>,
    /// Of nodes whose pods end: how often they have, and when the next may be replaced.
    endings: BTreeMap<CompactString, (u32, Time)>,
}

impl Tracked {
    fn settled(&self, now: Time) -> bool {
        (self.creating.is_empty() && self.deleting.is_empty())
            || self.since + EXPECTATION_MAX <= now
    }

    /// Writes the events of what has happened since the last look.
    fn tell(&mut self, set: &Object, step: &mut Step) {
        let normal = |reason, text| event(set, EventType::Normal, COMPONENT, reason, text);
        for name in self.created.drain(..) {
            step.write(normal("SuccessfulCreate", format!("Created pod: {name}")));
        }
        for name in self.deleted.drain(..) {
            step.write(normal("SuccessfulDelete", format!("Deleted pod: {name}")));
        }
        for error in self.failed.drain(..) {
            let text = format!("Error creating: {error}");
            step.write(event(set, EventType::Warning, COMPONENT, "FailedCreate", text));
        }
    }

    /// Whether a pod that has ended may go now; otherwise when.
    fn may_replace(&mut self, node: &str, now: Time) -> Result<(), Time> {
        let (times, next) = self.endings.get(node).copied().unwrap_or_default();
        if now < next {
            return Err(next);
        }
        // A pod that has lasted for long is not held against those before it.
        let times = if next + ENDED_MAX * 2 < now { 0 } else { times };
        let wait = (ENDED_FIRST * 2_u32.pow(times.min(16))).min(ENDED_MAX);
        self.endings.insert(node.into(), (times + 1, now + wait));
        Ok(())
    }
}

impl DaemonSetController {
    /// A controller that expects nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn queue(key: &ObjectKey, view: &View, queue: &mut Enqueue) {
        let nodes = view.count(Kind::of::<Node>());
        let wait = if nodes <= SMALL {
            Duration::ZERO
        } else {
            SETTLE_MAX.min(SETTLE_PER_NODE * u32::try_from(nodes).unwrap_or(u32::MAX))
        };
        queue.after(WorkKey::object(Kind::of::<DaemonSet>(), key), wait);
    }

    fn observe_pod(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let versions = change.old.iter().chain(&change.new);
        let owners = versions.filter_map(|version| controller_of::<DaemonSet>(version, view));
        let owners: BTreeSet<ObjectKey> = owners.map(|owner| owner.key().clone()).collect();
        for owner in owners {
            if let Some(set) = self.sets.get_mut(&owner) {
                let name = &change.key().name;
                if change.new.is_some() && set.creating.remove(name) {
                    set.created.push(name.clone());
                }
                let going = change.new.as_ref().is_none_or(|pod| pod.header().deleting.is_some());
                if going && set.deleting.remove(name) {
                    set.deleted.push(name.clone());
                }
            }
            Self::queue(&owner, view, queue);
        }
    }

    fn sync(&mut self, object: &Object, set: &DaemonSet, context: &mut Context<'_>) -> Step {
        let (now, view) = (context.now, context.view);
        let mut step = Step { independent: true, ..Step::default() };
        let Some(spec) = set.spec.as_ref() else { return step };
        let tracked = self.sets.entry(object.key().clone()).or_default();
        tracked.tell(object, &mut step);
        if object.header().deleting.is_some() {
            return step;
        }
        // One that selects everything is a mistake upstream does not act on either.
        let Ok(selector) = Selector::from_api(Some(&spec.selector)) else { return step };
        if selector.is_everything() {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            step.write(event(object, EventType::Warning, COMPONENT, "SelectingAll", text));
            return step;
        }
        let history = History::of(object, set, view);
        if let Some(write) = history.write(set) {
            // The revision's hash is the pods' label: it comes first.
            step.write(write);
            return step;
        }
        let Some(update) = history.update() else { return step };
        let hash = revision::hash_of(update);
        let template = spec.template.spec.clone().unwrap_or_default();
        let tolerations = nodes::tolerations(&template);
        let all: Vec<(&str, Fit)> = view
            .list::<Node>()
            .filter_map(|node| {
                let name = node.metadata.name.as_deref()?;
                Some((name, nodes::fit(&template, &tolerations, node)))
            })
            .collect();
        let pods = pods(object, view);
        let facts = Facts { set, nodes: &all, pods: &pods, hash, now };
        let mut wake = None;
        if tracked.settled(now) {
            wake = tracked.manage(object, &facts, context, &mut step);
        }
        let (status, next) = plan::status(&facts);
        if set.status.as_ref() != Some(&status) {
            let mut set = DaemonSet { status: Some(status), ..set.clone() };
            set.metadata.resource_version = None;
            step.write(Write::Update { object: Box::new(set), part: Part::Status });
        }
        let live = pods.values().flatten();
        let live = live.filter_map(|pod| pod.object.header().label(CONTROLLER_REVISION_HASH));
        step.writes.extend(history.surplus(set, &live.collect()));
        let expectation = (!tracked.settled(now)).then(|| tracked.since + EXPECTATION_MAX);
        let wakes = wake.into_iter().chain(next).chain(expectation);
        step.again = wakes.min().map(|at| at.since(now));
        step
    }
}

impl Tracked {
    /// Makes and deletes what is decided; says when to look again.
    fn manage(
        &mut self,
        object: &Object,
        facts: &Facts<'_, '_>,
        context: &mut Context<'_>,
        step: &mut Step,
    ) -> Option<Time> {
        let now = facts.now;
        let plan = plan::decide(facts);
        self.creating.clear();
        self.deleting.clear();
        self.since = now;
        let template = facts.set.spec.as_ref().map(|spec| spec.template.clone());
        let template = template.unwrap_or_default();
        for node in plan.create.into_iter().take(BURST) {
            let pod = nodes::pod(facts.set, &template, facts.hash, node, context.random);
            let name: CompactString = pod.metadata.name.as_deref().unwrap_or_default().into();
            if self.creating.insert(name) {
                step.write(Write::Create(Box::new(pod)));
            }
        }
        let mut wake: Option<Time> = None;
        let mut delete = plan.delete;
        for (node, pod) in plan.ended {
            if let Err(at) = self.may_replace(node, now) {
                wake = Some(wake.map_or(at, |wake| wake.min(at)));
                continue;
            }
            let key = pod.object.key();
            let (namespace, name) = (&key.namespace, &key.name);
            let (kind, reason, text) = if wharf_model::pod::phase(pod.pod) == "Failed" {
                let text = format!(
                    "Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it"
                );
                (EventType::Warning, "FailedDaemonPod", text)
            } else {
                let text = format!(
                    "Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it"
                );
                (EventType::Normal, "SucceededDaemonPod", text)
            };
            step.write(event(object, kind, COMPONENT, reason, text));
            delete.push(pod);
        }
        for pod in delete.into_iter().take(BURST) {
            self.deleting.insert(pod.object.key().name.clone());
            step.write(Write::Delete(Delete::of(pod.object)));
        }
        wake
    }
}

/// The pods of a set, by the node each is for.
fn pods<'v>(set: &Object, view: &'v View) -> BTreeMap<&'v str, Vec<DaemonPod<'v>>> {
    let mut pods: BTreeMap<&str, Vec<DaemonPod<'_>>> = BTreeMap::new();
    for object in view.owned_by(set.uid(), Kind::of::<Pod>()) {
        let managed = object.header().controller().is_some_and(|owner| owner.uid == set.uid());
        let Some(pod) = object.typed::<Pod>().filter(|_| managed) else { continue };
        let node = nodes::node_of(pod).unwrap_or_default();
        pods.entry(node).or_default().push(DaemonPod { object, pod });
    }
    pods
}

/// What of a node decides whether daemons run on it.
fn is_same_place(old: &Object, new: &Object) -> bool {
    let taints = |object: &Object| {
        let spec = object.typed::<Node>().and_then(|node| node.spec.as_ref())?;
        spec.taints.clone()
    };
    old.header().labels == new.header().labels && taints(old) == taints(new)
}

impl Controller for DaemonSetController {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let (kind, sets) = (change.kind(), Kind::of::<DaemonSet>());
        if kind == sets {
            queue.now(WorkKey::object(kind, change.key()));
        } else if kind == Kind::of::<Pod>() {
            self.observe_pod(change, view, queue);
        } else if kind == Kind::of::<ControllerRevision>() {
            if let Some(owner) = controller_of::<DaemonSet>(change.object(), view) {
                Self::queue(owner.key(), view, queue);
            }
        } else if kind == Kind::of::<Node>() {
            if let (Some(old), Some(new)) = (&change.old, &change.new)
                && is_same_place(old, new)
            {
                return;
            }
            for set in view.objects(sets) {
                Self::queue(set.key(), view, queue);
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let object = context.view.object(Kind::of::<DaemonSet>(), &key.key);
        let Some((object, set)) =
            object.and_then(|object| Some((object, object.typed::<DaemonSet>()?)))
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
                }
            }
            Write::Delete(delete) => {
                tracked.deleting.remove(&delete.key.name);
            }
            _ => {}
        }
        OnError::Retry
    }
}
