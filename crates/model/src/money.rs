//! Money as integers: prices in nano-dollars per hour, amounts in nano-dollars, never a float.
//!
//! A price list in decimal dollars (`0.308`) is held exactly, and every amount is the product of a
//! price and a number of nanoseconds, rounded once and by a stated rule. Amounts over adjoining
//! spans of one machine's life add up to the amount over the whole, because a span is charged as
//! the difference of two running totals ([`Billing::cost_between`]), not by itself.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nano-dollars in a dollar.
const NANO: i128 = 1_000_000_000;
/// Digits after the point that a nano-dollar can express.
const NANO_DIGITS: usize = 9;
const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;
const NANOSECONDS_PER_HOUR: i128 = 3_600 * NANOSECONDS_PER_SECOND as i128;

/// What a machine costs, in whole nano-dollars per hour. Displays as the shortest exact decimal
/// number of dollars (`0.308`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Price(i64);

/// An amount of money in whole nano-dollars; may be negative (a saving). Displays as the shortest
/// exact decimal number of dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i128);

/// How time in use becomes time that is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Billing {
    /// Time is rounded up to a multiple of this many nanoseconds; at least 1.
    pub granularity_ns: u64,
    /// Any use at all costs at least this many nanoseconds.
    pub minimum_ns: u64,
}

/// Why a text is no amount of dollars.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseMoneyError {
    /// Something other than digits with at most one point between them.
    #[error("{0:?} is not a decimal number of dollars such as 0.308")]
    NotDecimal(String),
    /// More digits after the point than a nano-dollar can express.
    #[error("{0:?} has more than 9 digits after the point, finer than a nano-dollar")]
    TooFine(String),
    /// Larger than the type can hold.
    #[error("{0:?} is too large an amount of dollars")]
    TooLarge(String),
    /// A price below zero.
    #[error("{0:?} is below zero, which no price can be")]
    Negative(String),
}

impl Price {
    /// Nothing per hour.
    pub const ZERO: Price = Price(0);

    /// A price of so many nano-dollars per hour.
    pub const fn from_nano_dollars_per_hour(nano_dollars: i64) -> Price {
        Price(nano_dollars)
    }

    /// The price in nano-dollars per hour.
    pub const fn nano_dollars_per_hour(self) -> i64 {
        self.0
    }

    /// The cost of `elapsed_ns` nanoseconds at this price with no billing rule applied, to the
    /// nearest nano-dollar, halves away from zero. Never overflows: the product of any price and
    /// any duration fits in 128 bits.
    pub fn over(self, elapsed_ns: u64) -> Money {
        Money(divide_rounded(i128::from(self.0) * i128::from(elapsed_ns), NANOSECONDS_PER_HOUR))
    }

    /// This price times `numerator / denominator`, to the nearest nano-dollar per hour, halves away
    /// from zero; at the ends of the range it saturates.
    ///
    /// # Panics
    /// If `denominator` is zero.
    #[must_use]
    pub fn scale(self, numerator: u32, denominator: u32) -> Price {
        assert!(denominator != 0, "a price is scaled by a ratio with a denominator");
        let scaled =
            divide_rounded(i128::from(self.0) * i128::from(numerator), i128::from(denominator));
        Price::saturating(scaled)
    }

    /// The price rounded to so many digits after the point (halves away from zero), as price lists
    /// are. More than 9 digits change nothing.
    #[must_use]
    pub fn round_to_digits(self, digits: usize) -> Price {
        Price::saturating(round_nano(i128::from(self.0), digits))
    }

    /// The sum, at most the largest price there is.
    #[must_use]
    pub const fn saturating_add(self, other: Price) -> Price {
        Price(self.0.saturating_add(other.0))
    }

    /// The difference; negative when `other` is dearer.
    #[must_use]
    pub const fn saturating_sub(self, other: Price) -> Price {
        Price(self.0.saturating_sub(other.0))
    }

    /// The price for people, exact: `$0.308/h`.
    pub fn per_hour(self) -> String {
        format!("{}/h", with_dollar_sign(&self.to_string()))
    }

    /// What a whole month costs, at the 730 hours that price calculators count.
    pub fn per_month(self) -> Money {
        Money(i128::from(self.0) * 730)
    }

    fn saturating(nano_dollars: i128) -> Price {
        let clamped = nano_dollars.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        Price(i64::try_from(clamped).expect("the value was clamped to the range of i64"))
    }
}

impl Money {
    /// No money.
    pub const ZERO: Money = Money(0);

