//! Refusals, word for word.

use serde_json::{Value, json};
use wharf_ports::cluster::Part;

use crate::{Cluster, config_map, deployment, pod, with};

#[test]
fn manifests_that_are_refused() {
    let container = |value: Value| json!([{"name": "c", "image": "i:1"}, value]);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80}]}});
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"a": "b"}}}});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {}});
    let taint = json!({"key": "k", "effect": "NoSchedule"});
    let cases: Vec<(Value, &str)> = vec![
        (
            with(deployment("x"), "spec.replicas", json!(-1)),
            r#"Deployment.apps "x" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"#,
        ),
        (
            with(deployment("x"), "spec.selector", json!(null)),
            r#"Deployment.apps "x" is invalid: [spec.selector: Required value, spec.template.metadata.labels: Invalid value: {"app":"x"}: `selector` does not match template `labels`]"#,
        ),
        (
            with(deployment("x"), "spec.selector.matchLabels.app", json!("y")),
            r#"Deployment.apps "x" is invalid: spec.template.metadata.labels: Invalid value: {"app":"x"}: `selector` does not match template `labels`"#,
        ),
        (
            with(deployment("x"), "spec.template.spec.restartPolicy", json!("Never")),
            r#"Deployment.apps "x" is invalid: spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#,
        ),
        (
            with(deployment("x"), "spec.template.spec.containers", json!([])),
            r#"Deployment.apps "x" is invalid: spec.template.spec.containers: Required value"#,
        ),
        (
            with(
                with(
                    deployment("x"),
                    "spec.strategy",
                    json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
                ),
                "spec.progressDeadlineSeconds",
                json!(0),
            ),
            r#"Deployment.apps "x" is invalid: [spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0, spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds]"#,
        ),
        (
            with(
                deployment("x"),
                "spec.strategy",
                json!({"type": "Recreate", "rollingUpdate": {}}),
            ),
            r#"Deployment.apps "x" is invalid: spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"#,
        ),
        (
            with(pod("p"), "spec.containers", container(json!({"name": "c", "image": "i:1"}))),
            r#"Pod "p" is invalid: spec.containers[1].name: Duplicate value: "c""#,
        ),
        (
            with(pod("p"), "spec.containers", container(json!({"name": "d"}))),
            r#"Pod "p" is invalid: spec.containers[1].image: Required value"#,
        ),
        (
            with(
                pod("p"),
                "spec.containers.0.resources",
                json!({"limits": {"cpu": "100m"}, "requests": {"cpu": "1"}}),
            ),
            r#"Pod "p" is invalid: spec.containers[0].resources.requests: Invalid value: "1": must be less than or equal to cpu limit of 100m"#,
        ),
        (
            with(pod("p"), "spec.containers.0.resources", json!({"requests": {"memory": "-1Gi"}})),
            r#"Pod "p" is invalid: spec.containers[0].resources.requests[memory]: Invalid value: "-1Gi": must be greater than or equal to 0"#,
        ),
        (
            with(
                pod("p"),
                "spec.containers.0.resources",
                json!({"requests": {"nvidia.com/gpu": "1"}}),
            ),
            r#"Pod "p" is invalid: spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources"#,
        ),
        (
            with(pod("p"), "spec.containers.0.ports", json!([{"containerPort": 70000}])),
            r#"Pod "p" is invalid: spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"#,
        ),
        (
            with(pod("p"), "spec.restartPolicy", json!("Sometimes")),
            r#"Pod "p" is invalid: spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never""#,
        ),
        (
            with(
                pod("p"),
                "spec.containers.0.volumeMounts",
                json!([{"name": "v", "mountPath": "/a"}]),
            ),
            r#"Pod "p" is invalid: spec.containers[0].volumeMounts[0].name: Not found: "v""#,
        ),
        (
            with(
                pod("p"),
                "spec.topologySpreadConstraints",
                json!([{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]),
            ),
            r#"Pod "p" is invalid: spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"#,
        ),
        (
            with(pod("p"), "spec.tolerations", json!([{"key": "k", "effect": "Maybe"}])),
            r#"Pod "p" is invalid: spec.tolerations[0].effect: Unsupported value: "Maybe": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute""#,
        ),
        (
            with(service.clone(), "spec.ports", json!([])),
            r#"Service "s" is invalid: spec.ports: Required value"#,
        ),
        (
            with(service.clone(), "spec.ports", json!([{"port": 80}, {"port": 81}])),
            r#"Service "s" is invalid: [spec.ports[0].name: Required value, spec.ports[1].name: Required value]"#,
        ),
        (
            with(service.clone(), "spec.clusterIP", json!("1.2.3.4")),
            r#"Service "s" is invalid: spec.clusterIPs: Invalid value: ["1.2.3.4"]: failed to allocate IP 1.2.3.4: the provided IP (1.2.3.4) is not in the valid range. The range of valid IPs is 10.100.0.0/16"#,
        ),
        (
            with(service, "spec.clusterIP", json!("10.100.0.1")),
            r#"Service "s" is invalid: spec.clusterIPs: Invalid value: ["10.100.0.1"]: failed to allocate IP 10.100.0.1: provided IP is already allocated"#,
        ),
        (
            with(
                with(budget.clone(), "spec.minAvailable", json!(1)),
                "spec.maxUnavailable",
                json!(1),
            ),
            r#"PodDisruptionBudget.policy "b" is invalid: spec: Invalid value: {"maxUnavailable":1,"minAvailable":1,"selector":{"matchLabels":{"a":"b"}}}: minAvailable and maxUnavailable cannot be both set"#,
        ),
        (
            with(budget, "spec.minAvailable", json!("half")),
            r#"PodDisruptionBudget.policy "b" is invalid: spec.minAvailable: Invalid value: "half": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"#,
        ),
        (
            with(node, "spec.taints", json!([taint, taint])),
            r#"Node "n" is invalid: spec.taints[1]: Duplicate value: {"effect":"NoSchedule","key":"k"}"#,
        ),
        (
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t"}, "type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            r#"Secret "t" is invalid: data[tls.key]: Required value"#,
        ),
        (
            json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "p"}, "value": 1_500_000_000}),
            r#"PriorityClass.scheduling.k8s.io "p" is invalid: value: Forbidden: maximum allowed value of a user defined priority is 1000000000"#,
        ),
    ];
    for (manifest, message) in cases {
        let refusal = Cluster::new().create(manifest.clone()).expect_err(message);
        assert_eq!(refusal.message, message);
        assert_eq!(refusal.reason.code(), 422);
        assert!(refusal.causes.iter().all(|cause| cause.reason.starts_with("FieldValue")));
    }
}

