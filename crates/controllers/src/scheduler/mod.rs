//! The scheduler's controller: keeps the core's snapshot and queue up to date with the cluster,
//! asks the core, and turns its decisions into bindings, conditions, Events and reasons.
//!
//! A pod that was sent to a node counts there at once (it is *assumed*) and until the cluster
//! shows it bound or refuses the binding. Everything held here is made from the view, object by
//! object, and goes with the object it was made from.

mod assumed;
mod decide;
mod feed;
mod pods;
mod queue;
mod reasons;
mod renew;
mod writes;

pub use feed::snapshot_of;

use compact_str::CompactString;
use rustc_hash::FxHashMap;
use wharf_model::object::ObjectKey;
use wharf_ports::cluster::{Change, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;
use wharf_scheduler::{Profile, Rotation, Snapshot};

use assumed::{Assumed, may_hide_success};
use queue::{Entry, SchedulingQueue};

/// The one key: a scheduling round.
const ROUND: &str = "round";
/// Decisions in one step. Large enough that a burst of pods takes few steps, small enough that
/// other controllers get their turn.
const DECISIONS_MAX: usize = 64;

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

impl Scheduler {
    /// A scheduler for the pods of one profile.
    pub fn new(profile: Profile) -> Self {
        Self { profile, ..Self::default() }
    }

    fn key() -> WorkKey {
        WorkKey::singleton(ROUND)
    }
}

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        if self.feed(change.kind(), change.key(), view) {
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

#[cfg(test)]
mod tests;
