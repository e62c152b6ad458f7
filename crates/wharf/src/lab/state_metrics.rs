//! The state of the cluster as metrics: of objects under the names of kube-state-metrics, of
//! machines under Karpenter's, of what is used under cAdvisor's.
//!
//! <https://github.com/kubernetes/kube-state-metrics/tree/main/docs>: the families that are asked
//! for most, of pods, nodes, Deployments and both autoscalers.

pub(super) mod karpenter;
mod usage;
mod vertical;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
};
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::karpenter::NodePool;
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::ObjectKey;
use wharf_model::quantity::Quantity;
use wharf_model::time::Time;
use wharf_model::vpa::VerticalPodAutoscaler;
use wharf_ports::metrics::Board;
use wharf_store::Store;

/// The metrics of the cluster at a moment.
pub(super) fn text(
    store: &Store,
    board: &Board,
    counters: &karpenter::Counters,
    now: Time,
) -> String {
    let mut out = Families::default();
    usage::clock(now, &mut out);
    let mut asked = karpenter::Asked::default();
    each::<Pod>(store, |pod| {
        pods(pod, &mut out);
        usage::containers(pod, board, now, &mut out);
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let node = node.and_then(|name| store.get(Kind::of::<Node>(), &ObjectKey::cluster(name)));
        let node = node.as_ref().and_then(|node| node.typed::<Node>());
        karpenter::pod(pod, node, &mut out);
        asked.add(pod);
    });
    each::<Node>(store, |node| {
        nodes(node, &mut out);
        usage::node(node, board, now, &mut out);
        karpenter::node(node, &asked, &mut out);
    });
    each::<Deployment>(store, |deployment| deployments(deployment, &mut out));
    each::<HorizontalPodAutoscaler>(store, |autoscaler| autoscalers(autoscaler, &mut out));
    each::<VerticalPodAutoscaler>(store, |autoscaler| vertical::rows(autoscaler, &mut out));
    each::<NodePool>(store, |pool| karpenter::pool(pool, &mut out));
    karpenter::cluster(store.count(Kind::of::<Node>()), &mut out);
    counters.rows(&mut out);
    out.text()
}

/// Visits all objects of a kind.
fn each<T: Resource>(store: &Store, mut visit: impl FnMut(&T)) {
    for object in store.list(Kind::of::<T>(), None).0 {
        if let Some(typed) = object.typed::<T>() {
            visit(typed);
        }
    }
}

/// Families in the order in which they were first met, each with its rows.
#[derive(Default)]
struct Families {
    order: Vec<&'static str>,
    rows: BTreeMap<&'static str, (Described, String)>,
}

/// What is said of a family before its rows.
#[derive(Clone, Copy)]
struct Described {
    kind: &'static str,
    help: &'static str,
}

const fn gauge(help: &'static str) -> Described {
    Described { kind: "gauge", help }
}

type Labels<'a> = [(&'a str, &'a str)];

impl Families {
    fn row(&mut self, name: &'static str, about: Described, labels: &[&Labels<'_>], value: f64) {
        let (_, rows) = self.rows.entry(name).or_insert_with(|| {
            self.order.push(name);
            (about, String::new())
        });
        rows.push_str(name);
        for (index, (label, text)) in labels.iter().flat_map(|labels| labels.iter()).enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(rows, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
        }
        rows.push_str(if labels.iter().all(|labels| labels.is_empty()) { "" } else { "}" });
        let _ = writeln!(rows, " {value}");
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for name in &self.order {
            if let Some((about, rows)) = self.rows.get(name) {
                let _ = write!(out, "# HELP {name} {}\n# TYPE {name} {}\n", about.help, about.kind);
                out.push_str(rows);
            }
        }
        out
    }
}

/// Labels as kube-state-metrics names them: what Prometheus takes for no name becomes `_`. Of two
/// that become the same the first by name stays.
fn kube_labels(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let mut named = BTreeMap::new();
    for (key, value) in meta.labels.iter().flatten() {
        let name = key.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        named.entry(format!("label_{name}")).or_insert_with(|| value.clone());
    }
    named
}

fn seconds(meta: &ObjectMeta) -> f64 {
    meta.creation_timestamp.as_ref().map_or(0.0, |time| Time::from(time).as_seconds() as f64)
}

fn flag(is_set: bool) -> f64 {
    f64::from(u8::from(is_set))
}

