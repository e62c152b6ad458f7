//! Deletion: grace, finalizers, propagation, namespaces.

use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;
use wharf_ports::cluster::{Part, Propagation};
use wharf_registry::WriteOptions;

use crate::{Cluster, START, config_map, deletion, deployment, key, kind_of, pod, with};

fn bound(cluster: &Cluster, name: &str) {
    cluster.create(pod(name)).unwrap();
    let key = key(kind_of("Pod"), name);
    cluster.registry.bind(&key, None, "n", &WriteOptions::default()).unwrap();
}

#[test]
fn a_pod_gets_its_grace_period() {
    let cluster = Cluster::new();
    bound(&cluster, "p");
    let deleted = cluster.delete("Pod", "p").unwrap();
    assert!(!deleted.gone);
    let meta = &cluster.get("Pod", "p").unwrap()["metadata"];
    assert_eq!(meta["deletionTimestamp"], "2026-11-21T10:00:30Z");
    assert_eq!(meta["deletionGracePeriodSeconds"], 30);
    assert_eq!(meta["generation"], 2);
    // Asking again or for more changes nothing; asking for less shortens; the kubelet's zero ends it.
    let revision = cluster.registry.store().revision();
    cluster.delete("Pod", "p").unwrap();
    let later = deletion("Pod", "p").with_grace(100);
    cluster.registry.delete(&later, &WriteOptions::default()).unwrap();
    assert_eq!(cluster.registry.store().revision(), revision);
    let sooner = deletion("Pod", "p").with_grace(5);
    assert!(!cluster.registry.delete(&sooner, &WriteOptions::default()).unwrap().gone);
    let meta = &cluster.get("Pod", "p").unwrap()["metadata"];
    assert_eq!(meta["deletionTimestamp"], "2026-11-21T10:00:05Z");
    let last = deletion("Pod", "p").with_grace(0);
    assert!(cluster.registry.delete(&last, &WriteOptions::default()).unwrap().gone);
    assert_eq!(cluster.get("Pod", "p"), None);
    assert_eq!(cluster.delete("Pod", "p").unwrap_err().message, r#"pods "p" not found"#);
}

#[test]
fn pods_that_nobody_has_to_stop_go_at_once() {
    let cluster = Cluster::new();
    cluster.create(pod("unbound")).unwrap();
    assert!(cluster.delete("Pod", "unbound").unwrap().gone);
    bound(&cluster, "finished");
    let stored = cluster.get("Pod", "finished").unwrap();
    cluster.update(with(stored, "status.phase", json!("Succeeded")), Part::Status).unwrap();
    assert!(cluster.delete("Pod", "finished").unwrap().gone);
}

#[test]
fn finalizers_hold_until_the_last_is_gone() {
    let cluster = Cluster::new();
    let held = with(config_map("m"), "metadata.finalizers", json!(["a.b/one", "a.b/two"]));
    cluster.create(held).unwrap();
    assert!(!cluster.delete("ConfigMap", "m").unwrap().gone);
    let stored = cluster.get("ConfigMap", "m").unwrap();
    assert_eq!(stored["metadata"]["deletionTimestamp"], START.to_string());
    assert_eq!(stored["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(
        cluster
            .update(
                with(
                    stored.clone(),
                    "metadata.finalizers",
                    json!(["a.b/one", "a.b/two", "a.b/three"])
                ),
                Part::Main
            )
            .unwrap_err()
            .message,
        r#"ConfigMap "m" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"a.b/three"}"#
    );
    let one = cluster
        .update(with(stored, "metadata.finalizers", json!(["a.b/two"])), Part::Main)
        .unwrap();
    assert!(cluster.get("ConfigMap", "m").is_some());
    cluster.update(with(one, "metadata.finalizers", json!([])), Part::Main).unwrap();
    assert_eq!(cluster.get("ConfigMap", "m"), None);
}

#[test]
fn a_pod_with_a_finalizer_outlives_the_kubelet() {
    let cluster = Cluster::new();
    cluster.create(with(pod("p"), "metadata.finalizers", json!(["a.b/c"]))).unwrap();
    assert!(!cluster.delete("Pod", "p").unwrap().gone);
    let stored = cluster.get("Pod", "p").unwrap();
    assert_eq!(stored["metadata"]["deletionGracePeriodSeconds"], 0);
    cluster.update(with(stored, "metadata.finalizers", json!(null)), Part::Main).unwrap();
    assert_eq!(cluster.get("Pod", "p"), None);
}

#[test]
fn propagation_is_a_finalizer() {
    for (propagation, finalizer) in
        [(Propagation::Foreground, "foregroundDeletion"), (Propagation::Orphan, "orphan")]
    {
        let cluster = Cluster::new();
        cluster.create(deployment("x")).unwrap();
        let mut delete = deletion("Deployment", "x");
        delete.propagation = propagation;
        assert!(!cluster.registry.delete(&delete, &WriteOptions::default()).unwrap().gone);
        let stored = cluster.get("Deployment", "x").unwrap();
        assert_eq!(stored["metadata"]["finalizers"], json!([finalizer]));
        assert_eq!(stored["metadata"]["generation"], 2);
    }
    let cluster = Cluster::new();
    cluster.create(deployment("x")).unwrap();
    assert!(cluster.delete("Deployment", "x").unwrap().gone);
}

#[test]
fn preconditions_are_checked() {
    let cluster = Cluster::new();
    let uid = cluster.create(pod("p")).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let mut delete = deletion("Pod", "p");
    delete.uid = Some("x".into());
    let refusal = cluster.registry.delete(&delete, &WriteOptions::default()).unwrap_err();
    assert_eq!(
        refusal.message,
        format!(
            r#"Operation cannot be fulfilled on Pod "p": the UID in the precondition (x) does not match the UID in record ({uid}). The object might have been deleted and then recreated"#
        )
    );
    delete.uid = Some(uid.into());
    delete.revision = Some(1);
    assert_eq!(
        cluster.registry.delete(&delete, &WriteOptions::default()).unwrap_err().reason.code(),
        409
    );
}

#[test]
fn a_namespace_terminates() {
    let cluster = Cluster::new();
    assert_eq!(
        cluster.delete("Namespace", "kube-system").unwrap_err().message,
        r#"namespaces "kube-system" is forbidden: this namespace may not be deleted"#
    );
    cluster
        .create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}))
        .unwrap();
    assert!(!cluster.delete("Namespace", "team").unwrap().gone);
    let stored = cluster.get("Namespace", "team").unwrap();
    assert_eq!(stored["status"]["phase"], "Terminating");
    let options = WriteOptions { namespace: "team".into(), ..WriteOptions::default() };
    let refusal = cluster.create_with(pod("p"), &options).unwrap_err();
    assert_eq!(
        refusal.message,
        r#"pods "p" is forbidden: unable to create new content in namespace team because it is being terminated"#
    );
    assert_eq!(refusal.causes[0].reason, "NamespaceTerminating");
    let finalized = with(stored, "spec.finalizers", json!([]));
    let kept = cluster.update(finalized.clone(), Part::Main).unwrap();
    assert_eq!(kept["spec"]["finalizers"], json!(["kubernetes"]), "only finalize changes them");
    let finalized: Namespace = serde_json::from_value(finalized).unwrap();
    cluster.registry.finalize(&finalized, &options).unwrap();
    assert_eq!(cluster.get("Namespace", "team"), None);
}

#[test]
fn a_collection_is_deleted_by_choice() {
    let cluster = Cluster::new();
    for name in ["a", "b", "c"] {
        cluster.create(config_map(name)).unwrap();
    }
    let deleted = cluster
        .registry
        .delete_collection(
            &deletion("ConfigMap", ""),
            Some("default"),
            &|object| object.key().name != "b",
            &WriteOptions::default(),
        )
        .unwrap();
    assert_eq!(deleted.len(), 2);
    assert!(cluster.get("ConfigMap", "b").is_some());
    assert_eq!(cluster.get("ConfigMap", "a"), None);
}