    /// An amount of so many nano-dollars.
    pub const fn from_nano_dollars(nano_dollars: i128) -> Money {
        Money(nano_dollars)
    }

    /// The amount in nano-dollars.
    pub const fn nano_dollars(self) -> i128 {
        self.0
    }

    /// For people, rounded to whole cents: `$12.35`. Halves are rounded away from zero.
    pub fn cents(self) -> String {
        self.rounded(2)
    }

    /// For people, rounded to mills (tenths of a cent): `$0.308`.
    pub fn mills(self) -> String {
        self.rounded(3)
    }

    /// For people, with exactly so many digits after the point (at most 9): `$0.0051`.
    pub fn rounded(self, digits: usize) -> String {
        let digits = digits.min(NANO_DIGITS);
        let nano = round_nano(self.0, digits);
        let magnitude = nano.unsigned_abs();
        let sign = if nano < 0 { "-" } else { "" };
        let dollars = magnitude / NANO.unsigned_abs();
        if digits == 0 {
            return format!("{sign}${dollars}");
        }
        let fraction = format!("{:09}", magnitude % NANO.unsigned_abs());
        format!("{sign}${dollars}.{}", &fraction[..digits])
    }
}

impl Billing {
    /// EC2 Linux instances: per second, at least one minute
    /// (<https://aws.amazon.com/ec2/pricing/on-demand/>).
    pub const EC2_LINUX: Billing =
        Billing { granularity_ns: NANOSECONDS_PER_SECOND, minimum_ns: 60 * NANOSECONDS_PER_SECOND };

    /// The nanoseconds paid for after `elapsed_ns` of use: rounded up to the granularity, at least
    /// the minimum; nothing for no use at all.
    pub const fn billed_ns(self, elapsed_ns: u64) -> u64 {
        if elapsed_ns == 0 {
            return 0;
        }
        let steps = elapsed_ns.div_ceil(self.granularity_ns);
        let rounded = steps.saturating_mul(self.granularity_ns);
        if rounded < self.minimum_ns { self.minimum_ns } else { rounded }
    }

    /// What is owed after `elapsed_ns` of use at `price`: a running total that never falls.
    pub fn cost(self, price: Price, elapsed_ns: u64) -> Money {
        price.over(self.billed_ns(elapsed_ns))
    }

    /// What the span from `from_ns` to `to_ns` after launch adds to the bill. The minimum and each
    /// begun second fall into the span in which they begin. Spans that adjoin add up exactly to
    /// the cost of the whole.
    pub fn cost_between(self, price: Price, from_ns: u64, to_ns: u64) -> Money {
        self.cost(price, to_ns) - self.cost(price, from_ns)
    }
}

impl FromStr for Price {
    type Err = ParseMoneyError;

    fn from_str(text: &str) -> Result<Price, ParseMoneyError> {
        let nano = parse_nano(text)?;
        if nano < 0 {
            return Err(ParseMoneyError::Negative(text.to_owned()));
        }
        i64::try_from(nano).map(Price).map_err(|_| ParseMoneyError::TooLarge(text.to_owned()))
    }
}

impl FromStr for Money {
    type Err = ParseMoneyError;

    fn from_str(text: &str) -> Result<Money, ParseMoneyError> {
        parse_nano(text).map(Money)
    }
}

impl fmt::Display for Price {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_exact(formatter, i128::from(self.0))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_exact(formatter, self.0)
    }
}

impl Add for Money {
    type Output = Money;

    fn add(self, other: Money) -> Money {
        Money(self.0.saturating_add(other.0))
    }
}

impl Sub for Money {
    type Output = Money;

    fn sub(self, other: Money) -> Money {
        Money(self.0.saturating_sub(other.0))
    }
}

impl Neg for Money {
    type Output = Money;

    fn neg(self) -> Money {
        Money(self.0.saturating_neg())
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Money) {
        *self = *self + other;
    }
}

