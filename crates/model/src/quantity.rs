//! Exact Kubernetes quantities: `100m`, `1536Mi`, `1e3`, `0.5`.
//!
//! Parsing, rounding and the canonical form follow `resource.Quantity` of
//! `k8s.io/apimachinery` (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>):
//! values finer than a billionth are rounded up (away from zero), binary quantities are capped at
//! 2^63-1, and the canonical form keeps the family of suffixes the quantity was written in.
//! Upstream holds numbers of any length; here a value has at most 38 significant digits, and one
//! which needs more is refused.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// A fixed-point number with the suffix family it is written in.
///
/// Equality, order and hash look at the number alone: `1000m` equals `1`, `1Ki` equals `1024`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// The value is `mantissa × 10^scale`; the mantissa has no trailing decimal zero, and a zero
    /// has scale 0, so that equal numbers are equal field by field.
    mantissa: i128,
    scale: i32,
    format: Format,
}

/// The family of suffixes a quantity is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `Ki`, `Mi`, `Gi`, `Ti`, `Pi`, `Ei`: powers of 1024.
    BinarySi,
    /// `n`, `u`, `m`, none, `k`, `M`, `G`, `T`, `P`, `E`: powers of 1000.
    DecimalSi,
    /// `e3`: a decimal exponent.
    DecimalExponent,
}

/// Why a text is not a quantity. The texts are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text has not the shape of a quantity.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The number is not one this can hold.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is not known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The finest power of ten a quantity resolves.
const NANO: i32 = -9;
/// The finest power of ten the API keeps for container resources.
const MILLI: i32 = -3;
/// Larger exponents are refused and smaller ones are all the same (they round to one nano). The
/// bound keeps arithmetic on scales far from overflow.
const EXPONENT_MAX: i64 = 100_000;
const NANOS_PER_UNIT: i128 = 1_000_000_000;
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL_SUFFIXES: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity { mantissa: 0, scale: 0, format: Format::DecimalSi };

    /// Parses any form Kubernetes accepts.
    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        let parts = Parts::split(text)?;
        let (suffix_format, exponent) = interpret_suffix(parts.suffix)?;
        let quantity = match suffix_format {
            Format::BinarySi => parse_binary(&parts, exponent),
            Format::DecimalSi | Format::DecimalExponent => {
                parse_decimal(&parts, exponent, suffix_format)?
            }
        };
        Ok(if parts.negative {
            Quantity { mantissa: -quantity.mantissa, ..quantity }
        } else {
            quantity
        })
    }

    /// `units` in the given format.
    pub fn from_units(units: i64, format: Format) -> Quantity {
        Quantity::normalised(i128::from(units), 0, format)
    }

    /// `milli` thousandths, written in decimal suffixes: the form of cpu.
    pub fn from_milli(milli: i64) -> Quantity {
        Quantity::normalised(i128::from(milli), MILLI, Format::DecimalSi)
    }

    /// The suffix family this is written in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether this is zero.
    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// Whether this is below zero.
    pub fn is_negative(&self) -> bool {
        self.mantissa < 0
    }

    /// The value in whole units, rounded away from zero, saturating.
    pub fn value_ceil(&self) -> i64 {
        self.scaled_ceil(0)
    }

    /// The value in thousandths, rounded away from zero, saturating.
    pub fn milli_value_ceil(&self) -> i64 {
        self.scaled_ceil(MILLI)
    }

    /// The value in units of `10^scale`, rounded away from zero, saturating.
    pub fn scaled_ceil(&self, scale: i32) -> i64 {
        let scaled = rescale(self.mantissa, self.scale, scale).unwrap_or_else(|| self.saturated());
        i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX })
    }

    /// The same value rounded away from zero to a multiple of `10^scale`. The API server rounds
    /// container resources to thousandths this way on admission.
    #[must_use]
    pub fn round_up(&self, scale: i32) -> Quantity {
        if self.scale >= scale {
            return *self;
        }
        // Dropping digits always fits.
        let mantissa = rescale(self.mantissa, self.scale, scale).unwrap_or(self.mantissa);
        Quantity::normalised(mantissa, scale, self.format)
    }

    /// The sum. A zero takes over the format of the other side, as upstream does. Beyond 38
    /// significant digits the sum is rounded away from zero.
    #[must_use]
    pub fn add(&self, other: &Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        if self.is_zero() || other.is_zero() {
            let number = if self.is_zero() { other } else { self };
            return Quantity { format, ..*number };
        }
        let mut scale = self.scale.min(other.scale);
        loop {
            let left = rescale(self.mantissa, self.scale, scale);
            let right = rescale(other.mantissa, other.scale, scale);
            if let (Some(left), Some(right)) = (left, right)
                && let Some(sum) = left.checked_add(right)
            {
                return Quantity::normalised(sum, scale, format);
            }
            scale += 1;
        }
    }

    /// The difference, with the format rule of [`Quantity::add`].
    #[must_use]
    pub fn sub(&self, other: &Quantity) -> Quantity {
        self.add(&Quantity { mantissa: -other.mantissa, ..*other })
    }

    /// The nearest floating-point number, for metrics and averages only.
    pub fn as_f64(&self) -> f64 {
        self.mantissa as f64 * 10f64.powi(self.scale)
    }

    /// As the API's quantity, in canonical form.
    pub fn to_api(&self) -> ApiQuantity {
        ApiQuantity(self.to_string())
    }

    fn normalised(mut mantissa: i128, mut scale: i32, format: Format) -> Quantity {
        if mantissa == 0 {
            scale = 0;
        } else {
            while mantissa % 10 == 0 {
                mantissa /= 10;
                scale += 1;
            }
        }
        Quantity { mantissa, scale, format }
    }

    fn saturated(&self) -> i128 {
        if self.mantissa < 0 { i128::MIN } else { i128::MAX }
    }

    /// The whole number this is, if it is one and can be held.
    fn as_whole(&self) -> Option<i128> {
        (self.scale >= 0).then(|| rescale(self.mantissa, self.scale, 0)).flatten()
    }
}

