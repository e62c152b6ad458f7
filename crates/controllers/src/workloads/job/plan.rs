//! What one look at a Job decides: pure, from the Job and its pods.
//!
//! A pod is counted in three writes, none of which can be lost or done twice: its uid goes into
//! `uncountedTerminatedPods`, its finalizer is taken away, and the uid becomes one of the count.
//! Whatever is interrupted is taken up by the next look (KEP-2307).

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};
use wharf_model::indexes::Indexes;
use wharf_model::pod::ready_since;
use wharf_model::time::Time;
use wharf_ports::event::EventType;

use super::backoff::Record;
use super::indexed::{self, Indexed};
use super::pods::{JobPod, is_indexed, replaces_failed_only};
use super::policy::{self, Verdict};
use super::status::{self, Finish};
use crate::workloads::replica_set::rank;

/// The most pods that a status lists as not yet counted.
const UNCOUNTED_MAX: usize = 500;
/// The most pods made or deleted at a time.
const BURST: usize = 500;

/// What a look sees.
pub(super) struct Facts<'v> {
    pub(super) job: &'v Job,
    pub(super) spec: &'v JobSpec,
    pub(super) pods: &'v [JobPod<'v>],
    /// Whether everything asked for before has shown up.
    pub(super) settled: bool,
    pub(super) record: &'v Record,
    pub(super) now: Time,
}

/// What a look decides.
#[derive(Default)]
pub(super) struct Plan<'v> {
    /// The status as it is to be.
    pub(super) status: JobStatus,
    /// Pods to delete that are to be counted afterwards.
    pub(super) stop: Vec<JobPod<'v>>,
    /// Pods whose finalizer goes once the status has been written.
    pub(super) count: Vec<JobPod<'v>>,
    /// Pods to delete uncounted: there are too many.
    pub(super) drop: Vec<JobPod<'v>>,
    /// Pods to make, with their index and the failed pod whose place they take.
    pub(super) create: Vec<(Option<i32>, Option<JobPod<'v>>)>,
    pub(super) events: Vec<(EventType, String, String)>,
    /// When to look again though nothing changes.
    pub(super) wake: Option<Time>,
}

/// Decides.
pub(super) fn decide<'v>(facts: &Facts<'v>) -> Plan<'v> {
    let Facts { job, spec, pods, now, .. } = *facts;
    let mut plan = Plan { status: job.status.clone().unwrap_or_default(), ..Plan::default() };
    let suspended = spec.suspend == Some(true);
    if plan.status.start_time.is_none() && !suspended {
        plan.status.start_time = Some(now.to_meta());
    }
    let mut uncounted = Uncounted::of(&plan.status);
    let tally = Tally::of(facts, &plan.status, &uncounted);
    let by_index = is_indexed(spec).then(|| Indexed::of(spec, &plan.status, pods));
    let succeeded = by_index.as_ref().map_or(tally.succeeded, |all| all.succeeded.count());
    let before = Finish::settled(&plan.status);
    let mut finish = before.clone().or_else(|| failure(facts, &tally, &mut plan));
    if finish.is_none()
        && let Some(all) = &by_index
    {
        finish = all.failure(spec).or_else(|| {
            let message = policy::success(spec, &all.succeeded)?;
            Some(Finish::success("SuccessPolicy", message))
        });
    }
    let active: Vec<JobPod<'v>> = pods.iter().copied().filter(JobPod::is_active).collect();
    let mut active_count = active.len();
    let mut terminating = pods.iter().filter(|pod| pod.is_terminating()).count();
    let mut ready = active.iter().filter(|pod| ready_since(pod.pod).is_some()).count();
    // Counting goes first: what is to be made depends on it.
    let is_counting = uncounted.is_stale(pods)
        || pods
            .iter()
            .any(|pod| pod.is_tracked && may_go(facts, pod, finish.as_ref(), by_index.as_ref()));
    if finish.is_some() {
        plan.stop.clone_from(&active);
        terminating += active_count;
        (active_count, ready) = (0, 0);
        if !facts.settled {
            finish = None;
        }
    } else {
        let manages = facts.settled && !is_counting && job.metadata.deletion_timestamp.is_none();
        if manages {
            manage(facts, &active, succeeded, by_index.as_ref(), &mut plan);
            active_count = active_count + plan.create.len() - plan.drop.len();
            terminating += plan.drop.len();
            ready -= plan.drop.iter().filter(|pod| ready_since(pod.pod).is_some()).count();
        }
        let is_complete = match spec.completions {
            Some(completions) => succeeded >= completions,
            None => succeeded > 0,
        };
        if is_complete && active_count == 0 {
            let message = "Reached expected number of succeeded pods";
            finish = Some(Finish::success("CompletionsReached", message));
        } else if manages {
            suspend_or_resume(suspended, now, &mut plan);
        }
    }
    plan.status.active = some(active_count);
    plan.status.ready = Some(number(ready));
    plan.status.terminating = Some(number(terminating));
    let reached_max = track(facts, finish.as_ref(), by_index.as_ref(), &mut uncounted, &mut plan);
    if let Some(finish) = &finish {
        let (interim, _) = finish.conditions();
        if before.is_none() {
            status::set(&mut plan.status, interim, true, &finish.reason, &finish.message, now);
        }
        let is_over = uncounted.is_empty()
            && terminating == 0
            && plan.count.is_empty()
            && plan.stop.is_empty()
            && !reached_max;
        if is_over {
            end(spec, finish, now, &mut plan);
        }
    }
    uncounted.write(&mut plan.status);
    plan
}

