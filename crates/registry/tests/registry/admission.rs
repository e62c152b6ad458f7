//! Defaults and admission of new objects.

use serde_json::{Value, json};
use wharf_ports::cluster::Part;
use wharf_registry::WriteOptions;

use crate::{Cluster, START, deployment, pod, typed, with};

#[test]
fn a_pod_is_filled_in() {
    let cluster = Cluster::new();
    let stored = cluster.create(pod("p")).unwrap();
    assert_eq!(stored["metadata"]["creationTimestamp"], START.to_string());
    assert_eq!(stored["metadata"]["generation"], 1);
    assert_eq!(stored["metadata"]["uid"].as_str().map(str::len), Some(36));
    let spec = &stored["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["serviceAccount"], "default");
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    assert_eq!(
        spec["tolerations"],
        json!([
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        ])
    );
    assert_eq!(stored["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
}

#[test]
fn a_deployment_is_filled_in() {
    let stored = Cluster::new().create(deployment("x")).unwrap();
    let spec = &stored["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    let template = &spec["template"]["spec"];
    assert_eq!(template["restartPolicy"], "Always");
    assert_eq!(template.get("priority"), None, "templates are not admitted as pods");
    assert_eq!(template.get("enableServiceLinks"), None);
    assert_eq!(stored["status"], json!({}));
}

#[test]
fn a_service_gets_the_same_address_everywhere() {
    let service = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]}})
    };
    let cluster = Cluster::new();
    let (first, second) =
        (cluster.create(service("a")).unwrap(), cluster.create(service("b")).unwrap());
    let spec = &first["spec"];
    assert!(spec["clusterIP"].as_str().is_some_and(|address| address.starts_with("10.100.")));
    assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
    assert_ne!(spec["clusterIP"], second["spec"]["clusterIP"]);
    assert_eq!(spec["ports"][0]["targetPort"], 80);
    assert_eq!(spec["ports"][0]["protocol"], "TCP");
    let port = spec["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30_000..32_768).contains(&port));
    assert_eq!(spec["internalTrafficPolicy"], "Cluster");
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    assert_eq!(spec["sessionAffinity"], "None");
    let elsewhere = Cluster::new().create(service("a")).unwrap();
    assert_eq!(elsewhere["spec"], first["spec"]);
    let kept =
        with(with(first.clone(), "spec.clusterIP", json!(null)), "spec.clusterIPs", json!(null));
    let kept = with(kept, "spec.ports", json!([{"port": 80}]));
    assert_eq!(cluster.update(kept, Part::Main).unwrap()["spec"], first["spec"]);
    let headless = with(service("h"), "spec", json!({"clusterIP": "None"}));
    assert_eq!(cluster.create(headless).unwrap()["spec"]["clusterIPs"], json!(["None"]));
}

#[test]
fn names_are_generated_and_unique() {
    let cluster = Cluster::new();
    let manifest =
        with(with(pod("p"), "metadata.name", json!(null)), "metadata.generateName", json!("web-"));
    let name = |stored: Value| stored["metadata"]["name"].as_str().unwrap().to_owned();
    let (first, second) =
        (name(cluster.create(manifest.clone()).unwrap()), name(cluster.create(manifest).unwrap()));
    assert!(first.starts_with("web-") && first.len() == 9, "{first}");
    assert_ne!(first, second);
}

