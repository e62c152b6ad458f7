//! Deployments and ReplicaSets:
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/deployment-v1/>.

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetStatus,
    RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::selector::Selector;
use wharf_model::time::Time;

use super::Rules;
use super::pod::{defaults, label_selector, validate};
use crate::field::{Errors, Json, Path};

const SPEC: Path<'static> = Path::root("spec");
const RECREATE: &str = "Recreate";
const ROLLING_UPDATE: &str = "RollingUpdate";

impl Rules for Deployment {
    const GENERATION: bool = true;

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        let strategy = spec.strategy.get_or_insert_default();
        defaults::fill(&mut strategy.type_, ROLLING_UPDATE);
        if strategy.type_.as_deref() == Some(ROLLING_UPDATE) {
            let quarter = || IntOrString::String("25%".to_owned());
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert_with(quarter);
            rolling.max_surge.get_or_insert_with(quarter);
        }
        defaults::pod_spec(spec.template.spec.get_or_insert_default());
    }

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(DeploymentStatus::default());
    }

    /// Annotations count too, since the controller copies them to ReplicaSets.
    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec || self.metadata.annotations != old.metadata.annotations
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        errors.not_negative(&SPEC.child("replicas"), spec.replicas.map(i64::from));
        selector_and_template("deployment", &spec.selector, &spec.template, errors);
        strategy(spec, errors);
        errors.not_negative(&SPEC.child("minReadySeconds"), spec.min_ready_seconds.map(i64::from));
        let limit = spec.revision_history_limit.map(i64::from);
        errors.not_negative(&SPEC.child("revisionHistoryLimit"), limit);
        if let Some(deadline) = spec.progress_deadline_seconds {
            let path = SPEC.child("progressDeadlineSeconds");
            errors.not_negative(&path, Some(i64::from(deadline)));
            if deadline <= spec.min_ready_seconds.unwrap_or(0) {
                errors.invalid(&path, &deadline, "must be greater than minReadySeconds");
            }
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        if let (Some(new), Some(old)) = (&self.spec, &old.spec) {
            errors.immutable(&SPEC.child("selector"), &new.selector, &old.selector);
        }
    }
}

impl Rules for ReplicaSet {
    const GENERATION: bool = true;

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let template = spec.template.get_or_insert_default();
        defaults::pod_spec(template.spec.get_or_insert_default());
    }

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(ReplicaSetStatus::default());
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        errors.not_negative(&SPEC.child("replicas"), spec.replicas.map(i64::from));
        errors.not_negative(&SPEC.child("minReadySeconds"), spec.min_ready_seconds.map(i64::from));
        match &spec.template {
            Some(template) => {
                selector_and_template("replicaset", &spec.selector, template, errors);
            }
            None => errors.required(&SPEC.child("template"), ""),
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        if let (Some(new), Some(old)) = (&self.spec, &old.spec) {
            errors.immutable(&SPEC.child("selector"), &new.selector, &old.selector);
        }
    }
}

/// A workload must pick the pods it makes, and they must run for good.
fn selector_and_template(
    workload: &str,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    errors: &mut Errors,
) {
    selector_and_labels(workload, selector, template, errors);
    let path = SPEC.child("template");
    validate::template(&path, template, errors);
    runs_for_good("ReplicaSet", template, errors);
}

/// A workload must pick the pods it makes.
pub(super) fn selector_and_labels(
    workload: &str,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    errors: &mut Errors,
) {
    let path = SPEC.child("selector");
    let is_missing = *selector == LabelSelector::default();
    if is_missing {
        // Once decoded, an empty selector looks like none; with either the next step is the same.
        errors.required(&path, "");
    } else {
        label_selector(&path, Some(selector), errors);
        let is_empty = selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
            && selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
        if is_empty {
            let detail = format!("empty selector is invalid for {workload}");
            errors.invalid(&path, &Json(selector), detail);
        }
    }
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
    let labels = labels.unwrap_or_default();
    let parsed = Selector::from_api((!is_missing).then_some(selector));
    match parsed {
        Ok(parsed) if !parsed.matches(&labels) => {
            let path = SPEC.child("template");
            let path = path.child("metadata");
            let detail = "`selector` does not match template `labels`";
            errors.invalid(&path.child("labels"), &Json(&labels), detail);
        }
        _ => {}
    }
}

/// Pods that are replaced when they end must not end by themselves.
pub(super) fn runs_for_good(workload: &str, template: &PodTemplateSpec, errors: &mut Errors) {
    let Some(spec) = &template.spec else { return };
    let path = SPEC.child("template");
    let path = path.child("spec");
    if let Some(policy) = spec.restart_policy.as_deref().filter(|policy| *policy != "Always") {
        errors.not_supported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        let detail = format!("activeDeadlineSeconds in {workload} is not Supported");
        errors.forbidden(&path.child("activeDeadlineSeconds"), detail);
    }
}

fn strategy(spec: &DeploymentSpec, errors: &mut Errors) {
    let Some(strategy) = &spec.strategy else { return };
    let path = SPEC.child("strategy");
    let rolling_path = path.child("rollingUpdate");
    match (strategy.type_.as_deref(), &strategy.rolling_update) {
        (Some(RECREATE), Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.forbidden(&rolling_path, detail);
        }
        (Some(RECREATE), None) => {}
        (Some(ROLLING_UPDATE), Some(rolling)) => rolling_update(&rolling_path, rolling, errors),
        (Some(ROLLING_UPDATE), None) => {
            errors.required(&rolling_path, "this should be defaulted and never be nil");
        }
        (other, _) => {
            let other = other.unwrap_or_default();
            errors.not_supported(&path.child("type"), other, &[RECREATE, ROLLING_UPDATE]);
        }
    }
}

fn rolling_update(path: &Path<'_>, rolling: &RollingUpdateDeployment, errors: &mut Errors) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    int_or_percent(&path.child("maxUnavailable"), unavailable, errors);
    int_or_percent(&path.child("maxSurge"), surge, errors);
    let unavailable_path = path.child("maxUnavailable");
    if amount(unavailable) == Some(0) && amount(surge) == Some(0) {
        errors.invalid(&unavailable_path, &Json(unavailable), "may not be 0 when `maxSurge` is 0");
    }
    if let IntOrString::String(_) = unavailable
        && amount(unavailable).is_some_and(|percent| percent > 100)
    {
        errors.invalid(&unavailable_path, &Json(unavailable), "must not be greater than 100%");
    }
}

/// What is wrong with a number that may be a percentage.
pub(crate) fn int_or_percent(path: &Path<'_>, value: &IntOrString, errors: &mut Errors) {
    match value {
        IntOrString::Int(number) => errors.not_negative(path, Some(i64::from(*number))),
        IntOrString::String(text) if amount(value).is_none() => {
            let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            errors.invalid(path, text, detail);
        }
        IntOrString::String(_) => {}
    }
}

/// A number, that of a percentage included; `None` for what is neither.
pub(super) fn amount(value: &IntOrString) -> Option<i32> {
    match value {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => {
            let digits = text.strip_suffix('%')?;
            (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| digits.parse().ok())
                .flatten()
        }
    }
}
