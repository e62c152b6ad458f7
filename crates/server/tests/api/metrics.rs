//! The metrics APIs and a kubelet's own endpoints.

use std::time::Duration;

use serde_json::{Value, json};
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::metrics::{Level, Series, Told, Value as Measured};

use crate::harness::{Cluster, NOW};

const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default";

fn ago(seconds: u64) -> Time {
    NOW - Duration::from_secs(seconds)
}

/// A node, a pod on it that uses half a core, and one that nothing is known of.
async fn cluster() -> Cluster {
    let cluster = Cluster::new();
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n"},
        "status": {"capacity": {"memory": "4Gi"}}});
    cluster.post("/api/v1/nodes", node).await;
    for (name, app) in [("a", "web"), ("b", "db")] {
        let pod = json!({"metadata": {"name": name, "labels": {"app": app}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        cluster.post("/api/v1/namespaces/default/pods", pod).await;
        let binding = json!({"metadata": {"name": name}, "target": {"name": "n"}});
        let path = format!("/api/v1/namespaces/default/pods/{name}/binding");
        assert_eq!(cluster.post(&path, binding).await.code, 201);
    }
    let level = Level { cpu_nanos: 500_000_000, memory_bytes: 64 << 20 };
    cluster.board.take(Told::Container {
        pod: ObjectKey::namespaced("default", "a"),
        container: "c".into(),
        started: ago(100),
        at: ago(100),
        level,
    });
    cluster.board.take(Told::Node { node: "n".into(), at: ago(100), level });
    cluster
}

#[tokio::test]
async fn usage_is_listed_and_found_by_name() {
    let cluster = cluster().await;
    let list = cluster.get(PODS).await.json();
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("PodMetricsList"), &json!("metrics.k8s.io/v1beta1"))
    );
    let items = list["items"].as_array().expect("a list");
    assert_eq!(items.len(), 1, "what is not measured is left out");
    let expected = json!({
        "metadata": {"name": "a", "namespace": "default", "labels": {"app": "web"},
            "creationTimestamp": NOW.to_string()},
        "timestamp": ago(5).to_string(),
        "window": "15s",
        "containers": [{"name": "c", "usage": {"cpu": "500m", "memory": "64Mi"}}],
    });
    assert_eq!(items[0], expected);
    let one = cluster.get(&format!("{PODS}/a")).await.json();
    assert_eq!((&one["kind"], &one["containers"]), (&json!("PodMetrics"), &expected["containers"]));
    for (query, count) in [
        ("labelSelector=app%3Dweb", 1),
        ("labelSelector=app%3Ddb", 0),
        ("fieldSelector=metadata.name%3Da", 1),
    ] {
        assert_eq!(cluster.get(&format!("{PODS}?{query}")).await.names().len(), count, "{query}");
    }
    let nodes = cluster.get("/apis/metrics.k8s.io/v1beta1/nodes").await.json();
    assert_eq!(nodes["items"][0]["usage"], json!({"cpu": "500m", "memory": "64Mi"}));
    for (path, expected) in [
        (format!("{PODS}/b"), "404 NotFound: podmetrics.metrics.k8s.io \"default/b\" not found"),
        (format!("{PODS}/x"), "404 NotFound: pods \"default/x\" not found"),
        ("/apis/metrics.k8s.io/v1beta1/nodes/x".to_owned(), "404 NotFound: nodes \"x\" not found"),
    ] {
        assert_eq!(cluster.get(&path).await.refusal(), expected);
    }
    let refused = cluster.call("DELETE", &format!("{PODS}/a"), &[], b"").await;
    assert_eq!(refused.code, 405);
}

#[tokio::test]
async fn custom_and_external_metrics_are_answered() {
    let cluster = cluster().await;
    let tell = |resource: &str, name: &str, labels: &[(&str, &str)], number: f64| {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (object, metric) = (ObjectKey::namespaced("default", name), "rps".into());
        let series = Series { resource: resource.into(), object, metric, labels };
        cluster.board.take(Told::Value { series, value: Measured::Number(number), at: ago(60) });
    };
    tell("pods", "a", &[], 2.5);
    tell("services", "web", &[], 7.0);
    tell("", "q", &[("queue", "a")], 42.0);
    let values = |answer: Value| -> Vec<Value> {
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().map(|item| item["value"].clone()).collect()
    };
    for (path, expected) in [
        (format!("{CUSTOM}/pods/*/rps"), vec!["2500m"]),
        (format!("{CUSTOM}/pods/*/rps?labelSelector=app%3Dweb"), vec!["2500m"]),
        (format!("{CUSTOM}/services/web/rps"), vec!["7"]),
        (format!("{EXTERNAL}/rps"), vec!["42"]),
        (format!("{EXTERNAL}/rps?labelSelector=queue%3Db"), vec![]),
    ] {
        assert_eq!(values(cluster.get(&path).await.json()), expected, "{path}");
    }
    let item = &cluster.get(&format!("{CUSTOM}/pods/*/rps")).await.json()["items"][0];
    let described = json!({"kind": "Pod", "name": "a", "namespace": "default", "apiVersion": "v1"});
    assert_eq!((&item["describedObject"], &item["metric"]["name"]), (&described, &json!("rps")));
    for (path, expected) in [
        (
            format!("{CUSTOM}/pods/*/other"),
            "404 NotFound: the server could not find the metric other for pods",
        ),
        (
            format!("{CUSTOM}/services/x/rps"),
            "404 NotFound: the server could not find the metric rps for services x",
        ),
    ] {
        assert_eq!(cluster.get(&path).await.refusal(), expected);
    }
    let resources = cluster.get("/apis/custom.metrics.k8s.io/v1beta2").await.json();
    let names: Vec<&Value> = resources["resources"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| &entry["name"])
        .collect();
    assert_eq!(names, ["pods/rps", "services/rps"]);
    // As KEDA's metrics server says it.
    let external = cluster.get("/apis/external.metrics.k8s.io/v1beta1").await.json();
    assert_eq!(
        external["resources"],
        json!([{"name": "externalmetrics", "singularName": "", "namespaced": true,
            "kind": "ExternalMetricValueList", "verbs": ["get"]}])
    );
}

#[tokio::test]
async fn a_kubelet_tells_its_counters() {
    let cluster = cluster().await;
    let text = cluster.get("/api/v1/nodes/n/proxy/metrics/resource").await;
    let text = String::from_utf8(text.body.to_vec()).expect("text");
    let millis = NOW.as_nanos() / 1_000_000;
    for line in [
        format!(
            "container_cpu_usage_seconds_total{{container=\"c\",namespace=\"default\",pod=\"a\"}} 50 {millis}"
        ),
        format!(
            "pod_memory_working_set_bytes{{namespace=\"default\",pod=\"a\"}} 67108864 {millis}"
        ),
        format!("node_cpu_usage_seconds_total 50 {millis}"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let summary = cluster.get("/api/v1/nodes/n/proxy/stats/summary").await.json();
    assert_eq!(summary["pods"][0]["podRef"]["name"], "a");
    assert_eq!(
        summary["pods"][0]["containers"][0]["cpu"]["usageCoreNanoSeconds"],
        50_000_000_000_u64
    );
    assert_eq!(summary["node"]["memory"]["workingSetBytes"], 64 << 20);
    assert_eq!(cluster.get("/api/v1/nodes/x/proxy/stats/summary").await.code, 404);
}
