//! A node that runs out of memory: who is evicted first, and how it is told.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/>, with the
//! kubelet's defaults: the hard threshold `memory.available<100Mi` and a pressure that lasts five
//! minutes beyond its end.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use wharf_model::object::ObjectKey;
use wharf_model::quantity::{Format, Quantity};
use wharf_model::resources::pod_requests;
use wharf_model::time::Time;

/// The kubelet's default `--eviction-hard` for memory.
pub(super) const AVAILABLE_MIN: u64 = 100 << 20;
/// The kubelet looks this often.
pub(super) const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// The default `--eviction-pressure-transition-period`.
pub(super) const TRANSITION: Duration = Duration::from_secs(300);

/// A pod as eviction looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) pod: ObjectKey,
    pub(super) priority: i32,
    /// Bytes asked for, of the whole pod.
    pub(super) asked: u64,
    /// Bytes used, by container.
    pub(super) used: Vec<(String, u64)>,
}

impl Candidate {
    pub(super) fn new(key: &ObjectKey, pod: &Pod, used: Vec<(String, u64)>) -> Self {
        let spec = pod.spec.as_ref();
        let asked = spec.map_or(0, |spec| pod_requests(spec).memory_bytes);
        Self {
            pod: key.clone(),
            priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
            asked: u64::try_from(asked).unwrap_or(0),
            used,
        }
    }

    fn total(&self) -> u64 {
        self.used.iter().map(|(_, bytes)| bytes).sum()
    }

    fn over(&self) -> i128 {
        i128::from(self.total()) - i128::from(self.asked)
    }
}

/// Who is evicted: those that use more than they asked for first, of these the least important,
/// of these the one that uses most beyond what it asked for.
pub(super) fn victim(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().min_by(|a, b| {
        (a.over() <= 0)
            .cmp(&(b.over() <= 0))
            .then(a.priority.cmp(&b.priority))
            .then(b.over().cmp(&a.over()))
            .then_with(|| a.pod.cmp(&b.pod))
    })
}

/// How an eviction is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Eviction {
    /// The text of the Event, the pod's status and its condition.
    pub(crate) message: String,
    /// Annotations of the Event, from which programs learn what was used: the Vertical Pod
    /// Autoscaler's recommender does.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The eviction of a pod, in the kubelet's words.
pub(super) fn eviction(victim: &Candidate, pod: &Pod, available: u64) -> Eviction {
    let text = |bytes: u64| {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        Quantity::from_units(bytes, Format::BinarySi).to_api().0
    };
    let mut message = format!(
        "The node was low on resource: memory. Threshold quantity: {}, available: {}. ",
        text(AVAILABLE_MIN),
        text(available & !1_023)
    );
    let (mut offending, mut usage) = (Vec::new(), Vec::new());
    for (name, used) in &victim.used {
        let container = pod.spec.iter().flat_map(|spec| &spec.containers).find(|c| c.name == *name);
        let asked = container
            .and_then(|container| container.resources.as_ref()?.requests.as_ref()?.get("memory"))
            .and_then(|asked| Quantity::try_from(asked).ok())
            .unwrap_or_default();
        if u64::try_from(asked.value_ceil()).is_ok_and(|asked| *used > asked) {
            message.push_str(&format!(
                "Container {name} was using {}, request is {}, has larger consumption of memory. ",
                text(*used & !1_023),
                asked.to_api().0
            ));
            offending.push(name.as_str());
            usage.push(text(*used & !1_023));
        }
    }
    let annotations = [
        ("offending_containers", offending.join(",")),
        ("offending_containers_usage", usage.join(",")),
        ("starved_resource", "memory".to_owned()),
    ];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value)).into();
    Eviction { message, annotations }
}

/// The node with its memory pressure begun or ended; `None` if it says so already.
pub(crate) fn with_condition(node: &Node, pressed: bool, now: Time) -> Option<Node> {
    let mut node = node.clone();
    node.metadata.resource_version = None;
    let conditions = node.status.as_mut()?.conditions.as_mut()?;
    let condition = conditions.iter_mut().find(|condition| condition.type_ == "MemoryPressure")?;
    let status = if pressed { "True" } else { "False" };
    if condition.status == status {
        return None;
    }
    let (reason, message) = texts(pressed);
    *condition = NodeCondition {
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(now.to_meta()),
        last_transition_time: Some(now.to_meta()),
        ..condition.clone()
    };
    Some(node)
}

/// The condition's reason and message.
fn texts(pressed: bool) -> (&'static str, &'static str) {
    if pressed {
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
    } else {
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn candidate(name: &str, priority: i32, asked: u64, used: u64) -> Candidate {
        Candidate {
            pod: ObjectKey::namespaced("default", name),
            priority,
            asked: asked << 20,
            used: vec![("c".to_owned(), used << 20)],
        }
    }

    #[test]
    fn those_beyond_their_request_go_first() {
        let order = |mut left: Vec<Candidate>| {
            let mut names = Vec::new();
            while let Some(next) = victim(left.clone()) {
                left.retain(|candidate| candidate.pod != next.pod);
                names.push(next.pod.name.to_string());
            }
            names.join(" ")
        };
        let pods = vec![
            candidate("within", -5, 500, 400),
            candidate("important", 1_000, 0, 900),
            candidate("little-over", 0, 100, 110),
            candidate("far-over", 0, 100, 300),
        ];
        assert_eq!(order(pods), "far-over little-over important within");
    }

    #[test]
    fn the_text_is_the_kubelets() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "c", "resources": {"requests": {"memory": "100Mi"}}}]}}))
        .expect("a pod");
        let told = eviction(&candidate("a", 0, 100, 1_024), &pod, 52 << 20);
        assert_eq!(
            told.message,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. Container c was using 1Gi, request is 100Mi, has larger consumption of memory. "
        );
        let annotations: Vec<String> =
            told.annotations.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            annotations,
            ["offending_containers=c", "offending_containers_usage=1Gi", "starved_resource=memory"]
        );
        // Who uses no more than it asked for offends nobody.
        let told = eviction(&candidate("a", 0, 100, 80), &pod, 52 << 20);
        assert_eq!(told.annotations["offending_containers"], "");
    }

    #[test]
    fn a_condition_changes_once() {
        let node: Node = serde_json::from_value(json!({"status": {"conditions": [
            {"type": "MemoryPressure", "status": "False"}]}}))
        .expect("a node");
        let pressed = with_condition(&node, true, Time::from_seconds(5)).expect("it is new");
        assert_eq!(with_condition(&pressed, true, Time::from_seconds(9)), None);
        assert!(with_condition(&pressed, false, Time::from_seconds(9)).is_some());
    }
}
