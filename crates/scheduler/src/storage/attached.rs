//! Which volumes are attached to a node, as far as its drivers' limits count them: each once,
//! however many pods use it.

use std::sync::OnceLock;

use compact_str::CompactString;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::Storage;
use super::objects::{NodeDrivers, Source};
use super::pod::{ClaimKey, Disk, PodVolumes};
use crate::node::NodeInfo;
use crate::symbols::Symbol;

/// A volume as a driver's limit counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum VolumeId {
    /// One that there is.
    Handle { driver: Symbol, handle: Symbol },
    /// One that is yet to be made for a claim.
    Claimed { driver: Symbol, claim: ClaimKey },
}

impl VolumeId {
    pub(crate) fn driver(self) -> Symbol {
        match self {
            Self::Handle { driver, .. } | Self::Claimed { driver, .. } => driver,
        }
    }
}

/// What is known of the volumes of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeVolumes {
    pub(crate) drivers: Option<NodeDrivers>,
    /// The names of the VolumeAttachments of the node.
    attachments: SmallVec<[CompactString; 0]>,
    /// What its pods and attachments amount to. Counted when first asked for, and again after a
    /// change.
    pub(crate) attached: OnceLock<Attached>,
}

/// Volumes attached to a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Attached {
    volumes: FxHashSet<VolumeId>,
    counts: SmallVec<[(Symbol, i64); 1]>,
}

/// A VolumeAttachment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Attachment {
    pub(crate) node: Symbol,
    pub(crate) driver: Symbol,
    pub(crate) volume: Symbol,
}

impl Attached {
    fn insert(&mut self, volume: VolumeId) {
        if self.volumes.insert(volume) {
            let driver = volume.driver();
            match self.counts.iter_mut().find(|(known, _)| *known == driver) {
                Some((_, count)) => *count += 1,
                None => self.counts.push((driver, 1)),
            }
        }
    }

    fn count(&self, driver: Symbol) -> i64 {
        self.counts.iter().find(|(known, _)| *known == driver).map_or(0, |(_, count)| *count)
    }
}

impl NodeVolumes {
    /// How many uses of volumes by pods are within every limit of the node, whatever they are of.
    pub(crate) fn room(&self) -> u32 {
        let limits = self.drivers.iter().flat_map(|drivers| &drivers.limits);
        let Some(tightest) = limits.map(|(_, limit)| *limit).min() else { return u32::MAX };
        let room = tightest.max(0).saturating_sub(self.attachments.len() as i64);
        u32::try_from(room.max(0)).unwrap_or(u32::MAX)
    }
}

impl Storage {
    /// How many uses of volumes are within every limit of a node.
    pub(crate) fn room_on(&self, node: Symbol) -> u32 {
        self.nodes.get(&node).map_or(u32::MAX, NodeVolumes::room)
    }

