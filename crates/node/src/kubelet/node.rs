//! The Node object as a kubelet on EKS writes it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use wharf_model::instance::Instance;
use wharf_model::labels;
use wharf_model::random::{Random, fnv1a};
use wharf_model::taints;
use wharf_model::time::Time;

/// The version that simulated kubelets report.
pub(super) const KUBELET_VERSION: &str = "v1.36.0-eks-a1b2c3d";
const CONTAINER_RUNTIME: &str = "containerd://2.1.5";
const KERNEL: &str = "6.12.55-74.119.amzn2023.x86_64";
const MICRO_VM_CONTAINER_RUNTIME: &str = "containerd://1.7.25";
const MICRO_VM_KERNEL: &str = "5.10.234-225.910.amzn2.x86_64";
const MICRO_VM_OS_IMAGE: &str = "Amazon Linux 2";
const OS_IMAGE: &str = "Amazon Linux 2023.9.20251117";
/// What Auto Mode's machines run: a Bottlerocket of AWS' own, one with NVIDIA's drivers.
const AUTO_OS_IMAGE: &str = "Bottlerocket (EKS Auto, Standard) 2026.8.11 (aws-k8s-1.36-standard)";
const AUTO_NVIDIA_OS_IMAGE: &str =
    "Bottlerocket (EKS Auto, Nvidia) 2026.8.11 (aws-k8s-1.36-nvidia)";
const AUTO_CONTAINER_RUNTIME: &str = "containerd://2.1.5+bottlerocket";
const AUTO_KERNEL: &str = "6.12.55";

/// `aws:///us-east-1a/i-0123456789abcdef0`; that of a micro-VM ends in the node's name.
pub(super) fn provider_id(instance: &Instance) -> String {
    let id = instance.metadata.name.as_deref().unwrap_or_default();
    match &instance.spec.micro_vm {
        Some(_) => wharf_fargate::node::provider_id(
            &instance.spec.zone,
            id,
            &instance.spec.private_dns_name,
        ),
        None => format!("aws:///{}/{id}", instance.spec.zone),
    }
}

