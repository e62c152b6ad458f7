//! The cluster as one decision sees it: nodes with their pods, in the order in which they are
//! tried. Kept up to date piece by piece; only what changed is touched.

use std::sync::{Arc, OnceLock};

use compact_str::CompactString;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use rustc_hash::FxHashMap;
use wharf_model::object::ObjectKey;

use crate::devices::Devices;
use crate::images::Images;
use crate::journal::Journal;
use crate::node::{NodeFacts, NodeInfo};
use crate::pod::{NodeAffinity, PodInfo};
use crate::profile::{Profile, SpreadDefaults};
use crate::selector::Selector;
use crate::shape::Shapes;
use crate::storage::Storage;
use crate::symbols::{Labels, Symbol, Symbols};
use crate::topology::{Nodes, Topology};
use crate::workloads::{Owner, OwnerKind, OwnerSelector};

/// A node's place in the snapshot. Stays the same while the node is known; may be used again for
/// another node afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(u32);

impl NodeIndex {
    pub(crate) fn new(number: u32) -> Self {
        Self(number)
    }

    /// The place as a number.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// As an index of a list with an entry for every node.
    pub(crate) fn get(self) -> usize {
        self.0 as usize
    }
}

/// Nodes, the pods on them, nominations and disruption budgets.
///
/// Its symbols only grow. A holder that lives long watches [`Snapshot::symbols`] and builds a new
/// snapshot, and compiles its pods anew, when most of them are of objects long gone.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) symbols: Symbols,
    shapes: Shapes,
    pub(crate) storage: Storage,
    pub(crate) devices: Devices,
    slots: Vec<Slot>,
    free: Vec<NodeIndex>,
    by_name: FxHashMap<CompactString, NodeIndex>,
    /// The pods that are counted, and where, by uid.
    placed: FxHashMap<CompactString, (NodeIndex, Arc<PodInfo>)>,
    /// Zones in the order in which they were first seen, their nodes in the order of arrival.
    zones: Vec<((Symbol, Symbol), Vec<NodeIndex>)>,
    order: OnceLock<Box<[NodeIndex]>>,
    /// Pending pods for which room is being made, by uid.
    nominated: FxHashMap<CompactString, NodeIndex>,
    budgets: Vec<Budget>,
    /// How often the budgets have changed.
    budget_changes: u64,
    journal: Journal,
    topology: Topology,
    images: Images,
}

/// A place for a node.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) node: NodeInfo,
    /// Whether there is such a Node; else pods name one that nobody has told of.
    pub(crate) known: bool,
    /// Pending pods for which room is being made here, in the order of nomination.
    nominated: Vec<Arc<PodInfo>>,
}

/// A disruption budget, as far as preemption heeds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Which one.
    pub key: ObjectKey,
    pub(crate) namespace: Symbol,
    pub(crate) selector: Selector,
    pub(crate) allowed: i64,
    pub(crate) disrupted: Vec<CompactString>,
}

/// What a Node object's news changed.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeChange {
    /// The node is new.
    Added,
    /// It changed in a way that scheduling can see; this is what it was.
    Updated(Arc<NodeFacts>),
    /// Nothing that scheduling can see.
    Same,
}

impl Snapshot {
    /// An empty cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a node as it is now.
    pub fn set_node(&mut self, node: &Node) -> NodeChange {
        let facts = NodeFacts::new(node, &mut self.symbols);
        let index = self.index_or_new(&facts.name);
        let slot = &mut self.slots[index.get()];
        if !slot.known {
            slot.known = true;
            let zone = facts.zone;
            slot.node.facts = facts.into();
            self.topology.enter(index, &slot.node, &self.symbols);
            self.images.enter(&slot.node.facts.images);
            self.journal.touch(index);
            self.join_zone(index, zone);
            return NodeChange::Added;
        }
        if *slot.node.facts == facts {
            return NodeChange::Same;
        }
        let zone = facts.zone;
        let old = std::mem::replace(&mut slot.node.facts, facts.into());
        let node = &slot.node;
        if old.labels != node.facts.labels || old.taints != node.facts.taints {
            self.topology.leave(index, node);
            self.topology.enter(index, node, &self.symbols);
        }
        if old.images != node.facts.images {
            self.images.leave(&old.images);
            self.images.enter(&node.facts.images);
        }
        self.journal.touch(index);
        if old.zone != zone {
            self.leave_zone(index, old.zone);
            self.join_zone(index, zone);
        }
        NodeChange::Updated(old)
    }

