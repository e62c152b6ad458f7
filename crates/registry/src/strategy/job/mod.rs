//! Jobs: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/>.

pub(super) mod policy;
pub(super) mod spec;

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use wharf_model::labels::{
    JOB_CONTROLLER_UID, JOB_CONTROLLER_UID_LEGACY, JOB_NAME, JOB_NAME_LEGACY,
};
use wharf_model::names;
use wharf_model::selector::Selector;
use wharf_model::time::Time;

use super::Rules;
use super::pod::{defaults, label_selector};
use crate::field::{Errors, Json, Path};

const SPEC: Path<'static> = Path::root("spec");
/// Counting is by index in this mode.
pub(super) const INDEXED: &str = "Indexed";
/// How often pods of a Job are tried by default.
const BACKOFF_LIMIT: i32 = 6;

impl Rules for Job {
    const GENERATION: bool = true;

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        if spec.completions.is_none() && spec.parallelism.is_none() {
            spec.completions = Some(1);
        }
        spec.parallelism.get_or_insert(1);
        let limit = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { BACKOFF_LIMIT };
        spec.backoff_limit.get_or_insert(limit);
        spec.completion_mode.get_or_insert_with(|| "NonIndexed".to_owned());
        spec.suspend.get_or_insert(false);
        spec.manual_selector.get_or_insert(false);
        let replacement =
            if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
        spec.pod_replacement_policy.get_or_insert_with(|| replacement.to_owned());
        policy::set_defaults(spec);
        defaults::pod_spec(spec.template.spec.get_or_insert_default());
        label_as_template(self);
    }

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(JobStatus::default());
        generate_selector(self);
        // Upstream does this with every object that it reads.
        label_as_template(self);
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        generated_selector(self, spec, errors);
        self::spec::validate(&SPEC, spec, errors);
        selector(spec, errors);
        host_names(self, spec, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(new), Some(before)) = (&self.spec, &old.spec) else { return };
        self::spec::validate(&SPEC, new, errors);
        selector(new, errors);
        completions(new, before, errors);
        errors.immutable(&SPEC.child("selector"), &new.selector, &before.selector);
        template(new, old, errors);
        for (field, is_same) in [
            ("completionMode", new.completion_mode == before.completion_mode),
            ("podFailurePolicy", new.pod_failure_policy == before.pod_failure_policy),
            ("backoffLimitPerIndex", new.backoff_limit_per_index == before.backoff_limit_per_index),
            ("managedBy", new.managed_by == before.managed_by),
            ("successPolicy", new.success_policy == before.success_policy),
        ] {
            if !is_same {
                let spec = serde_json::to_value(new).unwrap_or_default();
                errors.invalid(&SPEC.child(field), &Json(&spec[field]), "field is immutable");
            }
        }
    }
}

/// A Job without labels of its own has those of its template.
fn label_as_template(job: &mut Job) {
    let template = job.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    let labels = template.and_then(|meta| meta.labels.clone()).filter(|labels| !labels.is_empty());
    if labels.is_some() && job.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty) {
        job.metadata.labels = labels;
    }
}

/// What pods of a Job are known by: its uid and its name, each under two keys.
fn generated_labels(job: &Job) -> [(&'static str, String); 4] {
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let name = job.metadata.name.clone().unwrap_or_default();
    [
        (JOB_NAME_LEGACY, name.clone()),
        (JOB_NAME, name),
        (JOB_CONTROLLER_UID_LEGACY, uid.clone()),
        (JOB_CONTROLLER_UID, uid),
    ]
}

/// Unless it is to be chosen by hand, a Job's selector is its own uid, which no other Job's pods
/// have. What the manifest has set already is left for validation to judge.
fn generate_selector(job: &mut Job) {
    let labels = generated_labels(job);
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let Some(spec) = job.spec.as_mut().filter(|spec| spec.manual_selector != Some(true)) else {
        return;
    };
    let template = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (key, value) in labels {
        template.entry(key.to_owned()).or_insert(value);
    }
    let selector = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
    selector.entry(JOB_CONTROLLER_UID.to_owned()).or_insert(uid);
}

fn generated_selector(job: &Job, spec: &JobSpec, errors: &mut Errors) {
    let Some(own) = spec.selector.as_ref().filter(|_| spec.manual_selector != Some(true)) else {
        return;
    };
    let path = SPEC.child("template");
    let path = path.child("metadata");
    let path = path.child("labels");
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone());
    let labels = labels.unwrap_or_default();
    let expected = generated_labels(job);
    for (key, expected) in &expected {
        let path = path.key(key);
        match labels.get(*key) {
            None => errors.required(&path, format!("must be '{expected}'")),
            Some(actual) if actual != expected => {
                errors.invalid(&path, &Json(&labels), format!("must be '{expected}'"));
            }
            Some(_) => {}
        }
    }
    let expected = expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    if !matches(own, &expected) {
        errors.invalid(&SPEC.child("selector"), &Json(own), "`selector` not auto-generated");
    }
}

fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::from_api(Some(selector)).map_or(true, |selector| selector.matches(labels))
}

/// The selector must be there and pick the Job's own pods.
fn selector(spec: &JobSpec, errors: &mut Errors) {
    let path = SPEC.child("selector");
    let Some(selector) = &spec.selector else { return errors.required(&path, "") };
    label_selector(&path, Some(selector), errors);
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone());
    let labels = labels.unwrap_or_default();
    if !matches(selector, &labels) {
        let path = SPEC.child("template");
        let path = path.child("metadata");
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&path.child("labels"), &Json(&labels), detail);
    }
}

/// Pods of an Indexed Job have host names with their index: the longest must be one.
fn host_names(job: &Job, spec: &JobSpec, errors: &mut Errors) {
    let last = spec.completions.filter(|completions| *completions > 0).map(|count| count - 1);
    let (Some(last), Some(name)) = (last, job.metadata.name.as_deref()) else { return };
    let host = format!("{name}-{last}");
    if spec.completion_mode.as_deref() == Some(INDEXED) && !names::dns_1123_label(&host).is_empty()
    {
        let path = Path::root("metadata");
        let detail = format!("will not able to create pod with invalid DNS label: {host}");
        errors.invalid(&path.child("name"), name, detail);
    }
}

/// Completions stay, but for Indexed Jobs that change them together with the parallelism
/// (KEP-3715).
fn completions(new: &JobSpec, old: &JobSpec, errors: &mut Errors) {
    let path = SPEC.child("completions");
    if new.completion_mode.as_deref() != Some(INDEXED) {
        return errors.immutable(&path, &new.completions, &old.completions);
    }
    if let Some(completions) = new.completions
        && new.completions != old.completions
        && new.completions != new.parallelism
    {
        errors.invalid(&path, &completions, "can only be modified in tandem with spec.parallelism");
    }
}

/// The template stays; where its pods may run can change while a Job that was made suspended has
/// not started (KEP-2926).
fn template(new: &JobSpec, old: &Job, errors: &mut Errors) {
    let Some(before) = &old.spec else { return };
    let mut allowed = before.template.clone();
    let has_started = old.status.as_ref().is_some_and(|status| status.start_time.is_some());
    if before.suspend == Some(true)
        && !has_started
        && let (Some(allowed), Some(new)) = (&mut allowed.spec, &new.template.spec)
    {
        allowed.node_selector.clone_from(&new.node_selector);
        allowed.tolerations.clone_from(&new.tolerations);
        allowed.scheduling_gates.clone_from(&new.scheduling_gates);
        let nodes = new.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
        let affinity = allowed.affinity.get_or_insert_default();
        affinity.node_affinity = nodes;
        if new.affinity.is_none() && *affinity == Default::default() {
            allowed.affinity = None;
        }
    }
    if before.suspend == Some(true)
        && !has_started
        && let Some(new) = &new.template.metadata
    {
        let allowed = allowed.metadata.get_or_insert_default();
        allowed.labels.clone_from(&new.labels);
        allowed.annotations.clone_from(&new.annotations);
    }
    errors.immutable(&SPEC.child("template"), &new.template, &allowed);
}
