//! Volumes as decisions see them: claims, volumes, classes, drivers and their limits, with what is
//! set aside for pods that are on their way to a node. Kept up to date piece by piece, like the
//! rest of the snapshot; a pod without volumes never looks in here.
//!
//! Rules are kube-scheduler 1.36's (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/>).
//! Of the in-tree plugins only EBS is known under its CSI driver's name.

mod attached;
mod binding;
mod migration;
mod news;
mod objects;
mod pod;

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use wharf_model::labels;
use wharf_model::object::ObjectKey;

pub(crate) use attached::VolumeId;
pub(crate) use binding::{Needs, Unreachable, find};
pub use binding::{NoLongerFits, VolumePlan};
pub use news::StorageNews;
pub(crate) use objects::{
    BindingMode, Capacity, Claim, Class, NodeDrivers, TOPOLOGY_LABELS, Volume,
};
pub use pod::PodVolumes;
pub(crate) use pod::{ClaimKey, Disk};

use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::symbols::{Symbol, Symbols};

/// Everything known of volumes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Storage {
    claims: FxHashMap<ClaimKey, Arc<Claim>>,
    volumes: FxHashMap<Symbol, Arc<Volume>>,
    classes: FxHashMap<Symbol, Arc<Class>>,
    /// Drivers that tell how much room they have, by name.
    telling_capacity: FxHashMap<Symbol, bool>,
    capacities: BTreeMap<ObjectKey, Capacity>,
    nodes: FxHashMap<Symbol, attached::NodeVolumes>,
    attachments: FxHashMap<CompactString, attached::Attachment>,
    /// The volumes that any claim of a class may take, by class.
    available: FxHashMap<Symbol, Available>,
    /// The volumes kept for or bound to a claim, or set aside for it, in the order of names.
    kept_for: FxHashMap<ClaimKey, Vec<Arc<Volume>>>,
    /// The claims that name a volume.
    bound_to: FxHashMap<Symbol, Vec<ClaimKey>>,
    /// The nodes with pods that use a claim, one entry per pod; and whether the claim was made for
    /// the pod.
    users: FxHashMap<ClaimKey, Vec<(Symbol, bool)>>,
    /// What is set aside for pods on their way to a node, by uid.
    reserved: FxHashMap<CompactString, Reservation>,
    volumes_set_aside: FxHashMap<Symbol, (ClaimKey, u32)>,
    claims_set_aside: FxHashMap<ClaimKey, (Symbol, u32)>,
    keys: Keys,
}

/// Volumes of a class that are free, by size and name.
type BySize = BTreeMap<(i64, CompactString), Arc<Volume>>;

/// The free volumes of a class.
#[derive(Clone, Debug, Default, PartialEq)]
struct Available {
    anywhere: BySize,
    /// Those that only hosts of a name reach.
    on_host: FxHashMap<Symbol, BySize>,
}

/// What is set aside for one pod.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reservation {
    volumes: SmallVec<[Symbol; 1]>,
    claims: SmallVec<[ClaimKey; 1]>,
}

/// Label keys that are looked up for every node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Keys {
    hostname: Symbol,
    /// The name of the CSI driver for EBS.
    ebs_driver: Symbol,
    /// The zone and region labels.
    pub(crate) topology: [Symbol; 4],
}

impl Default for Keys {
    fn default() -> Self {
        Self { hostname: Symbol::EMPTY, ebs_driver: Symbol::EMPTY, topology: [Symbol::EMPTY; 4] }
    }
}

impl Snapshot {
    /// Takes in a claim as it is now. Like the other setters of storage objects it tells what pods
    /// that wait may hope for, if there is anything.
    pub fn set_claim(&mut self, claim: &PersistentVolumeClaim) -> Option<StorageNews> {
        let claim = Arc::new(Claim::new(claim, &mut self.symbols));
        let storage = &mut self.storage;
        let old = storage.claims.insert(claim.key, claim.clone());
        if old.as_ref() == Some(&claim) {
            return None;
        }
        if let Some(old) = &old {
            storage.leave_volume(old);
        }
        if claim.volume != Symbol::EMPTY {
            storage.bound_to.entry(claim.volume).or_default().push(claim.key);
        }
        storage.forget_attached_of_claim(claim.key);
        Some(StorageNews::Claim { claim: claim.key, added: old.is_none() })
    }

    /// Forgets a claim.
    pub fn remove_claim(&mut self, key: &ObjectKey) {
        let key = self.claim_key(key);
        if let Some(old) = self.storage.claims.remove(&key) {
            self.storage.leave_volume(&old);
            self.storage.forget_attached_of_claim(key);
        }
    }

