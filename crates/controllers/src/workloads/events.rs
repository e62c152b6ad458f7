//! The events that the workload controllers record.

use std::collections::BTreeMap;

use wharf_model::object::Object;
use wharf_ports::cluster::Write;
use wharf_ports::event::{EventRecord, EventType, Regarding};

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
        related: None,
        kind,
        reason: reason.to_owned(),
        action: String::new(),
        message: message.into(),
        component: component.to_owned(),
        host: String::new(),
        annotations: BTreeMap::new(),
    })
}
