//! Which devices of a node the claims of a pod get, all together: a search with backtracking over
//! requests, alternatives and devices, bounded by a number of steps.

use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use k8s_openapi::api::resource::v1::{AllocationResult, DeviceAttribute};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::Devices;
use super::answers::Column;
use super::capacity::{Amounts, amount_of, consumption, gives};
use super::objects::{Alternative, Amount, Claim, Class, is_about};
use super::pools::{Counters, Pool, counters_of};
use super::slices::{Device, Slice};
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
    /// The same; but there are pools of the node that contradict themselves.
    InvalidPools,
    /// A selector cannot be used, or fails.
    Selector(String),
    /// The search was given up.
    TooLong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("it has not enough free devices that the claims ask for"),
            Self::InvalidPools => f.write_str(
                "it has not enough free devices that the claims ask for, besides those of pools which contradict themselves: a device or a set of counters is there twice, or a counter is missing",
            ),
            Self::Selector(error) => write!(f, "a device selector fails: {error}"),
            Self::TooLong => {
                write!(f, "no devices for all claims were found in {STEPS_MAX} steps")
            }
        }
    }
}

/// Allocates devices of a node for claims that have none: what they get, in their order.
pub(crate) fn allocate(
    claims: &[&Claim],
    node: &NodeInfo,
    devices: &Devices,
    symbols: &Symbols,
) -> Result<Vec<AllocationResult>, Fault> {
    Ok(search(claims, node, devices, symbols)?.found(node))
}

/// How well the devices please that the claims would get: the better, the earlier the alternatives.
pub(crate) fn rate(
    claims: &[&Claim],
    node: &NodeInfo,
    devices: &Devices,
    symbols: &Symbols,
) -> Result<i64, Fault> {
    Ok(search(claims, node, devices, symbols)?.score())
}

fn search<'a>(
    claims: &'a [&'a Claim],
    node: &NodeInfo,
    devices: &'a Devices,
    symbols: &Symbols,
) -> Result<Search<'a>, Fault> {
    let mut search = Search::new(claims, devices);
    let is_invalid = search.gather(node, symbols);
    for (index, claim) in claims.iter().enumerate() {
        search.requests.extend((0..claim.requests.len()).map(|request| (index, request)));
    }
    if search.place(0)? {
        return Ok(search);
    }
    Err(if is_invalid { Fault::InvalidPools } else { Fault::None })
}

pub(super) struct Search<'a> {
    pub(super) claims: &'a [&'a Claim],
    pub(super) owners: &'a Devices,
    /// Whether a pool of the node is being changed, or contradicts itself.
    incomplete: bool,
    /// The devices the node reaches, in the order in which they are tried.
    pub(super) devices: Vec<Reached<'a>>,
    pools: Vec<&'a Pool>,
    /// What was left of pools' counters when the search began.
    counters: FxHashMap<usize, Rc<Counters>>,
    /// Claim and request, in their order.
    pub(super) requests: Vec<(usize, usize)>,
    /// The devices that fit an alternative, by request and alternative.
    candidates: FxHashMap<(usize, usize), Rc<[usize]>>,
    pub(super) taken: Vec<Taken>,
    /// By claim and constraint, the attributes of the devices taken.
    values: Vec<Vec<Vec<&'a DeviceAttribute>>>,
    steps: usize,
}

/// A device that a node reaches.
#[derive(Clone, Copy)]
pub(super) struct Reached<'a> {
    pub(super) device: &'a Device,
    /// Its slice and its place there.
    slice: &'a Slice,
    place: usize,
    pool: usize,
}

pub(super) struct Taken {
    pub(super) request: usize,
    pub(super) alternative: usize,
    pub(super) device: usize,
    /// What is taken of a device that several may have.
    pub(super) share: Option<Amounts>,
}

