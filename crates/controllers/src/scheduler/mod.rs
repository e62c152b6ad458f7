//! The scheduler's controller: keeps the core's snapshot and queue up to date with the cluster,
//! asks the core, and turns its decisions into bindings, conditions, Events and reasons.
//!
//! A pod that was sent to a node counts there at once (it is *assumed*) and until the cluster
//! shows it bound or refuses the binding. Everything held here is made from the view, object by
//! object, and goes with the object it was made from.

mod queue;
mod reasons;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use rustc_hash::FxHashMap;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;
use wharf_scheduler::{
    Decision, News, NodeChange, Nomination, PodInfo, Profile, Rotation, Snapshot, Unschedulable,
    schedule, wakes, wakes_itself,
};

use queue::{Entry, SchedulingQueue};

/// The one key: a scheduling round.
const ROUND: &str = "round";
/// Decisions in one step. Large enough that a burst of pods takes few steps, small enough that
/// other controllers get their turn.
const DECISIONS_MAX: usize = 64;
/// How long an assumption stands without word from the cluster. Its writes always have an outcome;
/// this is for adapters that lose one.
const ASSUMED_MAX: Duration = Duration::from_secs(300);
/// How long it stands when the answer to its binding leaves open whether the pod was bound: a
/// server error may hide a success, and giving the room away would overcommit the node.
const DOUBTED_MAX: Duration = Duration::from_secs(5);
/// Interned strings below which the snapshot is never built anew.
const SYMBOLS_MIN: usize = 20_000;
/// How much the interned strings may grow before the snapshot is built anew: nodes and pods come
/// and go, and their names would stay for ever.
const SYMBOLS_GROWTH: usize = 4;

/// The scheduler's controller.
#[derive(Debug, Default)]
pub struct Scheduler {
    profile: Profile,
    snapshot: Snapshot,
    rotation: Rotation,
    queue: SchedulingQueue,
    /// The uid of every pod that is held here in any form.
    tracked: FxHashMap<ObjectKey, CompactString>,
    assumed: FxHashMap<CompactString, Assumed>,
    /// Pods whose binding was refused, to be queued again.
    returned: Vec<Entry>,
    /// Pods whose binding was answered with an error that may hide a success.
    doubted: Vec<CompactString>,
    /// Pods now seen on the node this scheduler chose, to be announced.
    confirmed: Vec<(ObjectKey, CompactString)>,
    /// How many strings the snapshot had when it was built.
    symbols_at_build: usize,
}

/// A pod sent to a node, as long as the cluster does not show it there.
#[derive(Clone, Debug)]
struct Assumed {
    node: CompactString,
    until: Time,
    entry: Entry,
}

impl Scheduler {
    /// A scheduler for the pods of one profile.
    pub fn new(profile: Profile) -> Self {
        Self { profile, ..Self::default() }
    }

    fn key() -> WorkKey {
        WorkKey::singleton(ROUND)
    }

