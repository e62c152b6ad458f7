//! Pods leave nodes whose NoExecute taints they do not tolerate
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>): at once, or
//! `tolerationSeconds` after the taint was put on.

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint};
use rustc_hash::FxHashMap;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::is_terminal;
use wharf_model::taints::{NO_EXECUTE, NoExecuteVerdict, no_execute_verdict};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::events::event;

const COMPONENT: &str = "taint-eviction-controller";

/// The taint eviction controller.
#[derive(Debug, Default)]
pub struct TaintEviction {
    /// Since when nodes have been seen with NoExecute taints that do not say so themselves.
    since: FxHashMap<ObjectKey, Time>,
}

impl TaintEviction {
    fn look(&mut self, object: &Object, taints: &[Taint], context: &Context<'_>) -> Step {
        let now = context.now;
        let first_seen = *self.since.entry(object.key().clone()).or_insert(now);
        let since = taints
            .iter()
            .map(|taint| taint.time_added.as_ref().map_or(first_seen, Time::from))
            .max()
            .unwrap_or(first_seen);
        let mut step = Step { independent: true, ..Step::default() };
        let mut next: Option<Time> = None;
        for object in context.view.pods_on(&object.key().name) {
            let Some(pod) = object.typed::<Pod>() else { continue };
            if object.header().deleting.is_some() || is_terminal(pod) {
                continue;
            }
            let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
            let seconds = match no_execute_verdict(taints, tolerations.unwrap_or_default()) {
                NoExecuteVerdict::Stay => continue,
                NoExecuteVerdict::EvictAfterSeconds(seconds) => seconds,
            };
            let wait = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            // A pod that came after the taint has its time from then on.
            let from = if seconds == 0 { since } else { since.max(bound_at(pod)) };
            let due = from + wait;
            if due <= now {
                evict(object, pod, now, &mut step);
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        step.again = next.map(|at| at.since(now));
        step
    }
}

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<Node>();
        if change.kind() == kind {
            let is_tainted = |object: &Object| !no_execute_taints(object).is_empty();
            if change.old.iter().chain(&change.new).any(|object| is_tainted(object)) {
                queue.now(WorkKey::object(kind, change.key()));
            }
        } else if change.kind() == Kind::of::<Pod>()
            && let Some(pod) = change.new.as_ref().and_then(|pod| pod.typed::<Pod>())
            && let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref())
        {
            let key = ObjectKey::cluster(node);
            if view.object(kind, &key).is_some_and(|node| !no_execute_taints(node).is_empty()) {
                queue.now(WorkKey::object(kind, &key));
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let node = context.view.object(Kind::of::<Node>(), &key.key);
        let taints = node.map(|node| no_execute_taints(node)).unwrap_or_default();
        match node {
            Some(node) if !taints.is_empty() => self.look(node, &taints, context),
            _ => {
                self.since.remove(&key.key);
                Step::done()
            }
        }
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        if error.reason == StatusReason::NotFound { OnError::Forget } else { OnError::Retry }
    }
}

fn no_execute_taints(node: &Object) -> Vec<Taint> {
    let spec = node.typed::<Node>().and_then(|node| node.spec.as_ref());
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().filter(|taint| taint.effect == NO_EXECUTE).cloned().collect()
}

/// When the pod was bound, as far as its conditions tell.
fn bound_at(pod: &Pod) -> Time {
    let scheduled = wharf_model::pod::condition(pod, "PodScheduled");
    scheduled
        .filter(|scheduled| scheduled.status == "True")
        .and_then(|scheduled| scheduled.last_transition_time.as_ref())
        .map(Time::from)
        .unwrap_or_default()
}

fn evict(object: &Object, pod: &Pod, now: Time, step: &mut Step) {
    let text = format!("Marking for deletion Pod {}", object.key());
    step.write(event(object, EventType::Normal, COMPONENT, "TaintManagerEviction", text));
    let mut pod = pod.clone();
    pod.metadata.resource_version = None;
    let generation = pod.metadata.generation;
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("DeletionByTaintManager".to_owned()),
        message: Some("Taint manager: deleting due to NoExecute taint".to_owned()),
        last_transition_time: Some(now.to_meta()),
        last_probe_time: None,
        observed_generation: generation,
    });
    step.write(Write::Update { object: Box::new(pod), part: Part::Status });
    step.write(Write::Delete(Delete::of(object)));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::workloads::harness::World;

    fn pod(name: &str, tolerations: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [], "nodeName": "n1", "tolerations": tolerations}})
    }

    fn leaving(world: &World) -> Vec<&str> {
        let pods = world.list::<Pod>();
        pods.into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_some())
            .filter_map(|pod| pod.metadata.name.as_deref())
            .collect()
    }

    #[test]
    fn pods_go_when_their_tolerations_run_out() {
        let key = "node.kubernetes.io/unreachable";
        let mut world = World::new(vec![Box::new(TaintEviction::default())]);
        world.apply(
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {}}),
        );
        world.apply(pod("at-once", json!([])));
        world.apply(pod(
            "five-minutes",
            json!([{"key": key, "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 300}]),
        ));
        world.apply(pod("for-good", json!([{"operator": "Exists"}])));
        world.run_for(Duration::from_secs(600));
        assert_eq!(leaving(&world), Vec::<&str>::new());
        let now = world.now;
        world.edit::<Node>(&ObjectKey::cluster("n1"), |node| {
            let taint = Taint {
                time_added: Some(now.to_meta()),
                ..wharf_model::taints::taint(key, NO_EXECUTE)
            };
            node.spec.get_or_insert_default().taints = Some(vec![taint]);
        });
        world.run_for(Duration::from_secs(1));
        assert_eq!(leaving(&world), ["at-once"]);
        assert_eq!(world.messages(), ["Marking for deletion Pod default/at-once"]);
        world.run_for(Duration::from_secs(290));
        world.restart(vec![Box::new(TaintEviction::default())]);
        world.run_for(Duration::from_secs(1));
        assert_eq!(leaving(&world), ["at-once"]);
        world.run_for(Duration::from_secs(10));
        assert_eq!(leaving(&world), ["at-once", "five-minutes"]);
        world.run_for(Duration::from_secs(3_600));
        assert_eq!(leaving(&world), ["at-once", "five-minutes"]);
    }
}
