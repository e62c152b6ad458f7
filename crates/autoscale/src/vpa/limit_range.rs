//! What a namespace's LimitRanges are to recommendations: a target must not make a container's limit
//! or request, or the sum over a pod, one that the LimitRanger then refuses.
//!
//! A request is bounded through the limit it drags along: the ratio of the two is kept, so that the
//! bound on the limit is one on the request, too.

use k8s_openapi::api::core::v1::{Container, LimitRange};
use wharf_model::quantity::Quantity;

use super::Recommended;
use super::admit::{List, get, proportional_limit, requests_and_limits};

/// All LimitRanges of a namespace, as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitRanges {
    container: Item,
    pod: Item,
    /// Whether anything is said of whole pods.
    has_pod: bool,
}

/// Bounds of cpu and memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Item {
    min: Recommended,
    max: Recommended,
    /// What a container without a limit gets for one.
    default: Recommended,
}

impl LimitRanges {
    /// The LimitRanges as one: the lowest maximum, the highest minimum, the last default.
    pub fn of<'a>(ranges: impl IntoIterator<Item = &'a LimitRange>) -> Self {
        let mut all = Self::default();
        for limit in ranges.into_iter().flat_map(|range| range.spec.iter()) {
            for item in &limit.limits {
                let into = match &*item.type_ {
                    "Container" => &mut all.container,
                    "Pod" => &mut all.pod,
                    _ => continue,
                };
                if item.max.is_none() && item.min.is_none() && item.default.is_none() {
                    continue;
                }
                all.has_pod |= item.type_ == "Pod";
                if item.default.is_some() {
                    into.default = both(item.default.as_ref());
                }
                into.max = pick(into.max, both(item.max.as_ref()), |one, other| one.min(other));
                into.min = pick(into.min, both(item.min.as_ref()), |one, other| one.max(other));
            }
        }
        all
    }

    /// What a container without a limit gets for one.
    pub(super) fn default_limit(&self, name: &str) -> Option<Quantity> {
        self.container.default.of(name)
    }

    /// Whether whole pods are bounded.
    pub(super) fn bound_pods(&self) -> bool {
        self.has_pod
    }

    /// An amount for a container within the bounds of containers, with what cut it.
    pub(super) fn of_container(
        &self,
        name: &'static str,
        amount: Quantity,
        container: &Container,
        notes: &mut Vec<String>,
    ) -> Quantity {
        let (requests, limits) = requests_and_limits(container);
        let boundary = |bound: Option<Quantity>| {
            let bound = set(bound)?;
            let limit = set(get(limits, name)).or_else(|| set(self.default_limit(name)))?;
            Some(match set(get(requests, name)) {
                // Without a request the limit is the request.
                None => bound,
                Some(request) => scaled(name, request, limit, bound),
            })
        };
        let mut amount = amount;
        // The minimum counts for the request itself as well.
        let least = [boundary(self.container.min.of(name)), set(self.container.min.of(name))];
        if let Some(least) = least.into_iter().flatten().max().filter(|least| amount < *least) {
            amount = least;
            notes.push(format!("{name} capped to fit Min in container LimitRange"));
        }
        let most = set(boundary(self.container.max.of(name)));
        if let Some(most) = most.filter(|most| amount > *most) {
            amount = most;
            notes.push(format!("{name} capped to fit Max in container LimitRange"));
        }
        amount
    }

    /// Brings the amounts for a pod's containers within the bounds of pods: all of them by one factor.
    pub(super) fn of_pod(
        &self,
        name: &'static str,
        containers: &[Container],
        amounts: &mut [Option<Quantity>],
    ) {
        let (least, most) =
            (self.pod.min.of(name).unwrap_or(Quantity::ZERO), self.pod.max.of(name));
        let most = set(most);
        let (mut limits_sum, mut sum) = (Quantity::ZERO, Quantity::ZERO);
        for (container, amount) in containers.iter().zip(amounts.iter()) {
            let (requests, limits) = requests_and_limits(container);
            let request = get(requests, name);
            let amount = amount.unwrap_or(Quantity::ZERO);
            let default = self.pod.default.of(name);
            let limit = set(get(limits, name)).or(default);
            if let (Some(limit), _) = proportional_limit(name, limit, request, Some(amount)) {
                limits_sum = limits_sum.add(&limit);
            }
            sum = sum.add(&amount);
        }
        if limits_sum.is_zero() {
            return;
        }
        let (base, total) = if least > sum {
            (sum, least)
        } else if most.is_some_and(|most| most < limits_sum) {
            (limits_sum, most.unwrap_or(least))
        } else if least > limits_sum {
            (limits_sum, least)
        } else {
            return;
        };
        if base.is_zero() {
            return;
        }
        for amount in amounts.iter_mut().flatten() {
            *amount = scaled(name, *amount, base, total);
        }
    }
}

fn set(amount: Option<Quantity>) -> Option<Quantity> {
    amount.filter(|amount| !amount.is_zero())
}

fn both(list: Option<&List>) -> Recommended {
    Recommended { cpu: get(list, "cpu"), memory: get(list, "memory") }
}

fn pick(
    one: Recommended,
    other: Recommended,
    choose: impl Fn(Quantity, Quantity) -> Quantity,
) -> Recommended {
    let pick = |one: Option<Quantity>, other: Option<Quantity>| match (one, other) {
        (Some(one), Some(other)) => Some(choose(one, other)),
        (one, other) => one.or(other),
    };
    Recommended { cpu: pick(one.cpu, other.cpu), memory: pick(one.memory, other.memory) }
}

