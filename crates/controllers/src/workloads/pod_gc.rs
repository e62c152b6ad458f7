//! Pods nobody will ever finish: those bound to a node that is gone, and those being deleted that
//! were never bound (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection>).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use rustc_hash::FxHashMap;
use wharf_model::kinds::Kind;
use wharf_model::labels::MIRROR_POD;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::is_terminal;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;

/// How long a node must have been gone before its pods are removed; upstream's quarantine.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How long removals are given to show up.
const RETRY: Duration = Duration::from_secs(20);

/// The pod garbage collector.
#[derive(Debug, Default)]
pub struct PodGc {
    /// Since when nodes that pods are bound to have been found missing.
    missing: FxHashMap<ObjectKey, Time>,
}

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let node = Kind::of::<Node>();
        if change.kind() == node {
            if change.new.is_none() {
                queue.now(WorkKey::object(node, change.key()));
            }
        } else if change.kind() == Kind::of::<Pod>()
            && let Some(pod) = change.new.as_ref().and_then(|pod| pod.typed::<Pod>())
        {
            match pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
                Some(name) if !name.is_empty() => {
                    let key = ObjectKey::cluster(name);
                    if view.object(node, &key).is_none() {
                        queue.now(WorkKey::object(node, &key));
                    }
                }
                _ if pod.metadata.deletion_timestamp.is_some() => {
                    queue.now(WorkKey::object(change.kind(), change.key()));
                }
                _ => {}
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        if key.kind == Some(Kind::of::<Pod>()) {
            return unscheduled(&key.key, context.view);
        }
        let (view, now) = (context.view, context.now);
        let node = view.object(Kind::of::<Node>(), &key.key);
        if node.is_some() || view.pods_on(&key.key.name).next().is_none() {
            self.missing.remove(&key.key);
            return Step::done();
        }
        let due = *self.missing.entry(key.key.clone()).or_insert(now) + QUARANTINE;
        if now < due {
            return Step::again_after(due.since(now));
        }
        let mut step = Step { independent: true, ..Step::again_after(RETRY) };
        for object in view.pods_on(&key.key.name) {
            let Some(pod) = object.typed::<Pod>().filter(|pod| !is_mirror(pod)) else { continue };
            step.writes.extend(failed(pod, now));
            step.write(Write::Delete(Delete::of(object).with_grace(0)));
        }
        step
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        if error.reason == StatusReason::NotFound { OnError::Forget } else { OnError::Retry }
    }
}

fn unscheduled(key: &ObjectKey, view: &View) -> Step {
    let mut step = Step::done();
    let unbound = |object: &Object| {
        object.header().deleting.is_some()
            && object.typed::<Pod>().and_then(|pod| pod.spec.as_ref()?.node_name.clone()).is_none()
    };
    if let Some(object) = view.object(Kind::of::<Pod>(), key).filter(|object| unbound(object)) {
        step.write(Write::Delete(Delete::of(object).with_grace(0)));
    }
    step
}

fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR_POD))
}

/// A pod that has not ended is said to have failed before it goes.
fn failed(pod: &Pod, now: Time) -> Option<Write> {
    if is_terminal(pod) {
        return None;
    }
    let mut pod = pod.clone();
    pod.metadata.resource_version = None;
    let generation = pod.metadata.generation;
    let status = pod.status.get_or_insert_default();
    status.phase = Some("Failed".to_owned());
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("DeletionByPodGC".to_owned()),
        message: Some("PodGC: node no longer exists".to_owned()),
        last_transition_time: Some(now.to_meta()),
        last_probe_time: None,
        observed_generation: generation,
    });
    Some(Write::Update { object: Box::new(pod), part: Part::Status })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workloads::harness::World;
    use wharf_ports::cluster::Propagation;

    fn world(controllers: Vec<Box<dyn Controller>>) -> World {
        let mut world = World::new(controllers);
        world.apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}));
        for (name, annotation) in [("p", "x"), ("mirror", MIRROR_POD)] {
            world.apply(json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "annotations": {annotation: ""}},
                "spec": {"containers": [], "nodeName": "n1"}}));
        }
        world
    }

    fn names(world: &World) -> Vec<&str> {
        world.list::<Pod>().iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
    }

    #[test]
    fn pods_follow_their_node_after_a_while() {
        let mut world = world(vec![Box::new(PodGc::default())]);
        world.run_for(Duration::from_secs(300));
        assert_eq!(world.writes, 0);
        world.delete::<Node>(&ObjectKey::cluster("n1"), Propagation::Background);
        world.run_for(Duration::from_secs(39));
        assert_eq!(names(&world), ["mirror", "p"]);
        world.run_for(Duration::from_secs(5));
        assert_eq!(names(&world), ["mirror"]);
    }

    #[test]
    fn a_node_that_comes_back_keeps_its_pods_and_a_restart_finds_the_others() {
        let mut world = world(vec![]);
        world.delete::<Node>(&ObjectKey::cluster("n1"), Propagation::Background);
        world.restart(vec![Box::new(PodGc::default())]);
        world.run_for(Duration::from_secs(20));
        world.apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}));
        world.run_for(Duration::from_secs(60));
        assert_eq!(names(&world), ["mirror", "p"]);
        world.delete::<Node>(&ObjectKey::cluster("n1"), Propagation::Background);
        world.run_for(Duration::from_secs(60));
        assert_eq!(names(&world), ["mirror"]);
    }
}
