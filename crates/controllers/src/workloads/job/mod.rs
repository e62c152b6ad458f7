//! Jobs: pods that run to completion, so many times.
//!
//! Follows <https://kubernetes.io/docs/concepts/workloads/controllers/job/>. A look either counts
//! pods that have ended or makes and deletes pods; [`plan`] decides which and says what exactly.
//! What is remembered between looks only keeps a view that lags behind from making pods twice.

mod backoff;
mod indexed;
mod plan;
mod pods;
mod policy;
pub(crate) mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey, Revision};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::events::event;
use super::owners::controller_of;
use plan::{Facts, Plan};
use pods::JobPod;

const COMPONENT: &str = "job-controller";
/// The controller of Jobs that name none; others are somebody else's (KEP-4368).
const MANAGED_BY: &str = "kubernetes.io/job-controller";
/// Changes of pods are waited for so long, so that many make one look.
const SETTLE: Duration = Duration::from_secs(1);
/// After so long changes that do not show up are no longer waited for.
const EXPECTATION_MAX: Duration = Duration::from_secs(300);

/// The Job controller.
#[derive(Debug, Default)]
pub struct JobController {
    jobs: BTreeMap<ObjectKey, Tracked>,
}

/// What is remembered of a Job between looks.
#[derive(Debug, Default)]
struct Tracked {
    uid: CompactString,
    /// Names of pods asked for, or whose deletion was asked for, that have not shown up.
    creating: BTreeSet<CompactString>,
    deleting: BTreeSet<CompactString>,
    /// Since when that is so.
    since: Time,
    /// Pods that showed up, or began to go, and whose event is to be written.
    created: Vec<CompactString>,
    deleted: Vec<CompactString>,
    /// Refusals whose event is to be written.
    failed: Vec<String>,
    /// The revision of the last status written: an older one says too little.
    written: Revision,
    record: backoff::Record,
}

impl Tracked {
    fn settled(&self, now: Time) -> bool {
        (self.creating.is_empty() && self.deleting.is_empty())
            || self.since + EXPECTATION_MAX <= now
    }

    /// Writes the events of what has happened since the last look.
    fn tell(&mut self, job: &Object, step: &mut Step) {
        let normal = |reason, text| event(job, EventType::Normal, COMPONENT, reason, text);
        for name in self.created.drain(..) {
            step.write(normal("SuccessfulCreate", format!("Created pod: {name}")));
        }
        for name in self.deleted.drain(..) {
            step.write(normal("SuccessfulDelete", format!("Deleted pod: {name}")));
        }
        for error in self.failed.drain(..) {
            let text = format!("Error creating: {error}");
            step.write(event(job, EventType::Warning, COMPONENT, "FailedCreate", text));
        }
    }
}

impl JobController {
    /// A controller that expects nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn observe_pod(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let tracked = |version: &Option<Arc<Object>>| {
            version.as_ref().and_then(|it| it.typed::<Pod>()).is_some_and(pods::is_tracked)
        };
        let versions = change.old.iter().chain(&change.new);
        let owners = versions.filter_map(|version| controller_of::<Job>(version, view));
        let owners: BTreeSet<ObjectKey> = owners.map(|owner| owner.key().clone()).collect();
        let is_held = tracked(&change.new);
        for owner in &owners {
            if let Some(job) = self.jobs.get_mut(owner) {
                let name = &change.key().name;
                if change.new.is_some() && job.creating.remove(name) {
                    job.created.push(name.clone());
                }
                let is_going =
                    change.new.as_ref().is_none_or(|pod| pod.header().deleting.is_some());
                if is_going && job.deleting.remove(name) {
                    job.deleted.push(name.clone());
                }
            }
            // What this controller has brought about itself need not settle.
            let is_own = tracked(&change.old) && !is_held;
            let wait = if is_own { Duration::ZERO } else { SETTLE };
            queue.after(WorkKey::object(Kind::of::<Job>(), owner), wait);
        }
        if is_held && is_left_over(change.object(), view) {
            queue.now(WorkKey::object(change.kind(), change.key()));
        }
    }

    fn sync(&mut self, object: &Object, job: &Job, context: &mut Context<'_>) -> Step {
        let (now, view) = (context.now, context.view);
        let mut step = Step::done();
        let Some(spec) = job.spec.as_ref() else { return step };
        if spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGED_BY) {
            return step;
        }
        let tracked = self.jobs.entry(object.key().clone()).or_default();
        if tracked.uid != object.uid() {
            *tracked = Tracked { uid: object.uid().into(), ..Tracked::default() };
        }
        if object.revision() < tracked.written {
            // The status that was written is still on its way.
            return step;
        }
        tracked.tell(object, &mut step);
        if status::is_finished(job) {
            return step;
        }
        let pods: Vec<JobPod<'_>> = view
            .owned_by(object.uid(), Kind::of::<Pod>())
            .filter(|pod| pod.header().controller().is_some_and(|it| it.uid == object.uid()))
            .filter_map(|pod| JobPod::of(pod))
            .collect();
        tracked.record.learn(spec, &pods);
        let settled = tracked.settled(now);
        let record = &tracked.record.clone();
        let plan = plan::decide(&Facts { job, spec, pods: &pods, settled, record, now });
        let wake = plan.wake;
        tracked.carry_out(object, job, plan, context, &mut step);
        let expectation = (!tracked.settled(now)).then(|| tracked.since + EXPECTATION_MAX);
        step.again = wake.into_iter().chain(expectation).min().map(|at| at.since(now));
        step
    }
}

