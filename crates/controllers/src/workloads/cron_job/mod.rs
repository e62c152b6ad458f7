//! CronJobs: Jobs made at the times of a schedule.
//!
//! Follows <https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>. A Job is named
//! after the minute it was due, so that none is made twice; which of them run is read off the Jobs.

mod due;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use wharf_model::cron::{Schedule, Zone, rfc1123};
use wharf_model::kinds::Kind;
use wharf_model::labels::CRON_JOB_TIMESTAMP;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::events::event;
use super::job::status;
use super::owners::{controller_of, controller_reference};

const COMPONENT: &str = "cronjob-controller";

/// The CronJob controller.
#[derive(Debug, Default)]
pub struct CronJobController {
    /// Refusals whose event is to be written.
    failed: BTreeMap<ObjectKey, Vec<String>>,
}

/// A Job of a CronJob.
type OwnJob<'v> = (&'v Object, &'v Job);

/// What a look has come to.
struct Look<'v> {
    object: &'v Object,
    cron_job: &'v CronJob,
    jobs: Vec<OwnJob<'v>>,
    now: Time,
    status: CronJobStatus,
    step: Step,
    /// What is told once all has been done.
    events: Vec<Write>,
}

impl CronJobController {
    /// A controller that remembers nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Look<'_> {
    fn tell(&mut self, kind: EventType, reason: &str, text: String) {
        self.events.push(event(self.object, kind, COMPONENT, reason, text));
    }

    /// Brings up to date which Jobs run, and when one last succeeded.
    fn follow_jobs(&mut self) {
        let before = self.status.active.take().unwrap_or_default();
        let mut active: Vec<ObjectReference> = Vec::new();
        for reference in before {
            let uid = reference.uid.as_deref().unwrap_or_default();
            let found = self.jobs.iter().find(|(object, _)| object.uid() == uid).copied();
            let name = reference.name.clone().unwrap_or_default();
            match found.map(|(_, job)| status::finished(job)) {
                Some(None) => active.push(reference),
                Some(Some(condition)) => {
                    let text = format!("Saw completed job: {name}, condition: {}", condition.type_);
                    self.tell(EventType::Normal, "SawCompletedJob", text);
                }
                None => {
                    let text = format!("Active job went missing: {name}");
                    self.tell(EventType::Normal, "MissingJob", text);
                }
            }
        }
        for (object, job) in &self.jobs {
            let listed = active.iter().any(|one| one.uid.as_deref() == Some(object.uid()));
            if !listed && !status::is_finished(job) {
                active.push(reference(object));
            }
            let completed = job.status.as_ref().and_then(|status| status.completion_time.as_ref());
            let last = self.status.last_successful_time.as_ref().map(Time::from);
            if let Some(at) = completed.filter(|at| Some(Time::from(*at)) > last) {
                self.status.last_successful_time = Some(at.clone());
            }
        }
        self.status.active = (!active.is_empty()).then_some(active);
    }

    /// Deletes the oldest of the Jobs that have ended, beyond the limits.
    fn forget_jobs(&mut self) {
        let spec = &self.cron_job.spec;
        for (type_, limit) in [
            (status::COMPLETE, spec.successful_jobs_history_limit),
            (status::FAILED, spec.failed_jobs_history_limit),
        ] {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
            let ended = |(_, job): &&OwnJob<'_>| {
                status::finished(job).is_some_and(|condition| condition.type_ == type_)
            };
            let mut jobs: Vec<OwnJob<'_>> = self.jobs.iter().filter(ended).copied().collect();
            let started = |job: &Job| {
                job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(Time::from)
            };
            jobs.sort_by_key(|(object, job)| (started(job), object.key().clone()));
            let surplus = jobs.len().saturating_sub(limit);
            for (object, _) in jobs.into_iter().take(surplus) {
                self.delete(object);
            }
        }
    }

    fn delete(&mut self, job: &Object) {
        if job.header().deleting.is_none() {
            self.step.write(Write::Delete(Delete::of(job)));
            let text = format!("Deleted job {}", job.key().name);
            self.tell(EventType::Normal, "SuccessfulDelete", text);
        }
    }

    /// Makes the Job that is due; says when to look again.
    fn schedule(&mut self) -> Option<Time> {
        let spec = &self.cron_job.spec;
        if self.object.header().deleting.is_some() || spec.suspend == Some(true) {
            return None;
        }
        let (schedule, zone) = match (Schedule::parse(&spec.schedule), zone(self.cron_job)) {
            (Err(error), _) => {
                let text = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.tell(EventType::Warning, "UnparseableSchedule", text);
                return None;
            }
            (_, Err(name)) => {
                let text = format!("invalid timeZone: {name:?}: unknown time zone {name}");
                self.tell(EventType::Warning, "UnknownTimeZone", text);
                return None;
            }
            (Ok(schedule), Ok(zone)) => (schedule, zone),
        };
        let next = schedule.next(self.now, &zone);
        let last = self.status.last_schedule_time.as_ref().map(Time::from);
        let mut earliest = last.unwrap_or(self.object.header().created);
        let deadline =
            spec.starting_deadline_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let deadline = deadline.map(Duration::from_secs);
        if let Some(deadline) = deadline {
            // What was due before that is not made up for.
            earliest = earliest.max(self.now - deadline);
        }
        let due = due::due(&schedule, &zone, earliest, self.now);
        let Some(at) = due.last else { return next };
        if due.too_many_missed {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.tell(EventType::Warning, "TooManyMissedTimes", text.to_owned());
        }
        if deadline.is_some_and(|deadline| at + deadline < self.now) {
            let text = format!("Missed scheduled time to start a job: {}", rfc1123(at));
            self.tell(EventType::Warning, "MissSchedule", text);
            return next;
        }
        let job = new_job(self.cron_job, at, &zone);
        let name = job.metadata.name.clone().unwrap_or_default();
        if self.jobs.iter().any(|(object, _)| object.key().name == name) {
            // It was made, and the status not written.
            self.status.last_schedule_time = Some(at.to_meta());
            return next;
        }
        let active: Vec<OwnJob<'_>> =
            self.jobs.iter().filter(|(_, job)| !status::is_finished(job)).copied().collect();
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.tell(EventType::Normal, "JobAlreadyActive", text.to_owned());
                return next;
            }
            Some("Replace") => active.into_iter().for_each(|(object, _)| self.delete(object)),
            _ => {}
        }
        self.step.write(Write::Create(Box::new(job)));
        self.tell(EventType::Normal, "SuccessfulCreate", format!("Created job {name}"));
        self.status.last_schedule_time = Some(at.to_meta());
        next
    }
}

