//! The capacity of devices, of which several requests may each take a part, and how much a request
//! takes: what it asks for, rounded up to what the device gives out
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#consumable-capacity>).

use std::collections::BTreeMap;

use compact_str::CompactString;
use k8s_openapi::api::resource::v1::{CapacityRequestPolicy, DeviceCapacity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use wharf_model::quantity::{Format, Quantity};

/// Amounts by name, in the order of names.
pub(crate) type Amounts = Box<[(CompactString, Quantity)]>;

/// How much of each capacity of a device a request takes. `None` if the device does not give that
/// out even when nobody else has any of it: it lacks a capacity, or the amount is not one it gives.
pub(crate) fn consumption(
    capacities: &[Capacity],
    wanted: &[(CompactString, Quantity)],
) -> Option<Amounts> {
    gives(capacities, wanted).then(|| {
        let amount = |capacity: &Capacity| capacity.amount(amount_of(wanted, &capacity.name));
        capacities.iter().map(|capacity| (capacity.name.clone(), amount(capacity))).collect()
    })
}

/// Whether a device gives out what a request takes when nobody else has any of it.
pub(crate) fn gives(capacities: &[Capacity], wanted: &[(CompactString, Quantity)]) -> bool {
    let is_known = |name: &CompactString| capacities.iter().any(|known| known.name == *name);
    wanted.iter().all(|(name, _)| is_known(name))
        && capacities.iter().all(|capacity| {
            let amount = capacity.amount(amount_of(wanted, &capacity.name));
            !capacity.refuses(&amount) && amount <= capacity.value
        })
}

/// One kind of capacity of a device.
#[derive(Clone, Debug)]
pub(crate) struct Capacity {
    pub(crate) name: CompactString,
    pub(crate) value: Quantity,
    policy: Option<Policy>,
}

/// In which amounts it is given out.
#[derive(Clone, Debug)]
struct Policy {
    default: Option<Quantity>,
    steps: Steps,
}

#[derive(Clone, Debug)]
enum Steps {
    Any,
    Range { min: Quantity, max: Option<Quantity>, step: Option<i64> },
    Values(Vec<Quantity>),
}

impl Capacity {
    /// `None` if it has no amount that can be read, which the API does not let through.
    pub(crate) fn new(name: &str, capacity: &DeviceCapacity) -> Option<Self> {
        Some(Self {
            name: name.into(),
            value: Quantity::parse(&capacity.value.0).ok()?,
            policy: capacity.request_policy.as_ref().map(Policy::new),
        })
    }

    /// What a request takes of it. One that does not ask takes the default, or else all.
    fn amount(&self, asked: Option<&Quantity>) -> Quantity {
        let Some(asked) = asked else {
            return self.policy.as_ref().and_then(|policy| policy.default).unwrap_or(self.value);
        };
        match self.policy.as_ref().map(|policy| &policy.steps) {
            None | Some(Steps::Any) => *asked,
            Some(Steps::Range { min, .. }) if asked < min => *min,
            Some(Steps::Range { step: None, .. }) => *asked,
            Some(Steps::Range { min, step: Some(step), .. }) => {
                let min = min.value_ceil();
                let beyond = asked.value_ceil().saturating_sub(min);
                let steps = beyond / step + i64::from(beyond % step != 0);
                let units = min.saturating_add(steps.saturating_mul(*step));
                Quantity::from_units(units, Format::BinarySi)
            }
            Some(Steps::Values(values)) => {
                *values.iter().find(|value| asked <= value).unwrap_or(asked)
            }
        }
    }

    /// Whether this is no amount in which it is given out.
    fn refuses(&self, amount: &Quantity) -> bool {
        let Some(policy) = &self.policy else { return false };
        if policy.default.as_ref() == Some(amount) {
            return false;
        }
        match &policy.steps {
            Steps::Any => false,
            Steps::Range { min, max, step } => {
                max.as_ref().is_some_and(|max| amount > max)
                    || step.is_some_and(|step| {
                        amount.value_ceil().saturating_sub(min.value_ceil()) % step != 0
                    })
            }
            Steps::Values(values) => !values.is_empty() && !values.contains(amount),
        }
    }
}

impl Policy {
    fn new(policy: &CapacityRequestPolicy) -> Self {
        let parse = |quantity: &ApiQuantity| Quantity::parse(&quantity.0).ok();
        let steps = match (&policy.valid_range, &policy.valid_values) {
            (Some(range), _) => Steps::Range {
                min: parse(&range.min).unwrap_or_default(),
                max: range.max.as_ref().and_then(parse),
                step: range
                    .step
                    .as_ref()
                    .and_then(parse)
                    .map(|step| step.value_ceil())
                    .filter(|step| *step > 0),
            },
            (None, Some(values)) => Steps::Values(values.iter().filter_map(parse).collect()),
            (None, None) => Steps::Any,
        };
        Self { default: policy.default.as_ref().and_then(parse), steps }
    }
}

/// The shares of a device that several have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shares {
    count: u32,
    consumed: BTreeMap<CompactString, Quantity>,
}

