//! Nodes.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use serde_json::{Value, json};
use wharf_model::time::Time;

use super::{Column, age, or_none};

pub(super) const COLUMNS: &[Column] = &[
    Column::text("Name"),
    Column::text("Status"),
    Column::text("Roles"),
    Column::text("Age"),
    Column::text("Version"),
    Column::text("Internal-IP").wide(),
    Column::text("External-IP").wide(),
    Column::text("OS-Image").wide(),
    Column::text("Kernel-Version").wide(),
    Column::text("Container-Runtime").wide(),
];

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub(super) fn cells(node: &Node, now: Time) -> Vec<Value> {
    let no_status = NodeStatus::default();
    let status = node.status.as_ref().unwrap_or(&no_status);
    let info = status.node_info.as_ref();
    let or_unknown = |text: Option<&String>| {
        json!(text.map(String::as_str).filter(|text| !text.is_empty()).unwrap_or("<unknown>"))
    };
    vec![
        json!(node.metadata.name),
        json!(state(node, status)),
        or_none(Some(&roles(node))),
        json!(age(node.metadata.creation_timestamp.as_ref(), now)),
        json!(info.map(|info| info.kubelet_version.as_str()).unwrap_or_default()),
        or_none(address(status, "InternalIP")),
        or_none(address(status, "ExternalIP")),
        or_unknown(info.map(|info| &info.os_image)),
        or_unknown(info.map(|info| &info.kernel_version)),
        or_unknown(info.map(|info| &info.container_runtime_version)),
    ]
}

/// `Ready`, `NotReady` or `Unknown`, and `SchedulingDisabled` for a cordoned node.
fn state(node: &Node, status: &NodeStatus) -> String {
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let mut text = match ready {
        Some(condition) if condition.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(node: &Node) -> String {
    let roles: BTreeSet<&str> = node
        .metadata
        .labels
        .iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == ROLE_LABEL => Some(value.as_str()),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address<'a>(status: &'a NodeStatus, kind: &str) -> Option<&'a str> {
    let addresses = status.addresses.iter().flatten();
    addresses.into_iter().find(|address| address.type_ == kind).map(|found| found.address.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    #[test]
    fn nodes_print_as_upstreams() {
        let mut node = json!({
            "metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
                "addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.0.0.9"}],
                "nodeInfo": {"kubeletVersion": "v1.33.0-eks", "osImage": "Amazon Linux 2023", "kernelVersion": "6.1", "containerRuntimeVersion": "containerd://2.0",
                    "architecture": "", "bootID": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "systemUUID": ""},
            },
        });
        assert_eq!(
            printed("Node", node.clone()),
            "n|Ready|<none>|24h|v1.33.0-eks || 10.0.0.9|<none>|Amazon Linux 2023|6.1|containerd://2.0"
        );
        node["spec"] = json!({"unschedulable": true});
        node["metadata"]["labels"] =
            json!({"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"});
        node["status"]["conditions"][1]["status"] = json!("Unknown");
        assert!(
            printed("Node", node).starts_with("n|NotReady,SchedulingDisabled|edge,worker|24h|")
        );
        assert_eq!(
            printed("Node", json!({"metadata": {"name": "n"}})),
            "n|Unknown|<none>|<unknown>| || <none>|<none>|<unknown>|<unknown>|<unknown>"
        );
    }
}