impl<'a> Search<'a> {
    fn new(claims: &'a [&'a Claim], owners: &'a Devices) -> Self {
        let constraints = |claim: &Claim| claim.spec.constraints.as_ref().map_or(0, Vec::len);
        Self {
            claims,
            owners,
            incomplete: false,
            devices: Vec::new(),
            pools: Vec::new(),
            counters: FxHashMap::default(),
            requests: Vec::new(),
            candidates: FxHashMap::default(),
            taken: Vec::new(),
            values: claims.iter().map(|claim| vec![Vec::new(); constraints(claim)]).collect(),
            steps: 0,
        }
    }

    /// Finds the devices that the node reaches. Returns whether pools were left out that contradict
    /// themselves.
    fn gather(&mut self, node: &NodeInfo, symbols: &Symbols) -> bool {
        let mut is_invalid = false;
        let mut found: Vec<(&'a Slice, &'a Pool)> = Vec::new();
        for slice in self.owners.slices_for(node) {
            let Some(pool) = self.owners.pools.current(slice) else { continue };
            if slice.devices.iter().any(|device| device.place.reaches(node, symbols)) {
                found.push((slice, pool));
            }
        }
        // Pools in the order of their names; those whose devices have to be made ready come last.
        found.sort_by_key(|(slice, _)| &slice.order);
        let mut ready = Vec::new();
        let mut to_be_made_ready = Vec::new();
        for slices in found.chunk_by(|(left, _), (right, _)| left.pool == right.pool) {
            let (first, pool) = slices[0];
            let mut names = BTreeSet::new();
            let mut devices = slices.iter().flat_map(|(slice, _)| &slice.devices);
            if !pool.is_complete(first) {
                self.incomplete = true;
            } else if pool.is_invalid()
                || (slices.len() > 1 && !devices.all(|device| names.insert(&device.name)))
            {
                self.incomplete = true;
                is_invalid = true;
            } else if slices.iter().any(|(slice, _)| slice.has_binding_conditions) {
                to_be_made_ready.push(slices);
            } else {
                ready.push(slices);
            }
        }
        for slices in ready.into_iter().chain(to_be_made_ready) {
            let pool = self.pools.len();
            self.pools.push(slices[0].1);
            for (slice, _) in slices {
                let devices = slice.devices.iter().enumerate();
                let here = devices.filter(|(_, device)| device.place.reaches(node, symbols));
                let reached = |(place, device)| Reached { device, slice, place, pool };
                self.devices.extend(here.map(reached));
            }
        }
        is_invalid
    }

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
    ) -> Result<Rc<[usize]>, Fault> {
        if let Some(known) = self.candidates.get(&(at, index)) {
            return Ok(known.clone());
        }
        let mut found = Vec::new();
        let class: Option<&'a Class> = self.owners.class(&alternative.class);
        let selectors = class.map(|class| class.selectors.iter().chain(&alternative.selectors));
        // What the selectors say of the devices of the slice at hand.
        let mut answers: (Option<&Slice>, SmallVec<[Arc<Column>; 4]>) = Default::default();
        let all = alternative.amount == Amount::All;
        for (number, reached) in self.devices.iter().enumerate() {
            let (device, slice) = (reached.device, reached.slice);
            let is_free = alternative.admin || !self.owners.is_taken(device.id);
            if !all && (!is_free || !device.is_tolerated(&alternative.tolerations)) {
                continue;
            }
            let Some(selectors) = &selectors else { continue };
            if !answers.0.is_some_and(|known| std::ptr::eq(known, slice)) {
                let of_slice = |selector| slice.answers.of(selector, slice.devices.len());
                answers = (Some(slice), selectors.clone().map(of_slice).collect());
            }
            let mut columns = answers.1.iter();
            let fits = columns.try_fold(true, |fits, column| {
                if fits { column.at(reached.place, &device.variables) } else { Ok(false) }
            });
            if !fits.map_err(|error| Fault::Selector(error.to_owned()))? {
                continue;
            }
            // What it could not give even now is not meant by "all" either.
            if !self.has_share(device, alternative) {
                continue;
            }
            found.push(number);
        }
        let found: Rc<[usize]> = found.into();
        self.candidates.insert((at, index), found.clone());
        Ok(found)
    }

    /// Takes a device if it may be had and no constraint of the claim speaks against it.
    fn take(&mut self, at: usize, index: usize, number: usize) -> bool {
        let (claim_index, request) = self.requests[at];
        let claim = self.claims[claim_index];
        let request = &claim.requests[request];
        let chosen = &request.alternatives[index];
        let Reached { device, pool, .. } = self.devices[number];
        let own = |taken: &&Taken| self.requests[taken.request].0 == claim_index;
        if self.taken.iter().filter(own).count() == RESULTS_MAX {
            return false;
        }
        // An administrator looks at what others have, but a claim has a device only once.
        let is_busy = !device.is_shareable
            && self.taken.iter().any(|taken| {
                taken.device == number
                    && (!chosen.admin || self.requests[taken.request].0 == claim_index)
            });
        let is_free = chosen.admin || !self.owners.is_taken(device.id);
        if is_busy || !is_free || !device.is_tolerated(&chosen.tolerations) {
            return false;
        }
        let share = match device.is_shareable {
            true => match self.share(device, Some(number), chosen) {
                Some(share) => Some(share),
                None => return false,
            },
            false if gives(&device.capacities, &chosen.capacity) => None,
            false => return false,
        };
        if !self.counters_suffice(device, number, pool) {
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
        self.taken.push(Taken { request: at, alternative: index, device: number, share });
        true
    }

    /// Whether a device has left what an alternative takes, whatever is taken in this search.
    fn has_share(&self, device: &Device, chosen: &Alternative) -> bool {
        match device.is_shareable {
            true => self.share(device, None, chosen).is_some(),
            false => gives(&device.capacities, &chosen.capacity),
        }
    }

    /// What an alternative takes of the capacity of a device that several share, if so much is left:
    /// besides what others have, and besides what is taken in this search if the device's number is
    /// given.
    fn share(
        &self,
        device: &Device,
        number: Option<usize>,
        chosen: &Alternative,
    ) -> Option<Amounts> {
        let wanted = consumption(&device.capacities, &chosen.capacity)?;
        let others = self.owners.shares(device.id);
        let taken: Vec<_> = self
            .taken
            .iter()
            .filter(|taken| Some(taken.device) == number)
            .filter_map(|taken| taken.share.as_deref())
            .collect();
        let fits = device.capacities.iter().zip(&wanted).all(|(capacity, (name, wanted))| {
            let before = others.map(|shares| shares.consumed(name)).unwrap_or_default();
            let own = taken.iter().filter_map(|share| amount_of(share, name));
            own.fold(before.add(wanted), |sum, own| sum.add(own)) <= capacity.value
        });
        fits.then_some(wanted)
    }

    /// Whether the pool has counters left for a device. Of one that several have they are taken
    /// once.
    fn counters_suffice(&mut self, device: &Device, number: usize, pool: usize) -> bool {
        let is_in_use = |number: usize, device: &Device, taken: &[Taken]| {
            device.is_shareable
                && (self.owners.shares(device.id).is_some()
                    || taken.iter().any(|taken| taken.device == number))
        };
        if device.counters.is_empty() || is_in_use(number, device, &self.taken) {
            return true;
        }
        let mut needed: Counters = counters_of(device).collect();
        for (index, taken) in self.taken.iter().enumerate() {
            let Reached { device: other, pool: its_pool, .. } = self.devices[taken.device];
            if its_pool == pool && !is_in_use(taken.device, other, &self.taken[..index]) {
                for (counter, amount) in counters_of(other) {
                    let sum = needed.entry(counter).or_default();
                    *sum = sum.add(&amount);
                }
            }
        }
        let (owners, pools) = (self.owners, &self.pools);
        let known = self.counters.entry(pool);
        let left = known.or_insert_with(|| Rc::new(pools[pool].available(owners)));
        let nothing = Default::default();
        left.iter().all(|(counter, left)| needed.get(counter).unwrap_or(&nothing) <= left)
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
}
