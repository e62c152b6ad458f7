use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    Quantity::parse(text).map_or_else(|error| error.to_string(), |quantity| quantity.to_string())
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
        ("1000000e100000", "unable to parse numeric part of quantity"),
        ("1234567890123456789012345678901234567890123", "unable to parse numeric part of quantity"),
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
    let half_of_the_least = Quantity::parse("-85070591730234615865843651857942052864").unwrap();
    let sum = half_of_the_least.add(&half_of_the_least);
    assert!(Quantity::ZERO.sub(&sum) > Quantity::ZERO, "{sum}");
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
