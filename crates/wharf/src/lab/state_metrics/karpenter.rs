//! Karpenter's metrics, under its own names: gauges from the objects as they are, and counters of
//! what has happened since the start of the program.
//! <https://karpenter.sh/docs/reference/metrics/>

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use wharf_model::karpenter::conditions::{self, node_claim};
use wharf_model::karpenter::{NodeClaim, NodePool};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::Object;
use wharf_model::pod::{condition, is_terminal, phase};
use wharf_model::quantity::Quantity;
use wharf_model::resources::{CPU, Resources, pod_limits, pod_requests};
use wharf_ports::cluster::Change;

use super::{Described, Families, Labels, amount, flag, gauge};

/// What Karpenter has done since the start of the program.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<Counted, u64>>);

/// A counter: its family and the values of the family's labels.
type Counted = (&'static str, Vec<(&'static str, String)>);

const CLAIMS_CREATED: &str = "karpenter_nodeclaims_created_total";
const CLAIMS_TERMINATED: &str = "karpenter_nodeclaims_terminated_total";
const CLAIMS_DISRUPTED: &str = "karpenter_nodeclaims_disrupted_total";
const NODES_CREATED: &str = "karpenter_nodes_created_total";
const NODES_TERMINATED: &str = "karpenter_nodes_terminated_total";
/// Why a NodeClaim is made: for pods that wait. Replacements are not told apart here.
const PROVISIONED: &str = "provisioned";

impl Counters {
    /// Takes in a change of the cluster.
    pub(crate) fn observe(&self, change: &Change) {
        let Some(object) = change.new.as_ref().or(change.old.as_ref()) else { return };
        let label = |key: &str| object.header().label(key).unwrap_or_default().to_owned();
        let pool = ("nodepool", label(labels::NODEPOOL));
        if change.kind() == Kind::of::<NodeClaim>() {
            let capacity = ("capacity_type", label(labels::CAPACITY_TYPE));
            match (&change.old, &change.new) {
                (None, Some(_)) => {
                    self.count(CLAIMS_CREATED, vec![pool, ("reason", PROVISIONED.to_owned())]);
                }
                (Some(_), None) => {
                    let zone = ("zone", label(labels::TOPOLOGY_ZONE));
                    self.count(CLAIMS_TERMINATED, vec![pool, capacity, zone]);
                }
                (Some(old), Some(new)) => {
                    if let (None, Some(reason)) = (disrupted(old), disrupted(new)) {
                        self.count(CLAIMS_DISRUPTED, vec![pool, capacity, ("reason", reason)]);
                    }
                }
                (None, None) => {}
            }
        } else if change.kind() == Kind::of::<Node>() && !pool.1.is_empty() {
            let zone = ("zone", label(labels::TOPOLOGY_ZONE));
            match (&change.old, &change.new) {
                (None, Some(_)) => self.count(NODES_CREATED, vec![pool, zone]),
                (Some(_), None) => self.count(NODES_TERMINATED, vec![pool, zone]),
                _ => {}
            }
        }
    }

    fn count(&self, family: &'static str, labels: Vec<(&'static str, String)>) {
        *self.0.lock().entry((family, labels)).or_default() += 1;
    }

    pub(super) fn rows(&self, out: &mut Families) {
        for ((family, labels), count) in &*self.0.lock() {
            let help = match *family {
                CLAIMS_CREATED => "Number of nodeclaims created in total by Karpenter.",
                CLAIMS_TERMINATED => "Number of nodeclaims terminated in total by Karpenter.",
                CLAIMS_DISRUPTED => "Number of nodeclaims disrupted in total by Karpenter.",
                NODES_CREATED => "Number of nodes created in total by Karpenter.",
                _ => "Number of nodes terminated in total by Karpenter.",
            };
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            out.row(family, Described { kind: "counter", help }, &[&labels], *count as f64);
        }
    }
}

/// Why a NodeClaim is being disrupted, if it is.
fn disrupted(object: &Object) -> Option<String> {
    let claim = object.typed::<NodeClaim>()?;
    let found = conditions::get(&claim.status.conditions, node_claim::DISRUPTION_REASON)?;
    (found.status == conditions::TRUE).then(|| found.reason.to_lowercase())
}