fn amount(quantity: &ApiQuantity) -> f64 {
    Quantity::try_from(quantity).map_or(0.0, |quantity| quantity.as_f64())
}

/// A resource's name and unit as labels have them.
fn unit(resource: &str) -> (String, &'static str) {
    let name = resource.replace(['.', '/', '-'], "_");
    let unit = match resource {
        "cpu" => "core",
        "memory" | "ephemeral-storage" | "storage" => "byte",
        _ => "integer",
    };
    (name, unit)
}

fn pods(pod: &Pod, out: &mut Families) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let (namespace, name, uid) = (text(&meta.namespace), text(&meta.name), text(&meta.uid));
    let own: &Labels<'_> = &[("namespace", &namespace), ("pod", &name), ("uid", &uid)];
    let status = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let node = text(&spec.node_name);
    let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let (by_kind, by_name) = owner.map_or(("", ""), |owner| (&owner.kind, &owner.name));
    let (host_ip, pod_ip) = (text(&status.host_ip), text(&status.pod_ip));
    let class = text(&spec.priority_class_name);
    out.row(
        "kube_pod_info",
        gauge("[STABLE] Information about pod."),
        &[
            own,
            &[
                ("host_ip", &host_ip),
                ("pod_ip", &pod_ip),
                ("node", &node),
                ("created_by_kind", by_kind),
                ("created_by_name", by_name),
                ("priority_class", &class),
                ("host_network", if spec.host_network == Some(true) { "true" } else { "false" }),
            ],
        ],
        1.0,
    );
    let named = kube_labels(meta);
    let named: Vec<(&str, &str)> =
        named.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let about = gauge("[STABLE] Kubernetes labels converted to Prometheus labels.");
    out.row("kube_pod_labels", about, &[own, &named], 1.0);
    out.row("kube_pod_created", gauge("[STABLE] Unix creation timestamp"), &[own], seconds(meta));
    let phase = status.phase.as_deref().unwrap_or("Pending");
    for known in ["Pending", "Succeeded", "Failed", "Unknown", "Running"] {
        let about = gauge("[STABLE] The pods current phase.");
        out.row("kube_pod_status_phase", about, &[own, &[("phase", known)]], flag(known == phase));
    }
    let condition = |type_: &str| {
        let found = status.conditions.iter().flatten().find(|found| found.type_ == type_);
        found.map_or("unknown".to_owned(), |found| found.status.to_lowercase())
    };
    for (family, about, type_) in [
        (
            "kube_pod_status_ready",
            "[STABLE] Describes whether the pod is ready to serve requests.",
            "Ready",
        ),
        (
            "kube_pod_status_scheduled",
            "[STABLE] Describes the status of the scheduling process for the pod.",
            "PodScheduled",
        ),
    ] {
        let is = condition(type_);
        for known in ["true", "false", "unknown"] {
            out.row(family, gauge(about), &[own, &[("condition", known)]], flag(known == is));
        }
    }
    let class = status.qos_class.as_deref().unwrap_or("BestEffort");
    for known in ["BestEffort", "Burstable", "Guaranteed"] {
        let about = gauge("The pods current qosClass.");
        let labels: &[&Labels<'_>] = &[own, &[("qos_class", known)]];
        out.row("kube_pod_status_qos_class", about, labels, flag(known == class));
    }
    for container in &spec.containers {
        resources(container, own, &node, out);
    }
    for container in status.container_statuses.iter().flatten() {
        let labels: &[&Labels<'_>] = &[own, &[("container", &container.name)]];
        let restarts = Described {
            kind: "counter",
            help: "[STABLE] The number of container restarts per container.",
        };
        let count = f64::from(container.restart_count);
        out.row("kube_pod_container_status_restarts_total", restarts, labels, count);
        let about = gauge("[STABLE] Describes whether the containers readiness check succeeded.");
        out.row("kube_pod_container_status_ready", about, labels, flag(container.ready));
        let state = container.state.clone().unwrap_or_default();
        if let Some(reason) = state.waiting.and_then(|waiting| waiting.reason) {
            let about =
                gauge("[STABLE] Describes the reason the container is currently in waiting state.");
            let labels = &[labels[0], labels[1], &[("reason", reason.as_str())]];
            out.row("kube_pod_container_status_waiting_reason", about, labels, 1.0);
        }
        let last = container.last_state.clone().unwrap_or_default();
        if let Some(reason) = last.terminated.and_then(|ended| ended.reason) {
            let about = gauge("Describes the last reason the container was in terminated state.");
            let labels = &[labels[0], labels[1], &[("reason", reason.as_str())]];
            out.row("kube_pod_container_status_last_terminated_reason", about, labels, 1.0);
        }
    }
}

fn resources(container: &Container, own: &Labels<'_>, node: &str, out: &mut Families) {
    let Some(resources) = &container.resources else { return };
    for (family, about, list) in [
        (
            "kube_pod_container_resource_requests",
            "The number of requested request resource by a container.",
            &resources.requests,
        ),
        (
            "kube_pod_container_resource_limits",
            "The number of requested limit resource by a container.",
            &resources.limits,
        ),
    ] {
        for (resource, quantity) in list.iter().flatten() {
            let (resource, unit) = unit(resource);
            let labels: &Labels<'_> = &[
                ("container", &container.name),
                ("node", node),
                ("resource", &resource),
                ("unit", unit),
            ];
            out.row(family, gauge(about), &[own, labels], amount(quantity));
        }
    }
}

