//! A Job's conditions, in upstream's words.

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use wharf_model::time::Time;

pub(crate) const COMPLETE: &str = "Complete";
pub(crate) const FAILED: &str = "Failed";
pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
pub(super) const SUSPENDED: &str = "Suspended";

/// How a Job is to end, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finish {
    pub(super) succeeded: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Finish {
    pub(super) fn success(reason: &str, message: impl Into<String>) -> Self {
        Self { succeeded: true, reason: reason.to_owned(), message: message.into() }
    }

    pub(super) fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self { succeeded: false, reason: reason.to_owned(), message: message.into() }
    }

    /// What an earlier look has settled on.
    pub(super) fn settled(status: &JobStatus) -> Option<Self> {
        let of = |type_: &str, succeeded| {
            let condition = condition(status, type_).filter(|it| it.status == "True")?;
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (reason, message) = (text(&condition.reason), text(&condition.message));
            Some(Self { succeeded, reason, message })
        };
        of(SUCCESS_CRITERIA_MET, true).or_else(|| of(FAILURE_TARGET, false))
    }

    /// The condition that says so before the pods are gone, and the one for afterwards.
    pub(super) fn conditions(&self) -> (&'static str, &'static str) {
        if self.succeeded { (SUCCESS_CRITERIA_MET, COMPLETE) } else { (FAILURE_TARGET, FAILED) }
    }
}

/// Whether a Job has ended.
pub(crate) fn is_finished(job: &Job) -> bool {
    finished(job).is_some()
}

/// The condition by which a Job has ended.
pub(crate) fn finished(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    let ended = |condition: &&JobCondition| {
        matches!(condition.type_.as_str(), COMPLETE | FAILED) && condition.status == "True"
    };
    conditions.iter().find(ended)
}

pub(super) fn condition<'s>(status: &'s JobStatus, type_: &str) -> Option<&'s JobCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// Sets a condition; one that would say that what never held does not hold is left out. Returns
/// whether anything has changed.
pub(super) fn set(
    status: &mut JobStatus,
    type_: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Time,
) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let wanted = JobCondition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(now.to_meta()),
        last_transition_time: Some(now.to_meta()),
    };
    let same = |one: &JobCondition| {
        one.status == wanted.status && one.reason == wanted.reason && one.message == wanted.message
    };
    let changed = match conditions.iter_mut().find(|condition| condition.type_ == type_) {
        Some(condition) if same(condition) => false,
        Some(condition) => {
            *condition = wanted;
            true
        }
        None if holds => {
            conditions.push(wanted);
            true
        }
        None => false,
    };
    if conditions.is_empty() {
        status.conditions = None;
    }
    changed
}