/// What pods ask of each node.
#[derive(Default)]
pub(super) struct Asked(BTreeMap<String, [Resources; 4]>);

/// Families of what is asked of nodes, as the sums are kept.
const ASKED: [(&str, &str); 4] = [
    (
        "karpenter_nodes_total_pod_requests",
        "Node total pod requests are the resources requested by pods bound to nodes, including the DaemonSet pods.",
    ),
    (
        "karpenter_nodes_total_pod_limits",
        "Node total pod limits are the resources specified by pod limits, including the DaemonSet pods.",
    ),
    (
        "karpenter_nodes_total_daemon_requests",
        "Node total daemon requests are the resource requested by DaemonSet pods bound to nodes.",
    ),
    (
        "karpenter_nodes_total_daemon_limits",
        "Node total daemon limits are the resources specified by DaemonSet pod limits.",
    ),
];

impl Asked {
    /// Adds a pod, if it is on a node.
    pub(super) fn add(&mut self, pod: &Pod) {
        let Some(spec) = pod.spec.as_ref().filter(|_| !is_terminal(pod)) else { return };
        let Some(node) = &spec.node_name else { return };
        let sums = self.0.entry(node.clone()).or_default();
        let amounts = [pod_requests(spec), pod_limits(spec)];
        let owners = pod.metadata.owner_references.iter().flatten();
        let is_daemon = owners.into_iter().any(|owner| owner.kind == "DaemonSet");
        for (sum, amount) in
            sums.iter_mut().zip(amounts.iter().chain(&amounts)).take(if is_daemon { 4 } else { 2 })
        {
            sum.add(amount);
        }
    }
}

/// An amount as metrics have it: cores, bytes, pieces.
fn shown(resource: &str, amount: i64) -> f64 {
    if resource == CPU { amount as f64 / 1e3 } else { amount as f64 }
}

/// A label's key as the name of a metric's label: `karpenter.k8s.aws/instance-cpu` is
/// `instance_cpu`.
fn snake(key: &str) -> String {
    let name = key.rsplit('/').next().unwrap_or(key);
    name.replace(['-', '.'], "_")
}

pub(super) fn node(node: &Node, asked: &Asked, out: &mut Families) {
    let name = node.metadata.name.clone().unwrap_or_default();
    let own = node.metadata.labels.clone().unwrap_or_default();
    let label = |key: &str| own.get(key).cloned().unwrap_or_default();
    let pool = label(labels::NODEPOOL);
    let mut named = vec![
        ("node_name".to_owned(), name.clone()),
        ("nodepool".to_owned(), pool.clone()),
        ("managed".to_owned(), (!pool.is_empty()).to_string()),
        ("arch".to_owned(), label(labels::ARCH)),
        ("os".to_owned(), label(labels::OS)),
        ("zone".to_owned(), label(labels::TOPOLOGY_ZONE)),
        ("region".to_owned(), label(labels::TOPOLOGY_REGION)),
        ("instance_type".to_owned(), label(labels::INSTANCE_TYPE)),
        ("capacity_type".to_owned(), label(labels::CAPACITY_TYPE)),
    ];
    let of_class = own.iter().filter(|(key, _)| key.starts_with("karpenter.k8s.aws/instance-"));
    named.extend(of_class.map(|(key, value)| (snake(key), value.clone())));
    let named: Vec<(&str, &str)> =
        named.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut row = |family, help, resource: &str, value: f64| {
        let resource = snake(resource);
        out.row(family, gauge(help), &[&named, &[("resource_type", &resource)]], value);
    };
    let status = node.status.clone().unwrap_or_default();
    let allocatable = status.allocatable.unwrap_or_default();
    for (resource, quantity) in &allocatable {
        let help = "Node allocatable are the resources allocatable by nodes.";
        row("karpenter_nodes_allocatable", help, resource, amount(quantity));
    }
    for (resource, quantity) in status.capacity.iter().flatten() {
        let help = "Node system daemon overhead are the resources reserved for system overhead, the difference between the node's capacity and allocatable values are reported by the status.";
        let left = allocatable.get(resource).map_or(0.0, amount);
        row("karpenter_nodes_system_overhead", help, resource, amount(quantity) - left);
    }
    let none = Default::default();
    let sums = asked.0.get(&name).unwrap_or(&none);
    for ((family, help), sum) in ASKED.iter().zip(sums) {
        // What nobody asks for is shown as nothing, so that a sum over nodes has all of them.
        for resource in ["cpu", "memory"] {
            row(family, help, resource, shown(resource, sum.get(resource)));
        }
        let others = sum.iter().filter(|(name, _)| !matches!(*name, "cpu" | "memory"));
        for (resource, amount) in others {
            row(family, help, resource, shown(resource, amount));
        }
    }
}