    /// The volumes that a pod's use of claims and disks comes down to on a node that has migrated
    /// in-tree EBS volumes, or has not. Volumes without a driver do not count.
    pub(crate) fn volume_ids(
        &self,
        volumes: &PodVolumes,
        migrated: bool,
    ) -> SmallVec<[VolumeId; 2]> {
        let claimed = volumes.claims.iter().filter_map(|used| self.volume_id(used.key, migrated));
        let disks = volumes.disks.iter().filter_map(|disk| match disk {
            Disk::Ebs { handle, .. } if migrated => {
                Some(VolumeId::Handle { driver: self.keys.ebs_driver, handle: (*handle)? })
            }
            _ => None,
        });
        let mut ids: SmallVec<[VolumeId; 2]> = claimed.chain(disks).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn volume_id(&self, claim: ClaimKey, migrated: bool) -> Option<VolumeId> {
        let known = self.claims.get(&claim)?;
        if let Some(volume) = self.volumes.get(&known.volume) {
            return match volume.source {
                Source::Csi { driver, handle } => Some(VolumeId::Handle { driver, handle }),
                Source::Ebs { driver, handle } if migrated => {
                    Some(VolumeId::Handle { driver, handle: handle? })
                }
                _ => None,
            };
        }
        // A claim without a volume is counted for the driver that will make one.
        let class = self.classes.get(&known.class)?;
        match class.migrated_to {
            Some(driver) => migrated.then_some(VolumeId::Claimed { driver, claim }),
            None => Some(VolumeId::Claimed { driver: class.provisioner, claim }),
        }
    }

    /// Whether a node attaches in-tree EBS volumes through the CSI driver.
    pub(crate) fn ebs_migrated(&self, node: Symbol) -> bool {
        self.nodes
            .get(&node)
            .and_then(|node| node.drivers.as_ref())
            .is_some_and(|drivers| drivers.ebs_migrated)
    }

    /// Whether attaching volumes to a node would exceed a driver's limit: `plain` are those of a
    /// pod where in-tree volumes are not migrated, `migrated` where they are. `trial` says that the
    /// node is not as the snapshot has it.
    pub(crate) fn exceeds_limit(
        &self,
        node: &NodeInfo,
        plain: &[VolumeId],
        migrated: &[VolumeId],
        trial: bool,
    ) -> bool {
        // Volumes are only looked at one by one where it could be too many.
        let more = u32::try_from(migrated.len()).unwrap_or(u32::MAX);
        if node.volume_uses.saturating_add(more) <= node.volume_room {
            return false;
        }
        let Some(known) = self.nodes.get(&node.facts.symbol) else { return false };
        let Some(drivers) = known.drivers.as_ref() else { return false };
        let new = if drivers.ebs_migrated { migrated } else { plain };
        if drivers.limits.iter().all(|(driver, _)| new.iter().all(|id| id.driver() != *driver)) {
            return false;
        }
        let fresh;
        let attached = if trial {
            fresh = self.count_attached(node, known, drivers.ebs_migrated);
            &fresh
        } else {
            known.attached.get_or_init(|| self.count_attached(node, known, drivers.ebs_migrated))
        };
        drivers.limits.iter().any(|(driver, limit)| {
            let of_driver = new.iter().filter(|id| id.driver() == *driver);
            let more = of_driver.filter(|id| !attached.volumes.contains(id)).count();
            more > 0 && attached.count(*driver) + more as i64 > *limit
        })
    }

    fn count_attached(&self, node: &NodeInfo, known: &NodeVolumes, migrated: bool) -> Attached {
        let mut attached = Attached::default();
        for volumes in node.pods.iter().filter_map(|pod| pod.volumes.as_deref()) {
            for volume in self.volume_ids(volumes, migrated) {
                attached.insert(volume);
            }
        }
        for name in &known.attachments {
            let Some(attachment) = self.attachments.get(name) else { continue };
            let Some(volume) = self.volumes.get(&attachment.volume) else { continue };
            if let Source::Csi { handle, .. } = volume.source {
                attached.insert(VolumeId::Handle { driver: attachment.driver, handle });
            }
        }
        attached
    }

    pub(crate) fn attach(&mut self, name: &str, attachment: Attachment) {
        let node = self.nodes.entry(attachment.node).or_default();
        node.attached.take();
        node.attachments.push(name.into());
        self.attachments.insert(name.into(), attachment);
    }

    pub(crate) fn detach(&mut self, name: &str) -> Option<Symbol> {
        let attachment = self.attachments.remove(name)?;
        if let Some(node) = self.nodes.get_mut(&attachment.node) {
            node.attached.take();
            node.attachments.retain(|known| known != name);
        }
        Some(attachment.node)
    }

    /// Has a node's volumes counted again.
    pub(crate) fn forget_attached(&mut self, node: Symbol) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.attached.take();
        }
    }

    pub(crate) fn forget_all_attached(&mut self) {
        for node in self.nodes.values_mut() {
            node.attached.take();
        }
    }

    pub(crate) fn forget_attached_of_claim(&mut self, claim: ClaimKey) {
        for (node, _) in self.users.get(&claim).into_iter().flatten() {
            if let Some(node) = self.nodes.get_mut(node) {
                node.attached.take();
            }
        }
    }

    pub(crate) fn forget_attached_of_volume(&mut self, volume: Symbol) {
        for claim in self.bound_to.get(&volume).cloned().unwrap_or_default() {
            self.forget_attached_of_claim(claim);
        }
        // A volume is news to few nodes, and attachments without a pod are rare.
        if !self.attachments.is_empty() {
            for attachment in self.attachments.values() {
                if attachment.volume == volume
                    && let Some(node) = self.nodes.get_mut(&attachment.node)
                {
                    node.attached.take();
                }
            }
        }
    }
}