    /// Takes in a pod as it is now. Returns whether there is work.
    fn observe_pod(&mut self, key: &ObjectKey, pod: Option<&Pod>) -> bool {
        let uid = pod.map(PodInfo::uid_of);
        let mut work = false;
        if let Some(held) = self.tracked.get(key).cloned()
            && uid.as_ref() != Some(&held)
        {
            work |= self.forget(key, &held);
        }
        let (Some(pod), Some(uid)) = (pod, uid) else { return work };
        if is_finished(pod) {
            return self.forget(key, &uid) | work;
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("");
        if !node.is_empty() {
            self.tracked.insert(key.clone(), uid);
            return self.observe_bound(pod, node) | work;
        }
        if !self.profile.is_for(pod) || pod.metadata.deletion_timestamp.is_some() {
            return self.forget(key, &uid) | work;
        }
        self.tracked.insert(key.clone(), uid);
        self.observe_pending(pod) | work
    }

    /// Drops all that is held of a pod.
    fn forget(&mut self, key: &ObjectKey, uid: &str) -> bool {
        self.tracked.remove(key);
        self.assumed.remove(uid);
        self.returned.retain(|entry| entry.pod.uid != uid);
        let waited = self.queue.remove(uid);
        let work = waited.is_some_and(|pod| self.release_nomination(&pod));
        match self.snapshot.displace(uid) {
            Some(gone) => self.wake(&News::PodGone(&gone)) | work,
            None => work,
        }
    }

    fn observe_bound(&mut self, pod: &Pod, node: &str) -> bool {
        let info = self.snapshot.compile(pod);
        let uid = &info.uid;
        self.queue.remove(uid);
        self.returned.retain(|entry| entry.pod.uid != *uid);
        let mut work = self.release_nomination(&info);
        if let Some(assumed) = self.assumed.remove(uid)
            && assumed.node == node
        {
            self.confirmed.push((info.key.clone(), assumed.node));
            work = true;
        }
        let there = self.snapshot.placement(uid).is_some_and(|there| there.facts.name == node);
        // Most news of a running pod is of its health, which is nothing to the scheduler.
        if there && self.snapshot.placed(uid).is_some_and(|known| **known == *info) {
            return work;
        }
        let old = self.snapshot.displace(uid);
        self.snapshot.place(info.clone(), node);
        let Some(old) = old else { return work };
        if !there {
            return self.wake(&News::PodGone(&old)) | work;
        }
        if old.amounts == info.amounts {
            return work;
        }
        self.wake(&News::PodResized { old: &old, new: &info }) | work
    }

    fn observe_pending(&mut self, pod: &Pod) -> bool {
        let info = self.snapshot.compile(pod);
        if let Some(assumed) = self.assumed.get_mut(&info.uid) {
            // A status update on its way past the binding, or a late one from before it.
            assumed.entry.pod = info;
            return false;
        }
        if let Some(entry) = self.returned.iter_mut().find(|entry| entry.pod.uid == info.uid) {
            entry.pod = info;
            return true;
        }
        let work = self.observe_nomination(&info);
        if self.queue.get(&info.uid).is_some_and(|known| **known == *info) {
            return work;
        }
        let rejected_by = self.queue.rejected_by(&info.uid).unwrap_or_default();
        let snapshot = &self.snapshot;
        let new = info.clone();
        self.queue.set(info, |entry| wakes_itself(rejected_by, &entry.pod, &new, snapshot)) | work
    }

    /// Follows `status.nominatedNodeName`, whoever set it. A pod without one may have a nomination
    /// all the same: its status is on its way.
    fn observe_nomination(&mut self, pod: &Arc<PodInfo>) -> bool {
        let known = self.queue.get(&pod.uid).map(|known| known.nominated_node.as_str());
        let mut work = false;
        if known.unwrap_or_default() != pod.nominated_node
            && self.snapshot.nomination(&pod.uid).unwrap_or_default() != pod.nominated_node
        {
            work = self.release_nomination(pod);
        }
        if !pod.nominated_node.is_empty() {
            self.snapshot.nominate(pod.clone(), &pod.nominated_node);
        }
        work
    }

    /// Gives up the room that was being made for a pod: others of at most its priority may have
    /// it, as if a pod had gone.
    fn release_nomination(&mut self, pod: &PodInfo) -> bool {
        if !self.snapshot.withdraw_nomination(&pod.uid) {
            return false;
        }
        let news = News::PodGone(pod);
        self.queue.wake(|by, other| {
            other.uid != pod.uid
                && other.priority <= pod.priority
                && wakes(by, other, &news, &self.snapshot)
        })
    }

    fn observe_node(&mut self, name: &str, node: Option<&Node>) -> bool {
        let Some(node) = node else {
            self.snapshot.remove_node(name);
            return false;
        };
        let old = match self.snapshot.set_node(node) {
            NodeChange::Same => return false,
            NodeChange::Added => None,
            NodeChange::Updated(old) => Some(old),
        };
        let Some(new) = self.snapshot.node_named(name) else { return false };
        let news = News::Node { old: old.as_ref(), new };
        self.queue.wake(|by, pod| wakes(by, pod, &news, &self.snapshot))
    }

    fn wake(&mut self, news: &News<'_>) -> bool {
        self.queue.wake(|by, pod| wakes(by, pod, news, &self.snapshot))
    }

    /// Takes an assumption back; the pod is queued again at the next step.
    fn unassume(&mut self, uid: &str) -> bool {
        let Some(assumed) = self.assumed.remove(uid) else { return false };
        if let Some(gone) = self.snapshot.displace(uid) {
            self.wake(&News::PodGone(&gone));
        }
        self.returned.push(assumed.entry);
        true
    }

    fn expire_assumptions(&mut self, now: Time) {
        for uid in std::mem::take(&mut self.doubted) {
            if let Some(assumed) = self.assumed.get_mut(&uid) {
                assumed.until = assumed.until.min(now + DOUBTED_MAX);
            }
        }
        let mut old: Vec<_> = self
            .assumed
            .iter()
            .filter(|(_, assumed)| assumed.until <= now)
            .map(|(uid, _)| uid.clone())
            .collect();
        old.sort_unstable();
        for uid in old {
            self.unassume(&uid);
        }
    }

    /// Builds the snapshot anew, and all that was compiled against it, when most of its strings
    /// are of objects long gone.
    fn renew_snapshot(&mut self, view: &View) {
        let limit = SYMBOLS_MIN.max(self.symbols_at_build * SYMBOLS_GROWTH);
        if self.snapshot.symbols().len() <= limit {
            return;
        }
        let old = std::mem::take(&mut self.snapshot);
        // The order in which nodes are tried stays.
        for index in old.nodes() {
            if let Some(node) = view.get_cluster::<Node>(&old.node(*index).facts.name) {
                self.snapshot.set_node(node);
            }
        }
        for budget in view.list::<PodDisruptionBudget>() {
            self.snapshot.set_budget(budget);
        }
        let mut compiled: FxHashMap<CompactString, Arc<PodInfo>> = FxHashMap::default();
        for pod in view.list::<Pod>() {
            if self.tracked.get(&ObjectKey::of(&pod.metadata)) != Some(&PodInfo::uid_of(pod)) {
                continue;
            }
            let info = self.snapshot.compile(pod);
            let assumed = self.assumed.get(&info.uid).map(|assumed| assumed.node.clone());
            let node = assumed.unwrap_or_else(|| info.node_name.clone());
            if node.is_empty() {
                if let Some(node) = old.nomination(&info.uid) {
                    self.snapshot.nominate(info.clone(), node);
                }
            } else {
                self.snapshot.place(info.clone(), &node);
            }
            compiled.insert(info.uid.clone(), info);
        }
        self.queue.replace(|pod| compiled.get(&pod.uid).cloned());
        for assumed in self.assumed.values_mut() {
            if let Some(info) = compiled.get(&assumed.entry.pod.uid) {
                assumed.entry.pod = info.clone();
            }
        }
        self.returned.retain_mut(|entry| {
            let info = compiled.get(&entry.pod.uid);
            info.is_some_and(|info| {
                entry.pod = info.clone();
                true
            })
        });
        self.symbols_at_build = self.snapshot.symbols().len();
    }

    fn decide(&mut self, entry: Entry, context: &Context<'_>, step: &mut Step) {
        let decision = schedule(&self.snapshot, &entry.pod, &self.profile, &mut self.rotation);
        match decision {
            Decision::Bind(placement) => {
                let pod = entry.pod.clone();
                step.reasons.push(reasons::placed(&pod, &placement, &self.snapshot));
                let node = self.snapshot.node(placement.node).facts.name.clone();
                step.write(Write::Bind {
                    pod: pod.key.clone(),
                    uid: pod.uid.clone(),
                    node: node.clone(),
                });
                self.release_nomination(&pod);
                self.snapshot.place(pod.clone(), &node);
                let until = context.now + ASSUMED_MAX;
                self.assumed.insert(pod.uid.clone(), Assumed { node, until, entry });
            }
            Decision::Unschedulable(answer) => self.turn_down(entry, &answer, context, step),
        }
    }

    fn turn_down(
        &mut self,
        entry: Entry,
        answer: &Unschedulable,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let pod = entry.pod.clone();
        let Context { view, now, .. } = *context;
        let message = answer.message();
        let nominated = match &answer.preemption.nomination {
            Some(nomination) => self.snapshot.node(nomination.node).facts.name.clone(),
            None if answer.preemption.keeps_nomination => pod.nominated_node.clone(),
            None => CompactString::default(),
        };
        if nominated.is_empty() {
            self.release_nomination(&pod);
        }
        step.reasons.push(reasons::refused(&pod, answer, &self.snapshot));
        let Some(object) = view.object(Kind::of::<Pod>(), &pod.key) else { return };
        let component = &self.profile.scheduler_name;
        step.write(writes::failed(object, &message, component));
        step.writes.extend(writes::unschedulable(object, &message, &nominated, now));
        if answer.diagnosis.nodes == 0 {
            self.queue.error(entry, now);
            return;
        }
        self.queue.fail(entry, answer.diagnosis.plugins, now);
        if let Some(nomination) = &answer.preemption.nomination {
            self.make_room(&pod, nomination, context, step);
        }
    }

    /// Evicts the victims, and gives the node to the pod for which they go.
    fn make_room(
        &mut self,
        pod: &Arc<PodInfo>,
        nomination: &Nomination,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let Context { view, now, .. } = *context;
        let component = &self.profile.scheduler_name;
        let node = self.snapshot.node(nomination.node).facts.name.clone();
        for victim in &nomination.victims {
            let object = view.object(Kind::of::<Pod>(), &victim.key);
            let Some(object) = object.filter(|object| object.uid() == victim.uid) else { continue };
            if victim.terminating {
                continue;
            }
            step.writes.extend(writes::disruption_target(object, component, now));
            step.write(Write::Delete(Delete::of(object)));
            step.write(writes::preempted(object, pod, &node, component));
        }
        // Pods of lower priority may fit elsewhere sooner than here.
        for lower in self.snapshot.nominated_below(nomination.node, pod.priority) {
            self.release_nomination(&lower);
            let object = view.object(Kind::of::<Pod>(), &lower.key);
            step.writes.extend(object.and_then(|object| writes::without_nomination(object)));
        }
        self.snapshot.nominate(pod.clone(), &node);
    }

    /// Announces the pods that are now where this scheduler sent them.
    fn announce(&mut self, view: &View, step: &mut Step) {
        for (key, node) in std::mem::take(&mut self.confirmed) {
            if let Some(object) = view.object(Kind::of::<Pod>(), &key) {
                step.write(writes::scheduled(object, &node, &self.profile.scheduler_name));
            }
        }
    }
}

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let (kind, key) = (change.kind(), change.key());
        // The view may be ahead of the change; what it shows is what counts.
        let object = view.object(kind, key);
        let work = if kind == Kind::of::<Pod>() {
            self.observe_pod(key, object.and_then(|object| object.typed::<Pod>()))
        } else if kind == Kind::of::<Node>() {
            self.observe_node(&key.name, object.and_then(|object| object.typed::<Node>()))
        } else if kind == Kind::of::<PodDisruptionBudget>() {
            match object.and_then(|object| object.typed::<PodDisruptionBudget>()) {
                Some(budget) => self.snapshot.set_budget(budget),
                None => self.snapshot.remove_budget(key),
            }
            false
        } else {
            false
        };
        if work {
            queue.now(Self::key());
        }
    }

    fn step(&mut self, _key: &WorkKey, context: &mut Context<'_>) -> Step {
        let mut step = Step { independent: true, ..Step::default() };
        self.renew_snapshot(context.view);
        self.announce(context.view, &mut step);
        self.expire_assumptions(context.now);
        for entry in std::mem::take(&mut self.returned) {
            self.queue.error(entry, context.now);
        }
        for _ in 0..DECISIONS_MAX {
            let Some(entry) = self.queue.pop(context.now) else { break };
            self.decide(entry, context, &mut step);
        }
        let first = self.assumed.values().map(|assumed| assumed.until).min();
        let expiry = first.map(|until| until.since(context.now));
        step.again = self.queue.next(context.now).into_iter().chain(expiry).min();
        step
    }

    fn refused(&mut self, _key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        match write {
            Write::Bind { uid, .. } if may_hide_success(error) => {
                self.doubted.push(uid.clone());
                OnError::Retry
            }
            Write::Bind { uid, .. } if self.unassume(uid) => OnError::Retry,
            // A victim that cannot be evicted: those it was to make room for try again.
            Write::Delete(_) if error.reason != StatusReason::NotFound => {
                let snapshot = &self.snapshot;
                self.queue.wake(|_, pod| snapshot.nomination(&pod.uid).is_some());
                OnError::Retry
            }
            // The pod changed meanwhile: its condition is written at the next try.
            Write::Update { object, .. } if error.reason == StatusReason::Conflict => {
                let uid = object.meta().uid.clone().unwrap_or_default();
                self.queue.wake(|_, pod| pod.uid == uid);
                OnError::Retry
            }
            _ => OnError::Forget,
        }
    }
}

/// Whether a refusal leaves open what has become of the write.
fn may_hide_success(error: &ApiError) -> bool {
    matches!(
        error.reason,
        StatusReason::InternalError | StatusReason::ServiceUnavailable | StatusReason::Timeout
    )
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests;
