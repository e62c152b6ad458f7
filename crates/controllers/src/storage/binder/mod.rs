//! The PersistentVolume controller: binds claims to volumes, asks for volumes to be made, tells
//! their phases, and gives volumes back whose claim is gone.
//!
//! Follows <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#lifecycle-of-a-volume-and-claim>.
//! Binding is two writes, first the volume's, then the claim's; each carries the version it was
//! made from, so that of two claims that want one volume the second is refused and looks again.
//! Upstream repeats what it says of a pending claim every 15 s; here it is said once.

mod claim;
mod matching;
#[cfg(test)]
mod tests;
mod volume;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_ports::cluster::{Change, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;

use super::usage;

pub(super) use claim::reference;

const COMPONENT: &str = "persistentvolume-controller";

/// The PersistentVolume controller.
#[derive(Debug, Default)]
pub(super) struct VolumeBinder {
    /// Claims without a volume, with what was last said of each.
    pending: BTreeMap<ObjectKey, String>,
    users: usage::Users,
    /// Claims with the volume each was last bound to, as it was before: until the view shows what
    /// has become of it, nobody else is given the volume, and the claim no other.
    binding: BTreeMap<ObjectKey, Seen>,
    /// Volumes by the claim they name.
    volumes: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

/// A version of a volume.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    name: Option<String>,
    version: Option<String>,
}

impl Seen {
    fn of(volume: &PersistentVolume) -> Self {
        let meta = &volume.metadata;
        Self { name: meta.name.clone(), version: meta.resource_version.clone() }
    }
}

impl VolumeBinder {
    fn claim(&self, key: &ObjectKey, queue: &mut Enqueue) {
        queue.now(WorkKey::object(Kind::of::<PersistentVolumeClaim>(), key));
    }

    fn volumes_of(&self, claim: &ObjectKey, queue: &mut Enqueue) {
        for volume in self.volumes.get(claim).into_iter().flatten() {
            queue.now(WorkKey::object(Kind::of::<PersistentVolume>(), volume));
        }
    }

    fn observe_claim(&mut self, change: &Change, queue: &mut Enqueue) {
        let key = change.key();
        let claim = change.new.as_ref().and_then(|new| new.typed::<PersistentVolumeClaim>());
        match claim {
            Some(claim) if volume_name(claim).is_none() => {
                self.pending.entry(key.clone()).or_default();
            }
            _ => {
                self.pending.remove(key);
            }
        }
        self.claim(key, queue);
        self.volumes_of(key, queue);
        if let Some(volume) = claim.and_then(volume_name) {
            queue.now(WorkKey::object(Kind::of::<PersistentVolume>(), &ObjectKey::cluster(volume)));
        }
    }

    fn observe_volume(&mut self, change: &Change, queue: &mut Enqueue) {
        let key = change.key();
        self.binding.retain(|_, seen| seen.name.as_deref() != Some(key.name.as_str()));
        let claim_of = |version: Option<&std::sync::Arc<wharf_model::object::Object>>| {
            let volume = version?.typed::<PersistentVolume>()?;
            matching::claimed(volume).map(|(claim, _)| claim)
        };
        let (before, after) = (claim_of(change.old.as_ref()), claim_of(change.new.as_ref()));
        if before != after
            && let Some(claim) = &before
            && let Some(volumes) = self.volumes.get_mut(claim)
        {
            volumes.remove(key);
            if volumes.is_empty() {
                self.volumes.remove(claim);
            }
        }
        if let Some(claim) = &after {
            self.volumes.entry(claim.clone()).or_default().insert(key.clone());
        }
        queue.now(WorkKey::object(change.kind(), key));
        for claim in before.iter().chain(&after) {
            self.claim(claim, queue);
        }
        if after.is_none() && change.new.is_some() {
            // It may be what a claim has been waiting for.
            for claim in self.pending.keys() {
                self.claim(claim, queue);
            }
        }
    }
}

impl Controller for VolumeBinder {
    fn name(&self) -> &'static str {
        "persistentvolume-binder-controller"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        self.users.observe(change);
        if kind == Kind::of::<PersistentVolumeClaim>() {
            self.observe_claim(change, queue);
        } else if kind == Kind::of::<PersistentVolume>() {
            self.observe_volume(change, queue);
        } else if kind == Kind::of::<StorageClass>() {
            for claim in self.pending.keys() {
                self.claim(claim, queue);
            }
        } else if kind == Kind::of::<Pod>() && !self.pending.is_empty() {
            for claim in usage::claims(change.object()) {
                if self.pending.contains_key(&claim) {
                    self.claim(&claim, queue);
                }
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        if key.kind == Some(Kind::of::<PersistentVolume>()) {
            return volume::sync(&key.key, context);
        }
        claim::sync(&key.key, self, context)
    }

    fn refused(&mut self, key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        self.binding.remove(&key.key);
        if error.reason == StatusReason::NotFound { OnError::Forget } else { OnError::Retry }
    }
}

/// The volume that a claim is bound to, or asks for.
fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}
