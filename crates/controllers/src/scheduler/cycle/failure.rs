//! Pods that are turned down: what is written of them, and where they wait.

use compact_str::CompactString;
use wharf_ports::controller::{Context, Step};
use wharf_scheduler::PluginSet;

use super::super::queue::{Entry, Wake};
use super::super::writes::Verdict;
use super::super::{Scheduler, devices, reasons, writes};
use super::Refused;

impl Scheduler {
    /// No node will take the pod.
    pub(in super::super) fn turn_down(
        &mut self,
        entry: Entry,
        refused: &Refused,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let pod = entry.pod.clone();
        let profile = entry.profile;
        let nominated = match &refused.room {
            Some(room) => room.node.clone(),
            None if refused.keeps_nomination() => pod.nominated_node.clone(),
            None => CompactString::default(),
        };
        step.reasons.push(reasons::refused(&pod, refused));
        let verdict = Verdict::Unschedulable(refused.message());
        if !self.write_verdict(&entry, &verdict, &nominated, context, step) {
            return;
        }
        if refused.is_without_nodes() {
            self.queue.error(entry, context.now);
            return;
        }
        if let Some(claim) = refused.deallocate() {
            step.writes.extend(devices::deallocate(claim, context.view));
        }
        self.queue.fail(entry, refused.plugins(), Wake::No, context.now);
        if let Some(room) = &refused.room {
            self.make_room(&pod, profile, room, context, step);
        }
    }

    /// A plugin turned the pod down after its node had been chosen.
    pub(in super::super) fn reject(
        &mut self,
        entry: Entry,
        by: PluginSet,
        message: &str,
        wake: Wake,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        // The one node that was asked by then.
        let message = format!("0/1 nodes are available: 1 {message}.");
        step.reasons.push(reasons::rejected(&entry.pod, by, &message));
        let verdict = Verdict::Unschedulable(message);
        if self.write_verdict(&entry, &verdict, "", context, step) {
            self.queue.fail(entry, by, wake, context.now);
        }
    }

    /// Something went wrong.
    pub(in super::super) fn fail_with_error(
        &mut self,
        entry: Entry,
        message: &str,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        step.reasons.push(reasons::rejected(&entry.pod, PluginSet::default(), message));
        let verdict = Verdict::Error(message.to_owned());
        if self.write_verdict(&entry, &verdict, "", context, step) {
            self.queue.error(entry, context.now);
        }
    }

    /// Writes the event and the condition. Returns whether there is such a pod that still waits.
    fn write_verdict(
        &mut self,
        entry: &Entry,
        verdict: &Verdict,
        nominated: &str,
        context: &Context<'_>,
        step: &mut Step,
    ) -> bool {
        if nominated.is_empty() {
            self.release_nomination(&entry.pod.uid);
        }
        let Some(object) = self.object_of(&entry.pod, context.view) else { return false };
        step.write(writes::failed(object, verdict.message(), self.name_of(entry.profile)));
        step.writes.extend(writes::verdict(object, verdict, nominated, context.now));
        true
    }
}