    /// Takes in a volume as it is now.
    pub fn set_volume(&mut self, volume: &PersistentVolume) -> Option<StorageNews> {
        let volume = Arc::new(Volume::new(volume, &mut self.symbols));
        let storage = &mut self.storage;
        storage.keys = Keys::new(&mut self.symbols);
        let old = storage.volumes.get(&volume.symbol).cloned();
        if old.as_ref() == Some(&volume) {
            return None;
        }
        if let Some(old) = &old {
            storage.leave_indexes(old);
        }
        storage.volumes.insert(volume.symbol, volume.clone());
        storage.join_indexes(&volume);
        storage.forget_attached_of_volume(volume.symbol);
        Some(StorageNews::Volume {
            moved: old.as_ref().is_none_or(|old| old.topology != volume.topology),
        })
    }

    /// Forgets a volume.
    pub fn remove_volume(&mut self, name: &str) {
        let symbol = self.symbols.intern(name);
        if let Some(old) = self.storage.volumes.remove(&symbol) {
            self.storage.leave_indexes(&old);
            self.storage.forget_attached_of_volume(symbol);
        }
    }

    /// Takes in a storage class as it is now.
    pub fn set_storage_class(&mut self, class: &StorageClass) -> Option<StorageNews> {
        let name = self.symbols.intern(class.metadata.name.as_deref().unwrap_or_default());
        let class = Arc::new(Class::new(class, &mut self.symbols));
        let old = self.storage.classes.insert(name, class.clone());
        if old.as_ref() == Some(&class) {
            return None;
        }
        self.storage.forget_all_attached();
        // Only what it allows can be changed; but one that was deleted and made anew may look like
        // that.
        let waits = class.mode == BindingMode::WaitForFirstConsumer;
        let new = old.is_none_or(|old| old.mode != class.mode);
        Some(StorageNews::Class { new_and_waits: new && waits })
    }

    /// Forgets a storage class.
    pub fn remove_storage_class(&mut self, name: &str) {
        let name = self.symbols.intern(name);
        if self.storage.classes.remove(&name).is_some() {
            self.storage.forget_all_attached();
        }
    }

    /// Takes in what a node's drivers can attach.
    pub fn set_csi_node(&mut self, node: &CSINode) -> Option<StorageNews> {
        let name = self.symbols.intern(node.metadata.name.as_deref().unwrap_or_default());
        let drivers = NodeDrivers::new(node, &mut self.symbols);
        self.storage.keys = Keys::new(&mut self.symbols);
        let node = self.storage.nodes.entry(name).or_default();
        let old = node.drivers.replace(drivers.clone());
        if old.as_ref() == Some(&drivers) {
            return None;
        }
        node.attached.take();
        self.room_changed(name);
        let migration_changed =
            old.as_ref().is_none_or(|old| old.ebs_migrated != drivers.ebs_migrated);
        // A driver that has lost its limit is one with a higher limit.
        let raised = old.as_ref().is_none_or(|old| {
            let mut limits = old.limits.iter();
            limits.any(|(driver, limit)| drivers.limit(*driver).is_none_or(|new| new > *limit))
        });
        Some(StorageNews::NodeDrivers { raised, migration_changed })
            .filter(|_| raised || migration_changed)
    }

    /// Forgets what a node's drivers can attach.
    pub fn remove_csi_node(&mut self, name: &str) -> Option<StorageNews> {
        let name = self.symbols.intern(name);
        let node = self.storage.nodes.get_mut(&name)?;
        node.attached.take();
        node.drivers.take()?;
        self.room_changed(name);
        // Without limits nothing is too much.
        Some(StorageNews::NodeDrivers { raised: true, migration_changed: true })
    }

    /// Takes in a driver as it is now.
    pub fn set_csi_driver(&mut self, driver: &CSIDriver) -> Option<StorageNews> {
        let name = self.symbols.intern(driver.metadata.name.as_deref().unwrap_or_default());
        let tells = driver.spec.storage_capacity == Some(true);
        let told = self.storage.telling_capacity.insert(name, tells);
        (told == Some(true) && !tells).then_some(StorageNews::CapacityIgnored)
    }

    /// Forgets a driver.
    pub fn remove_csi_driver(&mut self, name: &str) -> Option<StorageNews> {
        let name = self.symbols.intern(name);
        let told = self.storage.telling_capacity.remove(&name);
        (told == Some(true)).then_some(StorageNews::CapacityIgnored)
    }

    /// Takes in how much room there is for volumes of a class.
    pub fn set_storage_capacity(&mut self, capacity: &CSIStorageCapacity) -> Option<StorageNews> {
        let key = ObjectKey::of(&capacity.metadata);
        let capacity = Capacity::new(capacity, &mut self.symbols);
        let limit = capacity.limit;
        let nodes = capacity.nodes.clone();
        match self.storage.capacities.insert(key, capacity) {
            Some(old) if old.limit >= limit && old.nodes == nodes => None,
            _ => Some(StorageNews::CapacityRaised),
        }
    }

