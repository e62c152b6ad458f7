//! Pods as the scheduler follows them: pending ones into the queue, those on nodes into the
//! snapshot, and what their coming and going means for others that wait.

use std::collections::BTreeSet;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use wharf_model::object::ObjectKey;
use wharf_scheduler::{
    News, NodeFacts, Plugin, PluginSet, PodInfo, Profile, Snapshot, admits, concerns, wakes,
    wakes_itself,
};

use super::Scheduler;
use super::assumed::AssumedPods;
use super::queue::{Entry, SchedulingQueue, Wake};

impl Scheduler {
    /// Takes in a pod as it is now. Returns whether there is work.
    pub(super) fn observe_pod(&mut self, key: &ObjectKey, pod: Option<&Pod>) -> bool {
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
            work |= self.observe_member(&uid, pod);
            self.track(key, &uid);
            return self.observe_bound(pod, &uid, node) | work;
        }
        let Some(profile) = self.profiles.iter().position(|profile| profile.is_for(pod)) else {
            return self.forget(key, &uid) | work;
        };
        work |= self.observe_member(&uid, pod);
        self.track(key, &uid);
        self.observe_pending(pod, &uid, profile) | work
    }

    fn track(&mut self, key: &ObjectKey, uid: &CompactString) {
        if self.tracked.get(key) != Some(uid) {
            self.tracked.insert(key.clone(), uid.clone());
        }
    }

    /// Drops all that is held of a pod.
    fn forget(&mut self, key: &ObjectKey, uid: &str) -> bool {
        self.tracked.remove(key);
        let was_asked = self.cancel_cycle(uid);
        if let Some(assumed) = self.assumed.remove(uid) {
            self.unreserve(&assumed);
        }
        self.preemptions.end(uid);
        self.forget_member(uid);
        self.forget_awaiting(uid);
        self.queue.remove(uid);
        let mut work = self.release_nomination(uid);
        // Those it went for are free to be tried before they hear that it is gone.
        work |= self.victim_told(uid);
        self.vacate(uid) | work | was_asked
    }

    /// A pod no longer holds its place on a node; others may have it.
    pub(super) fn vacate(&mut self, uid: &str) -> bool {
        match self.snapshot.displace(uid) {
            Some(gone) => self.wake(&News::PodGone(&gone)),
            None => false,
        }
    }

    fn observe_bound(&mut self, pod: &Pod, uid: &CompactString, node: &str) -> bool {
        let known = self.snapshot.placed(uid).cloned();
        let info = self.snapshot.compile_again(pod, known.as_ref());
        self.queue.remove(uid);
        let mut work = self.cancel_cycle(uid);
        work |= self.release_nomination(uid);
        if info.terminating {
            work |= self.victim_told(uid);
        }
        work |= self.confirm(&info.key, uid, node);
        let there = self.snapshot.placement(uid).is_some_and(|there| there.facts.name == node);
        // Most news of a running pod is of its health, which is nothing to the scheduler.
        if there && self.snapshot.placed(uid).is_some_and(|known| **known == *info) {
            return work;
        }
        let old = self.snapshot.displace(uid);
        self.snapshot.place(info.clone(), node);
        let Some(old) = old else { return self.wake(&News::PodPlaced(&info)) | work };
        if !there {
            return self.wake(&News::PodGone(&old)) | self.wake(&News::PodPlaced(&info)) | work;
        }
        if old.amounts != info.amounts {
            work |= self.wake(&News::PodResized { old: &old, new: &info });
        }
        if old.labels != info.labels || old.terminating != info.terminating {
            work |= self.wake(&News::PodChanged { old: &old, new: &info });
        }
        work
    }

    fn observe_pending(&mut self, pod: &Pod, uid: &CompactString, profile: usize) -> bool {
        let known = self.queue.get(uid);
        let info = self.snapshot.compile_again(pod, known);
        if self.assumed.refresh(&info) {
            // A status update on its way past the binding, or a late one from before it.
            return false;
        }
        if info.terminating {
            self.victim_told(&info.uid);
        }
        let work = self.observe_nomination(&info);
        if self.extenders.refresh(&info) || self.groups.refresh(&info) {
            return work;
        }
        if self.queue.get(&info.uid).is_some_and(|known| **known == *info) {
            return work;
        }
        let gate = self.gate(&info, profile);
        self.await_claims(&info, gate);
        let snapshot = &self.snapshot;
        let new = info.clone();
        let woken = |entry: &Entry| {
            if wakes_itself(entry.rejected_by, &entry.pod, &new, snapshot) {
                Wake::AfterBackoff
            } else {
                Wake::No
            }
        };
        self.queue.set(info, profile, gate, woken) | work
    }

    /// PreEnqueue: who keeps a pod out of the queue.
    pub(super) fn gate(&self, pod: &PodInfo, profile: usize) -> Option<Plugin> {
        let plugins = self.profiles[profile].pre_enqueue;
        if plugins.contains(Plugin::SchedulingGates) && !admits(pod) {
            return Some(Plugin::SchedulingGates);
        }
        if plugins.contains(Plugin::DynamicResources) && self.snapshot.missing_claim(pod).is_some()
        {
            return Some(Plugin::DynamicResources);
        }
        let incomplete =
            plugins.contains(Plugin::GangScheduling) && self.groups.keeps_out(&pod.uid);
        incomplete.then_some(Plugin::GangScheduling)
    }

    /// Follows `status.nominatedNodeName`, whoever set it. A pod without one may have a nomination
    /// all the same: its status is on its way.
    pub(super) fn observe_nomination(&mut self, pod: &Arc<PodInfo>) -> bool {
        let known = self.queue.get(&pod.uid).map(|known| known.nominated_node.as_str());
        let mut work = false;
        if known.unwrap_or_default() != pod.nominated_node
            && self.snapshot.nomination(&pod.uid).unwrap_or_default() != pod.nominated_node
        {
            work = self.release_nomination(&pod.uid);
        }
        if !pod.nominated_node.is_empty() {
            self.snapshot.nominate(pod.clone(), &pod.nominated_node);
        }
        work
    }

    /// Gives up the room that was being made for a pod: others of at most its priority may have
    /// it, as if a pod had gone.
    pub(super) fn release_nomination(&mut self, uid: &str) -> bool {
        let Some(pod) = self.snapshot.withdraw_nomination(uid) else { return false };
        let news = News::PodGone(&pod);
        self.wake_those(&news, |other| other.uid != pod.uid && other.priority <= pod.priority)
    }

    /// Wakes those whom the news could help. Returns whether there were any.
    pub(super) fn wake(&mut self, news: &News<'_>) -> bool {
        self.wake_those(news, |_| true)
    }

    fn wake_those(&mut self, news: &News<'_>, whom: impl Fn(&PodInfo) -> bool) -> bool {
        self.hear();
        let Self { snapshot, profiles, assumed, queue, .. } = self;
        spread(news, whom, snapshot, profiles, assumed, queue)
    }

    /// The same, besides some of them.
    pub(super) fn wake_besides(&mut self, gone: &PodInfo, deaf: &BTreeSet<CompactString>) -> bool {
        self.wake_those(&News::PodGone(gone), |pod| !deaf.contains(&pod.uid))
    }

    /// Something happened: pods whose cycle is open may have to be tried once more.
    fn hear(&mut self) {
        self.extenders.hear();
        self.groups.hear();
    }

    /// Ends a pod's cycle without a decision. Returns whether others have waited for that.
    fn cancel_cycle(&mut self, uid: &str) -> bool {
        self.groups.cancel(uid);
        self.extenders.cancel(uid)
    }

    /// Tells of a node that is new or changed.
    pub(super) fn wake_by_node(&mut self, name: &str, old: Option<&NodeFacts>) -> bool {
        self.hear();
        let Self { snapshot, profiles, assumed, queue, .. } = self;
        let Some(new) = snapshot.node_named(name) else { return false };
        spread(&News::Node { old, new }, |_| true, snapshot, profiles, assumed, queue)
    }
}