/// What stands to `amount` as `result` stands to `base`, cut off: thousandths of cpu, whole bytes.
fn scaled(name: &str, amount: Quantity, base: Quantity, result: Quantity) -> Quantity {
    let units = |amount: &Quantity| {
        i128::from(if name == "cpu" { amount.milli_value_ceil() } else { amount.value_ceil() })
    };
    let exact = units(&amount) * units(&result) / units(&base).max(1);
    let whole = i64::try_from(exact).unwrap_or(i64::MAX);
    if name == "cpu" {
        Quantity::from_milli(whole).in_format(amount.format())
    } else {
        Quantity::from_units(whole, amount.format())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ranges(limits: Value) -> LimitRanges {
        let range: LimitRange =
            serde_json::from_value(json!({"spec": {"limits": limits}})).expect("it decodes");
        LimitRanges::of([&range])
    }

    fn container(requests: Value, limits: Value) -> Container {
        serde_json::from_value(
            json!({"name": "c", "resources": {"requests": requests, "limits": limits}}),
        )
        .expect("it decodes")
    }

    fn quantity(text: &str) -> Quantity {
        Quantity::parse(text).expect("a quantity")
    }

    #[test]
    fn requests_are_bounded_through_their_limits() {
        let range = json!([{"type": "Container", "max": {"cpu": "2", "memory": "1Gi"},
            "min": {"cpu": "100m", "memory": "500M"}}]);
        let with_default =
            json!([{"type": "Container", "max": {"cpu": "2"}, "default": {"cpu": "1"}}]);
        for (range, requests, limits, name, amount, expected, note) in [
            // The limit is twice the request: 2 cores of limit are one of request.
            (&range, json!({"cpu": "500m"}), json!({"cpu": "1"}), "cpu", "1500m", "1", "Max"),
            (&range, json!({"cpu": "1"}), json!({"cpu": "1"}), "cpu", "3", "2", "Max"),
            // Without a limit nothing bounds the request from above.
            (&range, json!({"cpu": "1"}), json!({}), "cpu", "3", "3", ""),
            // A limit alone is the request.
            (&range, json!({}), json!({"cpu": "1"}), "cpu", "3", "2", "Max"),
            (&range, json!({"cpu": "500m"}), json!({}), "cpu", "50m", "100m", "Min"),
            (
                &range,
                json!({"memory": "1G"}),
                json!({"memory": "1G"}),
                "memory",
                "200M",
                "500M",
                "Min",
            ),
            // The minimum of the limit is met by less, that of the request is not.
            (
                &range,
                json!({"memory": "1G"}),
                json!({"memory": "2G"}),
                "memory",
                "200M",
                "500M",
                "Min",
            ),
            (&with_default, json!({"cpu": "500m"}), json!({}), "cpu", "3", "1", "Max"),
            (&with_default, json!({"cpu": "500m"}), json!({}), "memory", "3G", "3G", ""),
        ] {
            let container = container(requests, limits);
            let mut notes = Vec::new();
            let found =
                ranges(range.clone()).of_container(name, quantity(amount), &container, &mut notes);
            assert_eq!(found, quantity(expected), "{amount} of {container:?}");
            let expected = match note {
                "" => vec![],
                note => vec![format!("{name} capped to fit {note} in container LimitRange")],
            };
            assert_eq!(notes, expected);
        }
    }

    #[test]
    fn several_ranges_are_the_tightest_of_them() {
        let one = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "10m"}}]}});
        let two = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "5m"}, "default": {"cpu": "1"}}]}});
        let all: Vec<LimitRange> = [one, two]
            .into_iter()
            .map(|one| serde_json::from_value(one).expect("it decodes"))
            .collect();
        let all = LimitRanges::of(&all);
        assert_eq!(all.container.max.cpu, Some(quantity("1")));
        assert_eq!(all.container.min.cpu, Some(quantity("10m")));
        assert_eq!(all.default_limit("cpu"), Some(quantity("1")));
        assert!(!all.bound_pods());
    }

    #[test]
    fn the_containers_of_a_pod_are_scaled_alike() {
        let both = |limit: &str| vec![container(json!({"cpu": "1"}), json!({"cpu": limit})); 2];
        for (range, containers, amounts, expected) in [
            (
                json!({"max": {"cpu": "1"}}),
                both("1"),
                [Some("1"), Some("1")],
                [Some("500m"), Some("500m")],
            ),
            (
                json!({"max": {"cpu": "3"}}),
                both("2"),
                [Some("1"), Some("2")],
                [Some("500m"), Some("1")],
            ),
            (
                json!({"max": {"cpu": "10"}}),
                both("2"),
                [Some("1"), Some("2")],
                [Some("1"), Some("2")],
            ),
            (
                json!({"min": {"cpu": "4"}}),
                both("1"),
                [Some("1"), Some("1")],
                [Some("2"), Some("2")],
            ),
            (json!({"max": {"cpu": "500m"}}), both("1"), [Some("1"), None], [Some("500m"), None]),
            // Without limits there is nothing to keep within a maximum.
            (
                json!({"max": {"cpu": "1"}}),
                vec![container(json!({"cpu": "1"}), json!({})); 2],
                [Some("1"), Some("1")],
                [Some("1"), Some("1")],
            ),
        ] {
            let mut item = range.clone();
            item["type"] = json!("Pod");
            let mut found = amounts.map(|amount| amount.map(quantity));
            ranges(json!([item])).of_pod("cpu", &containers, &mut found);
            assert_eq!(found, expected.map(|amount| amount.map(quantity)), "{range}");
        }
    }
}
