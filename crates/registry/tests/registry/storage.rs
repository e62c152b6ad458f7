//! Volumes, claims, classes and drivers: defaults, admission, refusals word for word.

use serde_json::{Value, json};
use wharf_ports::cluster::Part;

use crate::{Cluster, with};

fn claim(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}})
}

fn volume(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "8Gi"},
            "csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}}})
}

fn class(name: &str) -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "ebs.csi.aws.com"})
}

fn default_class(name: &str) -> Value {
    let mark = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    with(class(name), "metadata.annotations", mark)
}

#[test]
fn new_volumes_and_claims_get_their_defaults() {
    let cluster = Cluster::new();
    let claim = cluster.create(claim("c")).unwrap();
    assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    assert_eq!(claim["metadata"].get("generation"), None);
    assert_eq!(claim["status"], json!({"phase": "Pending"}));
    assert_eq!(claim["spec"]["volumeMode"], "Filesystem");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "1Gi");
    assert_eq!(claim["spec"].get("storageClassName"), None);
    let volume = cluster.create(volume("v")).unwrap();
    assert_eq!(volume["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]));
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(volume["spec"]["volumeMode"], "Filesystem");
    assert_eq!(
        volume["status"],
        json!({"phase": "Pending", "lastPhaseTransitionTime": "2026-11-21T10:00:00Z"})
    );
    let class = cluster.create(class("s")).unwrap();
    assert_eq!(class["reclaimPolicy"], "Delete");
    assert_eq!(class["volumeBindingMode"], "Immediate");
    let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
        "metadata": {"name": "ebs.csi.aws.com"}, "spec": {"podInfoOnMount": true}});
    assert_eq!(
        cluster.create(driver).unwrap()["spec"],
        json!({"attachRequired": true, "podInfoOnMount": true, "storageCapacity": false,
            "requiresRepublish": false, "seLinuxMount": false,
            "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"]})
    );
}

#[test]
fn the_newest_default_class_is_taken_where_none_is_named() {
    let cluster = Cluster::new();
    cluster.create(class("plain")).unwrap();
    cluster.create(default_class("old")).unwrap();
    cluster.clock.advance_to(wharf_model::time::Time::from_seconds(1_795_255_201));
    cluster.create(default_class("new")).unwrap();
    cluster.create(default_class("newer")).unwrap();
    let created = cluster.create(claim("c")).unwrap();
    assert_eq!(created["spec"]["storageClassName"], "new");
    let none = with(claim("d"), "spec.storageClassName", json!(""));
    assert_eq!(cluster.create(none).unwrap()["spec"]["storageClassName"], "");
}

#[test]
fn manifests_that_are_refused() {
    let node = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
        "metadata": {"name": "n"}, "spec": {"drivers": [{"name": "d", "nodeID": "i-1"}]}});
    let attachment = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": "a"}, "spec": {"attacher": "d", "nodeName": "n", "source": {}}});
    for (manifest, expected) in [
        (
            with(claim("c"), "spec.accessModes", json!([])),
            "PersistentVolumeClaim \"c\" is invalid: spec.accessModes: Required value: at least 1 access mode is required",
        ),
        (
            with(claim("c"), "spec.accessModes", json!(["ReadWriteOncePod", "Sometimes"])),
            "PersistentVolumeClaim \"c\" is invalid: [spec.accessModes: Unsupported value: \"Sometimes\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\", spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes]",
        ),
        (
            with(claim("c"), "spec.resources", json!({})),
            "PersistentVolumeClaim \"c\" is invalid: spec.resources[storage]: Required value",
        ),
        (
            with(claim("c"), "spec.resources.requests.storage", json!("0")),
            "PersistentVolumeClaim \"c\" is invalid: spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
        ),
        (
            with(claim("c"), "spec.volumeMode", json!("Tape")),
            "PersistentVolumeClaim \"c\" is invalid: spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
        ),
        (
            with(volume("v"), "spec.csi", json!(null)),
            "PersistentVolume \"v\" is invalid: spec: Required value: must specify a volume type",
        ),
        (
            with(volume("v"), "spec.hostPath", json!({"path": ""})),
            "PersistentVolume \"v\" is invalid: [spec.hostPath: Forbidden: may not specify more than 1 volume type, spec.hostPath.path: Required value]",
        ),
        (
            with(volume("v"), "spec.capacity", json!({})),
            "PersistentVolume \"v\" is invalid: [spec.capacity: Required value, spec.capacity: Unsupported value: \"{}\": supported values: \"storage\"]",
        ),
        (
            with(volume("v"), "spec.nodeAffinity", json!({"required": {"nodeSelectorTerms": []}})),
            "PersistentVolume \"v\" is invalid: spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term",
        ),
        (
            with(class("s"), "provisioner", json!("")),
            "StorageClass.storage.k8s.io \"s\" is invalid: provisioner: Required value",
        ),
        (
            with(class("s"), "volumeBindingMode", json!("Later")),
            "StorageClass.storage.k8s.io \"s\" is invalid: volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
        ),
        (
            with(node.clone(), "spec.drivers.0.nodeID", json!("")),
            "CSINode.storage.k8s.io \"n\" is invalid: spec.drivers[0].nodeID: Required value",
        ),
        (
            with(node, "spec.drivers.0.allocatable", json!({"count": -1})),
            "CSINode.storage.k8s.io \"n\" is invalid: spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            attachment,
            "VolumeAttachment.storage.k8s.io \"a\" is invalid: spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ),
    ] {
        let refusal = Cluster::new().create(manifest).unwrap_err();
        assert_eq!(refusal.message, expected);
    }
}

