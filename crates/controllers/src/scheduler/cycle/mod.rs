//! One pod's scheduling cycle: decided, then on its way to a node (`binding`) or turned down
//! (`failure`), with room made for it where evictions can (`preempt`).

mod binding;
mod failure;
mod preempt;

use std::time::Duration;

use wharf_ports::controller::{Context, Step};
use wharf_scheduler::{Decision, News, Placement, schedule_with};

use super::assumed::Assumed;
use super::metrics::Outcome;
use super::queue::Entry;
use super::{Scheduler, reasons, writes};

pub(super) use preempt::Preemptions;

impl Scheduler {
    /// Decides about a pod that was taken from the queue.
    pub(super) fn decide(&mut self, entry: Entry, context: &Context<'_>, step: &mut Step) {
        if self.goes_in_a_group(&entry) {
            self.decide_group(entry, context, step);
            return;
        }
        if entry.pod.terminating {
            self.skip(&entry, context, step);
            return;
        }
        if self.extenders.concern(&entry.pod) {
            self.ask_extenders(entry, true, context, step);
            return;
        }
        let profile = &self.profiles[entry.profile];
        let memo = &mut self.memos[entry.profile];
        let start = self.metrics.clock();
        let decision = schedule_with(memo, &self.snapshot, &entry.pod, profile, &mut self.rotation);
        let took = self.metrics.clock().saturating_sub(start);
        self.metrics.algorithm(took);
        self.carry_out(entry, decision, took, context, step);
    }

    /// Sends a pod where it was decided that it goes, or turns it down.
    pub(super) fn carry_out(
        &mut self,
        entry: Entry,
        decision: Decision,
        took: Duration,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        match decision {
            Decision::Bind(placement) => {
                if let Some(assumed) = self.assume(entry, &placement, took, context, step) {
                    self.wake(&News::PodPlaced(&assumed.entry.pod));
                    self.go_on(assumed, context, step);
                }
            }
            Decision::Unschedulable(answer) => {
                self.metrics.attempt(entry.profile, Outcome::Unschedulable, took);
                self.turn_down(entry, &answer, context, step);
            }
        }
    }

    /// A pod that is being deleted needs no node. It is forgotten until it changes.
    pub(super) fn skip(&self, entry: &Entry, context: &Context<'_>, step: &mut Step) {
        if let Some(object) = self.object_of(&entry.pod, context.view) {
            let message = format!("skip schedule deleting pod: {}", entry.pod.key);
            step.write(writes::failed(object, &message, self.name_of(entry.profile)));
        }
    }

    /// A node has been found: it counts the pod, and plugins set aside what the pod needs. `None` if
    /// one of them refuses.
    pub(super) fn assume(
        &mut self,
        entry: Entry,
        placement: &Placement,
        took: Duration,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Option<Assumed> {
        step.reasons.push(reasons::placed(&entry.pod, placement, &self.snapshot));
        let node = self.snapshot.node(placement.node).facts.name.clone();
        self.release_nomination(&entry.pod);
        self.snapshot.place(entry.pod.clone(), &node);
        self.reserve(Assumed::new(entry, node, took, context.now), context, step)
    }
}