/// Rewrites every quantity of a resource list in canonical form; what is not a quantity is left
/// as it is, for validation to name.
pub fn canonicalize_list(list: &mut std::collections::BTreeMap<String, ApiQuantity>) {
    for quantity in list.values_mut() {
        // The error is reported by validation, which knows the field's path.
        let _ = canonicalize(quantity);
    }
}

/// Rewrites an API quantity in canonical form.
pub fn canonicalize(quantity: &mut ApiQuantity) -> Result<(), QuantityError> {
    let canonical = Quantity::parse(&quantity.0)?.to_string();
    if canonical != quantity.0 {
        quantity.0 = canonical;
    }
    Ok(())
}

impl fmt::Display for Quantity {
    /// Writes the canonical form: no fraction, the largest exact suffix of its family. A binary
    /// quantity below 1024 or with a fraction is written in the decimal family.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi
            && let Some(whole) = self.as_whole()
            && whole.unsigned_abs() >= 1024
        {
            return fmt_binary(whole, f);
        }
        fmt_decimal(self, f)
    }
}

fn fmt_binary(mut whole: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut step = 0;
    while whole % 1024 == 0 && step + 1 < BINARY_SUFFIXES.len() {
        whole /= 1024;
        step += 1;
    }
    write!(f, "{whole}{}", BINARY_SUFFIXES[step])
}

fn fmt_decimal(quantity: &Quantity, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut exponent = quantity.scale.div_euclid(3) * 3;
    if quantity.format == Format::DecimalExponent {
        write_shifted(quantity.mantissa, quantity.scale - exponent, f)?;
        return if exponent == 0 { Ok(()) } else { write!(f, "e{exponent}") };
    }
    // There is no suffix above exa: larger numbers are written out with it.
    exponent = exponent.min(18);
    write_shifted(quantity.mantissa, quantity.scale - exponent, f)?;
    let suffix = DECIMAL_SUFFIXES
        .iter()
        .find(|(_, power)| *power == exponent)
        .map_or("", |(suffix, _)| suffix);
    f.write_str(suffix)
}

/// Writes `mantissa × 10^zeros` in full.
fn write_shifted(mantissa: i128, zeros: i32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{mantissa}")?;
    (0..zeros).try_for_each(|_| f.write_str("0"))
}

/// The pieces of a quantity's text.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Parts<'a>, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let rest = rest.trim_start_matches('0');
        let (whole, rest) = rest.split_at(digits_len(rest));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits_len(rest)),
            None => ("", rest),
        };
        if !has_suffix_shape(suffix) {
            return Err(QuantityError::Format);
        }
        Ok(Parts { negative, whole, fraction, suffix })
    }
}

