//! What a machine type costs in a region.
//!
//! Facts are the on-demand prices of us-east-1 (July 2026) and the few points of other regions in
//! [`KNOWN`]. Everything else is modelled and says so:
//!
//! - **On demand elsewhere:** the price of us-east-1 times a factor, of the family where one of its
//!   prices is known there, else of the region; rounded to four digits after the point, as list
//!   prices are.
//! - **Spot:** a fraction of the on-demand price, fixed per zone and type: 30 to 55 % by the family
//!   and zone, since a spot pool's depth follows its hardware, plus 0 to 5 % by the type. The
//!   fraction is a hash of the names, so it is the same in every run and on every machine.

use wharf_model::instance_type::PriceSource;
use wharf_model::money::Price;

use super::data::Machine;
use super::region::Region;

/// Published on-demand prices outside us-east-1: region, type, price there and in us-east-1, both
/// in units of 0.0001 dollars per hour.
const KNOWN: &[(&str, &str, u32, u32)] = &[
    ("ap-northeast-2", "c5a.large", 860, 770),
    ("ap-northeast-2", "c5a.2xlarge", 3_440, 3_080),
    ("ap-northeast-2", "c6g.large", 770, 680),
    ("ap-northeast-2", "g5.xlarge", 12_370, 10_060),
    ("ap-northeast-2", "t3.medium", 520, 416),
];

/// The digits after the point of a modelled price.
const MODELLED_DIGITS: usize = 4;
/// The lowest modelled price, one unit of the last digit: nothing is free.
const MODELLED_MIN: Price = Price::from_nano_dollars_per_hour(100_000);

/// The on-demand price in a region and where it comes from.
pub(super) fn on_demand(region: &Region, machine: &Machine) -> (Price, PriceSource) {
    if region.name == "us-east-1" {
        return (machine.usd_us_east_1, PriceSource::Published);
    }
    let known = || KNOWN.iter().filter(|(name, ..)| *name == region.name);
    if let Some((_, _, price, _)) = known().find(|(_, name, ..)| *name == machine.name) {
        let nano = i64::from(*price) * 100_000;
        return (Price::from_nano_dollars_per_hour(nano), PriceSource::Published);
    }
    let same_family = |name: &str| name.split_once('.').is_some_and(|(f, _)| f == machine.family());
    let (numerator, denominator) = known()
        .find(|(_, name, ..)| same_family(name))
        .map_or(region.price_factor, |(_, _, there, here)| (*there, *here));
    (modelled(machine.usd_us_east_1.scale(numerator, denominator)), PriceSource::Modelled)
}

/// The modelled spot price in a zone, given the on-demand price there.
pub(super) fn spot(machine: &Machine, zone: &str, on_demand: Price) -> Price {
    modelled(on_demand.scale(spot_per_mille(machine, zone), 1_000))
}

/// The fraction of the on-demand price, in thousandths: 300 to 600.
fn spot_per_mille(machine: &Machine, zone: &str) -> u32 {
    let pool = hash(&[machine.family(), zone]) % 251;
    let size = hash(&[machine.name, zone]) % 51;
    300 + u32::try_from(pool + size).expect("the sum of two small remainders is small")
}

fn modelled(price: Price) -> Price {
    price.round_to_digits(MODELLED_DIGITS).max(MODELLED_MIN)
}

/// FNV-1a over the texts with a separator, then the finalizer of splitmix64, because FNV alone
/// leaves the low bits of short texts alike.
fn hash(texts: &[&str]) -> u64 {
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    for text in texts {
        for byte in text.bytes().chain([0xff]) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::data::machines;
    use super::super::region::REGIONS;
    use super::*;

    fn machine(name: &str) -> &'static Machine {
        machines().iter().find(|machine| machine.name == name).unwrap()
    }

    fn price_in(region: &str, name: &str) -> (String, PriceSource) {
        let (price, source) = on_demand(Region::find(region).unwrap(), machine(name));
        (price.to_string(), source)
    }

    #[test]
    fn known_prices_are_exact_and_the_rest_is_modelled() {
        use PriceSource::{Modelled, Published};
        let table = [
            ("us-east-1", "c5a.2xlarge", "0.308", Published),
            ("us-east-1", "p4d.24xlarge", "21.957642", Published),
            ("ap-northeast-2", "c5a.large", "0.086", Published),
            ("ap-northeast-2", "c5a.2xlarge", "0.344", Published),
            ("ap-northeast-2", "t3.medium", "0.052", Published),
            ("ap-northeast-2", "g5.xlarge", "1.237", Published),
            ("ap-northeast-2", "c5a.4xlarge", "0.688", Modelled),
            ("ap-northeast-2", "t3.large", "0.104", Modelled),
            ("ap-northeast-2", "m5.large", "0.1072", Modelled),
            ("us-east-2", "m5.large", "0.096", Modelled),
            ("sa-east-1", "m5.large", "0.1531", Modelled),
        ];
        for (region, name, price, source) in table {
            assert_eq!(price_in(region, name), (price.to_owned(), source), "{region} {name}");
        }
    }

    #[test]
    fn known_prices_repeat_the_us_east_1_price_of_the_data_file() {
        for (region, name, _, here) in KNOWN {
            assert!(Region::find(region).is_ok());
            let nano = machine(name).usd_us_east_1.nano_dollars_per_hour();
            assert_eq!(nano, i64::from(*here) * 100_000, "{name}");
        }
    }

    #[test]
    fn spot_costs_a_third_to_two_thirds_of_on_demand_everywhere() {
        let mut seen = std::collections::BTreeSet::new();
        for region in REGIONS {
            for machine in machines() {
                let (on_demand, _) = on_demand(region, machine);
                for zone in region.zones() {
                    let per_mille = spot_per_mille(machine, &zone.name);
                    assert!((300..=600).contains(&per_mille));
                    seen.insert(per_mille);
                    let price = spot(machine, &zone.name, on_demand);
                    assert!(price > Price::ZERO && price < on_demand, "{}", machine.name);
                }
            }
        }
        assert!(seen.len() > 250, "the fractions spread over the range, not {}", seen.len());
    }

    #[test]
    fn spot_prices_never_change() {
        let on_demand = machine("c5a.2xlarge").usd_us_east_1;
        let spot = |zone| spot(machine("c5a.2xlarge"), zone, on_demand).to_string();
        assert_eq!([spot("us-east-1a"), spot("us-east-1b")], ["0.1515", "0.1712"]);
    }
}
