//! Claims, classes and slices, compiled once: selectors parsed, names interned, each device with the
//! variables that selectors see of it.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{NodeSelector, Pod};
use k8s_openapi::api::resource::v1::{
    Device as ApiDevice, DeviceAttribute, DeviceClaim, DeviceClass, DeviceConstraint,
    DeviceRequest, DeviceSelector, DeviceTaint, DeviceToleration, ResourceClaim, ResourceSlice,
};
use rustc_hash::FxHashMap;
use wharf_cel::{Expression, Key, Map, Value, Variables};
use wharf_model::object::ObjectKey;
use wharf_model::quantity::Quantity;

use crate::node::NodeInfo;
use crate::selector::Term;
use crate::symbols::{Symbol, Symbols};

/// The parsed expressions that are kept in case they are met again.
const EXPRESSIONS_MAX: usize = 4096;

/// Driver, pool and device.
pub(crate) type DeviceId = (Symbol, Symbol, Symbol);

/// The claims of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodClaims {
    /// In the order of `spec.resourceClaims`.
    pub claims: Box<[PodClaim]>,
}

/// One of a pod's claims.
#[derive(Clone, Debug, PartialEq)]
pub struct PodClaim {
    /// What the pod calls it.
    pub name: CompactString,
    /// The claim; `None` while it has not been made from its template.
    pub key: Option<ObjectKey>,
    /// Whether it is made for this pod alone.
    pub from_template: bool,
}

impl PodClaims {
    /// The claims of a pod, `None` if it has none. One for which the status says that no claim is
    /// needed is left out.
    pub(crate) fn new(pod: &Pod) -> Option<Box<Self>> {
        let wanted = pod.spec.as_ref()?.resource_claims.as_deref().filter(|all| !all.is_empty())?;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let statuses = pod.status.as_ref().and_then(|it| it.resource_claim_statuses.as_deref());
        let claims = wanted.iter().filter_map(|wanted| {
            let name = CompactString::from(wanted.name.as_str());
            if let Some(claim) = &wanted.resource_claim_name {
                let key = Some(ObjectKey::namespaced(namespace, claim));
                return Some(PodClaim { name, key, from_template: false });
            }
            let told = statuses.into_iter().flatten().find(|told| told.name == wanted.name);
            let key = match told {
                None => None,
                Some(told) => {
                    Some(ObjectKey::namespaced(namespace, told.resource_claim_name.as_deref()?))
                }
            };
            Some(PodClaim { name, key, from_template: true })
        });
        Some(Box::new(Self { claims: claims.collect() }))
    }

    /// Whether the claim is one of them.
    pub(crate) fn uses(&self, key: &ObjectKey) -> bool {
        self.claims.iter().any(|claim| claim.key.as_ref() == Some(key))
    }
}

/// A selector, or why it cannot be used.
pub(crate) type Parsed = Arc<Result<Expression, String>>;

/// Selectors by their text, so that one that many claims share is parsed once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expressions {
    known: FxHashMap<String, Parsed>,
}

impl Expressions {
    fn all(&mut self, selectors: Option<&Vec<DeviceSelector>>) -> Box<[Parsed]> {
        selectors.into_iter().flatten().map(|selector| self.one(selector)).collect()
    }

    fn one(&mut self, selector: &DeviceSelector) -> Parsed {
        let Some(cel) = &selector.cel else {
            return Arc::new(Err("a selector without a CEL expression is not known".to_owned()));
        };
        if let Some(known) = self.known.get(&cel.expression) {
            return known.clone();
        }
        if self.known.len() >= EXPRESSIONS_MAX {
            self.known.clear();
        }
        let parsed = Expression::parse(&cel.expression).map_err(|error| error.to_string());
        let parsed = Arc::new(parsed);
        self.known.insert(cel.expression.clone(), parsed.clone());
        parsed
    }
}

/// A claim.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) key: ObjectKey,
    pub(crate) deleting: bool,
    /// The uid of the object it was made for.
    pub(crate) owner: CompactString,
    pub(crate) spec: DeviceClaim,
    pub(crate) requests: Box<[Request]>,
    pub(crate) allocation: Option<Allocation>,
    /// The uids of those it is reserved for.
    pub(crate) reserved_for: Box<[CompactString]>,
}

/// What a claim has got.
#[derive(Clone, Debug)]
pub(crate) struct Allocation {
    /// The devices that nobody else may have.
    pub(crate) devices: Box<[DeviceId]>,
    nodes: Place,
}

impl Allocation {
    pub(crate) fn is_on(&self, node: &NodeInfo, symbols: &Symbols) -> bool {
        self.nodes.reaches(node, symbols)
    }
}

/// Devices that are asked for together: of the alternatives the first that can be had.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) name: CompactString,
    pub(crate) alternatives: Box<[Alternative]>,
    /// Whether it is a list in the order of preference.
    pub(crate) is_prioritised: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Alternative {
    /// The request's name, or `request/subrequest`.
    pub(crate) name: CompactString,
    pub(crate) class: CompactString,
    pub(crate) selectors: Box<[Parsed]>,
    pub(crate) amount: Amount,
    pub(crate) admin: bool,
    pub(crate) tolerations: Vec<DeviceToleration>,
    pub(crate) asks_capacity: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Exactly(usize),
    All,
    /// A mode that nobody here knows.
    Unknown,
}

