//! `node.termination` and the end of a NodeClaim: taint, drain in tiers, terminate the machine, let
//! the objects go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::karpenter::conditions::{self, Conditioned, node_claim, reason};
use wharf_model::karpenter::{NodeClaim, TERMINATION_FINALIZER, events};
use wharf_model::kinds::{Kind, Resource};
use wharf_model::labels;
use wharf_model::object::ObjectKey;
use wharf_model::taints;
use wharf_model::time::Time;
use wharf_ports::cloud::{CloudEvent, CloudRequest};
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::event::{EventType, Regarding};
use wharf_ports::view::View;

use super::auto_class::FINALIZED;
use super::class::is_auto_claim;
use super::events::{about, event, is_auto_node, normal, report_transitions, told_by, warning};
use super::garbage_collection::is_gone;
use super::log::{self, Source};
use super::pods;
use super::shared::{Shared, TELL_AGAIN};
use super::snapshot::{claim_of_node, is_node_ready, node_of_claim};

const NODE: &str = "node.termination";
const NODE_CLAIM: &str = "nodeclaim.lifecycle";
/// The cloud is asked again to terminate a machine that is not gone after so long.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// A drain takes at least so long, for pods that are just being bound.
const DRAIN_MIN: Duration = Duration::from_secs(5);
/// A pod that is still there so long after it should have stopped is not waited for.
const STUCK_AFTER: Duration = Duration::from_mins(1);
/// First and longest delay before a refused eviction is tried again.
const EVICT_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
const LOAD_BALANCER_VALUE: &str = "karpenter";

/// The controller.
pub(super) struct Termination {
    shared: Arc<Shared>,
    /// Pods whose eviction was asked for, by uid.
    evictions: BTreeMap<CompactString, Eviction>,
    /// Machines that the cloud says are gone.
    gone: BTreeSet<String>,
    /// When each machine's termination was last asked for.
    asked: BTreeMap<String, Time>,
}

struct Eviction {
    pod: Regarding,
    node: CompactString,
    attempts: u32,
    next: Time,
    told: bool,
    /// Why the last attempt was refused, until it has been told.
    refused: Option<String>,
}

