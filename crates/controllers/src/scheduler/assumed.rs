//! Assumed pods: sent to a node, and counted there until the cluster shows them bound or refuses
//! the binding.

use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use wharf_model::kinds::Kind;
use wharf_model::time::Time;
use wharf_ports::controller::Step;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;
use wharf_scheduler::News;

use super::queue::Entry;
use super::{Scheduler, writes};

/// How long an assumption stands without word from the cluster. Its writes always have an outcome;
/// this is for adapters that lose one.
pub(super) const ASSUMED_MAX: Duration = Duration::from_secs(300);
/// How long it stands when the answer to its binding leaves open whether the pod was bound: a
/// server error may hide a success, and giving the room away would overcommit the node.
const DOUBTED_MAX: Duration = Duration::from_secs(5);

/// A pod sent to a node, as long as the cluster does not show it there.
#[derive(Clone, Debug)]
pub(super) struct Assumed {
    pub(super) node: CompactString,
    pub(super) until: Time,
    pub(super) entry: Entry,
}

impl Scheduler {
    /// Takes an assumption back; the pod is queued again at the next step.
    pub(super) fn unassume(&mut self, uid: &str) -> bool {
        let Some(assumed) = self.assumed.remove(uid) else { return false };
        if let Some(gone) = self.snapshot.displace(uid) {
            self.wake(&News::PodGone(&gone));
        }
        self.returned.push(assumed.entry);
        true
    }

    pub(super) fn expire_assumptions(&mut self, now: Time) {
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

    /// Announces the pods that are now where this scheduler sent them.
    pub(super) fn announce(&mut self, view: &View, step: &mut Step) {
        for (key, node) in std::mem::take(&mut self.confirmed) {
            if let Some(object) = view.object(Kind::of::<Pod>(), &key) {
                step.write(writes::scheduled(object, &node, &self.profile.scheduler_name));
            }
        }
    }
}

/// Whether a refusal leaves open what has become of the write.
pub(super) fn may_hide_success(error: &ApiError) -> bool {
    matches!(
        error.reason,
        StatusReason::InternalError | StatusReason::ServiceUnavailable | StatusReason::Timeout
    )
}
