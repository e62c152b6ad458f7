//! Nothing is ever overcommitted, and every refusal adds up, whatever the cluster.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use serde_json::json;
use wharf_scheduler::{Decision, Profile, Rotation, Snapshot, schedule};

fn node(index: usize, (cpu, memory, pods, tainted): (u32, u32, u32, bool)) -> Node {
    let taints = if tainted { json!([{"key": "k", "effect": "NoSchedule"}]) } else { json!([]) };
    serde_json::from_value(json!({
        "metadata": {"name": format!("n{index}")},
        "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi"), "pods": pods.to_string(), "example.com/gpu": (cpu % 3).to_string()}}
    }))
    .unwrap()
}

fn pod(index: usize, (cpu, memory, gpu, port, tolerant): (u32, u32, u32, u16, bool)) -> Pod {
    let tolerations = if tolerant { json!([{"operator": "Exists"}]) } else { json!([]) };
    let mut requests = json!({"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")});
    if gpu > 0 {
        requests["example.com/gpu"] = json!(gpu.to_string());
    }
    let ports =
        if port < 3 { json!([{"containerPort": 1, "hostPort": port + 1}]) } else { json!([]) };
    serde_json::from_value(json!({
        "metadata": {"name": format!("p{index}"), "namespace": "default"},
        "spec": {
            "tolerations": tolerations,
            "containers": [{"name": "c", "ports": ports, "resources": {"requests": requests}}]
        }
    }))
    .unwrap()
}

proptest! {
    #[test]
    fn every_binding_fits_and_every_refusal_adds_up(
        nodes in prop::collection::vec((0..4000u32, 0..8000u32, 0..6u32, prop::bool::weighted(0.2)), 0..12),
        pods in prop::collection::vec((0..1500u32, 0..3000u32, 0..3u32, 0..9u16, any::<bool>()), 0..40),
    ) {
        let mut snapshot = Snapshot::new();
        for (index, shape) in nodes.iter().enumerate() {
            snapshot.set_node(&node(index, *shape));
        }
        let mut rotation = Rotation::default();
        for (index, shape) in pods.iter().enumerate() {
            let info = snapshot.compile(&pod(index, *shape));
            match schedule(&snapshot, &info, &Profile::default(), &mut rotation) {
                Decision::Bind(placement) => {
                    let name = snapshot.node(placement.node).facts.name.clone();
                    snapshot.place(info, &name);
                }
                Decision::Unschedulable(answer) => {
                    let diagnosis = &answer.diagnosis;
                    prop_assert_eq!(diagnosis.rejected.len(), nodes.len());
                    let told: usize = diagnosis.reasons(&info).values().sum();
                    prop_assert!(told >= nodes.len(), "every node gives a reason");
                    let groups = diagnosis.explain(&info, &snapshot);
                    prop_assert_eq!(groups.iter().map(|group| group.nodes).sum::<usize>(), nodes.len());
                }
            }
        }
        for index in snapshot.nodes() {
            let node = snapshot.node(*index);
            let mut free = node.facts.allocatable.clone();
            for pod in &node.pods {
                free.subtract(&pod.amounts.requests);
                let tolerated = node.facts.taints.iter().all(|taint| pod.tolerates(taint));
                prop_assert!(tolerated, "{} on {}", pod.key, node.facts.name);
            }
            prop_assert!(!free.is_negative(), "{} is overcommitted: {free:?}", node.facts.name);
            let mut ports: Vec<_> = node.ports.iter().map(|port| port.port).collect();
            let count = ports.len();
            ports.sort_unstable();
            ports.dedup();
            prop_assert_eq!(ports.len(), count, "a host port is taken twice");
        }
    }
}
