//! The scheduler's controller: keeps the core's snapshot and queue up to date with the cluster,
//! asks the core, and turns its decisions into bindings, conditions, Events and reasons.
//!
//! A pod that was sent to a node counts there at once (it is *assumed*) and until the cluster
//! shows it bound or refuses the binding. Everything held here is made from the view, object by
//! object, and goes with the object it was made from.
//!
//! `feed` and `pods` take the cluster in; `queue` says who is next; `cycle` decides and carries
//! out, with what plugins do between decision and binding in `reserve`, and what programs beside the
//! scheduler say in `extenders`.

mod assumed;
mod cycle;
mod devices;
mod extenders;
mod feed;
mod gang;
mod metrics;
mod pods;
mod queue;
mod reasons;
mod renew;
pub mod reserve;
mod storage;
mod volumes;
pub(crate) mod writes;

pub use feed::snapshot_of;
pub use metrics::SchedulerMetrics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use rustc_hash::FxHashMap;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::extender::ExtenderAnswer;
use wharf_ports::view::View;
use wharf_scheduler::config::Configuration;
use wharf_scheduler::{Memo, PodInfo, Profile, Rotation, Snapshot};

use assumed::{AssumedPods, may_hide_success};
use cycle::Preemptions;
use devices::DeviceBinder;
use extenders::Extenders;
use gang::Groups;
use metrics::Sizes;
use queue::{Backoff, Entry, SchedulingQueue, Wake};
use reserve::{Reserver, WriteOutcome};
use volumes::VolumeBinder;

/// The one key: a scheduling round.
const ROUND: &str = "round";
/// Decisions in one step. Large enough that a burst of pods takes few steps, small enough that
/// other controllers get their turn.
const DECISIONS_MAX: usize = 64;

