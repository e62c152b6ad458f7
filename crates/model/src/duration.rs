//! Durations as Go and Kubernetes write them.
//!
//! [`parse`] and [`format()`] are Go's `time.ParseDuration` and `Duration.String` (`720h`, `1h30m`,
//! `1.5s`), the form of every duration field in the Kubernetes and Karpenter APIs. [`human`] is
//! the age kubectl prints (`79s`, `2m16s`, `3d4h`). All count nanoseconds in an `i64`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000 * MICROSECOND;
const SECOND: i64 = 1_000 * MILLISECOND;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Why a text is not a duration. The texts are Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text has not the shape of a duration, or is too long a time.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number has no unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit is not known.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// A duration field of an API object: not negative, written in Go's form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(pub Duration);

/// Parses Go's form of a duration into nanoseconds.
pub fn parse(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    // The magnitude of the most negative duration is one more than the largest.
    let limit = i64::MIN.unsigned_abs();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = rest.split_at(digits_len(rest));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits_len(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let unit_nanos = unit_nanos(unit).ok_or_else(|| DurationError::UnknownUnit {
            unit: unit.to_owned(),
            text: text.to_owned(),
        })?;
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        total = whole
            .checked_mul(unit_nanos)
            .and_then(|nanos| nanos.checked_add(fraction_nanos(fraction, unit_nanos)))
            .and_then(|nanos| nanos.checked_add(total))
            .filter(|total| *total <= limit)
            .ok_or_else(invalid)?;
        rest = after;
    }
    if negative {
        return Ok(0i64.wrapping_sub_unsigned(total));
    }
    i64::try_from(total).map_err(|_| invalid())
}

fn digits_len(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn unit_nanos(unit: &str) -> Option<u64> {
    let nanos = match unit {
        "ns" => 1,
        // The micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return None,
    };
    Some(nanos.unsigned_abs())
}

/// `0.{fraction}` of a unit. Go computes this in floating point, digits beyond what an integer
/// holds left out; the same arithmetic gives the same nanosecond.
fn fraction_nanos(fraction: &str, unit_nanos: u64) -> u64 {
    let limit = i64::MAX.unsigned_abs();
    let mut value: u64 = 0;
    let mut scale = 1f64;
    for digit in fraction.bytes().map(|byte| u64::from(byte - b'0')) {
        let next = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(digit))
            .filter(|next| *next <= limit);
        let Some(next) = next else { break };
        value = next;
        scale *= 10.0;
    }
    (value as f64 * (unit_nanos as f64 / scale)) as u64
}

/// Nanoseconds in Go's form: `1h30m0s`, `1.5s`, `2ms`, `0s`.
pub fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.unsigned_abs();
    let second = SECOND.unsigned_abs();
    let text = if magnitude == 0 {
        "0s".to_owned()
    } else if magnitude < MICROSECOND.unsigned_abs() {
        format!("{magnitude}ns")
    } else if magnitude < MILLISECOND.unsigned_abs() {
        format!("{}\u{b5}s", with_fraction(magnitude, MICROSECOND.unsigned_abs()))
    } else if magnitude < second {
        format!("{}ms", with_fraction(magnitude, MILLISECOND.unsigned_abs()))
    } else {
        let (hours, rest) = (magnitude / HOUR.unsigned_abs(), magnitude % HOUR.unsigned_abs());
        let (minutes, rest) = (rest / MINUTE.unsigned_abs(), rest % MINUTE.unsigned_abs());
        let seconds = with_fraction(rest, second);
        match (hours, minutes) {
            (0, 0) => format!("{seconds}s"),
            (0, minutes) => format!("{minutes}m{seconds}s"),
            (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
        }
    };
    format!("{sign}{text}")
}

