//! Pools of devices: which of their slices count, whether all are there, and the counters that their
//! devices share
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#partitionable-devices>).

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use rustc_hash::FxHashMap;
use wharf_model::quantity::Quantity;

use super::Devices;
use super::slices::{Device, Slice};
use crate::symbols::Symbol;

/// Counters by set and name.
pub(crate) type Counters = BTreeMap<(CompactString, CompactString), Quantity>;

/// All pools, by driver and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pools {
    pools: FxHashMap<(Symbol, Symbol), Pool>,
}

/// A pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    generations: BTreeMap<i64, Vec<Arc<Slice>>>,
    /// The counters that the newest generation's devices share.
    counters: Counters,
    /// Whether its sets of counters contradict each other or lack what devices take of them.
    is_invalid: bool,
}

impl Pools {
    pub(super) fn add(&mut self, slice: &Arc<Slice>) {
        let pool = self.pools.entry(slice.pool).or_default();
        pool.generations.entry(slice.generation).or_default().push(Arc::clone(slice));
        pool.refresh();
    }

    pub(super) fn remove(&mut self, slice: &Slice) {
        let Some(pool) = self.pools.get_mut(&slice.pool) else { return };
        if let Some(slices) = pool.generations.get_mut(&slice.generation) {
            slices.retain(|known| known.order.2 != slice.order.2);
        }
        pool.generations.retain(|_, slices| !slices.is_empty());
        if pool.generations.is_empty() {
            self.pools.remove(&slice.pool);
        } else {
            pool.refresh();
        }
    }

    /// The pool of a slice; `None` if it has a newer generation than this.
    pub(super) fn current(&self, slice: &Slice) -> Option<&Pool> {
        let pool = self.pools.get(&slice.pool)?;
        let (newest, _) = pool.generations.last_key_value()?;
        (*newest == slice.generation).then_some(pool)
    }
}

impl Pool {
    fn slices(&self) -> impl Iterator<Item = &Arc<Slice>> {
        self.generations.last_key_value().into_iter().flat_map(|(_, slices)| slices)
    }

    /// Whether all its slices are known.
    pub(super) fn is_complete(&self, slice: &Slice) -> bool {
        i64::try_from(self.slices().count()) == Ok(slice.slices_in_pool)
    }

    pub(super) fn is_invalid(&self) -> bool {
        self.is_invalid
    }

    /// What is left of its counters besides what the devices take that have been allocated. As
    /// upstream has it that may be less than nothing.
    pub(super) fn available(&self, devices: &Devices) -> Counters {
        let mut left = self.counters.clone();
        for device in self.slices().flat_map(|slice| &slice.devices) {
            let is_in_use = devices.is_taken(device.id) || devices.shares(device.id).is_some();
            if is_in_use {
                for (counter, amount) in counters_of(device) {
                    if let Some(left) = left.get_mut(&counter) {
                        *left = left.sub(&amount);
                    }
                }
            }
        }
        left
    }

    fn refresh(&mut self) {
        let mut counters = Counters::new();
        let mut sets: Vec<CompactString> = Vec::new();
        let mut is_invalid = false;
        for (set, amounts) in self.slices().flat_map(|slice| &slice.counter_sets) {
            is_invalid |= sets.contains(set);
            sets.push(set.clone());
            let amounts = amounts.iter();
            counters.extend(amounts.map(|(name, amount)| ((set.clone(), name.clone()), *amount)));
        }
        for device in self.slices().flat_map(|slice| &slice.devices) {
            is_invalid |= device.counters.iter().any(|(set, _)| !sets.contains(set))
                || counters_of(device).any(|(counter, _)| !counters.contains_key(&counter));
        }
        self.counters = counters;
        self.is_invalid = is_invalid;
    }
}

/// What a device takes of its pool's counters.
pub(super) fn counters_of(
    device: &Device,
) -> impl Iterator<Item = ((CompactString, CompactString), Quantity)> {
    device.counters.iter().flat_map(|(set, amounts)| {
        amounts.iter().map(move |(name, amount)| ((set.clone(), name.clone()), *amount))
    })
}
