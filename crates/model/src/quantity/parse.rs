//! Reading quantities: sign, digits and suffix apart, then the number in decimal or binary.

use super::{BINARY_SUFFIXES, DECIMAL_SUFFIXES, Format, NANO, Quantity, QuantityError, shift_left};

/// Larger exponents are refused and smaller ones are all the same (they round to one nano). The
/// bound keeps arithmetic on scales far from overflow.
const EXPONENT_MAX: i64 = 100_000;
const NANOS_PER_UNIT: i128 = 1_000_000_000;

pub(super) fn parse(text: &str) -> Result<Quantity, QuantityError> {
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
    let quantity = Quantity::normalised(mantissa, scale.saturating_add(zeros), format);
    // The canonical form moves zeros into the exponent, and must be readable too.
    if i64::from(quantity.scale) > EXPONENT_MAX {
        return Err(QuantityError::Numeric);
    }
    Ok(quantity)
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
