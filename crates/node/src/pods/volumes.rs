//! Which of a pod's volumes are not on its node yet: the kubelet starts no container before all are.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use wharf_model::ebs::{attachment_name, driver};
use wharf_model::object::ObjectKey;
use wharf_model::storage::claim_name;
use wharf_ports::view::View;

/// Whether a volume of the pod is missing: its claim is not bound, or the volume is of an EBS
/// driver and not attached. Other volumes are there as soon as they are bound.
pub(super) fn are_missing(key: &ObjectKey, pod: &Pod, view: &View) -> bool {
    let Some(spec) = pod.spec.as_ref() else { return false };
    let node = spec.node_name.as_deref().unwrap_or_default();
    let mut claims =
        spec.volumes.iter().flatten().filter_map(|volume| claim_name(&key.name, volume));
    claims.any(|name| !is_there(&ObjectKey::namespaced(&key.namespace, name), node, view))
}

fn is_there(claim: &ObjectKey, node: &str, view: &View) -> bool {
    let claim = view.get::<PersistentVolumeClaim>(claim).filter(|claim| {
        claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
    });
    let name = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.as_deref());
    let volume = name.and_then(|name| view.get_cluster::<PersistentVolume>(name));
    let Some(spec) = volume.and_then(|volume| volume.spec.as_ref()) else { return false };
    match spec.csi.as_ref().filter(|csi| driver(&csi.driver).is_some()) {
        None => true,
        Some(csi) => view
            .get_cluster::<VolumeAttachment>(&attachment_name(
                &csi.volume_handle,
                &csi.driver,
                node,
            ))
            .and_then(|attachment| attachment.status.as_ref())
            .is_some_and(|status| status.attached),
    }
}