fn digits_len(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// `[eEinumkKMGTP]*[-+]?[0-9]*`
fn has_suffix_shape(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    digits_len(rest) == rest.len()
}

/// The format a suffix stands for and its power, of ten or (binary) of two.
fn interpret_suffix(suffix: &str) -> Result<(Format, i32), QuantityError> {
    if let Some((_, power)) = DECIMAL_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::DecimalSi, *power));
    }
    let binary = BINARY_SUFFIXES.iter().position(|name| *name == suffix);
    if let Some(step) = binary.and_then(|step| i32::try_from(step).ok()) {
        return Ok((Format::BinarySi, step * 10));
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i64 = digits.parse().map_err(|_| QuantityError::Suffix)?;
    if exponent > EXPONENT_MAX {
        return Err(QuantityError::Numeric);
    }
    let exponent =
        i32::try_from(exponent.max(-EXPONENT_MAX)).map_err(|_| QuantityError::Numeric)?;
    Ok((Format::DecimalExponent, exponent))
}

/// The magnitude of a number with a decimal suffix: its digits with everything finer than a nano
/// rounded up.
fn parse_decimal(
    parts: &Parts<'_>,
    exponent: i32,
    format: Format,
) -> Result<Quantity, QuantityError> {
    let digits = || parts.whole.bytes().chain(parts.fraction.bytes());
    let len = parts.whole.len() + parts.fraction.len();
    let fraction_len = i32::try_from(parts.fraction.len()).map_err(|_| QuantityError::Numeric)?;
    let mut scale = exponent.saturating_sub(fraction_len);
    let mut keep = len;
    if scale < NANO {
        keep = len.saturating_sub(usize::try_from(NANO - scale).unwrap_or(len));
        scale = NANO;
    }
    let mut mantissa: i128 = 0;
    // Zeros are counted and applied with the next other digit, so that a tail of zeros costs none
    // of the mantissa's digits.
    let mut zeros: u32 = 0;
    for digit in digits().take(keep).map(|byte| i128::from(byte - b'0')) {
        zeros += 1;
        if digit == 0 {
            continue;
        }
        mantissa = shift_left(mantissa, zeros)
            .and_then(|shifted| shifted.checked_add(digit))
            .ok_or(QuantityError::Numeric)?;
        zeros = 0;
    }
    if digits().skip(keep).any(|digit| digit != b'0') {
        // Something asked for is never rounded to nothing.
        mantissa = shift_left(mantissa, zeros)
            .and_then(|shifted| shifted.checked_add(1))
            .ok_or(QuantityError::Numeric)?;
        zeros = 0;
    }
    let zeros = i32::try_from(zeros).map_err(|_| QuantityError::Numeric)?;
    Ok(Quantity::normalised(mantissa, scale.saturating_add(zeros), format))
}

/// The magnitude of a number with a binary suffix `2^exponent`, capped at 2^63-1.
fn parse_binary(parts: &Parts<'_>, exponent: i32) -> Quantity {
    let cap = i128::from(i64::MAX);
    let factor = 1i128 << exponent;
    let mut whole: i128 = 0;
    for byte in parts.whole.bytes() {
        // Beyond the cap the exact number no longer matters.
        whole = (whole * 10 + i128::from(byte - b'0')).min(cap);
    }
    let whole = whole.saturating_mul(factor).saturating_mul(NANOS_PER_UNIT);

    // The fraction times 2^exponent in nanos, from its last digit to its first. Division by ten
    // of a rounded-down number gives the same as of the exact one, so the result is exact but for
    // what was cut off, which rounds up.
    let mut fraction: i128 = 0;
    let mut cut = false;
    for byte in parts.fraction.bytes().rev() {
        fraction += i128::from(byte - b'0') * factor * NANOS_PER_UNIT;
        cut |= fraction % 10 != 0;
        fraction /= 10;
    }
    let nanos =
        whole.saturating_add(fraction).saturating_add(i128::from(cut)).min(cap * NANOS_PER_UNIT);
    let format =
        if nanos < NANOS_PER_UNIT && nanos != 0 { Format::DecimalSi } else { Format::BinarySi };
    Quantity::normalised(nanos, NANO, format)
}