fn nodes(node: &Node, out: &mut Families) {
    let name = node.metadata.name.clone().unwrap_or_default();
    let own: &Labels<'_> = &[("node", &name)];
    let status = node.status.clone().unwrap_or_default();
    let info = status.node_info.clone().unwrap_or_default();
    let provider = node.spec.as_ref().and_then(|spec| spec.provider_id.clone()).unwrap_or_default();
    let about = gauge("[STABLE] Information about a cluster node.");
    let labels: &Labels<'_> = &[
        ("kernel_version", &info.kernel_version),
        ("os_image", &info.os_image),
        ("container_runtime_version", &info.container_runtime_version),
        ("kubelet_version", &info.kubelet_version),
        ("provider_id", &provider),
        ("system_uuid", &info.system_uuid),
    ];
    out.row("kube_node_info", about, &[own, labels], 1.0);
    let about = gauge("[STABLE] Unix creation timestamp");
    out.row("kube_node_created", about, &[own], seconds(&node.metadata));
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let about = gauge("[STABLE] Whether a node can schedule new pods.");
    out.row("kube_node_spec_unschedulable", about, &[own], flag(cordoned));
    for condition in status.conditions.iter().flatten() {
        let is = condition.status.to_lowercase();
        for known in ["true", "false", "unknown"] {
            let about = gauge("[STABLE] The condition of a cluster node.");
            let labels: &Labels<'_> = &[("condition", &condition.type_), ("status", known)];
            out.row("kube_node_status_condition", about, &[own, labels], flag(known == is));
        }
    }
    for (family, about, list) in [
        (
            "kube_node_status_capacity",
            "[STABLE] The total amount of resources available for a node.",
            &status.capacity,
        ),
        (
            "kube_node_status_allocatable",
            "[STABLE] The amount of resources allocatable for pods (after reserving some for system daemons).",
            &status.allocatable,
        ),
    ] {
        for (resource, quantity) in list.iter().flatten() {
            let (resource, unit) = unit(resource);
            let labels: &Labels<'_> = &[("resource", &resource), ("unit", unit)];
            out.row(family, gauge(about), &[own, labels], amount(quantity));
        }
    }
}

fn deployments(deployment: &Deployment, out: &mut Families) {
    let meta = &deployment.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&meta.namespace), text(&meta.name));
    let own: &Labels<'_> = &[("namespace", &namespace), ("deployment", &name)];
    let status = deployment.status.clone().unwrap_or_default();
    let spec = deployment.spec.as_ref();
    let count = |count: Option<i32>| f64::from(count.unwrap_or(0));
    for (family, about, value) in [
        ("kube_deployment_created", "[STABLE] Unix creation timestamp", seconds(meta)),
        (
            "kube_deployment_metadata_generation",
            "[STABLE] Sequence number representing a specific generation of the desired state.",
            meta.generation.unwrap_or(0) as f64,
        ),
        (
            "kube_deployment_spec_replicas",
            "[STABLE] Number of desired pods for a deployment.",
            count(spec.and_then(|spec| spec.replicas)),
        ),
        (
            "kube_deployment_status_replicas",
            "[STABLE] The number of replicas per deployment.",
            count(status.replicas),
        ),
        (
            "kube_deployment_status_replicas_ready",
            "[STABLE] The number of ready replicas per deployment.",
            count(status.ready_replicas),
        ),
        (
            "kube_deployment_status_replicas_available",
            "[STABLE] The number of available replicas per deployment.",
            count(status.available_replicas),
        ),
        (
            "kube_deployment_status_replicas_unavailable",
            "[STABLE] The number of unavailable replicas per deployment.",
            count(status.unavailable_replicas),
        ),
        (
            "kube_deployment_status_replicas_updated",
            "[STABLE] The number of updated replicas per deployment.",
            count(status.updated_replicas),
        ),
    ] {
        out.row(family, gauge(about), &[own], value);
    }
}

