//! What of a pod's volumes scheduling looks at: the claims it uses, and the disks it mounts without
//! one that only so many pods may share.

use k8s_openapi::api::core::v1::{Pod, Volume};
use smallvec::SmallVec;

use super::migration::ebs_handle;
use crate::symbols::{Symbol, Symbols};

/// Namespace and name of a claim.
pub(crate) type ClaimKey = (Symbol, Symbol);

/// The volumes of a pod that scheduling looks at. Most pods have none, and then there is no such
/// value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodVolumes {
    /// The claims, in the order of the pod's volumes.
    pub(crate) claims: SmallVec<[ClaimUse; 1]>,
    /// Disks mounted without a claim.
    pub(crate) disks: SmallVec<[Disk; 0]>,
}

/// A pod's use of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClaimUse {
    pub(crate) key: ClaimKey,
    /// Whether the claim is made for this pod from a template in it.
    pub(crate) ephemeral: bool,
}

/// A disk that is mounted without a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    Gce { name: Symbol, read_only: bool },
    Ebs { volume: Symbol, handle: Option<Symbol> },
    Iscsi { name: Symbol, read_only: bool },
    Rbd { monitors: SmallVec<[Symbol; 3]>, pool: Symbol, image: Symbol, read_only: bool },
}

impl PodVolumes {
    /// Compiles a pod's volumes; `None` if none of them matters.
    pub(crate) fn new(pod: &Pod, symbols: &mut Symbols) -> Option<Box<Self>> {
        let volumes = pod.spec.as_ref()?.volumes.as_deref()?;
        let mut compiled = Self::default();
        for volume in volumes {
            if let Some(claim) = ClaimUse::new(pod, volume, symbols) {
                compiled.claims.push(claim);
            } else if let Some(disk) = Disk::new(volume, symbols) {
                compiled.disks.push(disk);
            }
        }
        let matters = !(compiled.claims.is_empty() && compiled.disks.is_empty());
        matters.then(|| Box::new(compiled))
    }

    /// How many volumes there are, each use counted.
    pub(crate) fn uses_in_all(&self) -> u32 {
        (self.claims.len() + self.disks.len()) as u32
    }

    /// Whether the pod uses a claim.
    pub(crate) fn uses(&self, claim: ClaimKey) -> bool {
        self.claims.iter().any(|used| used.key == claim)
    }
}

impl ClaimUse {
    fn new(pod: &Pod, volume: &Volume, symbols: &mut Symbols) -> Option<Self> {
        let (name, ephemeral) = match &volume.persistent_volume_claim {
            Some(source) => (symbols.intern(&source.claim_name), false),
            None => {
                volume.ephemeral.as_ref()?;
                let pod = pod.metadata.name.as_deref().unwrap_or_default();
                (symbols.intern(&format!("{pod}-{}", volume.name)), true)
            }
        };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        Some(Self { key: (symbols.intern(namespace), name), ephemeral })
    }
}

impl Disk {
    fn new(volume: &Volume, symbols: &mut Symbols) -> Option<Self> {
        if let Some(disk) = &volume.gce_persistent_disk {
            let read_only = disk.read_only == Some(true);
            return Some(Self::Gce { name: symbols.intern(&disk.pd_name), read_only });
        }
        if let Some(disk) = &volume.aws_elastic_block_store {
            let handle = ebs_handle(&disk.volume_id).map(|handle| symbols.intern(handle));
            let volume = symbols.intern(&disk.volume_id);
            return Some(Self::Ebs { volume, handle });
        }
        if let Some(disk) = &volume.iscsi {
            let read_only = disk.read_only == Some(true);
            return Some(Self::Iscsi { name: symbols.intern(&disk.iqn), read_only });
        }
        let disk = volume.rbd.as_ref()?;
        Some(Self::Rbd {
            monitors: disk.monitors.iter().map(|monitor| symbols.intern(monitor)).collect(),
            // The API fills the pool in.
            pool: symbols.intern(disk.pool.as_deref().unwrap_or("rbd")),
            image: symbols.intern(&disk.image),
            read_only: disk.read_only == Some(true),
        })
    }

    /// Whether two pods with these disks cannot share a node. All but EBS volumes may be shared by
    /// pods that only read.
    pub(crate) fn conflicts_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Gce { name, read_only }, Self::Gce { name: held, read_only: other_reads })
            | (
                Self::Iscsi { name, read_only },
                Self::Iscsi { name: held, read_only: other_reads },
            ) => name == held && !(*read_only && *other_reads),
            (Self::Ebs { volume, .. }, Self::Ebs { volume: held, .. }) => volume == held,
            (
                Self::Rbd { monitors, pool, image, read_only },
                Self::Rbd {
                    monitors: other_monitors,
                    pool: other_pool,
                    image: other_image,
                    read_only: other_reads,
                },
            ) => {
                monitors.iter().any(|monitor| other_monitors.contains(monitor))
                    && pool == other_pool
                    && image == other_image
                    && !(*read_only && *other_reads)
            }
            _ => false,
        }
    }
}