/// `value / unit` as a decimal number without trailing zeros; `unit` is a power of ten.
fn with_fraction(value: u64, unit: u64) -> String {
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// A duration as kubectl prints ages, about two or three significant figures: `79s`, `2m16s`,
/// `169m`, `25h`, `3d4h`, `2y3d`. Less than minus one second is `<invalid>`: clocks may differ a
/// little, not more.
pub fn human(nanos: i64) -> String {
    let seconds = nanos / SECOND;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two_units(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two_units(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two_units(days, "d", hours % 24, "h"),
        () if years < 2 => format!("{days}d"),
        () if years < 8 => two_units(years, "y", days % 365, "d"),
        () => format!("{years}y"),
    }
}

/// A duration in its largest unit alone: `59s`, `3m`, `5h`, `9d`, `2y`.
pub fn short_human(nanos: i64) -> String {
    let seconds = nanos / SECOND;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 60 => format!("{seconds}s"),
        () if minutes < 60 => format!("{minutes}m"),
        () if hours < 24 => format!("{hours}h"),
        () if hours < 24 * 365 => format!("{}d", hours / 24),
        () => format!("{}y", hours / 24 / 365),
    }
}

fn two_units(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

impl GoDuration {
    /// Parses Go's form; a negative duration is refused.
    pub fn parse(text: &str) -> Result<GoDuration, DurationError> {
        let nanos =
            u64::try_from(parse(text)?).map_err(|_| DurationError::Invalid(text.to_owned()))?;
        Ok(GoDuration(Duration::from_nanos(nanos)))
    }
}

impl std::fmt::Display for GoDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format(i64::try_from(self.0.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl std::str::FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<GoDuration, DurationError> {
        GoDuration::parse(text)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<GoDuration, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        GoDuration::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_what_go_parses() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("0s", 0),
            ("5s", 5 * SECOND),
            ("+5s", 5 * SECOND),
            ("-5s", -5 * SECOND),
            ("5.0s", 5 * SECOND),
            ("5.s", 5 * SECOND),
            (".5s", SECOND / 2),
            ("1.004s", SECOND + 4 * MILLISECOND),
            ("720h", 720 * HOUR),
            ("1h30m", 90 * MINUTE),
            ("1m1h", 61 * MINUTE),
            ("-1h30m", -90 * MINUTE),
            ("10ns", 10),
            ("11us", 11 * MICROSECOND),
            ("12\u{b5}s", 12 * MICROSECOND),
            ("12\u{3bc}s", 12 * MICROSECOND),
            ("13ms", 13 * MILLISECOND),
            ("39h9m14.425s", 39 * HOUR + 9 * MINUTE + 14_425 * MILLISECOND),
            ("0.3333333333333333333h", 20 * MINUTE),
            ("0.100000000000000000000h", 6 * MINUTE),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_in_gos_words() {
        for (text, expected) in [
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            ("-", "time: invalid duration \"-\""),
            ("s", "time: invalid duration \"s\""),
            (".", "time: invalid duration \".\""),
            (".s", "time: invalid duration \".s\""),
            ("3", "time: missing unit in duration \"3\""),
            ("1h3", "time: missing unit in duration \"1h3\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
            ("3000000h", "time: invalid duration \"3000000h\""),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
        assert!(GoDuration::parse("-1s").is_err());
    }

    #[test]
    fn formats_as_go() {
        for (nanos, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1\u{b5}s"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (MINUTE, "1m0s"),
            (720 * HOUR, "720h0m0s"),
            (HOUR + 5 * SECOND, "1h0m5s"),
            (4 * MINUTE + 5_001_000_000, "4m5.001s"),
            (-90 * MINUTE, "-1h30m0s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(format(nanos), expected);
        }
    }

    #[test]
    fn ages_read_as_kubectls() {
        let day = 24 * HOUR;
        let year = 365 * day;
        for (nanos, long, short) in [
            (-2 * SECOND, "<invalid>", "<invalid>"),
            (-SECOND, "0s", "0s"),
            (-SECOND / 2, "0s", "0s"),
            (0, "0s", "0s"),
            (SECOND - 1, "0s", "0s"),
            (79 * SECOND, "79s", "1m"),
            (119 * SECOND, "119s", "1m"),
            (2 * MINUTE, "2m", "2m"),
            (136 * SECOND, "2m16s", "2m"),
            (10 * MINUTE - SECOND, "9m59s", "9m"),
            (14 * MINUTE + 59 * SECOND, "14m", "14m"),
            (169 * MINUTE, "169m", "2h"),
            (3 * HOUR, "3h", "3h"),
            (8 * HOUR - SECOND, "7h59m", "7h"),
            (25 * HOUR, "25h", "1d"),
            (2 * day, "2d", "2d"),
            (3 * day + 4 * HOUR, "3d4h", "3d"),
            (8 * day - SECOND, "7d23h", "7d"),
            (8 * day, "8d", "8d"),
            (2 * year - SECOND, "729d", "1y"),
            (2 * year, "2y", "2y"),
            (2 * year + 3 * day, "2y3d", "2y"),
            (8 * year + 3 * day, "8y", "8y"),
        ] {
            assert_eq!(human(nanos), long);
            assert_eq!(short_human(nanos), short, "{long}");
        }
    }

    proptest! {
        #[test]
        fn what_is_formatted_parses_back(nanos in any::<i64>()) {
            // Beyond 2^53 nanoseconds the fraction is still below one second and stays exact.
            prop_assert_eq!(parse(&format(nanos)), Ok(nanos));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,16}|[-+.0-9hmsnuµ]{0,24}") {
            let _ = parse(&text);
        }
    }
}
