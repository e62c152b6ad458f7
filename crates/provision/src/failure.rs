//! Why a pod cannot be placed, in upstream's words.

use std::fmt;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Taint;
use wharf_model::quantity::{Format, Quantity};
use wharf_model::requirements::{Incompatible, Requirements};
use wharf_model::resources::{CPU, Resources};
use wharf_model::taints;

/// Why no pool can make a node for a pod: one reason per pool, in the order they were tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Unschedulable(pub Vec<PoolFailure>);

/// Why a pool cannot make a node for a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolFailure {
    /// The pod does not tolerate a taint of the pool's nodes.
    Taint(Taint),
    /// The pod's requirements contradict the pool's.
    Requirements(Vec<Incompatible>),
    /// No domain of the pool's machines will do for what the pod asks of others.
    Topology(String),
    /// No instance type is left.
    Types(Box<TypeFailure>),
    /// Every type would exceed the pool's limits.
    Limits {
        /// The pool.
        pool: CompactString,
    },
    /// The pool has as many nodes as it may.
    NodeLimit {
        /// The pool.
        pool: CompactString,
    },
}

/// Why no instance type of a pool would do: what some type met alone and in pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TypeFailure {
    /// Some type met the requirements.
    pub requirements_met: bool,
    /// Some type had enough resources.
    pub fits: bool,
    /// Some type had an offering that can be bought.
    pub has_offering: bool,
    /// Some type met the requirements and had enough, but no offering.
    pub requirements_and_fits: bool,
    /// Some type met the requirements and had an offering, but not enough.
    pub requirements_and_offering: bool,
    /// Some type had enough and an offering, but not the requirements.
    pub fits_and_offering: bool,
    /// A requirement's minValues that the remaining types cannot meet: key, wanted, found.
    pub min_values: Option<(String, usize, usize)>,
    /// What was required.
    pub requirements: Requirements,
    /// What the pod asks for.
    pub requests: Resources,
    /// The least and the most that daemons add.
    pub overhead: (Resources, Resources),
}

/// No pool has a type to offer.
const NO_POOLS: &str = "nodepool requirements filtered out all available instance types";

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(NO_POOLS);
        }
        for (index, failure) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "; " })?;
            write!(f, "{failure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PoolFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taint(taint) => {
                write!(f, "did not tolerate taint (taint={})", taints::display(taint))
            }
            Self::Requirements(errors) => {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                write!(f, "incompatible requirements, {}", errors.join("; "))
            }
            Self::Topology(text) => f.write_str(text),
            Self::Types(failure) => failure.fmt(f),
            Self::Limits { pool } => write!(
                f,
                "all available instance types exceed limits for nodepool (NodePool={pool})"
            ),
            Self::NodeLimit { pool } => {
                write!(f, "node limits have been exhausted for nodepool (NodePool={pool})")
            }
        }
    }
}

impl TypeFailure {
    fn what(&self) -> &'static str {
        match (self.requirements_met, self.fits, self.has_offering) {
            (false, false, false) => {
                "no instance type met the scheduling requirements or had enough resources or had \
                 a required offering"
            }
            (false, false, true) => {
                "no instance type met the scheduling requirements or had enough resources"
            }
            (false, true, false) => {
                "no instance type met the scheduling requirements or had a required offering"
            }
            (true, false, false) => {
                "no instance type had enough resources or had a required offering"
            }
            (false, true, true) => "no instance type met all requirements",
            (true, false, true) => "no instance type has enough resources",
            (true, true, false) => "no instance type has the required offering",
            (true, true, true) if self.requirements_and_fits => {
                "no instance type which met the scheduling requirements and had enough resources, \
                 had a required offering"
            }
            (true, true, true) if self.fits_and_offering => {
                "no instance type which had enough resources and the required offering met the \
                 scheduling requirements"
            }
            (true, true, true) if self.requirements_and_offering => {
                "no instance type which met the scheduling requirements and the required offering \
                 had the required resources"
            }
            (true, true, true) => "no instance type met the requirements/resources/offering tuple",
        }
    }

    fn resources(&self) -> String {
        let total = |overhead: &Resources| {
            let mut total = self.requests.clone();
            total.add(overhead);
            resources_text(&total)
        };
        let (least, most) = (total(&self.overhead.0), total(&self.overhead.1));
        if least == most { least } else { format!("min={least}, max={most}") }
    }
}

impl fmt::Display for TypeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.min_values {
            Some((key, wanted, found)) => write!(
                f,
                "minValues requirement is not met for label(s) (label(s)={key}), wanted {wanted}, \
                 found {found}"
            )?,
            None => f.write_str(self.what())?,
        }
        write!(f, ", requirements={}, resources={}", self.requirements, self.resources())?;
        let alone = self.min_values.is_none() && self.requirements_met && self.has_offering;
        if alone && !self.fits && self.requests.cpu_milli >= 1_000_000_000 {
            f.write_str(" (CPU request >= 1 Million, m vs M typo?)")?;
        }
        Ok(())
    }
}

/// Resources as upstream's messages write them: JSON with sorted keys, `{"cpu":"1","pods":"2"}`.
pub fn resources_text(resources: &Resources) -> String {
    let mut entries: Vec<(&str, i64)> = resources.iter().collect();
    entries.sort_unstable();
    let fields: Vec<String> = entries
        .into_iter()
        .map(|(name, amount)| format!("\"{name}\":\"{}\"", quantity(name, amount)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// An amount of a resource as a quantity: cpu in thousandths, bytes in binary suffixes.
pub fn quantity(name: &str, amount: i64) -> Quantity {
    match name {
        CPU => Quantity::from_milli(amount),
        _ if is_bytes(name) => Quantity::from_units(amount, Format::BinarySi),
        _ => Quantity::from_units(amount, Format::DecimalSi),
    }
}

fn is_bytes(name: &str) -> bool {
    matches!(name, wharf_model::resources::MEMORY | wharf_model::resources::EPHEMERAL_STORAGE)
        || name.starts_with("hugepages-")
}
