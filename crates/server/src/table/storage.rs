//! Volumes, claims, storage classes and what CSI drivers say.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use wharf_model::labels::DEFAULT_STORAGE_CLASS;
use wharf_model::time::Time;

use super::{Column, age};

const UNSET: &str = "<unset>";

const fn flag(name: &'static str) -> Column {
    Column { name, kind: "boolean", priority: 0 }
}

pub(super) const VOLUME: &[Column] = &[
    Column::text("Name"),
    Column::text("Capacity"),
    Column::text("Access Modes"),
    Column::text("Reclaim Policy"),
    Column::text("Status"),
    Column::text("Claim"),
    Column::text("StorageClass"),
    Column::text("VolumeAttributesClass"),
    Column::text("Reason"),
    Column::text("Age"),
    Column::text("VolumeMode").wide(),
];

pub(super) fn volume(volume: &PersistentVolume, now: Time) -> Vec<Value> {
    let spec = volume.spec.as_ref();
    let status = volume.status.as_ref();
    let text = |field: Option<&String>| json!(field.map(String::as_str).unwrap_or_default());
    let capacity = spec.and_then(|spec| spec.capacity.as_ref()?.get("storage"));
    let claim = spec.and_then(|spec| spec.claim_ref.as_ref()).map(|claim| {
        let part = |field: &Option<String>| field.clone().unwrap_or_default();
        format!("{}/{}", part(&claim.namespace), part(&claim.name))
    });
    vec![
        json!(volume.metadata.name),
        json!(capacity.map_or("0", |amount| &amount.0)),
        json!(modes(spec.and_then(|spec| spec.access_modes.as_deref()))),
        text(spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_ref())),
        phase(&volume.metadata, status.and_then(|status| status.phase.as_deref())),
        json!(claim.unwrap_or_default()),
        text(spec.and_then(|spec| spec.storage_class_name.as_ref())),
        or_unset(spec.and_then(|spec| spec.volume_attributes_class_name.as_deref())),
        text(status.and_then(|status| status.reason.as_ref())),
        json!(age(volume.metadata.creation_timestamp.as_ref(), now)),
        or_unset(spec.and_then(|spec| spec.volume_mode.as_deref())),
    ]
}

pub(super) const CLAIM: &[Column] = &[
    Column::text("Name"),
    Column::text("Status"),
    Column::text("Volume"),
    Column::text("Capacity"),
    Column::text("Access Modes"),
    Column::text("StorageClass"),
    Column::text("VolumeAttributesClass"),
    Column::text("Age"),
    Column::text("VolumeMode").wide(),
];

pub(super) fn claim(claim: &PersistentVolumeClaim, now: Time) -> Vec<Value> {
    let spec = claim.spec.as_ref();
    let status = claim.status.as_ref();
    let volume = spec.and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    // What a claim has is told once it has a volume.
    let bound = status.filter(|_| !volume.is_empty());
    let capacity = bound.map(|status| {
        let amount = status.capacity.as_ref().and_then(|capacity| capacity.get("storage"));
        amount.map_or("0", |amount| &amount.0)
    });
    let class = spec.and_then(|spec| spec.storage_class_name.as_deref());
    vec![
        json!(claim.metadata.name),
        phase(&claim.metadata, status.and_then(|status| status.phase.as_deref())),
        json!(volume),
        json!(capacity.unwrap_or_default()),
        json!(modes(bound.and_then(|status| status.access_modes.as_deref()))),
        json!(class.unwrap_or_default()),
        or_unset(spec.and_then(|spec| spec.volume_attributes_class_name.as_deref())),
        json!(age(claim.metadata.creation_timestamp.as_ref(), now)),
        or_unset(spec.and_then(|spec| spec.volume_mode.as_deref())),
    ]
}

pub(super) const CLASS: &[Column] = &[
    Column::text("Name"),
    Column::text("Provisioner"),
    Column::text("ReclaimPolicy"),
    Column::text("VolumeBindingMode"),
    flag("AllowVolumeExpansion"),
    Column::text("Age"),
];

