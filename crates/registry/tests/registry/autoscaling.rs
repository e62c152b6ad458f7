//! Autoscalers and the scale of what they scale.

use serde_json::{Value, json};
use wharf_model::gates::FeatureGates;
use wharf_ports::cluster::Part;

use crate::{Cluster, key, kind_of, with};

fn autoscaler() -> Value {
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "maxReplicas": 10}})
}

#[test]
fn defaults_are_upstreams() {
    let cluster = Cluster::new();
    let stored = cluster.create(autoscaler()).unwrap();
    assert_eq!(stored["spec"]["minReplicas"], 1);
    assert_eq!(
        stored["spec"]["metrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 80}}}])
    );
    assert_eq!(stored["spec"].get("behavior"), None);
    assert_eq!(stored["status"]["desiredReplicas"], 0);
    assert_eq!(stored["metadata"].get("generation"), None);
    let behavior = json!({"scaleDown": {"policies": [
        {"type": "Pods", "value": 1, "periodSeconds": 60}]}});
    let named = with(with(autoscaler(), "spec.behavior", behavior), "metadata.name", json!("i"));
    assert_eq!(
        cluster.create(named).unwrap()["spec"]["behavior"],
        json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15}]},
            "scaleDown": {"selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 1, "periodSeconds": 60}]},
        })
    );
}

#[test]
fn autoscalers_that_are_refused() {
    let cluster = Cluster::new();
    let metric = |metric: Value| json!([metric]);
    let target = json!({"type": "Utilization", "averageUtilization": 50});
    for (path, value, expected) in [
        (
            "spec.minReplicas",
            json!(0),
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
        ),
        (
            "spec.minReplicas",
            json!(11),
            "spec.maxReplicas: Invalid value: 10: must be greater than or equal to `minReplicas`",
        ),
        (
            "spec.maxReplicas",
            json!(0),
            "[spec.maxReplicas: Required value: must be set and greater than 0, spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`]",
        ),
        ("spec.scaleTargetRef.kind", json!(""), "spec.scaleTargetRef.kind: Required value"),
        (
            "spec.scaleTargetRef.name",
            json!("a/b"),
            "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
        ),
        (
            "spec.scaleTargetRef.apiVersion",
            json!("v1"),
            "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group",
        ),
        (
            "spec.metrics",
            metric(json!({"type": "Resource"})),
            "spec.metrics[0].resource: Required value: must populate information for the given metric source",
        ),
        (
            "spec.metrics",
            metric(json!({"type": "Gauge", "resource": {"name": "cpu", "target": target}})),
            "spec.metrics[0].type: Unsupported value: \"Gauge\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
        ),
        (
            "spec.metrics",
            metric(
                json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}),
            ),
            "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
        ),
        (
            "spec.metrics",
            metric(
                json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5, "averageValue": "0"}}}),
            ),
            "[spec.metrics[0].resource.target.averageValue: Invalid value: \"0\": must be positive, spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization]",
        ),
        (
            "spec.metrics",
            metric(
                json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "", "target": target}}),
            ),
            "spec.metrics[0].containerResource.container: Required value: must specify a container",
        ),
        (
            "spec.metrics",
            metric(
                json!({"type": "Pods", "pods": {"metric": {"name": ""}, "target": {"type": "Often", "value": "1"}}}),
            ),
            "[spec.metrics[0].pods.metric.name: Required value: must specify a metric name, spec.metrics[0].pods.target.type: Invalid value: \"Often\": must be either Utilization, Value, or AverageValue, spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue]",
        ),
        (
            "spec.metrics",
            metric(
                json!({"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "1", "averageValue": "1"}}}),
            ),
            "spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target",
        ),
        (
            "spec.behavior",
            json!({"scaleUp": {"selectPolicy": "Most", "policies": [], "stabilizationWindowSeconds": 3601}}),
            "[spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600, spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Most\": supported values: \"Disabled\", \"Max\", \"Min\", spec.behavior.scaleUp.policies: Required value: must specify at least one Policy]",
        ),
        (
            "spec.behavior",
            json!({"scaleDown": {"tolerance": "-1", "policies": [{"type": "Pods", "value": 0, "periodSeconds": 1801}]}}),
            "[spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero, spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800, spec.behavior.scaleDown.tolerance: Invalid value: \"-1\": must be greater than or equal to 0]",
        ),
    ] {
        let refusal = cluster.create(with(autoscaler(), path, value)).unwrap_err().message;
        assert_eq!(
            refusal,
            format!("HorizontalPodAutoscaler.autoscaling \"h\" is invalid: {expected}")
        );
    }
}

#[test]
fn a_target_without_group_is_a_replication_controllers_or_an_old_ones() {
    let cluster = Cluster::new();
    let old = json!({"kind": "ReplicationController", "name": "rc"});
    let stored = cluster.create(with(autoscaler(), "spec.scaleTargetRef", old)).unwrap();
    let update = with(stored, "spec.scaleTargetRef.name", json!("other"));
    cluster.update(update, Part::Main).expect("kind and version are as they were");
}

#[test]
fn everything_with_replicas_has_a_scale() {
    let cluster = Cluster::new();
    let template = json!({"metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let selector = json!({"matchLabels": {"app": "x"}});
    for (version, kind, selector) in [
        ("apps/v1", "Deployment", selector.clone()),
        ("apps/v1", "ReplicaSet", selector.clone()),
        ("apps/v1", "StatefulSet", selector),
        ("v1", "ReplicationController", json!({"app": "x"})),
    ] {
        let spec = json!({"replicas": 3, "selector": selector, "template": template});
        let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"},
            "spec": spec});
        cluster.create(object).unwrap();
        let kind = kind_of(kind);
        let mut scale = cluster.registry.scale(kind, &key(kind, "x")).unwrap();
        assert_eq!(scale.spec.as_ref().and_then(|spec| spec.replicas), Some(3));
        let status = scale.status.clone().unwrap();
        assert_eq!(status.selector.as_deref(), Some("app=x"), "{kind}");
        scale.spec.get_or_insert_default().replicas = Some(5);
        let options = wharf_registry::WriteOptions::default();
        let scale = cluster.registry.set_scale(kind, &key(kind, "x"), &scale, &options).unwrap();
        assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(5));
    }
}

/// Without the feature gate `HPAScaleToZero` at least one replica is asked for; with it none may be,
/// if something tells of work without a pod.
#[test]
fn no_replica_at_all_takes_a_gate_and_a_metric_of_something_else() {
    let gates = FeatureGates { hpa_scale_to_zero: true, ..FeatureGates::default() };
    let open = Cluster::with_gates(gates);
    let external = json!([{"type": "External", "external": {"metric": {"name": "queue"},
        "target": {"type": "Value", "value": "1"}}}]);
    let zero = with(autoscaler(), "spec.minReplicas", json!(0));
    let refusal = open.create(zero.clone()).unwrap_err();
    let says = "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas";
    assert!(refusal.message.ends_with(says), "{refusal}");
    let below = with(autoscaler(), "spec.minReplicas", json!(-1));
    let refusal = open.create(below).unwrap_err();
    let says = "spec.minReplicas: Invalid value: -1: must be greater than or equal to 0";
    assert!(refusal.message.ends_with(says), "{refusal}");
    let good = with(zero, "spec.metrics", external);
    assert_eq!(open.create(good.clone()).unwrap()["spec"]["minReplicas"], 0);
    let refusal = Cluster::new().create(good).unwrap_err();
    let says = "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1";
    assert!(refusal.message.ends_with(says), "{refusal}");
}
