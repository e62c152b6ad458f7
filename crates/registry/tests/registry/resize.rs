//! The `resize` subresource of pods.

use serde_json::{Value, json};
use wharf_ports::cluster::Part;

use crate::{Cluster, with};

fn pod(resources: &Value) -> Value {
    with(crate::pod("p"), "spec.containers.0.resources", resources.clone())
}

#[test]
fn a_resize_changes_nothing_but_cpu_and_memory() {
    let cluster = Cluster::new();
    let before = json!({"requests": {"cpu": "100m", "memory": "50Mi"}, "limits": {"cpu": "200m"}});
    let stored = cluster.create(pod(&before)).unwrap();
    let after = json!({"requests": {"cpu": "150m", "memory": "60Mi"}, "limits": {"cpu": "300m"}});
    let sent = with(stored.clone(), "spec.containers.0.resources", after.clone());
    let sent = with(sent, "spec.containers.0.image", json!("other:2"));
    let sent = with(sent, "metadata.labels.app", json!("other"));
    let resized = cluster.update(sent, Part::Resize).unwrap();
    assert_eq!(resized["spec"]["containers"][0]["resources"], after);
    assert_eq!(resized["spec"]["containers"][0]["image"], "nginx:1");
    assert_eq!(resized["metadata"]["labels"]["app"], "p");
    assert_eq!(resized["metadata"]["generation"], 2);
    assert_eq!(resized["status"], stored["status"]);
    let plain = with(stored, "spec.containers.0.resources.requests.cpu", json!("160m"));
    let plain = with(plain, "metadata.resourceVersion", Value::Null);
    assert!(cluster.update(plain, Part::Main).is_err(), "only through the subresource");
}

#[test]
fn refusals_are_upstreams() {
    let burstable = json!({"requests": {"cpu": "100m", "memory": "50Mi"},
        "limits": {"cpu": "200m", "ephemeral-storage": "1Gi"}});
    let guaranteed = json!({"requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"cpu": "1", "memory": "1Gi"}});
    for (before, path, value, expected) in [
        (
            &burstable,
            "spec.containers.0.resources.requests.memory",
            Value::Null,
            "Pod \"p\" is invalid: spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
        ),
        (
            &burstable,
            "spec.containers.0.resources.limits.cpu",
            Value::Null,
            "Pod \"p\" is invalid: spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            &burstable,
            "spec.containers.0.resources.limits.ephemeral-storage",
            json!("2Gi"),
            "Pod \"p\" is invalid: spec: Forbidden: only cpu and memory resources are mutable",
        ),
        (
            &guaranteed,
            "spec.containers.0.resources.requests.cpu",
            json!("500m"),
            "Pod \"p\" is invalid: spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing",
        ),
        (
            &burstable,
            "spec.containers.0.resources.requests.cpu",
            json!("300m"),
            "Pod \"p\" is invalid: spec.containers[0].resources.requests: Invalid value: \"300m\": must be less than or equal to cpu limit of 200m",
        ),
        (
            &burstable,
            "spec.containers.1",
            json!({"name": "d", "image": "i"}),
            "Pod \"p\" is invalid: spec.containers: Forbidden: pod resize may not add or remove containers",
        ),
    ] {
        let cluster = Cluster::new();
        let stored = cluster.create(pod(before)).unwrap();
        let sent = match path {
            "spec.containers.1" => {
                let mut sent = stored;
                sent["spec"]["containers"].as_array_mut().unwrap().push(value);
                sent
            }
            path if value.is_null() => {
                let (list, name) = path.rsplit_once('.').unwrap();
                let pointer = format!("/{}", list.replace('.', "/"));
                let mut sent = stored;
                sent.pointer_mut(&pointer).unwrap().as_object_mut().unwrap().remove(name);
                sent
            }
            path => with(stored, path, value),
        };
        let refusal = cluster.update(sent, Part::Resize).unwrap_err();
        assert_eq!(refusal.message, expected);
    }
    let cluster = Cluster::new();
    cluster.create(crate::config_map("m")).unwrap();
    assert!(cluster.update(crate::config_map("m"), Part::Resize).is_err());
}
