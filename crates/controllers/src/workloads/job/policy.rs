//! What a Job's policies say of its pods: which failures count, which end an index or the Job, and
//! when enough indexes have succeeded
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy>).

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::ContainerStatus;
use wharf_model::indexes::Indexes;

use super::pods::JobPod;

/// What a failure means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts against the limit.
    Count,
    /// It does not.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The Job has failed, with this message.
    FailJob(String),
}

/// What the failure of a pod means: what the first rule that fits says.
pub(super) fn verdict(spec: &JobSpec, pod: &JobPod<'_>) -> Verdict {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (index, rule) in rules.enumerate() {
        let Some(what) = reason(rule, pod) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "FailIndex" => return Verdict::FailIndex,
            "Count" => return Verdict::Count,
            "FailJob" => {
                return Verdict::FailJob(format!("{what} matching FailJob rule at index {index}"));
            }
            _ => {}
        }
    }
    Verdict::Count
}

/// What of the pod a rule fits, in upstream's words.
fn reason(rule: &PodFailurePolicyRule, pod: &JobPod<'_>) -> Option<String> {
    let key = pod.object.key();
    let (namespace, name) = (&key.namespace, &key.name);
    let status = pod.pod.status.as_ref()?;
    if let Some(requirement) = &rule.on_exit_codes {
        let main = status.container_statuses.iter().flatten();
        let init = status.init_container_statuses.iter().flatten();
        let (container, code) = main.chain(init).find_map(|status| {
            exit_code(status, requirement).map(|code| (status.name.as_str(), code))
        })?;
        return Some(format!(
            "Container {container} for pod {namespace}/{name} failed with exit code {code}"
        ));
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let condition = status.conditions.iter().flatten().find(|condition| {
        patterns.iter().any(|pattern| {
            pattern.type_ == condition.type_
                && pattern.status.as_deref().unwrap_or("True") == condition.status
        })
    })?;
    Some(format!("Pod {namespace}/{name} has condition {}", condition.type_))
}

/// The exit code of a failed container, if the requirement is about it.
fn exit_code(
    status: &ContainerStatus,
    requirement: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<i32> {
    let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
    let of_container = requirement.container_name.as_ref().is_none_or(|name| *name == status.name);
    let listed = requirement.values.contains(&code);
    let fits = match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    (of_container && code != 0 && fits).then_some(code)
}

/// How many failures of its index count, and how many do not, for the pod that takes the place of
/// `replaced`.
pub(super) fn failures_with(spec: &JobSpec, replaced: Option<&JobPod<'_>>) -> (i32, i32) {
    let Some(replaced) = replaced else { return (0, 0) };
    let counted = replaced.failures_before();
    let ignored = replaced.all_failures_before() - counted;
    match verdict(spec, replaced) {
        Verdict::Ignore => (counted, ignored + 1),
        _ => (counted + 1, ignored),
    }
}

/// Whether the failure of a pod ends its index.
pub(super) fn ends_index(spec: &JobSpec, pod: &JobPod<'_>) -> bool {
    let Some(limit) = spec.backoff_limit_per_index.filter(|_| pod.has_failed(spec)) else {
        return false;
    };
    match verdict(spec, pod) {
        Verdict::FailIndex => true,
        Verdict::Ignore => false,
        Verdict::Count | Verdict::FailJob(_) => pod.failures_before() >= limit,
    }
}

/// The message of the first rule of success that the indexes fulfil (KEP-3998).
pub(super) fn success(spec: &JobSpec, succeeded: &Indexes) -> Option<String> {
    let policy = spec.success_policy.as_ref().filter(|_| !succeeded.is_empty())?;
    let completions = spec.completions.unwrap_or(0);
    let fulfilled = policy.rules.iter().position(|rule| match &rule.succeeded_indexes {
        Some(wanted) => {
            let wanted = Indexes::of_status(wanted, completions);
            let needed = rule.succeeded_count.unwrap_or(wanted.count());
            !wanted.is_empty() && succeeded.count_common(&wanted) >= needed
        }
        None => rule.succeeded_count.is_some_and(|count| succeeded.count() >= count),
    })?;
    Some(format!("Matched rules at index {fulfilled}"))
}
