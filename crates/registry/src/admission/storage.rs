//! What admission does to claims and volumes: the default class, the finalizers that keep what is
//! in use, and who may ask for more storage.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use wharf_model::kinds::Kind;
use wharf_model::labels::{PV_PROTECTION, PVC_PROTECTION};
use wharf_model::object::{ObjectKey, Typed};
use wharf_model::quantity::Quantity;
use wharf_model::storage::{default_class, requested};
use wharf_ports::error::ApiError;
use wharf_store::Store;

/// A claim without a class gets the default one, if there is one (`DefaultStorageClass`); what is
/// in use cannot go away (`StorageObjectInUseProtection`).
pub(super) fn on_claim_create(store: &Store, claim: &mut PersistentVolumeClaim) {
    protect(&mut claim.metadata.finalizers, PVC_PROTECTION);
    let spec = claim.spec.get_or_insert_default();
    if spec.storage_class_name.is_none() {
        let (classes, _) = store.list(Kind::of::<StorageClass>(), None);
        let default = default_class(classes.iter().filter_map(|class| class.typed()));
        spec.storage_class_name = default.and_then(|class| class.metadata.name.clone());
    }
}

/// The finalizer of a volume that claims may use.
pub(super) fn on_volume_create(volume: &mut PersistentVolume) {
    protect(&mut volume.metadata.finalizers, PV_PROTECTION);
}

fn protect(finalizers: &mut Option<Vec<String>>, finalizer: &str) {
    let finalizers = finalizers.get_or_insert_default();
    if !finalizers.iter().any(|known| known == finalizer) {
        finalizers.push(finalizer.to_owned());
    }
}

/// Only a bound claim whose class allows it may grow (`PersistentVolumeClaimResize`).
///
/// # Errors
/// Forbidden, in upstream's words.
pub(super) fn on_claim_update(
    store: &Store,
    claim: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
) -> Result<(), ApiError> {
    let size = |claim: &PersistentVolumeClaim| {
        claim.spec.as_ref().and_then(requested).and_then(|text| Quantity::parse(&text.0).ok())
    };
    let grows = matches!((size(claim), size(old)), (Some(new), Some(old)) if new > old);
    if !grows {
        return Ok(());
    }
    let is_bound = old.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let class = old.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    let class = class.filter(|class| !class.is_empty());
    let class = class
        .and_then(|name| store.get(Kind::of::<StorageClass>(), &ObjectKey::cluster(name)))
        .and_then(|class| class.typed::<StorageClass>()?.allow_volume_expansion);
    let why = if !is_bound {
        "Only bound persistent volume claims can be expanded"
    } else if class != Some(true) {
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
    } else {
        return Ok(());
    };
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    Err(ApiError::forbidden(Typed::kind(claim), name, why))
}
