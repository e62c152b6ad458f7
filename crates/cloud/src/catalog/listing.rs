//! `wharf catalog` without its shell: machine types with what they offer and cost, as a table for
//! people or as JSON for scripts.
//!
//! In tables a `~` marks a modelled price; JSON says `priceSource` beside each.

use std::fmt::Write as _;

use compact_str::CompactString;
use serde::{Serialize, Serializer};
use wharf_model::instance_type::{CapacityType, InstanceType, Offering, PriceSource};
use wharf_model::money::Price;
use wharf_model::quantity::{Format, Quantity};
use wharf_model::resources::Resources;

use super::attributes::Candidate;
use super::data::Machine;
use super::filter::Filter;
use super::{Catalog, NodeSettings, UnknownRegion};

pub use super::filter::FilterError;

/// What to list and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListingArgs<'a> {
    /// The region whose offers and prices are meant.
    pub region: &'a str,
    /// Which types: terms as in `c5a.* cpu>=8 memory<=32Gi`, separated by spaces or commas, all of
    /// which must hold. Empty for all.
    pub filter: &'a str,
    /// In which form.
    pub format: ListingFormat,
}

/// The form of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListingFormat {
    /// A table of the most important columns.
    #[default]
    Table,
    /// A table with spot prices, devices and the source of prices.
    Wide,
    /// `{"items":[…]}`.
    Json,
}