impl SubAssign for Money {
    fn sub_assign(&mut self, other: Money) {
        *self = *self - other;
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Money>>(amounts: I) -> Money {
        amounts.fold(Money::ZERO, Add::add)
    }
}

impl Sum for Price {
    fn sum<I: Iterator<Item = Price>>(prices: I) -> Price {
        prices.fold(Price::ZERO, Price::saturating_add)
    }
}

macro_rules! serde_as_decimal_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_decimal_text!(Price);
serde_as_decimal_text!(Money);

/// `$` before the digits but after the sign.
fn with_dollar_sign(decimal: &str) -> String {
    match decimal.strip_prefix('-') {
        Some(magnitude) => format!("-${magnitude}"),
        None => format!("${decimal}"),
    }
}

/// The quotient to the nearest integer, halves away from zero. `divisor` is positive.
fn divide_rounded(dividend: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = (dividend / divisor, dividend % divisor);
    if remainder.abs() >= divisor - remainder.abs() {
        quotient + dividend.signum()
    } else {
        quotient
    }
}

/// `nano` nano-dollars rounded to `digits` digits after the point of a dollar.
fn round_nano(nano: i128, digits: usize) -> i128 {
    let dropped = NANO_DIGITS.saturating_sub(digits);
    let step = 10_i128.pow(u32::try_from(dropped).expect("at most 9 digits are dropped"));
    divide_rounded(nano, step).saturating_mul(step)
}

fn parse_nano(text: &str) -> Result<i128, ParseMoneyError> {
    let not_decimal = || ParseMoneyError::NotDecimal(text.to_owned());
    let too_large = || ParseMoneyError::TooLarge(text.to_owned());
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return Err(not_decimal());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > NANO_DIGITS {
        return Err(ParseMoneyError::TooFine(text.to_owned()));
    }
    let mut nano: i128 = 0;
    let padding = std::iter::repeat_n(b'0', NANO_DIGITS - fraction.len());
    for digit in whole.bytes().chain(fraction.bytes()).chain(padding) {
        nano = nano
            .checked_mul(10)
            .and_then(|nano| nano.checked_add(i128::from(digit - b'0')))
            .ok_or_else(too_large)?;
    }
    Ok(if negative { -nano } else { nano })
}

fn write_exact(formatter: &mut fmt::Formatter<'_>, nano: i128) -> fmt::Result {
    let magnitude = nano.unsigned_abs();
    let (dollars, fraction) = (magnitude / NANO.unsigned_abs(), magnitude % NANO.unsigned_abs());
    let text = if fraction == 0 {
        dollars.to_string()
    } else {
        let fraction = format!("{fraction:09}");
        format!("{dollars}.{}", fraction.trim_end_matches('0'))
    };
    // `pad_integral` keeps width and alignment working in tables; the sign is written by it.
    formatter.pad_integral(nano >= 0, "", &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = NANOSECONDS_PER_SECOND;

    fn price(text: &str) -> Price {
        text.parse().unwrap()
    }

    #[test]
    fn prices_are_read_and_written_exactly() {
        let table = [
            ("0.308", 308_000_000, "0.308"),
            ("0.0860", 86_000_000, "0.086"),
            ("21.957642", 21_957_642_000, "21.957642"),
            ("142", 142_000_000_000, "142"),
            ("142.000", 142_000_000_000, "142"),
            (".5", 500_000_000, "0.5"),
            ("0.000000001", 1, "0.000000001"),
            ("0.0000000010000", 1, "0.000000001"),
            ("0", 0, "0"),
        ];
        for (text, nano, shown) in table {
            assert_eq!(price(text).nano_dollars_per_hour(), nano, "{text}");
            assert_eq!(price(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for text in ["", ".", "-", "1e3", "0,308", "+1", " 1", "1.2.3", "$1", "NaN"] {
            let expected = ParseMoneyError::NotDecimal(text.to_owned());
            assert_eq!(text.parse::<Price>(), Err(expected), "{text}");
        }
        assert_eq!(
            "0.0000000001".parse::<Price>(),
            Err(ParseMoneyError::TooFine("0.0000000001".to_owned()))
        );
        assert_eq!("-0.1".parse::<Price>(), Err(ParseMoneyError::Negative("-0.1".to_owned())));
        let large = "9223372037";
        assert_eq!(large.parse::<Price>(), Err(ParseMoneyError::TooLarge(large.to_owned())));
        let huge = "9".repeat(60);
        assert_eq!(huge.parse::<Money>(), Err(ParseMoneyError::TooLarge(huge.clone())));
    }

    #[test]
    fn people_read_dollars() {
        assert_eq!(price("0.308").per_hour(), "$0.308/h");
        assert_eq!(price("0.308").saturating_sub(price("0.4")).per_hour(), "-$0.092/h");
        let amount = |text: &str| text.parse::<Money>().unwrap();
        assert_eq!(amount("12.345").cents(), "$12.35");
        assert_eq!(amount("12.3449").cents(), "$12.34");
        assert_eq!(amount("-12.345").cents(), "-$12.35");
        assert_eq!(amount("-0.001").cents(), "$0.00");
        assert_eq!(amount("0.9996").mills(), "$1.000");
        assert_eq!(amount("1.5").rounded(0), "$2");
        assert_eq!(amount("0.1").rounded(12), "$0.100000000");
        assert_eq!(price("0.308").per_month().cents(), "$224.84");
        assert_eq!(format!("{:>8}", price("0.308")), "   0.308");
    }

    #[test]
    fn ec2_bills_seconds_and_at_least_a_minute() {
        let table = [
            (0, 0),
            (1, 60 * SECOND),
            (59 * SECOND, 60 * SECOND),
            (60 * SECOND, 60 * SECOND),
            (60 * SECOND + 1, 61 * SECOND),
            (3_600 * SECOND, 3_600 * SECOND),
        ];
        for (elapsed, billed) in table {
            assert_eq!(Billing::EC2_LINUX.billed_ns(elapsed), billed, "{elapsed}");
        }
        let hour = Billing::EC2_LINUX.cost(price("0.308"), 3_600 * SECOND);
        assert_eq!(hour.to_string(), "0.308");
        // 0.308 / 60 = 0.00513333…, and 0.077 / 3600 × 61 = 0.001304722…
        let minute = Billing::EC2_LINUX.cost(price("0.308"), SECOND);
        assert_eq!(minute.to_string(), "0.005133333");
        let longer = Billing::EC2_LINUX.cost(price("0.077"), 61 * SECOND);
        assert_eq!(longer.to_string(), "0.001304722");
    }

    #[test]
    fn halves_round_away_from_zero() {
        let half_hour = 1_800 * SECOND;
        assert_eq!(Price(1).over(half_hour), Money(1));
        assert_eq!(Price(-1).over(half_hour), Money(-1));
        assert_eq!(Price(3).over(half_hour), Money(2));
        assert_eq!(Price(1).over(half_hour - 1), Money(0));
        assert_eq!(price("0.077").scale(86, 77), price("0.086"));
        assert_eq!(price("0.12345").round_to_digits(4), price("0.1235"));
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert!(Price(i64::MAX).over(u64::MAX) > Money::ZERO);
        assert_eq!(Price(i64::MAX).scale(u32::MAX, 1), Price(i64::MAX));
        assert_eq!(Billing::EC2_LINUX.billed_ns(u64::MAX), u64::MAX);
        assert_eq!(Price(i64::MIN).to_string(), "-9223372036.854775808");
    }

    #[test]
    fn json_is_decimal_text() {
        assert_eq!(serde_json::to_string(&price("0.308")).unwrap(), "\"0.308\"");
        assert_eq!(serde_json::from_str::<Price>("\"0.308\"").unwrap(), price("0.308"));
        assert!(serde_json::from_str::<Price>("\"cheap\"").is_err());
    }

    proptest! {
        #[test]
        fn text_and_back(nano in any::<i64>()) {
            let amount = Money(i128::from(nano));
            prop_assert_eq!(amount.to_string().parse::<Money>().unwrap(), amount);
        }

        #[test]
        fn spans_split_at_whole_seconds_add_up(
            nano in 0..200_000_000_000_i64,
            mut cuts in prop::collection::vec(0..10_000_000_u64, 2..12),
        ) {
            cuts.sort_unstable();
            let billing = Billing::EC2_LINUX;
            let parts: Money = cuts
                .windows(2)
                .map(|pair| billing.cost_between(Price(nano), pair[0] * SECOND, pair[1] * SECOND))
                .sum();
            let (first, last) = (cuts[0] * SECOND, cuts[cuts.len() - 1] * SECOND);
            prop_assert_eq!(parts, billing.cost_between(Price(nano), first, last));
            prop_assert_eq!(
                billing.cost_between(Price(nano), 0, last),
                billing.cost(Price(nano), last)
            );
        }

        #[test]
        fn a_bill_never_falls_and_is_right_to_a_nano_dollar(
            nano in 0..200_000_000_000_i64,
            elapsed in 60 * SECOND..10_000_000 * SECOND,
            more in 0..1_000_000_000_000_u64,
        ) {
            let billing = Billing::EC2_LINUX;
            let total = billing.cost(Price(nano), elapsed);
            prop_assert!(billing.cost(Price(nano), elapsed + more) >= total);
            let exact = i128::from(nano) * i128::from(billing.billed_ns(elapsed));
            let error = (total.nano_dollars() * NANOSECONDS_PER_HOUR - exact).abs();
            prop_assert!(error * 2 <= NANOSECONDS_PER_HOUR);
        }
    }
}
