//! PersistentVolumeClaims:
//! <https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/persistent-volume-claim-v1/>.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
    TypedLocalObjectReference, TypedObjectReference,
};
use wharf_model::quantity::Quantity;
use wharf_model::storage::requested;
use wharf_model::time::Time;

use super::super::Rules;
use super::super::pod::defaults::fill;
use super::super::pod::label_selector;
use super::super::pod::validate::one_of;
use super::{VOLUME_MODES, access_modes, canonical, class_name, storage_amount};
use crate::field::{Errors, Path};

const SPEC: Path<'static> = Path::root("spec");

impl Rules for PersistentVolumeClaim {
    const LABELS_WITH_STATUS: bool = true;

    fn set_defaults(&mut self) {
        claim_spec(self.spec.get_or_insert_default());
    }

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(pending());
        data_sources(self.spec.get_or_insert_default());
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        validate_spec(&SPEC, self.spec.as_ref(), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        let (Some(new), Some(old_spec)) = (&self.spec, &old.spec) else { return };
        update(self, new, old, old_spec, errors);
    }
}

/// The status a claim begins with, also as a template of a StatefulSet.
pub(crate) fn pending() -> PersistentVolumeClaimStatus {
    PersistentVolumeClaimStatus {
        phase: Some("Pending".to_owned()),
        ..PersistentVolumeClaimStatus::default()
    }
}

/// Defaults of the spec of a claim or a claim template.
pub(crate) fn claim_spec(spec: &mut PersistentVolumeClaimSpec) {
    fill(&mut spec.volume_mode, "Filesystem");
    if let Some(resources) = &mut spec.resources {
        canonical(&mut resources.requests);
        canonical(&mut resources.limits);
    }
}

/// `dataSource` and `dataSourceRef` say the same where one of them is left out.
fn data_sources(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
        (None, Some(source)) if source.namespace.as_deref().unwrap_or_default().is_empty() => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
            });
        }
        _ => {}
    }
}

/// What is wrong with the spec of a claim or a claim template.
pub(crate) fn validate_spec(
    path: &Path<'_>,
    spec: Option<&PersistentVolumeClaimSpec>,
    errors: &mut Errors,
) {
    let none = PersistentVolumeClaimSpec::default();
    let spec = spec.unwrap_or(&none);
    let missing = "at least 1 access mode is required";
    access_modes(&path.child("accessModes"), spec.access_modes.as_ref(), missing, errors);
    label_selector(&path.child("selector"), spec.selector.as_ref(), errors);
    let resources = path.child("resources");
    match requested(spec) {
        Some(amount) => storage_amount(&resources.key("storage"), amount, errors),
        None => errors.required(&resources.key("storage"), ""),
    }
    class_name(&path.child("storageClassName"), spec.storage_class_name.as_ref(), errors);
    one_of(&path.child("volumeMode"), spec.volume_mode.as_deref(), &VOLUME_MODES, errors);
    let sources = [
        ("dataSource", spec.data_source.as_ref().map(|source| (&source.kind, &source.name))),
        ("dataSourceRef", spec.data_source_ref.as_ref().map(|source| (&source.kind, &source.name))),
    ];
    for (field, source) in sources {
        let Some((kind, name)) = source else { continue };
        let path = path.child(field);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        if kind.is_empty() {
            errors.required(&path.child("kind"), "");
        }
    }
}

/// A claim is immutable but for its volume, once, its class, if it had none, and its size.
fn update(
    claim: &PersistentVolumeClaim,
    new: &PersistentVolumeClaimSpec,
    old: &PersistentVolumeClaim,
    old_spec: &PersistentVolumeClaimSpec,
    errors: &mut Errors,
) {
    let mut allowed = old_spec.clone();
    if allowed.volume_name.as_deref().unwrap_or_default().is_empty() {
        allowed.volume_name.clone_from(&new.volume_name);
    }
    if allowed.storage_class_name.is_none() {
        allowed.storage_class_name.clone_from(&new.storage_class_name);
    }
    let is_bound =
        claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    if is_bound {
        allowed.resources.clone_from(&new.resources);
        allowed.volume_attributes_class_name.clone_from(&new.volume_attributes_class_name);
    }
    if *new != allowed {
        // Upstream follows this with a dump of the difference.
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden(&SPEC, detail);
    }
    let capacity = old.status.as_ref().and_then(|status| status.capacity.as_ref());
    let capacity = capacity.and_then(|capacity| capacity.get("storage"));
    let parse = |text: Option<&_>| -> Option<Quantity> {
        let k8s_openapi::apimachinery::pkg::api::resource::Quantity(text) = text?;
        Quantity::parse(text).ok()
    };
    let (size, before) = (parse(requested(new)), parse(requested(old_spec)));
    if let (Some(size), Some(before)) = (size, before)
        && size < before
        && parse(capacity).is_none_or(|capacity| size <= capacity)
    {
        let path = SPEC.child("resources");
        let path = path.child("requests");
        let detail = "field can not be less than status.capacity";
        errors.forbidden(&path.child("storage"), detail);
    }
    if new.volume_mode != old_spec.volume_mode {
        errors.immutable(&Path::root("volumeMode"), &new.volume_mode, &old_spec.volume_mode);
    }
}
