//! What a provisioning decision needs to know of a machine type, whoever sells it.
//!
//! A cloud's catalogue makes these values from its own data; the provisioning core compares their
//! labels with requirements, their allocatable with what pods ask for, and their offerings by
//! price. Zone, region-wide facts and capacity types belong to the [`Offering`]s, because one type
//! is sold in several zones at several prices.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::money::Price;
use crate::resources::Resources;

/// A kind of machine that can be launched.
///
/// `allocatable` is `capacity - kube_reserved - system_reserved - eviction_threshold`, never below
/// zero; [`InstanceType::compute_allocatable`] makes it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// The name in the provider's catalogue (`c5a.2xlarge`).
    pub name: Arc<str>,
    /// The well-known labels a node of this type can have, sorted by key, each key once. Zone, zone
    /// id and capacity type are not here: see `offerings`.
    pub labels: Vec<InstanceTypeLabel>,
    /// What the node will report as capacity, by the provider's estimate.
    pub capacity: Resources,
    /// What the kubelet keeps for itself and the container runtime.
    pub kube_reserved: Resources,
    /// What is kept for the operating system's own daemons.
    pub system_reserved: Resources,
    /// Hard eviction thresholds, which pods cannot use either.
    pub eviction_threshold: Resources,
    /// What pods can use.
    pub allocatable: Resources,
    /// Where and how it is sold, sorted by capacity type, then zone.
    pub offerings: Vec<Offering>,
}

/// One label of a type with the values a node of that type can have, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceTypeLabel {
    /// The label key.
    pub key: &'static str,
    /// The values, sorted. A node has exactly one of them.
    pub values: SmallVec<[CompactString; 1]>,
}

/// One way to buy a type: a capacity type in a zone at a price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offering {
    /// How the machine is paid for.
    pub capacity_type: CapacityType,
    /// The zone's name (`us-east-1a`).
    pub zone: CompactString,
    /// The zone's identity across accounts (`use1-az1`).
    pub zone_id: CompactString,
    /// What it costs.
    pub price: Price,
    /// Whether `price` is a fact or comes from a model; reports must say so.
    pub price_source: PriceSource,
    /// Whether a launch may be tried now; false while the provider is known to be out of capacity.
    pub available: bool,
}

/// How a machine is paid for. The order is the one in which launches prefer them: what is already
/// paid for, then the cheap, then the dependable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityType {
    /// Capacity reserved and paid for beforehand.
    Reserved,
    /// Spare capacity which can be taken back at short notice.
    Spot,
    /// The list price, interrupted by nobody.
    OnDemand,
}

/// Where a price comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PriceSource {
    /// A published list price.
    Published,
    /// Computed by a model that stands in for a price which is not known.
    Modelled,
}

/// The text names no capacity type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no capacity type, use on-demand, spot or reserved")]
pub struct UnknownCapacityType(pub String);

impl InstanceType {
    /// What is left of `capacity` after the three deductions; an amount that would be negative is
    /// zero, since a node too small for its own overhead offers nothing.
    pub fn compute_allocatable(
        capacity: &Resources,
        kube_reserved: &Resources,
        system_reserved: &Resources,
        eviction_threshold: &Resources,
    ) -> Resources {
        let mut allocatable = capacity.clone();
        for overhead in [kube_reserved, system_reserved, eviction_threshold] {
            allocatable.subtract(overhead);
        }
        allocatable.max(&Resources::default());
        // An overhead of a resource which the machine lacks must not make it appear.
        allocatable.extended.retain(|(name, amount)| {
            *amount = (*amount).max(0);
            capacity.contains(name)
        });
        allocatable
    }

    /// The values this type can have for a label, sorted; empty if it does not have the label.
    pub fn label_values(&self, key: &str) -> &[CompactString] {
        match self.labels.binary_search_by(|label| label.key.cmp(key)) {
            Ok(index) => &self.labels[index].values,
            Err(_) => &[],
        }
    }

    /// The value of a label for which the type has exactly one.
    pub fn label(&self, key: &str) -> Option<&str> {
        match self.label_values(key) {
            [value] => Some(value.as_str()),
            _ => None,
        }
    }

    /// The cheapest offering that is available and satisfies `wanted`; of equal prices the first in
    /// the order of `offerings`.
    pub fn cheapest_offering(&self, wanted: impl Fn(&Offering) -> bool) -> Option<&Offering> {
        self.offerings
            .iter()
            .filter(|offering| offering.available && wanted(offering))
            .min_by_key(|offering| offering.price)
    }
}

impl CapacityType {
    /// Every capacity type, in order.
    pub const ALL: [CapacityType; 3] =
        [CapacityType::Reserved, CapacityType::Spot, CapacityType::OnDemand];

