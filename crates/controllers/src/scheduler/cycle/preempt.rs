//! Making room: the pods that go for another, and the other's waiting until they have been told.
//!
//! As with upstream's asynchronous preemption, the pod for which room is made is not tried again
//! before all its victims are being deleted, and the last of them is deleted after the others: so
//! the event that wakes it does not come too early.

use std::collections::BTreeSet;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use rustc_hash::FxHashMap;
use wharf_model::kinds::Kind;
use wharf_ports::cluster::{Delete, Write};
use wharf_ports::controller::{Context, Step};
use wharf_scheduler::{Plugin, PodInfo};

use super::super::assumed::Stage;
use super::super::queue::Wake;
use super::super::reserve::Refusal;
use super::super::{Scheduler, writes};
use super::Room;

/// Which pods go for which.
#[derive(Debug, Default)]
pub(in super::super) struct Preemptions {
    /// The victims that have not been told yet, by the uid of the pod they go for.
    untold: FxHashMap<CompactString, BTreeSet<CompactString>>,
    /// The pods a victim goes for, by its uid.
    beneficiaries: FxHashMap<CompactString, BTreeSet<CompactString>>,
}

impl Preemptions {
    fn begin(&mut self, pod: &CompactString, victims: BTreeSet<CompactString>) {
        self.end(pod);
        for victim in &victims {
            self.beneficiaries.entry(victim.clone()).or_default().insert(pod.clone());
        }
        self.untold.insert(pod.clone(), victims);
    }

    /// Forgets that pods go for this one.
    pub(in super::super) fn end(&mut self, pod: &str) {
        for victim in self.untold.remove(pod).unwrap_or_default() {
            if let Some(pods) = self.beneficiaries.get_mut(&victim) {
                pods.remove(pod);
                if pods.is_empty() {
                    self.beneficiaries.remove(&victim);
                }
            }
        }
    }

    /// A victim has been told, or is gone. Returns the pods that need not wait any longer.
    fn told(&mut self, victim: &str) -> Vec<CompactString> {
        let mut free = Vec::new();
        for pod in self.beneficiaries.remove(victim).unwrap_or_default() {
            if let Some(victims) = self.untold.get_mut(&pod) {
                victims.remove(victim);
                if victims.is_empty() {
                    self.untold.remove(&pod);
                    free.push(pod);
                }
            }
        }
        free
    }

    /// The pods for which this one goes.
    fn beneficiaries(&self, victim: &str) -> Vec<CompactString> {
        self.beneficiaries.get(victim).into_iter().flatten().cloned().collect()
    }

    /// Whether nothing is under way, so that nobody need be asked.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.untold.is_empty()
    }
}

impl Scheduler {
    /// Evicts the victims, and gives the node to the pod for which they go.
    pub(in super::super) fn make_room(
        &mut self,
        pod: &Arc<PodInfo>,
        profile: usize,
        room: &Room,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let Context { view, now, .. } = *context;
        let component = self.name_of(profile).clone();
        let Room { node, victims, .. } = room;
        self.snapshot.nominate(pod.clone(), node);
        self.metrics.preempted(victims.len());
        let mut told = BTreeSet::new();
        for victim in victims {
            let object = view.object(Kind::of::<Pod>(), &victim.key);
            let Some(object) = object.filter(|object| object.uid() == victim.uid) else { continue };
            // One of the pod's own group may have lost its place since.
            let placed = self.snapshot.placement(&victim.uid);
            if victim.terminating || placed.is_none_or(|placed| placed.facts.name != *node) {
                continue;
            }
            if self.assumed.get(&victim.uid).is_some_and(|it| it.stage != Stage::Binding)
                && let Some(assumed) = self.assumed.remove(&victim.uid)
            {
                // It has not been bound: its place is simply taken back.
                step.write(writes::preempted(object, pod, node, true, &component));
                let refusal = Refusal::Rejected("preempted".to_owned());
                let by = Plugin::DefaultPreemption;
                self.take_back(assumed, by, "Permit", refusal, context, step);
                continue;
            }
            step.writes.extend(writes::disruption_target(object, &component, now));
            step.write(Write::Delete(Delete::of(object)));
            step.write(writes::preempted(object, pod, node, false, &component));
            told.insert(victim.uid.clone());
        }
        // Pods of lower priority may fit elsewhere sooner than here.
        let index = self.snapshot.find(node);
        let below = index.map(|index| self.snapshot.nominated_below(index, pod.priority));
        for lower in below.unwrap_or_default() {
            self.release_nomination(&lower.uid);
            let object = self.object_of(&lower, view);
            step.writes.extend(object.and_then(|object| writes::without_nomination(object)));
        }
        if told.is_empty() {
            // Whoever was in the way has only been on its way there.
            if victims.iter().all(|victim| !victim.terminating) {
                self.queue.wake_one(&pod.uid, "ForceActivate", Wake::AfterBackoff);
            }
        } else {
            self.queue.hold(&pod.uid);
            self.preemptions.begin(&pod.uid, told);
        }
    }

    /// A pod is being deleted or is gone: those it goes for need not be held for its sake. Returns
    /// whether one of them is to be tried.
    pub(in super::super) fn victim_told(&mut self, uid: &str) -> bool {
        if self.preemptions.is_empty() {
            return false;
        }
        let mut work = false;
        for pod in self.preemptions.told(uid) {
            work |= self.queue.release(&pod);
        }
        work
    }

    /// A victim could not be deleted: those it was to go for are tried again.
    pub(in super::super) fn victim_stays(&mut self, uid: &str) -> bool {
        let mut work = false;
        for pod in self.preemptions.beneficiaries(uid) {
            self.preemptions.end(&pod);
            self.queue.release(&pod);
            work |= self.queue.wake_one(&pod, "ForceActivate", Wake::Now);
        }
        work
    }
}
