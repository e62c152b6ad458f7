//! Events as Karpenter records them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use wharf_model::karpenter::conditions::transitions;
use wharf_model::kinds::Resource;
use wharf_model::object::ObjectKey;
use wharf_ports::cluster::Write;
use wharf_ports::controller::Step;
use wharf_ports::event::{EventRecord, EventType, Regarding};

use super::log::COMPONENT;

/// What an event is about, from a typed object.
pub(super) fn about<T: Resource>(object: &T) -> Regarding {
    let meta: &ObjectMeta = k8s_openapi::Metadata::metadata(object);
    Regarding {
        kind: T::kind(),
        key: ObjectKey::of(meta),
        uid: meta.uid.as_deref().unwrap_or_default().into(),
        field_path: String::new(),
    }
}

/// An event.
pub(super) fn event(
    regarding: Regarding,
    kind: EventType,
    reason: &str,
    message: impl Into<String>,
) -> Write {
    Write::Record(EventRecord {
        regarding,
        related: None,
        kind,
        reason: reason.to_owned(),
        action: String::new(),
        message: message.into(),
        component: COMPONENT.to_owned(),
        host: String::new(),
        annotations: BTreeMap::new(),
    })
}

/// A Normal event on an object.
pub(super) fn normal<T: Resource>(object: &T, reason: &str, message: impl Into<String>) -> Write {
    event(about(object), EventType::Normal, reason, message)
}

/// A Warning event on an object.
pub(super) fn warning<T: Resource>(object: &T, reason: &str, message: impl Into<String>) -> Write {
    event(about(object), EventType::Warning, reason, message)
}

/// Adds the event of each change of a condition's status: the source of the Launched, Registered,
/// Initialized and Ready events.
pub(super) fn report_transitions<T: Resource>(
    step: &mut Step,
    object: &T,
    before: &[Condition],
    after: &[Condition],
) {
    for transition in transitions(before, after) {
        let message = transition.event_message();
        step.write(normal(object, &transition.condition_type, message));
    }
}
