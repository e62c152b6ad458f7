//! Slices of pools of devices, compiled once: each device with where it is and with the variables
//! that selectors see of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{
    Counter, Device as ApiDevice, DeviceAttribute, DeviceTaint, DeviceToleration, ResourceSlice,
};
use wharf_cel::{Key, Map, Value, Variables};
use wharf_model::quantity::Quantity;

use super::answers::Answers;
use super::capacity::{Amounts, Capacity};
use super::objects::DeviceId;
use crate::node::NodeInfo;
use crate::selector::Term;
use crate::symbols::{Symbol, Symbols};

/// Where something is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Nowhere,
    Everywhere,
    Node(Symbol),
    Nodes(Box<[Term]>, NodeSelector),
}

impl Place {
    pub(super) fn of_selector(selector: Option<&NodeSelector>, symbols: &mut Symbols) -> Self {
        match selector {
            None => Self::Everywhere,
            Some(selector) => {
                let terms = selector.node_selector_terms.iter();
                let terms = terms.map(|term| Term::new(term, symbols)).collect();
                Self::Nodes(terms, selector.clone())
            }
        }
    }

    fn new(
        node: Option<&str>,
        selector: Option<&NodeSelector>,
        everywhere: bool,
        symbols: &mut Symbols,
    ) -> Self {
        match (node.filter(|node| !node.is_empty()), selector) {
            (Some(node), _) => Self::Node(symbols.intern(node)),
            (None, Some(_)) => Self::of_selector(selector, symbols),
            (None, None) if everywhere => Self::Everywhere,
            (None, None) => Self::Nowhere,
        }
    }

    pub(crate) fn reaches(&self, node: &NodeInfo, symbols: &Symbols) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Everywhere => true,
            Self::Node(name) => *name == node.facts.symbol,
            Self::Nodes(terms, _) => terms.iter().any(|term| term.matches(node, symbols)),
        }
    }
}

/// A part of a pool of devices.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    /// Driver, pool and the slice's name: the order in which devices are tried.
    pub(crate) order: (CompactString, CompactString, CompactString),
    pub(crate) pool: (Symbol, Symbol),
    pub(crate) generation: i64,
    pub(crate) slices_in_pool: i64,
    /// The node that alone reaches it.
    pub(crate) node: Option<Symbol>,
    pub(crate) devices: Box<[Device]>,
    /// Sets of counters that devices of the pool share.
    pub(crate) counter_sets: Box<[(CompactString, Amounts)]>,
    /// Whether devices are made ready only once they have been allocated.
    pub(crate) has_binding_conditions: bool,
    /// What selectors say of the devices.
    pub(super) answers: Answers,
}

/// A device.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) driver: CompactString,
    pub(crate) pool: CompactString,
    pub(crate) name: CompactString,
    pub(crate) place: Place,
    pub(crate) variables: Variables,
    attributes: Vec<(String, DeviceAttribute)>,
    pub(crate) taints: Vec<DeviceTaint>,
    /// Whether several may have it, as far as its capacity goes.
    pub(crate) is_shareable: bool,
    pub(crate) capacities: Box<[Capacity]>,
    /// What it takes of its pool's sets of counters.
    pub(crate) counters: Box<[(CompactString, Amounts)]>,
    /// Whether what it is allocated for stays at the node.
    pub(crate) binds_to_node: bool,
    pub(crate) binding_conditions: Option<Vec<String>>,
    pub(crate) binding_failure_conditions: Option<Vec<String>>,
}

impl Slice {
    pub(crate) fn new(slice: &ResourceSlice, symbols: &mut Symbols) -> Self {
        let spec = &slice.spec;
        let (driver, pool) = (symbols.intern(&spec.driver), symbols.intern(&spec.pool.name));
        let node = spec.node_name.as_deref().filter(|node| !node.is_empty());
        let per_device = spec.per_device_node_selection == Some(true);
        let devices = spec.devices.iter().flatten().map(|device| {
            let place = if per_device {
                let everywhere = device.all_nodes == Some(true);
                let (node, selector) = (device.node_name.as_deref(), device.node_selector.as_ref());
                Place::new(node, selector, everywhere, symbols)
            } else {
                let everywhere = spec.all_nodes == Some(true);
                Place::new(node, spec.node_selector.as_ref(), everywhere, symbols)
            };
            Device::new(device, (driver, pool, symbols.intern(&device.name)), place, slice)
        });
        let devices = devices.collect();
        Self {
            order: (
                spec.driver.as_str().into(),
                spec.pool.name.as_str().into(),
                slice.metadata.name.as_deref().unwrap_or_default().into(),
            ),
            pool: (driver, pool),
            generation: spec.pool.generation,
            slices_in_pool: spec.pool.resource_slice_count,
            node: node.map(|node| symbols.intern(node)),
            devices,
            counter_sets: spec
                .shared_counters
                .iter()
                .flatten()
                .map(|set| (set.name.as_str().into(), values_of(&set.counters)))
                .collect(),
            has_binding_conditions: spec
                .devices
                .iter()
                .flatten()
                .any(|device| device.binding_conditions.is_some()),
            answers: Answers::default(),
        }
    }
}