    /// The value of the label `karpenter.sh/capacity-type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            CapacityType::Reserved => "reserved",
            CapacityType::Spot => "spot",
            CapacityType::OnDemand => "on-demand",
        }
    }
}

impl fmt::Display for CapacityType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for CapacityType {
    type Err = UnknownCapacityType;

    fn from_str(text: &str) -> Result<CapacityType, UnknownCapacityType> {
        CapacityType::ALL
            .into_iter()
            .find(|capacity_type| capacity_type.as_str() == text)
            .ok_or_else(|| UnknownCapacityType(text.to_owned()))
    }
}

impl PriceSource {
    /// `published` or `modelled`.
    pub const fn as_str(self) -> &'static str {
        match self {
            PriceSource::Published => "published",
            PriceSource::Modelled => "modelled",
        }
    }
}

impl fmt::Display for PriceSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    fn offering(capacity_type: CapacityType, zone: &str, price: &str, available: bool) -> Offering {
        Offering {
            capacity_type,
            zone: zone.into(),
            zone_id: format!("{zone}-id").into(),
            price: price.parse().unwrap(),
            price_source: PriceSource::Published,
            available,
        }
    }

    fn example() -> InstanceType {
        InstanceType {
            name: "small".into(),
            labels: vec![
                InstanceTypeLabel {
                    key: "karpenter.k8s.aws/instance-tenancy",
                    values: smallvec!["dedicated".into(), "default".into()],
                },
                InstanceTypeLabel { key: "kubernetes.io/arch", values: smallvec!["arm64".into()] },
            ],
            capacity: Resources::default(),
            kube_reserved: Resources::default(),
            system_reserved: Resources::default(),
            eviction_threshold: Resources::default(),
            allocatable: Resources::default(),
            offerings: vec![
                offering(CapacityType::Spot, "a", "0.01", false),
                offering(CapacityType::Spot, "b", "0.02", true),
                offering(CapacityType::OnDemand, "a", "0.02", true),
            ],
        }
    }

    #[test]
    fn overhead_never_makes_allocatable_negative_or_invents_resources() {
        let mut capacity = Resources { cpu_milli: 1_000, memory_bytes: 100, ..Default::default() };
        capacity.set("nvidia.com/gpu", 1);
        let mut kube = Resources { cpu_milli: 60, memory_bytes: 300, ..Default::default() };
        kube.set("nvidia.com/gpu", 2);
        kube.set("example.com/widget", 1);
        let none = Resources::default();
        let allocatable = InstanceType::compute_allocatable(&capacity, &kube, &none, &none);
        assert_eq!((allocatable.cpu_milli, allocatable.memory_bytes), (940, 0));
        assert_eq!(allocatable.get("nvidia.com/gpu"), 0);
        assert!(!allocatable.contains("example.com/widget"));
        assert!(!allocatable.is_negative());
    }

    #[test]
    fn labels_are_found_by_key() {
        let machine = example();
        assert_eq!(machine.label("kubernetes.io/arch"), Some("arm64"));
        assert_eq!(machine.label("karpenter.k8s.aws/instance-tenancy"), None);
        assert_eq!(machine.label_values("karpenter.k8s.aws/instance-tenancy").len(), 2);
        assert!(machine.label_values("kubernetes.io/os").is_empty());
    }

    #[test]
    fn the_cheapest_offering_is_available_and_first_of_equals() {
        let machine = example();
        let cheapest = machine.cheapest_offering(|_| true).unwrap();
        assert_eq!((cheapest.capacity_type, cheapest.zone.as_str()), (CapacityType::Spot, "b"));
        let on_demand = |offer: &Offering| offer.capacity_type == CapacityType::OnDemand;
        assert_eq!(machine.cheapest_offering(on_demand).unwrap().zone, "a");
        assert!(machine.cheapest_offering(|offer| offer.zone == "c").is_none());
    }

    #[test]
    fn capacity_types_are_ordered_and_read_as_written() {
        assert!(CapacityType::Reserved < CapacityType::Spot);
        assert!(CapacityType::Spot < CapacityType::OnDemand);
        for capacity_type in CapacityType::ALL {
            assert_eq!(capacity_type.to_string().parse(), Ok(capacity_type));
            let json = serde_json::to_string(&capacity_type).unwrap();
            assert_eq!(json, format!("\"{capacity_type}\""));
        }
        assert_eq!(
            "ondemand".parse::<CapacityType>().unwrap_err().to_string(),
            "\"ondemand\" is no capacity type, use on-demand, spot or reserved"
        );
    }
}
