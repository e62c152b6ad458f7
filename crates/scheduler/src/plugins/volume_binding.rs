//! VolumeBinding: a pod goes where its bound volumes are, where free ones fit its claims, or where
//! new ones can be made. What it takes is set aside at Reserve
//! ([`crate::Snapshot::reserve_volumes`]).

use std::borrow::Cow;

use super::{Code, PreFilterRejection, Rejection};
use crate::node::{NodeFacts, NodeInfo};
use crate::pod::PodInfo;
use crate::profile::Plugin;
use crate::snapshot::Snapshot;
use crate::storage::{Needs, StorageNews, Unreachable, find};

const REASONS: [(u64, &str); 4] = [
    (Unreachable::AFFINITY, "node(s) didn't match PersistentVolume's node affinity"),
    (Unreachable::NO_MATCH, "node(s) didn't find available persistent volumes to bind"),
    (Unreachable::NO_SPACE, "node(s) did not have enough free storage"),
    (
        Unreachable::NO_VOLUME,
        "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
    ),
];

pub(crate) fn reasons(detail: u64) -> Vec<Cow<'static, str>> {
    let given = REASONS.into_iter().filter(|(bit, _)| detail & bit != 0);
    given.map(|(_, reason)| reason.into()).collect()
}

#[derive(Clone)]
pub(crate) struct State<'a> {
    snapshot: &'a Snapshot,
    needs: Needs<'a>,
}

impl<'a> State<'a> {
    pub(crate) fn new(
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
    ) -> Result<Option<Self>, PreFilterRejection> {
        let Some(volumes) = pod.volumes.as_deref() else { return Ok(None) };
        match Needs::of(pod, volumes, snapshot) {
            Ok(needs) => Ok(needs.map(|needs| Self { snapshot, needs })),
            Err(message) => Err(PreFilterRejection {
                plugin: Plugin::VolumeBinding,
                code: Code::UnschedulableAndUnresolvable,
                message: message.into(),
            }),
        }
    }

    pub(crate) fn check(&self, node: &NodeInfo) -> Option<Rejection> {
        let symbols = self.snapshot.symbols();
        let Unreachable(detail) = find(&self.needs, node, &self.snapshot.storage, symbols).err()?;
        let code = Code::UnschedulableAndUnresolvable;
        Some(Rejection { plugin: Plugin::VolumeBinding, code, detail })
    }
}

/// A node is new or has other labels.
pub(crate) fn wakes_on_node(old: Option<&NodeFacts>, new: &NodeFacts) -> bool {
    old.is_none_or(|old| old.labels != new.labels)
}

/// A pod with claims gave its place up before it was bound: what was set aside for it is free.
/// (Upstream leaves this to chance.)
pub(crate) fn wakes_on_pod_gone(gone: &PodInfo) -> bool {
    gone.node_name.is_empty() && gone.volumes.as_ref().is_some_and(|it| !it.claims.is_empty())
}

/// Its claims, or what they may be bound to, have changed.
pub(crate) fn wakes_on_storage(pod: &PodInfo, news: &StorageNews) -> bool {
    match news {
        StorageNews::Claim { .. } => {
            pod.volumes.as_deref().is_some_and(|volumes| news.is_claim_of(volumes))
        }
        StorageNews::Volume { .. }
        | StorageNews::Class { .. }
        | StorageNews::CapacityIgnored
        | StorageNews::CapacityRaised
        | StorageNews::GivenBack => true,
        StorageNews::NodeDrivers { migration_changed, .. } => *migration_changed,
        StorageNews::Detached => false,
    }
}
