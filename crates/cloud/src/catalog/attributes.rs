//! What machine types can be filtered by: the keys of a filter's comparisons and how to read them.

use wharf_model::instance_type::{CapacityType, InstanceType};
use wharf_model::money::Price;
use wharf_model::quantity::Quantity;

use super::data::Machine;
use super::labels::category_and_generation;

/// What can be compared: the key, other names for it, and how to read it.
pub(super) const ATTRIBUTES: &[(&str, &[&str], Attribute)] = &[
    ("name", &["type", "instance-type"], Attribute::Text(|c, each| each(c.machine.name))),
    ("arch", &["architecture"], Attribute::Text(|c, each| each(c.machine.arch))),
    (
        "cpu",
        &["vcpu", "vcpus", "cpus"],
        Attribute::Number(Unit::Count, |c| Some(i64::from(c.machine.vcpus))),
    ),
    (
        "memory",
        &["mem"],
        Attribute::Number(Unit::Bytes, |c| i64::try_from(c.machine.memory_mib << 20).ok()),
    ),
    ("pods", &[], Attribute::Number(Unit::Count, |c| Some(c.instance_type.allocatable.pods))),
    (
        "price",
        &["usd"],
        Attribute::Number(Unit::Dollars, |c| Some(c.on_demand.nano_dollars_per_hour())),
    ),
    (
        "category",
        &[],
        Attribute::Text(|c, each| {
            if let Some((category, _)) = category_and_generation(c.machine.name) {
                each(category);
            }
        }),
    ),
    (
        "generation",
        &["gen"],
        Attribute::Number(Unit::Count, |c| category_and_generation(c.machine.name)?.1.parse().ok()),
    ),
    ("family", &[], Attribute::Text(|c, each| each(c.machine.family()))),
    ("size", &[], Attribute::Text(|c, each| each(c.machine.size()))),
    (
        "manufacturer",
        &["cpu-manufacturer"],
        Attribute::Text(|c, each| {
            each(c.machine.cpu_manufacturer);
        }),
    ),
    ("clock", &[], Attribute::Number(Unit::Count, |c| Some(i64::from(c.machine.clock_mhz)))),
    ("network", &[], Attribute::Number(Unit::Count, |c| c.machine.network_mbps.map(i64::from))),
    ("ebs", &[], Attribute::Number(Unit::Count, |c| c.machine.ebs_mbps.map(i64::from))),
    (
        "nvme",
        &[],
        Attribute::Number(Unit::Count, |c| {
            let nvme = c.machine.instance_store_nvme;
            Some(c.machine.instance_store_gb.filter(|_| nvme).map_or(0, i64::from))
        }),
    ),
    (
        "gpus",
        &["gpu-count"],
        Attribute::Number(Unit::Count, |c| {
            Some(c.machine.gpu.map_or(0, |gpu| i64::from(gpu.count)))
        }),
    ),
    (
        "gpu",
        &["gpu-name"],
        Attribute::Text(|c, each| {
            if let Some(gpu) = c.machine.gpu {
                each(gpu.name);
            }
        }),
    ),
    (
        "accelerator",
        &["accelerator-name"],
        Attribute::Text(|c, each| {
            if let Some(accelerator) = c.machine.accelerator {
                each(accelerator.name);
            }
        }),
    ),
    ("hypervisor", &[], Attribute::Text(|c, each| each(c.machine.hypervisor))),
    ("metal", &[], Attribute::Text(|c, each| each(yes_no(c.machine.bare_metal)))),
    ("burstable", &[], Attribute::Text(|c, each| each(yes_no(c.machine.burstable)))),
    ("current", &[], Attribute::Text(|c, each| each(yes_no(c.machine.current_generation)))),
    (
        "spot",
        &[],
        Attribute::Text(|c, each| {
            let offerings = &c.instance_type.offerings;
            let spot =
                offerings.iter().any(|offering| offering.capacity_type == CapacityType::Spot);
            each(yes_no(spot));
        }),
    ),
    (
        "capacity-type",
        &["karpenter.sh/capacity-type"],
        Attribute::Text(|c, each| {
            for offering in &c.instance_type.offerings {
                each(offering.capacity_type.as_str());
            }
        }),
    ),
    (
        "zone",
        &["zones", "topology.kubernetes.io/zone", "topology.k8s.aws/zone-id"],
        Attribute::Text(|c, each| {
            for offering in &c.instance_type.offerings {
                each(&offering.zone);
                each(&offering.zone_id);
                each(&offering.zone[offering.zone.len() - 1..]);
            }
        }),
    ),
];

/// One type as terms look at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) machine: &'static Machine,
    pub(super) instance_type: &'a InstanceType,
    pub(super) on_demand: Price,
}

/// How to read one thing that types differ in.
pub(super) enum Attribute {
    Text(ReadTexts),
    Number(Unit, ReadNumber),
}

/// What a number counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Count,
    Bytes,
    Dollars,
}

/// Calls back with each value that a type has.
pub(super) type ReadTexts = fn(Candidate<'_>, &mut dyn FnMut(&str));

/// The number that a type has, if it is known.
pub(super) type ReadNumber = fn(Candidate<'_>) -> Option<i64>;

impl Unit {
    /// The value written as text, if it is one.
    pub(super) fn parse(self, text: &str) -> Option<i64> {
        match self {
            Unit::Count => text.parse().ok(),
            Unit::Bytes => parse_bytes(text),
            Unit::Dollars => {
                let price: Price = text.strip_prefix('$').unwrap_or(text).parse().ok()?;
                Some(price.nano_dollars_per_hour())
            }
        }
    }

    /// What a text should have been, for errors.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Unit::Count => "a whole number",
            Unit::Bytes => "an amount of memory with its unit, such as 32Gi or 512Mi",
            Unit::Dollars => "a price in dollars per hour, such as 0.308",
        }
    }
}

/// A number with a unit. A bare number is refused: of bytes, MiB and GiB each would be somebody's
/// guess.
fn parse_bytes(text: &str) -> Option<i64> {
    // A quantity may lack its digits or have a sign; here both are mistakes.
    let is_amount = text.starts_with(|first: char| first.is_ascii_digit())
        && text.ends_with(['i', 'M', 'G', 'T']);
    if is_amount { Quantity::parse(text).ok().map(|quantity| quantity.value_ceil()) } else { None }
}

fn yes_no(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_needs_its_unit() {
        assert_eq!(parse_bytes("32Gi"), Some(32 << 30));
        assert_eq!(parse_bytes("1T"), Some(1_000_000_000_000));
        assert_eq!(parse_bytes("1.5Gi"), Some(3 << 29));
        for text in ["", "Gi", "32", "32000000k", "1.2.3Gi", "-1Gi"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn no_key_means_two_things() {
        let mut keys: Vec<&str> = ATTRIBUTES
            .iter()
            .flat_map(|(name, others, _)| std::iter::once(name).chain(others.iter()).copied())
            .collect();
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