pub(super) fn pool(pool: &NodePool, out: &mut Families) {
    let name = pool.metadata.name.clone().unwrap_or_default();
    let mut row = |family, help, resource: &str, value: f64| {
        let resource = snake(resource);
        let labels: &Labels<'_> = &[("nodepool", &name), ("resource_type", &resource)];
        out.row(family, gauge(help), &[labels], value);
    };
    for (resource, quantity) in &pool.status.resources {
        let help = "The amount of resources that have been provisioned for a nodepool. Labeled by nodepool name and resource type.";
        row("karpenter_nodepools_usage", help, resource, amount(quantity));
    }
    for (resource, limit) in &pool.spec.limits {
        let help = "Limits specified on the nodepool that restrict the quantity of resources provisioned. Labeled by nodepool name and resource type.";
        let limit = Quantity::try_from(limit).map_or(0.0, |limit| limit.as_f64());
        row("karpenter_nodepools_limit", help, resource, limit);
    }
}

/// A pod with the node that it is on, if that is there.
pub(super) fn pod(pod: &Pod, node: Option<&Node>, out: &mut Families) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
    let of_node = node.and_then(|node| node.metadata.labels.as_ref());
    let label =
        |key: &str| of_node.and_then(|own| own.get(key)).map(String::as_str).unwrap_or_default();
    let owner = pod.metadata.owner_references.iter().flatten().next();
    let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let is = |type_: &str| condition(pod, type_).is_some_and(|found| found.status == "True");
    let words = |is_so: bool| if is_so { "true" } else { "false" };
    let labels: &Labels<'_> = &[
        ("namespace", &namespace),
        ("name", &name),
        ("owner", owner.map_or("", |owner| &owner.name)),
        ("node", node_name.unwrap_or_default()),
        ("nodepool", label(labels::NODEPOOL)),
        ("zone", label(labels::TOPOLOGY_ZONE)),
        ("arch", label(labels::ARCH)),
        ("capacity_type", label(labels::CAPACITY_TYPE)),
        ("instance_type", label(labels::INSTANCE_TYPE)),
        ("phase", phase(pod)),
        ("scheduled", words(is("PodScheduled"))),
        ("ready", words(is("Ready"))),
        ("managed", words(!label(labels::NODEPOOL).is_empty())),
    ];
    let help = "Pod state is the current state of pods.";
    out.row("karpenter_pods_state", gauge(help), &[labels], 1.0);
}