impl Shares {
    pub(crate) fn add(&mut self, amounts: &[(CompactString, Quantity)]) {
        self.count += 1;
        for (name, amount) in amounts {
            let sum = self.consumed.entry(name.clone()).or_default();
            *sum = sum.add(amount);
        }
    }

    /// Takes a share off again. Returns whether none is left.
    pub(crate) fn remove(&mut self, amounts: &[(CompactString, Quantity)]) -> bool {
        self.count -= 1;
        for (name, amount) in amounts {
            if let Some(sum) = self.consumed.get_mut(name) {
                *sum = sum.sub(amount);
            }
        }
        self.count == 0
    }

    /// What they take of a capacity together.
    pub(crate) fn consumed(&self, name: &str) -> Quantity {
        self.consumed.get(name).copied().unwrap_or_default()
    }
}

/// The API's quantities as amounts; what cannot be read is left out.
pub(crate) fn amounts(quantities: Option<&BTreeMap<String, ApiQuantity>>) -> Amounts {
    let quantities = quantities.into_iter().flatten();
    quantities
        .filter_map(|(name, quantity)| Some((name.into(), Quantity::parse(&quantity.0).ok()?)))
        .collect()
}

pub(crate) fn amount_of<'a>(
    amounts: &'a [(CompactString, Quantity)],
    name: &str,
) -> Option<&'a Quantity> {
    amounts.iter().find(|(known, _)| known == name).map(|(_, amount)| amount)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What a request for so much takes of 40Gi that are given out by this policy.
    fn taken(policy: Value, asked: Option<&str>) -> Option<String> {
        let mut whole = json!({"value": "40Gi"});
        if !policy.is_null() {
            whole["requestPolicy"] = policy;
        }
        let capacity = serde_json::from_value(whole).unwrap();
        let capacities = [Capacity::new("memory", &capacity).unwrap()];
        let asked = asked.map(|asked| ("memory".into(), Quantity::parse(asked).unwrap()));
        let taken = consumption(&capacities, asked.as_slice())?;
        assert_eq!(taken.len(), 1);
        Some(taken[0].1.to_string())
    }

    #[test]
    fn requests_are_rounded_up_to_what_is_given_out() {
        let range =
            json!({"default": "2Gi", "validRange": {"min": "1Gi", "max": "16Gi", "step": "2Gi"}});
        let open = json!({"default": "2Gi", "validRange": {"min": "1Gi"}});
        let values = json!({"default": "5Gi", "validValues": ["5Gi", "10Gi", "20Gi"]});
        for (policy, asked, expected) in [
            (json!(null), None, Some("40Gi")),
            (json!(null), Some("3Gi"), Some("3Gi")),
            (json!(null), Some("41Gi"), None),
            (json!({"default": "4Gi"}), None, Some("4Gi")),
            (range.clone(), None, Some("2Gi")),
            (range.clone(), Some("512Mi"), Some("1Gi")),
            (range.clone(), Some("1Gi"), Some("1Gi")),
            (range.clone(), Some("4Gi"), Some("5Gi")),
            (range.clone(), Some("15Gi"), Some("15Gi")),
            (range, Some("16Gi"), None),
            (open.clone(), Some("39500Mi"), Some("39500Mi")),
            (open, Some("1"), Some("1Gi")),
            (values.clone(), None, Some("5Gi")),
            (values.clone(), Some("6Gi"), Some("10Gi")),
            (values, Some("21Gi"), None),
        ] {
            let text = format!("{policy} {asked:?}");
            assert_eq!(taken(policy, asked).as_deref(), expected, "{text}");
        }
        let other = [("cores".into(), Quantity::from_milli(1_000))];
        assert_eq!(consumption(&[], &other), None, "a device without cores has none to give");
        assert_eq!(consumption(&[], &[]).map(|all| all.len()), Some(0));
    }
}
