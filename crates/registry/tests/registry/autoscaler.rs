//! The Vertical Pod Autoscaler's kinds, and what its webhook does to them and to pods.

use serde_json::{Value, json};
use wharf_ports::cluster::Part;

use crate::{Cluster, with};

fn autoscaler(name: &str) -> Value {
    json!({"apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}}})
}

#[test]
fn an_autoscaler_without_a_policy_recreates() {
    let cluster = Cluster::new();
    let stored = cluster.create(autoscaler("a")).unwrap();
    assert_eq!(stored["spec"]["updatePolicy"], json!({"updateMode": "Recreate"}));
    assert_eq!(stored["metadata"]["generation"], 1);
    let version = stored["metadata"]["resourceVersion"].clone();
    let reported =
        with(stored.clone(), "status", json!({"conditions": [{"type": "X", "status": "True"}]}));
    let reported = cluster.update(reported, Part::Status).unwrap();
    assert_eq!(reported["status"]["conditions"][0]["type"], "X");
    assert_eq!(reported["metadata"]["generation"], 1, "a status starts no generation");
    assert_ne!(reported["metadata"]["resourceVersion"], version);
    let changed = with(reported, "spec.updatePolicy.updateMode", json!("Off"));
    let changed = cluster.update(changed, Part::Main).unwrap();
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(changed["status"]["conditions"][0]["type"], "X");
}

#[test]
fn the_webhook_refuses_before_the_schema() {
    let cluster = Cluster::new();
    for (path, value, expected) in [
        (
            "spec.updatePolicy",
            json!({"updateMode": "Now"}),
            "admission webhook \"vpa.k8s.io\" denied the request: spec.updatePolicy.updateMode: Unsupported value: \"Now\": supported values: \"InPlace\", \"InPlaceOrRecreate\", \"Initial\", \"Off\", \"Recreate\"",
        ),
        (
            "spec.updatePolicy",
            json!({"minReplicas": 0}),
            "admission webhook \"vpa.k8s.io\" denied the request: [spec.updatePolicy.updateMode: Required value: updateMode is required if UpdatePolicy is used, spec.updatePolicy.minReplicas: Invalid value: 0: minReplicas has to be positive]",
        ),
        (
            "spec.updatePolicy",
            json!({"updateMode": "Recreate", "evictionRequirements": [{"resources": ["cpu"], "changeRequirement": "Much"}]}),
            "VerticalPodAutoscaler.autoscaling.k8s.io \"a\" is invalid: spec.updatePolicy.evictionRequirements[0].changeRequirement: Unsupported value: \"Much\": supported values: \"TargetHigherThanRequests\", \"TargetLowerThanRequests\"",
        ),
    ] {
        let refusal = cluster.create(with(autoscaler("a"), path, value)).unwrap_err();
        assert_eq!(refusal.message, expected);
    }
    let refusal =
        cluster.create(with(autoscaler("a"), "spec.updatePolicy", json!({}))).unwrap_err();
    assert_eq!((refusal.reason.code(), refusal.reason.word()), (400, ""));
}

#[test]
fn a_checkpoint_is_written_as_a_whole() {
    let cluster = Cluster::new();
    let checkpoint = json!({"apiVersion": "autoscaling.k8s.io/v1",
        "kind": "VerticalPodAutoscalerCheckpoint", "metadata": {"name": "a-c"},
        "spec": {"vpaObjectName": "a", "containerName": "c"},
        "status": {"version": "v3", "totalSamplesCount": 1}});
    let stored = cluster.create(checkpoint).unwrap();
    assert_eq!(stored["status"]["totalSamplesCount"], 1);
    let changed = with(stored, "status.totalSamplesCount", json!(2));
    let changed = cluster.update(changed, Part::Main).unwrap();
    assert_eq!(changed["status"]["totalSamplesCount"], 2);
    assert_eq!(changed["metadata"]["generation"], 2);
}

/// An owner reference to a controller.
fn owner(kind: &str, name: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true}])
}

/// A deployment `web` with its set, and an autoscaler that recommends `cpu` for its container.
fn recommended(cluster: &Cluster, name: &str, mode: &str, cpu: &str) {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let stored = with(autoscaler(name), "spec.targetRef", target);
    let stored =
        cluster.create(with(stored, "spec.updatePolicy", json!({"updateMode": mode}))).unwrap();
    let recommendation =
        json!({"containerRecommendations": [{"containerName": "c", "target": {"cpu": cpu}}]});
    let status = json!({"recommendation": recommendation});
    cluster.update(with(stored, "status", status), Part::Status).unwrap();
}

fn workload(cluster: &Cluster) {
    cluster.create(crate::deployment("web")).unwrap();
    let set = with(crate::deployment("web-1"), "kind", json!("ReplicaSet"));
    let set = with(set, "metadata.ownerReferences", owner("Deployment", "web"));
    cluster.create(set).unwrap();
}

fn pod(cluster: &Cluster, name: &str) -> Value {
    let pod = with(crate::pod(name), "metadata.ownerReferences", owner("ReplicaSet", "web-1"));
    let pod = with(pod, "metadata.labels.app", json!("web"));
    let resources = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}});
    cluster.create(with(pod, "spec.containers.0.resources", resources)).unwrap()
}

#[test]
fn a_new_pod_gets_what_is_recommended() {
    let cluster = Cluster::new();
    workload(&cluster);
    recommended(&cluster, "off", "Off", "9");
    recommended(&cluster, "web", "Initial", "587m");
    cluster.clock.advance_to(crate::START + std::time::Duration::from_secs(5));
    recommended(&cluster, "a-later-one", "Recreate", "7");
    let stored = pod(&cluster, "p");
    let resources = &stored["spec"]["containers"][0]["resources"];
    assert_eq!(*resources, json!({"requests": {"cpu": "587m"}, "limits": {"cpu": "1761m"}}));
    assert_eq!(
        stored["metadata"]["annotations"],
        json!({"vpaObservedContainers": "c",
            "vpaUpdates": "Pod resources updated by web: container 0: memory: limit NOT set since originalLimit is nil or 0, cpu request, cpu limit"})
    );
    let alone = cluster.create(with(crate::pod("alone"), "metadata.labels.app", json!("web")));
    assert_eq!(alone.unwrap()["metadata"].get("annotations"), None);
}

#[test]
fn an_autoscaler_of_another_level_has_no_say() {
    let cluster = Cluster::new();
    workload(&cluster);
    let target = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1"});
    cluster.create(with(autoscaler("v"), "spec.targetRef", target)).unwrap();
    assert_eq!(pod(&cluster, "p")["metadata"].get("annotations"), None);
}
