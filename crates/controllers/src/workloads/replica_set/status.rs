//! What a ReplicaSet reports of its pods.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use wharf_model::pod::{available_at, is_active, is_terminal, ready_since};
use wharf_model::time::Time;

/// The status of a ReplicaSet that owns `pods`, and when it changes by the mere passing of time
/// (`minReadySeconds`).
pub(super) fn status<'p>(
    set: &ReplicaSet,
    pods: impl Iterator<Item = &'p Pod>,
    failure: Option<&str>,
    now: Time,
) -> (ReplicaSetStatus, Option<Time>) {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let template = spec
        .and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.as_ref())
        .cloned()
        .unwrap_or_default();
    let (mut replicas, mut labeled, mut ready, mut available, mut terminating) = (0, 0, 0, 0, 0);
    let mut next: Option<Time> = None;
    for pod in pods {
        if !is_active(pod) {
            terminating +=
                i32::from(pod.metadata.deletion_timestamp.is_some() && !is_terminal(pod));
            continue;
        }
        replicas += 1;
        let labels = pod.metadata.labels.as_ref();
        let has = |key, value| labels.and_then(|labels| labels.get(key)) == Some(value);
        labeled += i32::from(template.iter().all(|(key, value)| has(key, value)));
        ready += i32::from(ready_since(pod).is_some());
        match available_at(pod, min_ready) {
            Some(at) if at <= now => available += 1,
            Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
            None => {}
        }
    }
    let some = |count: i32| (count != 0).then_some(count);
    let old = set.status.as_ref();
    let status = ReplicaSetStatus {
        replicas,
        fully_labeled_replicas: some(labeled),
        ready_replicas: some(ready),
        available_replicas: some(available),
        terminating_replicas: Some(terminating),
        observed_generation: set.metadata.generation,
        conditions: conditions(old, failure, now),
    };
    (status, next)
}

/// `ReplicaFailure` while pods cannot be created; other conditions stay.
fn conditions(
    old: Option<&ReplicaSetStatus>,
    failure: Option<&str>,
    now: Time,
) -> Option<Vec<ReplicaSetCondition>> {
    const FAILURE: &str = "ReplicaFailure";
    let old = old.and_then(|status| status.conditions.clone()).unwrap_or_default();
    let (before, mut rest): (Vec<_>, Vec<_>) = old.into_iter().partition(|c| c.type_ == FAILURE);
    if let Some(failure) = failure {
        let since = before.into_iter().next().and_then(|before| before.last_transition_time);
        rest.push(ReplicaSetCondition {
            type_: FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some("FailedCreate".to_owned()),
            message: Some(failure.to_owned()),
            last_transition_time: since.or_else(|| Some(now.to_meta())),
        });
    }
    (!rest.is_empty()).then_some(rest)
}
