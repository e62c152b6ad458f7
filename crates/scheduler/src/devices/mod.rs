//! Devices as decisions see them: claims, classes and slices, with what is set aside for pods that
//! are on their way to a node. Kept up to date piece by piece, like the rest of the snapshot; a pod
//! without claims never looks in here.
//!
//! Rules are kube-scheduler 1.36's, with structured parameters
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>).
//! `slices`, `capacity` and `pools` hold what there is, `objects` what is asked for; `allocate` brings
//! both together, `answers` remembers which selectors fit which devices, and `outcome` says what was
//! found in the API's words.

mod allocate;
mod answers;
mod capacity;
mod extended;
mod objects;
mod outcome;
mod pools;
mod slices;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use rustc_hash::{FxHashMap, FxHashSet};
use wharf_model::object::ObjectKey;

pub(crate) use allocate::{Fault, allocate, rate};
use capacity::Shares;
pub use extended::{
    ExtendedClaim, ExtendedResources, extended_resource_claim, is_extended_resource_claim,
};
pub(crate) use objects::{Binding, Claim, Class};
use objects::{DeviceId, Expressions, Held, devices_of};
pub use objects::{PodClaim, PodClaims, binding_conditions};
use pools::Pools;
use slices::Slice;

use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::symbols::Symbol;

/// A change of an object of devices that may help a pod that was turned down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceNews {
    /// A claim came, changed or went.
    Claim {
        /// Which one.
        key: ObjectKey,
        /// Whether devices of it are free now.
        freed: bool,
    },
    /// A class came or changed.
    Class,
    /// A slice came, changed or went.
    Slice,
}

/// What a pod takes of devices: the allocations of its claims that had none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DevicePlan {
    /// Claims with what they get.
    pub allocations: Vec<(ObjectKey, AllocationResult)>,
    /// All claims of the pod.
    pub claims: Vec<ObjectKey>,
    /// The claim that is to be made for the pod; what it gets is among the allocations.
    pub extended: Option<ExtendedClaim>,
}

/// The devices of the node no longer fit the claims of the pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoDevices(String);

/// Everything known of devices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Devices {
    claims: FxHashMap<ObjectKey, Arc<Claim>>,
    classes: FxHashMap<CompactString, Arc<Class>>,
    slices: FxHashMap<CompactString, Arc<Slice>>,
    /// The slices of one node, in their order.
    on_node: FxHashMap<Symbol, Vec<Arc<Slice>>>,
    /// The others, in their order.
    elsewhere: Vec<Arc<Slice>>,
    pools: Pools,
    /// What counts as taken for a claim: what it has got, or else what is set aside for it.
    held: FxHashMap<ObjectKey, Arc<[Held]>>,
    /// The devices among that which only one may have, with how many say so.
    taken: FxHashMap<DeviceId, u32>,
    /// Those that several share.
    shared: FxHashMap<DeviceId, Shares>,
    /// What is set aside for pods on their way to a node, by uid.
    reserved: FxHashMap<CompactString, DevicePlan>,
    /// The claims among that.
    in_flight: FxHashMap<ObjectKey, Arc<[Held]>>,
    /// Allocated claims whose devices have not become ready in time.
    late: FxHashSet<ObjectKey>,
    /// The classes that stand for extended resources, by the resource.
    standing_for: FxHashMap<CompactString, CompactString>,
    /// The claims that were made for pods' extended resources, by the pod's uid.
    made_for: FxHashMap<CompactString, ObjectKey>,
    expressions: Expressions,
}

impl Devices {
    pub(crate) fn claim(&self, key: &ObjectKey) -> Option<&Arc<Claim>> {
        self.claims.get(key)
    }

