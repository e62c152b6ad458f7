//! Which volume suits a claim: the smallest of those that are large enough and of its class
//! (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding>).

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
};
use wharf_model::object::ObjectKey;
use wharf_model::quantity::Quantity;
use wharf_model::selector::Selector;
use wharf_model::storage;
use wharf_ports::view::View;

/// The volume to bind a claim to: the one reserved for it, or, unless the claim waits for its first
/// pod, the smallest that suits it and is not taken.
pub(super) fn best<'v>(
    claim: &PersistentVolumeClaim,
    waits: bool,
    is_taken: impl Fn(&PersistentVolume) -> bool,
    view: &'v View,
) -> Option<&'v PersistentVolume> {
    let spec = claim.spec.as_ref()?;
    let selector = spec.selector.as_ref().map(|selector| Selector::from_api(Some(selector)));
    // A selector that cannot be read picks nothing.
    let selector = match selector {
        Some(Err(_)) => return None,
        Some(Ok(selector)) => Some(selector),
        None => None,
    };
    let mut best: Option<((usize, Quantity, &str), &PersistentVolume)> = None;
    for volume in view.list::<PersistentVolume>() {
        let Some(of_volume) = volume.spec.as_ref() else { continue };
        let reserved = is_reserved(volume, claim);
        if of_volume.claim_ref.is_some() && !reserved {
            continue;
        }
        let Some(size) = size(of_volume) else { continue };
        if volume.metadata.deletion_timestamp.is_some()
            || requested(spec).is_some_and(|wanted| size < wanted)
            || mode(of_volume.volume_mode.as_deref()) != mode(spec.volume_mode.as_deref())
            || !has_access_modes(spec, of_volume)
        {
            continue;
        }
        if reserved {
            return Some(volume);
        }
        let labels = volume.metadata.labels.clone().unwrap_or_default();
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if waits
            || is_taken(volume)
            || phase != Some("Available")
            || selector.as_ref().is_some_and(|selector| !selector.matches(&labels))
            || class(of_volume.storage_class_name.as_ref())
                != class(spec.storage_class_name.as_ref())
        {
            continue;
        }
        // A volume that can do what was asked for and nothing else comes first.
        let modes = of_volume.access_modes.as_ref().map_or(0, Vec::len);
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let rank = (modes, size, name);
        if best.as_ref().is_none_or(|(least, _)| rank < *least) {
            best = Some((rank, volume));
        }
    }
    best.map(|(_, volume)| volume)
}

/// Why a volume that a claim asks for by name does not suit it.
pub(super) fn mismatch(
    claim: &PersistentVolumeClaimSpec,
    volume: &PersistentVolumeSpec,
) -> Option<&'static str> {
    if matches!((requested(claim), size(volume)), (Some(wanted), Some(size)) if size < wanted) {
        Some("requested PV is too small")
    } else if class(claim.storage_class_name.as_ref()) != class(volume.storage_class_name.as_ref())
    {
        Some("storageClassName does not match")
    } else if mode(claim.volume_mode.as_deref()) != mode(volume.volume_mode.as_deref()) {
        Some("incompatible volumeMode")
    } else if !has_access_modes(claim, volume) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// Whether a volume names this claim: by name alone, or by the uid too.
pub(super) fn is_reserved(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return false;
    };
    let uid = reference.uid.as_deref().unwrap_or_default();
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
}

/// The claim that a volume names, with the uid if it is said.
pub(super) fn claimed(volume: &PersistentVolume) -> Option<(ObjectKey, Option<&str>)> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
    let key = ObjectKey::namespaced(text(&reference.namespace), text(&reference.name));
    Some((key, reference.uid.as_deref().filter(|uid| !uid.is_empty())))
}

/// The name of a class, empty for none.
pub(super) fn class(name: Option<&String>) -> &str {
    name.map(String::as_str).unwrap_or_default()
}

/// How much a claim asks for.
pub(super) fn requested(claim: &PersistentVolumeClaimSpec) -> Option<Quantity> {
    Quantity::parse(&storage::requested(claim)?.0).ok()
}

fn size(volume: &PersistentVolumeSpec) -> Option<Quantity> {
    Quantity::parse(&volume.capacity.as_ref()?.get("storage")?.0).ok()
}

fn mode(mode: Option<&str>) -> &str {
    mode.unwrap_or("Filesystem")
}

fn has_access_modes(claim: &PersistentVolumeClaimSpec, volume: &PersistentVolumeSpec) -> bool {
    let offered = volume.access_modes.as_deref().unwrap_or_default();
    claim.access_modes.iter().flatten().all(|mode| offered.contains(mode))
}
