//! VolumeRestrictions: disks that only one pod of a node may use, and claims that only one pod of
//! the cluster may use.

use smallvec::SmallVec;

use super::{Code, PreFilterRejection, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::profile::Plugin;
use crate::snapshot::Snapshot;
use crate::storage::{ClaimKey, Disk, StorageNews};

const REASON_DISK: &str = "node(s) had no available disk";
const REASON_ONE_POD: &str = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";

const ONE_POD: u64 = 1;

pub(crate) fn reason(detail: u64) -> &'static str {
    if detail == ONE_POD { REASON_ONE_POD } else { REASON_DISK }
}

#[derive(Clone)]
pub(crate) struct State<'a> {
    disks: &'a [Disk],
    /// The pod's claims that only one pod may use.
    for_one_pod: SmallVec<[ClaimKey; 1]>,
    /// How many uses by other pods stand in the way.
    conflicts: i64,
}

impl<'a> State<'a> {
    /// PreFilter: a claim has to exist for its access mode to be known.
    pub(crate) fn new(
        pod: &'a PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<Self>, PreFilterRejection> {
        let Some(volumes) = pod.volumes.as_deref() else { return Ok(None) };
        let mut for_one_pod = SmallVec::new();
        for used in volumes.claims.iter().filter(|used| !used.ephemeral) {
            let Some(claim) = snapshot.storage.claim(used.key) else {
                let name = snapshot.symbols().text(used.key.1);
                return Err(PreFilterRejection {
                    plugin: Plugin::VolumeRestrictions,
                    code: Code::UnschedulableAndUnresolvable,
                    message: format!("persistentvolumeclaim {name:?} not found").into(),
                });
            };
            if claim.modes.for_one_pod() && !for_one_pod.contains(&used.key) {
                for_one_pod.push(used.key);
            }
        }
        let in_use = for_one_pod.iter().filter(|claim| snapshot.storage.in_use(**claim));
        let conflicts = in_use.count() as i64;
        // Upstream skips the plugin otherwise, so that a nominated pod's use of the claim does not
        // count.
        let speaks = !volumes.disks.is_empty() || conflicts > 0;
        Ok(speaks.then(|| Self { disks: &volumes.disks, for_one_pod, conflicts }))
    }

    pub(crate) fn check(&self, node: &NodeInfo) -> Option<Rejection> {
        let code = Code::Unschedulable;
        if !self.disks.is_empty() && node.pods.iter().any(|pod| conflict(self.disks, pod)) {
            return Rejection::new(Plugin::VolumeRestrictions, code);
        }
        (self.conflicts > 0).then_some(Rejection {
            plugin: Plugin::VolumeRestrictions,
            code,
            detail: ONE_POD,
        })
    }

    pub(crate) fn pod_added(&mut self, pod: &PodInfo) {
        self.conflicts += self.uses(pod);
    }

    pub(crate) fn pod_removed(&mut self, pod: &PodInfo) {
        self.conflicts -= self.uses(pod);
    }

    /// How many of a pod's uses of claims stand in the way.
    fn uses(&self, pod: &PodInfo) -> i64 {
        let claims = pod.volumes.iter().flat_map(|volumes| &volumes.claims);
        let in_the_way =
            claims.filter(|used| !used.ephemeral && self.for_one_pod.contains(&used.key));
        in_the_way.count() as i64
    }
}

fn conflict(disks: &[Disk], pod: &PodInfo) -> bool {
    let held = pod.volumes.iter().flat_map(|volumes| &volumes.disks);
    held.into_iter().any(|held| disks.iter().any(|disk| disk.conflicts_with(held)))
}

/// A pod of the namespace went that used one of the pod's disks or claims.
pub(crate) fn wakes_on_pod_gone(pod: &PodInfo, gone: &PodInfo) -> bool {
    let (Some(own), Some(others)) = (pod.volumes.as_deref(), gone.volumes.as_deref()) else {
        return false;
    };
    // Unlike upstream's hint also across namespaces, where a disk can be shared as well.
    conflict(&own.disks, gone) || own.claims.iter().any(|used| others.uses(used.key))
}

/// The claim it waited for has come.
pub(crate) fn wakes_on_storage(pod: &PodInfo, news: &StorageNews) -> bool {
    pod.volumes.as_deref().is_some_and(|volumes| news.is_new_claim_of(volumes))
}