/// Why there is no listing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// No such region.
    #[error(transparent)]
    Region(#[from] UnknownRegion),
    /// The filter cannot be understood.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// The listing as text that ends with a newline. Types are ordered by family, then size. When no
/// type matches, a table has only its header and JSON an empty list.
///
/// # Errors
/// An unknown region or a filter that cannot be understood.
pub fn listing(args: ListingArgs<'_>) -> Result<String, ListingError> {
    let catalog = Catalog::load(args.region)?;
    let filter = Filter::parse(args.filter)?;
    let settings = NodeSettings::default();
    let mut rows: Vec<Row> = catalog
        .machines()
        .filter_map(|machine| {
            let instance_type = catalog.instance_type(machine.name, &settings)?;
            let (on_demand, source) = catalog.on_demand_price(machine);
            let candidate = Candidate { machine, instance_type: &instance_type, on_demand };
            let wanted = filter.matches(candidate);
            wanted.then_some(Row { machine, instance_type, on_demand, source })
        })
        .collect();
    rows.sort_by_key(|row| {
        let machine = row.machine;
        (machine.family(), machine.bare_metal, machine.vcpus, machine.memory_mib, machine.name)
    });
    Ok(match args.format {
        ListingFormat::Table => table(&rows, false),
        ListingFormat::Wide => table(&rows, true),
        ListingFormat::Json => json(&rows, catalog.region().name),
    })
}

struct Row {
    machine: &'static Machine,
    instance_type: InstanceType,
    on_demand: Price,
    source: PriceSource,
}

impl Row {
    fn offered(&self, capacity_type: CapacityType) -> impl Iterator<Item = &Offering> {
        let offerings = self.instance_type.offerings.iter();
        offerings.filter(move |offering| offering.capacity_type == capacity_type)
    }

    fn zone_letters(&self) -> String {
        let last = |offering: &Offering| offering.zone.chars().last();
        self.offered(CapacityType::OnDemand).filter_map(last).collect()
    }

    fn spot_range(&self) -> String {
        let prices = || self.offered(CapacityType::Spot).map(|offering| offering.price);
        match (prices().min(), prices().max()) {
            (Some(low), Some(high)) if low == high => format!("~{low}"),
            (Some(low), Some(high)) => format!("~{low}-{high}"),
            _ => "-".to_owned(),
        }
    }

    fn devices(&self) -> String {
        let gpu = self.machine.gpu.map(|gpu| (gpu.count, gpu.name));
        let accelerator = self.machine.accelerator.map(|device| (device.count, device.name));
        match gpu.or(accelerator) {
            Some((0, name)) => format!("part of {name}"),
            Some((count, name)) => format!("{count} {name}"),
            None => "-".to_owned(),
        }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let allocatable = &self.instance_type.allocatable;
        let modelled = if self.source == PriceSource::Modelled { "~" } else { "" };
        let mut cells = vec![
            self.machine.name.to_owned(),
            self.machine.arch.to_owned(),
            self.machine.vcpus.to_string(),
            memory(self.machine),
            cpu_text(allocatable.cpu_milli),
            bytes_text(allocatable.memory_bytes),
            allocatable.pods.to_string(),
            format!("{modelled}{}", self.on_demand),
            self.zone_letters(),
        ];
        if wide {
            let machine = self.machine;
            let known = |value: Option<u32>, unit: &str| {
                value.map_or("-".to_owned(), |value| format!("{value} {unit}"))
            };
            let nvme = machine.instance_store_gb.filter(|_| machine.instance_store_nvme);
            cells.extend([
                self.spot_range(),
                known(machine.network_mbps, "Mbit/s"),
                known(nvme, "GB"),
                self.devices(),
                self.source.to_string(),
            ]);
        }
        cells
    }
}

const COLUMNS: [&str; 9] = [
    "INSTANCE TYPE",
    "ARCH",
    "VCPU",
    "MEMORY",
    "ALLOCATABLE CPU",
    "ALLOCATABLE MEMORY",
    "PODS",
    "USD/H",
    "ZONES",
];
const WIDE_COLUMNS: [&str; 5] = ["SPOT USD/H", "NETWORK", "NVME", "GPU", "PRICE SOURCE"];

fn table(rows: &[Row], wide: bool) -> String {
    let extra: &[&str] = if wide { &WIDE_COLUMNS } else { &[] };
    let header = COLUMNS.iter().chain(extra).map(|title| (*title).to_owned()).collect();
    let mut lines: Vec<Vec<String>> = vec![header];
    lines.extend(rows.iter().map(|row| row.cells(wide)));
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in &lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            write!(padded, "{cell:width$}   ").expect("writing to a string cannot fail");
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

fn json(rows: &[Row], region: &'static str) -> String {
    let items = rows.iter().map(|row| Item::new(row, region)).collect();
    let mut text = serde_json::to_string_pretty(&Items { items })
        .expect("texts, numbers and lists of them are always JSON");
    text.push('\n');
    text
}

#[derive(Serialize)]
struct Items<'a> {
    items: Vec<Item<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    instance_type: &'a str,
    region: &'a str,
    arch: &'a str,
    vcpus: u32,
    memory: String,
    allocatable: ResourceList,
    capacity: ResourceList,
    usd_per_hour: Price,
    price_source: PriceSource,
    zones: Vec<&'a str>,
    spot: Vec<SpotItem<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpotItem<'a> {
    zone: &'a str,
    usd_per_hour: Price,
    price_source: PriceSource,
}

impl<'a> Item<'a> {
    fn new(row: &'a Row, region: &'static str) -> Item<'a> {
        Item {
            instance_type: row.machine.name,
            region,
            arch: row.machine.arch,
            vcpus: row.machine.vcpus,
            memory: memory(row.machine),
            allocatable: ResourceList::new(&row.instance_type.allocatable),
            capacity: ResourceList::new(&row.instance_type.capacity),
            usd_per_hour: row.on_demand,
            price_source: row.source,
            zones: row.offered(CapacityType::OnDemand).map(|o| o.zone.as_str()).collect(),
            spot: row
                .offered(CapacityType::Spot)
                .map(|offering| SpotItem {
                    zone: &offering.zone,
                    usd_per_hour: offering.price,
                    price_source: offering.price_source,
                })
                .collect(),
        }
    }
}

/// A Kubernetes ResourceList: quantities by name, the well-known ones first.
struct ResourceList(Vec<(CompactString, String)>);

impl ResourceList {
    fn new(resources: &Resources) -> ResourceList {
        let mut list = vec![
            ("cpu".into(), cpu_text(resources.cpu_milli)),
            ("memory".into(), bytes_text(resources.memory_bytes)),
            ("pods".into(), resources.pods.to_string()),
            ("ephemeral-storage".into(), bytes_text(resources.ephemeral_storage_bytes)),
        ];
        let extended = resources.extended.iter();
        list.extend(extended.map(|(name, amount)| (name.clone(), amount.to_string())));
        ResourceList(list)
    }
}

impl Serialize for ResourceList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, amount)| (name, amount)))
    }
}

fn memory(machine: &Machine) -> String {
    bytes_text(i64::try_from(machine.memory_mib << 20).unwrap_or(i64::MAX))
}

fn cpu_text(milli: i64) -> String {
    Quantity::from_milli(milli).to_string()
}