    pub(crate) fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(name).map(AsRef::as_ref)
    }

    pub(crate) fn is_taken(&self, device: DeviceId) -> bool {
        self.taken.contains_key(&device)
    }

    /// Whether a pod on its way to a node gets the claim allocated.
    pub(crate) fn is_in_flight(&self, claim: &ObjectKey) -> bool {
        self.in_flight.contains_key(claim)
    }

    /// The slices that may have devices for a node, in their order.
    pub(crate) fn slices_for(&self, node: &NodeInfo) -> impl Iterator<Item = &Slice> {
        let here = self.on_node.get(&node.facts.symbol).into_iter().flatten();
        here.chain(&self.elsewhere).map(AsRef::as_ref)
    }

    /// The shares of a device that several have.
    pub(crate) fn shares(&self, device: DeviceId) -> Option<&Shares> {
        self.shared.get(&device)
    }

    /// Whether an allocated claim's devices will not become ready: it is to get others.
    pub(crate) fn is_hopeless(&self, claim: &Claim) -> bool {
        claim.allocation.as_ref().is_some_and(|allocation| match allocation.binding {
            Binding::Ready => false,
            Binding::Pending => self.late.contains(&claim.key),
            Binding::Failed => true,
        })
    }

    /// Counts anew what is taken for a claim.
    fn recount(&mut self, claim: &ObjectKey) {
        let allocation = self.claims.get(claim).and_then(|claim| claim.allocation.as_ref());
        let now = allocation.map(|allocation| &allocation.devices);
        let now = now.or_else(|| self.in_flight.get(claim)).cloned();
        let before = match now {
            Some(now) => {
                for held in &*now {
                    match &held.share {
                        Some(amounts) => self.shared.entry(held.id).or_default().add(amounts),
                        None => *self.taken.entry(held.id).or_default() += 1,
                    }
                }
                self.held.insert(claim.clone(), now)
            }
            None => self.held.remove(claim),
        };
        for held in before.iter().flat_map(|before| before.iter()) {
            self.give_back(held);
        }
    }

    fn give_back(&mut self, held: &Held) {
        match &held.share {
            Some(amounts) => {
                if self.shared.get_mut(&held.id).is_some_and(|shares| shares.remove(amounts)) {
                    self.shared.remove(&held.id);
                }
            }
            None => {
                if let Some(count) = self.taken.get_mut(&held.id) {
                    *count -= 1;
                    if *count == 0 {
                        self.taken.remove(&held.id);
                    }
                }
            }
        }
    }

    fn remove_slice(&mut self, name: &str) -> bool {
        let Some(old) = self.slices.remove(name) else { return false };
        let list = match old.node {
            Some(node) => self.on_node.entry(node).or_default(),
            None => &mut self.elsewhere,
        };
        list.retain(|slice| slice.order.2 != name);
        if let Some(node) = old.node.filter(|_| list.is_empty()) {
            self.on_node.remove(&node);
        }
        self.pools.remove(&old);
        true
    }

    fn release(&mut self, uid: &str) {
        let Some(plan) = self.reserved.remove(uid) else { return };
        for (claim, _) in &plan.allocations {
            self.in_flight.remove(claim);
            self.recount(claim);
        }
    }
}

impl Snapshot {
    /// Takes in a claim as it is now. Like the other setters of devices it tells what pods that
    /// wait may hope for.
    pub fn set_resource_claim(&mut self, claim: &ResourceClaim) -> DeviceNews {
        let devices = &mut self.devices;
        let claim = Claim::new(claim, &mut self.symbols, &mut devices.expressions);
        let key = claim.key.clone();
        if claim.is_extended {
            devices.made_for.insert(claim.owner.clone(), key.clone());
        }
        let is_free = claim.allocation.is_none();
        let old = devices.claims.insert(key.clone(), Arc::new(claim));
        let held = old.as_ref().is_some_and(|old| old.allocation.is_some());
        if is_free {
            devices.late.remove(&key);
        }
        devices.recount(&key);
        DeviceNews::Claim { key, freed: held && is_free }
    }

    /// Forgets a claim.
    pub fn remove_resource_claim(&mut self, key: &ObjectKey) -> Option<DeviceNews> {
        let old = self.devices.claims.remove(key)?;
        self.devices.late.remove(key);
        if self.devices.made_for.get(&old.owner) == Some(key) {
            self.devices.made_for.remove(&old.owner);
        }
        self.devices.recount(key);
        // One that was made for extended resources stood in its pod's way.
        let freed = old.allocation.is_some() || old.is_extended;
        Some(DeviceNews::Claim { key: key.clone(), freed })
    }

    /// The devices of an allocated claim have not become ready in time: until it has got others, no
    /// node will do for it.
    pub fn give_up_binding(&mut self, claim: &ObjectKey) {
        if self.devices.claim(claim).is_some_and(|claim| claim.allocation.is_some()) {
            self.devices.late.insert(claim.clone());
        }
    }

    /// Remembers of which claims another snapshot knew that their devices have not become ready.
    pub fn keep_given_up(&mut self, other: &Self) {
        self.devices.late.clone_from(&other.devices.late);
    }

    /// Takes in a class as it is now.
    pub fn set_device_class(&mut self, class: &DeviceClass) -> DeviceNews {
        let name = class.metadata.name.as_deref().unwrap_or_default().into();
        let class = Class::new(class, &mut self.devices.expressions);
        self.devices.classes.insert(name, Arc::new(class));
        self.devices.refresh_extended();
        DeviceNews::Class
    }

    /// Forgets a class.
    pub fn remove_device_class(&mut self, name: &str) {
        self.devices.classes.remove(name);
        self.devices.refresh_extended();
    }