/// The Node as it is when the kubelet registers it: not yet ready.
pub(super) fn registration(instance: &Instance, now: Time) -> Node {
    let spec = &instance.spec;
    if instance.spec.micro_vm.is_some() {
        return micro_vm_registration(instance, now);
    }
    let arch = architecture(instance);
    let mut labels: BTreeMap<String, String> = [
        (labels::ARCH_BETA, arch),
        (labels::INSTANCE_TYPE_BETA, spec.instance_type.as_str()),
        (labels::OS_BETA, "linux"),
        (labels::ARCH, arch),
        (labels::HOSTNAME, spec.private_dns_name.as_str()),
        (labels::OS, "linux"),
        (labels::INSTANCE_TYPE, spec.instance_type.as_str()),
        (labels::TOPOLOGY_REGION, spec.region.as_str()),
        (labels::TOPOLOGY_ZONE, spec.zone.as_str()),
        (labels::TOPOLOGY_ZONE_ID, spec.zone_id.as_str()),
        // The EBS driver's, which its node plugin adds a little later.
        (super::csi::driver_of(instance).zone, spec.zone.as_str()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    let cluster = Random::new(0, fnv1a(spec.region.as_bytes())).hex(32);
    labels.insert("k8s.io/cloud-provider-aws".to_owned(), cluster);
    labels.extend(spec.kubelet.labels.clone());

    let mut node_taints = vec![taints::taint(labels::TAINT_NOT_READY, "NoSchedule")];
    for taint in &spec.kubelet.taints {
        if !node_taints.iter().any(|there| taints::same_taint(there, taint)) {
            node_taints.push(taint.clone());
        }
    }
    let address = ("alpha.kubernetes.io/provided-node-ip", spec.private_ip.as_str());
    registered(instance, labels, node_taints, &[address], now)
}

/// The Node of a micro-VM: only what Fargate gives to it.
fn micro_vm_registration(instance: &Instance, now: Time) -> Node {
    let kubelet = &instance.spec.kubelet;
    let mut node_taints = vec![taints::taint(labels::TAINT_NOT_READY, "NoSchedule")];
    node_taints.extend(kubelet.taints.clone());
    registered(instance, kubelet.labels.clone(), node_taints, &[], now)
}

/// A Node as its kubelet registers it, with annotations of its own beside those that all have.
fn registered(
    instance: &Instance,
    labels: BTreeMap<String, String>,
    node_taints: Vec<Taint>,
    annotations: &[(&str, &str)],
    now: Time,
) -> Node {
    let common = [
        ("node.alpha.kubernetes.io/ttl", "0"),
        ("volumes.kubernetes.io/controller-managed-attach-detach", "true"),
    ];
    let annotations = annotations.iter().chain(&common);
    let annotations = annotations.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let mut node = Node {
        spec: Some(NodeSpec {
            provider_id: Some(provider_id(instance)),
            taints: Some(node_taints),
            ..NodeSpec::default()
        }),
        status: Some(status(instance, false, now)),
        ..Node::default()
    };
    node.metadata.name = Some(instance.spec.private_dns_name.clone());
    node.metadata.labels = Some(labels);
    node.metadata.annotations = Some(annotations.collect());
    node
}

/// The Node with a fresh status report.
pub(super) fn status_report(node: &Node, instance: &Instance, ready: bool, now: Time) -> Node {
    let mut node = node.clone();
    node.metadata.resource_version = None;
    let old = node.status.take().unwrap_or_default();
    let mut new = status(instance, ready, now);
    let conditions = new.conditions.get_or_insert_default();
    for condition in &mut *conditions {
        let before = old.conditions.iter().flatten().find(|c| c.type_ == condition.type_);
        if let Some(before) = before.filter(|before| before.type_ == "MemoryPressure") {
            // Whether there is any is found out where pods are run.
            condition.status.clone_from(&before.status);
            condition.reason.clone_from(&before.reason);
            condition.message.clone_from(&before.message);
        }
        if let Some(before) = before.filter(|before| before.status == condition.status) {
            condition.last_transition_time.clone_from(&before.last_transition_time);
        }
    }
    // Conditions of others (node-problem-detector, eks-node-monitoring-agent) stay.
    let others = old.conditions.into_iter().flatten();
    let own: Vec<String> = conditions.iter().map(|c| c.type_.clone()).collect();
    let others: Vec<_> = others.filter(|condition| !own.contains(&condition.type_)).collect();
    conditions.splice(0..0, others);
    new.images = old.images;
    new.volumes_attached = old.volumes_attached;
    new.volumes_in_use = old.volumes_in_use;
    node.status = Some(new);
    node
}

/// Whether the kubelet has already said that the node is ready.
pub(super) fn reported_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "True")
}

/// When the kubelet last reported.
pub(super) fn heartbeat(node: &Node) -> Option<Time> {
    condition(node, "Ready")?.last_heartbeat_time.as_ref().map(Time::from)
}

/// A reference to the node as an owner, as kubelets put it on their leases.
pub(super) fn owner_reference(name: String, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name,
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

fn condition<'n>(node: &'n Node, type_: &str) -> Option<&'n NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

fn status(instance: &Instance, ready: bool, now: Time) -> NodeStatus {
    let spec = &instance.spec;
    let address = |type_: &str, address: &str| NodeAddress {
        type_: type_.to_owned(),
        address: address.to_owned(),
    };
    let host = spec.micro_vm.as_ref().map_or(&spec.private_dns_name, |vm| &vm.host_name);
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", &spec.private_ip),
            address("InternalDNS", host),
            address("Hostname", host),
        ]),
        allocatable: Some(quantities(&spec.kubelet.allocatable)),
        capacity: Some(quantities(&spec.kubelet.capacity)),
        conditions: Some(conditions(ready, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: 10_250 }),
        }),
        node_info: Some(system_info(instance)),
        ..NodeStatus::default()
    }
}

fn quantities(amounts: &BTreeMap<String, String>) -> BTreeMap<String, Quantity> {
    amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.clone()))).collect()
}

