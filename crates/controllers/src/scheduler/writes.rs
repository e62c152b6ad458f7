//! What the scheduler writes: conditions, nominations and Events, in upstream's words.

use std::collections::BTreeMap;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use wharf_model::kinds::Kind;
use wharf_model::object::Object;
use wharf_model::time::Time;
use wharf_ports::cluster::{Part, Write};
use wharf_ports::event::{EventRecord, EventType, Regarding};
use wharf_scheduler::PodInfo;

/// The longest note of an Event, in bytes; a longer one is cut and marked.
const NOTE_MAX: usize = 1024;
const NOTE_MARK: &str = " ...";

/// Why a pod is not scheduled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Plugins turned it down, or there are no nodes.
    Unschedulable(String),
    /// Something went wrong.
    Error(String),
}

impl Verdict {
    /// The text.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Unschedulable(message) | Self::Error(message) => message,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unschedulable(_) => "Unschedulable",
            Self::Error(_) => "SchedulerError",
        }
    }
}

/// `PodScheduled=False`, and the node on which room is being made (empty for none). `None` if the
/// pod says so already.
pub(super) fn verdict(
    object: &Object,
    verdict: &Verdict,
    nominated: &str,
    now: Time,
) -> Option<Write> {
    let mut pod = status_draft(object)?;
    let generation = pod.metadata.generation;
    let status = pod.status.get_or_insert_default();
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some(verdict.reason().to_owned()),
        message: Some(verdict.message().to_owned()),
        observed_generation: generation,
        ..PodCondition::default()
    };
    let nominated = (!nominated.is_empty()).then(|| nominated.to_owned());
    let changed = set_condition(status, condition, now);
    if !changed && status.nominated_node_name == nominated {
        return None;
    }
    status.nominated_node_name = nominated;
    Some(Write::Update { object: Box::new(pod), part: Part::Status })
}

/// `PodScheduled=False` for a reason of its own. `None` if the pod says so already.
pub(crate) fn refused(object: &Object, reason: &str, message: &str, now: Time) -> Option<Write> {
    let mut pod = status_draft(object)?;
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..PodCondition::default()
    };
    set_condition(pod.status.get_or_insert_default(), condition, now)
        .then(|| Write::Update { object: Box::new(pod), part: Part::Status })
}

/// Says something of a pod on its way to a node.
pub(crate) fn told(
    object: &Object,
    kind: EventType,
    reason: &str,
    message: String,
    scheduler: &str,
) -> Write {
    record(object, kind, reason, "Scheduling", message, scheduler)
}

/// Says to which node a pod is going. `None` if it says so already.
pub(super) fn nominated(object: &Object, node: &str) -> Option<Write> {
    let mut pod = status_draft(object)?;
    let status = pod.status.get_or_insert_default();
    if status.nominated_node_name.as_deref() == Some(node) {
        return None;
    }
    status.nominated_node_name = Some(node.to_owned());
    Some(Write::Update { object: Box::new(pod), part: Part::Status })
}

/// Takes the nomination off a pod; `None` if it has none.
pub(super) fn without_nomination(object: &Object) -> Option<Write> {
    let mut pod = status_draft(object)?;
    pod.status.as_mut()?.nominated_node_name.take()?;
    Some(Write::Update { object: Box::new(pod), part: Part::Status })
}

/// Marks a victim of preemption before it is deleted.
pub(super) fn disruption_target(object: &Object, scheduler: &str, now: Time) -> Option<Write> {
    let mut pod = status_draft(object)?;
    let generation = pod.metadata.generation;
    let condition = PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("PreemptionByScheduler".to_owned()),
        message: Some(format!("{scheduler}: preempting to accommodate a higher priority pod")),
        observed_generation: generation,
        ..PodCondition::default()
    };
    set_condition(pod.status.get_or_insert_default(), condition, now)
        .then(|| Write::Update { object: Box::new(pod), part: Part::Status })
}

/// A copy of a pod to change the status of. Nothing else of it is read then, so the largest part of a
/// pod is left out.
fn status_draft(object: &Object) -> Option<Pod> {
    let Pod { metadata, status, .. } = object.typed::<Pod>()?;
    Some(Pod { metadata: metadata.clone(), spec: None, status: status.clone() })
}