impl Termination {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (evictions, gone, asked) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { shared, evictions, gone, asked }
    }

    fn node(&mut self, node: &Node, context: &mut Context<'_>) -> Step {
        let mut step = Step::done();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if node.metadata.deletion_timestamp.is_none() || !has_finalizer(&node.metadata) {
            return step;
        }
        let claim = claim_of_node(context.view, node);
        if let Some(claim) = claim.filter(|claim| claim.metadata.deletion_timestamp.is_none()) {
            delete::<NodeClaim>(&mut step, context.view, &ObjectKey::of(&claim.metadata));
        }
        if self.taint(node, name, context, &mut step) {
            return step;
        }
        let lost = claim.is_some_and(|claim| is_gone(context.view, claim)) && !is_node_ready(node);
        if !lost {
            if !self.drain(node, name, claim, context, &mut step) {
                return step;
            }
            let provider_id = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
            if let Some(id) = provider_id.and_then(instance_id)
                && !self.terminate(id, claim, context, &mut step)
            {
                return step;
            }
        }
        self.evictions.retain(|_, eviction| eviction.node != name);
        let mut draft = node.clone();
        remove_finalizer(&mut draft.metadata);
        step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        log::info(&mut step, context, Source::node(NODE, name), "deleted node", &[]);
        step
    }

    /// Keeps new pods and load balancers off the node; says whether there was anything to do.
    fn taint(&self, node: &Node, name: &str, context: &mut Context<'_>, step: &mut Step) -> bool {
        let mut draft = node.clone();
        add_disrupted_taint(&mut draft);
        draft
            .metadata
            .labels
            .get_or_insert_default()
            .insert(labels::EXCLUDE_FROM_LOAD_BALANCERS.to_owned(), LOAD_BALANCER_VALUE.to_owned());
        // The disruption controller may have put the taint on already; the log tells all the same,
        // once, when the node's deletion begins.
        if draft == *node {
            return false;
        }
        step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        let fields = [
            ("taint.Key", json!(labels::TAINT_DISRUPTED)),
            ("taint.Value", json!("")),
            ("taint.Effect", json!(taints::NO_SCHEDULE)),
        ];
        log::info(step, context, Source::node(NODE, name), "tainted node", &fields);
        true
    }

    /// Evicts what is left on the node, tier by tier; says whether nothing is left.
    fn drain(
        &mut self,
        node: &Node,
        name: &str,
        claim: Option<&NodeClaim>,
        context: &mut Context<'_>,
        step: &mut Step,
    ) -> bool {
        let now = context.now;
        let deadline = claim.and_then(termination_deadline);
        let on_node: Vec<&Pod> =
            context.view.pods_on(name).filter_map(|object| object.typed::<Pod>()).collect();
        let waiting: Vec<&Pod> =
            on_node.into_iter().filter(|pod| is_waited_for(pod, now)).collect();
        self.tell_evictions(name, claim, context.view, step);
        let started = node.metadata.deletion_timestamp.as_ref().map(Time::from);
        let earliest = started.unwrap_or_default() + DRAIN_MIN;
        if waiting.is_empty() && earliest <= now {
            return self.drained(claim, now, step);
        }
        if waiting.is_empty() {
            step.again = Some(earliest.since(now));
        } else {
            let count = waiting.len();
            let message = format!("Failed to drain node, {count} pods are waiting to be evicted");
            let event = warning(node, events::FAILED_DRAINING, message);
            self.shared.tell(step, event, TELL_AGAIN, now);
        }
        let draining = |draft: &mut NodeClaim| {
            let mut set = draft.conditions_mut(now.timestamp());
            set.set_unknown(node_claim::DRAINED, reason::DRAINING, reason::DRAINING);
        };
        if self.update_claim(claim, step, draining) {
            return false;
        }
        self.force(&waiting, deadline, is_auto_node(node), context, step);
        self.evict(&waiting, name, now, step);
        false
    }

    /// Records on the claim that its node is drained; says whether that is done.
    fn drained(&self, claim: Option<&NodeClaim>, now: Time, step: &mut Step) -> bool {
        let done = |draft: &mut NodeClaim| {
            let mut set = draft.conditions_mut(now.timestamp());
            set.set_true(node_claim::DRAINED);
            set.set_true(node_claim::VOLUMES_DETACHED);
        };
        !self.update_claim(claim, step, done)
    }

    /// Changes a claim's conditions; says whether there was anything to change.
    fn update_claim(
        &self,
        claim: Option<&NodeClaim>,
        step: &mut Step,
        change: impl Fn(&mut NodeClaim),
    ) -> bool {
        let Some(claim) = claim else { return false };
        let mut draft = claim.clone();
        change(&mut draft);
        if draft.status.conditions == claim.status.conditions {
            return false;
        }
        let after = draft.status.conditions.clone();
        step.write(Write::Update { object: Box::new(draft), part: Part::Status });
        report_transitions(step, claim, claim.conditions(), &after);
        true
    }

    /// Evicts the pods of the first tier that is not empty.
    fn evict(&mut self, waiting: &[&Pod], node: &str, now: Time, step: &mut Step) {
        let Some(first) = waiting.iter().map(|pod| tier(pod)).min() else { return };
        let mut next = STUCK_AFTER;
        let evictable = waiting.iter().filter(|pod| tier(pod) == first).filter(|pod| {
            pod.metadata.deletion_timestamp.is_none() && !pods::forbids_disruption(pod, now)
        });
        // Each stands alone: a budget that protects one pod must not keep the others.
        step.independent = true;
        for pod in evictable {
            let uid = CompactString::from(pod.metadata.uid.as_deref().unwrap_or_default());
            let key = ObjectKey::of(&pod.metadata);
            let eviction = self.evictions.entry(uid.clone()).or_insert_with(|| Eviction {
                pod: about(*pod),
                node: node.into(),
                attempts: 0,
                next: now,
                told: false,
                refused: None,
            });
            if let Some(why) = eviction.refused.take() {
                let event = warning(*pod, events::FAILED_DRAINING, why);
                self.shared.tell(step, event, TELL_AGAIN, now);
            }
            if eviction.next > now {
                next = next.min(eviction.next.since(now));
                continue;
            }
            let (delay, longest) = EVICT_AGAIN;
            let delay = (delay * 2_u32.saturating_pow(eviction.attempts.min(16))).min(longest);
            eviction.attempts += 1;
            eviction.next = now + delay;
            next = next.min(delay);
            step.write(Write::Evict { pod: key, uid });
        }
        step.again = Some(step.again.map_or(next, |again| again.min(next)));
    }

    /// Deletes pods whose own grace period would reach past the node's deadline, whatever protects
    /// them.
    fn force(
        &self,
        waiting: &[&Pod],
        deadline: Option<Time>,
        is_auto: bool,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let Some(deadline) = deadline else { return };
        for pod in waiting {
            let latest = deadline - pods::grace_period(pod);
            if context.now <= latest || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let grace = deadline.since(context.now).as_secs().max(1);
            let key = ObjectKey::of(&pod.metadata);
            let Some(object) = context.view.object(Kind::of::<Pod>(), &key) else { continue };
            let seconds = i64::try_from(grace).unwrap_or(i64::MAX);
            step.write(Write::Delete(Delete::of(object).with_grace(seconds)));
            let message = format!(
                "Deleting the pod to accommodate the terminationTime {deadline} of the node. The \
                 pod was granted {seconds} seconds of grace-period of its {} \
                 terminationGracePeriodSeconds. This bypasses the PDB of the pod and the \
                 do-not-disrupt annotation.",
                pods::grace_period(pod).as_secs()
            );
            let event = told_by(normal(*pod, events::DISRUPTED, message), is_auto);
            self.shared.tell(step, event, TELL_AGAIN, context.now);
        }
    }

    /// Tells of evictions that have taken effect, and forgets those whose pod is gone.
    fn tell_evictions(
        &mut self,
        node: &str,
        claim: Option<&NodeClaim>,
        view: &View,
        step: &mut Step,
    ) {
        let why = claim
            .and_then(|claim| conditions::get(claim.conditions(), node_claim::DISRUPTION_REASON))
            .map_or("", |condition| condition.reason.as_str());
        self.evictions.retain(|uid, eviction| {
            if eviction.node != node {
                return true;
            }
            let object = view.object(Kind::of::<Pod>(), &eviction.pod.key);
            let pod = object.filter(|pod| pod.uid() == uid);
            if !eviction.told && pod.is_none_or(|pod| pod.header().deleting.is_some()) {
                eviction.told = true;
                let message = format!("Evicted pod: {why}");
                let (regarding, message) = (eviction.pod.clone(), message.trim_end().to_owned());
                let event = event(regarding, EventType::Normal, events::EVICTED, message);
                step.write(told_by(event, claim.is_some_and(is_auto_claim)));
            }
            pod.is_some()
        });
    }

    /// Asks for the machine's end until it is gone; says whether it is.
    fn terminate(
        &mut self,
        id: &str,
        claim: Option<&NodeClaim>,
        context: &Context<'_>,
        step: &mut Step,
    ) -> bool {
        let instance = context.view.get::<Instance>(&ObjectKey::cluster(id));
        let ended =
            instance.is_some_and(|instance| instance.status.state == InstanceState::Terminated);
        if ended || self.gone.contains(id) {
            self.asked.remove(id);
            return true;
        }
        let now = context.now;
        let due = self.asked.get(id).is_none_or(|asked| now.since(*asked) >= ASK_AGAIN);
        if due {
            self.asked.insert(id.to_owned(), now);
            step.cloud.push(CloudRequest::Terminate { instance_id: id.to_owned() });
        }
        step.again = Some(ASK_AGAIN);
        let terminating = |draft: &mut NodeClaim| {
            let mut set = draft.conditions_mut(now.timestamp());
            set.set_true(node_claim::INSTANCE_TERMINATING);
        };
        self.update_claim(claim, step, terminating);
        false
    }

    fn claim(&mut self, claim: &NodeClaim, context: &mut Context<'_>) -> Step {
        let mut step = Step::done();
        if claim.metadata.deletion_timestamp.is_none() || !has_finalizer(&claim.metadata) {
            return step;
        }
        if self.stamp_deadline(claim, &mut step) {
            return step;
        }
        let node = node_of_claim(context.view, claim);
        if claim.is_true(node_claim::REGISTERED)
            && let Some(node) = node
        {
            if node.metadata.deletion_timestamp.is_none() {
                delete::<Node>(&mut step, context.view, &ObjectKey::of(&node.metadata));
            }
            // The node's own finalizer does the rest; its end wakes this up.
            return step;
        }
        let id = instance_id(&claim.status.provider_id);
        if let Some(id) = id
            && !self.terminate(id, Some(claim), context, &mut step)
        {
            return step;
        }
        if let Some(id) = id {
            self.gone.remove(id);
        }
        let mut draft = claim.clone();
        remove_finalizer(&mut draft.metadata);
        if is_auto_claim(claim) {
            step.write(normal(claim, FINALIZED, format!("Finalized {TERMINATION_FINALIZER}")));
        }
        step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let mut fields = Vec::new();
        if !claim.status.node_name.is_empty() {
            fields.push(("Node", json!({ "name": claim.status.node_name })));
        }
        fields.push(("provider-id", json!(claim.status.provider_id)));
        let source = Source::node_claim(NODE_CLAIM, name);
        log::info(&mut step, context, source, "deleted nodeclaim", &fields);
        step
    }

    /// Writes down when the drain must be over, where the claim has a termination grace period.
    fn stamp_deadline(&self, claim: &NodeClaim, step: &mut Step) -> bool {
        let deleted = claim.metadata.deletion_timestamp.as_ref().map(Time::from);
        let (Some(grace), Some(deleted)) = (claim.spec.termination_grace_period(), deleted) else {
            return false;
        };
        let deadline = deleted + grace;
        if termination_deadline(claim).is_some_and(|earlier| earlier <= deadline) {
            return false;
        }
        let mut draft = claim.clone();
        let annotations = draft.metadata.annotations.get_or_insert_default();
        let key = labels::NODECLAIM_TERMINATION_TIMESTAMP.to_owned();
        annotations.insert(key, deadline.to_string());
        step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        let message = format!("All pods will be deleted by {deadline}");
        step.write(warning(claim, events::TERMINATION_GRACE_PERIOD_EXPIRING, message));
        true
    }
}

