//! Small clusters for this crate's tests.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::cycle::evaluate;
use crate::pod::PodInfo;
use crate::profile::{Plugin, Profile};
use crate::snapshot::Snapshot;

pub(crate) fn node(name: &str, metadata: Value, spec: Value) -> Node {
    let mut node = json!({
        "metadata": metadata,
        "spec": spec,
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}}
    });
    node["metadata"]["name"] = json!(name);
    serde_json::from_value(node).unwrap()
}

pub(crate) fn sized(name: &str, allocatable: Value) -> Node {
    let node = json!({"metadata": {"name": name}, "status": {"allocatable": allocatable}});
    serde_json::from_value(node).unwrap()
}

pub(crate) fn pod(name: &str, requests: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}
    }))
    .unwrap()
}

pub(crate) fn cluster(nodes: &[Node], pods: &[Pod], pod: &Pod) -> (Snapshot, Arc<PodInfo>) {
    let mut snapshot = Snapshot::new();
    for node in nodes {
        snapshot.set_node(node);
    }
    for pod in pods {
        let info = snapshot.compile(pod);
        let node = info.node_name.clone();
        snapshot.place(info, &node);
    }
    let pod = snapshot.compile(pod);
    (snapshot, pod)
}

/// The nodes that refuse the pod with their reasons; `None` in place of a name when the pod is
/// refused as a whole.
pub(crate) fn refusals<'n>(
    nodes: &'n [Node],
    pods: &[Pod],
    pod: &Pod,
) -> Vec<(Option<&'n str>, Vec<String>)> {
    let (snapshot, pod) = cluster(nodes, pods, pod);
    let evaluation = evaluate(&snapshot, &pod, &Profile::default());
    if let Some(rejection) = evaluation.prefilter {
        return vec![(None, vec![rejection.message.to_string()])];
    }
    let named = |name: &str| {
        nodes.iter().filter_map(|node| node.metadata.name.as_deref()).find(|known| *known == name)
    };
    evaluation
        .nodes
        .iter()
        .filter_map(|(node, refused)| {
            let reasons = (*refused)?.reasons(&pod).iter().map(ToString::to_string).collect();
            Some((named(&snapshot.node(*node).facts.name), reasons))
        })
        .collect()
}

/// One plugin's weighted scores of the feasible nodes; 0 where it has nothing to say.
pub(crate) fn scores(nodes: &[Node], pods: &[Pod], pod: &Pod, plugin: Plugin) -> Vec<i64> {
    evaluate_with(nodes, pods, pod, &Profile::default(), plugin)
}

pub(crate) fn evaluate_with(
    nodes: &[Node],
    pods: &[Pod],
    pod: &Pod,
    profile: &Profile,
    plugin: Plugin,
) -> Vec<i64> {
    let (snapshot, pod) = cluster(nodes, pods, pod);
    evaluate_in(&snapshot, &pod, profile, plugin)
}

/// The same in a cluster that is there.
pub(crate) fn evaluate_in(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    plugin: Plugin,
) -> Vec<i64> {
    evaluate(snapshot, pod, profile)
        .candidates
        .iter()
        .map(|candidate| {
            let score = candidate.scores.iter().find(|(known, _)| *known == plugin);
            score.map_or(0, |(_, score)| *score)
        })
        .collect()
}