    /// Takes in a slice as it is now.
    pub fn set_resource_slice(&mut self, slice: &ResourceSlice) -> DeviceNews {
        let slice = Arc::new(Slice::new(slice, &mut self.symbols));
        let devices = &mut self.devices;
        devices.remove_slice(&slice.order.2);
        devices.pools.add(&slice);
        let list = match slice.node {
            Some(node) => devices.on_node.entry(node).or_default(),
            None => &mut devices.elsewhere,
        };
        let at = list.partition_point(|known| known.order < slice.order);
        list.insert(at, slice.clone());
        devices.slices.insert(slice.order.2.clone(), slice);
        DeviceNews::Slice
    }

    /// Forgets a slice.
    pub fn remove_resource_slice(&mut self, name: &str) -> Option<DeviceNews> {
        self.devices.remove_slice(name).then_some(DeviceNews::Slice)
    }

    /// Sets aside devices of a node for the claims of a pod that have none, until
    /// [`Snapshot::release_devices`].
    pub fn reserve_devices(&mut self, pod: &PodInfo, node: &str) -> Result<DevicePlan, NoDevices> {
        if pod.claims.is_none() && !self.devices.stand_for(pod) {
            return Ok(DevicePlan::default());
        }
        self.release_devices(&pod.uid);
        let refuse = |text: String| NoDevices(text);
        let Some(info) = self.node_named(node) else {
            return Err(refuse(format!("node {node:?} is gone")));
        };
        let mut plan = DevicePlan::default();
        let mut free = Vec::new();
        let own = pod.claims.iter().flat_map(|own| own.claims.iter());
        for key in own.filter_map(|claim| claim.key.as_ref()) {
            let Some(claim) = self.devices.claim(key) else {
                return Err(refuse(format!("resourceclaim {:?} not found", key.name.as_str())));
            };
            if plan.claims.contains(key) {
                continue;
            }
            plan.claims.push(key.clone());
            match &claim.allocation {
                Some(allocation) if !allocation.is_on(info, &self.symbols) => {
                    return Err(refuse("resourceclaim not available on the node".to_owned()));
                }
                Some(_) if self.devices.is_hopeless(claim) => {
                    return Err(refuse("resourceclaim not available on the node".to_owned()));
                }
                Some(_) => {}
                None if self.devices.is_in_flight(key) => {
                    return Err(refuse(format!(
                        "resource claim {key} is in the process of being allocated"
                    )));
                }
                None => free.push(&**claim),
            }
        }
        let extended = self.devices.extended_claim(pod, info);
        if extended.is_some() && self.devices.stale_claim(pod).is_some() {
            return Err(refuse("cannot schedule extended resource claim".to_owned()));
        }
        free.extend(extended.iter().map(|(_, claim)| claim));
        let found = allocate(&free, info, &self.devices, &self.symbols)
            .map_err(|fault| refuse(format!("cannot allocate all claims: {fault}")))?;
        let keys = free.iter().map(|claim| claim.key.clone());
        plan.allocations = keys.zip(found).collect();
        plan.extended = extended.map(|(plan, _)| plan);
        self.set_devices_aside(&pod.uid, &plan);
        Ok(plan)
    }

    /// Sets aside what was planned for a pod.
    pub fn set_devices_aside(&mut self, uid: &str, plan: &DevicePlan) {
        self.release_devices(uid);
        for (claim, allocation) in &plan.allocations {
            let devices = devices_of(allocation, &mut self.symbols);
            self.devices.in_flight.insert(claim.clone(), devices);
            self.devices.recount(claim);
        }
        self.devices.reserved.insert(uid.into(), plan.clone());
    }

    /// Gives back what was set aside for a pod: the claims show it, or the pod does not go there.
    pub fn release_devices(&mut self, uid: &str) {
        self.devices.release(uid);
    }

    /// The first of a pod's claims that is not there, for [`crate::Plugin::DynamicResources`] to
    /// keep it out of the queue: `Some(None)` for one that has not been made yet.
    pub fn missing_claim<'p>(&self, pod: &'p PodInfo) -> Option<Option<&'p ObjectKey>> {
        let claims = pod.claims.as_deref()?;
        let missing = |claim: &&PodClaim| {
            claim.key.as_ref().is_none_or(|key| {
                self.devices.claim(key).is_none_or(|it| !is_usable(it, claim, pod))
            })
        };
        claims.claims.iter().find(missing).map(|claim| claim.key.as_ref())
    }
}

/// Whether a pod may use a claim at all: it is to stay, and if made for a pod, for this one.
fn is_usable(claim: &Claim, wanted: &PodClaim, pod: &PodInfo) -> bool {
    !claim.deleting && (!wanted.from_template || claim.owner == pod.uid)
}
