//! What a change of a storage object may mean for pods that wait: upstream's events, cut down to
//! what its queueing hints ask of them.

use super::pod::{ClaimKey, PodVolumes};

/// A change of a storage object that may help a pod that was turned down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageNews {
    /// A claim came or changed.
    Claim {
        /// Which one.
        claim: ClaimKey,
        /// Whether it is new.
        added: bool,
    },
    /// A volume came or changed.
    Volume {
        /// Whether it is new, or its zone or region labels changed.
        moved: bool,
    },
    /// A storage class came, or what it allows changed.
    Class {
        /// Whether it is new and its claims wait for their first pod.
        new_and_waits: bool,
    },
    /// What a node's drivers can attach came or changed.
    NodeDrivers {
        /// Whether a limit was raised.
        raised: bool,
        /// Whether in-tree volumes are now known under another name.
        migration_changed: bool,
    },
    /// The room of a driver is no longer looked at.
    CapacityIgnored,
    /// There is more room for volumes of a class somewhere.
    CapacityRaised,
    /// A volume was detached from a node.
    Detached,
    /// What was set aside for a pod on its way to a node is free again, or bound.
    GivenBack,
}

impl StorageNews {
    /// A new claim that the pod uses: what ends the wait for a missing one.
    pub(crate) fn is_new_claim_of(&self, volumes: &PodVolumes) -> bool {
        matches!(self, Self::Claim { claim, added: true } if volumes.uses(*claim))
    }

    /// A claim that the pod uses, new or changed.
    pub(crate) fn is_claim_of(&self, volumes: &PodVolumes) -> bool {
        matches!(self, Self::Claim { claim, .. } if volumes.uses(*claim))
    }
}
