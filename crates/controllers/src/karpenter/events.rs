//! Events as Karpenter records them.

use std::any::Any;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use wharf_model::auto_mode::{AutoNodeClass, EVENT_SOURCE, is_auto_class};
use wharf_model::karpenter::conditions::transitions;
use wharf_model::karpenter::{NodeClaim, NodePool};
use wharf_model::kinds::Resource;
use wharf_model::labels::eks;
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
    let event = event(about(object), EventType::Normal, reason, message);
    told_by(event, is_of_auto_mode(object))
}

/// A Warning event on an object.
pub(super) fn warning<T: Resource>(object: &T, reason: &str, message: impl Into<String>) -> Write {
    let event = event(about(object), EventType::Warning, reason, message);
    told_by(event, is_of_auto_mode(object))
}

/// The event as told by EKS Auto Mode, if it is.
pub(super) fn told_by(mut event: Write, is_auto: bool) -> Write {
    if let Write::Record(record) = &mut event
        && is_auto
    {
        record.component = EVENT_SOURCE.to_owned();
    }
    event
}

/// Whether EKS Auto Mode looks after an object. Pods do not say it; whoever tells of one knows.
fn is_of_auto_mode<T: Resource>(object: &T) -> bool {
    let object = object as &dyn Any;
    if let Some(claim) = object.downcast_ref::<NodeClaim>() {
        is_auto_class(&claim.spec.node_class_ref)
    } else if let Some(pool) = object.downcast_ref::<NodePool>() {
        is_auto_class(&pool.spec.template.spec.node_class_ref)
    } else if let Some(node) = object.downcast_ref::<Node>() {
        is_auto_node(node)
    } else {
        object.is::<AutoNodeClass>()
    }
}

/// Whether a node is of EKS Auto Mode.
pub(super) fn is_auto_node(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    labels.is_some_and(|labels| {
        labels.get(eks::COMPUTE_TYPE).map(String::as_str) == Some(eks::COMPUTE_TYPE_AUTO)
    })
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
