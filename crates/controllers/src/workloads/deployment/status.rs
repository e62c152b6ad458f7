//! What a Deployment reports: counts and the conditions Available, Progressing, ReplicaFailure,
//! with upstream's reasons and texts.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetCondition,
};
use wharf_model::time::Time;

use super::scale::Wanted;

/// `Progressing` after a rollout came to its end.
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PROGRESSING: &str = "Progressing";
const PAUSED: &str = "DeploymentPaused";

/// The counts and `Available`, with the other conditions as they were.
pub(super) fn counts(
    deployment: &Deployment,
    sets: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    now: Time,
) -> DeploymentStatus {
    let wanted = Wanted::of(deployment);
    let sum = |count: fn(&ReplicaSet) -> i32| {
        sets.iter().map(|set| count(set)).fold(0, i32::saturating_add)
    };
    let available = sum(|set| set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0));
    let unavailable = sum(size).saturating_sub(available).max(0);
    let some = |count: i32| (count != 0).then_some(count);
    let old = deployment.status.as_ref();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(actual)),
        updated_replicas: some(new.map_or(0, actual)),
        ready_replicas: some(sum(|set| {
            set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
        })),
        available_replicas: some(available),
        unavailable_replicas: some(unavailable),
        terminating_replicas: Some(sum(|set| {
            set.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0)
        })),
        collision_count: old.and_then(|old| old.collision_count),
        conditions: old.and_then(|old| old.conditions.clone()),
    };
    let (value, reason, message) = if available >= wanted.least_available() {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(&mut status, condition("Available", value, reason, message, now));
    status
}

/// Judges the progress of a rollout and takes over what the ReplicaSets failed at.
pub(super) fn judge_progress(
    status: &mut DeploymentStatus,
    deployment: &Deployment,
    sets: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    now: Time,
) {
    let deadline = deadline(deployment);
    if deadline.is_none() {
        remove_condition(status, PROGRESSING);
    }
    let before = progressing(status).cloned();
    let over = status.replicas == status.updated_replicas
        && before.as_ref().is_some_and(|c| c.reason.as_deref() == Some(NEW_SET_AVAILABLE));
    if deadline.is_some() && !over {
        let subject = match new {
            Some(new) => {
                format!("ReplicaSet \"{}\"", new.metadata.name.as_deref().unwrap_or_default())
            }
            None => format!(
                "Deployment \"{}\"",
                deployment.metadata.name.as_deref().unwrap_or_default()
            ),
        };
        let say = |value: &str, reason: &str, says: &str| {
            condition(PROGRESSING, value, reason, &format!("{subject} {says}"), now)
        };
        if is_complete(deployment, status) {
            set_condition(status, say("True", NEW_SET_AVAILABLE, "has successfully progressed."));
        } else if has_progressed(deployment.status.as_ref(), status) {
            let mut condition = say("True", "ReplicaSetUpdated", "is progressing.");
            if let Some(before) = before.filter(|before| before.status == "True") {
                condition.last_transition_time = before.last_transition_time;
            }
            // Replaced even if nothing but the time differs: the deadline counts from here.
            remove_condition(status, PROGRESSING);
            status.conditions.get_or_insert_default().push(condition);
        } else if has_timed_out(status, deadline, now) {
            set_condition(status, say("False", TIMED_OUT, "has timed out progressing."));
        }
    }
    match replica_failure(sets, new) {
        Some(failure) => set_condition(
            status,
            condition(
                "ReplicaFailure",
                &failure.status,
                failure.reason.as_deref().unwrap_or_default(),
                failure.message.as_deref().unwrap_or_default(),
                now,
            ),
        ),
        None => remove_condition(status, "ReplicaFailure"),
    }
}

/// When a rollout that shows no progress is to be looked at again.
pub(super) fn look_again(deployment: &Deployment, status: &DeploymentStatus) -> Option<Time> {
    let condition = progressing(status)?;
    if is_complete(deployment, status) || condition.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    if condition.reason.as_deref() == Some(PAUSED) {
        return None;
    }
    let since = Time::from(condition.last_update_time.as_ref()?);
    Some(since + deadline(deployment)? + Duration::from_secs(1))
}

