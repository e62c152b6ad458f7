//! The updater: once a minute it looks which running pods are to get what is recommended for them,
//! and evicts them or resizes them in place, never more of a workload at a time than its budget
//! allows. Evictions go through the eviction API, so that disruption budgets count.
//!
//! Upstream's waits for a lease that its admission webhook renews, lest pods come back as they
//! were. Here admission is part of the API server and cannot be away.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use wharf_autoscale::coordinate;
use wharf_autoscale::vpa::LimitRanges;
use wharf_autoscale::vpa::admit::{ContainerPatch, PodPatch, patch};
use wharf_autoscale::vpa::target::{Controller as Target, precedence, selector, topmost};
use wharf_autoscale::vpa::update::{
    Budget, Cause, InPlace, Priority, UpdaterConfig, in_place, judge, may_be_evicted,
    resize_is_infeasible, resize_under_way,
};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::{is_active, phase};
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_model::vpa::{UpdateMode, VerticalPodAutoscaler};
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::event::EventType;
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;

use super::{INTERVAL, READS, limit_ranges, lookup};
use crate::workloads::event;

const COMPONENT: &str = "vpa-updater";
const ROUND: &str = "updater";
/// What marks a pod that was resized in place.
const IN_PLACE_UPDATED: &str = "vpaInPlaceUpdated";

/// The updater.
#[derive(Debug, Default)]
pub struct Updater {
    config: UpdaterConfig,
    /// What is to be done about pods that the last round chose.
    decided: BTreeMap<ObjectKey, Decided>,
    /// Since when resizes have been seen to be under way.
    resizing: BTreeMap<ObjectKey, (CompactString, Time)>,
    /// What was recommended for pods, by uid, whose nodes can never give it to them.
    infeasible: BTreeMap<CompactString, Vec<ContainerPatch>>,
}

/// What is to be done about a pod.
#[derive(Clone, Debug)]
struct Decided {
    uid: CompactString,
    autoscaler: ObjectKey,
    action: Action,
    priority: Priority,
    cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Evict,
    /// Resize it; if that is refused, evict it.
    Resize,
    /// Say that what its node could not give is still recommended.
    Skip,
    /// Mark it, once it is resized.
    Mark,
}

/// An autoscaler with its target's selector.
type Selecting<'v> = (&'v Arc<Object>, Selector);
/// A pod with its object.
type PodRef<'v> = (&'v Arc<Object>, &'v Pod);