fn autoscalers(autoscaler: &HorizontalPodAutoscaler, out: &mut Families) {
    let meta = &autoscaler.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&meta.namespace), text(&meta.name));
    let own: &Labels<'_> = &[("namespace", &namespace), ("horizontalpodautoscaler", &name)];
    let spec = &autoscaler.spec;
    let target = &spec.scale_target_ref;
    let version = text(&target.api_version);
    let labels: &Labels<'_> = &[
        ("scaletargetref_api_version", &version),
        ("scaletargetref_kind", &target.kind),
        ("scaletargetref_name", &target.name),
    ];
    let status = autoscaler.status.clone().unwrap_or_default();
    out.row(
        "kube_horizontalpodautoscaler_info",
        gauge("Information about this autoscaler."),
        &[own, labels],
        1.0,
    );
    // Which of their keys are shown is for an operator to choose; upstream shows none by default.
    out.row(
        "kube_horizontalpodautoscaler_annotations",
        gauge("Kubernetes annotations converted to Prometheus labels."),
        &[own],
        1.0,
    );
    out.row(
        "kube_horizontalpodautoscaler_labels",
        gauge("[STABLE] Kubernetes labels converted to Prometheus labels."),
        &[own],
        1.0,
    );
    for (family, about, value) in [
        ("kube_horizontalpodautoscaler_created", "Unix creation timestamp", seconds(meta)),
        (
            "kube_horizontalpodautoscaler_metadata_generation",
            "[STABLE] The generation observed by the HorizontalPodAutoscaler controller.",
            meta.generation.unwrap_or(0) as f64,
        ),
        (
            "kube_horizontalpodautoscaler_spec_max_replicas",
            "[STABLE] Upper limit for the number of pods that can be set by the autoscaler; cannot be smaller than MinReplicas.",
            f64::from(spec.max_replicas),
        ),
        (
            "kube_horizontalpodautoscaler_spec_min_replicas",
            "[STABLE] Lower limit for the number of pods that can be set by the autoscaler, default 1.",
            f64::from(spec.min_replicas.unwrap_or(1)),
        ),
        (
            "kube_horizontalpodautoscaler_status_current_replicas",
            "[STABLE] Current number of replicas of pods managed by this autoscaler.",
            f64::from(status.current_replicas.unwrap_or(0)),
        ),
        (
            "kube_horizontalpodautoscaler_status_desired_replicas",
            "[STABLE] Desired number of replicas of pods managed by this autoscaler.",
            f64::from(status.desired_replicas),
        ),
    ] {
        out.row(family, gauge(about), &[own], value);
    }
    let mut told = |family, about, metric: &str, values: [(&str, Option<f64>); 3]| {
        for (kind, value) in values {
            if let Some(value) = value {
                let labels: &Labels<'_> = &[("metric_name", metric), ("metric_target_type", kind)];
                out.row(family, gauge(about), &[own, labels], value);
            }
        }
    };
    for metric in spec.metrics.iter().flatten() {
        if let Some((name, target)) = target_of(metric) {
            let percent = target.average_utilization.map(f64::from);
            told(
                "kube_horizontalpodautoscaler_spec_target_metric",
                "The metric specifications used by this autoscaler when calculating the desired replica count.",
                &name,
                [
                    ("value", target.value.as_ref().map(amount)),
                    ("average", target.average_value.as_ref().map(amount)),
                    ("utilization", percent),
                ],
            );
        }
    }
    for metric in status.current_metrics.iter().flatten() {
        if let Some((name, current)) = current_of(metric) {
            let percent = current.average_utilization.map(f64::from);
            told(
                "kube_horizontalpodautoscaler_status_target_metric",
                "The current metric status used by this autoscaler when calculating the desired replica count.",
                &name,
                [
                    ("value", current.value.as_ref().map(amount)),
                    ("average", current.average_value.as_ref().map(amount)),
                    ("utilization", percent),
                ],
            );
        }
    }
    for condition in status.conditions.iter().flatten() {
        let is = condition.status.to_lowercase();
        for known in ["true", "false", "unknown"] {
            let labels: &Labels<'_> = &[("condition", &condition.type_), ("status", known)];
            let about = gauge("[STABLE] The condition of this autoscaler.");
            out.row(
                "kube_horizontalpodautoscaler_status_condition",
                about,
                &[own, labels],
                flag(known == is),
            );
        }
    }
}