/// Notes that a Deployment was paused or resumed, so that the wait does not count as no progress.
pub(super) fn note_pause(status: &mut DeploymentStatus, deployment: &Deployment, now: Time) {
    let before = progressing(status).and_then(|condition| condition.reason.clone());
    if deadline(deployment).is_none() || before.as_deref() == Some(TIMED_OUT) {
        return;
    }
    let paused = deployment.spec.as_ref().is_some_and(|spec| spec.paused == Some(true));
    let noted = before.as_deref() == Some(PAUSED);
    if paused && !noted {
        let says = condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now);
        set_condition(status, says);
    } else if !paused && noted {
        let reason = "DeploymentResumed";
        let says = condition(PROGRESSING, "Unknown", reason, "Deployment is resumed", now);
        set_condition(status, says);
    }
}

/// Notes that a ReplicaSet was created for a new template, or found for an old one.
pub(super) fn note_new_set(
    status: &mut DeploymentStatus,
    deployment: &Deployment,
    created: bool,
    name: &str,
    now: Time,
) {
    if deadline(deployment).is_none() {
        return;
    }
    if created {
        let text = format!("Created new replica set \"{name}\"");
        set_condition(status, condition(PROGRESSING, "True", "NewReplicaSetCreated", &text, now));
    } else if progressing(status).is_none() {
        let text = format!("Found new replica set \"{name}\"");
        set_condition(status, condition(PROGRESSING, "True", "FoundNewReplicaSet", &text, now));
    }
}

/// Whether the rollout has come to its end.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Wanted::of(deployment).replicas;
    [status.updated_replicas, status.replicas, status.available_replicas]
        .iter()
        .all(|count| count.unwrap_or(0) == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

/// The size that a ReplicaSet is asked to have.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The size that a ReplicaSet reports.
pub(super) fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

fn has_progressed(old: Option<&DeploymentStatus>, new: &DeploymentStatus) -> bool {
    let count = |status: &DeploymentStatus| {
        let updated = status.updated_replicas.unwrap_or(0);
        (
            updated,
            status.replicas.unwrap_or(0) - updated,
            status.ready_replicas.unwrap_or(0),
            status.available_replicas.unwrap_or(0),
        )
    };
    let (old, new) = (count(&old.cloned().unwrap_or_default()), count(new));
    new.0 > old.0 || new.1 < old.1 || new.2 > old.2 || new.3 > old.3
}

fn has_timed_out(status: &DeploymentStatus, deadline: Option<Duration>, now: Time) -> bool {
    let (Some(condition), Some(deadline)) = (progressing(status), deadline) else { return false };
    match condition.reason.as_deref() {
        Some(NEW_SET_AVAILABLE | PAUSED) => false,
        Some(TIMED_OUT) => true,
        _ => {
            let since = condition.last_update_time.as_ref().map(Time::from).unwrap_or_default();
            since + deadline < now
        }
    }
}

fn replica_failure<'s>(
    sets: &[&'s ReplicaSet],
    new: Option<&'s ReplicaSet>,
) -> Option<&'s ReplicaSetCondition> {
    let failure = |set: &&'s ReplicaSet| {
        let conditions = set.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().find(|condition| condition.type_ == "ReplicaFailure")
    };
    new.as_ref().and_then(failure).or_else(|| sets.iter().find_map(failure))
}

/// `progressDeadlineSeconds`; the largest number means none.
fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    let seconds = (seconds != i32::MAX).then(|| u64::try_from(seconds).ok()).flatten()?;
    Some(Duration::from_secs(seconds))
}

fn progressing(status: &DeploymentStatus) -> Option<&DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == PROGRESSING)
}

fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Time,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(now.to_meta()),
        last_transition_time: Some(now.to_meta()),
    }
}

/// Sets a condition; one with the same status and reason stays as it is.
fn set_condition(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    let conditions = status.conditions.get_or_insert_default();
    if let Some(index) = conditions.iter().position(|c| c.type_ == condition.type_) {
        let before = &conditions[index];
        if before.status == condition.status {
            if before.reason == condition.reason {
                return;
            }
            condition.last_transition_time.clone_from(&before.last_transition_time);
        }
        conditions.remove(index);
    }
    conditions.push(condition);
}

fn remove_condition(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != type_);
    }
}
