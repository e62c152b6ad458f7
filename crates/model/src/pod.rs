//! How a pod is judged by its status: whether it has ended, is ready, counts.
//!
//! Rules: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition};

use crate::time::Time;

/// Whether the pod has ended for good.
pub fn is_terminal(pod: &Pod) -> bool {
    is_terminal_phase(phase(pod))
}

/// Whether a phase is one in which a pod has ended for good.
pub fn is_terminal_phase(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// Whether the pod counts as a replica: neither ended nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// The pod's phase; `Pending` while it has none.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// A condition of a pod.
pub fn condition<'p>(pod: &'p Pod, type_: &str) -> Option<&'p PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// Since when the pod is ready; `None` if it is not.
pub fn ready_since(pod: &Pod) -> Option<Time> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    Some(ready.last_transition_time.as_ref().map(Time::from).unwrap_or_default())
}

/// When the pod counts as available: ready for `min_ready_seconds`. `None` if it is not ready.
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Time> {
    let seconds = u64::try_from(min_ready_seconds).unwrap_or(0);
    Some(ready_since(pod)? + Duration::from_secs(seconds))
}

/// Whether an init container stays and runs beside the others (KEP-753).
pub fn is_sidecar(init_container: &Container) -> bool {
    init_container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(metadata: Value, status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    #[test]
    fn a_pod_counts_until_it_ends_or_is_deleted() {
        let deleted = json!({"deletionTimestamp": "1970-01-01T00:00:10Z"});
        for (metadata, status, terminal, active) in [
            (json!({}), json!({}), false, true),
            (json!({}), json!({"phase": "Running"}), false, true),
            (json!({}), json!({"phase": "Succeeded"}), true, false),
            (json!({}), json!({"phase": "Failed"}), true, false),
            (deleted, json!({"phase": "Running"}), false, false),
        ] {
            let pod = pod(metadata, status);
            assert_eq!((is_terminal(&pod), is_active(&pod)), (terminal, active), "{pod:?}");
        }
        assert_eq!(phase(&Pod::default()), "Pending");
    }

    #[test]
    fn a_pod_is_available_once_it_has_been_ready_for_long_enough() {
        let ready = |status: &str| {
            let ready = json!({"type": "Ready", "status": status,
                "lastTransitionTime": "1970-01-01T00:00:10Z"});
            pod(json!({}), json!({"conditions": [ready]}))
        };
        let at = |seconds| Time::default() + Duration::from_secs(seconds);
        assert_eq!(available_at(&ready("True"), 5), Some(at(15)));
        assert_eq!(available_at(&ready("True"), -5), Some(at(10)));
        assert_eq!(available_at(&ready("False"), 5), None);
        assert_eq!(ready_since(&Pod::default()), None);
    }
}