#[test]
fn bad_keys_and_names_are_named() {
    let refused = |manifest: Value, begin: &str| {
        let refusal = Cluster::new().create(manifest).expect_err(begin);
        assert!(refusal.message.starts_with(begin), "{}", refusal.message);
    };
    refused(
        with(config_map("m"), "data", json!({"a b": ""})),
        r#"ConfigMap "m" is invalid: data[a b]: Invalid value: "a b": a valid config key must consist of"#,
    );
    refused(
        with(pod("p"), "metadata.labels.app", json!("b c")),
        r#"Pod "p" is invalid: metadata.labels: Invalid value: "b c": a valid label must be an empty"#,
    );
    refused(
        pod("P"),
        r#"Pod "P" is invalid: metadata.name: Invalid value: "P": a lowercase RFC 1123 subdomain must"#,
    );
    refused(
        with(pod("p"), "spec.containers.0.resources", json!({"limits": {"cpu": "lots"}})),
        r#"Pod "p" is invalid: [spec.containers[0].resources.limits[cpu]: Invalid value: "lots": quantities must match"#,
    );
}

#[test]
fn what_cannot_be_changed() {
    let cluster = Cluster::new();
    let stored = cluster.create(deployment("x")).unwrap();
    let relabelled = with(
        with(stored, "spec.selector.matchLabels", json!({"app": "y"})),
        "spec.template.metadata.labels",
        json!({"app": "y"}),
    );
    assert_eq!(
        cluster.update(relabelled, Part::Main).unwrap_err().message,
        r#"Deployment.apps "x" is invalid: spec.selector: Invalid value: {"matchLabels":{"app":"y"}}: field is immutable"#
    );

    let stored = cluster.create(pod("p")).unwrap();
    let refusal = cluster
        .update(with(stored.clone(), "spec.containers.0.command", json!(["sh"])), Part::Main)
        .unwrap_err();
    assert!(
        refusal.message.starts_with(
            r#"Pod "p" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"#
        ),
        "{refusal}"
    );
    let changed = cluster
        .update(with(stored, "spec.containers.0.image", json!("nginx:2")), Part::Main)
        .expect("an image may change");
    assert_eq!(changed["metadata"]["generation"], 2);

    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
        "immutable": true, "stringData": {"k": "v"}});
    let stored = cluster.create(secret).unwrap();
    assert_eq!(stored["data"], json!({"k": "dg=="}));
    assert_eq!(
        cluster.update(with(stored, "data", json!({"k": "dw=="})), Part::Main).unwrap_err().message,
        r#"Secret "s" is invalid: data: Forbidden: field is immutable when `immutable` is set"#
    );
}

#[test]
fn custom_resources_have_their_schemas() {
    let cluster = Cluster::new();
    let pool = json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
        "spec": {"template": {"spec": {
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
            "requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]}}},
        "status": {"nodes": 5}});
    let stored = cluster.create(pool.clone()).expect("a valid NodePool");
    assert_eq!(stored["spec"]["disruption"]["consolidateAfter"], "0s");
    assert_eq!(stored["spec"]["template"]["spec"]["expireAfter"], "720h");
    assert_eq!(stored["metadata"]["generation"], 1);
    assert_eq!(stored.get("status"), None, "the status is not the creator's to write");
    let bad = with(with(pool, "metadata.name", json!("bad")), "spec.weight", json!(1000));
    let refusal = cluster.create(bad).unwrap_err();
    assert!(
        refusal.message.starts_with(
            r#"NodePool.karpenter.sh "bad" is invalid: spec.weight: Invalid value: 1000:"#
        ),
        "{refusal}"
    );
    let classless = json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool",
        "metadata": {"name": "classless"}, "spec": {"template": {"spec": {"requirements": []}}}});
    let refusal = cluster.create(classless).unwrap_err();
    assert!(
        refusal.message.starts_with(
            r#"NodePool.karpenter.sh "classless" is invalid: [spec.template.spec.nodeClassRef: Required value, "#
        ),
        "{refusal}"
    );
    let unversioned = with(stored, "metadata.resourceVersion", json!(null));
    assert_eq!(
        cluster.update(unversioned, Part::Main).unwrap_err().message,
        r#"NodePool.karpenter.sh "default" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"#
    );
}
