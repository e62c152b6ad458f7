//! Which pods a ReplicaSet gives up first, by upstream's order
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-down-a-replicaset>).

use std::cmp::{Ordering, Reverse};

use k8s_openapi::api::core::v1::Pod;
use wharf_model::labels;
use wharf_model::pod::{phase, ready_since};
use wharf_model::time::Time;

/// A pod with what its rank depends on.
pub(in crate::workloads) struct Candidate<'p> {
    pub(in crate::workloads) pod: &'p Pod,
    /// How many active pods of the same Deployment are on its node.
    pub(in crate::workloads) together: usize,
}

/// Orders pods by how well they can be spared, best first.
pub(in crate::workloads) fn compare(
    left: &Candidate<'_>,
    right: &Candidate<'_>,
    now: Time,
) -> Ordering {
    let first = |candidate: &Candidate<'_>| {
        let pod = candidate.pod;
        let phase = match phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let ready = ready_since(pod);
        (is_assigned(pod), phase, ready.is_some(), deletion_cost(pod), Reverse(candidate.together))
    };
    let ready = |candidate: &Candidate<'_>| ready_since(candidate.pod).map(|at| age_class(at, now));
    let created = |candidate: &Candidate<'_>| {
        let created = candidate.pod.metadata.creation_timestamp.as_ref();
        created.map(|at| age_class(Time::from(at), now))
    };
    let uid = |candidate: &Candidate<'_>| candidate.pod.metadata.uid.clone();
    first(left)
        .cmp(&first(right))
        // Ages count by order of magnitude only, so that which of many pods goes is spread out.
        .then_with(|| ready(left).cmp(&ready(right)))
        .then_with(|| Reverse(restarts(left.pod)).cmp(&Reverse(restarts(right.pod))))
        .then_with(|| created(left).cmp(&created(right)))
        .then_with(|| uid(left).cmp(&uid(right)))
}

/// The binary logarithm of an age in seconds: younger pods go first.
fn age_class(at: Time, now: Time) -> u32 {
    now.since(at).as_secs().checked_ilog2().map_or(0, |log| log + 1)
}

fn is_assigned(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|node| !node.is_empty())
}

fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod.metadata.annotations.as_ref().and_then(|all| all.get(labels::POD_DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, change: &[(&str, Value)]) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "1970-01-01T00:10:00Z"},
            "spec": {"containers": [], "nodeName": "n"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:10:10Z"}]}
        });
        for (pointer, value) in change {
            *pod.pointer_mut(pointer).expect("the field is there") = value.clone();
        }
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn each_rule_decides_before_the_next() {
        // From the most to the least dispensable.
        let cost = json!({"name": "d", "uid": "d", "creationTimestamp": "1970-01-01T00:10:00Z",
            "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}});
        let pods = [
            (pod("a", &[("/spec/nodeName", Value::Null), ("/status/phase", json!("Pending"))]), 1),
            (pod("b", &[("/status/phase", json!("Pending"))]), 1),
            (pod("c", &[("/status/conditions/0/status", json!("False"))]), 1),
            (pod("d", &[("/metadata", cost)]), 1),
            (pod("e", &[]), 3),
            (
                pod(
                    "f",
                    &[("/status/conditions/0/lastTransitionTime", json!("1970-01-01T00:16:00Z"))],
                ),
                2,
            ),
            (pod("g", &[]), 2),
            (pod("h", &[]), 2),
        ];
        let mut candidates: Vec<_> = pods
            .iter()
            .rev()
            .map(|(pod, together)| Candidate { pod, together: *together })
            .collect();
        candidates.sort_by(|a, b| compare(a, b, Time::from_seconds(1_000)));
        let names: Vec<_> =
            candidates.iter().filter_map(|c| c.pod.metadata.name.as_deref()).collect();
        assert_eq!(names, ["a", "b", "c", "d", "e", "f", "g", "h"]);
    }
}
