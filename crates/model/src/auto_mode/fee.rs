//! What Auto Mode itself costs: a part of the on-demand price, on top of what EC2 takes.
//! <https://aws.amazon.com/eks/pricing/>

use crate::money::{Billing, Price};
use crate::time::Time;

/// How the fee is billed: by the second, a minute at least.
pub const BILLING: Billing = Billing::EC2_LINUX;

/// Since when accelerated machines pay less: 2026-07-01T00:00:00Z.
const REDUCED_SINCE: Time = Time::from_seconds(1_782_864_000);
/// The usual part, in thousandths of the on-demand price.
const USUAL: u32 = 120;
/// What machines with graphics processors pay since then.
const GRAPHICS: u32 = 78;
/// What machines for training models pay since then.
const TRAINING: u32 = 48;
/// Price lists have so many digits after the point.
const DIGITS: usize = 5;

/// The fee per hour for a machine of a type with this on-demand list price. What is really paid for
/// the machine (spot, savings plans) does not change it.
pub fn fee(instance_type: &str, on_demand: Price, at: Time) -> Price {
    let family = instance_type.split('.').next().unwrap_or_default();
    let letters = family.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
    let thousandths = match letters {
        _ if at < REDUCED_SINCE => USUAL,
        "g" | "gr" => GRAPHICS,
        "p" | "trn" => TRAINING,
        _ => USUAL,
    };
    on_demand.scale(thousandths, 1_000).round_to_digits(DIGITS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(instance_type: &str, price: &str, at: Time) -> String {
        fee(instance_type, price.parse().expect("a price"), at).to_string()
    }

    #[test]
    fn fees_are_as_published() {
        let late = Time::from_seconds(1_785_000_000);
        for (instance_type, price, expected) in [
            ("t3.medium", "0.052", "0.00624"),
            ("c6g.large", "0.077", "0.00924"),
            ("c5a.large", "0.086", "0.01032"),
            ("c5a.2xlarge", "0.344", "0.04128"),
            ("g5.xlarge", "1.237", "0.09649"),
            ("g6.xlarge", "0.9896", "0.07719"),
            ("t4g.medium", "0.0336", "0.00403"),
            ("m7g.large", "0.0816", "0.00979"),
            ("m7i.large", "0.1008", "0.0121"),
            ("m5.large", "0.096", "0.01152"),
            ("c6a.2xlarge", "0.306", "0.03672"),
            ("g6.xlarge", "1.1672", "0.09104"),
            ("p5.48xlarge", "100", "4.8"),
            ("trn1.2xlarge", "1.34375", "0.0645"),
        ] {
            assert_eq!(told(instance_type, price, late), expected, "{instance_type}");
        }
    }

    #[test]
    fn accelerated_machines_pay_less_since_july_2026() {
        let (before, since) = (Time::from_seconds(1_782_863_999), REDUCED_SINCE);
        assert_eq!(since.to_string(), "2026-07-01T00:00:00Z");
        assert_eq!(told("g5.xlarge", "1", before), "0.12");
        assert_eq!(told("g5.xlarge", "1", since), "0.078");
        assert_eq!(told("gr6.4xlarge", "1", since), "0.078");
        assert_eq!(told("p4d.24xlarge", "1", since), "0.048");
        assert_eq!(told("inf2.xlarge", "1", since), "0.12");
        assert_eq!(told("c5.large", "1", since), "0.12");
    }

    proptest! {
        #[test]
        fn the_fee_grows_with_the_price_and_stays_below_it(nanos in 0..100_000_000_000_i64, more in 0..1_000_000_000_i64) {
            let at = Time::from_seconds(1_785_000_000);
            let price = Price::from_nano_dollars_per_hour;
            let (one, other) = (fee("m5.large", price(nanos), at), fee("m5.large", price(nanos + more), at));
            prop_assert!(one <= other);
            // An eighth, and half of the last digit.
            prop_assert!(one.nano_dollars_per_hour() <= nanos / 8 + 5_000);
        }
    }
}
