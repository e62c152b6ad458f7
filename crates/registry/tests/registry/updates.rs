//! Updates: versions, parts, generations, no-ops.

use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec};
use serde_json::json;
use wharf_ports::cluster::Part;
use wharf_ports::error::StatusReason;
use wharf_registry::WriteOptions;

use crate::{Cluster, config_map, deployment, key, kind_of, pod, with};

#[test]
fn a_stale_version_is_a_conflict_and_none_is_not() {
    let cluster = Cluster::new();
    let first = cluster.create(config_map("m")).unwrap();
    cluster.update(with(first.clone(), "data.k", json!("w")), Part::Main).unwrap();
    assert_eq!(
        cluster.update(with(first.clone(), "data.k", json!("x")), Part::Main).unwrap_err().message,
        r#"Operation cannot be fulfilled on configmaps "m": the object has been modified; please apply your changes to the latest version and try again"#
    );
    let unversioned =
        with(with(first.clone(), "data.k", json!("x")), "metadata.resourceVersion", json!(null));
    assert_eq!(cluster.update(unversioned, Part::Main).unwrap()["data"]["k"], "x");
    let other_uid =
        with(with(first, "metadata.uid", json!("u")), "metadata.resourceVersion", json!(null));
    assert_eq!(cluster.update(other_uid, Part::Main).unwrap_err().reason, StatusReason::Conflict);
    assert_eq!(
        cluster.update(config_map("none"), Part::Main).unwrap_err().message,
        r#"configmaps "none" not found"#
    );
}

#[test]
fn each_part_leaves_the_other() {
    let cluster = Cluster::new();
    let stored = cluster.create(deployment("x")).unwrap();
    let both = with(with(stored, "spec.replicas", json!(3)), "status.replicas", json!(2));
    let main = cluster.update(both.clone(), Part::Main).unwrap();
    assert_eq!((&main["spec"]["replicas"], &main["status"]), (&json!(3), &json!({})));
    assert_eq!(main["metadata"]["generation"], 2);
    let both = with(both, "metadata.resourceVersion", json!(null));
    let both =
        with(with(both, "spec.replicas", json!(9)), "metadata.labels", json!({"new": "label"}));
    let status = cluster.update(both, Part::Status).unwrap();
    assert_eq!(
        (&status["spec"]["replicas"], &status["status"]["replicas"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(status["metadata"].get("labels"), None);
    assert_eq!(status["metadata"]["generation"], 2, "a status starts no generation");
    let all = with(with(status, "spec.replicas", json!(5)), "status.replicas", json!(4));
    let all = cluster.update(all, Part::All).unwrap();
    assert_eq!((&all["spec"]["replicas"], &all["status"]["replicas"]), (&json!(5), &json!(4)));
    assert_eq!(all["metadata"]["generation"], 3);
}

#[test]
fn an_update_that_changes_nothing_writes_nothing() {
    let cluster = Cluster::new();
    let stored = cluster.create(pod("p")).unwrap();
    let revision = cluster.registry.store().revision();
    assert_eq!(cluster.update(stored.clone(), Part::Main).unwrap(), stored);
    // A manifest without the defaults is the same object, too.
    let plain = with(stored.clone(), "spec.terminationGracePeriodSeconds", json!(null));
    let plain = with(plain, "spec.priority", json!(null));
    assert_eq!(cluster.update(plain, Part::Main).unwrap(), stored);
    assert_eq!(cluster.registry.store().revision(), revision);
}

#[test]
fn metadata_that_cannot_change() {
    let cluster = Cluster::new();
    let stored = cluster.create(config_map("m")).unwrap();
    let moved = with(stored, "metadata.creationTimestamp", json!("2020-01-01T00:00:00Z"));
    assert_eq!(
        cluster.update(moved, Part::Main).unwrap_err().message,
        r#"ConfigMap "m" is invalid: metadata.creationTimestamp: Invalid value: "2020-01-01T00:00:00Z": field is immutable"#
    );
}

#[test]
fn scaling_starts_a_generation() {
    let cluster = Cluster::new();
    cluster.create(deployment("x")).unwrap();
    let (kind, key) = (kind_of("Deployment"), key(kind_of("Deployment"), "x"));
    let options = WriteOptions::default();
    let to =
        |replicas| Scale { spec: Some(ScaleSpec { replicas: Some(replicas) }), ..Scale::default() };
    let scaled = cluster.registry.set_scale(kind, &key, &to(5), &options).unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(5));
    assert_eq!(scaled.status.unwrap().selector.as_deref(), Some("app=x"));
    let stored = cluster.get("Deployment", "x").unwrap();
    assert_eq!(
        (&stored["spec"]["replicas"], &stored["metadata"]["generation"]),
        (&json!(5), &json!(2))
    );
    let revision = cluster.registry.store().revision();
    cluster.registry.set_scale(kind, &key, &to(5), &options).unwrap();
    assert_eq!(cluster.registry.store().revision(), revision);
    assert_eq!(
        cluster.registry.set_scale(kind, &key, &to(-1), &options).unwrap_err().message,
        r#"Scale.autoscaling "x" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"#
    );
    let refusal = cluster.registry.scale(kind_of("Pod"), &crate::key(kind_of("Pod"), "x"));
    assert_eq!(refusal.unwrap_err().reason, StatusReason::NotFound);
}

#[test]
fn a_lease_is_created_by_its_first_update() {
    let cluster = Cluster::new();
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}});
    assert_eq!(cluster.update(lease, Part::Main).unwrap()["spec"]["holderIdentity"], "me");
}