    /// Forgets a node; pods that still name it stay counted should it come back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(index) = self.by_name.get(name).copied() else { return };
        let slot = &mut self.slots[index.get()];
        if slot.known {
            slot.known = false;
            let zone = slot.node.facts.zone;
            self.topology.leave(index, &slot.node);
            self.images.leave(&slot.node.facts.images);
            slot.node.facts = NodeFacts::unknown(name, &mut self.symbols).into();
            for pod in std::mem::take(&mut slot.nominated) {
                self.nominated.remove(&pod.uid);
            }
            self.journal.touch(index);
            self.leave_zone(index, zone);
        }
        self.release(index);
    }

    /// Compiles a pod against this snapshot.
    pub fn compile(&mut self, pod: &Pod) -> Arc<PodInfo> {
        let mut info = PodInfo::new(pod, &mut self.symbols, &mut self.shapes);
        self.topology.compile(&mut info, pod, &mut self.symbols, Nodes(&self.slots));
        Arc::new(info)
    }

    /// The same for a pod that was compiled against this snapshot before, as far as there is
    /// something new.
    pub fn compile_again(&mut self, pod: &Pod, known: Option<&Arc<PodInfo>>) -> Arc<PodInfo> {
        let again = known.and_then(|known| PodInfo::again(known, pod, &mut self.symbols));
        again.unwrap_or_else(|| self.compile(pod))
    }

    /// Compiles what a profile says of nodes against this snapshot. A profile is of use only with
    /// the snapshot it was compiled against last. To be done before the profile's pods are compiled:
    /// for those that were before, its default spreading is found out node by node.
    pub fn compile_profile(&mut self, profile: &mut Profile) {
        if let SpreadDefaults::List(list) = &profile.arguments.spread_defaults {
            self.topology.follow_list(list, &mut self.symbols, Nodes(&self.slots));
        }
        let added = profile.added_affinity_spec.as_deref();
        profile.added_affinity =
            added.map(|added| Box::new(NodeAffinity::of_terms(Some(added), &mut self.symbols)));
    }

    /// Counts a pod on a node, and no longer where it was counted before.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.displace(&pod.uid);
        let index = self.index_or_new(node);
        self.placed.insert(pod.uid.clone(), (index, pod.clone()));
        self.topology.place(&pod, index);
        let node = &mut self.slots[index.get()].node;
        if let Some(volumes) = pod.volumes.as_deref() {
            self.storage.pod_placed(volumes, node.facts.symbol);
        }
        node.add(pod);
        self.journal.touch(index);
    }

    /// Counts a pod nowhere any more; returns it if it was counted.
    pub fn displace(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let (index, pod) = self.placed.remove(uid)?;
        let node = &mut self.slots[index.get()].node;
        if let Some(volumes) = pod.volumes.as_deref() {
            self.storage.pod_displaced(volumes, node.facts.symbol);
        }
        node.remove(&pod);
        self.journal.touch(index);
        self.topology.displace(&pod, index);
        self.release(index);
        Some(pod)
    }

    /// The node on which a pod is counted.
    pub fn placement(&self, uid: &str) -> Option<&NodeInfo> {
        self.placed.get(uid).map(|(index, _)| self.node(*index))
    }

    /// A pod that is counted on a node, as it was last placed.
    pub fn placed(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.placed.get(uid).map(|(_, pod)| pod)
    }

    /// Notes that room is being made for a pending pod on a node, and no longer on another. Does
    /// nothing for an unknown node.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.withdraw_nomination(&pod.uid);
        if let Some(index) = self.find(node) {
            self.nominated.insert(pod.uid.clone(), index);
            self.slots[index.get()].nominated.push(pod);
            self.journal.touch(index);
        }
    }

    /// Takes a nomination back; returns the pod if there was one.
    pub fn withdraw_nomination(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let index = self.nominated.remove(uid)?;
        self.journal.touch(index);
        let nominated = &mut self.slots[index.get()].nominated;
        let place = nominated.iter().position(|pod| pod.uid == uid)?;
        Some(nominated.remove(place))
    }

    /// The node on which room is being made for a pod.
    pub fn nomination(&self, uid: &str) -> Option<&str> {
        self.nominated.get(uid).map(|index| self.node(*index).facts.name.as_str())
    }

    /// Pods of a lower priority for which room was being made on a node.
    pub fn nominated_below(&self, index: NodeIndex, priority: i32) -> Vec<Arc<PodInfo>> {
        let pods = self.slots[index.get()].nominated.iter();
        pods.filter(|pod| pod.priority < priority).cloned().collect()
    }

    /// Pods nominated to a node, other than `besides`, of at least its priority.
    pub(crate) fn nominated_on(
        &self,
        index: NodeIndex,
        besides: &PodInfo,
    ) -> impl Iterator<Item = &Arc<PodInfo>> {
        let pods = self.slots[index.get()].nominated.iter();
        pods.filter(|pod| pod.uid != besides.uid && pod.priority >= besides.priority)
    }

    /// The place of the node on which room is being made for a pod.
    pub(crate) fn nominated_to(&self, uid: &str) -> Option<NodeIndex> {
        if self.nominated.is_empty() { None } else { self.nominated.get(uid).copied() }
    }

    /// Whether any pod is nominated.
    pub(crate) fn has_nominations(&self) -> bool {
        !self.nominated.is_empty()
    }

    /// Takes in a disruption budget as it is now.
    pub fn set_budget(&mut self, budget: &PodDisruptionBudget) {
        let key = ObjectKey::of(&budget.metadata);
        self.remove_budget(&key);
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let status = budget.status.as_ref();
        let compiled = Budget {
            namespace: self.symbols.intern(&key.namespace),
            selector: Selector::new(selector, &mut self.symbols),
            allowed: i64::from(status.and_then(|status| status.disruptions_allowed).unwrap_or(0)),
            disrupted: status
                .into_iter()
                .flat_map(|status| status.disrupted_pods.iter().flatten())
                .map(|(name, _)| CompactString::from(name.as_str()))
                .collect(),
            key,
        };
        let at = self.budgets.partition_point(|known| known.key < compiled.key);
        self.budgets.insert(at, compiled);
        self.budget_changes += 1;
    }

    /// Forgets a disruption budget.
    pub fn remove_budget(&mut self, key: &ObjectKey) {
        self.budgets.retain(|budget| budget.key != *key);
        self.budget_changes += 1;
    }

    /// The disruption budgets, by key.
    pub fn budgets(&self) -> &[Budget] {
        &self.budgets
    }

    /// Takes in a namespace as it is now. Returns whether decisions can see a change.
    pub fn set_namespace(&mut self, namespace: &Namespace) -> bool {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let name = self.symbols.intern(name);
        let labels = self.symbols.intern_labels(namespace.metadata.labels.iter().flatten());
        self.topology.set_namespace(name, labels, &self.symbols)
    }

    /// Forgets a namespace. Returns whether it was known.
    pub fn remove_namespace(&mut self, name: &str) -> bool {
        let name = self.symbols.intern(name);
        self.topology.remove_namespace(name, &self.symbols)
    }

    /// Takes in a Service as it is now. Returns whether decisions can see a change.
    pub fn set_service(&mut self, service: &Service) -> bool {
        let names = self.names(&ObjectKey::of(&service.metadata));
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = self.symbols.intern_labels(selector.into_iter().flatten());
        self.topology.set_service(names, selector, &self.symbols)
    }

    /// Forgets a Service. Returns whether decisions can see a change.
    pub fn remove_service(&mut self, key: &ObjectKey) -> bool {
        let names = self.names(key);
        self.topology.remove_service(names, &self.symbols)
    }

    /// Takes in a ReplicaSet as it is now. Returns whether decisions can see a change.
    pub fn set_replica_set(&mut self, object: &ReplicaSet) -> bool {
        let selector = object.spec.as_ref().map(|spec| &spec.selector);
        let selector = Selector::new(selector, &mut self.symbols);
        let key = ObjectKey::of(&object.metadata);
        self.set_owner(&key, OwnerKind::ReplicaSet, OwnerSelector::Selector(selector))
    }

    /// Forgets a ReplicaSet. Returns whether it was known.
    pub fn remove_replica_set(&mut self, key: &ObjectKey) -> bool {
        self.remove_owner(key, OwnerKind::ReplicaSet)
    }

    /// Takes in a StatefulSet as it is now. Returns whether decisions can see a change.
    pub fn set_stateful_set(&mut self, object: &StatefulSet) -> bool {
        let selector = object.spec.as_ref().map(|spec| &spec.selector);
        let selector = Selector::new(selector, &mut self.symbols);
        let key = ObjectKey::of(&object.metadata);
        self.set_owner(&key, OwnerKind::StatefulSet, OwnerSelector::Selector(selector))
    }

    /// Forgets a StatefulSet. Returns whether it was known.
    pub fn remove_stateful_set(&mut self, key: &ObjectKey) -> bool {
        self.remove_owner(key, OwnerKind::StatefulSet)
    }

    /// Takes in a ReplicationController as it is now. Returns whether decisions can see a change.
    pub fn set_replication_controller(&mut self, object: &ReplicationController) -> bool {
        let selector = object.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector: Labels = self.symbols.intern_labels(selector.into_iter().flatten());
        let key = ObjectKey::of(&object.metadata);
        self.set_owner(&key, OwnerKind::ReplicationController, OwnerSelector::Labels(selector))
    }

    /// Forgets a ReplicationController. Returns whether it was known.
    pub fn remove_replication_controller(&mut self, key: &ObjectKey) -> bool {
        self.remove_owner(key, OwnerKind::ReplicationController)
    }

    fn set_owner(&mut self, key: &ObjectKey, kind: OwnerKind, selector: OwnerSelector) -> bool {
        let (namespace, name) = self.names(key);
        self.topology.set_owner(namespace, Owner { kind, name }, selector, &self.symbols)
    }

    fn remove_owner(&mut self, key: &ObjectKey, kind: OwnerKind) -> bool {
        let (namespace, name) = self.names(key);
        self.topology.remove_owner(namespace, Owner { kind, name }, &self.symbols)
    }

    fn names(&mut self, key: &ObjectKey) -> (Symbol, Symbol) {
        (self.symbols.intern(&key.namespace), self.symbols.intern(&key.name))
    }

    /// The labels of a namespace; `None` if there is no such namespace.
    pub fn namespace_labels(&self, name: Symbol) -> Option<&[(Symbol, Symbol)]> {
        self.topology.namespace_labels(name)
    }

    /// The selector by which a pod is spread if it has no constraints of its own; `None` if
    /// nothing selects it.
    pub fn default_selector(&self, pod: &PodInfo) -> Option<&Selector> {
        self.topology.default_selector(pod)
    }

    /// What the cluster's pods are to each other.
    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The images that nodes have.
    pub(crate) fn images(&self) -> &Images {
        &self.images
    }

    /// The places of nodes.
    pub(crate) fn places(&self) -> Nodes<'_> {
        Nodes(&self.slots)
    }

    /// How often the budgets have changed.
    pub(crate) fn budget_changes(&self) -> u64 {
        self.budget_changes
    }

    /// Which nodes changed of late.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// How many places for nodes there are: every [`NodeIndex`] is less.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The known nodes in the order in which they are tried: the first of each zone, then the
    /// second of each, and so on.
    pub fn nodes(&self) -> &[NodeIndex] {
        self.order.get_or_init(|| {
            let mut order = Vec::new();
            let mut zones: Vec<_> = self.zones.iter().map(|(_, nodes)| nodes.iter()).collect();
            // A zone that has run out drops out, or a single large one would make many small ones
            // be asked in vain.
            while !zones.is_empty() {
                zones.retain_mut(|nodes| match nodes.next() {
                    Some(node) => {
                        order.push(*node);
                        true
                    }
                    None => false,
                });
            }
            order.into_boxed_slice()
        })
    }

    /// A node.
    pub fn node(&self, index: NodeIndex) -> &NodeInfo {
        &self.slots[index.get()].node
    }

    /// The place of a known node.
    pub fn find(&self, name: &str) -> Option<NodeIndex> {
        self.by_name.get(name).copied().filter(|index| self.slots[index.get()].known)
    }

    /// A known node by name.
    pub fn node_named(&self, name: &str) -> Option<&NodeInfo> {
        self.find(name).map(|index| self.node(index))
    }

    /// The interned strings.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// How many pods are counted on nodes.
    pub fn pod_count(&self) -> usize {
        self.placed.len()
    }

    fn index_or_new(&mut self, name: &str) -> NodeIndex {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let facts = NodeFacts::unknown(name, &mut self.symbols);
        let mut slot = Slot { node: NodeInfo::empty(facts), known: false, nominated: Vec::new() };
        slot.node.volume_room = self.storage.room_on(slot.node.facts.symbol);
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index.get()] = slot;
                index
            }
            None => {
                let index = u32::try_from(self.slots.len())
                    .expect("invariant: a cluster has fewer than 2^32 nodes");
                self.slots.push(slot);
                NodeIndex(index)
            }
        };
        self.by_name.insert(name.into(), index);
        index
    }

    /// Takes in that a node's drivers can attach more or less.
    pub(crate) fn room_changed(&mut self, node: Symbol) {
        if let Some(index) = self.by_name.get(self.symbols.text(node)) {
            self.slots[index.get()].node.volume_room = self.storage.room_on(node);
        }
    }

    /// Frees the place of a node that is neither known nor named by any pod.
    fn release(&mut self, index: NodeIndex) {
        let slot = &self.slots[index.get()];
        if !slot.known && slot.node.pods.is_empty() {
            self.by_name.remove(&slot.node.facts.name);
            self.free.push(index);
        }
    }

    fn join_zone(&mut self, index: NodeIndex, zone: (Symbol, Symbol)) {
        self.order.take();
        match self.zones.iter_mut().find(|(known, _)| *known == zone) {
            Some((_, nodes)) => nodes.push(index),
            None => self.zones.push((zone, vec![index])),
        }
    }

    fn leave_zone(&mut self, index: NodeIndex, zone: (Symbol, Symbol)) {
        self.order.take();
        if let Some(at) = self.zones.iter().position(|(known, _)| *known == zone) {
            self.zones[at].1.retain(|node| *node != index);
            if self.zones[at].1.is_empty() {
                self.zones.remove(at);
            }
        }
    }
}

