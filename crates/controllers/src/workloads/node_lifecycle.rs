//! Node health: nodes that are no longer heard of, and the taints that follow from conditions.
//!
//! Follows <https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller>: a node whose
//! Lease and status have not been renewed for the grace period gets its conditions set to Unknown;
//! Ready False or Unknown puts the not-ready or unreachable taints on it, a pressure condition or
//! cordoning its NoSchedule taint, and each goes when its cause has gone.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use rustc_hash::{FxHashMap, FxHashSet};
use wharf_model::kinds::Kind;
use wharf_model::labels::{
    TAINT_DISK_PRESSURE, TAINT_MEMORY_PRESSURE, TAINT_NETWORK_UNAVAILABLE, TAINT_NOT_READY,
    TAINT_PID_PRESSURE, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE,
};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod;
use wharf_model::taints::{self, NO_EXECUTE, NO_SCHEDULE};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::events::event;

/// Upstream's `--node-monitor-grace-period` since Kubernetes 1.32.
pub const GRACE_PERIOD: Duration = Duration::from_secs(50);
const LEASE_NAMESPACE: &str = "kube-node-lease";
const COMPONENT: &str = "node-controller";

/// The node lifecycle controller.
#[derive(Debug)]
pub struct NodeLifecycle {
    grace_period: Duration,
    heard: FxHashMap<ObjectKey, Heard>,
    /// Nodes whose registration has been told.
    known: FxHashSet<ObjectKey>,
    /// Whether the first look at every object is over.
    started: bool,
}

/// What is known of a node's signs of life.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// The newest heartbeat, by the node's clock.
    heartbeat: Option<Time>,
    /// When it was made, by this controller's clock.
    at: Time,
    /// When the node was last looked at.
    looked: Time,
}

impl Default for NodeLifecycle {
    fn default() -> Self {
        Self::new(GRACE_PERIOD)
    }
}

impl NodeLifecycle {
    /// A controller that gives nodes so long between signs of life.
    pub fn new(grace_period: Duration) -> Self {
        Self {
            grace_period,
            heard: FxHashMap::default(),
            known: FxHashSet::default(),
            started: false,
        }
    }

    /// When the node was last heard of. Renewals make no work of their own: the node is looked at
    /// when its grace would be over. A new heartbeat must have been made since the last look; one
    /// that says otherwise comes from a clock that is off and counts from now.
    fn last_heard(&mut self, key: &ObjectKey, node: &Node, context: &Context<'_>) -> Time {
        let now = context.now;
        let lease = context.view.get::<Lease>(&ObjectKey::namespaced(LEASE_NAMESPACE, &key.name));
        let renewed =
            lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref()).map(Time::from);
        let reported =
            ready(node).and_then(|ready| ready.last_heartbeat_time.as_ref()).map(Time::from);
        let heartbeat = renewed.max(reported);
        let heard =
            self.heard.entry(key.clone()).or_insert(Heard { heartbeat, at: now, looked: now });
        if heard.heartbeat < heartbeat {
            let at = heartbeat.filter(|at| heard.looked <= *at && *at <= now).unwrap_or(now);
            (heard.heartbeat, heard.at) = (heartbeat, at);
        }
        heard.looked = now;
        heard.at
    }

    fn look(&mut self, object: &Object, node: &Node, context: &Context<'_>) -> Step {
        let now = context.now;
        let key = object.key();
        let mut step = Step::done();
        if self.known.insert(key.clone()) && self.started {
            let text = format!("Node {0} event: Registered Node {0} in Controller", key.name);
            step.write(event(object, EventType::Normal, COMPONENT, "RegisteredNode", text));
        }
        let silent_at = self.last_heard(key, node, context) + self.grace_period;
        let silent = (now >= silent_at).then(|| silenced(node, now)).flatten();
        if now < silent_at {
            step.again = Some(silent_at.since(now));
        }
        if let Some(silent) = &silent {
            if ready(node).is_some_and(|ready| ready.status == "True") {
                let text = format!("Node {} status is now: NodeNotReady", key.name);
                step.write(event(object, EventType::Normal, COMPONENT, "NodeNotReady", text));
            }
            step.write(Write::Update { object: Box::new(silent.clone()), part: Part::Status });
            step.writes.extend(pods_not_ready(&key.name, context.view, now));
        }
        if object.header().deleting.is_none()
            && let Some(mut tainted) = with_taints(silent.as_ref().unwrap_or(node), now)
        {
            // The taints are the whole list: on condition that it is as it was seen. A status
            // write of this very step moves the version on; the look is repeated then.
            if silent.is_some() {
                step.again = Some(Duration::from_millis(1));
            } else {
                tainted.metadata.resource_version = Some(object.revision().to_string());
                step.write(Write::Update { object: Box::new(tainted), part: Part::Main });
            }
        }
        step
    }
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<Node>();
        if change.kind() == kind {
            // What is there at the start has been told before.
            if change.new.is_some() && change.old.is_none() && !self.started {
                self.known.insert(change.key().clone());
            }
            queue.now(WorkKey::object(kind, change.key()));
        }
    }

    fn start(&mut self, queue: &mut Enqueue) {
        queue.now(WorkKey::singleton("started"));
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        self.started = true;
        if key.kind.is_none() {
            return Step::done();
        }
        let object = context.view.object(Kind::of::<Node>(), &key.key);
        let Some((object, node)) =
            object.and_then(|object| Some((object, object.typed::<Node>()?)))
        else {
            if self.heard.remove(&key.key).is_some() {
                self.known.remove(&key.key);
            }
            return Step::done();
        };
        self.look(object, node, context)
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        if error.reason == StatusReason::NotFound { OnError::Forget } else { OnError::Retry }
    }
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    condition(node, "Ready")
}

