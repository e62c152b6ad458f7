//! Kinds that are served in more than one version.

use serde_json::json;

use crate::harness::Cluster;

const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";

#[tokio::test]
async fn an_autoscaler_is_one_object_in_two_versions() {
    let cluster = Cluster::new();
    let old = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "maxReplicas": 10, "targetCPUUtilizationPercentage": 50}});
    let created = cluster.post(V1, old).await;
    assert_eq!(created.code, 201, "{:?}", created.body);
    assert_eq!(created.json()["apiVersion"], "autoscaling/v1");
    assert_eq!(created.json()["spec"]["targetCPUUtilizationPercentage"], 50);
    let new = cluster.get(&format!("{V2}/h")).await.json();
    assert_eq!(new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    assert_eq!(new["spec"]["minReplicas"], 1);

    let merge = [("content-type", "application/merge-patch+json")];
    let patch = json!({"spec": {"behavior": {"scaleUp": {"tolerance": "50m"}}}}).to_string();
    let patched = cluster.call("PATCH", &format!("{V2}/h"), &merge, patch.as_bytes()).await;
    assert_eq!(patched.code, 200, "{:?}", patched.body);
    // A change by way of the old version keeps what only the new one has fields for.
    let patch = json!({"spec": {"targetCPUUtilizationPercentage": 70, "metrics": []}}).to_string();
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let patched = cluster.call("PATCH", &format!("{V1}/h"), &strategic, patch.as_bytes()).await;
    assert_eq!(patched.code, 200, "{:?}", patched.body);
    assert_eq!(patched.headers["warning"], r#"299 - "unknown field \"spec.metrics\"""#);
    let new = cluster.get(&format!("{V2}/h")).await.json();
    assert_eq!(new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    assert_eq!(new["spec"]["behavior"]["scaleUp"]["tolerance"], "50m");
    assert!(new["metadata"].get("annotations").is_none());

    let list = cluster.get(V1).await.json();
    assert_eq!(list["apiVersion"], "autoscaling/v1");
    assert_eq!(list["items"][0].get("apiVersion"), None, "items of built-in lists have none");
    assert_eq!(list["items"][0]["spec"]["targetCPUUtilizationPercentage"], 70);
    let wrong = cluster.post(V1, json!({"apiVersion": "autoscaling/v2"})).await;
    assert!(wrong.refusal().contains("does not match the expected API version (autoscaling/v1)"));
}