/// What is said of the cluster as a whole.
pub(super) fn cluster(nodes: usize, out: &mut Families) {
    let help =
        "A metric with a constant '1' value labeled by version from which karpenter was built.";
    let version: &Labels<'_> = &[("version", env!("CARGO_PKG_VERSION"))];
    out.row("karpenter_build_info", gauge(help), &[version], 1.0);
    let help = "Current count of nodes in cluster state.";
    out.row("karpenter_cluster_state_node_count", gauge(help), &[], nodes as f64);
    let help = "Returns 1 if cluster state is synced and 0 otherwise. Synced checks that nodeclaims and nodes that are stored in the APIServer have the same representation as Karpenter's cluster state.";
    out.row("karpenter_cluster_state_synced", gauge(help), &[], flag(true));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn pod_on(node: &str, owner: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "default",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": owner, "name": "o", "uid": "u"}]},
            "spec": {"nodeName": node, "containers": [{"name": "c",
                "resources": {"requests": {"cpu": "200m", "memory": "1Ki"}, "limits": {"cpu": "1"}}}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        }))
        .expect("a pod")
    }

    #[test]
    fn nodes_and_pools_have_karpenters_names() {
        let n: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"karpenter.sh/nodepool": "default",
                "karpenter.k8s.aws/instance-cpu": "2", "kubernetes.io/arch": "amd64"}},
            "status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "1930m"}},
        }))
        .expect("a node");
        let p: NodePool = serde_json::from_value(json!({
            "metadata": {"name": "default"},
            "spec": {"template": {"spec": {}}, "limits": {"cpu": 1000}},
            "status": {"resources": {"cpu": "2"}},
        }))
        .expect("a pool");
        let mut asked = Asked::default();
        asked.add(&pod_on("n", "ReplicaSet"));
        asked.add(&pod_on("n", "DaemonSet"));
        let mut out = Families::default();
        node(&n, &asked, &mut out);
        pool(&p, &mut out);
        pod(&pod_on("n", "ReplicaSet"), Some(&n), &mut out);
        let text = out.text();
        let of_node = "node_name=\"n\",nodepool=\"default\",managed=\"true\",arch=\"amd64\",os=\"\",zone=\"\",region=\"\",instance_type=\"\",capacity_type=\"\",instance_cpu=\"2\"";
        for line in [
            format!("karpenter_nodes_allocatable{{{of_node},resource_type=\"cpu\"}} 1.93"),
            format!("karpenter_nodes_total_pod_requests{{{of_node},resource_type=\"cpu\"}} 0.4"),
            format!("karpenter_nodes_total_daemon_requests{{{of_node},resource_type=\"cpu\"}} 0.2"),
            format!("karpenter_nodes_total_pod_limits{{{of_node},resource_type=\"memory\"}} 0"),
            "karpenter_nodepools_limit{nodepool=\"default\",resource_type=\"cpu\"} 1000".to_owned(),
            "karpenter_nodepools_usage{nodepool=\"default\",resource_type=\"cpu\"} 2".to_owned(),
            "karpenter_pods_state{namespace=\"default\",name=\"a\",owner=\"o\",node=\"n\",nodepool=\"default\",zone=\"\",arch=\"amd64\",capacity_type=\"\",instance_type=\"\",phase=\"Running\",scheduled=\"false\",ready=\"true\",managed=\"true\"} 1".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn what_happens_to_nodeclaims_is_counted() {
        let claim = |reason: Option<&str>| {
            let conditions = match reason {
                Some(reason) => {
                    json!([{"type": "DisruptionReason", "status": "True", "reason": reason,
                    "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}])
                }
                None => json!([]),
            };
            let claim: NodeClaim = serde_json::from_value(json!({
                "metadata": {"name": "c", "labels": {"karpenter.sh/nodepool": "default",
                    "karpenter.sh/capacity-type": "spot"}},
                "spec": {}, "status": {"conditions": conditions},
            }))
            .expect("a claim");
            Arc::new(Object::from_typed(Box::new(claim), 1))
        };
        let counters = Counters::default();
        let (new, going) = (claim(None), claim(Some("Underutilized")));
        for (old, new) in [
            (None, Some(&new)),
            (Some(&new), Some(&going)),
            (Some(&going), Some(&going)),
            (Some(&going), None),
        ] {
            counters.observe(&Change { revision: 1, old: old.cloned(), new: new.cloned() });
        }
        let mut out = Families::default();
        counters.rows(&mut out);
        let text = out.text();
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            values,
            [
                "karpenter_nodeclaims_created_total{nodepool=\"default\",reason=\"provisioned\"} 1",
                "karpenter_nodeclaims_disrupted_total{nodepool=\"default\",capacity_type=\"spot\",reason=\"underutilized\"} 1",
                "karpenter_nodeclaims_terminated_total{nodepool=\"default\",capacity_type=\"spot\",zone=\"\"} 1",
            ]
        );
    }
}
