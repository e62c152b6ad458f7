//! Numbers which may be given as a percentage: surge, unavailability, disruption budgets.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// `25%` or a number, of `total`.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|text| text.parse::<i64>().ok());
            let product = percent.unwrap_or(0) * i64::from(total);
            let scaled =
                if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(scaled).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_told() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        for (value, total, up, down) in [
            (percent("25%"), 5, 2, 1),
            (percent("25%"), 4, 1, 1),
            (percent("0%"), 9, 0, 0),
            (percent("100%"), 9, 9, 9),
            (IntOrString::Int(3), 1, 3, 3),
        ] {
            assert_eq!(scaled(&value, total, true), up, "{value:?} of {total}");
            assert_eq!(scaled(&value, total, false), down, "{value:?} of {total}");
        }
    }
}
