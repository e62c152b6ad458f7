//! What may change the mind of this plugin.
//!
//! Upstream leaves some things out that can free a node too; pods would sleep through them: the
//! last pod that a required affinity selects going (then the pod may be the first anywhere), a
//! node going with its pods or losing a topology key, and the labels of namespaces.

use crate::node::{NodeFacts, NodeInfo};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::symbols::label;
use crate::topology::TermKind;

/// A pod came that all terms of the pod's required affinity select.
pub(crate) fn wakes_on_pod_added(pod: &PodInfo, other: &PodInfo, snapshot: &Snapshot) -> bool {
    affinity_selects(pod, other, snapshot)
}

/// A pod went that the pod's anti-affinity selects, or whose anti-affinity selects the pod; or one
/// without which the pod may be the first of its group.
pub(crate) fn wakes_on_pod_gone(pod: &PodInfo, gone: &PodInfo, snapshot: &Snapshot) -> bool {
    let topology = snapshot.topology();
    anti_affinity_selects(pod, gone, snapshot)
        || (affinity_selects(pod, gone, snapshot) && affinity_selects(pod, pod, snapshot))
        || gone.terms.carried.iter().any(|term| {
            let term = topology.term(*term);
            term.kind == TermKind::RequiredAnti
                && topology.selects(term.matcher, pod, snapshot.symbols())
        })
}

/// A placed pod's labels changed.
pub(crate) fn wakes_on_pod_change(
    pod: &PodInfo,
    old: &PodInfo,
    new: &PodInfo,
    snapshot: &Snapshot,
) -> bool {
    if old.labels == new.labels {
        return false;
    }
    affinity_selects(pod, old, snapshot) != affinity_selects(pod, new, snapshot)
        || (anti_affinity_selects(pod, old, snapshot)
            && pod.terms.required_anti.iter().any(|term| {
                let selects = |other: &PodInfo| {
                    snapshot.topology().selects(term.matcher, other, snapshot.symbols())
                };
                selects(old) && !selects(new)
            }))
}

/// The waiting pod's own labels changed.
pub(crate) fn wakes_on_self(old: &PodInfo, new: &PodInfo) -> bool {
    old.labels != new.labels
}

/// A node came, or a topology key of it changed.
pub(crate) fn wakes_on_node(
    pod: &PodInfo,
    old: Option<&NodeFacts>,
    new: &NodeInfo,
    snapshot: &Snapshot,
) -> bool {
    let topology = snapshot.topology();
    let Some(old) = old else {
        let mut required = pod.terms.required.iter();
        return pod.terms.required.is_empty()
            || !pod.terms.required_anti.is_empty()
            || required
                .any(|term| label(&new.facts.labels, topology.key(term.key).symbol).is_some());
    };
    let differs = |(key, value): &(_, _)| label(&old.labels, *key) != Some(*value);
    let lost = |(key, _): &(_, _)| label(&new.facts.labels, *key).is_none();
    let changed = new.facts.labels.iter().filter(|pair| differs(pair));
    let mut changed = changed.chain(old.labels.iter().filter(|pair| lost(pair)));
    changed.any(|(key, _)| topology.keys().follows(*key))
}

/// A node went with its pods.
pub(crate) fn wakes_on_node_gone(gone: &NodeInfo) -> bool {
    !gone.pods.is_empty()
}

/// The labels of a namespace changed, and so may what namespace selectors select.
pub(crate) fn wakes_on_namespace() -> bool {
    true
}

fn affinity_selects(pod: &PodInfo, other: &PodInfo, snapshot: &Snapshot) -> bool {
    let selects = |matcher| snapshot.topology().selects(matcher, other, snapshot.symbols());
    pod.terms.required_of_all.is_some_and(selects)
}

fn anti_affinity_selects(pod: &PodInfo, other: &PodInfo, snapshot: &Snapshot) -> bool {
    let mut terms = pod.terms.required_anti.iter();
    terms.any(|term| snapshot.topology().selects(term.matcher, other, snapshot.symbols()))
}
