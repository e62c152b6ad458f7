//! What a pod asks for and what a node offers, as plain integers.
//!
//! Every scheduling and provisioning decision compares amounts of cpu, memory, ephemeral storage
//! and pod slots, so those four are fields; extended resources (`nvidia.com/gpu`, `hugepages-2Mi`,
//! …) are rare and live in a short list sorted by name. Units are upstream's: cpu in thousandths,
//! everything else in whole units.

use compact_str::CompactString;
use smallvec::SmallVec;

/// The resource name of processor time, counted in thousandths of a core.
pub const CPU: &str = "cpu";
/// The resource name of memory, counted in bytes.
pub const MEMORY: &str = "memory";
/// The resource name of a node's local disk, counted in bytes.
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
/// The resource name of pod slots.
pub const PODS: &str = "pods";

/// Amounts of the four resources every decision looks at as plain integers, the rest in a short
/// sorted list.
///
/// Absent and zero are the same for the four fields. For extended resources an explicitly set zero
/// is kept (a node that offers `nvidia.com/gpu: 0` says more than one that does not name it), so
/// two values which differ only in that are not equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Thousandths of a cpu core.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of local disk.
    pub ephemeral_storage_bytes: i64,
    /// Pod slots.
    pub pods: i64,
    /// Every other resource: name and amount, sorted by name, each name once. Change it through
    /// [`Resources::set`], which keeps the order.
    pub extended: SmallVec<[(CompactString, i64); 1]>,
}

impl Resources {
    /// Whether every amount asked for here is available in `free`. A resource of which nothing is
    /// asked always fits, even where `free` is negative: kube-scheduler's Fit filter skips it too.
    pub fn fits_in(&self, free: &Resources) -> bool {
        fits(self.cpu_milli, free.cpu_milli)
            && fits(self.memory_bytes, free.memory_bytes)
            && fits(self.ephemeral_storage_bytes, free.ephemeral_storage_bytes)
            && fits(self.pods, free.pods)
            && self.extended.iter().all(|(name, amount)| fits(*amount, free.get(name)))
    }

    /// Adds every amount of `other`.
    pub fn add(&mut self, other: &Resources) {
        self.merge(other, i64::saturating_add);
    }

    /// Takes away every amount of `other`; amounts may become negative.
    pub fn subtract(&mut self, other: &Resources) {
        self.merge(other, i64::saturating_sub);
    }

    /// Raises every amount to at least that of `other`.
    pub fn max(&mut self, other: &Resources) {
        self.merge(other, i64::max);
    }

    /// Whether every amount is zero.
    pub fn is_zero(&self) -> bool {
        self.iter().all(|(_, amount)| amount == 0)
    }

    /// Whether any amount is below zero, as a node's free amounts are when it is overcommitted.
    pub fn is_negative(&self) -> bool {
        self.iter().any(|(_, amount)| amount < 0)
    }

    /// The amount of the named resource; 0 if it is absent.
    pub fn get(&self, name: &str) -> i64 {
        match name {
            CPU => self.cpu_milli,
            MEMORY => self.memory_bytes,
            EPHEMERAL_STORAGE => self.ephemeral_storage_bytes,
            PODS => self.pods,
            _ => self.position(name).map_or(0, |index| self.extended[index].1),
        }
    }

    /// Whether the resource is named here: not zero, or an extended resource set explicitly.
    pub fn contains(&self, name: &str) -> bool {
        match name {
            CPU | MEMORY | EPHEMERAL_STORAGE | PODS => self.get(name) != 0,
            _ => self.position(name).is_ok(),
        }
    }

    /// Sets the amount of the named resource.
    pub fn set(&mut self, name: &str, amount: i64) {
        match name {
            CPU => self.cpu_milli = amount,
            MEMORY => self.memory_bytes = amount,
            EPHEMERAL_STORAGE => self.ephemeral_storage_bytes = amount,
            PODS => self.pods = amount,
            _ => match self.position(name) {
                Ok(index) => self.extended[index].1 = amount,
                Err(index) => self.extended.insert(index, (CompactString::from(name), amount)),
            },
        }
    }

    /// The resources named here with their amounts: cpu, memory, ephemeral storage and pods where
    /// they are not zero, then the extended resources by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        let core = [
            (CPU, self.cpu_milli),
            (MEMORY, self.memory_bytes),
            (EPHEMERAL_STORAGE, self.ephemeral_storage_bytes),
            (PODS, self.pods),
        ];
        core.into_iter()
            .filter(|(_, amount)| *amount != 0)
            .chain(self.extended.iter().map(|(name, amount)| (name.as_str(), *amount)))
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.extended.binary_search_by(|(entry, _)| entry.as_str().cmp(name))
    }

    fn merge(&mut self, other: &Resources, combine: fn(i64, i64) -> i64) {
        self.cpu_milli = combine(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = combine(self.memory_bytes, other.memory_bytes);
        self.ephemeral_storage_bytes =
            combine(self.ephemeral_storage_bytes, other.ephemeral_storage_bytes);
        self.pods = combine(self.pods, other.pods);
        for (name, amount) in &other.extended {
            match self.position(name) {
                Ok(index) => {
                    let entry = &mut self.extended[index].1;
                    *entry = combine(*entry, *amount);
                }
                Err(index) => self.extended.insert(index, (name.clone(), combine(0, *amount))),
            }
        }
    }
}

fn fits(asked: i64, free: i64) -> bool {
    asked <= 0 || asked <= free
}
