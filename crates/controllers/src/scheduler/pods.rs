//! Pods as the scheduler follows them: pending ones into the queue, those on nodes into the
//! snapshot, and what their coming and going means for others that wait.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use wharf_model::object::ObjectKey;
use wharf_scheduler::{News, PodInfo, wakes, wakes_itself};

use super::Scheduler;

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
    pub(super) fn forget(&mut self, key: &ObjectKey, uid: &str) -> bool {
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

    pub(super) fn observe_bound(&mut self, pod: &Pod, node: &str) -> bool {
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

    pub(super) fn observe_pending(&mut self, pod: &Pod) -> bool {
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
    pub(super) fn observe_nomination(&mut self, pod: &Arc<PodInfo>) -> bool {
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
    pub(super) fn release_nomination(&mut self, pod: &PodInfo) -> bool {
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
}

/// Whether a pod has ended: it holds nothing any more.
pub(super) fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