/// `mantissa × 10^from` in units of `10^to`, rounded away from zero; none if it does not fit.
fn rescale(mantissa: i128, from: i32, to: i32) -> Option<i128> {
    let power = from.abs_diff(to);
    if from >= to {
        return shift_left(mantissa, power);
    }
    let Some(divisor) = 10i128.checked_pow(power) else {
        return Some(mantissa.signum());
    };
    let cut = mantissa % divisor != 0;
    Some(mantissa / divisor + if cut { mantissa.signum() } else { 0 })
}

/// `mantissa × 10^zeros`; none if it does not fit.
fn shift_left(mantissa: i128, zeros: u32) -> Option<i128> {
    if mantissa == 0 {
        return Some(0);
    }
    mantissa.checked_mul(10i128.checked_pow(zeros)?)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.mantissa == other.mantissa && self.scale == other.scale
    }
}

impl Eq for Quantity {}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.mantissa.hash(state);
        self.scale.hash(state);
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        let signs = self.mantissa.signum().cmp(&other.mantissa.signum());
        if signs != Ordering::Equal || self.is_zero() {
            return signs;
        }
        let scale = self.scale.min(other.scale);
        // At most one side has to be multiplied; where that overflows, that side is the larger.
        let left = rescale(self.mantissa, self.scale, scale);
        let right = rescale(other.mantissa, other.scale, scale);
        let magnitudes = match (left, right) {
            (Some(left), Some(right)) => return left.cmp(&right),
            (None, _) => Ordering::Greater,
            (_, None) => Ordering::Less,
        };
        if self.is_negative() { magnitudes.reverse() } else { magnitudes }
    }
}

impl Default for Quantity {
    fn default() -> Quantity {
        Quantity::ZERO
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        Quantity::parse(text)
    }
}

impl TryFrom<&ApiQuantity> for Quantity {
    type Error = QuantityError;

