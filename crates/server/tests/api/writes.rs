//! Create, update, patch, delete and the subresources.

use serde_json::json;

use crate::harness::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let cluster = Cluster::new();
    let revision = cluster.store.revision();
    let map = json!({"metadata": {"generateName": "a-"}});
    let answer = cluster.post(&format!("{MAPS}?dryRun=All"), map).await;
    assert_eq!(answer.code, 201);
    assert!(answer.json()["metadata"]["name"].as_str().expect("a name").starts_with("a-"));
    assert!(answer.json()["metadata"].get("resourceVersion").is_none());
    assert_eq!(cluster.store.revision(), revision);
    let wrong = cluster.post(&format!("{MAPS}?dryRun=Some"), json!({})).await;
    assert!(wrong.refusal().starts_with("422 Invalid: CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"Some\""));
}

#[tokio::test]
async fn unknown_fields_warn_or_are_refused() {
    let cluster = Cluster::new();
    let map = json!({"metadata": {"name": "a"}, "foo": 1});
    let strict = cluster.post(&format!("{MAPS}?fieldValidation=Strict"), map.clone()).await;
    assert!(strict.refusal().contains("strict decoding error: unknown field \"foo\""));
    let warned = cluster.post(MAPS, map).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.headers["warning"], r#"299 - "unknown field \"foo\"""#);
}

#[tokio::test]
async fn admission_warns_of_what_it_lets_in() {
    let cluster = Cluster::new();
    let path = "/apis/autoscaling.k8s.io/v1/namespaces/default/verticalpodautoscalers";
    let autoscaler = json!({"apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler",
        "metadata": {"name": "a"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"},
            "updatePolicy": {"updateMode": "Auto"}}});
    let answer = cluster.post(path, autoscaler).await;
    assert_eq!(answer.code, 201, "{:?}", answer.body);
    let warning = answer.headers["warning"].to_str().expect("text");
    assert!(warning.contains(r#"\"Auto\" mode is deprecated"#), "{warning}");
    let wrong = json!({"metadata": {"name": "b"}, "spec": {"targetRef": {"kind": "D", "name": "b"},
        "updatePolicy": {"updateMode": "Now"}}, "kind": "VerticalPodAutoscaler",
        "apiVersion": "autoscaling.k8s.io/v1"});
    let answer = cluster.post(path, wrong).await;
    assert_eq!((answer.code, answer.json().get("reason")), (400, None), "{:?}", answer.body);
}

#[tokio::test]
async fn yaml_bodies_are_taken() {
    let cluster = Cluster::new();
    let yaml = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: v\n";
    let answer = cluster.call("POST", MAPS, &[("content-type", "application/yaml")], yaml).await;
    assert_eq!(answer.code, 201, "{:?}", answer.body);
    assert_eq!(answer.json()["data"]["k"], "v");
}

#[tokio::test]
async fn protobuf_bodies_are_taken() {
    let cluster = Cluster::new();
    // runtime.Unknown{v1 Namespace} around Namespace{metadata{name: "n"}}.
    let body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x05\x0a\x03\x0a\x01n\x1a\0\x22\0";
    let headers = [
        ("content-type", "application/vnd.kubernetes.protobuf"),
        ("accept", "application/vnd.kubernetes.protobuf,application/json"),
    ];
    let answer = cluster.call("POST", "/api/v1/namespaces", &headers, body).await;
    assert_eq!(answer.code, 201, "{:?}", answer.body);
    assert_eq!(answer.json()["metadata"]["name"], "n");
}

#[tokio::test]
async fn updates_respect_the_version_they_name() {
    let cluster = Cluster::new();
    cluster.config_map("a", "x").await;
    let path = format!("{MAPS}/a");
    let mut map = cluster.get(&path).await.json();
    let old = map.clone();
    map["data"] = json!({"k": "2"});
    assert_eq!(cluster.put(&path, map).await.code, 200);
    let stale = cluster.put(&path, old.clone()).await.refusal();
    assert!(stale.starts_with("409 Conflict: Operation cannot be fulfilled on configmaps \"a\": the object has been modified"), "{stale}");
    let version = old["metadata"]["resourceVersion"].clone();
    let patch = cluster.merge(&path, json!({"metadata": {"resourceVersion": version}})).await;
    assert_eq!(patch.code, 409);
    assert_eq!(
        cluster.merge(&path, json!({"data": {"k": null, "l": "3"}})).await.json()["data"],
        json!({"l": "3"})
    );
}

#[tokio::test]
async fn patches_come_in_three_kinds() {
    let cluster = Cluster::new();
    cluster.pod("p").await;
    let path = format!("{PODS}/p");
    let json_patch = br#"[{"op": "add", "path": "/metadata/labels/a", "value": "1"}]"#;
    let headers = [("content-type", "application/json-patch+json")];
    let answer = cluster.call("PATCH", &path, &headers, json_patch).await;
    assert_eq!(answer.json()["metadata"]["labels"], json!({"app": "web", "a": "1"}));
    let strategic = br#"{"spec": {"containers": [{"name": "c", "image": "j"}]}}"#;
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    let answer = cluster.call("PATCH", &path, &headers, strategic).await;
    assert_eq!(answer.json()["spec"]["containers"][0]["image"], "j");
    let unknown = cluster.call("PATCH", &path, &[("content-type", "text/plain")], b"{}").await;
    assert_eq!(unknown.code, 415);
}

#[tokio::test]
async fn deletions_answer_with_a_status_or_the_object() {
    let cluster = Cluster::new();
    cluster.config_map("a", "x").await;
    let uid = cluster.get(&format!("{MAPS}/a")).await.json()["metadata"]["uid"].clone();
    let wrong = json!({"preconditions": {"uid": "other"}});
    let path = format!("{MAPS}/a");
    let refused = cluster.call("DELETE", &path, &[], wrong.to_string().as_bytes()).await;
    assert_eq!(refused.code, 409);
    let status = cluster.delete(&path).await.json();
    assert_eq!(status["status"], "Success");
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps", "uid": uid}));
    cluster.pod("p").await;
    assert_eq!(cluster.delete(&format!("{PODS}/p")).await.json()["kind"], "Pod");
    let policy = cluster.delete(&format!("{MAPS}/a?propagationPolicy=Sideways")).await.refusal();
    assert!(policy.starts_with("422 Invalid: DeleteOptions.meta.k8s.io"), "{policy}");
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let cluster = Cluster::new();
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        cluster.config_map(name, tier).await;
    }
    let deleted = cluster.delete(&format!("{MAPS}?labelSelector=tier%3Dx")).await;
    assert_eq!(deleted.names(), ["a", "c"]);
    assert_eq!(cluster.get(&format!("{MAPS}?labelSelector=tier")).await.names(), ["b"]);
}

#[tokio::test]
async fn a_workload_is_scaled() {
    let cluster = Cluster::new();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(cluster.post(path, deployment).await.code, 201);
    let scale_path = format!("{path}/d/scale");
    let mut scale = cluster.get(&scale_path).await.json();
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["status"]["selector"], "a=b");
    scale["spec"]["replicas"] = 3.into();
    assert_eq!(cluster.put(&scale_path, scale).await.json()["spec"]["replicas"], 3);
    let patched = cluster.merge(&scale_path, json!({"spec": {"replicas": 5}})).await;
    assert_eq!(patched.json()["spec"]["replicas"], 5);
    assert_eq!(cluster.get(&format!("{path}/d")).await.json()["spec"]["replicas"], 5);
    assert_eq!(cluster.get(&format!("{path}/none/scale")).await.code, 404);
}