#[cfg(test)]
impl NodeIndex {
    pub(crate) fn for_test(index: u32) -> Self {
        Self(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::{node, pod};

    fn zoned(name: &str, zone: &str) -> Node {
        node(name, json!({"labels": {"topology.kubernetes.io/zone": zone}}), json!({}))
    }

    fn names(snapshot: &Snapshot) -> Vec<&str> {
        snapshot.nodes().iter().map(|index| snapshot.node(*index).facts.name.as_str()).collect()
    }

    #[test]
    fn nodes_take_turns_by_zone() {
        let mut snapshot = Snapshot::new();
        for (name, zone) in
            [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c"), ("c2", "c")]
        {
            snapshot.set_node(&zoned(name, zone));
        }
        assert_eq!(names(&snapshot), ["a1", "b1", "c1", "a2", "c2", "a3"]);
        snapshot.remove_node("a1");
        snapshot.set_node(&zoned("a2", "b"));
        assert_eq!(names(&snapshot), ["a3", "b1", "c1", "a2", "c2"]);
    }

    #[test]
    fn pods_of_an_unknown_node_wait_for_it() {
        let mut snapshot = Snapshot::new();
        let info = snapshot.compile(&pod("p", json!({"cpu": "1"})));
        snapshot.place(info, "n");
        assert!(snapshot.find("n").is_none() && snapshot.nodes().is_empty());
        assert_eq!(snapshot.set_node(&zoned("n", "a")), NodeChange::Added);
        assert_eq!(snapshot.node_named("n").unwrap().requested.cpu_milli, 1000);
        assert_eq!(snapshot.set_node(&zoned("n", "a")), NodeChange::Same);
        snapshot.remove_node("n");
        assert!(snapshot.by_name.contains_key("n"));
        snapshot.displace("default/p");
        assert!(snapshot.by_name.is_empty() && snapshot.placed.is_empty(), "nothing is left");
    }

    #[derive(Clone, Debug)]
    enum Event {
        Node(u8, u8),
        RemoveNode(u8),
        Place(u8, u8, u8),
        Displace(u8),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0..6u8, 0..3u8).prop_map(|(node, zone)| Event::Node(node, zone)),
            (0..6u8).prop_map(Event::RemoveNode),
            (0..12u8, 0..6u8, 1..4u8).prop_map(|(pod, node, cpu)| Event::Place(pod, node, cpu)),
            (0..12u8).prop_map(Event::Displace),
        ];
        prop::collection::vec(event, 0..60)
    }

    fn test_pod(name: u8, cpu: u8) -> Pod {
        let mut pod =
            pod(&format!("p{name}"), json!({"cpu": cpu.to_string(), "example.com/gpu": "1"}));
        pod.spec.as_mut().unwrap().containers[0].ports =
            Some(serde_json::from_value(json!([{"containerPort": 1, "hostPort": cpu}])).unwrap());
        pod
    }

    proptest! {
        /// Any sequence of events leaves the same snapshot as building it from what is left.
        #[test]
        fn incremental_is_from_scratch(events in events()) {
            let mut snapshot = Snapshot::new();
            let mut nodes = BTreeMap::new();
            let mut pods = BTreeMap::new();
            for event in events {
                match event {
                    Event::Node(node, zone) => {
                        snapshot.set_node(&zoned(&format!("n{node}"), &format!("z{zone}")));
                        nodes.insert(node, zone);
                    }
                    Event::RemoveNode(node) => {
                        snapshot.remove_node(&format!("n{node}"));
                        nodes.remove(&node);
                    }
                    Event::Place(name, node, cpu) => {
                        let info = snapshot.compile(&test_pod(name, cpu));
                        snapshot.place(info, &format!("n{node}"));
                        pods.insert(name, (node, cpu));
                    }
                    Event::Displace(name) => {
                        snapshot.displace(&format!("default/p{name}"));
                        pods.remove(&name);
                    }
                }
            }
            let mut scratch = Snapshot::new();
            for (node, zone) in &nodes {
                scratch.set_node(&zoned(&format!("n{node}"), &format!("z{zone}")));
            }
            for (name, (node, cpu)) in &pods {
                let info = scratch.compile(&test_pod(*name, *cpu));
                scratch.place(info, &format!("n{node}"));
            }
            let mut sorted = names(&snapshot);
            sorted.sort_unstable();
            prop_assert_eq!(sorted.len(), nodes.len());
            prop_assert_eq!(snapshot.pod_count(), pods.len());
            prop_assert_eq!(snapshot.by_name.len(), scratch.by_name.len());
            for name in sorted {
                let (a, b) = (snapshot.node_named(name).unwrap(), scratch.node_named(name).unwrap());
                prop_assert_eq!(&a.requested, &b.requested);
                prop_assert_eq!(a.non_zero, b.non_zero);
                let ports = |node: &NodeInfo| {
                    let mut ports: Vec<_> = node.ports.iter().map(|port| port.port).collect();
                    ports.sort_unstable();
                    ports
                };
                prop_assert_eq!(ports(a), ports(b));
                let uids = |node: &NodeInfo| {
                    let mut uids: Vec<_> = node.pods.iter().map(|pod| pod.uid.clone()).collect();
                    uids.sort_unstable();
                    uids
                };
                prop_assert_eq!(uids(a), uids(b));
            }
        }
    }
}
