//! What the workload controllers share: how pods are judged, how owners and events are written.

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::Write;
use wharf_ports::event::{EventRecord, EventType, Regarding};
use wharf_ports::view::View;

/// The finalizer of a foreground deletion.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an orphaning deletion.
pub(crate) const ORPHAN: &str = "orphan";

/// A reference that makes `owner` the managing owner.
pub(crate) fn controller_reference<T: Resource>(owner: &T) -> OwnerReference {
    let meta = k8s_openapi::Metadata::metadata(owner);
    let kind = Kind::of::<T>();
    OwnerReference {
        api_version: kind.api_version(),
        kind: kind.kind.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The managing owner of an object, if it is of kind `T` and there.
pub(crate) fn controller_of<'v, T: Resource>(
    object: &Object,
    view: &'v View,
) -> Option<&'v Object> {
    let owner = object.header().controller().filter(|owner| owner.kind == T::kind().kind)?;
    let key = ObjectKey { namespace: object.key().namespace.clone(), name: owner.name.clone() };
    let found = view.object(T::kind(), &key)?;
    (found.uid() == owner.uid).then_some(found.as_ref())
}

/// An event about `object`.
pub(crate) fn event(
    object: &Object,
    kind: EventType,
    component: &str,
    reason: &str,
    message: impl Into<String>,
) -> Write {
    Write::Record(EventRecord {
        regarding: Regarding::object(object),
        kind,
        reason: reason.to_owned(),
        action: String::new(),
        message: message.into(),
        component: component.to_owned(),
        host: String::new(),
    })
}

/// The pod's phase; `Pending` while it has none.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod has ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts as a replica: neither ended nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// A condition of a pod.
pub(crate) fn pod_condition<'p>(pod: &'p Pod, type_: &str) -> Option<&'p PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// Since when the pod is ready; `None` if it is not.
pub(crate) fn ready_since(pod: &Pod) -> Option<Time> {
    let ready = pod_condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    Some(ready.last_transition_time.as_ref().map(Time::from).unwrap_or_default())
}

/// When the pod counts as available: ready for `min_ready_seconds`. `None` if it is not ready.
pub(crate) fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Time> {
    let seconds = u64::try_from(min_ready_seconds).unwrap_or(0);
    Some(ready_since(pod)? + std::time::Duration::from_secs(seconds))
}

/// `25%` or a number, of `total`.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|text| text.parse::<i64>().ok());
            let product = percent.unwrap_or(0) * i64::from(total);
            let scaled =
                if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(scaled).unwrap_or(i32::MAX)
        }
    }
}

/// The first part of a generated name, cut so that the whole fits a label.
pub(crate) fn generated_name_base(base: &str) -> &str {
    const BASE_MAX: usize = 63 - 5;
    let mut end = base.len().min(BASE_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    &base[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_told() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        for (value, total, up, down) in [
            (percent("25%"), 5, 2, 1),
            (percent("25%"), 4, 1, 1),
            (percent("0%"), 9, 0, 0),
            (percent("100%"), 9, 9, 9),
            (IntOrString::Int(3), 1, 3, 3),
        ] {
            assert_eq!(scaled(&value, total, true), up, "{value:?} of {total}");
            assert_eq!(scaled(&value, total, false), down, "{value:?} of {total}");
        }
    }
}
