//! What of the cluster reaches the core: each kind's objects become a change of the snapshot, and
//! news for the pods that wait.
//!
//! A kind has a line in [`Scheduler::feed`] and a function, which gives the object as it is now (or
//! that it is gone) to the snapshot, and wakes those whom the difference could help. Pods have a
//! file of their own.

use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_ports::cluster::Change;
use wharf_ports::view::View;
use wharf_scheduler::{News, NodeChange, Snapshot};

use super::pods::is_finished;
use super::{Scheduler, devices, storage};

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
    for namespace in view.list::<Namespace>() {
        snapshot.set_namespace(namespace);
    }
    for service in view.list::<Service>() {
        snapshot.set_service(service);
    }
    for owner in view.list::<ReplicaSet>() {
        snapshot.set_replica_set(owner);
    }
    for owner in view.list::<StatefulSet>() {
        snapshot.set_stateful_set(owner);
    }
    for owner in view.list::<ReplicationController>() {
        snapshot.set_replication_controller(owner);
    }
    storage::refeed(snapshot, view);
    devices::refeed(snapshot, view);
}

/// What upstream calls a change of the cluster, in short: the kind, and what became of it.
pub(super) fn event_name(change: &Change) -> &'static str {
    let kind = change.kind();
    let place = match (&change.old, &change.new) {
        (None, _) => 0,
        (Some(_), Some(_)) => 1,
        (_, None) => 2,
    };
    let names: [&'static str; 3] = if kind == Kind::of::<Pod>() {
        let object = change.new.as_ref().or(change.old.as_ref());
        let pod = object.and_then(|object| object.typed::<Pod>());
        let spec = pod.and_then(|pod| pod.spec.as_ref());
        if spec.is_some_and(|spec| spec.node_name.is_some()) {
            ["AssignedPodAdd", "AssignedPodUpdate", "AssignedPodDelete"]
        } else {
            ["UnschedulablePodAdd", "UnschedulablePodUpdate", "UnschedulablePodDelete"]
        }
    } else if kind == Kind::of::<Node>() {
        ["NodeAdd", "NodeUpdate", "NodeDelete"]
    } else {
        ["OtherAdd", "OtherUpdate", "OtherDelete"]
    };
    names[place]
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
        } else if kind == Kind::of::<PodGroup>() {
            self.observe_group(key, object.and_then(|object| object.typed()))
        } else if kind == Kind::of::<Namespace>() {
            let changed = match object.and_then(|object| object.typed()) {
                Some(namespace) => self.snapshot.set_namespace(namespace),
                None => self.snapshot.remove_namespace(&key.name),
            };
            changed && self.wake(&News::Namespace)
        } else if self.observe_workload(kind, key, object.map(AsRef::as_ref)) {
            self.wake(&News::Workloads)
        } else if devices::is_of_devices(kind) {
            self.observe_devices(kind, key, view)
        } else {
            self.observe_storage(kind, key, view)
        }
    }

    fn observe_node(&mut self, name: &str, node: Option<&Node>) -> bool {
        let Some(node) = node else {
            let gone = self.snapshot.node_named(name).cloned();
            self.snapshot.remove_node(name);
            return gone.is_some_and(|gone| self.wake(&News::NodeGone(&gone)));
        };
        let old = match self.snapshot.set_node(node) {
            NodeChange::Same => return false,
            NodeChange::Added => None,
            NodeChange::Updated(old) => Some(old),
        };
        self.wake_by_node(name, old.as_deref())
    }

    /// Takes in a Service or a controller of pods. Returns whether decisions can see a change.
    fn observe_workload(&mut self, kind: Kind, key: &ObjectKey, object: Option<&Object>) -> bool {
        let snapshot = &mut self.snapshot;
        if kind == Kind::of::<Service>() {
            match object.and_then(|object| object.typed()) {
                Some(service) => snapshot.set_service(service),
                None => snapshot.remove_service(key),
            }
        } else if kind == Kind::of::<ReplicaSet>() {
            match object.and_then(|object| object.typed()) {
                Some(owner) => snapshot.set_replica_set(owner),
                None => snapshot.remove_replica_set(key),
            }
        } else if kind == Kind::of::<StatefulSet>() {
            match object.and_then(|object| object.typed()) {
                Some(owner) => snapshot.set_stateful_set(owner),
                None => snapshot.remove_stateful_set(key),
            }
        } else if kind == Kind::of::<ReplicationController>() {
            match object.and_then(|object| object.typed()) {
                Some(owner) => snapshot.set_replication_controller(owner),
                None => snapshot.remove_replication_controller(key),
            }
        } else {
            false
        }
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
