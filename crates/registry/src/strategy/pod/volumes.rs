//! What is wrong with the volumes of a pod.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Volume};
use wharf_model::names;
use wharf_model::storage::ephemeral_claim_name;

use super::super::storage::persistent_volume_claim;
use super::SPEC;
use crate::field::{Errors, Path};

/// Checks the volumes and returns their names.
pub(super) fn validate<'s>(
    path: &Path<'_>,
    spec: &'s PodSpec,
    errors: &mut Errors,
) -> BTreeSet<&'s str> {
    let mut seen = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = path.index(index);
        sources(&path, volume, errors);
        let path = path.child("name");
        if volume.name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        errors.invalid_each(&path, &volume.name, names::dns_1123_label(&volume.name));
        if !seen.insert(volume.name.as_str()) {
            errors.duplicate(&path, &volume.name);
        }
    }
    seen
}

/// The claim of a generic ephemeral volume is named after the pod and the volume.
pub(super) fn claims_to_be(pod: &Pod, spec: &PodSpec, errors: &mut Errors) {
    let Some(pod) = pod.metadata.name.as_deref() else { return };
    let path = SPEC.child("volumes");
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        if volume.ephemeral.is_none() {
            continue;
        }
        let claim = ephemeral_claim_name(pod, &volume.name);
        for message in names::dns_1123_subdomain(&claim) {
            let path = path.index(index);
            let detail = format!("PVC name {claim:?}: {message}");
            errors.invalid(&path.child("name"), &volume.name, detail);
        }
    }
}

/// A volume has one source, and the source names what it is made from.
fn sources(path: &Path<'_>, volume: &Volume, errors: &mut Errors) {
    // There are thirty kinds of source; their names are those of the JSON form.
    let value = serde_json::to_value(volume).unwrap_or_default();
    let given = value.as_object().into_iter().flat_map(|fields| fields.keys());
    for extra in given.filter(|field| *field != "name").skip(1) {
        errors.forbidden(&path.child(extra), "may not specify more than 1 volume type");
    }
    if let Some(source) = &volume.ephemeral {
        let path = path.child("ephemeral");
        let path = path.child("volumeClaimTemplate");
        match &source.volume_claim_template {
            None => errors.required(&path, ""),
            Some(template) => {
                let path = path.child("spec");
                persistent_volume_claim::validate_spec(&path, Some(&template.spec), errors);
            }
        }
    }
    let text = |field: &Option<String>| field.as_deref().unwrap_or_default().to_owned();
    let named = [
        ("configMap", "name", volume.config_map.as_ref().map(|source| source.name.clone())),
        ("secret", "secretName", volume.secret.as_ref().map(|source| text(&source.secret_name))),
        (
            "persistentVolumeClaim",
            "claimName",
            volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone()),
        ),
        ("hostPath", "path", volume.host_path.as_ref().map(|source| source.path.clone())),
    ];
    for (source, field, name) in named {
        if name.is_some_and(|name| name.is_empty()) {
            let path = path.child(source);
            errors.required(&path.child(field), "");
        }
    }
}