#[test]
fn a_service_gives_up_what_came_with_its_type() {
    let cluster = Cluster::new();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
    let stored = cluster.create(service).unwrap();
    assert_eq!(stored["spec"]["allocateLoadBalancerNodePorts"], true);
    let inner =
        cluster.update(with(stored.clone(), "spec.type", json!("ClusterIP")), Part::Main).unwrap();
    assert_eq!(inner["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(inner["spec"].get("externalTrafficPolicy"), None);
    assert_eq!(inner["spec"]["clusterIP"], stored["spec"]["clusterIP"]);
    let named =
        with(with(inner, "spec.type", json!("ExternalName")), "spec.externalName", json!("a.b"));
    let named = cluster.update(named, Part::Main).unwrap();
    assert_eq!(named["spec"].get("clusterIP"), None);
}

/// A kubelet that writes its status from an old copy does not undo what others did meanwhile.
#[test]
fn labels_come_with_a_status_only_if_its_version_is_told() {
    let cluster = Cluster::new();
    let old = cluster.create(pod("p")).unwrap();
    let labelled = with(old.clone(), "metadata.labels", json!({"new": "label"}));
    cluster.update(labelled, Part::Main).unwrap();
    let late =
        with(with(old, "metadata.resourceVersion", json!(null)), "status.message", json!("hi"));
    let stored = cluster.update(late, Part::Status).unwrap();
    assert_eq!(stored["status"]["message"], "hi");
    assert_eq!(stored["metadata"]["labels"], json!({"new": "label"}));
    let both =
        with(with(stored, "metadata.labels", json!({"a": "b"})), "status.message", json!("ho"));
    assert_eq!(
        cluster.update(both, Part::Status).unwrap()["metadata"]["labels"],
        json!({"a": "b"})
    );
}

#[test]
fn writers_in_parallel_neither_fail_nor_share_addresses() {
    let cluster = Cluster::new();
    cluster.create(config_map("m")).unwrap();
    let service = |name: String| {
        json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}})
    };
    let addresses: Vec<(String, i64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let cluster = &cluster;
                scope.spawn(move || {
                    (0..25)
                        .map(|turn| {
                            let changed =
                                with(config_map("m"), "data.k", json!(format!("{thread}-{turn}")));
                            cluster.update(changed, Part::Main).unwrap();
                            let stored =
                                cluster.create(service(format!("s{thread}-{turn}"))).unwrap();
                            let spec = &stored["spec"];
                            let address = spec["clusterIP"].as_str().unwrap().to_owned();
                            (address, spec["ports"][0]["nodePort"].as_i64().unwrap())
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let distinct: std::collections::BTreeSet<_> =
        addresses.iter().map(|(address, _)| address).collect();
    assert_eq!(distinct.len(), 100);
    let distinct: std::collections::BTreeSet<_> = addresses.iter().map(|(_, port)| port).collect();
    assert_eq!(distinct.len(), 100);
}
