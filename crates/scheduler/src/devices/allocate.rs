//! Which devices of a node the claims of a pod get, all together: a search with backtracking over
//! requests, alternatives and devices, bounded by a number of steps.

use std::fmt;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceAttribute,
    DeviceRequestAllocationResult,
};
use rustc_hash::FxHashMap;
use wharf_cel::{Value, Variables};

use super::Devices;
use super::objects::{
    Alternative, Amount, Claim, Class, Device, Parsed, Place, is_about, names_one,
};
use crate::node::NodeInfo;
use crate::symbols::Symbols;

/// Devices that are tried on one node before the search is given up.
const STEPS_MAX: usize = 20_000;
/// The most devices of one claim, as upstream has it.
const RESULTS_MAX: usize = 32;

/// Why a node cannot give a pod the devices it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There are not enough that fit.
    None,
    /// The same; but there are some that are shared in ways that are not supported.
    OnlyShared,
    /// A selector cannot be used, or fails.
    Selector(String),
    /// The search was given up.
    TooLong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("it has not enough free devices that the claims ask for"),
            Self::OnlyShared => f.write_str(
                "it has not enough free devices that the claims ask for; devices with counters, multiple allocations or binding conditions are left out, since they are not supported",
            ),
            Self::Selector(error) => write!(f, "a device selector fails: {error}"),
            Self::TooLong => {
                write!(f, "no devices for all claims were found in {STEPS_MAX} steps")
            }
        }
    }
}

/// What claims get, in their order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) allocations: Vec<AllocationResult>,
    /// The sum over prioritised lists of 8 less the place of what was chosen.
    pub(crate) score: i64,
}

/// Allocates devices of a node for claims that have none.
pub(crate) fn allocate(
    claims: &[&Claim],
    node: &NodeInfo,
    devices: &Devices,
    symbols: &Symbols,
) -> Result<Found, Fault> {
    let mut search = Search {
        claims,
        owners: devices,
        incomplete: false,
        devices: Vec::new(),
        requests: Vec::new(),
        candidates: FxHashMap::default(),
        taken: Vec::new(),
        values: claims
            .iter()
            .map(|claim| vec![Vec::new(); claim.spec.constraints.as_ref().map_or(0, Vec::len)])
            .collect(),
        steps: 0,
        left_out: false,
    };
    for slice in devices.slices_for(node) {
        if !devices.is_current(slice) {
            continue;
        }
        let mut here = slice.devices.iter().filter(|it| it.place.reaches(node, symbols)).peekable();
        if here.peek().is_some() && !devices.is_complete(slice) {
            search.incomplete = true;
            continue;
        }
        search.devices.extend(here);
    }
    for (index, claim) in claims.iter().enumerate() {
        search.requests.extend((0..claim.requests.len()).map(|request| (index, request)));
    }
    if search.place(0)? {
        return Ok(search.found(node));
    }
    Err(if search.left_out { Fault::OnlyShared } else { Fault::None })
}

struct Search<'a> {
    claims: &'a [&'a Claim],
    owners: &'a Devices,
    /// Whether a pool of the node is being changed.
    incomplete: bool,
    /// The devices the node reaches.
    devices: Vec<&'a Device>,
    /// Claim and request, in their order.
    requests: Vec<(usize, usize)>,
    /// The devices that fit an alternative, by request and alternative.
    candidates: FxHashMap<(usize, usize), std::rc::Rc<[usize]>>,
    taken: Vec<Taken>,
    /// By claim and constraint, the attributes of the devices taken.
    values: Vec<Vec<Vec<&'a DeviceAttribute>>>,
    steps: usize,
    left_out: bool,
}

#[derive(Clone, Copy)]
struct Taken {
    request: usize,
    alternative: usize,
    device: usize,
    admin: bool,
}

