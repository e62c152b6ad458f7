//! One volume: its phase, and what becomes of it when its claim is gone.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use wharf_model::kinds::Kind;
use wharf_model::labels::{BOUND_BY_CONTROLLER, PROVISIONED_BY};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::{Part, Write};
use wharf_ports::controller::{Context, Step, WorkKey};
use wharf_ports::event::EventType;

use super::{COMPONENT, matching, volume_name};
use crate::workloads::event;

/// Brings one volume's phase in line with its claim.
pub(super) fn sync(key: &ObjectKey, context: &Context<'_>) -> Step {
    let mut step = Step::done();
    let view = context.view;
    let object = view.object(Kind::of::<PersistentVolume>(), key);
    let Some((object, volume)) =
        object.and_then(|object| Some((object, object.typed::<PersistentVolume>()?)))
    else {
        return step;
    };
    let now = context.now;
    let Some((claim_key, uid)) = matching::claimed(volume) else {
        phase(volume, "Available", "", now, &mut step);
        return step;
    };
    let Some(uid) = uid else {
        // Reserved by name for a claim that has not been bound.
        phase(volume, "Available", "", now, &mut step);
        step.enqueue.push((
            WorkKey::object(Kind::of::<PersistentVolumeClaim>(), &claim_key),
            std::time::Duration::ZERO,
        ));
        return step;
    };
    let claim = view
        .get::<PersistentVolumeClaim>(&claim_key)
        .filter(|claim| claim.metadata.uid.as_deref() == Some(uid));
    match claim {
        None => {
            if !matches!(current(volume), Some("Released" | "Failed")) {
                phase(volume, "Released", "", now, &mut step);
            }
            reclaim(object, volume, now, &mut step);
        }
        Some(claim) => match volume_name(claim) {
            // The claim's own look finishes the binding.
            None => step.enqueue.push((
                WorkKey::object(Kind::of::<PersistentVolumeClaim>(), &claim_key),
                std::time::Duration::ZERO,
            )),
            Some(name) if name == key.name => phase(volume, "Bound", "", now, &mut step),
            Some(_) => elsewhere(object, volume, now, &mut step),
        },
    }
    step
}

/// The claim that a volume was meant for has another one.
fn elsewhere(object: &Object, volume: &PersistentVolume, now: Time, step: &mut Step) {
    let has = |key: &str| {
        volume
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|annotations| annotations.contains_key(key))
    };
    if has(PROVISIONED_BY) && policy(volume) == "Delete" {
        // It was made for this claim alone and nobody will want it.
        if !matches!(current(volume), Some("Released" | "Failed")) {
            phase(volume, "Released", "", now, step);
        }
        return reclaim(object, volume, now, step);
    }
    let mut free = volume.clone();
    let spec = free.spec.get_or_insert_default();
    if has(BOUND_BY_CONTROLLER) {
        spec.claim_ref = None;
        free.metadata.annotations.iter_mut().for_each(|annotations| {
            annotations.remove(BOUND_BY_CONTROLLER);
        });
    } else if let Some(reference) = &mut spec.claim_ref {
        // A user reserved it: the reservation stays.
        reference.uid = None;
    }
    set_phase(&mut free, "Available", "", now);
    step.write(Write::Update { object: Box::new(free), part: Part::All });
}

/// What the policy says to do with a volume whose claim is gone. A volume that a driver made is
/// deleted by the driver; nobody here deletes or empties others.
fn reclaim(object: &Object, volume: &PersistentVolume, now: Time, step: &mut Step) {
    let is_external = volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some());
    let (reason, text) = match policy(volume) {
        "Delete" if !is_external => (
            "VolumeFailedDelete",
            format!(
                "error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched",
                object.key().name
            ),
        ),
        "Recycle" => ("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned()),
        _ => return,
    };
    if current(volume) != Some("Failed") {
        phase(volume, "Failed", &text, now, step);
        step.write(event(object, EventType::Warning, COMPONENT, reason, text));
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

fn current(volume: &PersistentVolume) -> Option<&str> {
    volume.status.as_ref()?.phase.as_deref()
}

/// Writes a phase that is news.
fn phase(volume: &PersistentVolume, phase: &str, message: &str, now: Time, step: &mut Step) {
    let mut changed = volume.clone();
    set_phase(&mut changed, phase, message, now);
    if changed != *volume {
        changed.metadata.resource_version = None;
        step.write(Write::Update { object: Box::new(changed), part: Part::Status });
    }
}

/// Sets the phase of a volume, and since when it has it.
pub(super) fn set_phase(volume: &mut PersistentVolume, phase: &str, message: &str, now: Time) {
    let status = volume.status.get_or_insert_default();
    if status.phase.as_deref() == Some(phase) {
        return;
    }
    status.phase = Some(phase.to_owned());
    status.message = (!message.is_empty()).then(|| message.to_owned());
    status.last_phase_transition_time = Some(now.to_meta());
}