/// The zone of a schedule; the name of one that is not known.
fn zone(cron_job: &CronJob) -> Result<Zone, String> {
    let Some(name) = &cron_job.spec.time_zone else { return Ok(Zone::UTC) };
    Zone::named(name).ok_or_else(|| name.clone())
}

/// The Job that is due at a moment, named after its minute.
fn new_job(cron_job: &CronJob, at: Time, zone: &Zone) -> Job {
    let template = &cron_job.spec.job_template;
    let from = template.metadata.clone().unwrap_or_default();
    let mut job = Job { spec: template.spec.clone(), ..Job::default() };
    let name = cron_job.metadata.name.as_deref().unwrap_or_default();
    let meta = &mut job.metadata;
    meta.name = Some(format!("{name}-{}", at.as_seconds() / 60));
    meta.namespace.clone_from(&cron_job.metadata.namespace);
    meta.labels = from.labels;
    meta.annotations = from.annotations;
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(CRON_JOB_TIMESTAMP.to_owned(), zone.rfc3339(at));
    meta.owner_references = Some(vec![controller_reference(cron_job)]);
    job
}

fn reference(job: &Object) -> ObjectReference {
    let kind = job.kind();
    ObjectReference {
        api_version: Some(kind.api_version()),
        kind: Some(kind.kind.to_owned()),
        namespace: Some(job.key().namespace.to_string()),
        name: Some(job.key().name.to_string()),
        uid: Some(job.uid().to_owned()),
        resource_version: Some(job.revision().to_string()),
        ..ObjectReference::default()
    }
}

impl Controller for CronJobController {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(&[("batch", "cronjobs"), ("batch", "jobs")])
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let (kind, cron_jobs) = (change.kind(), Kind::of::<CronJob>());
        if kind == cron_jobs {
            queue.now(WorkKey::object(kind, change.key()));
        } else if kind == Kind::of::<Job>()
            && let Some(owner) = controller_of::<CronJob>(change.object(), view)
        {
            queue.now(WorkKey::object(cron_jobs, owner.key()));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let (view, now) = (context.view, context.now);
        let failed = self.failed.remove(&key.key).unwrap_or_default();
        let object = view.object(Kind::of::<CronJob>(), &key.key);
        let Some((object, cron_job)) =
            object.and_then(|object| Some((object, object.typed::<CronJob>()?)))
        else {
            return Step::done();
        };
        let jobs = view
            .owned_by(object.uid(), Kind::of::<Job>())
            .filter(|job| job.header().controller().is_some_and(|it| it.uid == object.uid()))
            .filter_map(|object| Some((object.as_ref(), object.typed::<Job>()?)))
            .collect();
        let status = cron_job.status.clone().unwrap_or_default();
        let mut step = Step::done();
        for error in failed {
            let text = format!("Error creating job: {error}");
            step.write(event(object, EventType::Warning, COMPONENT, "FailedCreate", text));
        }
        let mut look = Look { object, cron_job, jobs, now, status, step, events: Vec::new() };
        look.follow_jobs();
        look.forget_jobs();
        let next = look.schedule();
        let Look { status, mut step, events, .. } = look;
        if cron_job.status.as_ref() != Some(&status) {
            let cron_job = CronJob { status: Some(status), ..cron_job.clone() };
            step.write(Write::Update { object: Box::new(cron_job), part: Part::Status });
        }
        step.writes.extend(events);
        step.again = next.map(|at| at.since(now));
        step
    }

    fn refused(&mut self, key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        // One that is there already is found in the view before long.
        if matches!(write, Write::Create(_)) && error.reason != StatusReason::AlreadyExists {
            self.failed.entry(key.key.clone()).or_default().push(error.message.clone());
        }
        OnError::Retry
    }
}
