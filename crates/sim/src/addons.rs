//! What add-ons bring: the EBS CSI driver's storage class, CoreDNS, the AWS Load Balancer Controller; and
//! where the API itself is reached.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IngressClass;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec, StorageClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use wharf_controllers::elb;
use wharf_fargate::COMPUTE_TYPE;
use wharf_model::balancing::IngressClassParams;
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

/// The AWS Load Balancer Controller as its chart sets it up: two pods, a budget, the Service of its
/// webhooks, and the class `alb`.
pub(crate) fn create_load_balancer_controller(registry: &Registry) -> Result<(), ApiError> {
    for mut object in load_balancer_controller() {
        if object.kind().namespaced {
            object.meta_mut().namespace = Some("kube-system".to_owned());
        }
        ensure(registry, object)?;
    }
    Ok(())
}

fn load_balancer_controller() -> [Box<dyn Typed>; 6] {
    const VALID: &str = "invariant: the manifests in this file are valid";
    const NAME: &str = "aws-load-balancer-controller";
    let labels = json!({"app.kubernetes.io/instance": NAME, "app.kubernetes.io/name": NAME});
    let metadata = json!({"name": NAME, "labels": labels});
    let account: ServiceAccount =
        serde_json::from_value(json!({"metadata": metadata})).expect(VALID);
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": metadata,
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": NAME,
                    "priorityClassName": "system-cluster-critical",
                    "containers": [{
                        "name": NAME,
                        "image": "public.ecr.aws/eks/aws-load-balancer-controller:v2.13.4",
                        "args": ["--ingress-class=alb"],
                        "ports": [
                            {"name": "webhook-server", "containerPort": 9443, "protocol": "TCP"},
                            {"name": "metrics-server", "containerPort": 8080, "protocol": "TCP"},
                        ],
                    }],
                },
            },
        },
    }))
    .expect(VALID);
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "aws-load-balancer-webhook-service", "labels": labels},
        "spec": {
            "selector": labels,
            "ports": [{"name": "webhook-server", "port": 443, "targetPort": "webhook-server"}],
        },
    }))
    .expect(VALID);
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": metadata,
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
    }))
    .expect(VALID);
    let params: IngressClassParams =
        serde_json::from_value(json!({"metadata": {"name": "alb", "labels": labels}, "spec": {}}))
            .expect(VALID);
    let class: IngressClass = serde_json::from_value(json!({
        "metadata": {"name": "alb", "labels": labels},
        "spec": {
            "controller": elb::CONTROLLER,
            "parameters":
                {"apiGroup": "elbv2.k8s.aws", "kind": "IngressClassParams", "name": "alb"},
        },
    }))
    .expect(VALID);
    [
        Box::new(account),
        Box::new(deployment),
        Box::new(service),
        Box::new(budget),
        Box::new(params),
        Box::new(class),
    ]
}

/// The endpoints of the Service `kubernetes`, which the API server writes itself.
pub(crate) fn create_api_endpoints(
    registry: &Registry,
    addresses: &[String],
) -> Result<(), ApiError> {
    const VALID: &str = "invariant: the manifests in this file are valid";
    let port = json!([{"name": "https", "port": 443, "protocol": "TCP"}]);
    let ips: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let ready: Vec<_> = addresses
        .iter()
        .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
        .collect();
    let endpoints: Endpoints = serde_json::from_value(json!({
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": ips, "ports": port}],
    }))
    .expect(VALID);
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": ready,
        "ports": port,
    }))
    .expect(VALID);
    ensure(registry, Box::new(endpoints))?;
    ensure(registry, Box::new(slice))
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