/// A metric's name and what it is to be.
fn target_of(metric: &MetricSpec) -> Option<(String, &MetricTarget)> {
    let resource = metric.resource.as_ref().map(|own| (own.name.clone(), &own.target));
    let container = metric.container_resource.as_ref().map(|own| (own.name.clone(), &own.target));
    let pods = metric.pods.as_ref().map(|own| (own.metric.name.clone(), &own.target));
    let object = metric.object.as_ref().map(|own| (own.metric.name.clone(), &own.target));
    let external = metric.external.as_ref().map(|own| (own.metric.name.clone(), &own.target));
    resource.or(container).or(pods).or(object).or(external)
}

/// A metric's name and what it is.
fn current_of(metric: &MetricStatus) -> Option<(String, &MetricValueStatus)> {
    let resource = metric.resource.as_ref().map(|own| (own.name.clone(), &own.current));
    let container = metric.container_resource.as_ref().map(|own| (own.name.clone(), &own.current));
    let pods = metric.pods.as_ref().map(|own| (own.metric.name.clone(), &own.current));
    let object = metric.object.as_ref().map(|own| (own.metric.name.clone(), &own.current));
    let external = metric.external.as_ref().map(|own| (own.metric.name.clone(), &own.current));
    resource.or(container).or(pods).or(object).or(external)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_names_are_kube_state_metrics() {
        let mut out = Families::default();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "default", "uid": "u",
                "labels": {"app.kubernetes.io/name": "web"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c",
                "resources": {"requests": {"cpu": "200m", "memory": "1Ki"}}}]},
            "status": {"phase": "Running", "qosClass": "Burstable", "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3,
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}
        }))
        .expect("a pod");
        pods(&pod, &mut out);
        let autoscaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
            "metadata": {"name": "php-apache", "namespace": "default"},
            "spec": {"maxReplicas": 10, "scaleTargetRef": {"kind": "Deployment", "name": "php-apache", "apiVersion": "apps/v1"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}]},
            "status": {"desiredReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 0, "averageValue": "1m"}}}]}
        }))
        .expect("an autoscaler");
        autoscalers(&autoscaler, &mut out);
        let text = out.text();
        for line in [
            "kube_pod_labels{namespace=\"default\",pod=\"a\",uid=\"u\",label_app_kubernetes_io_name=\"web\"} 1",
            "# TYPE kube_pod_container_status_restarts_total counter",
            "kube_pod_container_resource_requests{namespace=\"default\",pod=\"a\",uid=\"u\",container=\"c\",node=\"n\",resource=\"memory\",unit=\"byte\"} 1024",
            "kube_pod_status_phase{namespace=\"default\",pod=\"a\",uid=\"u\",phase=\"Running\"} 1",
            "kube_pod_container_status_last_terminated_reason{namespace=\"default\",pod=\"a\",uid=\"u\",container=\"c\",reason=\"OOMKilled\"} 1",
            "kube_horizontalpodautoscaler_spec_target_metric{namespace=\"default\",horizontalpodautoscaler=\"php-apache\",metric_name=\"cpu\",metric_target_type=\"utilization\"} 50",
            "kube_horizontalpodautoscaler_status_target_metric{namespace=\"default\",horizontalpodautoscaler=\"php-apache\",metric_name=\"cpu\",metric_target_type=\"average\"} 0.001",
            "kube_horizontalpodautoscaler_status_condition{namespace=\"default\",horizontalpodautoscaler=\"php-apache\",condition=\"AbleToScale\",status=\"true\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        // The lab's `grep HELP` finds eleven, and this the creation besides.
        let helps =
            text.lines().filter(|line| line.starts_with("# HELP kube_horizontalpodautoscaler"));
        let stable = helps.clone().filter(|line| line.contains("[STABLE]")).count();
        assert_eq!((helps.count(), stable), (12, 7));
    }
}
