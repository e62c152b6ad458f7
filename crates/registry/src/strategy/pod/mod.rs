//! Pods: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/>.

mod claims;
pub(crate) mod defaults;
mod label_keys;
mod quality;
mod resize;
mod scheduling;
mod update;
pub(crate) mod validate;
mod volumes;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use wharf_model::time::Time;
use wharf_ports::cluster::Part;

use super::Rules;
use crate::field::{Errors, Path};

pub use quality::quality_of_service;
pub(crate) use resize::{resized, validate_resize};
pub(crate) use scheduling::{label_selector, node_selector};

impl Rules for Pod {
    const GENERATION: bool = true;
    const LABELS_WITH_STATUS: bool = true;

    fn set_defaults(&mut self) {
        defaults::pod(self);
    }

    fn prepare_create(&mut self, now: Time) {
        let mut status = PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(quality_of_service(self).to_owned()),
            ..PodStatus::default()
        };
        let gates = self.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
        if gates.is_some_and(|gates| !gates.is_empty()) {
            let mut gated = condition("PodScheduled", false, self.metadata.generation);
            gated.reason = Some("SchedulingGated".to_owned());
            gated.message =
                Some("Scheduling is blocked due to non-empty scheduling gates".to_owned());
            set_condition(&mut status, gated, now);
        }
        self.status = Some(status);
        label_keys::merge(self);
    }

    fn prepare_update(&mut self, old: &Self, part: Part) {
        if part == Part::Status {
            // The class of service is the API server's to say.
            let class = old.status.as_ref().and_then(|status| status.qos_class.clone());
            self.status.get_or_insert_default().qos_class = class;
        }
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    /// Most writes of a pod are of its status: the old one is not copied to be thrown away.
    fn with_status(&self, from: &Self) -> Self {
        Self {
            metadata: self.metadata.clone(),
            spec: self.spec.clone(),
            status: from.status.clone(),
        }
    }

    fn validate(&self, errors: &mut Errors) {
        validate::pod(self, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        update::validate(self, old, errors);
    }
}

/// The node a pod is bound to.
pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

/// Whether a pod has run to its end.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a pod's condition Ready is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A condition that says yes or no about a generation of a pod.
pub(crate) fn condition(type_: &str, holds: bool, generation: Option<i64>) -> PodCondition {
    PodCondition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        observed_generation: generation,
        ..PodCondition::default()
    }
}

/// Sets a condition; the time of its last transition moves only if its status changes.
pub(crate) fn set_condition(status: &mut PodStatus, mut condition: PodCondition, now: Time) {
    let conditions = status.conditions.get_or_insert_default();
    condition.last_transition_time = Some(now.to_meta());
    match conditions.iter_mut().find(|existing| existing.type_ == condition.type_) {
        Some(existing) => {
            if existing.status == condition.status {
                condition.last_transition_time = existing.last_transition_time.take();
            }
            *existing = condition;
        }
        None => conditions.push(condition),
    }
}

/// The path of a pod's spec.
pub(crate) const SPEC: Path<'static> = Path::root("spec");
