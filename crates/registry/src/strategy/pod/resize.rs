//! The `pods/resize` subresource: containers get other requests and limits while they run (KEP-1287).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use wharf_model::object::Typed;
use wharf_ports::error::{ApiError, StatusReason};

use super::{SPEC, quality_of_service, validate};
use crate::field::{Errors, Path};
use crate::strategy::typed;

/// What can be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

type List = BTreeMap<String, ApiQuantity>;

/// The stored pod with the resources of another one's containers; nothing else of that one counts.
///
/// # Errors
/// If the object is no pod: nothing else can be resized.
pub(crate) fn resized(
    object: &dyn Typed,
    old: &dyn Typed,
    errors: &mut Errors,
) -> Result<Box<dyn Typed>, ApiError> {
    let Some(new) = object.as_any().downcast_ref::<Pod>() else {
        let message = "the server could not find the requested resource";
        return Err(ApiError::new(StatusReason::NotFound, message));
    };
    let mut draft = typed::<Pod>(old).clone();
    let asked = new.spec.clone().unwrap_or_default();
    let spec = draft.spec.get_or_insert_default();
    for (field, new, old) in [
        ("containers", asked.containers, Some(&mut spec.containers)),
        (
            "initContainers",
            asked.init_containers.unwrap_or_default(),
            spec.init_containers.as_mut(),
        ),
    ] {
        let mut nothing = Vec::new();
        let old = old.unwrap_or(&mut nothing);
        if new.len() != old.len() {
            let detail = "pod resize may not add or remove containers";
            errors.forbidden(&SPEC.child(field), detail);
            continue;
        }
        for new in new {
            if let Some(old) = old.iter_mut().find(|old| old.name == new.name) {
                // Empty is as good as absent.
                let is_news = new.resources.as_ref().is_some_and(|r| *r != Default::default());
                if is_news || old.resources.is_some() {
                    old.resources = new.resources;
                }
            }
        }
    }
    // As for every pod, what is limited and not asked for is asked for.
    wharf_model::resources::default_requests_from_limits(spec);
    if new.metadata.resource_version.is_some() {
        draft.metadata.resource_version.clone_from(&new.metadata.resource_version);
    }
    Ok(Box::new(draft))
}

/// What is wrong with a resize.
pub(crate) fn validate_resize(new: &dyn Typed, old: &dyn Typed, errors: &mut Errors) {
    let (new, old) = (typed::<Pod>(new), typed::<Pod>(old));
    validate::pod(new, errors);
    let class = old.status.as_ref().and_then(|status| status.qos_class.as_deref());
    let before = class.unwrap_or_else(|| quality_of_service(old));
    if quality_of_service(new) != before {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.invalid(&SPEC, before, detail);
    }
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return };
    let mut only_these = true;
    let lists = [
        ("containers", new.containers.as_slice(), old.containers.as_slice()),
        (
            "initContainers",
            new.init_containers.as_deref().unwrap_or_default(),
            old.init_containers.as_deref().unwrap_or_default(),
        ),
    ];
    for (field, new, old) in lists {
        let path = SPEC.child(field);
        for (index, (new, old)) in new.iter().zip(old).enumerate() {
            let path = path.index(index);
            removals(&path.child("resources"), new, old, errors);
            only_these &= rest(new) == rest(old);
            let is_plain_init = field == "initContainers" && !wharf_model::pod::is_sidecar(old);
            if is_plain_init && new.resources != old.resources {
                errors.forbidden(&path, "resources for non-sidecar init containers are immutable");
            }
        }
    }
    if !only_these {
        errors.forbidden(&SPEC, "only cpu and memory resources are mutable");
    }
}

/// What was set may be changed, but not taken away.
fn removals(path: &Path<'_>, new: &Container, old: &Container, errors: &mut Errors) {
    type Of = fn(&ResourceRequirements) -> Option<&List>;
    let lists: [(&str, Of, &str); 2] = [
        ("limits", |r| r.limits.as_ref(), "resource limits cannot be removed"),
        ("requests", |r| r.requests.as_ref(), "resource requests cannot be removed"),
    ];
    for (field, of, detail) in lists {
        let list = |container: &Container| {
            container.resources.as_ref().and_then(of).cloned().unwrap_or_default()
        };
        let (new, old) = (list(new), list(old));
        if RESIZABLE.iter().any(|name| old.contains_key(*name) && !new.contains_key(*name)) {
            errors.forbidden(&path.child(field), detail);
        }
    }
}

/// A container's resources without what can be resized.
fn rest(container: &Container) -> ResourceRequirements {
    let mut resources = container.resources.clone().unwrap_or_default();
    for list in [&mut resources.requests, &mut resources.limits] {
        if let Some(amounts) = list {
            amounts.retain(|name, _| !RESIZABLE.contains(&name.as_str()));
        }
        if list.as_ref().is_some_and(BTreeMap::is_empty) {
            *list = None;
        }
    }
    resources
}
