//! The EC2 catalogue of a region: machine types with labels, capacity, zones and prices.
//!
//! [`Catalog::load`] picks a region; [`Catalog::instance_types`] turns its types into the
//! vocabulary of the provisioning core for one node class. Nothing is read from disk or network:
//! the facts are in the program (`data/ec2.csv`), read when first needed.

mod attributes;
mod capacity;
mod data;
mod filter;
mod labels;
pub mod listing;
mod price;
mod region;
mod settings;

use wharf_model::auto_mode::families;
use wharf_model::instance_type::{CapacityType, InstanceType, Offering, PriceSource};
use wharf_model::money::Price;

pub use capacity::{
    AMD_GPU, AWS_EFA, AWS_NEURON, AWS_NEURON_CORE, AWS_POD_ENI, HABANA_GAUDI, NVIDIA_GPU,
};
pub use data::{Accelerator, Gpu, Machine, machines};
pub use region::{REGIONS, Region, UnknownRegion, Zone};
pub use settings::{
    AmiFamily, BadEvictionThreshold, BlockDevice, EvictionThreshold, InstanceStorePolicy,
    KubeletSettings, NodeSettings, UnknownAmiFamily,
};

/// The machine types that a region sells. Cheap to make and to copy.
#[derive(Clone, Copy, Debug)]
pub struct Catalog {
    region: &'static Region,
}

impl Catalog {
    /// The catalogue of the named region.
    ///
    /// # Errors
    /// [`UnknownRegion`] with the names that were perhaps meant.
    pub fn load(region: &str) -> Result<Catalog, UnknownRegion> {
        Region::find(region).map(|region| Catalog { region })
    }

    /// The region.
    pub fn region(&self) -> &'static Region {
        self.region
    }

    /// The zones of the region, by name.
    pub fn zones(&self) -> Vec<Zone> {
        self.region.zones()
    }

    /// How dear the region is in relation to us-east-1: numerator and denominator.
    pub fn price_factor(&self) -> (u32, u32) {
        self.region.price_factor
    }

    /// The machine types sold in the region, by name.
    pub fn machines(&self) -> impl Iterator<Item = &'static Machine> + use<> {
        let region = self.region;
        machines().iter().filter(move |machine| sold_in(region, machine).next().is_some())
    }

    /// The machine type of that name, if the region sells it.
    pub fn machine(&self, name: &str) -> Option<&'static Machine> {
        let index = machines().binary_search_by(|machine| machine.name.cmp(name)).ok()?;
        let machine = &machines()[index];
        sold_in(self.region, machine).next().map(|_| machine)
    }

    /// The on-demand price of a type, and whether it is a fact.
    pub fn on_demand_price(&self, machine: &Machine) -> (Price, PriceSource) {
        price::on_demand(self.region, machine)
    }

    /// What the region sells, as the provisioning core sees it for one node class: sorted by name,
    /// each with at least one offering. Types without an offering in the zones of the settings are
    /// left out.
    pub fn instance_types(&self, settings: &NodeSettings) -> Vec<InstanceType> {
        let zones = self.zones();
        self.machines()
            .filter_map(|machine| self.instance_type_in(machine, settings, &zones))
            .collect()
    }

    /// The one type of that name, as in [`Catalog::instance_types`].
    pub fn instance_type(&self, name: &str, settings: &NodeSettings) -> Option<InstanceType> {
        self.instance_type_in(self.machine(name)?, settings, &self.zones())
    }

    fn instance_type_in(
        &self,
        machine: &'static Machine,
        settings: &NodeSettings,
        zones: &[Zone],
    ) -> Option<InstanceType> {
        if settings.auto_mode && !families::is_supported(machine.name, machine.vcpus) {
            return None;
        }
        let offerings = self.offerings(machine, settings, zones);
        if offerings.is_empty() {
            return None;
        }
        let node = capacity::node_resources(machine, settings);
        Some(InstanceType {
            name: machine.name.into(),
            labels: match settings.auto_mode {
                true => labels::auto_mode(machine, self.region.name),
                false => labels::labels(machine, self.region.name),
            },
            allocatable: InstanceType::compute_allocatable(
                &node.capacity,
                &node.kube_reserved,
                &node.system_reserved,
                &node.eviction_threshold,
            ),
            capacity: node.capacity,
            kube_reserved: node.kube_reserved,
            system_reserved: node.system_reserved,
            eviction_threshold: node.eviction_threshold,
            offerings,
        })
    }

    fn offerings(
        &self,
        machine: &Machine,
        settings: &NodeSettings,
        zones: &[Zone],
    ) -> Vec<Offering> {
        let (on_demand, source) = self.on_demand_price(machine);
        let sold: Vec<&Zone> = sold_in(self.region, machine)
            .filter_map(|letter| zones.iter().find(|zone| zone.name.ends_with(letter)))
            .filter(|zone| settings.zones.as_ref().is_none_or(|wanted| wanted.contains(&zone.name)))
            .collect();
        let offering = |capacity_type, zone: &Zone, price, price_source| Offering {
            capacity_type,
            zone: zone.name.clone(),
            zone_id: zone.id.clone(),
            price,
            price_source,
            available: true,
        };
        let mut offerings = Vec::with_capacity(2 * sold.len());
        if machine.spot {
            offerings.extend(sold.iter().map(|zone| {
                let price = price::spot(machine, &zone.name, on_demand);
                offering(CapacityType::Spot, zone, price, PriceSource::Modelled)
            }));
        }
        offerings.extend(
            sold.iter().map(|zone| offering(CapacityType::OnDemand, zone, on_demand, source)),
        );
        offerings
    }
}

