//! StatefulSets: pods with names and volumes of their own, made, updated and given up in order.
//!
//! Follows <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/>. A pod's name
//! says which one it is, so that nothing has to be remembered between two looks: a pod that is made
//! twice is refused, and one that is deleted twice is deleted once.

mod identity;
mod plan;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use wharf_model::kinds::Kind;
use wharf_model::labels::CONTROLLER_REVISION_HASH;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::{available_at, is_active, phase, ready_since};
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::events::event;
use super::owners::{controller_of, controller_reference};
use super::revision;
use plan::{Action, Replica};

const COMPONENT: &str = "statefulset-controller";

/// The StatefulSet controller.
#[derive(Debug, Default)]
pub struct StatefulSetController {
    /// Uids of pods whose deletion has been told.
    told: BTreeSet<CompactString>,
    /// Refusals whose event is to be written, by set.
    failed: BTreeMap<ObjectKey, Vec<String>>,
}

impl StatefulSetController {
    /// A controller that remembers nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn sync(&mut self, object: &Object, set: &StatefulSet, context: &Context<'_>) -> Step {
        let (view, now) = (context.view, context.now);
        let mut step = Step::done();
        let Some(spec) = set.spec.as_ref() else { return step };
        let Ok(selector) = Selector::from_api(Some(&spec.selector)) else { return step };
        for text in self.failed.remove(object.key()).into_iter().flatten() {
            step.write(event(object, EventType::Warning, COMPONENT, "FailedCreate", text));
        }
        if object.header().deleting.is_some() {
            return step;
        }
        let history = revision::History::of(object, set, view);
        if let Some(write) = history.write(set) {
            // The revision's name is the pods' label: it comes first.
            step.write(write);
            return step;
        }
        let Some(update) = history.update() else { return step };
        let current = set
            .status
            .as_ref()
            .and_then(|status| status.current_revision.as_deref())
            .and_then(|name| history.named(name))
            .unwrap_or(update);
        let adoptions = adopt(object, set, &selector, view);
        if !adoptions.is_empty() {
            step.writes.extend(adoptions);
            return step;
        }
        let pods = pods(object, view);
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        let replicas: Vec<Replica<'_>> =
            pods.iter().map(|(ordinal, pod)| replica(*ordinal, pod, min_ready, now)).collect();
        let order = plan::Order::of(set, update_name(current), update_name(update));
        let decisions = plan::decide(&order, &replicas);
        for action in &decisions {
            match action {
                Action::Create { ordinal, is_current } => {
                    let revision = if *is_current { current } else { update };
                    create(object, set, *ordinal, revision, view, &mut step);
                }
                Action::Delete { ordinal, is_scaling } => {
                    if let Some((_, pod)) = pods.iter().find(|(other, _)| other == ordinal) {
                        if *is_scaling {
                            step.writes.extend(identity::retain(set, *ordinal, Some(pod), view));
                        }
                        self.delete(object, pod, &mut step);
                    }
                }
            }
        }
        for (ordinal, _) in &pods {
            if order.has(*ordinal) {
                step.writes.extend(identity::retain(set, *ordinal, None, view));
            }
        }
        let status = status::status(set, &replicas, &order);
        if set.status.as_ref() != Some(&status) {
            let mut set = StatefulSet { status: Some(status), ..set.clone() };
            set.metadata.resource_version = None;
            step.write(Write::Update { object: Box::new(set), part: Part::Status });
        }
        let labels =
            pods.iter().filter_map(|(_, pod)| pod.header().label(CONTROLLER_REVISION_HASH));
        let current = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        step.writes.extend(history.surplus(set, &labels.chain(current).collect()));
        let ready = pods.iter().filter_map(|(_, pod)| available_at(pod.typed::<Pod>()?, min_ready));
        step.again = ready.filter(|at| *at > now).min().map(|at| at.since(now));
        step
    }

    fn delete(&mut self, set: &Object, pod: &Object, step: &mut Step) {
        step.write(Write::Delete(Delete::of(pod)));
        if !self.told.insert(pod.uid().into()) {
            return;
        }
        let text =
            format!("delete Pod {} in StatefulSet {} successful", pod.key().name, set.key().name);
        step.write(event(set, EventType::Normal, COMPONENT, "SuccessfulDelete", text));
    }
}

