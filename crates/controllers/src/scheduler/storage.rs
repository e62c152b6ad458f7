//! Volumes, claims, classes and drivers as the scheduler follows them: each becomes a change of the
//! snapshot, and news for the pods that wait for it.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_ports::view::View;
use wharf_scheduler::{News, Snapshot, StorageNews};

use super::Scheduler;

/// Gives a new snapshot all of a view's storage objects.
pub(super) fn refeed(snapshot: &mut Snapshot, view: &View) {
    for class in view.list::<StorageClass>() {
        snapshot.set_storage_class(class);
    }
    for driver in view.list::<CSIDriver>() {
        snapshot.set_csi_driver(driver);
    }
    for node in view.list::<CSINode>() {
        snapshot.set_csi_node(node);
    }
    for capacity in view.list::<CSIStorageCapacity>() {
        snapshot.set_storage_capacity(capacity);
    }
    for volume in view.list::<PersistentVolume>() {
        snapshot.set_volume(volume);
    }
    for claim in view.list::<PersistentVolumeClaim>() {
        snapshot.set_claim(claim);
    }
    for attachment in view.list::<VolumeAttachment>() {
        snapshot.set_volume_attachment(attachment);
    }
}

impl Scheduler {
    /// Takes in a storage object as it is now. Returns whether there is work.
    pub(super) fn observe_storage(&mut self, kind: Kind, key: &ObjectKey, view: &View) -> bool {
        let news = take_in(&mut self.snapshot, kind, key, view);
        news.is_some_and(|news| self.wake(&News::Storage(news)))
    }
}

/// Gives one object, or that it is gone, to the snapshot. Other kinds are nothing to it.
fn take_in(
    snapshot: &mut Snapshot,
    kind: Kind,
    key: &ObjectKey,
    view: &View,
) -> Option<StorageNews> {
    if kind == Kind::of::<PersistentVolumeClaim>() {
        match view.get(key) {
            Some(claim) => return snapshot.set_claim(claim),
            None => snapshot.remove_claim(key),
        }
    } else if kind == Kind::of::<PersistentVolume>() {
        match view.get(key) {
            Some(volume) => return snapshot.set_volume(volume),
            None => snapshot.remove_volume(&key.name),
        }
    } else if kind == Kind::of::<StorageClass>() {
        match view.get(key) {
            Some(class) => return snapshot.set_storage_class(class),
            None => snapshot.remove_storage_class(&key.name),
        }
    } else if kind == Kind::of::<CSINode>() {
        return match view.get(key) {
            Some(node) => snapshot.set_csi_node(node),
            None => snapshot.remove_csi_node(&key.name),
        };
    } else if kind == Kind::of::<CSIDriver>() {
        return match view.get(key) {
            Some(driver) => snapshot.set_csi_driver(driver),
            None => snapshot.remove_csi_driver(&key.name),
        };
    } else if kind == Kind::of::<CSIStorageCapacity>() {
        match view.get(key) {
            Some(capacity) => return snapshot.set_storage_capacity(capacity),
            None => snapshot.remove_storage_capacity(key),
        }
    } else if kind == Kind::of::<VolumeAttachment>() {
        match view.get(key) {
            Some(attachment) => snapshot.set_volume_attachment(attachment),
            None => return snapshot.remove_volume_attachment(&key.name),
        }
    }
    None
}
