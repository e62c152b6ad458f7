//! What is wrong with the devices a pod asks for, and with the group it is scheduled with.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodResourceClaim, PodSpec, ResourceRequirements};
use wharf_model::names;

use crate::field::{Errors, Json, Path};

/// Checks the claims of a pod and returns their names, for the containers to refer to.
pub(super) fn validate<'s>(
    path: &Path<'_>,
    spec: &'s PodSpec,
    errors: &mut Errors,
) -> BTreeSet<&'s str> {
    let claims = path.child("resourceClaims");
    let mut seen = BTreeSet::new();
    for (index, claim) in spec.resource_claims.iter().flatten().enumerate() {
        let path = claims.index(index);
        let name = path.child("name");
        if claim.name.is_empty() {
            errors.required(&name, "");
        } else if !seen.insert(claim.name.as_str()) {
            errors.duplicate(&name, &claim.name);
        } else {
            errors.invalid_each(&name, &claim.name, names::dns_1123_label(&claim.name));
        }
        source(&path, claim, errors);
    }
    if let Some(group) = &spec.scheduling_group {
        let path = path.child("schedulingGroup");
        match group.pod_group_name.as_deref() {
            None => errors.invalid(&path, "", "must specify one of: `podGroupName`"),
            Some(name) => {
                let messages = names::dns_1123_subdomain(name);
                errors.invalid_each(&path.child("podGroupName"), name, messages);
            }
        }
    }
    seen
}

/// A claim is either there or made from a template.
fn source(path: &Path<'_>, claim: &PodResourceClaim, errors: &mut Errors) {
    let sources = [
        ("resourceClaimName", claim.resource_claim_name.as_deref()),
        ("resourceClaimTemplateName", claim.resource_claim_template_name.as_deref()),
    ];
    match sources.map(|(_, name)| name.is_some()) {
        [true, true] => {
            let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
            errors.invalid(path, &Json(claim), detail);
        }
        [false, false] => {
            let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
            errors.invalid(path, &Json(claim), detail);
        }
        _ => {}
    }
    for (field, name) in sources {
        if let Some(name) = name {
            errors.invalid_each(&path.child(field), name, names::dns_1123_subdomain(name));
        }
    }
}

/// What a container takes of its pod's claims.
pub(super) fn of_container(
    path: &Path<'_>,
    resources: &ResourceRequirements,
    known: &BTreeSet<&str>,
    errors: &mut Errors,
) {
    let claims = path.child("claims");
    let mut seen = BTreeSet::new();
    for (index, claim) in resources.claims.iter().flatten().enumerate() {
        let path = claims.index(index);
        if claim.name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if !seen.insert((&claim.name, &claim.request)) {
            errors.duplicate(&path, &claim.name);
        }
        if !known.contains(claim.name.as_str()) {
            let which = match known.iter().copied().collect::<Vec<_>>().join(", ") {
                none if none.is_empty() => " which is empty".to_owned(),
                names => format!(": {names}"),
            };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{which}");
            errors.not_found_among(&path, &claim.name, &detail);
        }
    }
}