fn condition<'n>(node: &'n Node, type_: &str) -> Option<&'n NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// The node with every kubelet condition Unknown; `None` if that is so already.
fn silenced(node: &Node, now: Time) -> Option<Node> {
    let mut silent = node.clone();
    silent.metadata.resource_version = None;
    let conditions = silent.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut changed = false;
    for type_ in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(condition) if condition.status == "Unknown" => continue,
            Some(condition) => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(now.to_meta());
            }
            None => conditions.push(NodeCondition {
                type_: type_.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(now.to_meta()),
            }),
        }
        changed = true;
    }
    changed.then_some(silent)
}

/// The node with the taints that its conditions call for; `None` if it has them already.
fn with_taints(node: &Node, now: Time) -> Option<Node> {
    const OWN: [&str; 7] = [
        TAINT_NOT_READY,
        TAINT_UNREACHABLE,
        TAINT_MEMORY_PRESSURE,
        TAINT_DISK_PRESSURE,
        TAINT_PID_PRESSURE,
        TAINT_NETWORK_UNAVAILABLE,
        TAINT_UNSCHEDULABLE,
    ];
    let mut wanted: Vec<(&'static str, &str)> = Vec::new();
    match ready(node).map(|ready| ready.status.as_str()) {
        Some("True") => {}
        Some("False") => {
            wanted.extend([(TAINT_NOT_READY, NO_SCHEDULE), (TAINT_NOT_READY, NO_EXECUTE)])
        }
        Some(_) => {
            wanted.extend([(TAINT_UNREACHABLE, NO_SCHEDULE), (TAINT_UNREACHABLE, NO_EXECUTE)]);
        }
        // Nothing reported yet: what the node was registered with stays.
        None => wanted.push((TAINT_NOT_READY, NO_SCHEDULE)),
    }
    for (type_, key) in [
        ("MemoryPressure", TAINT_MEMORY_PRESSURE),
        ("DiskPressure", TAINT_DISK_PRESSURE),
        ("PIDPressure", TAINT_PID_PRESSURE),
        ("NetworkUnavailable", TAINT_NETWORK_UNAVAILABLE),
    ] {
        if condition(node, type_).is_some_and(|condition| condition.status == "True") {
            wanted.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.push((TAINT_UNSCHEDULABLE, NO_SCHEDULE));
    }
    let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let is_wanted = |taint: &Taint| {
        wanted.iter().any(|(key, effect)| taint.key == *key && taint.effect == *effect)
    };
    let mut new: Vec<Taint> = old
        .iter()
        .filter(|taint| !OWN.contains(&taint.key.as_str()) || is_wanted(taint))
        .cloned()
        .collect();
    for (key, effect) in &wanted {
        if !new.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            new.push(Taint { time_added: Some(now.to_meta()), ..taints::taint(*key, effect) });
        }
    }
    if new == old {
        return None;
    }
    let mut node = node.clone();
    node.spec.get_or_insert_default().taints = Some(new);
    Some(node)
}

/// Pods of a silent node are not ready any more, as far as anybody can tell.
fn pods_not_ready(node: &str, view: &View, now: Time) -> Vec<Write> {
    let pods = view.pods_on(node).filter_map(|object| object.typed::<Pod>());
    pods.filter(|pod| pod::condition(pod, "Ready").is_some_and(|ready| ready.status == "True"))
        .map(|pod| {
            let mut pod = pod.clone();
            pod.metadata.resource_version = None;
            let status = pod.status.get_or_insert_default();
            for condition in status.conditions.iter_mut().flatten() {
                if condition.type_ == "Ready" {
                    condition.status = "False".to_owned();
                    condition.last_transition_time = Some(now.to_meta());
                }
            }
            Write::Update { object: Box::new(pod), part: Part::Status }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::workloads::harness::World;

    fn node(name: &str, ready: &str, taints: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"taints": taints},
            "status": {"conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": ready, "reason": "KubeletReady"}]}})
    }

    fn world(ready: &str, taints: Value) -> World {
        let mut world = World::new(vec![Box::new(NodeLifecycle::default())]);
        world.run_for(Duration::from_secs(1));
        world.apply(node("n1", ready, taints));
        world.run_for(Duration::from_secs(1));
        world
    }

    fn taints_of(world: &World) -> Vec<String> {
        let node: &Node = world.get("", "n1").expect("the node");
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        taints.into_iter().flatten().map(taints::display).collect()
    }

    fn beat(world: &mut World) {
        let now = world.now;
        let key = ObjectKey::namespaced(LEASE_NAMESPACE, "n1");
        if world.stored.object(Kind::of::<Lease>(), &key).is_none() {
            world.apply(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "n1", "namespace": LEASE_NAMESPACE}, "spec": {}}));
        }
        world.edit::<Lease>(&key, |lease| {
            lease.spec.get_or_insert_default().renew_time = Some(now.to_micro());
        });
    }

    #[test]
    fn taints_follow_conditions() {
        let not_ready = json!([{"key": TAINT_NOT_READY, "effect": NO_SCHEDULE},
            {"key": "dedicated", "value": "gpu", "effect": NO_SCHEDULE}]);
        let mut world = world("False", not_ready);
        assert_eq!(
            taints_of(&world),
            [
                "node.kubernetes.io/not-ready:NoSchedule",
                "dedicated=gpu:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute"
            ]
        );
        world.edit::<Node>(&ObjectKey::cluster("n1"), |node| {
            node.spec.get_or_insert_default().unschedulable = Some(true);
            let conditions = node.status.get_or_insert_default().conditions.as_mut();
            for condition in conditions.into_iter().flatten() {
                condition.status = "True".to_owned();
            }
        });
        world.run_for(Duration::from_secs(1));
        assert_eq!(
            taints_of(&world),
            [
                "dedicated=gpu:NoSchedule",
                "node.kubernetes.io/memory-pressure:NoSchedule",
                "node.kubernetes.io/unschedulable:NoSchedule"
            ]
        );
        assert_eq!(world.messages(), ["Node n1 event: Registered Node n1 in Controller"]);
    }

    #[test]
    fn a_node_that_is_heard_of_is_left_alone() {
        let mut world = world("True", json!([]));
        for _ in 0..30 {
            beat(&mut world);
            world.run_for(Duration::from_secs(10));
        }
        assert_eq!(world.writes, 1, "the event of its registration");
    }

    #[test]
    fn a_silent_node_is_unknown_and_unreachable_until_it_speaks_again() {
        let mut world = world("True", json!([]));
        world.apply(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [], "nodeName": "n1"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        beat(&mut world);
        world.run_for(Duration::from_secs(45));
        assert_eq!(taints_of(&world), Vec::<String>::new());
        world.run_for(Duration::from_secs(10));
        let node: &Node = world.get("", "n1").expect("the node");
        let ready = ready(node).cloned().expect("the condition");
        assert_eq!(ready.status, "Unknown");
        assert_eq!(ready.reason.as_deref(), Some("NodeStatusUnknown"));
        assert_eq!(ready.message.as_deref(), Some("Kubelet stopped posting node status."));
        assert_eq!(
            taints_of(&world),
            [
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute"
            ]
        );
        let pod: &Pod = world.get("default", "p").expect("the pod");
        assert!(pod::condition(pod, "Ready").is_some_and(|ready| ready.status == "False"));
        beat(&mut world);
        world.edit::<Node>(&ObjectKey::cluster("n1"), |node| {
            for condition in node.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten())
            {
                let value = if condition.type_ == "Ready" { "True" } else { "False" };
                condition.status = value.to_owned();
            }
        });
        world.run_for(Duration::from_secs(1));
        assert_eq!(taints_of(&world), Vec::<String>::new());
    }

    #[test]
    fn a_restart_gives_every_node_its_grace_and_tells_nothing_twice() {
        let mut world = world("True", json!([]));
        beat(&mut world);
        world.run_for(Duration::from_secs(40));
        let records = world.records.len();
        world.restart(vec![Box::new(NodeLifecycle::default())]);
        world.run_for(Duration::from_secs(40));
        assert_eq!(world.records.len(), records);
        assert_eq!(taints_of(&world), Vec::<String>::new());
    }
}