/// The counts so far, those under way included.
struct Tally {
    succeeded: i32,
    failed: i32,
}

impl Tally {
    fn of(facts: &Facts<'_>, status: &JobStatus, uncounted: &Uncounted) -> Self {
        let spec = facts.spec;
        let is_new = |pod: &&JobPod<'_>| pod.is_tracked && indexed::is_valid(spec, pod);
        let succeeded = facts.pods.iter().filter(is_new).filter(|pod| {
            pod.has_succeeded() && !uncounted.succeeded.iter().any(|uid| uid == pod.uid())
        });
        let failed = facts.pods.iter().filter(is_new).filter(|pod| {
            pod.has_failed(spec)
                && !uncounted.failed.iter().any(|uid| uid == pod.uid())
                && policy::verdict(spec, pod) != Verdict::Ignore
        });
        let count = |before: Option<i32>, new: usize, under_way: &[String]| {
            before.unwrap_or(0).saturating_add(number(new + under_way.len()))
        };
        Self {
            succeeded: count(status.succeeded, succeeded.count(), &uncounted.succeeded),
            failed: count(status.failed, failed.count(), &uncounted.failed),
        }
    }
}

/// Why the Job has failed, if it has. Otherwise, the deadline is looked at again when it is due.
fn failure(facts: &Facts<'_>, tally: &Tally, plan: &mut Plan<'_>) -> Option<Finish> {
    let spec = facts.spec;
    let failed = facts.pods.iter().filter(|pod| pod.has_failed(spec));
    let by_policy =
        failed.map(|pod| policy::verdict(spec, pod)).find_map(|verdict| match verdict {
            Verdict::FailJob(message) => Some(message),
            _ => None,
        });
    if let Some(message) = by_policy {
        return Some(Finish::failure("PodFailurePolicy", message));
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    if tally.failed > limit || restarts_beyond(facts, limit) {
        let message = "Job has reached the specified backoff limit";
        return Some(Finish::failure("BackoffLimitExceeded", message));
    }
    let seconds = spec.active_deadline_seconds.filter(|_| spec.suspend != Some(true))?;
    let start = plan.status.start_time.as_ref().map(Time::from)?;
    let deadline = start + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    if deadline <= facts.now {
        let message = "Job was active longer than specified deadline";
        return Some(Finish::failure("DeadlineExceeded", message));
    }
    plan.wake = Some(deadline);
    None
}

/// Whether containers that are restarted in place have been so too often.
fn restarts_beyond(facts: &Facts<'_>, limit: i32) -> bool {
    let template = facts.spec.template.spec.as_ref();
    if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let running = facts
        .pods
        .iter()
        .filter(|pod| matches!(wharf_model::pod::phase(pod.pod), "Running" | "Pending"));
    let restarts: i32 = running
        .filter_map(|pod| pod.pod.status.as_ref())
        .flat_map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            init.chain(status.container_statuses.iter().flatten())
        })
        .map(|container| container.restart_count)
        .sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// Makes the pods that are missing or gives up those that are too many.
