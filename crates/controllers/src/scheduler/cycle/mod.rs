//! One pod's scheduling cycle: decided, then on its way to a node (`binding`) or turned down
//! (`failure`), with room made for it where evictions can (`preempt`).

mod binding;
mod failure;
mod preempt;

use wharf_ports::controller::{Context, Step};
use wharf_scheduler::{Decision, News, Placement, schedule_with};

use super::assumed::Assumed;
use super::queue::Entry;
use super::{Scheduler, reasons, writes};

pub(super) use preempt::Preemptions;

impl Scheduler {
    /// Decides about a pod that was taken from the queue.
    pub(super) fn decide(&mut self, entry: Entry, context: &Context<'_>, step: &mut Step) {
        if entry.pod.terminating {
            self.skip(&entry, context, step);
            return;
        }
        let profile = &self.profiles[entry.profile];
        let memo = &mut self.memos[entry.profile];
        match schedule_with(memo, &self.snapshot, &entry.pod, profile, &mut self.rotation) {
            Decision::Bind(placement) => self.place(entry, &placement, context, step),
            Decision::Unschedulable(answer) => self.turn_down(entry, &answer, context, step),
        }
    }

    /// A pod that is being deleted needs no node. It is forgotten until it changes.
    fn skip(&self, entry: &Entry, context: &Context<'_>, step: &mut Step) {
        if let Some(object) = self.object_of(&entry.pod, context.view) {
            let message = format!("skip schedule deleting pod: {}", entry.pod.key);
            step.write(writes::failed(object, &message, self.name_of(entry.profile)));
        }
    }

    /// A node has been found.
    fn place(
        &mut self,
        entry: Entry,
        placement: &Placement,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        step.reasons.push(reasons::placed(&entry.pod, placement, &self.snapshot));
        let node = self.snapshot.node(placement.node).facts.name.clone();
        self.release_nomination(&entry.pod);
        self.snapshot.place(entry.pod.clone(), &node);
        self.wake(&News::PodPlaced(&entry.pod));
        let assumed = Assumed::new(entry, node, context.now);
        if let Some(assumed) = self.reserve(assumed, context, step) {
            self.go_on(assumed, context, step);
        }
    }
}