    /// Forgets such room.
    pub fn remove_storage_capacity(&mut self, key: &ObjectKey) {
        self.storage.capacities.remove(key);
    }

    /// Takes in that a volume is attached, or about to be, whether or not a pod there uses it.
    pub fn set_volume_attachment(&mut self, attachment: &VolumeAttachment) {
        let name = attachment.metadata.name.as_deref().unwrap_or_default();
        self.remove_volume_attachment(name);
        let Some(volume) = attachment.spec.source.persistent_volume_name.as_deref() else { return };
        let compiled = attached::Attachment {
            node: self.symbols.intern(&attachment.spec.node_name),
            driver: self.symbols.intern(&attachment.spec.attacher),
            volume: self.symbols.intern(volume),
        };
        self.storage.attach(name, compiled);
        self.room_changed(compiled.node);
    }

    /// Takes in that it no longer is.
    pub fn remove_volume_attachment(&mut self, name: &str) -> Option<StorageNews> {
        let node = self.storage.detach(name)?;
        self.room_changed(node);
        Some(StorageNews::Detached)
    }

    /// Reserve: sets aside the volumes that a pod takes on a node, so that no other pod is promised
    /// them, and tells what has to be written for it. Nothing has to be if the plan is empty.
    pub fn reserve_volumes(
        &mut self,
        pod: &PodInfo,
        node: &str,
    ) -> Result<VolumePlan, NoLongerFits> {
        if pod.volumes.is_none() {
            return Ok(VolumePlan::default());
        }
        self.release_volumes(&pod.uid);
        let plan = binding::plan(self, pod, node)?;
        self.set_volumes_aside(&pod.uid, node, &plan);
        Ok(plan)
    }

    /// Sets aside what was promised to a pod before this snapshot was built.
    pub fn set_volumes_aside(&mut self, uid: &str, node: &str, plan: &VolumePlan) {
        if plan.is_empty() {
            return;
        }
        let mut reservation = Reservation::default();
        for (claim, volume) in &plan.bindings {
            let claim = self.claim_key(claim);
            let volume = self.symbols.intern(volume);
            self.storage.set_volume_aside(volume, claim);
            reservation.volumes.push(volume);
        }
        let node = self.symbols.intern(node);
        for claim in &plan.provisions {
            let claim = self.claim_key(claim);
            self.storage.claims_set_aside.entry(claim).or_insert((node, 0)).1 += 1;
            reservation.claims.push(claim);
        }
        self.storage.reserved.insert(uid.into(), reservation);
    }

    /// Whether a node reaches a volume; `None` if one of them is not known.
    pub fn reaches_volume(&self, node: &str, volume: &str) -> Option<bool> {
        let node = self.node_named(node)?;
        let volume = self.storage.volumes.get(&self.symbols.find(volume)?)?;
        let migrated = volume.may_migrate() && self.storage.ebs_migrated(node.facts.symbol);
        Some(volume.reachable(node, migrated, &self.symbols))
    }

    fn claim_key(&mut self, claim: &ObjectKey) -> ClaimKey {
        (self.symbols.intern(&claim.namespace), self.symbols.intern(&claim.name))
    }

    /// Gives back what was set aside for a pod: its claims are bound by now, or it does not go to
    /// its node after all. Tells whether that may help others.
    pub fn release_volumes(&mut self, uid: &str) -> Option<StorageNews> {
        let storage = &mut self.storage;
        let reservation = storage.reserved.remove(uid)?;
        for volume in reservation.volumes {
            storage.give_volume_back(volume);
        }
        for claim in reservation.claims {
            if let Some((_, count)) = storage.claims_set_aside.get_mut(&claim) {
                *count -= 1;
                if *count == 0 {
                    storage.claims_set_aside.remove(&claim);
                }
            }
        }
        Some(StorageNews::GivenBack)
    }
}

impl Keys {
    fn new(symbols: &mut Symbols) -> Self {
        Self {
            hostname: symbols.intern(labels::HOSTNAME),
            ebs_driver: symbols.intern(migration::EBS_DRIVER),
            topology: TOPOLOGY_LABELS.map(|[key, _]| symbols.intern(key)),
        }
    }
}

impl Storage {
    pub(crate) fn claim(&self, key: ClaimKey) -> Option<&Arc<Claim>> {
        self.claims.get(&key)
    }

    pub(crate) fn volume(&self, name: Symbol) -> Option<&Arc<Volume>> {
        self.volumes.get(&name)
    }