fn conditions(ready: bool, now: Time) -> Vec<NodeCondition> {
    let condition = |type_: &str, status: &str, reason: &str, message: &str| NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(now.to_meta()),
        last_transition_time: Some(now.to_meta()),
    };
    vec![
        condition(
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        condition(
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        condition(
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        if ready {
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status")
        } else {
            condition(
                "Ready",
                "False",
                "KubeletNotReady",
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized",
            )
        },
    ]
}

fn system_info(instance: &Instance) -> NodeSystemInfo {
    let id = instance.metadata.name.as_deref().unwrap_or_default();
    let mut random = Random::for_purpose(0, id);
    let arch = architecture(instance);
    let system_uuid = format!("ec2{}", &random.uuid()[3..]);
    if instance.spec.micro_vm.is_some() {
        return NodeSystemInfo {
            architecture: arch.to_owned(),
            boot_id: random.uuid(),
            container_runtime_version: MICRO_VM_CONTAINER_RUNTIME.to_owned(),
            kernel_version: MICRO_VM_KERNEL.to_owned(),
            kubelet_version: KUBELET_VERSION.to_owned(),
            machine_id: system_uuid.replace('-', ""),
            operating_system: "linux".to_owned(),
            os_image: MICRO_VM_OS_IMAGE.to_owned(),
            system_uuid,
            ..NodeSystemInfo::default()
        };
    }
    if instance.spec.managed {
        let maker = instance.spec.kubelet.labels.get(labels::eks::INSTANCE_GPU_MANUFACTURER);
        let is_nvidia = maker.is_some_and(|maker| maker == "nvidia");
        return NodeSystemInfo {
            architecture: arch.to_owned(),
            boot_id: random.uuid(),
            container_runtime_version: AUTO_CONTAINER_RUNTIME.to_owned(),
            kernel_version: AUTO_KERNEL.to_owned(),
            kubelet_version: KUBELET_VERSION.to_owned(),
            machine_id: system_uuid.replace('-', ""),
            operating_system: "linux".to_owned(),
            os_image: if is_nvidia { AUTO_NVIDIA_OS_IMAGE } else { AUTO_OS_IMAGE }.to_owned(),
            system_uuid,
            ..NodeSystemInfo::default()
        };
    }
    NodeSystemInfo {
        architecture: arch.to_owned(),
        boot_id: random.uuid(),
        container_runtime_version: CONTAINER_RUNTIME.to_owned(),
        kernel_version: if arch == "arm64" {
            KERNEL.replace("x86_64", "aarch64")
        } else {
            KERNEL.to_owned()
        },
        kubelet_version: KUBELET_VERSION.to_owned(),
        machine_id: system_uuid.replace('-', ""),
        operating_system: "linux".to_owned(),
        os_image: OS_IMAGE.to_owned(),
        system_uuid,
        ..NodeSystemInfo::default()
    }
}

/// `arm64` for Graviton types, else `amd64`; what the boot script says comes first.
fn architecture(instance: &Instance) -> &'static str {
    match instance.spec.kubelet.labels.get(labels::ARCH).map(String::as_str) {
        Some("arm64") => return "arm64",
        Some(_) => return "amd64",
        None => {}
    }
    // c7g, m6gd, im4gn, a1: a `g` among the attributes after the generation's digit.
    let family = instance.spec.instance_type.split('.').next().unwrap_or_default();
    let attributes = family.trim_start_matches(|c: char| !c.is_ascii_digit());
    if family == "a1" || attributes.contains('g') { "arm64" } else { "amd64" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graviton_is_told_by_the_name() {
        let cases = [
            ("c5a.large", "amd64"),
            ("c7g.large", "arm64"),
            ("g4dn.xlarge", "amd64"),
            ("g5g.xlarge", "arm64"),
            ("im4gn.large", "arm64"),
            ("a1.large", "arm64"),
            ("m7i-flex.large", "amd64"),
        ];
        for (instance_type, arch) in cases {
            let mut instance = Instance::default();
            instance.spec.instance_type = instance_type.to_owned();
            assert_eq!(architecture(&instance), arch, "{instance_type}");
        }
    }
}