impl Controller for Termination {
    fn name(&self) -> &'static str {
        NODE
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let (kind, nodes, claims) = (change.kind(), Kind::of::<Node>(), Kind::of::<NodeClaim>());
        let node_key = |name: &str| WorkKey::object(nodes, &ObjectKey::cluster(name));
        if kind == claims {
            if change.object().header().deleting.is_some() {
                queue.now(WorkKey::object(claims, change.key()));
                if let Some(claim) = change.object().typed::<NodeClaim>()
                    && !claim.status.node_name.is_empty()
                {
                    queue.now(node_key(&claim.status.node_name));
                }
            }
        } else if kind == nodes {
            if change.object().header().deleting.is_some() {
                queue.now(WorkKey::object(nodes, change.key()));
                let node = change.object().typed::<Node>();
                if let Some(claim) = node.and_then(|node| claim_of_node(view, node)) {
                    queue.now(WorkKey::object(claims, &ObjectKey::of(&claim.metadata)));
                }
            }
        } else if kind == Kind::of::<Pod>() {
            let Some(pod) = change.object().typed::<Pod>() else { return };
            let Some(name) = pods::node_of(pod) else { return };
            let node = view.object(nodes, &ObjectKey::cluster(name));
            if node.is_some_and(|node| node.header().deleting.is_some()) {
                queue.now(node_key(name));
            }
        }
    }

    fn observe_cloud(&mut self, event: &CloudEvent, view: &View, queue: &mut Enqueue) {
        let CloudEvent::Terminated { instance_id: id } = event else { return };
        let ends = |claim: &&NodeClaim| instance_id(&claim.status.provider_id) == Some(id);
        if let Some(claim) = view.list::<NodeClaim>().find(ends) {
            self.gone.insert(id.clone());
            queue.now(WorkKey::object(Kind::of::<NodeClaim>(), &ObjectKey::of(&claim.metadata)));
            let node = ObjectKey::cluster(&claim.status.node_name);
            queue.now(WorkKey::object(Kind::of::<Node>(), &node));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        if key.kind == Some(Kind::of::<Node>()) {
            let node = context.view.get::<Node>(&key.key);
            node.map_or_else(Step::done, |node| self.node(node, context))
        } else {
            let claim = context.view.get::<NodeClaim>(&key.key);
            claim.map_or_else(Step::done, |claim| self.claim(claim, context))
        }
    }

    fn refused(&mut self, _key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        let Write::Evict { uid, .. } = write else { return OnError::Retry };
        if let Some(eviction) = self.evictions.get_mut(uid) {
            let text = if error.message.contains("more than one PodDisruptionBudget") {
                "eviction does not support multiple PDBs"
            } else {
                "evicting pod violates a PDB"
            };
            eviction.refused = Some(text.to_owned());
        }
        // The step has already said when to try again.
        OnError::Forget
    }
}