impl Amount {
    fn new(mode: Option<&str>, count: Option<i64>) -> Self {
        match mode {
            Some("All") => Self::All,
            None | Some("" | "ExactCount") => {
                Self::Exactly(usize::try_from(count.unwrap_or(1)).unwrap_or(usize::MAX).max(1))
            }
            Some(_) => Self::Unknown,
        }
    }
}

impl Request {
    fn new(request: &DeviceRequest, expressions: &mut Expressions) -> Self {
        let exactly = request.exactly.iter().map(|it| Alternative {
            name: request.name.as_str().into(),
            class: it.device_class_name.as_str().into(),
            selectors: expressions.all(it.selectors.as_ref()),
            amount: Amount::new(it.allocation_mode.as_deref(), it.count),
            admin: it.admin_access == Some(true),
            tolerations: it.tolerations.clone().unwrap_or_default(),
            asks_capacity: it.capacity.is_some(),
        });
        let exactly: Vec<_> = exactly.collect();
        let first = request.first_available.iter().flatten().map(|it| Alternative {
            name: compact_str::format_compact!("{}/{}", request.name, it.name),
            class: it.device_class_name.as_str().into(),
            selectors: expressions.all(it.selectors.as_ref()),
            amount: Amount::new(it.allocation_mode.as_deref(), it.count),
            admin: false,
            tolerations: it.tolerations.clone().unwrap_or_default(),
            asks_capacity: it.capacity.is_some(),
        });
        let is_prioritised = exactly.is_empty();
        let alternatives = exactly.into_iter().chain(first).collect();
        Self { name: request.name.as_str().into(), alternatives, is_prioritised }
    }
}

impl Claim {
    pub(crate) fn new(
        claim: &ResourceClaim,
        symbols: &mut Symbols,
        expressions: &mut Expressions,
    ) -> Self {
        let spec = claim.spec.devices.clone().unwrap_or_default();
        let status = claim.status.as_ref();
        let allocation = status.and_then(|status| status.allocation.as_ref());
        let reserved = status.and_then(|status| status.reserved_for.as_deref());
        let owners = claim.metadata.owner_references.iter().flatten();
        let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
        Self {
            key: ObjectKey::of(&claim.metadata),
            deleting: claim.metadata.deletion_timestamp.is_some(),
            owner: owner.map_or("", |owner| owner.uid.as_str()).into(),
            requests: spec
                .requests
                .iter()
                .flatten()
                .map(|request| Request::new(request, expressions))
                .collect(),
            spec,
            allocation: allocation.map(|allocation| Allocation {
                devices: devices_of(allocation, symbols),
                nodes: Place::of_selector(allocation.node_selector.as_ref(), symbols),
            }),
            reserved_for: reserved
                .into_iter()
                .flatten()
                .map(|user| CompactString::from(user.uid.as_str()))
                .collect(),
        }
    }

    pub(crate) fn is_prioritised(&self) -> bool {
        self.requests.iter().any(|request| request.is_prioritised)
    }
}

/// The devices that an allocation takes from others.
pub(crate) fn devices_of(
    allocation: &k8s_openapi::api::resource::v1::AllocationResult,
    symbols: &mut Symbols,
) -> Box<[DeviceId]> {
    let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
    results
        .filter(|result| result.admin_access != Some(true))
        .map(|result| {
            let mut intern = |text: &str| symbols.intern(text);
            (intern(&result.driver), intern(&result.pool), intern(&result.device))
        })
        .collect()
}

/// A class of devices.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(crate) selectors: Box<[Parsed]>,
    pub(crate) object: DeviceClass,
}

impl Class {
    pub(crate) fn new(class: &DeviceClass, expressions: &mut Expressions) -> Self {
        let selectors = expressions.all(class.spec.selectors.as_ref());
        Self { selectors, object: class.clone() }
    }
}

/// Where something is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Nowhere,
    Everywhere,
    Node(Symbol),
    Nodes(Box<[Term]>, NodeSelector),
}

impl Place {
    fn of_selector(selector: Option<&NodeSelector>, symbols: &mut Symbols) -> Self {
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
    /// Whether it is shared in a way that is not known here.
    pub(crate) is_shared: bool,
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
        let some = |list: Option<usize>| list.is_some_and(|length| length > 0);
        Self {
            id,
            driver: driver.into(),
            pool: slice.spec.pool.name.as_str().into(),
            name: device.name.as_str().into(),
            place,
            variables: [("device".to_owned(), variable)].into(),
            attributes,
            taints: device.taints.clone().unwrap_or_default(),
            is_shared: device.allow_multiple_allocations == Some(true)
                || some(device.consumes_counters.as_ref().map(Vec::len))
                || some(device.binding_conditions.as_ref().map(Vec::len)),
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
    let mut domains: std::collections::BTreeMap<String, Vec<(String, Value)>> = Default::default();
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

/// Whether a constraint is about an alternative of a request.
pub(crate) fn is_about(
    constraint: &DeviceConstraint,
    request: &Request,
    chosen: &Alternative,
) -> bool {
    names_one(constraint.requests.as_deref(), &request.name, &chosen.name)
}

/// Whether a list of requests, where an empty one means all, names a request or its alternative.
pub(crate) fn names_one(names: Option<&[String]>, request: &str, chosen: &str) -> bool {
    let names = names.unwrap_or_default();
    names.is_empty() || names.iter().any(|name| name == request || name == chosen)
}