#[test]
fn a_claim_changes_in_few_ways() {
    let cluster = Cluster::new();
    let mut growing = class("growing");
    growing["allowVolumeExpansion"] = json!(true);
    cluster.create(growing).unwrap();
    cluster.create(class("fixed")).unwrap();
    let of_class =
        |name: &str, class: &str| with(claim(name), "spec.storageClassName", json!(class));
    for (name, class) in [("pending", "growing"), ("fixed", "fixed"), ("growing", "growing")] {
        cluster.create(of_class(name, class)).unwrap();
    }
    for name in ["fixed", "growing"] {
        let mut bound = cluster.get("PersistentVolumeClaim", name).unwrap();
        bound["spec"]["volumeName"] = json!("v");
        let mut bound = cluster.update(bound, Part::Main).unwrap();
        bound["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        cluster.update(bound, Part::Status).unwrap();
    }
    let change = |name: &str, path: &str, value: Value| {
        let stored = cluster.get("PersistentVolumeClaim", name).unwrap();
        cluster.update(with(stored, path, value), Part::Main).map_err(|error| error.message)
    };
    let size = "spec.resources.requests.storage";
    assert_eq!(
        change("pending", size, json!("2Gi")).unwrap_err(),
        "persistentvolumeclaims \"pending\" is forbidden: Only bound persistent volume claims can be expanded"
    );
    assert_eq!(
        change("fixed", size, json!("2Gi")).unwrap_err(),
        "persistentvolumeclaims \"fixed\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
    );
    assert_eq!(
        change("growing", "spec.volumeName", json!("w")).unwrap_err(),
        "PersistentVolumeClaim \"growing\" is invalid: spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
    );
    assert_eq!(
        change("growing", size, json!("2Gi")).unwrap()["spec"]["resources"]["requests"]["storage"],
        "2Gi"
    );
    assert_eq!(
        change("growing", size, json!("1Gi")).unwrap_err(),
        "PersistentVolumeClaim \"growing\" is invalid: spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
    );
}

#[test]
fn what_a_volume_and_a_class_are_made_of_stays() {
    let cluster = Cluster::new();
    cluster.create(volume("v")).unwrap();
    cluster.create(class("s")).unwrap();
    let change = |kind: &str, name: &str, path: &str, value: Value| {
        let stored = cluster.get(kind, name).unwrap();
        cluster.update(with(stored, path, value), Part::Main).map_err(|error| error.message)
    };
    assert_eq!(
        change("PersistentVolume", "v", "spec.csi.volumeHandle", json!("vol-2")).unwrap_err(),
        "PersistentVolume \"v\" is invalid: spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"
    );
    let reference = json!({"namespace": "default", "name": "c"});
    assert!(change("PersistentVolume", "v", "spec.claimRef", reference).is_ok());
    assert_eq!(
        change("StorageClass", "s", "reclaimPolicy", json!("Retain")).unwrap_err(),
        "StorageClass.storage.k8s.io \"s\" is invalid: reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."
    );
    assert_eq!(
        change("StorageClass", "s", "volumeBindingMode", json!("WaitForFirstConsumer"))
            .unwrap_err(),
        "StorageClass.storage.k8s.io \"s\" is invalid: volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable"
    );
    assert!(change("StorageClass", "s", "allowVolumeExpansion", json!(true)).is_ok());
}

#[test]
fn a_claim_in_use_goes_when_its_finalizer_does() {
    let cluster = Cluster::new();
    cluster.create(claim("c")).unwrap();
    cluster.delete("PersistentVolumeClaim", "c").unwrap();
    let mut going = cluster.get("PersistentVolumeClaim", "c").unwrap();
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    going["metadata"]["finalizers"] = json!([]);
    cluster.update(going, Part::Main).unwrap();
    assert_eq!(cluster.get("PersistentVolumeClaim", "c"), None);
}
