//! Jobs and CronJobs.

use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec, JobStatus};
use serde_json::{Value, json};
use wharf_model::duration::human;
use wharf_model::time::Time;

use super::workload::containers;
use super::{Column, age, or_none, selector};

pub(super) const JOB: &[Column] = &[
    Column::text("Name"),
    Column::text("Status"),
    Column::text("Completions"),
    Column::text("Duration"),
    Column::text("Age"),
    Column::text("Containers").wide(),
    Column::text("Images").wide(),
    Column::text("Selector").wide(),
];

pub(super) fn job(job: &Job, now: Time) -> Vec<Value> {
    let spec = job.spec.clone().unwrap_or_default();
    let status = job.status.clone().unwrap_or_default();
    let (names, images) = containers(spec.template.spec.as_ref());
    vec![
        json!(job.metadata.name),
        json!(state(job, &status)),
        json!(completions(&spec, &status)),
        json!(duration(&status, now)),
        json!(age(job.metadata.creation_timestamp.as_ref(), now)),
        json!(names),
        json!(images),
        json!(spec.selector.as_ref().map_or_else(|| "<none>".to_owned(), selector)),
    ]
}

/// In one word how far a Job is: the first of its conditions that holds, in this order.
fn state(job: &Job, status: &JobStatus) -> &'static str {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let holds = |type_: &str| {
        conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
    };
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if job.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(spec: &JobSpec, status: &JobStatus) -> String {
    let succeeded = status.succeeded.unwrap_or_default();
    let parallelism = spec.parallelism.unwrap_or_default();
    match spec.completions {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
}

fn duration(status: &JobStatus, now: Time) -> String {
    let Some(start) = status.start_time.as_ref().map(Time::from) else { return String::new() };
    let end = status.completion_time.as_ref().map_or(now, Time::from);
    human(end.as_nanos().saturating_sub(start.as_nanos()))
}

pub(super) const CRON_JOB: &[Column] = &[
    Column::text("Name"),
    Column::text("Schedule"),
    Column::text("Timezone"),
    Column::text("Suspend"),
    Column::number("Active"),
    Column::text("Last Schedule"),
    Column::text("Age"),
    Column::text("Containers").wide(),
    Column::text("Images").wide(),
    Column::text("Selector").wide(),
];

pub(super) fn cron_job(cron_job: &CronJob, now: Time) -> Vec<Value> {
    let spec = cron_job.spec.clone();
    let status = cron_job.status.clone().unwrap_or_default();
    let job = spec.job_template.spec.unwrap_or_default();
    let (names, images) = containers(job.template.spec.as_ref());
    let suspended = match spec.suspend {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let last = status.last_schedule_time.as_ref();
    vec![
        json!(cron_job.metadata.name),
        json!(spec.schedule),
        or_none(spec.time_zone.as_deref()),
        json!(suspended),
        json!(status.active.map_or(0, |active| active.len())),
        json!(last.map_or_else(|| "<none>".to_owned(), |last| age(Some(last), now))),
        json!(age(cron_job.metadata.creation_timestamp.as_ref(), now)),
        json!(names),
        json!(images),
        json!(job.selector.as_ref().map_or_else(|| "<none>".to_owned(), selector)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    fn job(spec: Value, status: Value) -> Value {
        let mut job = json!({
            "metadata": {"name": "j", "creationTimestamp": "2026-01-01T23:58:30Z"},
            "spec": {"selector": {"matchLabels": {"u": "1"}}, "template": {"spec": {
                "containers": [{"name": "c", "image": "busybox"}]}}},
            "status": status,
        });
        for (field, value) in spec.as_object().expect("fields") {
            job["spec"][field] = value.clone();
        }
        job
    }

    #[test]
    fn jobs_print_as_upstreams() {
        let start = "2026-01-01T23:59:00Z";
        let condition = |type_: &str| json!([{"type": type_, "status": "True"}]);
        for (spec, status, expected) in [
            (json!({"completions": 1}), json!({}), "j|Running|0/1||90s"),
            (json!({"parallelism": 3}), json!({"startTime": start}), "j|Running|0/1 of 3|60s|90s"),
            (json!({"parallelism": 1}), json!({"startTime": start}), "j|Running|0/1|60s|90s"),
            (
                json!({"completions": 2}),
                json!({"startTime": start, "completionTime": "2026-01-01T23:59:13Z", "succeeded": 2,
                    "conditions": condition("Complete")}),
                "j|Complete|2/2|13s|90s",
            ),
            (json!({}), json!({"conditions": condition("Failed")}), "j|Failed|0/1||90s"),
            (json!({}), json!({"conditions": condition("Suspended")}), "j|Suspended|0/1||90s"),
            (
                json!({}),
                json!({"conditions": condition("FailureTarget")}),
                "j|FailureTarget|0/1||90s",
            ),
            (
                json!({}),
                json!({"conditions": condition("SuccessCriteriaMet")}),
                "j|SuccessCriteriaMet|0/1||90s",
            ),
        ] {
            let printed = printed("Job", job(spec, status));
            assert_eq!(printed, format!("{expected} || c|busybox|u=1"));
        }
        let mut going = job(json!({}), json!({}));
        going["metadata"]["deletionTimestamp"] = json!(start);
        assert_eq!(printed("Job", going), "j|Terminating|0/1||90s || c|busybox|u=1");
    }

    #[test]
    fn cron_jobs_print_as_upstreams() {
        let template = json!({"spec": {"template": {"spec": {
            "containers": [{"name": "c", "image": "busybox"}]}}}});
        let cron_job = |status: Value| {
            json!({"metadata": {"name": "c", "creationTimestamp": "2026-01-01T23:58:30Z"},
                "spec": {"schedule": "*/5 * * * *", "suspend": false, "jobTemplate": template},
                "status": status})
        };
        assert_eq!(
            printed("CronJob", cron_job(json!({}))),
            "c|*/5 * * * *|<none>|False|0|<none>|90s || c|busybox|<none>"
        );
        let mut seoul = cron_job(json!({"active": [{"name": "c-1"}],
            "lastScheduleTime": "2026-01-01T23:59:20Z"}));
        seoul["spec"]["timeZone"] = json!("Asia/Seoul");
        seoul["spec"]["suspend"] = json!(true);
        assert_eq!(
            printed("CronJob", seoul),
            "c|*/5 * * * *|Asia/Seoul|True|1|40s|90s || c|busybox|<none>"
        );
    }
}
