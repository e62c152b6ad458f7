//! Claims and classes, compiled once: selectors parsed, names interned.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    AllocationResult, CapacityRequirements, DeviceClaim, DeviceClass, DeviceConstraint,
    DeviceRequest, DeviceSelector, DeviceToleration, ResourceClaim,
};
use rustc_hash::FxHashMap;
use wharf_cel::Expression;
use wharf_model::object::ObjectKey;

use super::capacity::{Amounts, amounts};
use super::extended::is_extended_resource_claim;
use super::slices::Place;
use crate::node::NodeInfo;
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
    pub(crate) uid: CompactString,
    pub(crate) deleting: bool,
    /// The uid of the object it was made for.
    pub(crate) owner: CompactString,
    /// Whether it was made for the extended resources of a pod.
    pub(crate) is_extended: bool,
    pub(crate) spec: DeviceClaim,
    pub(crate) requests: Box<[Request]>,
    pub(crate) allocation: Option<Allocation>,
    /// The uids of those it is reserved for.
    pub(crate) reserved_for: Box<[CompactString]>,
}

/// What a claim has got.
#[derive(Clone, Debug)]
pub(crate) struct Allocation {
    /// What it takes from others.
    pub(crate) devices: Arc<[Held]>,
    nodes: Place,
    pub(crate) binding: Binding,
}

/// A device, or a share of one, that others may not have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held {
    pub(crate) id: DeviceId,
    /// What is taken of a device that several may have.
    pub(crate) share: Option<Amounts>,
}

/// How far devices are that are made ready once they have been allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// A pod may be bound.
    Ready,
    Pending,
    Failed,
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
    /// What is asked of the device's capacity.
    pub(crate) capacity: Amounts,
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

fn wanted(capacity: Option<&CapacityRequirements>) -> Amounts {
    amounts(capacity.and_then(|capacity| capacity.requests.as_ref()))
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
            capacity: wanted(it.capacity.as_ref()),
        });
        let exactly: Vec<_> = exactly.collect();
        let first = request.first_available.iter().flatten().map(|it| Alternative {
            name: compact_str::format_compact!("{}/{}", request.name, it.name),
            class: it.device_class_name.as_str().into(),
            selectors: expressions.all(it.selectors.as_ref()),
            amount: Amount::new(it.allocation_mode.as_deref(), it.count),
            admin: false,
            tolerations: it.tolerations.clone().unwrap_or_default(),
            capacity: wanted(it.capacity.as_ref()),
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
            uid: claim.metadata.uid.as_deref().unwrap_or_default().into(),
            deleting: claim.metadata.deletion_timestamp.is_some(),
            owner: owner.map_or("", |owner| owner.uid.as_str()).into(),
            is_extended: is_extended_resource_claim(claim),
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
                binding: Binding::of(claim),
            }),
            reserved_for: reserved
                .into_iter()
                .flatten()
                .map(|user| CompactString::from(user.uid.as_str()))
                .collect(),
        }
    }

    /// A claim that is not there yet, for a pod.
    pub(crate) fn for_requests(
        key: ObjectKey,
        owner: CompactString,
        requests: &[DeviceRequest],
    ) -> Self {
        let mut expressions = Expressions::default();
        let requests = requests.iter().map(|request| Request::new(request, &mut expressions));
        Self {
            key,
            uid: owner.clone(),
            deleting: false,
            owner,
            is_extended: true,
            requests: requests.collect(),
            spec: DeviceClaim::default(),
            allocation: None,
            reserved_for: Box::default(),
        }
    }

    pub(crate) fn is_prioritised(&self) -> bool {
        self.requests.iter().any(|request| request.is_prioritised)
    }
}

impl Binding {
    /// What drivers say in `status.devices` of the conditions that the devices had when they were
    /// allocated.
    fn of(claim: &ResourceClaim) -> Self {
        match binding_conditions(claim) {
            Ok(true) => Self::Ready,
            Ok(false) => Self::Pending,
            Err(_) => Self::Failed,
        }
    }
}

/// Whether the devices of a claim are ready for the binding of a pod, or the words for that they
/// never will be.
pub fn binding_conditions(claim: &ResourceClaim) -> Result<bool, String> {
    let Some(status) = &claim.status else { return Ok(true) };
    let devices = status.allocation.as_ref().and_then(|allocation| allocation.devices.as_ref());
    for result in devices.iter().flat_map(|devices| devices.results.iter().flatten()) {
        let needed = result.binding_conditions.as_deref().unwrap_or_default();
        if needed.is_empty() {
            continue;
        }
        // Shares of one device are not told apart, as upstream has it.
        let told = status.devices.iter().flatten().find(|told| {
            told.device == result.device && told.driver == result.driver && told.pool == result.pool
        });
        let Some(told) = told else { return Ok(false) };
        let holds = |wanted: &String| {
            let conditions = told.conditions.iter().flatten();
            conditions.into_iter().find(|one| one.type_ == *wanted && one.status == "True")
        };
        let failures = result.binding_failure_conditions.iter().flatten();
        if let Some(failed) = failures.into_iter().find_map(holds) {
            return Err(format!(
                "claim {} binding failed: reason={}, message={:?}",
                claim.metadata.name.as_deref().unwrap_or_default(),
                failed.reason,
                failed.message
            ));
        }
        if needed.iter().any(|needed| holds(needed).is_none()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What an allocation takes from others; administrators take nothing.
pub(crate) fn devices_of(allocation: &AllocationResult, symbols: &mut Symbols) -> Arc<[Held]> {
    let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
    results
        .filter(|result| result.admin_access != Some(true))
        .map(|result| {
            let mut intern = |text: &str| symbols.intern(text);
            let id = (intern(&result.driver), intern(&result.pool), intern(&result.device));
            let share =
                result.share_id.as_ref().map(|_| amounts(result.consumed_capacity.as_ref()));
            Held { id, share }
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