#[test]
fn what_is_refused_before_validation() {
    let cluster = Cluster::new();
    let refused = |manifest: Value, message: &str| {
        assert_eq!(cluster.create(manifest).expect_err(message).message, message);
    };
    cluster.create(pod("p")).unwrap();
    refused(pod("p"), r#"pods "p" already exists"#);
    refused(
        with(pod("q"), "metadata.resourceVersion", json!("1")),
        "resourceVersion should not be set on objects to be created",
    );
    refused(
        with(pod("q"), "spec.priorityClassName", json!("no")),
        r#"pods "q" is forbidden: no PriorityClass with name no was found"#,
    );
    refused(
        with(pod("q"), "spec.serviceAccountName", json!("no")),
        r#"pods "q" is forbidden: error looking up service account default/no: serviceaccount "no" not found"#,
    );
    refused(
        with(
            with(pod("q"), "spec.priorityClassName", json!("system-node-critical")),
            "spec.priority",
            json!(5),
        ),
        r#"pods "q" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 2000001000 from the given PriorityClass name"#,
    );
    let elsewhere = with(pod("q"), "metadata.namespace", json!("other"));
    let options = WriteOptions { namespace: "other".into(), ..WriteOptions::default() };
    assert_eq!(
        cluster.create_with(elsewhere.clone(), &options).unwrap_err().message,
        r#"namespaces "other" not found"#
    );
    assert!(
        cluster
            .create(elsewhere)
            .unwrap_err()
            .message
            .starts_with("the namespace of the provided object does not match")
    );
}

#[test]
fn a_new_namespace_has_a_service_account() {
    let cluster = Cluster::new();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    let stored = cluster.create(namespace).unwrap();
    assert_eq!(stored["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "team"}));
    assert_eq!(stored["spec"], json!({"finalizers": ["kubernetes"]}));
    assert_eq!(stored["status"], json!({"phase": "Active"}));
    let options = WriteOptions { namespace: "team".into(), ..WriteOptions::default() };
    cluster.create_with(pod("p"), &options).expect("its pods find their account");
}

#[test]
fn a_gated_pod_says_so_and_cannot_be_bound() {
    let cluster = Cluster::new();
    let stored =
        cluster.create(with(pod("p"), "spec.schedulingGates", json!([{"name": "wait"}]))).unwrap();
    assert_eq!(
        stored["status"]["conditions"],
        json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastTransitionTime": START.to_string(), "observedGeneration": 1}])
    );
    let key = crate::key(crate::kind_of("Pod"), "p");
    let refusal = cluster.registry.bind(&key, None, "n", &WriteOptions::default()).unwrap_err();
    assert_eq!(
        refusal.message,
        r#"Operation cannot be fulfilled on pods/binding "p": pod p has non-empty .spec.schedulingGates"#
    );
    let open = cluster.update(with(stored, "spec.schedulingGates", json!(null)), Part::Main);
    open.expect("gates may be taken away");
    cluster.registry.bind(&key, None, "n", &WriteOptions::default()).expect("an open pod binds");
}

#[test]
fn binding_sets_node_condition_and_topology() {
    let cluster = Cluster::new();
    cluster
        .create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {
            "topology.kubernetes.io/zone": "us-east-1a", "topology.kubernetes.io/region": "us-east-1", "other": "x"}}}))
        .unwrap();
    cluster.create(pod("p")).unwrap();
    let key = crate::key(crate::kind_of("Pod"), "p");
    let bind = |uid| cluster.registry.bind(&key, uid, "n", &WriteOptions::default());
    assert!(bind(Some("another")).unwrap_err().retryable());
    let bound = crate::json_of(&bind(None).unwrap());
    assert_eq!(bound["spec"]["nodeName"], "n");
    assert_eq!(bound["metadata"]["generation"], 1);
    assert_eq!(
        bound["metadata"]["labels"],
        json!({"app": "p", "topology.kubernetes.io/zone": "us-east-1a", "topology.kubernetes.io/region": "us-east-1"})
    );
    assert_eq!(bound["status"]["conditions"][0]["status"], "True");
    assert_eq!(
        bind(None).unwrap_err().message,
        r#"Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n""#
    );
}

#[test]
fn a_dry_run_stores_nothing() {
    let cluster = Cluster::new();
    let revision = cluster.registry.store().revision();
    let options =
        WriteOptions { namespace: "default".into(), dry_run: true, ..WriteOptions::default() };
    let answer = cluster.registry.create(typed(&pod("p")), &options).unwrap();
    assert!(!answer.uid().is_empty());
    assert_eq!(cluster.registry.store().revision(), revision);
    assert_eq!(cluster.get("Pod", "p"), None);
}

#[test]
fn bootstrap_runs_again_without_change() {
    let cluster = Cluster::new();
    let revision = cluster.registry.store().revision();
    cluster.registry.bootstrap().unwrap();
    assert_eq!(cluster.registry.store().revision(), revision);
    assert_eq!(cluster.get("Service", "kubernetes").unwrap()["spec"]["clusterIP"], "10.100.0.1");
    assert_eq!(
        cluster.get("PriorityClass", "system-node-critical").unwrap()["value"],
        2_000_001_000
    );
}
