//! What one look at a DaemonSet decides: which nodes get a pod, which lose theirs, and how far an
//! update goes (<https://kubernetes.io/docs/tasks/manage-daemon/update-daemon-set/>).

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::labels::CONTROLLER_REVISION_HASH;
use wharf_model::object::Object;
use wharf_model::pod::{available_at, phase, ready_since};
use wharf_model::time::Time;

use super::nodes::Fit;
use crate::workloads::percentage::scaled;

/// A pod of the set.
#[derive(Clone, Copy)]
pub(super) struct DaemonPod<'v> {
    pub(super) object: &'v Object,
    pub(super) pod: &'v Pod,
}

impl DaemonPod<'_> {
    fn is_deleting(&self) -> bool {
        self.object.header().deleting.is_some()
    }

    fn is_ended(&self) -> bool {
        matches!(phase(self.pod), "Succeeded" | "Failed")
    }

    fn is_of(&self, hash: &str) -> bool {
        self.object.header().label(CONTROLLER_REVISION_HASH) == Some(hash)
    }

    fn order(&self) -> (Time, &str) {
        (self.object.header().created, self.object.key().name.as_str())
    }
}

/// What a look sees.
pub(super) struct Facts<'f, 'v> {
    pub(super) set: &'f DaemonSet,
    /// Every node, by name.
    pub(super) nodes: &'f [(&'v str, Fit)],
    /// The set's pods by the node they are for.
    pub(super) pods: &'f BTreeMap<&'v str, Vec<DaemonPod<'v>>>,
    /// The hash of the present template.
    pub(super) hash: &'f str,
    pub(super) now: Time,
}

/// What a look decides.
#[derive(Default)]
pub(super) struct Plan<'v> {
    /// Nodes that get a pod.
    pub(super) create: Vec<&'v str>,
    pub(super) delete: Vec<DaemonPod<'v>>,
    /// Pods that have ended and are deleted for that.
    pub(super) ended: Vec<(&'v str, DaemonPod<'v>)>,
}

/// Decides. The update comes after all nodes have what they are to have.
pub(super) fn decide<'v>(facts: &Facts<'_, 'v>) -> Plan<'v> {
    let mut plan = Plan::default();
    let surge = amounts(facts).1;
    for (node, fit) in facts.nodes {
        manage(facts, node, *fit, surge > 0, &mut plan);
    }
    // Pods for nodes that are gone; those that were bound are the pod garbage collector's.
    for (name, pods) in facts.pods {
        if facts.nodes.binary_search_by_key(name, |(node, _)| node).is_err() {
            let unbound = pods.iter().filter(|pod| {
                let node = pod.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                node.is_none_or(str::is_empty) && !pod.is_deleting()
            });
            plan.delete.extend(unbound);
        }
    }
    let is_settled = plan.create.is_empty() && plan.delete.is_empty() && plan.ended.is_empty();
    let spec = facts.set.spec.as_ref();
    let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
    let rolls = strategy.and_then(|it| it.type_.as_deref()) == Some("RollingUpdate");
    if is_settled && rolls {
        if surge > 0 { surge_update(facts, &mut plan) } else { rolling_update(facts, &mut plan) }
    }
    plan
}

/// The pods of one node: one that runs if it is wanted, none that has ended.
fn manage<'v>(facts: &Facts<'_, 'v>, node: &'v str, fit: Fit, surges: bool, plan: &mut Plan<'v>) {
    let pods = facts.pods.get(node).map(Vec::as_slice).unwrap_or_default();
    if fit == Fit::Unwanted {
        plan.delete.extend(pods.iter().filter(|pod| !pod.is_deleting()));
        return;
    }
    if pods.is_empty() {
        if fit == Fit::Wanted {
            plan.create.push(node);
        }
        return;
    }
    let mut running: Vec<DaemonPod<'v>> = Vec::new();
    for pod in pods.iter().filter(|pod| !pod.is_deleting()) {
        if pod.is_ended() { plan.ended.push((node, *pod)) } else { running.push(*pod) }
    }
    running.sort_by(|left, right| left.order().cmp(&right.order()));
    if !surges {
        plan.delete.extend(running.into_iter().skip(1));
        return;
    }
    // One of the old and one of the new may be there at once; the old goes once the new is there
    // for good.
    let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| pod.is_of(facts.hash));
    let is_new_available = new.first().is_some_and(|pod| is_available(facts, pod));
    plan.delete.extend(new.into_iter().skip(1));
    plan.delete.extend(old.into_iter().skip(usize::from(!is_new_available)));
}