/// The letters of the zones that sell a type: facts for us-east-1 and ap-northeast-2, elsewhere
/// modelled as the region's first three.
fn sold_in(region: &'static Region, machine: &Machine) -> impl Iterator<Item = char> + use<> {
    let letters = match region.name {
        "us-east-1" => Some(machine.zones_us_east_1),
        "ap-northeast-2" => Some(machine.zones_ap_northeast_2),
        _ => None,
    };
    let limit = if letters.is_some() { usize::MAX } else { 3 };
    region
        .zone_letters()
        .filter(move |letter| letters.is_none_or(|letters| letters.contains(*letter)))
        .take(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(region: &str) -> Catalog {
        Catalog::load(region).unwrap()
    }

    #[test]
    fn us_east_1_sells_every_type() {
        let types = catalog("us-east-1").instance_types(&NodeSettings::default());
        assert_eq!(types.len(), 1_340);
        assert!(types.windows(2).all(|pair| pair[0].name < pair[1].name));
        for machine in &types {
            assert!(!machine.offerings.is_empty(), "{}", machine.name);
            let key = |offering: &Offering| (offering.capacity_type, offering.zone.clone());
            assert!(machine.offerings.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])));
            for offering in &machine.offerings {
                let spot = offering.capacity_type == CapacityType::Spot;
                assert_eq!(offering.price_source == PriceSource::Modelled, spot);
            }
        }
    }

    #[test]
    fn seoul_sells_what_the_data_says() {
        let catalog = catalog("ap-northeast-2");
        assert_eq!(catalog.instance_types(&NodeSettings::default()).len(), 742);
        assert!(catalog.machine("a1.large").is_none());
        let c5a = catalog.instance_type("c5a.2xlarge", &NodeSettings::default()).unwrap();
        let zones: Vec<_> = c5a
            .offerings
            .iter()
            .filter(|offering| offering.capacity_type == CapacityType::OnDemand)
            .map(|offering| (offering.zone.as_str(), offering.zone_id.as_str()))
            .collect();
        assert_eq!(
            zones,
            [
                ("ap-northeast-2a", "apne2-az1"),
                ("ap-northeast-2b", "apne2-az2"),
                ("ap-northeast-2c", "apne2-az3"),
            ]
        );
        let cheapest = c5a.cheapest_offering(|o| o.capacity_type == CapacityType::OnDemand);
        assert_eq!(cheapest.unwrap().price.to_string(), "0.344");
    }

    #[test]
    fn other_regions_sell_everything_in_three_zones_at_modelled_prices() {
        for region in REGIONS {
            if ["us-east-1", "ap-northeast-2"].contains(&region.name) {
                continue;
            }
            let catalog = catalog(region.name);
            assert_eq!(catalog.machines().count(), 1_340, "{}", region.name);
            let m5 = catalog.instance_type("m5.large", &NodeSettings::default()).unwrap();
            assert_eq!(m5.offerings.len(), 2 * region.zones().len().min(3), "{}", region.name);
            assert!(m5.offerings.iter().all(|o| o.price_source == PriceSource::Modelled));
            assert_eq!(m5.label("topology.kubernetes.io/region"), Some(region.name));
        }
    }

    #[test]
    fn only_zones_with_subnets_are_offered() {
        let settings = |zones: &[&str]| NodeSettings {
            zones: Some(zones.iter().map(|zone| (*zone).into()).collect()),
            ..Default::default()
        };
        let catalog = catalog("us-east-1");
        let c5a = catalog.instance_type("c5a.large", &settings(&["us-east-1b"])).unwrap();
        assert!(c5a.offerings.iter().all(|offering| offering.zone == "us-east-1b"));
        assert_eq!(c5a.offerings.len(), 2);
        assert!(catalog.instance_type("c5a.large", &settings(&["us-east-1e"])).is_none());
        assert!(catalog.instance_types(&settings(&[])).is_empty());
    }

    #[test]
    fn auto_mode_takes_fewer_types_and_says_the_same_of_them_in_its_own_words() {
        let catalog = catalog("ap-northeast-2");
        let zones = catalog.zones().into_iter().map(|zone| zone.name).collect();
        let settings = NodeSettings::auto_mode(80 << 30, zones);
        let c5a = catalog.instance_type("c5a.large", &settings).unwrap();
        assert_eq!(c5a.allocatable.cpu_milli, 1_480);
        assert_eq!(c5a.allocatable.cpu_milli + c5a.system_reserved.cpu_milli, 1_930);
        assert_eq!(c5a.capacity.ephemeral_storage_bytes, 80 << 30);
        for (key, value) in [
            ("eks.amazonaws.com/compute-type", Some("auto")),
            ("app.kubernetes.io/managed-by", Some("eks")),
            ("eks.amazonaws.com/instance-category", Some("c")),
            ("eks.amazonaws.com/instance-generation", Some("5")),
            ("eks.amazonaws.com/instance-memory", Some("4096")),
            ("karpenter.k8s.aws/instance-category", None),
            ("kubernetes.io/arch", Some("amd64")),
        ] {
            assert_eq!(c5a.label(key), value, "{key}");
        }
        let types = catalog.instance_types(&settings);
        assert!(types.len() > 300, "{}", types.len());
        for machine in &types {
            assert!(machine.capacity.cpu_milli > 1_000 && machine.capacity.pods <= 110);
            assert!(machine.labels.windows(2).all(|pair| pair[0].key < pair[1].key));
            assert!(machine.labels.iter().all(|label| !label.key.contains("karpenter.k8s.aws")));
        }
        for left_out in ["t3.small", "c6g.medium", "u-6tb1.112xlarge"] {
            assert!(catalog.instance_type(left_out, &settings).is_none(), "{left_out}");
        }
        let large = catalog.instance_type("c5a.24xlarge", &settings).unwrap();
        assert_eq!(large.capacity.pods, 110);
    }

    #[test]
    fn types_that_are_not_sold_as_spot_have_no_spot_offering() {
        let t2 = catalog("us-east-1").instance_type("t2.nano", &NodeSettings::default()).unwrap();
        assert!(t2.offerings.iter().all(|o| o.capacity_type == CapacityType::OnDemand));
        assert!(catalog("us-east-1").machine("c5a.huge").is_none());
    }
}
