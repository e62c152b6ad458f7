//! Evictions and the budgets that refuse them.

use serde_json::{Value, json};
use wharf_ports::cluster::Part;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_registry::WriteOptions;

use crate::{Cluster, deletion, key, kind_of, pod, with};

fn running(cluster: &Cluster, name: &str, ready: &str) {
    cluster.create(with(pod(name), "metadata.labels", json!({"app": "web"}))).unwrap();
    let key = key(kind_of("Pod"), name);
    cluster.registry.bind(&key, None, "n", &WriteOptions::default()).unwrap();
    let stored = cluster.get("Pod", name).unwrap();
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]});
    cluster.update(with(stored, "status", status), Part::Status).unwrap();
}

fn budget(cluster: &Cluster, name: &str, spec: Value, status: Value) {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    let manifest = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": name}, "spec": spec});
    let stored = cluster.create(manifest).unwrap();
    cluster.update(with(stored, "status", status), Part::Status).unwrap();
}

fn evict(cluster: &Cluster, name: &str) -> Result<bool, ApiError> {
    cluster
        .registry
        .evict(&deletion("Pod", name), &WriteOptions::default())
        .map(|deleted| deleted.gone)
}

fn healthy(allowed: i32) -> Value {
    json!({"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 2,
        "desiredHealthy": 2, "expectedPods": 2})
}

#[test]
fn a_budget_allows_and_then_refuses() {
    let cluster = Cluster::new();
    running(&cluster, "a", "True");
    running(&cluster, "b", "True");
    budget(&cluster, "web", json!({"minAvailable": 1}), healthy(1));
    assert!(!evict(&cluster, "a").unwrap());
    let evicted = cluster.get("Pod", "a").unwrap();
    assert_eq!(evicted["metadata"]["deletionGracePeriodSeconds"], 30);
    let conditions = evicted["status"]["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!(target["reason"], "EvictionByEvictionAPI");
    let stored = cluster.get("PodDisruptionBudget", "web").unwrap();
    assert_eq!(stored["status"]["disruptionsAllowed"], 0);
    assert_eq!(stored["status"]["conditions"][0]["reason"], "InsufficientPods");
    assert!(stored["status"]["disruptedPods"].get("a").is_some());

    let refusal = evict(&cluster, "b").unwrap_err();
    assert_eq!(refusal.reason, StatusReason::TooManyRequests);
    assert_eq!(
        refusal.message,
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(refusal.causes[0].reason, "DisruptionBudget");
    assert_eq!(
        refusal.causes[0].message,
        "The disruption budget web needs 2 healthy pods and has 2 currently"
    );
    assert_eq!(cluster.get("Pod", "b").unwrap()["metadata"].get("deletionTimestamp"), None);
}

#[test]
fn a_budget_its_controller_has_not_seen_refuses() {
    let cluster = Cluster::new();
    running(&cluster, "a", "True");
    budget(&cluster, "web", json!({"minAvailable": 1}), json!({"disruptionsAllowed": 1}));
    assert_eq!(
        evict(&cluster, "a").unwrap_err().causes[0].message,
        "The disruption budget web is still being processed by the server."
    );
}

#[test]
fn two_budgets_are_one_too_many() {
    let cluster = Cluster::new();
    running(&cluster, "a", "True");
    budget(&cluster, "one", json!({"minAvailable": 1}), healthy(1));
    budget(&cluster, "two", json!({"minAvailable": 1}), healthy(1));
    let refusal = evict(&cluster, "a").unwrap_err();
    assert_eq!(refusal.reason.code(), 500);
    assert_eq!(
        refusal.message,
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    );
}

#[test]
fn pods_that_serve_nobody_need_no_budget() {
    let cluster = Cluster::new();
    budget(&cluster, "web", json!({"minAvailable": 1}), healthy(0));
    cluster.create(with(pod("pending"), "metadata.labels", json!({"app": "web"}))).unwrap();
    assert!(evict(&cluster, "pending").unwrap());
    // Not ready, and enough others are: the budget does not protect it.
    running(&cluster, "broken", "False");
    assert!(!evict(&cluster, "broken").unwrap());
    assert_eq!(
        cluster.get("PodDisruptionBudget", "web").unwrap()["status"]["disruptionsAllowed"],
        0
    );
}

#[test]
fn unhealthy_pods_go_if_the_budget_says_so() {
    let short = json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1,
        "desiredHealthy": 2, "expectedPods": 2});
    let cluster = Cluster::new();
    running(&cluster, "a", "False");
    budget(&cluster, "web", json!({"minAvailable": 2}), short.clone());
    assert!(evict(&cluster, "a").is_err());
    let cluster = Cluster::new();
    running(&cluster, "a", "False");
    let spec = json!({"minAvailable": 2, "unhealthyPodEvictionPolicy": "AlwaysAllow"});
    budget(&cluster, "web", spec, short);
    assert!(evict(&cluster, "a").is_ok());
}