impl Controller for StatefulSetController {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let (kind, sets) = (change.kind(), Kind::of::<StatefulSet>());
        if kind == sets {
            queue.now(WorkKey::object(kind, change.key()));
        } else if kind == Kind::of::<Pod>() || kind == Kind::of::<ControllerRevision>() {
            let owners = change.old.iter().chain(&change.new);
            let owners = owners.filter_map(|version| controller_of::<StatefulSet>(version, view));
            let mut owners: BTreeSet<ObjectKey> = owners.map(|owner| owner.key().clone()).collect();
            if change.new.is_none() {
                self.told.remove(change.object().uid());
            }
            let key = change.key();
            if change.object().header().controller().is_none()
                && let Some((set, _)) = identity::parent(&key.name)
            {
                // It may be one that the set is to adopt.
                let set = ObjectKey::namespaced(&key.namespace, set);
                if view.object(sets, &set).is_some() {
                    owners.insert(set);
                }
            }
            for owner in owners {
                queue.now(WorkKey::object(sets, &owner));
            }
        } else if kind == Kind::of::<PersistentVolumeClaim>() && change.new.is_none() {
            // A pod that has lost its claim before it ran gets another.
            for set in view.objects_in(sets, &change.key().namespace) {
                queue.now(WorkKey::object(sets, set.key()));
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let object = context.view.object(Kind::of::<StatefulSet>(), &key.key);
        let Some((object, set)) =
            object.and_then(|object| Some((object, object.typed::<StatefulSet>()?)))
        else {
            self.failed.remove(&key.key);
            return Step::done();
        };
        self.sync(object, set, context)
    }

    fn refused(&mut self, key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        // The events after a refused write were not written.
        self.told.clear();
        if let Write::Create(object) = write
            && error.reason != StatusReason::AlreadyExists
        {
            let name = object.meta().name.as_deref().unwrap_or_default();
            let (kind, set) = (object.kind(), &key.key.name);
            let text = format!("create {kind} {name} in StatefulSet {set} failed error: {error}");
            self.failed.entry(key.key.clone()).or_default().push(text);
        }
        OnError::Retry
    }
}

/// The pods of a set with their ordinals, in the order of these.
fn pods<'v>(set: &Object, view: &'v View) -> Vec<(i32, &'v Object)> {
    let mut pods: Vec<(i32, &Object)> = view
        .owned_by(set.uid(), Kind::of::<Pod>())
        .filter_map(|pod| {
            let (parent, ordinal) = identity::parent(&pod.key().name)?;
            (parent == set.key().name).then_some((ordinal, pod.as_ref()))
        })
        .collect();
    pods.sort_by_key(|(ordinal, _)| *ordinal);
    pods
}

fn replica<'v>(ordinal: i32, object: &'v Object, min_ready: i32, now: Time) -> Replica<'v> {
    let pod = object.typed::<Pod>();
    let runs = pod.is_some_and(|pod| phase(pod) == "Running" && ready_since(pod).is_some());
    Replica {
        ordinal,
        revision: object.header().label(CONTROLLER_REVISION_HASH).unwrap_or_default(),
        is_terminating: object.header().deleting.is_some(),
        has_ended: pod.is_some_and(|pod| matches!(phase(pod), "Failed" | "Succeeded")),
        is_ready: runs,
        is_available: runs
            && pod.and_then(|pod| available_at(pod, min_ready)).is_some_and(|at| at <= now),
    }
}

fn update_name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// Makes a pod with the claims it lacks.
fn create(
    object: &Object,
    set: &StatefulSet,
    ordinal: i32,
    revision: &ControllerRevision,
    view: &View,
    step: &mut Step,
) {
    let set_name = &object.key().name;
    let pod = identity::pod(set, ordinal, revision);
    let name = pod.metadata.name.clone().unwrap_or_default();
    let normal = |text| event(object, EventType::Normal, COMPONENT, "SuccessfulCreate", text);
    for claim in identity::claims(set, ordinal) {
        let key = ObjectKey::of(&claim.metadata);
        if view.object(Kind::of::<PersistentVolumeClaim>(), &key).is_some() {
            continue;
        }
        let text =
            format!("create Claim {} Pod {name} in StatefulSet {set_name} success", key.name);
        step.write(Write::Create(Box::new(claim)));
        step.write(normal(text));
    }
    step.write(Write::Create(Box::new(pod)));
    step.write(normal(format!("create Pod {name} in StatefulSet {set_name} successful")));
}

/// Takes on pods that are the set's by name and labels and nobody manages.
fn adopt(object: &Object, set: &StatefulSet, selector: &Selector, view: &View) -> Vec<Write> {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let start = identity::start(set);
    let orphan = |ordinal: i32| {
        let name = identity::pod_name(&object.key().name, ordinal);
        let key = ObjectKey::namespaced(&object.key().namespace, name);
        let found = view.object(Kind::of::<Pod>(), &key)?;
        let header = found.header();
        let pod = found.typed::<Pod>().filter(|pod| is_active(pod))?;
        if header.controller().is_some() || !selector.matches_with(|key| header.label(key)) {
            return None;
        }
        let mut pod = pod.clone();
        pod.metadata.owner_references.get_or_insert_default().push(controller_reference(set));
        Some(Write::Update { object: Box::new(pod), part: Part::Main })
    };
    (start..start.saturating_add(replicas)).filter_map(orphan).collect()
}
