//! VolumeZone: a volume labelled with zone or region is attached only to nodes labelled alike.

use smallvec::SmallVec;

use super::{Code, PreFilterRejection, Rejection};
use crate::node::{NodeFacts, NodeInfo};
use crate::pod::PodInfo;
use crate::profile::Plugin;
use crate::snapshot::Snapshot;
use crate::storage::{BindingMode, StorageNews, Volume};
use crate::symbols::{Symbol, label};

pub(crate) const REASON: &str = "node(s) had no available volume zone";

#[derive(Clone)]
pub(crate) struct State<'a> {
    snapshot: &'a Snapshot,
    /// The volumes with zone or region labels.
    volumes: SmallVec<[&'a Volume; 1]>,
}

impl<'a> State<'a> {
    pub(crate) fn new(
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
    ) -> Result<Option<Self>, PreFilterRejection> {
        let Some(used) = pod.volumes.as_deref() else { return Ok(None) };
        let mut volumes = SmallVec::new();
        for used in used.claims.iter().filter(|used| !used.ephemeral) {
            match labelled(used.key, snapshot) {
                Ok(volume) => volumes.extend(volume.filter(|volume| !volume.topology.is_empty())),
                Err(message) => {
                    return Err(PreFilterRejection {
                        plugin: Plugin::VolumeZone,
                        code: Code::UnschedulableAndUnresolvable,
                        message: message.into(),
                    });
                }
            }
        }
        Ok((!volumes.is_empty()).then_some(Self { snapshot, volumes }))
    }

    pub(crate) fn check(&self, node: &NodeInfo) -> Option<Rejection> {
        let labels = &node.facts.labels;
        let elsewhere = self.volumes.iter().flat_map(|volume| &volume.topology).any(|topology| {
            let [key, present] = topology.keys;
            let value = label(labels, key).or_else(|| label(labels, present));
            value.is_none_or(|value| !topology.values.contains(&value))
        });
        // A node without any such label is in a cluster of one zone.
        let keys = &self.snapshot.storage.keys().topology;
        if !elsewhere || keys.iter().all(|key| label(labels, *key).is_none()) {
            return None;
        }
        Rejection::new(Plugin::VolumeZone, Code::UnschedulableAndUnresolvable)
    }
}

/// The volume of a claim; `None` for a claim that waits for the pod's node.
fn labelled(claim: (Symbol, Symbol), snapshot: &Snapshot) -> Result<Option<&Volume>, String> {
    let storage = &snapshot.storage;
    let text = |symbol: Symbol| snapshot.symbols().text(symbol);
    let Some(claim) = storage.claim(claim) else {
        return Err(format!("persistentvolumeclaim {:?} not found", text(claim.1)));
    };
    if claim.volume != Symbol::EMPTY {
        return match storage.volume(claim.volume) {
            Some(volume) => Ok(Some(volume)),
            None => Err(format!("persistentvolume {:?} not found", text(claim.volume))),
        };
    }
    if claim.class == Symbol::EMPTY {
        return Err("PersistentVolumeClaim had no pv name and storageClass name".to_owned());
    }
    let name = text(claim.class);
    let Some(class) = storage.class(claim.class) else {
        return Err(format!("storageclass.storage.k8s.io {name:?} not found"));
    };
    match class.mode {
        BindingMode::WaitForFirstConsumer => Ok(None),
        BindingMode::Unset => Err(format!("VolumeBindingMode not set for StorageClass {name:?}")),
        BindingMode::Immediate => Err("PersistentVolume had no name".to_owned()),
    }
}

/// A node is new or has other labels.
pub(crate) fn wakes_on_node(old: Option<&NodeFacts>, new: &NodeFacts) -> bool {
    old.is_none_or(|old| old.labels != new.labels)
}

/// Its claims have changed, or a class or volume it may have waited for has come or moved.
pub(crate) fn wakes_on_storage(pod: &PodInfo, news: &StorageNews) -> bool {
    match news {
        StorageNews::Volume { moved } => *moved,
        StorageNews::Class { new_and_waits } => *new_and_waits,
        news => pod.volumes.as_deref().is_some_and(|volumes| news.is_claim_of(volumes)),
    }
}