fn manage<'v>(
    facts: &Facts<'v>,
    active: &[JobPod<'v>],
    succeeded: i32,
    by_index: Option<&Indexed<'v>>,
    plan: &mut Plan<'v>,
) {
    let Facts { spec, pods, record, now, .. } = *facts;
    let running = number(active.len());
    let parallelism = spec.parallelism.unwrap_or(1);
    let wanted = match spec.completions {
        _ if spec.suspend == Some(true) => 0,
        Some(completions) => (completions - succeeded).clamp(0, parallelism.max(0)),
        // The first success is the last pod's cue: those that run are left to end.
        None if succeeded > 0 => running,
        None => parallelism,
    };
    let surplus = usize::try_from(running - wanted).unwrap_or(0);
    plan.drop = surplus_of(facts, active, surplus);
    plan.drop.truncate(BURST);
    if !plan.drop.is_empty() || spec.suspend == Some(true) {
        return;
    }
    let ending = pods.iter().filter(|pod| pod.is_terminating()).count();
    let ending = if replaces_failed_only(spec) { number(ending) } else { 0 };
    let missing = usize::try_from(wanted - ending - running).unwrap_or(0).min(BURST);
    if missing == 0 {
        return;
    }
    let mut wait = |until: Time| plan.wake = Some(plan.wake.map_or(until, |at| at.min(until)));
    let independent = spec.backoff_limit_per_index.is_some();
    if let Some(next) = record.next().filter(|next| !independent && *next > now) {
        return wait(next);
    }
    match by_index {
        None => plan.create = vec![(None, None); missing],
        Some(all) => {
            let pending = all.pending(spec, pods, missing);
            let (due, later): (Vec<_>, Vec<_>) =
                pending.into_iter().partition(|(_, at)| at.is_none_or(|at| at <= now));
            if let Some(next) = later.iter().filter_map(|(_, at)| *at).min() {
                wait(next);
            }
            let index = |(index, _)| (Some(index), all.delayed.get(&index).copied());
            plan.create = due.into_iter().map(index).collect();
        }
    }
}

/// The pods that are too many: those of an index that has one already, and then those that can
/// best be spared.
fn surplus_of<'v>(facts: &Facts<'v>, active: &[JobPod<'v>], at_least: usize) -> Vec<JobPod<'v>> {
    let mut left = active.to_vec();
    let by_rank = |left: &JobPod<'_>, right: &JobPod<'_>| {
        let candidate = |pod| rank::Candidate { pod, together: 0 };
        rank::compare(&candidate(left.pod), &candidate(right.pod), facts.now)
    };
    left.sort_by(by_rank);
    let mut surplus = Vec::new();
    if is_indexed(facts.spec) {
        let mut seen = BTreeSet::new();
        // The pod of an index that can least be spared is the one that stays.
        let mut kept = Vec::new();
        for pod in left.into_iter().rev() {
            if indexed::is_valid(facts.spec, &pod) && seen.insert(pod.index) {
                kept.push(pod);
            } else {
                surplus.push(pod);
            }
        }
        kept.reverse();
        left = kept;
    }
    let more = at_least.saturating_sub(surplus.len());
    surplus.extend(left.into_iter().take(more));
    surplus
}

fn suspend_or_resume(suspended: bool, now: Time, plan: &mut Plan<'_>) {
    let (reason, message, event) = if suspended {
        ("JobSuspended", "Job suspended", "Suspended")
    } else {
        ("JobResumed", "Job resumed", "Resumed")
    };
    if !status::set(&mut plan.status, status::SUSPENDED, suspended, reason, message, now) {
        return;
    }
    plan.events.push((EventType::Normal, event.to_owned(), message.to_owned()));
    if !suspended {
        // The deadline counts from when the Job goes on.
        plan.status.start_time = Some(now.to_meta());
    }
}

/// Whether nothing of a pod is waited for any more.
fn may_go(
    facts: &Facts<'_>,
    pod: &JobPod<'_>,
    finish: Option<&Finish>,
    by_index: Option<&Indexed<'_>>,
) -> bool {
    if pod.is_active() {
        return false;
    }
    if facts.job.metadata.deletion_timestamp.is_some() || finish.is_some() || pod.has_succeeded() {
        return true;
    }
    // The failed pod of an index says how often it has failed, until another pod says so.
    let is_delayed =
        by_index.is_some_and(|all| all.delayed.values().any(|delayed| delayed.uid() == pod.uid()));
    pod.has_failed(facts.spec) && !is_delayed
}

/// Lists ended pods in the status, and moves those whose finalizer is gone into the counts.
/// Returns whether some had to be left for another look.
fn track<'v>(
    facts: &Facts<'v>,
    finish: Option<&Finish>,
    by_index: Option<&Indexed<'v>>,
    uncounted: &mut Uncounted,
    plan: &mut Plan<'v>,
) -> bool {
    let spec = facts.spec;
    uncounted.settle(facts.pods, &mut plan.status);
    let mut indexes = by_index.map(|all| all.counted.clone());
    let mut pods: Vec<JobPod<'v>> = facts.pods.to_vec();
    pods.sort_by_key(|pod| pod.index);
    let (mut listed, mut reached_max) = (0, false);
    for pod in pods.into_iter().filter(|pod| pod.is_tracked) {
        if !may_go(facts, &pod, finish, by_index) {
            continue;
        }
        if listed + uncounted.count() >= UNCOUNTED_MAX {
            reached_max = true;
            break;
        }
        plan.count.push(pod);
        let uid = pod.uid();
        let valid = indexed::is_valid(spec, &pod);
        if pod.has_succeeded() && !uncounted.failed.iter().any(|other| other == uid) {
            match (&mut indexes, pod.index) {
                (Some(indexes), Some(index)) if valid => {
                    listed += usize::from(!indexes.contains(index));
                    indexes.insert(index);
                }
                (None, _) => add(&mut uncounted.succeeded, uid),
                _ => {}
            }
        } else if (pod.has_failed(spec) || finish.is_some_and(|finish| !finish.succeeded))
            && valid
            && policy::verdict(spec, &pod) != Verdict::Ignore
        {
            add(&mut uncounted.failed, uid);
        }
    }
    if let (Some(all), Some(indexes)) = (by_index, indexes) {
        plan.status.succeeded = Some(indexes.count()).filter(|count| *count != 0);
        plan.status.completed_indexes = Some(indexes.to_string()).filter(|text| !text.is_empty());
        plan.status.failed_indexes = all.failed.as_ref().map(Indexes::to_string);
    }
    reached_max
}

