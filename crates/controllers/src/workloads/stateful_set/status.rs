//! What a StatefulSet reports of its pods.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};

use super::plan::{Order, Replica};

/// The status of a set with these pods. Once all are of the new revision it is the current one.
pub(super) fn status(
    set: &StatefulSet,
    pods: &[Replica<'_>],
    order: &Order<'_>,
) -> StatefulSetStatus {
    let count = |test: &dyn Fn(&Replica<'_>) -> bool| {
        i32::try_from(pods.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    let of = |revision: &str| count(&|pod| !pod.is_terminating && pod.revision == revision);
    let old = set.status.as_ref();
    let (replicas, ready) = (count(&|_| true), count(&|pod| pod.is_ready));
    let updated = of(order.update);
    let is_complete =
        updated == order.replicas && ready == order.replicas && replicas == order.replicas;
    let current = if is_complete { order.update } else { order.current };
    let some = |count: i32| (count != 0).then_some(count);
    StatefulSetStatus {
        replicas,
        ready_replicas: some(ready),
        // Upstream sends this one also when it is zero.
        available_replicas: Some(count(&|pod| pod.is_available)),
        current_replicas: some(of(current)),
        updated_replicas: some(updated),
        current_revision: Some(current.to_owned()),
        update_revision: Some(order.update.to_owned()),
        collision_count: Some(old.and_then(|status| status.collision_count).unwrap_or(0)),
        observed_generation: set.metadata.generation,
        conditions: old.and_then(|status| status.conditions.clone()),
    }
}