/// What the scheduler looks at: what upstream's roles for it (`system:kube-scheduler` and
/// `system:volume-scheduler`) allow it to list and watch, and pod groups.
const READS: &[(&str, &str)] = &[
    ("", "namespaces"),
    ("", "nodes"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "replicationcontrollers"),
    ("", "services"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("policy", "poddisruptionbudgets"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceslices"),
    ("scheduling.k8s.io", "podgroups"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "csistoragecapacities"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
];

/// The scheduler's controller.
#[derive(Debug)]
pub struct Scheduler {
    /// The profiles; all share the queue and the rotation.
    profiles: Vec<Profile>,
    /// What nodes have answered, by profile.
    memos: Vec<Memo>,
    snapshot: Snapshot,
    rotation: Rotation,
    queue: SchedulingQueue,
    /// The uid of every pod that is held here in any form.
    tracked: FxHashMap<ObjectKey, CompactString>,
    assumed: AssumedPods,
    /// Plugins with a part between decision and binding.
    reservers: Vec<Box<dyn Reserver>>,
    /// Pods in PreBind that something has happened to.
    touched: BTreeSet<CompactString>,
    preemptions: Preemptions,
    groups: Groups,
    /// Pods kept out of the queue (by uid) until a claim on devices is there.
    awaiting_claims: BTreeMap<ObjectKey, BTreeSet<CompactString>>,
    extenders: Extenders,
    /// Bindings that were answered with an error, and whether that means that the pod is not bound.
    failed_bindings: Vec<(CompactString, String, bool)>,
    /// Pods now seen on the node this scheduler chose, to be announced.
    confirmed: Vec<Confirmed>,
    /// How many cycles were begun.
    cycles: u64,
    /// How many strings the snapshot had when it was built.
    symbols_at_build: usize,
    metrics: Arc<SchedulerMetrics>,
}

/// A pod now seen on the node this scheduler chose.
#[derive(Debug)]
struct Confirmed {
    key: ObjectKey,
    entry: Entry,
    node: CompactString,
    /// When its binding was asked for.
    since: Time,
}

impl Default for Scheduler {
    /// With upstream's defaults.
    fn default() -> Self {
        Self::new(Configuration::default())
    }
}

impl Scheduler {
    /// A scheduler for the pods of the configured profiles.
    pub fn new(configuration: impl Into<Configuration>) -> Self {
        let configuration = configuration.into();
        let backoff = Backoff {
            first: configuration.pod_initial_backoff,
            max: configuration.pod_max_backoff,
        };
        let mut snapshot = Snapshot::new();
        let mut profiles = configuration.profiles;
        for profile in &mut profiles {
            snapshot.compile_profile(profile);
        }
        let names = profiles.iter().map(|profile| profile.scheduler_name.to_string()).collect();
        Self {
            memos: profiles.iter().map(|_| Memo::new()).collect(),
            profiles,
            snapshot,
            rotation: Rotation::default(),
            queue: SchedulingQueue::new(backoff),
            tracked: FxHashMap::default(),
            assumed: AssumedPods::default(),
            reservers: vec![Box::new(VolumeBinder::default()), Box::new(DeviceBinder::default())],
            touched: BTreeSet::new(),
            preemptions: Preemptions::default(),
            groups: Groups::default(),
            awaiting_claims: BTreeMap::new(),
            extenders: Extenders::new(configuration.extenders),
            failed_bindings: Vec::new(),
            confirmed: Vec::new(),
            cycles: 0,
            symbols_at_build: 0,
            metrics: Arc::new(SchedulerMetrics::new(names)),
        }
    }

    /// The same with a plugin's part between decision and binding. It takes part in the profiles
    /// that have the plugin enabled there, in place of the part that the plugin has otherwise.
    #[must_use]
    pub fn with_reserver(mut self, reserver: Box<dyn Reserver>) -> Self {
        self.reservers.retain(|known| known.plugin() != reserver.plugin());
        self.reservers.push(reserver);
        self
    }

    /// What it tells of its work.
    pub fn metrics(&self) -> Arc<SchedulerMetrics> {
        Arc::clone(&self.metrics)
    }

    fn key() -> WorkKey {
        WorkKey::singleton(ROUND)
    }

    /// The name under which a profile's pods are scheduled.
    fn name_of(&self, profile: usize) -> &CompactString {
        &self.profiles[profile].scheduler_name
    }

    /// The pod as the view has it, if it is still the same pod.
    fn object_of<'v>(&self, pod: &PodInfo, view: &'v View) -> Option<&'v Arc<Object>> {
        let object = view.object(Kind::of::<Pod>(), &pod.key)?;
        let uid = object.typed::<Pod>().map(PodInfo::uid_of);
        uid.is_some_and(|uid| uid == pod.uid).then_some(object)
    }
}

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(READS)
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let (kind, key) = (change.kind(), change.key());
        let begun = self.metrics.clock();
        if self.feed(kind, key, view) | self.touch(kind, key) | self.is_unsettled() {
            queue.now(Self::key());
        }
        if self.metrics.has_clock() {
            let took = self.metrics.clock().saturating_sub(begun);
            self.metrics.heard(feed::event_name(change), took);
        }
    }

    fn answered(&mut self, answer: &ExtenderAnswer, queue: &mut Enqueue) {
        self.extenders.keep(answer.clone());
        queue.now(Self::key());
    }

    fn step(&mut self, _key: &WorkKey, context: &mut Context<'_>) -> Step {
        let mut step = Step { independent: true, ..Step::default() };
        self.renew_snapshot(context.view);
        self.settle(context, &mut step);
        self.announce(context.view, context.now, &mut step);
        self.take_answers(context, &mut step);
        self.end_assumptions(context, &mut step);
        self.go_on_with_touched(context, &mut step);
        // The pod it was asked about may have gone.
        self.go_on_with_group(context, &mut step);
        for _ in 0..DECISIONS_MAX {
            // As upstream's, it waits for extenders; what comes next is an answer.
            if self.is_open() {
                break;
            }
            let Some(entry) = self.queue.pop(context.now) else { break };
            self.decide(entry, context, &mut step);
        }
        self.settle(context, &mut step);
        let (depth, assumed) = (self.queue.depth(), self.assumed.len());
        let (nodes, pods) = (self.snapshot.nodes().len(), self.snapshot.pod_count());
        let sizes = Sizes { nodes, pods, assumed };
        self.metrics.stand(depth, sizes, self.queue.incoming(), self.queue.turned_down());
        let settled = self.reservers.iter().filter_map(|it| it.settles_at()).min();
        let end = self.assumed.first_end().into_iter().chain(settled).min();
        let end = end.map(|end| end.since(context.now));
        let next = self.queue.next(context.now).filter(|_| !self.is_open());
        step.again = next.into_iter().chain(end).min();
        step
    }

    fn done(
        &mut self,
        _key: &WorkKey,
        write: &Write,
        left: Option<&Arc<Object>>,
        queue: &mut Enqueue,
    ) {
        let outcome = WriteOutcome::Done(left.map(|object| object.revision()));
        if self.written(write, outcome) {
            queue.now(Self::key());
        }
    }

    fn refused(&mut self, _key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        let doubted = may_hide_success(error);
        let outcome = if doubted { WriteOutcome::Doubted } else { WriteOutcome::Refused };
        let awaited = self.written(write, outcome);
        match write {
            Write::Bind { uid, .. } => {
                let certain = !may_hide_success(error);
                self.failed_bindings.push((uid.clone(), error.to_string(), certain));
                OnError::Retry
            }
            Write::Delete(delete) if error.reason != StatusReason::NotFound => {
                self.victim_stays(delete.uid.as_deref().unwrap_or_default());
                OnError::Retry
            }
            // The victim is gone by itself.
            Write::Delete(delete) => {
                self.victim_told(delete.uid.as_deref().unwrap_or_default());
                OnError::Retry
            }
            // The pod changed meanwhile: its condition is written at the next try.
            Write::Update { object, .. }
                if object.kind() == Kind::of::<Pod>() && error.reason == StatusReason::Conflict =>
            {
                let uid = object.meta().uid.clone().unwrap_or_default();
                self.queue.wake_one(&uid, "ForceActivate", Wake::AfterBackoff);
                self.touch(object.kind(), &ObjectKey::of(object.meta()));
                OnError::Retry
            }
            // Somebody else changed what a plugin was to change: it looks again.
            Write::Update { object, .. } | Write::Create(object) => {
                let key = ObjectKey::of(object.meta());
                let touched = self.touch(object.kind(), &key) | awaited;
                if touched { OnError::Retry } else { OnError::Forget }
            }
            _ => OnError::Forget,
        }
    }
}

#[cfg(test)]
mod tests;
