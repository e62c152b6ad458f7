//! What may change the mind of this plugin.
//!
//! Upstream leaves three things out that can free a node too; pods would sleep through them:
//! a counted pod that is being deleted (it is not counted from then on), a node's label that
//! decides whether the node counts, and the Services behind default constraints.

use crate::node::NodeFacts;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::symbols::{Symbol, label};
use crate::topology::Constraint;

fn required(pod: &PodInfo) -> impl Iterator<Item = &Constraint> {
    pod.terms.constraints.iter().filter(|constraint| constraint.required)
}

/// Whether required default constraints, of which the hints do not know the details, are what the
/// pod is under.
fn by_default(pod: &PodInfo) -> bool {
    pod.terms.constraints.is_empty()
}

/// A pod of the same namespace that a constraint selects came or went.
pub(crate) fn wakes_on_pod(pod: &PodInfo, other: &PodInfo, snapshot: &Snapshot) -> bool {
    pod.namespace == other.namespace
        && (by_default(pod)
            || required(pod)
                .any(|constraint| constraint.selector.matches(&other.labels, snapshot.symbols())))
}

/// A pod of the same namespace is selected now and was not, or the other way round.
pub(crate) fn wakes_on_pod_change(
    pod: &PodInfo,
    old: &PodInfo,
    new: &PodInfo,
    snapshot: &Snapshot,
) -> bool {
    if pod.namespace != new.namespace {
        return false;
    }
    if old.terminating != new.terminating {
        return wakes_on_pod(pod, new, snapshot);
    }
    old.labels != new.labels
        && (by_default(pod)
            || required(pod).any(|constraint| {
                let selects = |other: &PodInfo| {
                    constraint.selector.matches(&other.labels, snapshot.symbols())
                };
                selects(old) != selects(new)
            }))
}

/// The waiting pod's labels or tolerations changed.
pub(crate) fn wakes_on_self(old: &PodInfo, new: &PodInfo) -> bool {
    let honors_taints = new.terms.constraints.iter().any(|constraint| constraint.honors_taints);
    old.labels != new.labels || (honors_taints && old.tolerations != new.tolerations)
}

/// A node with all keys came, or its domains, its taints or whether it counts changed.
pub(crate) fn wakes_on_node(
    pod: &PodInfo,
    old: Option<&NodeFacts>,
    new: &NodeInfo,
    snapshot: &Snapshot,
) -> bool {
    let Some(old) = old else { return by_default(pod) || has_all_keys(pod, &new.facts, snapshot) };
    if by_default(pod) {
        return old.labels != new.facts.labels || old.taints != new.facts.taints;
    }
    let (before, now) = (has_all_keys(pod, old, snapshot), has_all_keys(pod, &new.facts, snapshot));
    if before != now {
        return true;
    }
    let value = |facts: &NodeFacts, key: Symbol| label(&facts.labels, key);
    let moved = keys(pod, snapshot).any(|key| value(old, key) != value(&new.facts, key));
    let admitted = |facts: &NodeFacts| {
        pod.affinity.admits(&NodeInfo::empty(facts.clone()), snapshot.symbols())
    };
    now && (moved
        || old.taints != new.facts.taints
        || (old.labels != new.facts.labels && admitted(old) != admitted(&new.facts)))
}

/// A node that had all keys went.
pub(crate) fn wakes_on_node_gone(pod: &PodInfo, gone: &NodeFacts, snapshot: &Snapshot) -> bool {
    by_default(pod) || has_all_keys(pod, gone, snapshot)
}

/// Services or controllers changed, and so may the selector of default constraints.
pub(crate) fn wakes_on_workloads(pod: &PodInfo) -> bool {
    by_default(pod)
}

fn keys(pod: &PodInfo, snapshot: &Snapshot) -> impl Iterator<Item = Symbol> {
    required(pod).map(|constraint| snapshot.topology().key(constraint.key).symbol)
}

fn has_all_keys(pod: &PodInfo, facts: &NodeFacts, snapshot: &Snapshot) -> bool {
    keys(pod, snapshot).all(|key| label(&facts.labels, key).is_some())
}
