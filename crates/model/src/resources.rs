//! What a pod asks for and what a node offers, as plain integers.
//!
//! Every scheduling and provisioning decision compares amounts of cpu, memory, ephemeral storage
//! and pod slots, so those four are fields; extended resources (`nvidia.com/gpu`, `hugepages-2Mi`,
//! …) are rare and live in a short list sorted by name. Units are upstream's: cpu in thousandths,
//! everything else in whole units.

mod amounts;
mod pod;
mod qos;

use std::collections::BTreeMap;
use std::fmt;

use compact_str::CompactString;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use smallvec::SmallVec;

pub use pod::{
    PodLevel, assigned_pod_requests, default_requests_from_limits, non_zero_requests, pod_limits,
    pod_requests,
};
pub use qos::{QosClass, cpu_shares, oom_score_adj, qos_class};

use amounts::Amounts;

use crate::quantity::{Format, Quantity};

type List = BTreeMap<String, ApiQuantity>;

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

    /// From the API's form, as `status.allocatable`: cpu in thousandths, everything else in whole
    /// units, both rounded up. What is no quantity is left out: the API server lets none in.
    pub fn from_map<Q>(map: &BTreeMap<String, Q>) -> Resources
    where
        for<'q> Quantity: TryFrom<&'q Q>,
    {
        Amounts::of(Some(map)).into_resources()
    }

    /// In the API's form, each quantity canonical: `7910m`, `14162Mi`, `58`.
    pub fn to_map(&self) -> BTreeMap<String, ApiQuantity> {
        self.iter()
            .map(|(name, amount)| (name.to_owned(), ApiQuantity(amount_text(name, amount))))
            .collect()
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

    /// Leaves only what kube-scheduler keeps account of: cpu, memory, ephemeral storage, pods, and
    /// the resources [`is_scalar_resource`] names, unless their amount is zero.
    #[must_use]
    pub fn counted_by_scheduler(mut self) -> Resources {
        self.extended.retain(|(name, amount)| *amount != 0 && is_scalar_resource(name));
        self
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

/// An amount of a resource as the API writes it.
pub fn amount_text(name: &str, amount: i64) -> String {
    let quantity = match name {
        CPU => Quantity::from_milli(amount),
        _ if is_binary(name) => Quantity::from_units(amount, Format::BinarySi),
        _ => Quantity::from_units(amount, Format::DecimalSi),
    };
    quantity.to_string()
}

/// Whether kube-scheduler counts a resource besides the four it always counts: extended resources
/// (`nvidia.com/gpu`; those of quotas, `requests.nvidia.com/gpu`, are none), prefixed native ones
/// (`kubernetes.io/batch`), huge pages and attachable volumes. Other names it ignores.
pub fn is_scalar_resource(name: &str) -> bool {
    let extended = name.contains('/') && !name.starts_with("requests.");
    extended
        || name.contains("kubernetes.io/")
        || is_huge_pages(name)
        || name.starts_with("attachable-volumes-")
}

/// A quantity in the unit of its resource, rounded up.
fn in_units(name: &str, quantity: &Quantity) -> i64 {
    match name {
        CPU => quantity.milli_value_ceil(),
        _ => quantity.value_ceil(),
    }
}

fn is_binary(name: &str) -> bool {
    matches!(name, MEMORY | EPHEMERAL_STORAGE | "storage") || is_huge_pages(name)
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

impl fmt::Display for Resources {
    /// As Karpenter's logs and events print resources: JSON, sorted by name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, quantity)) in self.to_map().iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            // Neither resource names nor canonical quantities hold anything JSON would escape.
            write!(f, "{comma}\"{name}\":\"{}\"", quantity.0)?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests;
