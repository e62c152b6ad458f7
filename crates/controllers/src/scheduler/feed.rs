//! What of the cluster reaches the core: each kind's objects become a change of the snapshot, and
//! news for the pods that wait.
//!
//! A kind has a line in [`Scheduler::feed`] and a function, which gives the object as it is now (or
//! that it is gone) to the snapshot, and wakes those whom the difference could help. Pods have a
//! file of their own.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_ports::view::View;
use wharf_scheduler::{News, NodeChange, Snapshot};

use super::Scheduler;
use super::pods::is_finished;

/// The cluster as a view shows it, for a question about a pod: with nobody assumed anywhere.
pub fn snapshot_of(view: &View) -> Snapshot {
    let mut snapshot = Snapshot::new();
    for node in view.list::<Node>() {
        snapshot.set_node(node);
    }
    refeed(&mut snapshot, view);
    for pod in view.list::<Pod>().filter(|pod| !is_finished(pod)) {
        let info = snapshot.compile(pod);
        if !info.node_name.is_empty() {
            let node = info.node_name.clone();
            snapshot.place(info, &node);
        } else if !info.nominated_node.is_empty() {
            let node = info.nominated_node.clone();
            snapshot.nominate(info, &node);
        }
    }
    snapshot
}

/// Gives a new snapshot all that is fed to it but nodes and pods, which have an order and a
/// history.
pub(super) fn refeed(snapshot: &mut Snapshot, view: &View) {
    for budget in view.list::<PodDisruptionBudget>() {
        snapshot.set_budget(budget);
    }
}

impl Scheduler {
    /// Takes in an object as it is now. Returns whether there is work.
    pub(super) fn feed(&mut self, kind: Kind, key: &ObjectKey, view: &View) -> bool {
        // The view may be ahead of the change; what it shows is what counts.
        let object = view.object(kind, key);
        if kind == Kind::of::<Pod>() {
            self.observe_pod(key, object.and_then(|object| object.typed::<Pod>()))
        } else if kind == Kind::of::<Node>() {
            self.observe_node(&key.name, object.and_then(|object| object.typed::<Node>()))
        } else if kind == Kind::of::<PodDisruptionBudget>() {
            self.observe_budget(key, object.and_then(|object| object.typed()))
        } else {
            false
        }
    }

    fn observe_node(&mut self, name: &str, node: Option<&Node>) -> bool {
        let Some(node) = node else {
            self.snapshot.remove_node(name);
            return false;
        };
        let old = match self.snapshot.set_node(node) {
            NodeChange::Same => return false,
            NodeChange::Added => None,
            NodeChange::Updated(old) => Some(old),
        };
        // A copy, since the news goes to what holds the snapshot; it is rare news.
        let Some(new) = self.snapshot.node_named(name).cloned() else { return false };
        self.wake(&News::Node { old: old.as_ref(), new: &new })
    }

    fn observe_budget(&mut self, key: &ObjectKey, budget: Option<&PodDisruptionBudget>) -> bool {
        match budget {
            Some(budget) => self.snapshot.set_budget(budget),
            None => self.snapshot.remove_budget(key),
        }
        // Budgets only choose among candidates: they wake nobody.
        false
    }
}
