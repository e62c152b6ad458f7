//! NodeVolumeLimits: a driver attaches only so many volumes to a node.

use smallvec::SmallVec;

use super::{Code, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::profile::Plugin;
use crate::snapshot::{NodeIndex, Snapshot};
use crate::storage::VolumeId;

pub(crate) const REASON: &str = "node(s) exceed max volume count";

#[derive(Clone)]
pub(crate) struct State<'a> {
    snapshot: &'a Snapshot,
    /// The pod's volumes where in-tree ones are not migrated, and where they are.
    plain: SmallVec<[VolumeId; 2]>,
    migrated: SmallVec<[VolumeId; 2]>,
    /// Nodes that a trial has changed.
    trials: SmallVec<[NodeIndex; 1]>,
}

impl<'a> State<'a> {
    pub(crate) fn new(pod: &PodInfo, snapshot: &'a Snapshot) -> Option<Self> {
        let volumes = pod.volumes.as_deref()?;
        let storage = &snapshot.storage;
        let migrated = storage.volume_ids(volumes, true);
        if migrated.is_empty() {
            return None;
        }
        let plain = storage.volume_ids(volumes, false);
        Some(Self { snapshot, plain, migrated, trials: SmallVec::new() })
    }

    pub(crate) fn check(&self, index: NodeIndex, node: &NodeInfo) -> Option<Rejection> {
        let trial = self.trials.contains(&index);
        if !self.snapshot.storage.exceeds_limit(node, &self.plain, &self.migrated, trial) {
            return None;
        }
        Rejection::new(Plugin::NodeVolumeLimits, Code::Unschedulable)
    }

    /// A trial has put a pod on a node, or taken one off it.
    pub(crate) fn node_changed(&mut self, index: NodeIndex) {
        if !self.trials.contains(&index) {
            self.trials.push(index);
        }
    }

    /// Takes back what trials have changed.
    pub(crate) fn undo(&mut self) {
        self.trials.clear();
    }
}

/// A pod with volumes went.
pub(crate) fn wakes_on_pod_gone(gone: &PodInfo) -> bool {
    gone.volumes.is_some()
}