    pub(crate) fn class(&self, name: Symbol) -> Option<&Arc<Class>> {
        self.classes.get(&name)
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The node for which a claim's volume is to be made, as written or as decided.
    fn selected_node(&self, claim: &Claim) -> Option<Symbol> {
        self.claims_set_aside.get(&claim.key).map(|(node, _)| *node).or(claim.selected_node)
    }

    /// Whether a pod on some node uses the claim, other than one it was made for.
    pub(crate) fn in_use(&self, claim: ClaimKey) -> bool {
        self.users.get(&claim).is_some_and(|users| users.iter().any(|(_, ephemeral)| !ephemeral))
    }

    /// Notes that a pod with volumes is counted on a node.
    pub(crate) fn pod_placed(&mut self, volumes: &PodVolumes, node: Symbol) {
        for claim in &volumes.claims {
            self.users.entry(claim.key).or_default().push((node, claim.ephemeral));
        }
        self.forget_attached(node);
    }

    /// Notes that it no longer is.
    pub(crate) fn pod_displaced(&mut self, volumes: &PodVolumes, node: Symbol) {
        for claim in &volumes.claims {
            let Some(users) = self.users.get_mut(&claim.key) else { continue };
            if let Some(at) = users.iter().position(|user| *user == (node, claim.ephemeral)) {
                users.swap_remove(at);
            }
            if users.is_empty() {
                self.users.remove(&claim.key);
            }
        }
        self.forget_attached(node);
    }

    fn leave_volume(&mut self, claim: &Claim) {
        if let Some(claims) = self.bound_to.get_mut(&claim.volume) {
            claims.retain(|known| *known != claim.key);
            if claims.is_empty() {
                self.bound_to.remove(&claim.volume);
            }
        }
    }

    /// The claim a volume is kept for, as written or as decided.
    fn keeper(&self, volume: &Volume) -> Option<ClaimKey> {
        let written = volume.claim.as_ref().map(|(claim, _)| *claim);
        written.or_else(|| self.volumes_set_aside.get(&volume.symbol).map(|(claim, _)| *claim))
    }

    /// Puts a volume where claims look for one.
    fn join_indexes(&mut self, volume: &Arc<Volume>) {
        if let Some(claim) = self.keeper(volume) {
            let kept = self.kept_for.entry(claim).or_default();
            let at = kept.partition_point(|known| known.name < volume.name);
            kept.insert(at, volume.clone());
        } else if volume.available && !volume.deleting {
            let free = self.available.entry(volume.class).or_default();
            let key = (volume.bytes, volume.name.clone());
            match &volume.hosts {
                None => {
                    free.anywhere.insert(key, volume.clone());
                }
                Some(hosts) => {
                    for host in hosts {
                        let on_host = free.on_host.entry(*host).or_default();
                        on_host.insert(key.clone(), volume.clone());
                    }
                }
            }
        }
    }

    /// Takes it away from there.
    fn leave_indexes(&mut self, volume: &Volume) {
        if let Some(claim) = self.keeper(volume)
            && let Some(kept) = self.kept_for.get_mut(&claim)
        {
            kept.retain(|known| known.symbol != volume.symbol);
            if kept.is_empty() {
                self.kept_for.remove(&claim);
            }
        }
        let Some(free) = self.available.get_mut(&volume.class) else { return };
        let key = (volume.bytes, volume.name.clone());
        free.anywhere.remove(&key);
        for host in volume.hosts.iter().flatten() {
            if let Some(on_host) = free.on_host.get_mut(host) {
                on_host.remove(&key);
                if on_host.is_empty() {
                    free.on_host.remove(host);
                }
            }
        }
        if free.anywhere.is_empty() && free.on_host.is_empty() {
            self.available.remove(&volume.class);
        }
    }

    fn set_volume_aside(&mut self, name: Symbol, claim: ClaimKey) {
        if let Some(volume) = self.volumes.get(&name).cloned() {
            self.leave_indexes(&volume);
        }
        self.volumes_set_aside.entry(name).or_insert((claim, 0)).1 += 1;
        self.rejoin(name);
    }

    fn give_volume_back(&mut self, name: Symbol) {
        if let Some(volume) = self.volumes.get(&name).cloned() {
            self.leave_indexes(&volume);
        }
        if let Some((_, count)) = self.volumes_set_aside.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                self.volumes_set_aside.remove(&name);
            }
        }
        self.rejoin(name);
    }

    fn rejoin(&mut self, name: Symbol) {
        if let Some(volume) = self.volumes.get(&name).cloned() {
            self.join_indexes(&volume);
        }
    }
}

#[cfg(test)]
mod tests;