fn bytes_text(bytes: i64) -> String {
    Quantity::from_units(bytes, Format::BinarySi).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(region: &str, filter: &str, format: ListingFormat) -> String {
        listing(ListingArgs { region, filter, format }).unwrap()
    }

    fn items(region: &str, filter: &str) -> Vec<serde_json::Value> {
        let text = list(region, filter, ListingFormat::Json);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["items"].as_array().unwrap().clone()
    }

    #[test]
    fn the_table_shows_what_a_type_offers_and_costs() {
        let expected = "\
INSTANCE TYPE   ARCH    VCPU   MEMORY   ALLOCATABLE CPU   ALLOCATABLE MEMORY   PODS   USD/H   ZONES
c5a.large       amd64   2      4Gi      1930m             3114Mi               29     0.077   abcdf
c5a.2xlarge     amd64   8      16Gi     7910m             14162Mi              58     0.308   abcdf
";
        let table = list("us-east-1", "name=c5a.large|c5a.2xlarge", ListingFormat::Table);
        assert_eq!(table, expected);
    }

    #[test]
    fn modelled_prices_are_marked() {
        let table = list("eu-west-1", "name=c5a.large", ListingFormat::Table);
        assert!(table.contains("   ~0.0859   abc\n"), "{table}");
        let wide = list("us-east-1", "name=g5.12xlarge", ListingFormat::Wide);
        let line = wide.lines().nth(1).unwrap();
        assert!(line.contains("   5.672   abcdf   ~"), "{line}");
        assert!(line.ends_with("   40000 Mbit/s   3800 GB   4 a10g   published"), "{line}");
        let wide = list("us-east-1", "name=g6f.large|t2.nano", ListingFormat::Wide);
        assert!(wide.contains("part of l4"), "{wide}");
        assert!(wide.contains("abcdef   -   "), "{wide}");
    }

    #[test]
    fn json_has_the_agreed_fields() {
        let items = items("us-east-1", "c5a.2xlarge");
        assert_eq!(items.len(), 1);
        let item = &items[0];
        assert_eq!(item["instanceType"], "c5a.2xlarge");
        assert_eq!(item["allocatable"]["cpu"], "7910m");
        assert_eq!(item["allocatable"]["memory"], "14162Mi");
        assert_eq!(item["allocatable"]["pods"], "58");
        assert_eq!(item["allocatable"]["ephemeral-storage"], "17Gi");
        assert_eq!(item["allocatable"]["vpc.amazonaws.com/pod-eni"], "38");
        assert_eq!(item["capacity"]["cpu"], "8");
        assert_eq!(item["capacity"]["memory"], "15155Mi");
        assert_eq!(item["usdPerHour"], "0.308");
        assert_eq!(item["priceSource"], "published");
        assert_eq!(item["vcpus"], 8);
        assert_eq!(item["memory"], "16Gi");
        assert_eq!(item["zones"][4], "us-east-1f");
        assert_eq!(item["spot"].as_array().unwrap().len(), 5);
        assert_eq!(item["spot"][0]["priceSource"], "modelled");
    }

    #[test]
    fn every_type_is_listed_and_nothing_matches_nothing() {
        assert_eq!(items("us-east-1", "").len(), 1_340);
        assert_eq!(items("ap-northeast-2", "").len(), 742);
        assert!(items("us-east-1", "nosuchtype").is_empty());
        let table = list("us-east-1", "nosuchtype", ListingFormat::Table);
        assert_eq!(table.lines().count(), 1);
    }

    #[test]
    fn sizes_follow_each_other() {
        let order: Vec<String> = items("us-east-1", "a1.*")
            .iter()
            .map(|item| item["instanceType"].as_str().unwrap().to_owned())
            .collect();
        let sizes = ["medium", "large", "xlarge", "2xlarge", "4xlarge", "metal"];
        assert_eq!(order, sizes.map(|size| format!("a1.{size}")));
    }

    #[test]
    fn errors_are_one_clear_line() {
        let error = |region, filter| {
            let args = ListingArgs { region, filter, format: ListingFormat::Table };
            listing(args).unwrap_err().to_string()
        };
        assert_eq!(
            error("us-esat-2", ""),
            "unknown region \"us-esat-2\", did you mean us-east-2, us-west-2 or us-east-1?"
        );
        assert!(error("us-east-1", "colour=red").starts_with("filter \"colour=red\": unknown key"));
    }
}
