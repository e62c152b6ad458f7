//! StatefulSets, ReplicationControllers, devices and groups, and what pods say of them.

use serde_json::{Value, json};
use wharf_ports::cluster::Part;

use crate::{Cluster, pod, with};

fn stateful_set(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "serviceName": name,
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1",
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}})
}

fn device_claim(requests: Value) -> Value {
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "r"},
        "spec": {"devices": {"requests": requests}}})
}

#[test]
fn sets_and_controllers_get_their_defaults() {
    let cluster = Cluster::new();
    let set = cluster.create(stateful_set("web")).unwrap();
    assert_eq!(set["metadata"]["generation"], 1);
    let spec = &set["spec"];
    assert_eq!(spec["podManagementPolicy"], "OrderedReady");
    assert_eq!(
        spec["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}})
    );
    assert_eq!(
        spec["persistentVolumeClaimRetentionPolicy"],
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
    );
    assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
    let template = &spec["volumeClaimTemplates"][0];
    assert_eq!(
        (&template["apiVersion"], &template["kind"]),
        (&json!("v1"), &json!("PersistentVolumeClaim"))
    );
    assert_eq!(template["spec"]["volumeMode"], "Filesystem");
    assert_eq!(template["status"], json!({"phase": "Pending"}));

    let old = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "rc"},
        "spec": {"template": {"metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}});
    let old = cluster.create(old).unwrap();
    assert_eq!(old["spec"]["selector"], json!({"app": "x"}));
    assert_eq!(old["metadata"]["labels"], json!({"app": "x"}));
    assert_eq!(old["spec"]["replicas"], 1);

    let requests = json!([{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]);
    let claim = cluster.create(device_claim(requests)).unwrap();
    assert_eq!(
        claim["spec"]["devices"]["requests"][0]["exactly"],
        json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1})
    );
}

#[test]
fn manifests_that_are_refused() {
    let old = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "rc"},
        "spec": {"selector": {"app": "y"}, "template": {"metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}});
    let group = json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup",
        "metadata": {"name": "g"}, "spec": {"schedulingPolicy": {}}});
    let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "p"}},
        "matchLabelKeys": ["app"], "mismatchLabelKeys": ["app"]});
    let affinity =
        json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    let spread = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "matchLabelKeys": ["app"]}]);
    let ephemeral = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {
        "resources": {"requests": {"storage": "1Gi"}}}}}}]);
    let fields = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [{"key": "spec.x", "operator": "In", "values": ["a"]}]}]}}});
    for (manifest, expected) in [
        (
            with(stateful_set("web"), "metadata.name", json!("web.x")),
            "StatefulSet.apps \"web.x\" is invalid: metadata.name: Invalid value: \"web.x\": must not contain dots",
        ),
        (
            with(stateful_set("web"), "spec.podManagementPolicy", json!("Chaos")),
            "StatefulSet.apps \"web\" is invalid: spec.podManagementPolicy: Invalid value: \"Chaos\": must be 'OrderedReady' or 'Parallel'",
        ),
        (
            with(
                stateful_set("web"),
                "spec.updateStrategy",
                json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
            ),
            "StatefulSet.apps \"web\" is invalid: spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
        ),
        (
            with(stateful_set("web"), "spec.ordinals", json!({"start": -1})),
            "StatefulSet.apps \"web\" is invalid: spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            old,
            "ReplicationController \"rc\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`",
        ),
        (
            group.clone(),
            "PodGroup.scheduling.k8s.io \"g\" is invalid: spec.schedulingPolicy: Invalid value: \"\": must specify one of: `basic`, `gang`",
        ),
        (
            with(group, "spec.schedulingPolicy", json!({"gang": {"minCount": -1}})),
            "PodGroup.scheduling.k8s.io \"g\" is invalid: spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than 0",
        ),
        (
            device_claim(json!([{"name": "a"}])),
            "ResourceClaim.resource.k8s.io \"r\" is invalid: spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        ),
        (
            device_claim(
                json!([{"name": "a", "exactly": {"deviceClassName": "c", "allocationMode": "All", "count": 2}}]),
            ),
            "ResourceClaim.resource.k8s.io \"r\" is invalid: spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
        ),
        (
            with(pod("p"), "spec.resourceClaims", json!([{"name": "a"}])),
            "Pod \"p\" is invalid: spec.resourceClaims[0]: Invalid value: {\"name\":\"a\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        ),
        (
            with(pod("p"), "spec.containers.0.resources", json!({"claims": [{"name": "a"}]})),
            "Pod \"p\" is invalid: spec.containers[0].resources.claims[0]: Not found: \"a\": must be one of the names in pod.spec.resourceClaims which is empty",
        ),
        (
            with(pod("p"), "spec.affinity", affinity),
            "Pod \"p\" is invalid: [spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0][0]: Invalid value: \"app\": exists in both matchLabelKeys and labelSelector, spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys[0]: Invalid value: \"app\": exists in both matchLabelKeys and mismatchLabelKeys]",
        ),
        (
            with(pod("p"), "spec.affinity", fields),
            "Pod \"p\" is invalid: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: Invalid value: \"spec.x\": not a valid field selector key",
        ),
        (
            with(pod("p"), "spec.topologySpreadConstraints", spread),
            "Pod \"p\" is invalid: spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
        ),
        (
            with(pod("p"), "spec.volumes", ephemeral),
            "Pod \"p\" is invalid: spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required",
        ),
    ] {
        let refusal = Cluster::new().create(manifest).unwrap_err();
        assert_eq!(refusal.message, expected);
    }
}

#[test]
fn little_of_a_set_may_change() {
    let cluster = Cluster::new();
    cluster.create(stateful_set("web")).unwrap();
    let change = |path: &str, value: Value| {
        let stored = cluster.get("StatefulSet", "web").unwrap();
        cluster.update(with(stored, path, value), Part::Main).map_err(|error| error.message)
    };
    let expected = "StatefulSet.apps \"web\" is invalid: spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    assert_eq!(change("spec.serviceName", json!("other")).unwrap_err(), expected);
    assert_eq!(change("spec.volumeClaimTemplates", json!([])).unwrap_err(), expected);
    let changed = change("spec.replicas", json!(3)).unwrap();
    assert_eq!(changed["metadata"]["generation"], 2);
}

#[test]
fn a_pod_keeps_its_keys_claims_and_group() {
    let cluster = Cluster::new();
    let mut manifest = pod("p");
    manifest["spec"]["schedulingGroup"] = json!({"podGroupName": "g"});
    manifest["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimTemplateName": "t"}]);
    manifest["spec"]["containers"][0]["resources"] = json!({"claims": [{"name": "gpu"}]});
    manifest["spec"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {}, "matchLabelKeys": ["app"]}]);
    let spec = cluster.create(manifest).unwrap()["spec"].take();
    assert_eq!(spec["schedulingGroup"]["podGroupName"], "g");
    assert_eq!(spec["resourceClaims"][0]["resourceClaimTemplateName"], "t");
    assert_eq!(spec["containers"][0]["resources"]["claims"], json!([{"name": "gpu"}]));
    assert_eq!(
        spec["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"],
        json!([{"key": "app", "operator": "In", "values": ["p"]}])
    );
}