/// The end: the last condition, and what is said of it.
fn end(spec: &JobSpec, finish: &Finish, now: Time, plan: &mut Plan<'_>) {
    let (_, last) = finish.conditions();
    status::set(&mut plan.status, last, true, &finish.reason, &finish.message, now);
    if !finish.succeeded {
        let event = (EventType::Warning, finish.reason.clone(), finish.message.clone());
        plan.events.push(event);
        return;
    }
    plan.status.completion_time = Some(now.to_meta());
    if spec.completions.is_some_and(|wanted| plan.status.succeeded.unwrap_or(0) > wanted) {
        let text = "Too many succeeded pods running after completion count reached";
        plan.events.push((EventType::Warning, "TooManySucceededPods".to_owned(), text.to_owned()));
    }
    plan.events.push((EventType::Normal, "Completed".to_owned(), "Job completed".to_owned()));
}

/// Uids of pods that have ended and are not in the counts yet.
struct Uncounted {
    succeeded: Vec<String>,
    failed: Vec<String>,
}

impl Uncounted {
    fn of(status: &JobStatus) -> Self {
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        Self {
            succeeded: uncounted.succeeded.unwrap_or_default(),
            failed: uncounted.failed.unwrap_or_default(),
        }
    }

    fn count(&self) -> usize {
        self.succeeded.len() + self.failed.len()
    }

    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Whether one of the pods is not held by its finalizer any more.
    fn is_stale(&self, pods: &[JobPod<'_>]) -> bool {
        self.succeeded.iter().chain(&self.failed).any(|uid| !is_held(pods, uid))
    }

    /// Counts the pods that are not held any more.
    fn settle(&mut self, pods: &[JobPod<'_>], status: &mut JobStatus) {
        for (list, count) in
            [(&mut self.succeeded, &mut status.succeeded), (&mut self.failed, &mut status.failed)]
        {
            let before = list.len();
            list.retain(|uid| is_held(pods, uid));
            let gone = number(before - list.len());
            *count = Some(count.unwrap_or(0) + gone).filter(|count| *count != 0);
        }
    }

    fn write(self, status: &mut JobStatus) {
        let list = |list: Vec<String>| (!list.is_empty()).then_some(list);
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            succeeded: list(self.succeeded),
            failed: list(self.failed),
        });
    }
}

fn is_held(pods: &[JobPod<'_>], uid: &str) -> bool {
    pods.iter().any(|pod| pod.is_tracked && pod.uid() == uid)
}

fn add(list: &mut Vec<String>, uid: &str) {
    if !list.iter().any(|other| other == uid) {
        list.push(uid.to_owned());
    }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn some(count: usize) -> Option<i32> {
    Some(number(count)).filter(|count| *count != 0)
}