/// Replaces pods in place: first those that are not available anyway, then so many others that no
/// more than `maxUnavailable` are without a pod at once.
fn rolling_update<'v>(facts: &Facts<'_, 'v>, plan: &mut Plan<'v>) {
    let (max_unavailable, _) = amounts(facts);
    let mut unavailable = 0;
    let (mut at_once, mut candidates) = (Vec::new(), Vec::new());
    for (node, _) in facts.nodes.iter().filter(|(_, fit)| *fit == Fit::Wanted) {
        let pods = facts.pods.get(node).map(Vec::as_slice).unwrap_or_default();
        match pods {
            [pod] if pod.is_of(facts.hash) => {
                unavailable += i32::from(!is_available(facts, pod));
            }
            [pod] if is_available(facts, pod) => candidates.push(*pod),
            [pod] => {
                unavailable += 1;
                if !pod.is_deleting() {
                    at_once.push(*pod);
                }
            }
            _ => unavailable += 1,
        }
    }
    let room = usize::try_from(max_unavailable - unavailable).unwrap_or(0);
    plan.delete.extend(at_once);
    plan.delete.extend(candidates.into_iter().take(room));
}

/// Makes new pods beside the old ones, at most `maxSurge` at once; an old pod that is not available
/// is replaced at once.
fn surge_update<'v>(facts: &Facts<'_, 'v>, plan: &mut Plan<'v>) {
    let (_, max_surge) = amounts(facts);
    let (mut surging, mut at_once, mut candidates) = (0, Vec::new(), Vec::new());
    for (node, _) in facts.nodes.iter().filter(|(_, fit)| *fit == Fit::Wanted) {
        let pods = facts.pods.get(node).map(Vec::as_slice).unwrap_or_default();
        let new = pods.iter().find(|pod| pod.is_of(facts.hash));
        let old = pods.iter().find(|pod| !pod.is_of(facts.hash));
        match (new, old) {
            (Some(_), Some(_)) => surging += 1,
            (None, Some(old)) if is_available(facts, old) => candidates.push(*node),
            (None, Some(_)) => at_once.push(*node),
            (_, None) => {}
        }
    }
    let room = usize::try_from(max_surge - surging).unwrap_or(0);
    plan.create.extend(at_once);
    plan.create.extend(candidates.into_iter().take(room));
}

/// How many nodes may be without an available pod during an update, and how many may have two.
fn amounts(facts: &Facts<'_, '_>) -> (i32, i32) {
    let spec = facts.set.spec.as_ref();
    let rolling = spec
        .and_then(|spec| spec.update_strategy.as_ref())
        .and_then(|strategy| strategy.rolling_update.as_ref());
    let desired = facts.nodes.iter().filter(|(_, fit)| *fit == Fit::Wanted).count();
    let desired = i32::try_from(desired).unwrap_or(i32::MAX);
    let amount =
        |value: Option<&IntOrString>| value.map_or(0, |value| scaled(value, desired, true));
    let unavailable = amount(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()));
    let surge = amount(rolling.and_then(|rolling| rolling.max_surge.as_ref()));
    // An update that may do nothing would never end.
    if unavailable == 0 && surge == 0 { (1, 0) } else { (unavailable, surge) }
}

fn is_available(facts: &Facts<'_, '_>, pod: &DaemonPod<'_>) -> bool {
    let min_ready = facts.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    !pod.is_deleting() && available_at(pod.pod, min_ready).is_some_and(|at| at <= facts.now)
}

/// The status, and when it changes by the mere passing of time.
pub(super) fn status(facts: &Facts<'_, '_>) -> (DaemonSetStatus, Option<Time>) {
    let min_ready = facts.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let mut status = facts.set.status.clone().unwrap_or_default();
    let (mut desired, mut current, mut misscheduled) = (0, 0, 0);
    let (mut ready, mut available, mut updated) = (0, 0, 0);
    let mut next: Option<Time> = None;
    for (node, fit) in facts.nodes {
        let pods = facts.pods.get(node).map(Vec::as_slice).unwrap_or_default();
        if *fit != Fit::Wanted {
            misscheduled += i32::from(!pods.is_empty());
            continue;
        }
        desired += 1;
        // With two pods on a node the older one counts.
        let Some(pod) = pods.iter().min_by(|left, right| left.order().cmp(&right.order())) else {
            continue;
        };
        current += 1;
        ready += i32::from(ready_since(pod.pod).is_some());
        available += i32::from(is_available(facts, pod));
        updated += i32::from(pods.iter().any(|pod| pod.is_of(facts.hash)));
        let waits = pods.iter().filter_map(|pod| available_at(pod.pod, min_ready));
        next = waits.filter(|at| *at > facts.now).chain(next).min();
    }
    let some = |count: i32| (count != 0).then_some(count);
    status.desired_number_scheduled = desired;
    status.current_number_scheduled = current;
    status.number_misscheduled = misscheduled;
    status.number_ready = ready;
    status.number_available = some(available);
    status.number_unavailable = some(desired - available);
    status.updated_number_scheduled = some(updated);
    status.observed_generation = facts.set.metadata.generation;
    (status, next)
}