/// Whether a drain waits for a pod.
fn is_waited_for(pod: &Pod, now: Time) -> bool {
    let deleted = pod.metadata.deletion_timestamp.as_ref().map(Time::from);
    let stuck = deleted.is_some_and(|deleted| now > deleted + STUCK_AFTER);
    !pods::is_terminal(pod) && !pods::is_static(pod) && !pods::tolerates_disruption(pod) && !stuck
}

/// Which pods leave first: ordinary ones, daemons, critical ones, critical daemons.
fn tier(pod: &Pod) -> u8 {
    let daemon = u8::from(pods::is_owned_by(pod, &["DaemonSet"]));
    2 * u8::from(pods::is_critical(pod)) + daemon
}

/// Until when a claim's node must be drained.
fn termination_deadline(claim: &NodeClaim) -> Option<Time> {
    let annotations = claim.metadata.annotations.as_ref()?;
    let text = annotations.get(labels::NODECLAIM_TERMINATION_TIMESTAMP)?;
    let meta: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time =
        serde_json::from_value(json!(text)).ok()?;
    Some(Time::from(&meta))
}

/// Adds the taint that a node gets before it goes.
pub(super) fn add_disrupted_taint(node: &mut Node) {
    let list = node.spec.get_or_insert_default().taints.get_or_insert_default();
    let taint = taints::taint(labels::TAINT_DISRUPTED, taints::NO_SCHEDULE);
    if !list.iter().any(|other| taints::same_taint(other, &taint)) {
        list.push(taint);
    }
}

fn instance_id(provider_id: &str) -> Option<&str> {
    provider_id.rsplit_once('/').map(|(_, id)| id).filter(|id| !id.is_empty())
}

fn has_finalizer(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == TERMINATION_FINALIZER)
}

fn remove_finalizer(meta: &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) {
    if let Some(finalizers) = &mut meta.finalizers {
        finalizers.retain(|finalizer| finalizer != TERMINATION_FINALIZER);
    }
}

fn delete<T: Resource>(step: &mut Step, view: &View, key: &ObjectKey) {
    if let Some(object) = view.object(T::kind(), key) {
        step.write(Write::Delete(Delete::of(object)));
    }
}
