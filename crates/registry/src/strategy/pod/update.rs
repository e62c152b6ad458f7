//! What may change in a pod once it is there: images, deadlines, more tolerations, and as long as
//! gates hold it, where it may run.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{SPEC, validate};
use crate::field::{Errors, Json, Path};

/// Upstream follows this with a dump of the difference, which is not kept up here.
const FIELDS_THAT_MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn validate(new: &Pod, old: &Pod, errors: &mut Errors) {
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else {
        return validate::pod(new, errors);
    };
    if new_spec == old_spec {
        return;
    }
    if new_spec.containers.len() != old_spec.containers.len() {
        let detail = "pod updates may not add or remove containers";
        return errors.forbidden(&SPEC.child("containers"), detail);
    }
    validate::pod(new, errors);
    deadline(new_spec, old_spec, errors);
    let mut allowed = new_spec.clone();
    restore_images(&mut allowed.containers, &old_spec.containers);
    if let (Some(new), Some(old)) = (&mut allowed.init_containers, &old_spec.init_containers) {
        restore_images(new, old);
    }
    allowed.active_deadline_seconds = old_spec.active_deadline_seconds;
    tolerations(new_spec, old_spec, errors);
    allowed.tolerations.clone_from(&old_spec.tolerations);
    if old_spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0)
        && new_spec.termination_grace_period_seconds == Some(1)
    {
        allowed.termination_grace_period_seconds = old_spec.termination_grace_period_seconds;
    }
    gates(&mut allowed, old_spec, errors);
    if allowed != *old_spec {
        errors.forbidden(&SPEC, FIELDS_THAT_MAY_CHANGE);
    }
}

fn restore_images(new: &mut [Container], old: &[Container]) {
    for (new, old) in new.iter_mut().zip(old) {
        new.image.clone_from(&old.image);
    }
}

fn deadline(new: &PodSpec, old: &PodSpec, errors: &mut Errors) {
    let path = SPEC.child("activeDeadlineSeconds");
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(&path, &new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            errors.invalid(&path, "", "must not update from a positive integer to nil value");
        }
        _ => {}
    }
}

fn tolerations(new: &PodSpec, old: &PodSpec, errors: &mut Errors) {
    let new = new.tolerations.as_deref().unwrap_or_default();
    let has_lost_one = old.tolerations.iter().flatten().any(|toleration| {
        // The seconds of a toleration may change.
        !new.iter().any(|kept| {
            kept.key == toleration.key
                && kept.operator == toleration.operator
                && kept.value == toleration.value
                && kept.effect == toleration.effect
        })
    });
    if has_lost_one {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(&SPEC.child("tolerations"), detail);
    }
}

/// Gates may only be taken away; while there are any, the node selector may be narrowed.
fn gates(allowed: &mut PodSpec, old: &PodSpec, errors: &mut Errors) {
    let before = old.scheduling_gates.as_deref().unwrap_or_default();
    let after = allowed.scheduling_gates.clone().unwrap_or_default();
    let path = SPEC.child("schedulingGates");
    for (index, gate) in after.iter().enumerate() {
        if !before.contains(gate) {
            let path: Path<'_> = path.index(index);
            let detail = "only deletion is allowed, but found new scheduling gate '";
            errors.forbidden(&path.child("name"), format!("{detail}{}'", gate.name));
        }
    }
    allowed.scheduling_gates.clone_from(&old.scheduling_gates);
    if before.is_empty() {
        return;
    }
    let new = allowed.node_selector.clone().unwrap_or_default();
    let is_narrowed = old.node_selector.iter().flatten().all(|(k, v)| new.get(k) == Some(v));
    if !is_narrowed {
        let path = SPEC.child("nodeSelector");
        errors.invalid(&path, &Json(&new), "only additions are allowed");
    }
    allowed.node_selector.clone_from(&old.node_selector);
    // Upstream also checks that the affinity is only narrowed.
    allowed.affinity.clone_from(&old.affinity);
}
