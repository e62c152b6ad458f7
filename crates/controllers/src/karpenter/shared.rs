//! What Karpenter's controllers tell each other besides the objects: nominations, offerings that
//! are out of capacity, nodes that a disruption has taken, events already told.
//!
//! All of it may be lost at any moment; upstream keeps the same in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use compact_str::CompactString;
use wharf_cloud::catalog::{Catalog as CloudCatalog, NodeSettings};
use wharf_model::instance_type::CapacityType;
use wharf_model::time::Time;
use wharf_ports::cluster::Write;
use wharf_ports::controller::Step;
use wharf_provision::catalog::Catalog;

use super::KarpenterSettings;

/// How long an offering counts as unavailable after the cloud was out of it.
const UNAVAILABLE_FOR: Duration = Duration::from_mins(3);
/// Events told are forgotten after so long at the latest.
const EVENT_MEMORY: Duration = Duration::from_mins(30);
/// At most so many told events are remembered; beyond, all are forgotten and may be told again.
const EVENTS_MAX: usize = 100_000;
/// An event is not told again in the same words for so long, unless it says otherwise.
pub(super) const TELL_AGAIN: Duration = Duration::from_mins(2);

/// The shared handle.
pub(super) struct Shared {
    pub(super) settings: KarpenterSettings,
    pub(super) cloud: Arc<CloudCatalog>,
    memory: Mutex<Memory>,
}

/// What is remembered.
#[derive(Default)]
pub(super) struct Memory {
    /// Until when NodeClaims are protected because pods are expected on them.
    nominated: BTreeMap<CompactString, Time>,
    /// Until when offerings are out of capacity.
    unavailable: BTreeMap<Offering, Time>,
    /// NodeClaims that a disruption command has taken and will delete.
    pub(super) marked: BTreeSet<CompactString>,
    /// Compiled instance types by node class.
    pub(super) catalogs: BTreeMap<CompactString, CompiledCatalog>,
    told: BTreeMap<(CompactString, String, String), Time>,
    /// Counts changes that could change what disruption finds.
    pub(super) changes: u64,
}

/// An offering as the cloud names it.
pub(super) type Offering = (CapacityType, CompactString, CompactString);

/// A node class's instance types, and what they were compiled from.
pub(super) struct CompiledCatalog {
    pub(super) settings: NodeSettings,
    pub(super) unavailable: BTreeSet<Offering>,
    pub(super) catalog: Arc<Catalog>,
}

impl Shared {
    /// A fresh memory.
    pub(super) fn new(cloud: Arc<CloudCatalog>, settings: KarpenterSettings) -> Arc<Self> {
        Arc::new(Self { settings, cloud, memory: Mutex::new(Memory::default()) })
    }

    /// The memory. Steps run one at a time, so nobody ever waits here.
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        // Plain data: it is as good after a panic as before.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event unless the same was told within `again`.
    pub(super) fn tell(&self, step: &mut Step, event: Write, again: Duration, now: Time) {
        if let Write::Record(record) = &event {
            let key = (record.regarding.uid.clone(), record.reason.clone(), record.message.clone());
            let mut memory = self.memory();
            if memory.told.get(&key).is_some_and(|told| now.since(*told) < again) {
                return;
            }
            memory.told.retain(|_, told| now.since(*told) < EVENT_MEMORY);
            if memory.told.len() >= EVENTS_MAX {
                memory.told.clear();
            }
            memory.told.insert(key, now);
        }
        step.write(event);
    }
}

impl Memory {
    /// Protects a NodeClaim from disruption until `until`, because pods are expected on it.
    pub(super) fn nominate(&mut self, node_claim: &str, until: Time) {
        self.nominated.insert(node_claim.into(), until);
    }

    /// Whether pods are expected on a NodeClaim.
    pub(super) fn is_nominated(&self, node_claim: &str, now: Time) -> bool {
        self.nominated.get(node_claim).is_some_and(|until| now < *until)
    }

    /// Forgets nominations that are over.
    pub(super) fn forget_nominations(&mut self, now: Time) {
        self.nominated.retain(|_, until| now < *until);
    }

    /// Notes that the cloud is out of an offering.
    pub(super) fn mark_unavailable(&mut self, offering: Offering, now: Time) {
        self.unavailable.insert(offering, now + UNAVAILABLE_FOR);
        self.changes += 1;
    }

    /// The offerings that the cloud is out of.
    pub(super) fn unavailable(&mut self, now: Time) -> BTreeSet<Offering> {
        self.unavailable.retain(|_, until| now < *until);
        self.unavailable.keys().cloned().collect()
    }
}