impl Updater {
    /// An updater with other flags than upstream's defaults.
    pub fn with_config(config: UpdaterConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Upstream's main loop, once.
    fn round(&mut self, context: &Context<'_>) -> Step {
        let (view, now) = (context.view, context.now);
        self.decided.clear();
        let mut by_target: BTreeMap<(&str, Target), Vec<Selecting<'_>>> = BTreeMap::new();
        for object in view.objects(Kind::of::<VerticalPodAutoscaler>()) {
            let Some(autoscaler) = object.typed::<VerticalPodAutoscaler>() else { continue };
            let namespace = object.key().namespace.as_str();
            if let (true, Some(target), Ok(selector)) = (
                autoscaler.update_mode().updates_running_pods(),
                &autoscaler.spec.target_ref,
                selector(autoscaler, namespace, &lookup(view)),
            ) {
                let key = (namespace, Target::of(target));
                by_target.entry(key).or_default().push((object, selector));
            }
        }
        self.forget_resizes(view);
        let horizontal = horizontal_by_target(view);
        let mut held = Vec::new();
        for ((namespace, target), mut autoscalers) in by_target {
            autoscalers.sort_by(|a, b| precedence(a.0).cmp(&precedence(b.0)));
            let mut controlled: Vec<Vec<PodRef<'_>>> = vec![Vec::new(); autoscalers.len()];
            for (object, pod) in pods_of(namespace, &target, view) {
                let matches =
                    |selector: &Selector| selector.matches_with(|key| object.header().label(key));
                let own = autoscalers.iter().position(|(_, selector)| matches(selector));
                if let Some(own) = own {
                    controlled[own].push((object, pod));
                }
            }
            for ((object, _), pods) in autoscalers.iter().zip(controlled) {
                let Some(autoscaler) = object.typed::<VerticalPodAutoscaler>() else { continue };
                let place = (namespace, target.kind.as_str(), target.name.as_str());
                if let Some(beside) = horizontal.get(&place)
                    && let Some(why) = held_by(beside, autoscaler, &pods, now)
                {
                    held.push(hold_reason(object, why));
                    continue;
                }
                self.look(object, autoscaler, &pods, view, now);
            }
        }
        let is_idle = view.count(Kind::of::<VerticalPodAutoscaler>()) == 0;
        let kind = Kind::of::<Pod>();
        let chosen = self.decided.keys().map(|key| (WorkKey::object(kind, key), Duration::ZERO));
        Step {
            again: (!is_idle).then_some(INTERVAL),
            enqueue: chosen.collect(),
            reasons: held,
            ..Step::default()
        }
    }

    /// Chooses among the pods of one autoscaler.
    fn look(
        &mut self,
        object: &Object,
        autoscaler: &VerticalPodAutoscaler,
        pods: &[PodRef<'_>],
        view: &View,
        now: Time,
    ) {
        let ranges = limit_ranges(view, &object.key().namespace);
        let mut budgets = self.budgets(autoscaler, pods, view);
        let is_in_place = autoscaler.update_mode() != UpdateMode::Recreate;
        let never_evicts = autoscaler.update_mode() == UpdateMode::InPlace;
        let mut chosen: Vec<(Priority, Cause, PodRef<'_>)> = pods
            .iter()
            .filter(|(object, pod)| {
                let budget = owner_uid(object).and_then(|uid| budgets.get(&uid));
                // What never evicts disrupts little enough: upstream does not count it.
                let is_free = never_evicts || phase(pod) == "Pending";
                budget.is_some_and(|budget| is_free || budget.allows())
            })
            .filter_map(|(object, pod)| {
                let (priority, cause) = judge(autoscaler, pod, now, &self.config, &ranges)?;
                may_be_evicted(autoscaler, pod, &ranges).then_some((
                    priority,
                    cause,
                    (*object, *pod),
                ))
            })
            .collect();
        // Upstream leaves ties to chance; here the first name goes first.
        chosen.sort_by(|a, b| match a.0.order(&b.0) {
            Ordering::Equal => a.2.0.key().cmp(b.2.0.key()),
            order => order,
        });
        for (priority, cause, (pod_object, pod)) in chosen {
            let Some(budget) = owner_uid(pod_object).and_then(|uid| budgets.get_mut(&uid)) else {
                continue;
            };
            let is_pending = phase(pod) == "Pending";
            let verdict = if is_in_place && !never_evicts {
                in_place(pod, budget, self.resizing_for(pod_object, pod, now))
            } else {
                InPlace::Evict
            };
            let action = match verdict {
                _ if never_evicts => match self.only_in_place(autoscaler, pod_object, pod, &ranges)
                {
                    Some(action) => action,
                    None => continue,
                },
                InPlace::Wait => continue,
                InPlace::Resize => Action::Resize,
                InPlace::Evict if is_pending || budget.allows() => Action::Evict,
                InPlace::Evict => continue,
            };
            if !is_pending {
                budget.take();
            }
            let (uid, autoscaler) = (pod_object.uid().into(), object.key().clone());
            let decided = Decided { uid, autoscaler, action, priority, cause };
            self.decided.insert(pod_object.key().clone(), decided);
        }
    }

    /// What to do about a pod in the mode `InPlace`: it is resized however its last resize stands,
    /// but for one that its node can never give it. That is tried again once less is recommended.
    fn only_in_place(
        &mut self,
        autoscaler: &VerticalPodAutoscaler,
        object: &Object,
        pod: &Pod,
        ranges: &LimitRanges,
    ) -> Option<Action> {
        if !resize_is_infeasible(pod) {
            self.infeasible.remove(object.uid());
            return Some(Action::Resize);
        }
        let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice());
        let targets = patch(autoscaler, containers.unwrap_or_default(), ranges).containers;
        let Some(known) = self.infeasible.get_mut(object.uid()) else {
            self.infeasible.insert(object.uid().into(), targets);
            return None;
        };
        let is_lower = targets.iter().any(|target| {
            let before = known.iter().find(|known| known.index == target.index);
            before.is_some_and(|before| {
                let (new, old) = (target.requests, before.requests);
                new.cpu.zip(old.cpu).is_some_and(|(new, old)| new < old)
                    || new.memory.zip(old.memory).is_some_and(|(new, old)| new < old)
            })
        });
        if !is_lower {
            return Some(Action::Skip);
        }
        *known = targets;
        Some(Action::Resize)
    }

    /// The budget of each direct controller of some pods, by its uid. A controller with too few pods
    /// has none.
    fn budgets(
        &self,
        autoscaler: &VerticalPodAutoscaler,
        pods: &[PodRef<'_>],
        view: &View,
    ) -> BTreeMap<CompactString, Budget> {
        let policy = autoscaler.spec.update_policy.as_ref();
        let own = policy.and_then(|policy| policy.min_replicas);
        let least = i64::from(own.unwrap_or(self.config.min_replicas));
        let mut counts: BTreeMap<CompactString, (i64, i64, &Arc<Object>)> = BTreeMap::new();
        for (object, pod) in pods {
            let Some(uid) = owner_uid(object) else { continue };
            let (live, running, _) = counts.entry(uid).or_insert((0, 0, object));
            *live += 1;
            *running += i64::from(phase(pod) != "Pending");
        }
        counts
            .into_iter()
            .filter(|(_, (live, ..))| *live >= least)
            .map(|(uid, (_, running, object))| {
                let configured = configured_replicas(object, view);
                (uid, Budget::new(configured, running, self.config.tolerance))
            })
            .collect()
    }

    /// For how long a resize of a pod has been seen to be under way.
    fn resizing_for(&mut self, object: &Object, pod: &Pod, now: Time) -> Duration {
        if !resize_under_way(pod) {
            return Duration::ZERO;
        }
        let (_, since) =
            self.resizing.entry(object.key().clone()).or_insert((object.uid().into(), now));
        now.since(*since)
    }

    fn forget_resizes(&mut self, view: &View) {
        let live: BTreeSet<&str> = match self.infeasible.is_empty() {
            true => BTreeSet::new(),
            false => view.objects(Kind::of::<Pod>()).map(|object| object.uid()).collect(),
        };
        self.infeasible.retain(|uid, _| live.contains(uid.as_str()));
        self.resizing.retain(|key, (uid, _)| {
            let object = view.object(Kind::of::<Pod>(), key);
            object.is_some_and(|object| {
                object.uid() == uid.as_str() && object.typed().is_some_and(resize_under_way)
            })
        });
    }

    /// Does what was decided about a pod.
    fn act(&mut self, key: &ObjectKey, view: &View) -> Step {
        let Some(decided) = self.decided.remove(key) else { return Step::done() };
        let found = view.object(Kind::of::<Pod>(), key).filter(|o| o.uid() == decided.uid);
        let autoscaler = view.object(Kind::of::<VerticalPodAutoscaler>(), &decided.autoscaler);
        let (Some(object), Some(autoscaler)) = (found, autoscaler) else { return Step::done() };
        let (Some(pod), Some(spec)) =
            (object.typed::<Pod>(), autoscaler.typed::<VerticalPodAutoscaler>())
        else {
            return Step::done();
        };
        let mut step = Step::done();
        match decided.action {
            Action::Evict if spec.update_mode() == UpdateMode::InPlace => return step,
            Action::Evict => evict(object, autoscaler, &mut step),
            Action::Resize => {
                let Some(resized) = resized(spec, pod, &limit_ranges(view, &key.namespace)) else {
                    return step;
                };
                step.write(Write::Update { object: Box::new(resized), part: Part::Resize });
                let text = "Pod was resized in place by VPA Updater.";
                step.write(event(
                    object,
                    EventType::Normal,
                    COMPONENT,
                    "InPlaceResizedByVPA",
                    text,
                ));
                // The mark is a write of its own upstream, too.
                step.enqueue.push((WorkKey::object(object.kind(), key), Duration::from_secs(1)));
                let next = Decided { action: Action::Mark, ..decided.clone() };
                self.decided.insert(key.clone(), next);
            }
            Action::Skip => {
                let text = "Previously recorded in-place update was infeasible, current recommendation is not lower than previous, skipping resize";
                step.write(event(
                    object,
                    EventType::Normal,
                    COMPONENT,
                    "InPlaceResizeSkipped",
                    text,
                ));
                return step;
            }
            Action::Mark => {
                let mut pod = pod.clone();
                let annotations = pod.metadata.annotations.get_or_insert_default();
                let is_new =
                    annotations.insert(IN_PLACE_UPDATED.to_owned(), "true".to_owned()).is_none();
                if is_new {
                    step.write(Write::Update { object: Box::new(pod), part: Part::Main });
                }
                return step;
            }
        }
        step.reasons.push(reason(object, autoscaler, &decided));
        step
    }
}

/// The Horizontal Pod Autoscalers by namespace, kind and name of what they scale.
fn horizontal_by_target(view: &View) -> BTreeMap<(&str, &str, &str), &HorizontalPodAutoscaler> {
    let autoscalers = view.list::<HorizontalPodAutoscaler>().map(|autoscaler| {
        let target = &autoscaler.spec.scale_target_ref;
        let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        ((namespace, target.kind.as_str(), target.name.as_str()), autoscaler)
    });
    autoscalers.collect()
}

/// Why the pods keep their size, where a Horizontal Pod Autoscaler counts them by the same resource.
fn held_by(
    beside: &HorizontalPodAutoscaler,
    autoscaler: &VerticalPodAutoscaler,
    pods: &[PodRef<'_>],
    now: Time,
) -> Option<String> {
    // The names of containers are those of the template.
    let spec = pods.first()?.1.spec.as_ref()?;
    if coordinate::shared(&beside.spec, autoscaler, spec).is_empty() {
        return None;
    }
    let why = coordinate::holds_size(beside, now)?;
    let name = beside.metadata.name.as_deref().unwrap_or_default();
    Some(format!("hpa/{name} counts the pods by the same resource: {why}"))
}

fn hold_reason(autoscaler: &Object, why: String) -> Reason {
    Reason {
        kind: autoscaler.kind(),
        key: autoscaler.key().clone(),
        by: COMPONENT,
        decision: "running pods keep their size".to_owned(),
        because: vec![Because::new("coordination", why)],
    }
}

/// The pods below a controller: scheduled, live, and with this controller on top.
fn pods_of<'v>(namespace: &str, target: &Target, view: &'v View) -> Vec<PodRef<'v>> {
    let group = if target.kind == "ReplicationController" { "" } else { "apps" };
    let Some(kind) = Kind::by_kind(group, &target.kind) else { return Vec::new() };
    let key = ObjectKey::namespaced(namespace, &target.name);
    let mut found: BTreeMap<&ObjectKey, PodRef<'_>> = BTreeMap::new();
    let mut next: Vec<&str> =
        view.object(kind, &key).into_iter().map(|object| object.uid()).collect();
    while let Some(uid) = next.pop() {
        for object in view.dependents(uid) {
            if object.header().controller().is_none_or(|owner| owner.uid != uid) {
                continue;
            }
            let Some(pod) = object.typed::<Pod>() else {
                next.push(object.uid());
                continue;
            };
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            if is_active(pod) && node.is_some_and(|node| !node.is_empty()) {
                found.insert(object.key(), (object, pod));
            }
        }
    }
    // A chain of owners with an end that is not there counts as none. The pods of one controller
    // have the same.
    let mut known: BTreeMap<Option<Target>, bool> = BTreeMap::new();
    let mut is_below = |object: &Object| {
        let owner = Target::above(object);
        *known.entry(owner.clone()).or_insert_with(|| {
            let top = owner.and_then(|owner| topmost(&owner, namespace, &lookup(view)).ok()?);
            top.as_ref() == Some(target)
        })
    };
    found.into_values().filter(|(object, _)| is_below(object)).collect()
}

fn owner_uid(object: &Object) -> Option<CompactString> {
    Some(object.header().controller()?.uid.clone())
}

/// How many pods the direct controller of a pod is to have.
fn configured_replicas(pod: &Object, view: &View) -> i64 {
    let Some(owner) = pod.header().controller() else { return 0 };
    let key = ObjectKey::namespaced(&pod.key().namespace, &owner.name);
    let replicas = match owner.kind.as_str() {
        "ReplicaSet" => {
            view.get::<ReplicaSet>(&key).and_then(|set| set.spec.as_ref()).map(|s| s.replicas)
        }
        "StatefulSet" => {
            view.get::<StatefulSet>(&key).and_then(|set| set.spec.as_ref()).map(|s| s.replicas)
        }
        "ReplicationController" => view
            .get::<ReplicationController>(&key)
            .and_then(|set| set.spec.as_ref())
            .map(|s| s.replicas),
        // Upstream cannot say it of other kinds.
        _ => return 0,
    };
    replicas.map_or(0, |replicas| i64::from(replicas.unwrap_or(1)))
}

fn evict(pod: &Object, autoscaler: &Object, step: &mut Step) {
    step.write(Write::Evict { pod: pod.key().clone(), uid: pod.uid().into() });
    step.write(event(
        pod,
        EventType::Normal,
        COMPONENT,
        "EvictedByVPA",
        "Pod was evicted by VPA Updater to apply resource recommendation.",
    ));
    let text =
        format!("VPA Updater evicted Pod {} to apply resource recommendation.", pod.key().name);
    step.write(event(autoscaler, EventType::Normal, COMPONENT, "EvictedPod", text));
}

/// The pod with what is recommended; `None` if that changes nothing.
fn resized(autoscaler: &VerticalPodAutoscaler, pod: &Pod, ranges: &LimitRanges) -> Option<Pod> {
    let mut resized = pod.clone();
    let spec = resized.spec.as_mut()?;
    let PodPatch { containers, .. } = patch(autoscaler, &spec.containers, ranges);
    PodPatch { containers, updates: None }.apply(&mut spec.containers);
    resized.metadata.resource_version = None;
    (resized.spec != pod.spec).then_some(resized)
}

fn reason(pod: &Object, autoscaler: &Object, decided: &Decided) -> Reason {
    let (what, how) = match decided.action {
        Action::Evict => ("evicts it", "so that a new one asks for what is recommended"),
        Action::Resize | Action::Mark | Action::Skip => {
            ("resizes it in place", "to what is recommended")
        }
    };
    let cause = match decided.cause {
        Cause::OutOfRange => "it asks for what is out of the recommended range",
        Cause::QuickKill => "a container was killed for memory soon after its start",
        Cause::Difference => "it has run for long and asks for something quite different",
    };
    let difference = format!(
        "{:.0}% between what is asked for and what is recommended, added over cpu and memory",
        decided.priority.difference * 100.0
    );
    Reason {
        kind: pod.kind(),
        key: pod.key().clone(),
        by: "vpa-updater",
        decision: format!("{what} {how} by vpa/{}", autoscaler.key().name),
        because: vec![Because::new("cause", cause), Because::new("difference", difference)],
    }
}

impl Controller for Updater {
    fn name(&self) -> &'static str {
        "vpa-updater"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(READS)
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        if change.kind() == Kind::of::<VerticalPodAutoscaler>() {
            queue.after(WorkKey::singleton(ROUND), INTERVAL);
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        match key.kind {
            None => self.round(context),
            Some(_) => self.act(&key.key, context.view),
        }
    }

    fn refused(&mut self, key: &WorkKey, write: &Write, _error: &ApiError) -> OnError {
        match write {
            Write::Update { part: Part::Resize, .. } => {
                // What cannot be resized is evicted, unless its autoscaler never evicts.
                let Some(decided) = self.decided.get_mut(&key.key) else { return OnError::Forget };
                decided.action = Action::Evict;
                OnError::Retry
            }
            // A budget that refuses is asked again in the next round.
            _ => OnError::Forget,
        }
    }
}

#[cfg(test)]
mod tests;
