//! LimitRanges: what they are, what they give to new pods, and what they refuse.

use serde_json::{Value, json};

use crate::{Cluster, with};

fn range(limits: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r"},
        "spec": {"limits": limits}})
}

fn pod(requests: Value, limits: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [
            {"name": "c", "image": "i", "resources": {"requests": requests, "limits": limits}}]}})
}

#[test]
fn containers_without_amounts_get_those_of_the_namespace() {
    let cluster = Cluster::new();
    let stored = cluster
        .create(range(json!([{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "64Mi"},
            "defaultRequest": {"cpu": "100m"}}])))
        .unwrap();
    let item = &stored["spec"]["limits"][0];
    assert_eq!(item["default"], json!({"cpu": "2"}), "the maximum is the default limit");
    assert_eq!(item["defaultRequest"], json!({"cpu": "100m", "memory": "64Mi"}));
    let stored = cluster.create(pod(json!({}), json!({}))).unwrap();
    assert_eq!(
        stored["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "2"}})
    );
    assert_eq!(
        stored["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container c; cpu limit for container c"
    );
    let own = pod(json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "1"}));
    let stored = cluster.create(with(own, "metadata.name", json!("own"))).unwrap();
    assert_eq!(stored["metadata"].get("annotations"), None, "nothing was missing");
}

#[test]
fn pods_beyond_the_bounds_are_refused() {
    for (item, requests, limits, expected) in [
        (
            json!({"type": "Container", "min": {"cpu": "100m"}}),
            json!({"cpu": "50m"}),
            json!({}),
            "minimum cpu usage per Container is 100m, but request is 50m",
        ),
        (
            json!({"type": "Container", "max": {"cpu": "1"}}),
            json!({"cpu": "1"}),
            json!({"cpu": "2"}),
            "maximum cpu usage per Container is 1, but limit is 2",
        ),
        (
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
            json!({"cpu": "1"}),
            json!({"cpu": "3"}),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
        ),
        (
            json!({"type": "Pod", "max": {"memory": "1Gi"}, "min": {"cpu": "1"}}),
            json!({"cpu": "1"}),
            json!({}),
            "maximum memory usage per Pod is 1Gi.  No limit is specified",
        ),
        (
            json!({"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"}}),
            json!({}),
            json!({}),
            "[minimum cpu usage per Pod is 1.  No request is specified, maximum cpu usage per Pod is 2.  No limit is specified]",
        ),
    ] {
        let cluster = Cluster::new();
        cluster.create(range(json!([item]))).unwrap();
        let refusal = cluster.create(pod(requests, limits)).unwrap_err();
        assert_eq!(refusal.message, format!("pods \"p\" is forbidden: {expected}"));
    }
    let cluster = Cluster::new();
    cluster
        .create(range(json!([{"type": "PersistentVolumeClaim", "max": {"storage": "5Gi"}}])))
        .unwrap();
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "6Gi"}}}});
    let refusal = cluster.create(claim).unwrap_err();
    assert_eq!(
        refusal.message,
        "persistentvolumeclaims \"data\" is forbidden: maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"
    );
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    for (item, expected) in [
        (
            json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}}),
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
        ),
        (
            json!({"type": "Pod", "default": {"cpu": "1"}}),
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
        ),
        (
            json!({"type": "PersistentVolumeClaim"}),
            "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
        ),
        (
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}}),
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
        ),
    ] {
        let refusal = Cluster::new().create(range(json!([item]))).unwrap_err();
        assert!(refusal.message.contains(expected), "{refusal}");
    }
    let twice = json!([{"type": "Container"}, {"type": "Container"}]);
    let refusal = Cluster::new().create(range(twice)).unwrap_err();
    let expected = "spec.limits[1].type: Duplicate value: \"Container\"";
    assert!(refusal.message.ends_with(expected), "{refusal}");
}
