//! What add-ons bring: the EBS CSI driver's storage class, CoreDNS.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec, StorageClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use wharf_fargate::COMPUTE_TYPE;
use wharf_model::ebs;
use wharf_model::object::Typed;
use wharf_ports::cluster::Write;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_registry::Registry;

use crate::cluster::CoreDns;

/// Where pods of EKS clusters with this service range ask for names.
const DNS_ADDRESS: &str = "10.100.0.10";

/// EKS's storage class, which since 1.30 is not the default one: a claim has to name its class. The
/// driver's object is the add-on's. What is there already stays as it is.
pub(crate) fn create_storage(registry: &Registry) -> Result<(), ApiError> {
    let parameters = [("fsType", "ext4"), ("type", "gp2")];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let class = StorageClass {
        metadata: named("gp2"),
        parameters: Some(parameters.into_iter().map(owned).collect()),
        provisioner: ebs::IN_TREE.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        ..StorageClass::default()
    };
    let driver = CSIDriver {
        metadata: named(ebs::DRIVER),
        spec: CSIDriverSpec {
            attach_required: Some(true),
            fs_group_policy: Some("File".to_owned()),
            pod_info_on_mount: Some(false),
            ..CSIDriverSpec::default()
        },
    };
    ensure(registry, Box::new(class))?;
    ensure(registry, Box::new(driver))
}

/// CoreDNS as EKS' add-on sets it up: two pods behind the service `kube-dns`, and a budget. Its pods carry
/// an annotation that keeps them off Fargate, unless the add-on is told that they are for it.
pub(crate) fn create_core_dns(
    registry: &Registry,
    dns: &CoreDns,
    region: &str,
) -> Result<(), ApiError> {
    for mut object in core_dns(dns, region) {
        object.meta_mut().namespace = Some("kube-system".to_owned());
        ensure(registry, object)?;
    }
    Ok(())
}

fn core_dns(dns: &CoreDns, region: &str) -> [Box<dyn Typed>; 3] {
    const VALID: &str = "invariant: the manifests in this file are valid";
    let labels = json!({"eks.amazonaws.com/component": "coredns", "k8s-app": "kube-dns"});
    let annotations = if dns.on_fargate { json!({}) } else { json!({(COMPUTE_TYPE): "ec2"}) };
    let image =
        format!("602401143452.dkr.ecr.{region}.amazonaws.com/eks/coredns:v1.11.4-eksbuild.2");
    let amounts = json!({"cpu": dns.requests.cpu, "memory": dns.requests.memory});
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "coredns", "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "dnsPolicy": "Default",
                    "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
                    "containers": [{
                        "name": "coredns",
                        "image": image,
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "ports": [
                            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                        ],
                        "resources": {"requests": amounts, "limits": {"memory": dns.requests.memory}},
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                        },
                    }],
                },
            },
        },
    }))
    .expect(VALID);
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "kube-dns", "labels": labels},
        "spec": {
            "clusterIP": DNS_ADDRESS,
            "selector": {"k8s-app": "kube-dns"},
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
        },
    }))
    .expect(VALID);
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": {"name": "coredns", "labels": labels},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
    }))
    .expect(VALID);
    [Box::new(deployment), Box::new(service), Box::new(budget)]
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

pub(crate) fn ensure(registry: &Registry, object: Box<dyn Typed>) -> Result<(), ApiError> {
    match registry.apply(Write::Create(object)) {
        Err(error) if error.reason != StatusReason::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
