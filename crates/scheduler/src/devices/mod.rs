//! Devices as decisions see them: claims, classes and slices, with what is set aside for pods that
//! are on their way to a node. Kept up to date piece by piece, like the rest of the snapshot; a pod
//! without claims never looks in here.
//!
//! Rules are kube-scheduler 1.36's, with structured parameters
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>).
//! Devices that are shared, by counters or by several allocations, or that have binding conditions,
//! are not allocated.

mod allocate;
mod objects;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use rustc_hash::FxHashMap;
use wharf_model::object::ObjectKey;

pub(crate) use allocate::{Fault, allocate};
pub(crate) use objects::{Claim, Class};
use objects::{DeviceId, Expressions, Slice, devices_of};
pub use objects::{PodClaim, PodClaims};

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
    /// How many slices a pool has of each generation.
    pools: FxHashMap<(Symbol, Symbol), BTreeMap<i64, i64>>,
    /// The devices that claims have or are about to get, with how many say so.
    taken: FxHashMap<DeviceId, u32>,
    /// What is set aside for pods on their way to a node, by uid.
    reserved: FxHashMap<CompactString, DevicePlan>,
    /// The claims among that, with the uid.
    in_flight: FxHashMap<ObjectKey, CompactString>,
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

    /// Whether a slice is of its pool's newest generation.
    pub(crate) fn is_current(&self, slice: &Slice) -> bool {
        self.newest(slice).is_some_and(|(generation, _)| generation == slice.generation)
    }

    /// Whether all slices of a current slice's pool are known.
    pub(crate) fn is_complete(&self, slice: &Slice) -> bool {
        self.newest(slice).is_some_and(|(_, count)| count == slice.slices_in_pool)
    }

    fn newest(&self, slice: &Slice) -> Option<(i64, i64)> {
        let (generation, count) = self.pools.get(&slice.pool)?.last_key_value()?;
        Some((*generation, *count))
    }

    fn take(&mut self, devices: &[DeviceId]) {
        for device in devices {
            *self.taken.entry(*device).or_default() += 1;
        }
    }

    fn give_back(&mut self, devices: &[DeviceId]) {
        for device in devices {
            if let Some(count) = self.taken.get_mut(device) {
                *count -= 1;
                if *count == 0 {
                    self.taken.remove(device);
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
        if let Some(generations) = self.pools.get_mut(&old.pool) {
            if let Some(count) = generations.get_mut(&old.generation) {
                *count -= 1;
            }
            generations.retain(|_, count| *count > 0);
            if generations.is_empty() {
                self.pools.remove(&old.pool);
            }
        }
        true
    }

    fn release(&mut self, uid: &str, symbols: &mut crate::symbols::Symbols) {
        let Some(plan) = self.reserved.remove(uid) else { return };
        for (claim, allocation) in &plan.allocations {
            let devices = devices_of(allocation, symbols);
            self.give_back(&devices);
            self.in_flight.remove(claim);
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
        if let Some(allocation) = &claim.allocation {
            devices.take(&allocation.devices);
        }
        let is_free = claim.allocation.is_none();
        let old = devices.claims.insert(key.clone(), Arc::new(claim));
        let held = old.as_ref().and_then(|old| old.allocation.as_ref());
        if let Some(held) = held {
            devices.give_back(&held.devices);
        }
        DeviceNews::Claim { key, freed: held.is_some() && is_free }
    }

    /// Forgets a claim.
    pub fn remove_resource_claim(&mut self, key: &ObjectKey) -> Option<DeviceNews> {
        let old = self.devices.claims.remove(key)?;
        if let Some(held) = &old.allocation {
            self.devices.give_back(&held.devices);
        }
        Some(DeviceNews::Claim { key: key.clone(), freed: old.allocation.is_some() })
    }

    /// Takes in a class as it is now.
    pub fn set_device_class(&mut self, class: &DeviceClass) -> DeviceNews {
        let name = class.metadata.name.as_deref().unwrap_or_default().into();
        let class = Class::new(class, &mut self.devices.expressions);
        self.devices.classes.insert(name, Arc::new(class));
        DeviceNews::Class
    }

    /// Forgets a class.
    pub fn remove_device_class(&mut self, name: &str) {
        self.devices.classes.remove(name);
    }

    /// Takes in a slice as it is now.
    pub fn set_resource_slice(&mut self, slice: &ResourceSlice) -> DeviceNews {
        let slice = Arc::new(Slice::new(slice, &mut self.symbols));
        let devices = &mut self.devices;
        devices.remove_slice(&slice.order.2);
        let generations = devices.pools.entry(slice.pool).or_default();
        *generations.entry(slice.generation).or_default() += 1;
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
        let Some(own) = pod.claims.as_deref() else { return Ok(DevicePlan::default()) };
        self.release_devices(&pod.uid);
        let refuse = |text: String| NoDevices(text);
        let Some(info) = self.node_named(node) else {
            return Err(refuse(format!("node {node:?} is gone")));
        };
        let mut plan = DevicePlan::default();
        let mut free = Vec::new();
        for key in own.claims.iter().filter_map(|claim| claim.key.as_ref()) {
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
                Some(_) => {}
                None if self.devices.is_in_flight(key) => {
                    return Err(refuse(format!(
                        "resource claim {key} is in the process of being allocated"
                    )));
                }
                None => free.push(&**claim),
            }
        }
        let found = allocate(&free, info, &self.devices, &self.symbols)
            .map_err(|fault| refuse(format!("cannot allocate all claims: {fault}")))?;
        let keys = free.iter().map(|claim| claim.key.clone());
        plan.allocations = keys.zip(found.allocations).collect();
        self.set_devices_aside(&pod.uid, &plan);
        Ok(plan)
    }

    /// Sets aside what was planned for a pod.
    pub fn set_devices_aside(&mut self, uid: &str, plan: &DevicePlan) {
        self.release_devices(uid);
        for (claim, allocation) in &plan.allocations {
            let devices = devices_of(allocation, &mut self.symbols);
            self.devices.take(&devices);
            self.devices.in_flight.insert(claim.clone(), uid.into());
        }
        self.devices.reserved.insert(uid.into(), plan.clone());
    }

    /// Gives back what was set aside for a pod: the claims show it, or the pod does not go there.
    pub fn release_devices(&mut self, uid: &str) {
        self.devices.release(uid, &mut self.symbols);
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
