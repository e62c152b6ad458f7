//! What a micro-VM costs: its vCPU, its memory, and its storage beyond the first 20 GB, each by the
//! hour, billed by the second with a minimum of one minute, on the size provisioned.
//!
//! The price list has the two regions whose prices are known from AWS; elsewhere they follow those of
//! us-east-1 by the region's factor and are modelled. <https://aws.amazon.com/fargate/pricing/>

use wharf_model::money::{Billing, Price};

use crate::size::Size;
use crate::storage::DEFAULT_GIB;

/// By the second, at least a minute.
pub const BILLING: Billing = Billing { granularity_ns: SECOND_NS, minimum_ns: 60 * SECOND_NS };
const SECOND_NS: u64 = 1_000_000_000;

/// The prices of a region: Linux on x86, as EKS has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// Of one vCPU.
    pub vcpu: Price,
    /// Of one GB of memory.
    pub memory_gb: Price,
    /// Of one GB of storage.
    pub storage_gb: Price,
}

/// us-east-1.
const NORTH_VIRGINIA: Prices = prices(40_480_000, 4_445_000, 111_000);
/// ap-northeast-2. What storage costs there is modelled: as in Tokyo.
const SEOUL: Prices = prices(46_560_000, 5_110_000, 133_000);

const fn prices(vcpu: i64, memory_gb: i64, storage_gb: i64) -> Prices {
    Prices {
        vcpu: Price::from_nano_dollars_per_hour(vcpu),
        memory_gb: Price::from_nano_dollars_per_hour(memory_gb),
        storage_gb: Price::from_nano_dollars_per_hour(storage_gb),
    }
}

impl Prices {
    /// The prices of a region; for one whose prices are not known, those of us-east-1 times
    /// `factor` (numerator and denominator).
    pub fn of(region: &str, factor: (u32, u32)) -> Self {
        match region {
            "us-east-1" => NORTH_VIRGINIA,
            "ap-northeast-2" => SEOUL,
            _ => {
                let scaled = |price: Price| price.scale(factor.0, factor.1);
                Self {
                    vcpu: scaled(NORTH_VIRGINIA.vcpu),
                    memory_gb: scaled(NORTH_VIRGINIA.memory_gb),
                    storage_gb: scaled(NORTH_VIRGINIA.storage_gb),
                }
            }
        }
    }

    /// What a VM costs an hour.
    pub fn price(&self, size: Size, storage_gib: u32) -> Price {
        let storage = storage_gib.saturating_sub(DEFAULT_GIB);
        [
            self.vcpu.scale(size.cpu_milli, 1_000),
            self.memory_gb.scale(size.memory_mib, 1_024),
            self.storage_gb.scale(storage, 1),
        ]
        .into_iter()
        .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(region: &str, size: &str, storage: u32) -> String {
        let size = size.parse().expect("a size");
        Prices::of(region, (1_115, 1_000)).price(size, storage).to_string()
    }

    #[test]
    fn prices_are_those_of_the_list() {
        for (region, size, storage, expected) in [
            ("ap-northeast-2", "0.25vCPU 0.5GB", 20, "0.014195"),
            ("ap-northeast-2", "1vCPU 2GB", 20, "0.05678"),
            ("ap-northeast-2", "0.5vCPU 1GB", 20, "0.02839"),
            ("us-east-1", "0.25vCPU 0.5GB", 20, "0.0123425"),
            ("us-east-1", "1vCPU 2GB", 120, "0.06047"),
            ("us-east-1", "16vCPU 120GB", 20, "1.18108"),
            // Modelled: us-east-1's times 1.115.
            ("eu-west-1", "1vCPU 2GB", 20, "0.05504755"),
        ] {
            assert_eq!(price(region, size, storage), expected, "{region} {size} {storage}");
        }
    }

    #[test]
    fn billed_by_the_second_after_a_minute() {
        let price = Price::from_nano_dollars_per_hour(3_600_000_000_000);
        for (milliseconds, dollars) in [(1, "60000"), (60_000, "60000"), (60_001, "61000")] {
            let cost = BILLING.cost(price, milliseconds * 1_000_000);
            assert_eq!(cost.to_string(), dollars.replace("000", ""), "{milliseconds}");
        }
    }
}