#[tokio::test]
async fn pods_are_bound_and_evicted() {
    let cluster = Cluster::new();
    cluster.pod("p").await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let bound = cluster.post(&format!("{PODS}/p/binding"), binding.clone()).await;
    assert_eq!((bound.code, bound.json()["status"].clone()), (201, json!("Success")));
    assert_eq!(cluster.get(&format!("{PODS}/p")).await.json()["spec"]["nodeName"], "n");
    let again = cluster.post("/api/v1/namespaces/default/bindings", binding).await.refusal();
    assert!(again.starts_with("409 Conflict: Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""), "{again}");
    let no_target = json!({"metadata": {"name": "p"}, "target": {}});
    let refused = cluster.post(&format!("{PODS}/p/binding"), no_target).await.refusal();
    assert_eq!(refused, "422 Invalid: Binding \"p\" is invalid: target.name: Required value");
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    assert_eq!(cluster.post(&format!("{PODS}/p/eviction"), eviction).await.code, 201);
    let pod = cluster.get(&format!("{PODS}/p")).await.json();
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    let exec = cluster.post(&format!("{PODS}/p/exec?command=sh"), json!({})).await.refusal();
    assert_eq!(exec, "400 BadRequest: Upgrade request required");
}

#[tokio::test]
async fn events_have_two_faces() {
    let cluster = Cluster::new();
    let event = json!({"metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "note": "hello", "reason": "Because", "type": "Normal", "action": "Do",
        "reportingController": "c", "reportingInstance": "i", "eventTime": "2026-11-21T10:00:00.000000Z"});
    let created = cluster.post("/apis/events.k8s.io/v1/namespaces/default/events", event).await;
    assert_eq!(created.code, 201, "{:?}", created.body);
    assert_eq!(created.json()["note"], "hello");
    let core = cluster.get("/api/v1/namespaces/default/events/e").await.json();
    assert_eq!(core["message"], "hello");
    assert_eq!(core["involvedObject"]["name"], "p");
    let path = "/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Dp";
    assert_eq!(cluster.get(path).await.names(), ["e"]);
    let path = "/api/v1/events?fieldSelector=involvedObject.name%3Dq";
    assert!(cluster.get(path).await.names().is_empty());
}