/// Tells news to the pods that wait, and notes it for those that may be turned down yet.
fn spread(
    news: &News<'_>,
    whom: impl Fn(&PodInfo) -> bool,
    snapshot: &Snapshot,
    profiles: &[Profile],
    assumed: &mut AssumedPods,
    queue: &mut SchedulingQueue,
) -> bool {
    if assumed.any_waiting() {
        assumed.note(|assumed| {
            let pod = &assumed.entry.pod;
            let profile = &profiles[assumed.entry.profile];
            let late = late_rejectors(profile).filter(|_| whom(pod)).map(PluginSet::from);
            late.map(|by| (by, means(by, PluginSet::default(), pod, profile, news, snapshot)))
                .filter(|(_, wake)| *wake != Wake::No)
                .collect()
        });
    }
    // Extenders do not say what they wait for.
    let mut concerned = concerns(news);
    concerned.insert(Plugin::Extender);
    if !queue.has_sleepers_of(concerned) {
        return false;
    }
    queue.wake(event_name(news), |entry| {
        if !whom(&entry.pod) {
            return Wake::No;
        }
        let profile = &profiles[entry.profile];
        means(entry.rejected_by, entry.pending_by, &entry.pod, profile, news, snapshot)
    })
}

/// What upstream calls the event.
fn event_name(news: &News<'_>) -> &'static str {
    match news {
        News::Node { old: None, .. } => "NodeAdd",
        News::Node { old: Some(_), .. } => "NodeUpdate",
        News::PodPlaced(_) => "AssignedPodAdd",
        News::PodGone(_) => "AssignedPodDelete",
        News::PodResized { .. } => "AssignedPodUpdate",
        News::Storage(_) => "StorageChange",
        _ => "ClusterChange",
    }
}

/// What news means for a pod that these plugins turned down.
fn means(
    by: PluginSet,
    pending: PluginSet,
    pod: &PodInfo,
    profile: &Profile,
    news: &News<'_>,
    snapshot: &Snapshot,
) -> Wake {
    if !pending.is_empty() && wakes(pending, pod, news, snapshot) {
        return Wake::Now;
    }
    // Nobody but the extender knows what it waits for. And a node that lacks a resource may take
    // the pod all the same where the profile leaves that resource to others.
    let unknown = by.contains(Plugin::Extender)
        || (profile.arguments.ignores_resources()
            && by.contains(Plugin::NodeResourcesFit)
            && matches!(news, News::Node { .. }));
    if unknown || wakes(by, pod, news, snapshot) { Wake::AfterBackoff } else { Wake::No }
}

/// The plugins that may turn a pod down once it has a node.
fn late_rejectors(profile: &Profile) -> impl Iterator<Item = Plugin> {
    let listed = profile.reserve.iter().chain(&profile.permit).chain(&profile.pre_bind);
    PluginSet::from_iter(listed.copied()).iter()
}

/// Whether a pod has ended: it holds nothing any more.
pub(super) fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