pub(super) fn class(class: &StorageClass, now: Time) -> Vec<Value> {
    let annotations = class.metadata.annotations.as_ref();
    let mark = annotations.and_then(|annotations| annotations.get(DEFAULT_STORAGE_CLASS));
    let suffix = if mark.is_some_and(|mark| mark == "true") { " (default)" } else { "" };
    let name = class.metadata.name.as_deref().unwrap_or_default();
    vec![
        json!(format!("{name}{suffix}")),
        json!(class.provisioner),
        json!(class.reclaim_policy.as_deref().unwrap_or("Delete")),
        json!(class.volume_binding_mode.as_deref().unwrap_or("Immediate")),
        json!(class.allow_volume_expansion.unwrap_or_default()),
        json!(age(class.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const NODE: &[Column] =
    &[Column::text("Name"), Column::number("Drivers"), Column::text("Age")];

pub(super) fn node(node: &CSINode, now: Time) -> Vec<Value> {
    vec![
        json!(node.metadata.name),
        json!(node.spec.drivers.len()),
        json!(age(node.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const DRIVER: &[Column] = &[
    Column::text("Name"),
    flag("AttachRequired"),
    flag("PodInfoOnMount"),
    flag("StorageCapacity"),
    Column::text("TokenRequests"),
    flag("RequiresRepublish"),
    Column::text("Modes"),
    Column::text("Age"),
];

pub(super) fn driver(driver: &CSIDriver, now: Time) -> Vec<Value> {
    let spec = &driver.spec;
    let audiences: Vec<&str> =
        spec.token_requests.iter().flatten().map(|request| request.audience.as_str()).collect();
    let audiences = if audiences.is_empty() { UNSET.to_owned() } else { audiences.join(",") };
    let modes = spec.volume_lifecycle_modes.as_deref().unwrap_or_default().join(",");
    vec![
        json!(driver.metadata.name),
        json!(spec.attach_required.unwrap_or(true)),
        json!(spec.pod_info_on_mount.unwrap_or_default()),
        json!(spec.storage_capacity.unwrap_or_default()),
        json!(audiences),
        json!(spec.requires_republish.unwrap_or_default()),
        super::or_none(Some(&modes)),
        json!(age(driver.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const CAPACITY: &[Column] =
    &[Column::text("Name"), Column::text("StorageClassName"), Column::text("Capacity")];

pub(super) fn capacity(capacity: &CSIStorageCapacity, _now: Time) -> Vec<Value> {
    vec![
        json!(capacity.metadata.name),
        json!(capacity.storage_class_name),
        or_unset(capacity.capacity.as_ref().map(|amount| amount.0.as_str())),
    ]
}

pub(super) const ATTACHMENT: &[Column] = &[
    Column::text("Name"),
    Column::text("Attacher"),
    Column::text("PV"),
    Column::text("Node"),
    flag("Attached"),
    Column::text("Age"),
];

pub(super) fn attachment(attachment: &VolumeAttachment, now: Time) -> Vec<Value> {
    let spec = &attachment.spec;
    vec![
        json!(attachment.metadata.name),
        json!(spec.attacher),
        json!(spec.source.persistent_volume_name.as_deref().unwrap_or_default()),
        json!(spec.node_name),
        json!(attachment.status.as_ref().is_some_and(|status| status.attached)),
        json!(age(attachment.metadata.creation_timestamp.as_ref(), now)),
    ]
}

fn or_unset(text: Option<&str>) -> Value {
    json!(text.unwrap_or(UNSET))
}

/// The phase, or that the object is going.
fn phase(meta: &ObjectMeta, phase: Option<&str>) -> Value {
    let is_going = meta.deletion_timestamp.is_some();
    json!(if is_going { "Terminating" } else { phase.unwrap_or_default() })
}

/// Access modes in short and in one order: `RWO,ROX`.
fn modes(modes: Option<&[String]>) -> String {
    let given = modes.unwrap_or_default();
    let short: Vec<&str> = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .into_iter()
    .filter(|(mode, _)| given.iter().any(|given| given == mode))
    .map(|(_, short)| short)
    .collect();
    short.join(",")
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    fn meta() -> Value {
        json!({"name": "x", "creationTimestamp": "2026-01-01T23:55:00Z"})
    }

    #[test]
    fn volumes_and_claims_print_as_upstreams() {
        let volume = json!({
            "metadata": meta(),
            "spec": {
                "capacity": {"storage": "8Gi"}, "accessModes": ["ReadOnlyMany", "ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "gp3",
                "volumeMode": "Filesystem", "claimRef": {"namespace": "n", "name": "c"},
            },
            "status": {"phase": "Bound"},
        });
        assert_eq!(
            printed("PersistentVolume", volume),
            "x|8Gi|RWO,ROX|Delete|Bound|n/c|gp3|<unset>||5m || Filesystem"
        );
        let claim = |volume: &str, deleted: bool| {
            let mut meta = meta();
            if deleted {
                meta["deletionTimestamp"] = json!("2026-01-01T23:58:00Z");
            }
            json!({
                "metadata": meta,
                "spec": {"storageClassName": "gp3", "volumeMode": "Block", "volumeName": volume},
                "status": {"phase": "Bound", "accessModes": ["ReadWriteOncePod"], "capacity": {"storage": "8Gi"}},
            })
        };
        assert_eq!(
            printed("PersistentVolumeClaim", claim("pv", false)),
            "x|Bound|pv|8Gi|RWOP|gp3|<unset>|5m || Block"
        );
        assert_eq!(
            printed("PersistentVolumeClaim", claim("", true)),
            "x|Terminating||||gp3|<unset>|5m || Block"
        );
    }

    #[test]
    fn classes_and_drivers_print_as_upstreams() {
        let mut default = meta();
        default["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
        assert_eq!(
            printed("StorageClass", json!({"metadata": default, "provisioner": "p"})),
            "x (default)|p|Delete|Immediate|false|5m"
        );
        let spec = json!({"attachRequired": true, "volumeLifecycleModes": ["Persistent"]});
        assert_eq!(
            printed("CSIDriver", json!({"metadata": meta(), "spec": spec})),
            "x|true|false|false|<unset>|false|Persistent|5m"
        );
        let spec = json!({"drivers": [{"name": "d", "nodeID": "n"}]});
        assert_eq!(printed("CSINode", json!({"metadata": meta(), "spec": spec})), "x|1|5m");
        let capacity = json!({"metadata": meta(), "storageClassName": "c"});
        assert_eq!(printed("CSIStorageCapacity", capacity), "x|c|<unset>");
        let attachment = json!({
            "metadata": meta(),
            "spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "pv"}},
            "status": {"attached": true},
        });
        assert_eq!(printed("VolumeAttachment", attachment), "x|d|pv|n|true|5m");
    }
}
