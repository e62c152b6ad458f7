//! SchedulingGates: a pod with gates does not enter the queue.

use crate::pod::PodInfo;

/// Whether the pod may be scheduled at all. The API server writes the condition of a pod that may
/// not; the scheduler says nothing about it.
pub(crate) fn admits(pod: &PodInfo) -> bool {
    pod.gates.is_empty()
}