/// Sets a condition; its transition time moves only when its status does. Returns whether anything
/// changed.
fn set_condition(status: &mut PodStatus, mut condition: PodCondition, now: Time) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let held = conditions.iter_mut().find(|held| held.type_ == condition.type_);
    condition.last_transition_time = Some(now.to_meta());
    match held {
        Some(held) => {
            if held.status == condition.status {
                condition.last_transition_time.clone_from(&held.last_transition_time);
                if held.reason == condition.reason && held.message == condition.message {
                    return false;
                }
            }
            *held = condition;
        }
        None => conditions.push(condition),
    }
    true
}

/// `Scheduled`: the pod is on its node.
pub(crate) fn scheduled(object: &Object, node: &str, scheduler: &str) -> Write {
    let message = format!("Successfully assigned {} to {node}", object.key());
    record(object, EventType::Normal, "Scheduled", "Binding", message, scheduler)
}

/// `FailedScheduling`: no node will take the pod.
pub(crate) fn failed(object: &Object, message: &str, scheduler: &str) -> Write {
    let note = cut(message);
    record(object, EventType::Warning, "FailedScheduling", "Scheduling", note, scheduler)
}

/// A pod that has a node is not bound yet, for a reason that takes a while.
pub(super) fn waits(object: &Object, reason: &str, note: String, scheduler: &str) -> Write {
    record(object, EventType::Normal, reason, "Scheduling", note, scheduler)
}

/// `Preempted`: the pod goes for one of higher priority, from a node or from the way there.
pub(super) fn preempted(
    object: &Object,
    by: &PodInfo,
    node: &CompactString,
    unbound: bool,
    scheduler: &str,
) -> Write {
    // A pod that was not bound yet goes nowhere but from the scheduler's own memory.
    let place = if unbound { " (in kube-scheduler memory)." } else { "" };
    let message = format!("Preempted by pod {} on node {node}{place}", by.uid);
    let preemptor = Regarding {
        kind: Kind::of::<Pod>(),
        key: by.key.clone(),
        uid: by.uid.clone(),
        field_path: String::new(),
    };
    let mut record =
        event(object, EventType::Normal, "Preempted", "Preempting", message, scheduler);
    record.related = Some(Box::new(preemptor));
    Write::Record(record)
}

fn record(
    object: &Object,
    kind: EventType,
    reason: &str,
    action: &str,
    message: String,
    scheduler: &str,
) -> Write {
    Write::Record(event(object, kind, reason, action, message, scheduler))
}

fn event(
    object: &Object,
    kind: EventType,
    reason: &str,
    action: &str,
    message: String,
    scheduler: &str,
) -> EventRecord {
    EventRecord {
        regarding: Regarding::object(object),
        related: None,
        kind,
        reason: reason.to_owned(),
        action: action.to_owned(),
        message,
        component: scheduler.to_owned(),
        host: String::new(),
        annotations: BTreeMap::new(),
    }
}

fn cut(note: &str) -> String {
    if note.len() <= NOTE_MAX {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(NOTE_MAX - NOTE_MARK.len());
    format!("{}{NOTE_MARK}", &note[..end])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(status: serde_json::Value) -> Object {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": []}, "status": status});
        Object::from_typed(Box::new(serde_json::from_value::<Pod>(pod).unwrap()), 1)
    }

    fn says(message: &str) -> Verdict {
        Verdict::Unschedulable(message.to_owned())
    }

    fn written(write: Option<Write>) -> Pod {
        let Some(Write::Update { object, part: Part::Status }) = write else {
            panic!("a status update")
        };
        object.as_any().downcast_ref::<Pod>().unwrap().clone()
    }

    #[test]
    fn a_condition_is_written_only_when_it_says_something_new() {
        let pod = written(verdict(&object(json!({})), &says("a"), "", Time::from_seconds(1)));
        let first = pod.status.clone().unwrap().conditions.unwrap()[0].clone();
        assert_eq!(first.last_transition_time, Some(Time::from_seconds(1).to_meta()));
        let again = Object::from_typed(Box::new(pod), 2);
        assert!(verdict(&again, &says("a"), "", Time::from_seconds(2)).is_none());
        let pod = written(verdict(&again, &says("b"), "", Time::from_seconds(2)));
        let second = pod.status.unwrap().conditions.unwrap()[0].clone();
        assert_eq!(second.message.as_deref(), Some("b"));
        assert_eq!(second.last_transition_time, first.last_transition_time, "still False");
        assert!(verdict(&again, &says("a"), "node", Time::from_seconds(2)).is_some());
    }

    #[test]
    fn long_notes_are_cut_and_marked() {
        let note = cut(&"é".repeat(600));
        assert!(note.len() <= NOTE_MAX && note.ends_with("é ..."));
        assert_eq!(cut("short"), "short");
    }
}
