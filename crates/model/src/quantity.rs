//! Exact Kubernetes quantities: `100m`, `1536Mi`, `1e3`, `0.5`.
//!
//! Parsing, rounding and the canonical form follow `resource.Quantity` of
//! `k8s.io/apimachinery` (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>):
//! values finer than a billionth are rounded up (away from zero), binary quantities are capped at
//! 2^63-1, and the canonical form keeps the family of suffixes the quantity was written in.
//! Upstream holds numbers of any length; here a value has at most 38 significant digits, and one
//! which needs more is refused.

mod parse;

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
        parse::parse(text)
    }

    /// `units` in the given format.
    pub fn from_units(units: i64, format: Format) -> Quantity {
        Quantity::normalised(i128::from(units), 0, format)
    }

    /// `milli` thousandths, written in decimal suffixes: the form of cpu.
    pub fn from_milli(milli: i64) -> Quantity {
        Quantity::normalised(i128::from(milli), MILLI, Format::DecimalSi)
    }

    /// `nanos` billionths, written in decimal suffixes: the form of measured cpu.
    pub fn from_nanos(nanos: i64) -> Quantity {
        Quantity::normalised(i128::from(nanos), NANO, Format::DecimalSi)
    }

    /// The same value, written in another family of suffixes.
    #[must_use]
    pub fn in_format(self, format: Format) -> Quantity {
        Quantity { format, ..self }
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
                // The least number has no opposite.
                && sum != i128::MIN
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
mod tests;