    fn try_from(quantity: &ApiQuantity) -> Result<Quantity, QuantityError> {
        // Upstream trims what comes out of JSON.
        Quantity::parse(quantity.0.trim())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text)
            .map_or_else(|error| error.to_string(), |quantity| quantity.to_string())
    }

    #[test]
    fn canonical_form_is_upstreams() {
        for (text, expected) in [
            ("0", "0"),
            ("0n", "0"),
            ("-0", "0"),
            ("0Ki", "0"),
            ("0.0", "0"),
            (".", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("-1", "-1"),
            ("007", "7"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1.5Gi", "1536Mi"),
            ("1000m", "1"),
            ("100m", "100m"),
            ("1100m", "1100m"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("100e3", "100e3"),
            ("1e4", "10e3"),
            ("1e-3", "1e-3"),
            ("1e0", "1"),
            ("12e-1", "1200e-3"),
            ("1024", "1024"),
            ("1000", "1k"),
            ("1000k", "1M"),
            ("1500k", "1500k"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("14162Mi", "14162Mi"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1.0001Ki", "1024102400u"),
            ("0.0001Ki", "102400u"),
            ("0.5Mi", "512Ki"),
            ("-1.5Gi", "-1536Mi"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1.1n", "2n"),
            ("1e-20", "1e-9"),
            ("1000000000000000000001e-21", "1000000001e-9"),
            ("123456789.123456789", "123456789123456789n"),
            ("1000E", "1000E"),
            ("100E", "100E"),
            ("4Ei", "4Ei"),
            ("9Ei", "9223372036854775807"),
            ("99999999999999999999999999999999999999999999Ki", "9223372036854775807"),
            ("1e100", "10e99"),
            ("100000000000000000000000000000000000000000000", "100000000000000000000000000E"),
            ("0.00000000000000000000000000000000000000000000000000001Ki", "1n"),
            ("110", "110"),
            ("1k", "1k"),
            ("7910m", "7910m"),
        ] {
            assert_eq!(canonical(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_refused_in_upstreams_words() {
        let format = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        let suffix = "unable to parse quantity's suffix";
        for (text, expected) in [
            ("", format),
            (" ", format),
            ("1 ", format),
            (" 1", format),
            ("1.1.M", format),
            ("1+1.0M", format),
            ("aoeu", format),
            ("1Gib", format),
            ("1é", format),
            ("0.1mi", suffix),
            ("1i", suffix),
            ("-3.01i", suffix),
            ("-3.01e-", suffix),
            ("1mm", suffix),
            ("1K", suffix),
            ("1g", format),
            ("1Mi5", suffix),
            ("1ee3", suffix),
            ("1e99999999999999999999", suffix),
            ("1e999999", "unable to parse numeric part of quantity"),
            (
                "1234567890123456789012345678901234567890123",
                "unable to parse numeric part of quantity",
            ),
        ] {
            assert_eq!(canonical(text), expected, "{text:?}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        for (text, units, milli) in [
            ("0.5", 1, 500),
            ("100.1m", 1, 101),
            ("-0.5", -1, -500),
            ("1n", 1, 1),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("2", 2, 2000),
            ("1e100", i64::MAX, i64::MAX),
            ("-1e100", i64::MIN, i64::MIN),
            ("9E", 9_000_000_000_000_000_000, i64::MAX),
        ] {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!(quantity.value_ceil(), units, "{text}");
            assert_eq!(quantity.milli_value_ceil(), milli, "{text}");
        }
        assert_eq!(Quantity::parse("100.1m").unwrap().round_up(MILLI).to_string(), "101m");
        assert_eq!(Quantity::parse("1Ki").unwrap().round_up(MILLI).to_string(), "1Ki");
    }

    #[test]
    fn sums_keep_the_format_of_the_left_unless_it_is_zero() {
        for (left, right, sum, difference) in [
            ("0", "1Gi", "1Gi", "-1Gi"),
            ("1Gi", "0", "1Gi", "1Gi"),
            ("1Gi", "1024Mi", "2Gi", "0"),
            ("1", "1Ki", "1025", "-1023"),
            ("1Ki", "1", "1025", "1023"),
            ("100m", "0.9", "1", "-800m"),
            ("1e3", "1k", "2e3", "0"),
        ] {
            let left = Quantity::parse(left).unwrap();
            let right = Quantity::parse(right).unwrap();
            assert_eq!(left.add(&right).to_string(), sum);
            assert_eq!(left.sub(&right).to_string(), difference);
        }
        // What no longer fits is rounded away from zero, never lost.
        let large = Quantity::parse("1e40").unwrap();
        assert!(large.add(&Quantity::parse("1").unwrap()) > large);
    }

    #[test]
    fn api_quantities_become_canonical() {
        let mut quantity = ApiQuantity("0.5".to_owned());
        canonicalize(&mut quantity).unwrap();
        assert_eq!(quantity.0, "500m");
        let mut list = [("cpu", "1000m"), ("memory", "nonsense")]
            .map(|(name, text)| (name.to_owned(), ApiQuantity(text.to_owned())))
            .into();
        canonicalize_list(&mut list);
        assert_eq!(list["cpu"].0, "1");
        assert_eq!(list["memory"].0, "nonsense");
    }

    fn quantity_text() -> impl Strategy<Value = String> {
        "[+-]?[0-9]{1,12}(\\.[0-9]{0,12})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]{1,2})?"
    }

    proptest! {
        #[test]
        fn canonical_form_round_trips_and_is_stable(text in quantity_text()) {
            let quantity = Quantity::parse(&text).unwrap();
            let canonical = quantity.to_string();
            let again = Quantity::parse(&canonical).unwrap();
            prop_assert_eq!(quantity, again);
            prop_assert_eq!(&canonical, &again.to_string());
            prop_assert!(!canonical.contains('.'));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,24}|[-+.0-9eEinumkKMGTP]{0,60}") {
            if let Ok(quantity) = Quantity::parse(&text) {
                let _ = (quantity.to_string(), quantity.value_ceil(), quantity.milli_value_ceil());
            }
        }

        #[test]
        fn arithmetic_agrees_with_integers(left in any::<i32>(), right in any::<i32>()) {
            let (a, b) = (Quantity::from_milli(left.into()), Quantity::from_milli(right.into()));
            prop_assert_eq!(a.add(&b).milli_value_ceil(), i64::from(left) + i64::from(right));
            prop_assert_eq!(a.sub(&b).milli_value_ceil(), i64::from(left) - i64::from(right));
            prop_assert_eq!(a.cmp(&b), left.cmp(&right));
        }

        #[test]
        fn order_is_total_and_follows_subtraction(left in quantity_text(), right in quantity_text()) {
            let (a, b) = (Quantity::parse(&left).unwrap(), Quantity::parse(&right).unwrap());
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            let difference = a.sub(&b);
            prop_assert_eq!(a < b, difference.is_negative());
            prop_assert_eq!(a == b, difference.is_zero());
        }
    }
}
