//! CronJobs: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/cron-job-v1/>.

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus};
use wharf_model::cron::{Schedule, Zone};
use wharf_model::time::Time;

use super::Rules;
use super::job::spec as job_spec;
use super::pod::defaults;
use crate::field::{Errors, Json, Path};

const SPEC: Path<'static> = Path::root("spec");
/// Jobs are named after their CronJob and the minute, and a Job's name has at most 63 bytes.
const NAME_MAX: usize = 52;
const CONCURRENCY_POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];
/// A part of a zone's name.
const ZONE_PART_MAX: usize = 14;

impl Rules for CronJob {
    const GENERATION: bool = true;

    fn set_defaults(&mut self) {
        let spec = &mut self.spec;
        defaults::fill(&mut spec.concurrency_policy, "Allow");
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        let job = spec.job_template.spec.get_or_insert_default();
        defaults::pod_spec(job.template.spec.get_or_insert_default());
    }

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(CronJobStatus::default());
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        spec(&self.spec, None, errors);
        if let Some(name) = self.metadata.name.as_deref().filter(|name| name.len() > NAME_MAX) {
            let path = Path::root("metadata");
            errors.invalid(&path.child("name"), name, "must be no more than 52 characters");
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        spec(&self.spec, Some(&old.spec), errors);
    }
}

fn spec(spec: &CronJobSpec, old: Option<&CronJobSpec>, errors: &mut Errors) {
    schedule(spec, old, errors);
    errors.not_negative(&SPEC.child("startingDeadlineSeconds"), spec.starting_deadline_seconds);
    if old.is_none_or(|old| old.time_zone != spec.time_zone) {
        time_zone(spec.time_zone.as_deref(), errors);
    }
    let path = SPEC.child("concurrencyPolicy");
    match spec.concurrency_policy.as_deref().unwrap_or_default() {
        "" => errors.required(&path, ""),
        policy if CONCURRENCY_POLICIES.contains(&policy) => {}
        policy => errors.not_supported(&path, policy, &CONCURRENCY_POLICIES),
    }
    let path = SPEC.child("jobTemplate");
    let path = path.child("spec");
    if let Some(job) = &spec.job_template.spec {
        job_spec::validate(&path, job, errors);
        if let Some(selector) = &job.selector {
            let detail = "`selector` will be auto-generated";
            errors.invalid(&path.child("selector"), &Json(selector), detail);
        }
        if job.manual_selector == Some(true) {
            errors.not_supported(&path.child("manualSelector"), "true", &["nil", "false"]);
        }
    }
    for (field, limit) in [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ] {
        errors.not_negative(&SPEC.child(field), limit.map(i64::from));
    }
}

fn schedule(spec: &CronJobSpec, old: Option<&CronJobSpec>, errors: &mut Errors) {
    let path = SPEC.child("schedule");
    let text = spec.schedule.as_str();
    if text.is_empty() {
        return errors.required(&path, "");
    }
    if let Err(error) = Schedule::parse(text) {
        errors.invalid(&path, text, error.to_string());
    }
    let allowed = old.is_some_and(|old| old.schedule.contains("TZ"));
    if text.contains("TZ") && !allowed {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(&path, text, detail);
    } else if text.contains("TZ") && spec.time_zone.is_some() {
        let detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        errors.invalid(&path, text, detail);
    }
}

fn time_zone(zone: Option<&str>, errors: &mut Errors) {
    let Some(zone) = zone else { return };
    let path = SPEC.child("timeZone");
    if zone.is_empty() {
        return errors.invalid(&path, zone, "timeZone must be nil or non-empty string");
    }
    let is_part = |part: &str| {
        (1..=ZONE_PART_MAX).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte))
    };
    let unknown = format!("unknown time zone {zone}");
    if !zone.split('/').all(is_part) {
        return errors.invalid(&path, zone, unknown);
    }
    if zone.eq_ignore_ascii_case("local") {
        let detail =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        return errors.invalid(&path, zone, detail);
    }
    if Zone::named(zone).is_none() {
        errors.invalid(&path, zone, unknown);
    }
}