impl<'a> Search<'a> {
    /// Finds devices for a request and all that follow.
    fn place(&mut self, at: usize) -> Result<bool, Fault> {
        let Some((claim, request)) = self.requests.get(at).copied() else { return Ok(true) };
        let claims = self.claims;
        for index in 0..claims[claim].requests[request].alternatives.len() {
            let alternative = &claims[claim].requests[request].alternatives[index];
            let candidates = self.candidates(at, index, alternative)?;
            let done = match alternative.amount {
                Amount::Unknown => false,
                Amount::Exactly(count) => self.choose(at, index, &candidates, 0, count)?,
                Amount::All => {
                    // All there are: so it must be known which.
                    !self.incomplete
                        && !candidates.is_empty()
                        && self.choose(at, index, &candidates, 0, candidates.len())?
                }
            };
            if done {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes so many of the candidates from one on, and finds devices for the rest.
    fn choose(
        &mut self,
        at: usize,
        index: usize,
        candidates: &[usize],
        from: usize,
        left: usize,
    ) -> Result<bool, Fault> {
        if left == 0 {
            return self.place(at + 1);
        }
        // Too few to go.
        let last = candidates.len().checked_sub(left);
        let Some(last) = last.filter(|last| *last >= from) else { return Ok(false) };
        for next in from..=last {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(Fault::TooLong);
            }
            if self.take(at, index, candidates[next]) {
                if self.choose(at, index, candidates, next + 1, left - 1)? {
                    return Ok(true);
                }
                self.put_back();
            }
        }
        Ok(false)
    }

    /// The devices that fit an alternative, whoever has them in this search. Those that others
    /// have stay candidates only where all are asked for, which they make impossible.
    fn candidates(
        &mut self,
        at: usize,
        index: usize,
        alternative: &'a Alternative,
    ) -> Result<std::rc::Rc<[usize]>, Fault> {
        if let Some(known) = self.candidates.get(&(at, index)) {
            return Ok(known.clone());
        }
        let class: Option<&'a Class> = self.owners.class(&alternative.class);
        let mut found = Vec::new();
        for (number, device) in self.devices.iter().enumerate() {
            let all = alternative.amount == Amount::All;
            let is_free = alternative.admin || !self.owners.is_taken(device.id);
            if !all && (!is_free || !device.is_tolerated(&alternative.tolerations)) {
                continue;
            }
            let Some(class) = class else { continue };
            let mut selectors = class.selectors.iter().chain(&alternative.selectors);
            let fits = selectors.try_fold(true, |fits, selector| {
                if fits { matches(selector, &device.variables) } else { Ok(false) }
            });
            if !fits.map_err(Fault::Selector)? {
                continue;
            }
            if device.is_shared {
                self.left_out = true;
                if !all {
                    continue;
                }
            }
            found.push(number);
        }
        let found: std::rc::Rc<[usize]> = found.into();
        self.candidates.insert((at, index), found.clone());
        Ok(found)
    }

    /// Takes a device if it may be had and no constraint of the claim speaks against it.
    fn take(&mut self, at: usize, index: usize, number: usize) -> bool {
        let (claim_index, request) = self.requests[at];
        let claim = self.claims[claim_index];
        let request = &claim.requests[request];
        let chosen = &request.alternatives[index];
        let device = self.devices[number];
        let own = |taken: &&Taken| self.requests[taken.request].0 == claim_index;
        if self.taken.iter().filter(own).count() == RESULTS_MAX {
            return false;
        }
        // An administrator looks at what others have, but only once.
        let is_busy = self.taken.iter().any(|taken| {
            taken.device == number
                && (self.requests[taken.request].0 == claim_index
                    || (!taken.admin && !chosen.admin))
        });
        let free = chosen.admin || !self.owners.is_taken(device.id);
        if is_busy || !free || device.is_shared || !device.is_tolerated(&chosen.tolerations) {
            return false;
        }
        let constraints = claim.spec.constraints.as_deref().unwrap_or_default();
        let mut noted = Vec::new();
        for (number, constraint) in constraints.iter().enumerate() {
            if !is_about(constraint, request, chosen) {
                continue;
            }
            let (name, equal) = match (&constraint.match_attribute, &constraint.distinct_attribute)
            {
                (Some(name), _) => (name, true),
                (None, Some(name)) => (name, false),
                // A constraint that nobody here knows is never fulfilled.
                (None, None) => return false,
            };
            let Some(value) = device.attribute(name) else { return false };
            let values = &self.values[claim_index][number];
            if !values.iter().all(|known| (*known == value) == equal) {
                return false;
            }
            noted.push((number, value));
        }
        for (number, value) in noted {
            self.values[claim_index][number].push(value);
        }
        self.taken.push(Taken {
            request: at,
            alternative: index,
            device: number,
            admin: chosen.admin,
        });
        true
    }

    /// Gives the device taken last back.
    fn put_back(&mut self) {
        let Some(taken) = self.taken.pop() else { return };
        let (claim_index, request) = self.requests[taken.request];
        let claim = self.claims[claim_index];
        let request = &claim.requests[request];
        let chosen = &request.alternatives[taken.alternative];
        let constraints = claim.spec.constraints.as_deref().unwrap_or_default();
        for (number, constraint) in constraints.iter().enumerate() {
            if is_about(constraint, request, chosen) {
                self.values[claim_index][number].pop();
            }
        }
    }

    /// What has been found, as claims tell it.
    fn found(&self, node: &NodeInfo) -> Found {
        let mut score = 0;
        let allocations = (0..self.claims.len()).map(|claim_index| {
            let claim = self.claims[claim_index];
            let mut results = Vec::new();
            let mut config = Vec::new();
            let mut selector = Selector::default();
            for (at, (_, number)) in
                self.requests.iter().enumerate().filter(|(_, (claim, _))| *claim == claim_index)
            {
                let request = &claim.requests[*number];
                let taken: Vec<_> = self.taken.iter().filter(|taken| taken.request == at).collect();
                let Some(index) = taken.first().map(|taken| taken.alternative) else { continue };
                let chosen = &request.alternatives[index];
                if request.is_prioritised {
                    score += 8 - i64::try_from(index).unwrap_or(8);
                }
                for taken in taken {
                    let device = self.devices[taken.device];
                    selector.add(&device.place, node);
                    results.push(DeviceRequestAllocationResult {
                        request: chosen.name.to_string(),
                        driver: device.driver.to_string(),
                        pool: device.pool.to_string(),
                        device: device.name.to_string(),
                        admin_access: chosen.admin.then_some(true),
                        tolerations: (!chosen.tolerations.is_empty())
                            .then(|| chosen.tolerations.clone()),
                        ..Default::default()
                    });
                }
                let class = self.owners.class(&chosen.class);
                let of_class =
                    class.into_iter().flat_map(|it| it.object.spec.config.iter().flatten());
                config.extend(of_class.map(|it| DeviceAllocationConfiguration {
                    source: "FromClass".to_owned(),
                    requests: Some(vec![chosen.name.to_string()]),
                    opaque: it.opaque.clone(),
                }));
            }
            let of_claim = claim.spec.config.iter().flatten().filter(|it| {
                claim.requests.iter().any(|request| {
                    results.iter().any(|result| {
                        let own = request.alternatives.iter().any(|it| *it.name == result.request);
                        own && names_one(it.requests.as_deref(), &request.name, &result.request)
                    })
                })
            });
            config.extend(of_claim.map(|it| DeviceAllocationConfiguration {
                source: "FromClaim".to_owned(),
                requests: it.requests.clone(),
                opaque: it.opaque.clone(),
            }));
            AllocationResult {
                allocation_timestamp: None,
                devices: Some(DeviceAllocationResult {
                    config: (!config.is_empty()).then_some(config),
                    results: (!results.is_empty()).then_some(results),
                }),
                node_selector: selector.finish(),
            }
        });
        let allocations = allocations.collect();
        Found { allocations, score }
    }
}

/// The nodes that reach all of a claim's devices.
#[derive(Default)]
struct Selector {
    node: Option<String>,
    term: NodeSelectorTerm,
}

impl Selector {
    fn add(&mut self, place: &Place, node: &NodeInfo) {
        match place {
            Place::Nowhere | Place::Everywhere => {}
            Place::Node(_) => self.node = Some(node.facts.name.to_string()),
            // The API allows slices but one term.
            Place::Nodes(_, selector) => {
                for term in selector.node_selector_terms.iter().take(1) {
                    let add = |to: &mut Option<Vec<NodeSelectorRequirement>>,
                               from: &Option<Vec<_>>| {
                        for one in from.iter().flatten() {
                            let known = to.get_or_insert_default();
                            if !known.contains(one) {
                                known.push(one.clone());
                            }
                        }
                    };
                    add(&mut self.term.match_expressions, &term.match_expressions);
                    add(&mut self.term.match_fields, &term.match_fields);
                }
            }
        }
    }

    fn finish(self) -> Option<NodeSelector> {
        let term = match self.node {
            Some(node) => NodeSelectorTerm {
                match_fields: Some(vec![NodeSelectorRequirement {
                    key: "metadata.name".to_owned(),
                    operator: "In".to_owned(),
                    values: Some(vec![node]),
                }]),
                match_expressions: None,
            },
            None => self.term,
        };
        let is_empty = term.match_fields.is_none() && term.match_expressions.is_none();
        (!is_empty).then(|| NodeSelector { node_selector_terms: vec![term] })
    }
}

fn matches(selector: &Parsed, variables: &Variables) -> Result<bool, String> {
    let expression = match &**selector {
        Ok(expression) => expression,
        Err(error) => return Err(error.clone()),
    };
    match expression.evaluate(variables) {
        Ok(Value::Bool(fits)) => Ok(fits),
        Ok(other) => Err(format!("it gives a {} where a bool is needed", other.type_name())),
        Err(error) => Err(error.to_string()),
    }
}