impl Tracked {
    fn carry_out(
        &mut self,
        object: &Object,
        job: &Job,
        plan: Plan<'_>,
        context: &mut Context<'_>,
        step: &mut Step,
    ) {
        let now = context.now;
        if !plan.drop.is_empty() || !plan.create.is_empty() {
            // What was waited for in vain is given up.
            self.creating.clear();
            self.deleting.clear();
            self.since = now;
        }
        // Counting is a chain in which nothing may be left out; new pods stand alone.
        step.independent = !plan.create.is_empty();
        for pod in &plan.stop {
            step.write(Write::Delete(Delete::of(pod.object)));
            self.deleting.insert(pod.object.key().name.clone());
            self.since = now;
        }
        for pod in &plan.drop {
            self.deleting.insert(pod.object.key().name.clone());
            if pod.is_tracked {
                step.write(pod.release());
            }
            step.write(Write::Delete(Delete::of(pod.object)));
        }
        for (index, replaced) in &plan.create {
            let pod = pods::new_pod(job, *index, replaced.as_ref(), context.random);
            let name: CompactString = pod.metadata.name.as_deref().unwrap_or_default().into();
            if self.creating.insert(name) {
                step.write(Write::Create(Box::new(pod)));
            }
        }
        if job.status.as_ref() != Some(&plan.status) {
            // With its version: what another look has written meanwhile is not written over.
            let job = Job { status: Some(plan.status), ..job.clone() };
            step.write(Write::Update { object: Box::new(job), part: Part::Status });
        }
        for (kind, reason, message) in plan.events {
            step.write(event(object, kind, COMPONENT, &reason, message));
        }
        for pod in &plan.count {
            step.write(pod.release());
        }
    }
}

impl Controller for JobController {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let (kind, jobs) = (change.kind(), Kind::of::<Job>());
        if kind == Kind::of::<Pod>() {
            self.observe_pod(change, view, queue);
        } else if kind == jobs {
            queue.now(WorkKey::object(kind, change.key()));
            // The pods of a Job that is gone, or has ended, are held by nobody.
            let object = change.object();
            let is_over = object.typed::<Job>().is_some_and(status::is_finished);
            if change.new.is_none() || is_over {
                for pod in view.owned_by(object.uid(), Kind::of::<Pod>()) {
                    if pod.typed::<Pod>().is_some_and(pods::is_tracked) {
                        queue.now(WorkKey::object(Kind::of::<Pod>(), pod.key()));
                    }
                }
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        if key.kind == Some(Kind::of::<Pod>()) {
            return release_left_over(&key.key, context.view);
        }
        let object = context.view.object(Kind::of::<Job>(), &key.key);
        let Some((object, job)) = object.and_then(|object| Some((object, object.typed::<Job>()?)))
        else {
            self.jobs.remove(&key.key);
            return Step::done();
        };
        self.sync(object, job, context)
    }

    fn done(
        &mut self,
        key: &WorkKey,
        write: &Write,
        left: Option<&Arc<Object>>,
        _queue: &mut Enqueue,
    ) {
        if let (Write::Update { part: Part::Status, .. }, Some(left)) = (write, left)
            && let Some(tracked) = self.jobs.get_mut(&key.key)
        {
            tracked.written = tracked.written.max(left.revision());
        }
    }

    fn refused(&mut self, key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        let Some(tracked) = self.jobs.get_mut(&key.key) else {
            let gone = error.reason == StatusReason::NotFound;
            return if gone { OnError::Forget } else { OnError::Retry };
        };
        match write {
            Write::Create(pod) => {
                let name = pod.meta().name.as_deref().unwrap_or_default();
                tracked.creating.remove(name);
                // Another pod has the name by chance; the next one will be free.
                if error.reason != StatusReason::AlreadyExists {
                    tracked.failed.push(error.message.clone());
                }
            }
            Write::Delete(delete) => {
                tracked.deleting.remove(&delete.key.name);
            }
            _ => {}
        }
        OnError::Retry
    }
}

/// Whether a held pod has no Job that would count it: its Job is gone, is another one by now, or
/// has ended.
fn is_left_over(pod: &Object, view: &View) -> bool {
    let Some(owner) = pod.header().controller().filter(|owner| owner.kind == "Job") else {
        return pod.header().controller().is_none();
    };
    let key = ObjectKey { namespace: pod.key().namespace.clone(), name: owner.name.clone() };
    match view.object(Kind::of::<Job>(), &key).filter(|job| job.uid() == owner.uid) {
        Some(job) => job.typed::<Job>().is_some_and(status::is_finished),
        None => true,
    }
}

fn release_left_over(key: &ObjectKey, view: &View) -> Step {
    let mut step = Step::done();
    let pod = view.object(Kind::of::<Pod>(), key).filter(|pod| is_left_over(pod, view));
    if let Some(pod) = pod.and_then(|pod| JobPod::of(pod)).filter(|pod| pod.is_tracked) {
        step.write(pod.release());
    }
    step
}
