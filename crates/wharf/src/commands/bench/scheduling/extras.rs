//! What workloads have besides nodes and pods: volumes with their claims, and devices.

use serde_json::{Value, json};

use super::objects::{self, BEFORE, MEASURED};
use super::workloads::Size;

/// An object with the path under which it is created.
pub(super) type Placed = (String, Value);

/// The driver of all volumes but those of the old kind, which migrate to it.
const VOLUME_DRIVER: &str = "ebs.csi.aws.com";
/// How many volumes a node takes.
const VOLUMES_PER_NODE: u32 = 39;
/// The driver of all devices.
const DEVICE_DRIVER: &str = "test-driver.cdi.k8s.io";
/// How many devices a node has.
const DEVICES_PER_NODE: usize = 10;
const DEVICE_CLASS: &str = "test-class";
const CLAIM_TEMPLATE: &str = "test-claim-template";
/// What pods call their claim.
const CLAIM: &str = "resource";

/// Nothing.
pub(super) fn none(_index: usize, _size: &Size) -> Vec<Placed> {
    Vec::new()
}

/// Nothing.
pub(super) fn none_for_pods(_pod: &Value) -> Vec<Placed> {
    Vec::new()
}

/// A node's volume drivers with their limit.
pub(super) fn volume_limit(index: usize, size: &Size) -> Vec<Placed> {
    vec![csi_node(index, size, json!({}))]
}

/// The same where volumes of the old kind are the driver's too.
pub(super) fn migrated_volume_limit(index: usize, size: &Size) -> Vec<Placed> {
    let annotation = "storage.alpha.kubernetes.io/migrated-plugins";
    vec![csi_node(index, size, json!({annotation: "kubernetes.io/aws-ebs"}))]
}

fn csi_node(index: usize, _size: &Size, annotations: Value) -> Placed {
    let name = objects::node(index)["metadata"]["name"].clone();
    let driver = json!({
        "name": VOLUME_DRIVER, "nodeID": name, "allocatable": {"count": VOLUMES_PER_NODE}
    });
    let node = json!({
        "metadata": {"name": name, "annotations": annotations}, "spec": {"drivers": [driver]}
    });
    ("/apis/storage.k8s.io/v1/csinodes".to_owned(), node)
}

/// A pod's volume of the old kind, bound to its claim.
pub(super) fn old_volume(pod: &Value) -> Vec<Placed> {
    volume(pod, |name| ("awsElasticBlockStore", json!({"volumeID": name})))
}

/// A pod's volume of the driver, bound to its claim.
pub(super) fn driver_volume(pod: &Value) -> Vec<Placed> {
    volume(pod, |name| ("csi", json!({"driver": VOLUME_DRIVER, "volumeHandle": name})))
}

/// The same for the pods that are measured alone.
pub(super) fn old_volume_of_measured(pod: &Value) -> Vec<Placed> {
    if pod["metadata"]["namespace"] == MEASURED { old_volume(pod) } else { Vec::new() }
}

fn volume(pod: &Value, source: impl Fn(&str) -> (&'static str, Value)) -> Vec<Placed> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let (field, source) = source(name);
    let mut volume = json!({
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"kind": "PersistentVolumeClaim", "namespace": namespace, "name": name}
        }
    });
    volume["spec"][field] = source;
    let claim = json!({
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {"pv.kubernetes.io/bind-completed": "true"}
        },
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "volumeName": name,
            "resources": {"requests": {"storage": "1Gi"}}
        }
    });
    vec![
        ("/api/v1/persistentvolumes".to_owned(), volume),
        (format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims"), claim),
    ]
}

/// A pod with the volume of its name.
fn with_volume(mut pod: Value) -> Value {
    let claim = json!({"claimName": pod["metadata"]["name"]});
    pod["spec"]["volumes"] = json!([{"name": "vol", "persistentVolumeClaim": claim}]);
    pod
}

/// A plain pod there before with a volume.
pub(super) fn volume_before(index: usize, size: &Size) -> Value {
    with_volume(objects::plain_before(index, size))
}

/// The same, measured.
pub(super) fn with_a_volume(index: usize, size: &Size) -> Value {
    with_volume(objects::plain(index, size))
}

/// A pod with a volume that pushes three others out.
pub(super) fn high_priority_with_a_volume(index: usize, size: &Size) -> Value {
    with_volume(objects::high_priority(index, size))
}

/// A node's devices.
pub(super) fn devices(index: usize, _size: &Size) -> Vec<Placed> {
    let name = objects::node(index)["metadata"]["name"].clone();
    let devices: Vec<Value> =
        (0..DEVICES_PER_NODE).map(|at| json!({"name": format!("instance-{at}")})).collect();
    let slice = json!({
        "metadata": {"name": name},
        "spec": {
            "driver": DEVICE_DRIVER,
            "nodeName": name,
            "pool": {"name": name, "generation": 1, "resourceSliceCount": 1},
            "devices": devices
        }
    });
    vec![("/apis/resource.k8s.io/v1/resourceslices".to_owned(), slice)]
}

/// What claims on devices are made from.
pub(super) fn claim_templates() -> Vec<Placed> {
    let expression = format!("device.driver == \"{DEVICE_DRIVER}\"");
    let class = json!({
        "metadata": {"name": DEVICE_CLASS},
        "spec": {"selectors": [{"cel": {"expression": expression}}]}
    });
    let template = |namespace: &str| {
        let template = json!({
            "metadata": {"name": CLAIM_TEMPLATE, "namespace": namespace},
            "spec": {"spec": claim_spec()}
        });
        let path =
            format!("/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaimtemplates");
        (path, template)
    };
    let class = ("/apis/resource.k8s.io/v1/deviceclasses".to_owned(), class);
    vec![class, template(BEFORE), template(MEASURED)]
}

fn claim_spec() -> Value {
    let request = json!({"name": "req-0", "exactly": {
        "deviceClassName": DEVICE_CLASS, "allocationMode": "ExactCount", "count": 1
    }});
    json!({"devices": {"requests": [request]}})
}

fn with_device(mut pod: Value) -> Value {
    pod["spec"]["containers"][0]["resources"] = json!({"claims": [{"name": CLAIM}]});
    pod["spec"]["resourceClaims"] =
        json!([{"name": CLAIM, "resourceClaimTemplateName": CLAIM_TEMPLATE}]);
    pod
}

/// A pod there before with a device.
pub(super) fn device_before(index: usize, size: &Size) -> Value {
    with_device(objects::plain_before(index, size))
}

/// The same, measured.
pub(super) fn with_a_device(index: usize, size: &Size) -> Value {
    with_device(objects::plain(index, size))
}

/// The claim that a controller would make for a pod from its template, which the pod is told of.
/// `None` if it has none.
pub(super) fn made_claim(pod: &mut Value, uid: &str) -> Option<Value> {
    pod["spec"].get("resourceClaims")?;
    let name = format!("{}-{CLAIM}", pod["metadata"]["name"].as_str().unwrap_or_default());
    pod["status"]["resourceClaimStatuses"] = json!([{"name": CLAIM, "resourceClaimName": name}]);
    let owner = json!({
        "apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": uid,
        "controller": true
    });
    Some(json!({
        "metadata": {
            "name": name, "namespace": pod["metadata"]["namespace"], "uid": name,
            "ownerReferences": [owner]
        },
        "spec": claim_spec()
    }))
}
