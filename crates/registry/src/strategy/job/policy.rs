//! What decides when a Job has failed, when it is done, and when its pods are replaced.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicyRule,
};
use wharf_model::indexes::Indexes;
use wharf_model::names;

use super::INDEXED;
use crate::field::{Errors, FieldError, Json, Path};

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;
const SUCCEEDED_INDEXES_BYTES_MAX: usize = 64 * 1024;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const REPLACEMENTS: [&str; 2] = ["Failed", "TerminatingOrFailed"];

/// A condition of a pod is to be true unless the rule says otherwise.
pub(crate) fn set_defaults(spec: &mut JobSpec) {
    let rules = spec.pod_failure_policy.iter_mut().flat_map(|policy| &mut policy.rules);
    for pattern in rules.flat_map(|rule| rule.on_pod_conditions.iter_mut().flatten()) {
        if pattern.status.as_deref().unwrap_or_default().is_empty() {
            pattern.status = Some("True".to_owned());
        }
    }
}

/// What is wrong with a Job's policies.
pub(crate) fn validate(path: &Path<'_>, spec: &JobSpec, errors: &mut Errors) {
    failure(&path.child("podFailurePolicy"), spec, errors);
    if let Some(policy) = &spec.success_policy {
        let path = path.child("successPolicy");
        if spec.completion_mode.as_deref() == Some(INDEXED) {
            let rules = path.child("rules");
            if policy.rules.is_empty() {
                let detail =
                    "at least one rules must be specified when the successPolicy is specified";
                errors.required(&rules, detail);
            }
            if policy.rules.len() > RULES_MAX {
                errors.too_many(&rules, policy.rules.len(), RULES_MAX);
            }
            for (index, rule) in policy.rules.iter().enumerate() {
                success(&rules.index(index), spec, rule, errors);
            }
        } else {
            errors.invalid(&path, &Json(policy), "requires indexed completion mode");
        }
    }
    if let Some(replacement) = spec.pod_replacement_policy.as_deref() {
        let supported =
            if spec.pod_failure_policy.is_some() { &REPLACEMENTS[..1] } else { &REPLACEMENTS[..] };
        if !supported.contains(&replacement) {
            errors.not_supported(&path.child("podReplacementPolicy"), replacement, supported);
        }
    }
}

fn failure(path: &Path<'_>, spec: &JobSpec, errors: &mut Errors) {
    let Some(policy) = &spec.pod_failure_policy else { return };
    let rules = path.child("rules");
    if policy.rules.len() > RULES_MAX {
        errors.too_many(&rules, policy.rules.len(), RULES_MAX);
    }
    let pod = spec.template.spec.as_ref();
    let main = pod.into_iter().flat_map(|pod| &pod.containers);
    let init = pod.into_iter().flat_map(|pod| pod.init_containers.iter().flatten());
    let containers: BTreeSet<&str> =
        main.chain(init).map(|container| container.name.as_str()).collect();
    for (index, rule) in policy.rules.iter().enumerate() {
        failure_rule(&rules.index(index), spec, rule, &containers, errors);
    }
}

fn failure_rule(
    path: &Path<'_>,
    spec: &JobSpec,
    rule: &PodFailurePolicyRule,
    containers: &BTreeSet<&str>,
    errors: &mut Errors,
) {
    let action = path.child("action");
    match rule.action.as_str() {
        "FailIndex" if spec.backoff_limit_per_index.is_none() => {
            let detail = "requires the backoffLimitPerIndex to be set";
            errors.invalid(&action, "FailIndex", detail);
        }
        value => listed(&action, value, &ACTIONS, errors),
    }
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(&path.child("onExitCodes"), codes, containers, errors);
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    pod_conditions(&path.child("onPodConditions"), patterns, errors);
    let detail = match (&rule.on_exit_codes, patterns) {
        (Some(_), [_, ..]) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (None, []) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    // Of a whole rule upstream does not show the value.
    errors.push(FieldError {
        reason: "FieldValueInvalid",
        field: path.to_string(),
        body: format!("Invalid value: {detail}"),
    });
}

/// A word that must be given, and be one of a few.
fn listed(path: &Path<'_>, value: &str, supported: &[&str], errors: &mut Errors) {
    if value.is_empty() {
        let quoted: Vec<String> = supported.iter().map(|word| format!("{word:?}")).collect();
        errors.required(path, format!("valid values: [{}]", quoted.join(" ")));
    } else if !supported.contains(&value) {
        errors.not_supported(path, value, supported);
    }
}

fn exit_codes(
    path: &Path<'_>,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    containers: &BTreeSet<&str>,
    errors: &mut Errors,
) {
    listed(&path.child("operator"), &codes.operator, &OPERATORS, errors);
    if let Some(name) = codes.container_name.as_deref().filter(|name| !containers.contains(name)) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&path.child("containerName"), name, detail);
    }
    let path = path.child("values");
    if codes.values.is_empty() {
        errors.invalid(&path, &Json(&codes.values), "at least one value is required");
    } else if codes.values.len() > EXIT_CODES_MAX {
        errors.too_many(&path, codes.values.len(), EXIT_CODES_MAX);
    }
    let mut seen = BTreeSet::new();
    for (index, code) in codes.values.iter().enumerate() {
        let path = path.index(index);
        if codes.operator == "In" && *code == 0 {
            errors.invalid(&path, code, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            errors.duplicate(&path, code);
        }
    }
    if !codes.values.is_sorted() {
        errors.invalid(&path, &Json(&codes.values), "must be ordered");
    }
}

fn pod_conditions(
    path: &Path<'_>,
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
    errors: &mut Errors,
) {
    if patterns.len() > PATTERNS_MAX {
        errors.too_many(path, patterns.len(), PATTERNS_MAX);
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let path = path.index(index);
        let type_ = &pattern.type_;
        errors.invalid_each(&path.child("type"), type_, names::qualified_name(type_));
        let status = pattern.status.as_deref().unwrap_or_default();
        listed(&path.child("status"), status, &STATUSES, errors);
    }
}

fn success(path: &Path<'_>, spec: &JobSpec, rule: &SuccessPolicyRule, errors: &mut Errors) {
    let completions = spec.completions.unwrap_or(0);
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        errors.required(path, detail);
    }
    let mut indexes = None;
    if let Some(text) = &rule.succeeded_indexes {
        let path = path.child("succeededIndexes");
        if text.len() > SUCCEEDED_INDEXES_BYTES_MAX {
            errors.too_long(&path, SUCCEEDED_INDEXES_BYTES_MAX);
        }
        match Indexes::parse(text, completions) {
            Ok(parsed) => indexes = Some(parsed.count()),
            Err(error) => {
                let detail = format!("error parsing succeededIndexes: {error}");
                errors.invalid(&path, text, detail);
                indexes = Some(0);
            }
        }
    }
    let Some(count) = rule.succeeded_count else { return };
    let path = path.child("succeededCount");
    errors.not_negative(&path, Some(i64::from(count)));
    if count > completions {
        let detail = format!(
            "must be less than or equal to {completions} (the number of specified completions)"
        );
        errors.invalid(&path, &count, detail);
    }
    if let Some(indexes) = indexes.filter(|indexes| count > *indexes) {
        let detail = format!(
            "must be less than or equal to {indexes} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(&path, &count, detail);
    }
}
