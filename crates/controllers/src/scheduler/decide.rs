//! One pod's decision carried out: sent to a node, or turned down with its reasons, and room made
//! for it where evictions can.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use wharf_model::kinds::Kind;
use wharf_ports::cluster::{Delete, Write};
use wharf_ports::controller::{Context, Step};
use wharf_scheduler::{Decision, Nomination, PodInfo, Unschedulable, schedule};

use super::assumed::{ASSUMED_MAX, Assumed};
use super::queue::Entry;
use super::{Scheduler, reasons, writes};

impl Scheduler {
    pub(super) fn decide(&mut self, entry: Entry, context: &Context<'_>, step: &mut Step) {
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

    pub(super) fn turn_down(
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
    pub(super) fn make_room(
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
}