impl Device {
    fn new(device: &ApiDevice, id: DeviceId, place: Place, slice: &ResourceSlice) -> Self {
        let driver = slice.spec.driver.as_str();
        let attributes = device.attributes.iter().flatten();
        let attributes: Vec<_> =
            attributes.map(|(name, value)| (qualified(name, driver), value.clone())).collect();
        let capacity = device.capacity.iter().flatten().filter_map(|(name, capacity)| {
            let quantity = Quantity::parse(&capacity.value.0).ok()?;
            Some((qualified(name, driver), Value::Quantity(quantity)))
        });
        let values = attributes.iter().filter_map(|(name, it)| Some((name.clone(), value(it)?)));
        let variable = Value::map([
            ("driver".to_owned(), Value::text(driver)),
            ("attributes".to_owned(), by_domain(values)),
            ("capacity".to_owned(), by_domain(capacity)),
            (
                "allowMultipleAllocations".to_owned(),
                Value::Bool(device.allow_multiple_allocations == Some(true)),
            ),
        ]);
        Self {
            id,
            driver: driver.into(),
            pool: slice.spec.pool.name.as_str().into(),
            name: device.name.as_str().into(),
            place,
            variables: [("device".to_owned(), variable)].into(),
            attributes,
            taints: device.taints.clone().unwrap_or_default(),
            is_shareable: device.allow_multiple_allocations == Some(true),
            capacities: device
                .capacity
                .iter()
                .flatten()
                .filter_map(|(name, capacity)| Capacity::new(name, capacity))
                .collect(),
            counters: device
                .consumes_counters
                .iter()
                .flatten()
                .map(|taken| (taken.counter_set.as_str().into(), values_of(&taken.counters)))
                .collect(),
            binds_to_node: device.binds_to_node == Some(true),
            binding_conditions: device.binding_conditions.clone(),
            binding_failure_conditions: device.binding_failure_conditions.clone(),
        }
    }

    /// An attribute by its name with the domain.
    pub(crate) fn attribute(&self, name: &str) -> Option<&DeviceAttribute> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Whether nothing about the device keeps those away who tolerate this.
    pub(crate) fn is_tolerated(&self, tolerations: &[DeviceToleration]) -> bool {
        let hard = |taint: &&DeviceTaint| matches!(&*taint.effect, "NoSchedule" | "NoExecute");
        self.taints.iter().filter(hard).all(|taint| {
            tolerations.iter().any(|toleration| {
                let key = toleration.key.as_deref().unwrap_or_default();
                let effect = toleration.effect.as_deref().unwrap_or_default();
                let value = toleration.value.as_deref().unwrap_or_default();
                (effect.is_empty() || effect == taint.effect)
                    && (key.is_empty() || key == taint.key)
                    && match toleration.operator.as_deref() {
                        Some("Exists") => true,
                        None | Some("" | "Equal") => {
                            value == taint.value.as_deref().unwrap_or_default()
                        }
                        Some(_) => false,
                    }
            })
        })
    }
}

/// A name without a domain is in that of its driver.
fn qualified(name: &str, driver: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{driver}/{name}") }
}

fn value(attribute: &DeviceAttribute) -> Option<Value> {
    if let Some(value) = attribute.bool {
        return Some(Value::Bool(value));
    }
    if let Some(value) = attribute.int {
        return Some(Value::Int(value));
    }
    if let Some(value) = &attribute.string {
        return Some(Value::text(value));
    }
    attribute.version.as_ref().and_then(|version| version.parse().ok()).map(Value::Version)
}

/// Values by domain and name; a domain that has none is an empty map.
fn by_domain(values: impl Iterator<Item = (String, Value)>) -> Value {
    let mut domains: BTreeMap<String, Vec<(String, Value)>> = Default::default();
    for (name, value) in values {
        if let Some((domain, id)) = name.split_once('/') {
            domains.entry(domain.to_owned()).or_default().push((id.to_owned(), value));
        }
    }
    let entries = domains
        .into_iter()
        .map(|(domain, values)| (Key::String(domain.into()), Value::map(values)))
        .collect();
    Value::Map(Arc::new(Map { entries, otherwise: Some(Value::Map(Arc::default())) }))
}

fn values_of(counters: &BTreeMap<String, Counter>) -> Amounts {
    let counters = counters.iter();
    let counters = counters.filter_map(|(name, counter)| {
        Some((CompactString::from(name), Quantity::parse(&counter.value.0).ok()?))
    });
    counters.collect()
}
