//! What is wrong with the spec of a Job, or with that of a CronJob's Jobs.

use k8s_openapi::api::batch::v1::JobSpec;

use super::super::pod::validate;
use super::{INDEXED, policy};
use crate::field::{Errors, Path};

/// Bounds that keep the status of Indexed Jobs small (KEP-2214, KEP-3850).
const PARALLELISM_MAX: i32 = 100_000;
const FAILED_INDEXES_MAX: i32 = 100_000;
/// Above so many completions the limits are narrower.
const COMPLETIONS_SOFT_LIMIT: i32 = 100_000;
const PARALLELISM_HIGH_MAX: i32 = 10_000;
const FAILED_INDEXES_HIGH_MAX: i32 = 10_000;
const MANAGED_BY_MAX: usize = 63;

/// What is wrong with a Job's spec, its selector aside.
pub(crate) fn validate(path: &Path<'_>, spec: &JobSpec, errors: &mut Errors) {
    for (field, value) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ] {
        errors.not_negative(&path.child(field), value);
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        let path = path.child("backoffLimitPerIndex");
        errors.required(&path, "when maxFailedIndexes is specified");
    }
    managed_by(path, spec, errors);
    match spec.completion_mode.as_deref() {
        Some(INDEXED) => indexed(path, spec, errors),
        None | Some("NonIndexed") => {
            for (field, value) in [
                ("backoffLimitPerIndex", spec.backoff_limit_per_index),
                ("maxFailedIndexes", spec.max_failed_indexes),
            ] {
                if let Some(value) = value {
                    errors.invalid(&path.child(field), &value, "requires indexed completion mode");
                }
            }
        }
        Some(other) => {
            errors.not_supported(&path.child("completionMode"), other, &["NonIndexed", INDEXED]);
        }
    }
    policy::validate(path, spec, errors);
    let template = path.child("template");
    validate::template(&template, &spec.template, errors);
    restart_policy(&template, spec, errors);
}

fn managed_by(path: &Path<'_>, spec: &JobSpec, errors: &mut Errors) {
    let Some(manager) = spec.managed_by.as_deref() else { return };
    let path = path.child("managedBy");
    let is_prefixed = manager.split_once('/').is_some_and(|(domain, rest)| {
        wharf_model::names::dns_1123_subdomain(domain).is_empty() && !rest.is_empty()
    });
    if !is_prefixed {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.invalid(&path, manager, detail);
    }
    if manager.len() > MANAGED_BY_MAX {
        errors.too_long(&path, MANAGED_BY_MAX);
    }
}

fn indexed(path: &Path<'_>, spec: &JobSpec, errors: &mut Errors) {
    let parallelism = spec.parallelism.unwrap_or(0);
    let Some(completions) = spec.completions else {
        return errors.required(&path.child("completions"), "when completion mode is Indexed");
    };
    let parallelism_path = path.child("parallelism");
    if parallelism > PARALLELISM_MAX {
        let detail = format!(
            "must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed"
        );
        errors.invalid(&parallelism_path, &parallelism, detail);
    }
    let failed_path = path.child("maxFailedIndexes");
    if let Some(most) = spec.max_failed_indexes {
        if most > completions {
            let detail = "must be less than or equal to completions";
            errors.invalid(&failed_path, &most, detail);
        }
        if most > FAILED_INDEXES_MAX {
            let detail = format!("must be less than or equal to {FAILED_INDEXES_MAX}");
            errors.invalid(&failed_path, &most, detail);
        }
    }
    if completions <= COMPLETIONS_SOFT_LIMIT || spec.backoff_limit_per_index.is_none() {
        return;
    }
    let narrower = |most: i32| {
        format!(
            "must be less than or equal to {most} when completions are above {COMPLETIONS_SOFT_LIMIT} and used with backoff limit per index"
        )
    };
    if parallelism > PARALLELISM_HIGH_MAX {
        errors.invalid(&parallelism_path, &parallelism, narrower(PARALLELISM_HIGH_MAX));
    }
    match spec.max_failed_indexes {
        None => {
            let detail =
                format!("must be specified when completions is above {COMPLETIONS_SOFT_LIMIT}");
            errors.required(&failed_path, detail);
        }
        Some(most) if most > FAILED_INDEXES_HIGH_MAX => {
            errors.invalid(&failed_path, &most, narrower(FAILED_INDEXES_HIGH_MAX));
        }
        Some(_) => {}
    }
}

/// Pods of Jobs come to an end, so they cannot be restarted always.
fn restart_policy(template: &Path<'_>, spec: &JobSpec, errors: &mut Errors) {
    let path = template.child("spec");
    let path = path.child("restartPolicy");
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    match policy.unwrap_or_default() {
        "" | "Always" => errors.required(&path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(&path, "OnFailure", detail);
        }
        "OnFailure" | "Never" => {}
        other => errors.not_supported(&path, other, &["OnFailure", "Never"]),
    }
}
