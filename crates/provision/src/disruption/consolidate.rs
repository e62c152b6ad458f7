//! The methods of disruption: empty nodes, drifted nodes, several used nodes at once, one used node.
//!
//! Each looks at candidates in its order, asks the solver what would happen without them, and gives
//! the first command worth carrying out, with why the others were not.

use std::collections::BTreeMap;

use compact_str::CompactString;
use fixedbitset::FixedBitSet;
use wharf_model::instance_type::CapacityType;
use wharf_model::karpenter::{ConsolidationPolicy, DisruptionReason};
use wharf_model::labels;
use wharf_model::money::Price;

use super::candidate::Candidate;
use super::command::Command;
use super::cost::{Cost, by_savings_ratio};
use crate::ShapeId;
use crate::catalog::{Catalog, TypeSet};
use crate::claim::{PlannedClaim, TYPES_IN_CLAIM_MAX, unmet_min_values};
use crate::pod::{Origin, PodRequest};
use crate::solve::{Solution, Solver};

/// A single spot node is replaced by spot only if so many cheaper types could take its place, so
/// that it does not race to the bottom.
pub const SPOT_TO_SPOT_TYPES_MIN: usize = 15;
/// At most so many nodes are considered together (the slice may hold one more, as upstream's).
pub const MULTI_NODE_MAX: usize = 100;

/// How many more nodes of each pool may be disrupted; a pool that is missing may lose none.
pub type Allowances = BTreeMap<CompactString, u32>;

/// Switches of consolidation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    /// Upstream's feature gate SpotToSpotConsolidation.
    pub spot_to_spot: bool,
}

/// What all nodes of a pool cost and weigh together: what Balanced measures a move against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolTotals {
    /// The sum of prices.
    pub price: Price,
    /// The sum of rescheduling costs, in units of [`Cost::ONE`] × 2^-27.
    pub cost: i128,
}

/// Why a set of candidates is left alone; the texts are those of upstream's Unconsolidatable events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftAlone {
    /// Pods would find no place.
    #[error("Not all pods would schedule, {0}")]
    PodsWouldNotSchedule(String),
    /// It would take several nodes.
    #[error("Can't remove without creating {0} candidates")]
    SeveralReplacements(usize),
    /// The price filter leaves too little choice.
    #[error("Filtering by price: {0}")]
    FilteredByPrice(String),
    /// Nothing is cheaper.
    #[error("Can't replace with a cheaper node")]
    NothingCheaper,
    /// Spot for spot is switched off.
    #[error("SpotToSpotConsolidation is disabled, can't replace a spot node with a spot node")]
    SpotToSpotDisabled,
    /// Too few cheaper types for a spot node.
    #[error(
        "SpotToSpotConsolidation requires {SPOT_TO_SPOT_TYPES_MIN} cheaper instance type options \
         than the current candidate to consolidate, got {0}"
    )]
    SpotToSpotTooFew(usize),
    /// The saving does not outweigh the disruption (Balanced).
    #[error("score is below the threshold")]
    NotWorthIt,
    /// One of the nodes alone would do, so the others can be deleted without a replacement.
    #[error("replacement would be no cheaper than keeping one of the nodes")]
    SameType,
}

/// What one pass of a method found.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// What to do.
    pub command: Option<Command>,
    /// Why single candidates were left alone, by NodeClaim.
    pub left_alone: Vec<(CompactString, LeftAlone)>,
    /// Whether a budget kept a candidate out: then the next pass may differ though nothing changed.
    pub constrained_by_budget: bool,
}

/// A snapshot to try disruptions on.
pub struct Simulator<'a> {
    solver: &'a mut Solver,
    /// Pods that need a place whatever is disrupted: pending ones and those of deleting nodes.
    homeless: Vec<(&'a PodRequest, ShapeId)>,
    gates: Gates,
    totals: &'a BTreeMap<CompactString, PoolTotals>,
}

impl<'a> Simulator<'a> {
    /// A simulator over a solver's snapshot. `homeless` are pending pods and pods of deleting nodes;
    /// `totals` are needed for pools with the Balanced policy.
    pub fn new(
        solver: &'a mut Solver,
        homeless: &'a [PodRequest],
        gates: Gates,
        totals: &'a BTreeMap<CompactString, PoolTotals>,
    ) -> Self {
        let homeless = homeless.iter().map(|pod| (pod, solver.intern(pod))).collect();
        Self { solver, homeless, gates, totals }
    }

    /// Empty nodes: all that budgets allow, in one command.
    pub fn emptiness(&mut self, candidates: &[Candidate], mut allowed: Allowances) -> Pass {
        let mut pass = Pass::default();
        let mut empty = Vec::new();
        for candidate in ordered(candidates, |candidate| candidate.skip_emptiness().is_none()) {
            if take(&mut allowed, candidate) {
                empty.push(candidate.clone());
            } else {
                pass.constrained_by_budget = true;
            }
        }
        if !empty.is_empty() {
            pass.command = Some(Command {
                reason: DisruptionReason::Empty,
                consolidation_type: "empty",
                savings: total_price(empty.iter()),
                candidates: empty,
                replacements: Vec::new(),
            });
        }
        pass
    }

    /// A drifted node: an empty one first, then the one that drifted first.
    pub fn drift(&mut self, candidates: &[Candidate], mut allowed: Allowances) -> Pass {
        let mut pass = Pass::default();
        let mut drifted: Vec<&Candidate> = candidates
            .iter()
            .filter(|candidate| candidate.drifted_since.is_some() && !candidate.static_pool)
            .collect();
        drifted.sort_by(|a, b| {
            let key = |c: &Candidate| (!c.is_empty(), c.drifted_since);
            key(a).cmp(&key(b)).then_with(|| a.node.cmp(&b.node))
        });
        for candidate in drifted {
            if !take(&mut allowed, candidate) {
                pass.constrained_by_budget = true;
                continue;
            }
            match self.without(&[candidate]) {
                Ok(replacements) => {
                    let spent: Price =
                        replacements.iter().filter_map(|claim| self.least_price(claim)).sum();
                    pass.command = Some(Command {
                        reason: DisruptionReason::Drifted,
                        consolidation_type: "",
                        candidates: vec![candidate.clone()],
                        savings: candidate.price.saturating_sub(spent),
                        replacements,
                    });
                    return pass;
                }
                Err(why) => pass.left_alone.push((candidate.node_claim.clone(), why)),
            }
        }
        pass
    }

    /// Several nodes at once, for none or one in their place: the longest prefix of the candidates
    /// that a binary search finds.
    pub fn multi_node(&mut self, candidates: &[Candidate], mut allowed: Allowances) -> Pass {
        let mut pass = Pass::default();
        let mut within = Vec::new();
        for candidate in ordered(candidates, |candidate| candidate.skip_consolidation().is_none()) {
            if take(&mut allowed, candidate) {
                within.push(candidate);
            } else {
                pass.constrained_by_budget = true;
            }
        }
        if within.len() < 2 {
            return pass;
        }
        // The prefix tried has one more node than `middle` says: at least two are considered.
        let (mut low, mut high) = (1, MULTI_NODE_MAX.min(within.len() - 1));
        while low <= high {
            let middle = low.midpoint(high);
            let set = &within[..=middle];
            let found = self
                .consolidate(set, "multi")
                .and_then(|command| self.drop_same_types(command))
                .and_then(|command| self.worth_it(command));
            match found {
                Ok(command) => {
                    pass.command = Some(command);
                    low = middle + 1;
                }
                Err(_) => high = middle - 1,
            }
        }
        pass
    }

    /// One node, for none or a cheaper one: the first candidate for which that works, pools taking
    /// turns.
    pub fn single_node(&mut self, candidates: &[Candidate], mut allowed: Allowances) -> Pass {
        let mut pass = Pass::default();
        let ordered = ordered(candidates, |candidate| candidate.skip_consolidation().is_none());
        for candidate in interleaved(&ordered) {
            // Nothing is used up: the first command ends the pass.
            if allowed.get_mut(&candidate.pool).is_none_or(|left| *left == 0) {
                pass.constrained_by_budget = true;
                continue;
            }
            let found =
                self.consolidate(&[candidate], "single").and_then(|command| self.worth_it(command));
            match found {
                Ok(command) => {
                    pass.command = Some(command);
                    return pass;
                }
                Err(why) => pass.left_alone.push((candidate.node_claim.clone(), why)),
            }
        }
        pass
    }

    /// Whether a command found earlier still holds: its candidates are still candidates and allowed,
    /// and the same pods still need no more than the replacements it has, with at least its types to
    /// choose from. Of an Empty command those that still hold remain.
    pub fn revalidate(
        &mut self,
        command: &Command,
        candidates: &[Candidate],
        mut allowed: Allowances,
    ) -> Option<Command> {
        let survivors: Vec<&Candidate> = command
            .candidates
            .iter()
            .filter_map(|old| candidates.iter().find(|new| new.node_claim == old.node_claim))
            .collect();
        if command.reason == DisruptionReason::Empty {
            let survivors: Vec<Candidate> = survivors
                .into_iter()
                .filter(|candidate| candidate.skip_emptiness().is_none())
                .filter(|candidate| take(&mut allowed, candidate))
                .cloned()
                .collect();
            return (!survivors.is_empty()).then(|| Command {
                savings: total_price(survivors.iter()),
                candidates: survivors,
                ..command.clone()
            });
        }
        let all = survivors.len() == command.candidates.len()
            && survivors.iter().all(|candidate| candidate.skip_consolidation().is_none())
            && survivors.iter().all(|candidate| take(&mut allowed, candidate));
        if !all {
            return None;
        }
        let replacements = self.without(&survivors).ok()?;
        let holds = match (&command.replacements[..], &replacements[..]) {
            ([], []) => true,
            ([old], [new]) => old.types.iter().all(|index| new.types.contains(index)),
            _ => false,
        };
        holds.then(|| command.clone())
    }

    /// What would have to be launched without these nodes.
    fn without(&mut self, set: &[&Candidate]) -> Result<Vec<PlannedClaim>, LeftAlone> {
        let mut removed = FixedBitSet::with_capacity(self.solver.nodes().len());
        for candidate in set {
            if let Some(index) = self.solver.find_node_by_name(&candidate.node) {
                removed.insert(index);
            }
        }
        let mut pods = self.homeless.clone();
        for pod in set.iter().flat_map(|candidate| &candidate.pods) {
            pods.push((pod, self.solver.intern(pod)));
        }
        let Solution { on_nodes, mut claims, failed } = self.solver.simulate(&pods, &removed);
        let moved = |pod: u32| pods[pod as usize].0.origin != Origin::Pending;
        let mut errors: Vec<String> = failed
            .iter()
            .filter(|(pod, _)| moved(*pod))
            .map(|(pod, why)| format!("{} => {why} ", pods[*pod as usize].0.key))
            .collect();
        // A node that is not ready may never be; nothing is given up for it.
        errors.extend(on_nodes.iter().filter_map(|(pod, node)| {
            let (pod, node) = (pods[*pod as usize].0, &self.solver.nodes()[*node as usize]);
            (pod.origin == Origin::Candidate && !node.initialized)
                .then(|| format!("{} => {} ", pod.key, uninitialized(node)))
        }));
        if !errors.is_empty() {
            return Err(LeftAlone::PodsWouldNotSchedule(errors_text(&errors)));
        }
        for claim in &mut claims {
            claim.types.truncate(TYPES_IN_CLAIM_MAX);
        }
        Ok(claims)
    }

    /// What to do about a set of used nodes.
    fn consolidate(
        &mut self,
        set: &[&Candidate],
        consolidation_type: &'static str,
    ) -> Result<Command, LeftAlone> {
        let mut replacements = self.without(set)?;
        let price = total_price(set.iter().copied());
        if replacements.len() > 1 {
            return Err(LeftAlone::SeveralReplacements(replacements.len()));
        }
        let mut savings = price;
        if let Some(claim) = replacements.first_mut() {
            self.make_cheaper(set, claim, price)?;
            savings = price.saturating_sub(self.least_price(claim).unwrap_or(Price::ZERO));
        }
        Ok(Command {
            reason: DisruptionReason::Underutilized,
            consolidation_type,
            candidates: set.iter().map(|candidate| (*candidate).clone()).collect(),
            replacements,
            savings,
        })
    }

    /// Narrows a replacement to types that cost less than `price` wherever they land.
    fn make_cheaper(
        &self,
        set: &[&Candidate],
        claim: &mut PlannedClaim,
        price: Price,
    ) -> Result<(), LeftAlone> {
        let catalog = &self.solver.pool(claim.pool).catalog;
        let spot_allowed =
            claim.requirements.allows(labels::CAPACITY_TYPE, labels::CAPACITY_TYPE_SPOT);
        let all_spot =
            set.iter().all(|candidate| candidate.capacity_type == Some(CapacityType::Spot));
        let spot_to_spot = all_spot && spot_allowed;
        if spot_to_spot {
            if !self.gates.spot_to_spot {
                return Err(LeftAlone::SpotToSpotDisabled);
            }
            claim.pin_capacity_type(catalog, labels::CAPACITY_TYPE_SPOT);
        }
        keep_below(claim, catalog, price)?;
        if claim.types.is_empty() {
            return Err(LeftAlone::NothingCheaper);
        }
        if spot_to_spot {
            return cut_spot_types(set, claim, catalog);
        }
        // Prices were compared as if spot is launched; without spot capacity the launch must fail
        // rather than buy a dearer machine on demand.
        let on_demand =
            claim.requirements.allows(labels::CAPACITY_TYPE, labels::CAPACITY_TYPE_ON_DEMAND);
        if spot_allowed && on_demand {
            claim.pin_capacity_type(catalog, labels::CAPACITY_TYPE_SPOT);
        }
        Ok(())
    }

    /// Where one of several nodes has a type that the replacement may have too, keeping that node and
    /// deleting the others does the same for less disruption; only cheaper types make sense.
    fn drop_same_types(&self, mut command: Command) -> Result<Command, LeftAlone> {
        let Some(claim) = command.replacements.first_mut() else { return Ok(command) };
        let catalog = &self.solver.pool(claim.pool).catalog;
        let same = |candidate: &&Candidate| {
            catalog.find(&candidate.instance_type).is_some_and(|index| claim.types.contains(&index))
        };
        if let Some(least) = command.candidates.iter().filter(same).map(|c| c.price).min() {
            keep_below(claim, catalog, least)?;
        }
        if claim.types.is_empty() { Err(LeftAlone::SameType) } else { Ok(command) }
    }

    /// Lets a command pass unless a Balanced pool it touches saves too little for its disruption:
    /// share of cost saved over share of rescheduling cost must reach one half.
    fn worth_it(&self, command: Command) -> Result<Command, LeftAlone> {
        let all = i128::from(total_price(command.candidates.iter()).nano_dollars_per_hour()).max(1);
        let savings = i128::from(command.savings.nano_dollars_per_hour());
        let balanced = command
            .candidates
            .iter()
            .filter(|candidate| candidate.policy == ConsolidationPolicy::Balanced)
            .map(|candidate| &candidate.pool);
        for pool in balanced {
            let of_pool = || command.candidates.iter().filter(|other| other.pool == *pool);
            let source = i128::from(total_price(of_pool()).nano_dollars_per_hour());
            let moved: i128 = of_pool().map(|candidate| candidate.cost.units()).sum();
            let totals = self.totals.get(pool).copied().unwrap_or_default();
            let pool_price = i128::from(totals.price.nano_dollars_per_hour()).max(1);
            // savings × source/all ÷ pool price ≥ ½ × moved ÷ pool cost, without division.
            let gain = (2 * savings).saturating_mul(source).saturating_mul(totals.cost.max(1));
            let pain = moved.saturating_mul(pool_price).saturating_mul(all);
            if gain < pain {
                return Err(LeftAlone::NotWorthIt);
            }
        }
        Ok(command)
    }

    fn least_price(&self, claim: &PlannedClaim) -> Option<Price> {
        let catalog = &self.solver.pool(claim.pool).catalog;
        claim.types.iter().filter_map(|index| catalog.cheapest(*index, claim.cells)).min()
    }
}

/// Candidates that `keep` lets through, the most worthwhile first.
fn ordered(candidates: &[Candidate], keep: impl Fn(&Candidate) -> bool) -> Vec<&Candidate> {
    let mut kept: Vec<&Candidate> = candidates.iter().filter(|c| keep(c)).collect();
    kept.sort_by(|a, b| {
        by_savings_ratio((a.price, a.cost), (b.price, b.cost)).then_with(|| a.node.cmp(&b.node))
    });
    kept
}

/// Candidates in turn of their pools, pools by name, so that one large pool does not starve others.
fn interleaved<'c>(ordered: &[&'c Candidate]) -> Vec<&'c Candidate> {
    let mut turns: Vec<(usize, &CompactString, &Candidate)> = Vec::with_capacity(ordered.len());
    let mut seen: BTreeMap<&CompactString, usize> = BTreeMap::new();
    for candidate in ordered {
        let turn = seen.entry(&candidate.pool).or_default();
        turns.push((*turn, &candidate.pool, candidate));
        *turn += 1;
    }
    turns.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    turns.into_iter().map(|(_, _, candidate)| candidate).collect()
}

/// Uses up one disruption of a candidate's pool, if there is one left.
fn take(allowed: &mut Allowances, candidate: &Candidate) -> bool {
    match allowed.get_mut(&candidate.pool) {
        Some(left) if *left > 0 => {
            *left = left.saturating_sub(u32::from(*left != u32::MAX));
            true
        }
        _ => false,
    }
}

fn total_price<'c>(candidates: impl Iterator<Item = &'c Candidate>) -> Price {
    candidates.map(|candidate| candidate.price).sum()
}

/// Keeps the types whose worst launch price is below `price`; minValues must survive.
fn keep_below(claim: &mut PlannedClaim, catalog: &Catalog, price: Price) -> Result<(), LeftAlone> {
    let cells = claim.cells;
    claim.types.retain(|index| {
        catalog.worst_launch_price(*index, cells).is_some_and(|worst| worst < price)
    });
    let set: TypeSet = claim.types.iter().map(|index| *index as usize).collect();
    match unmet_min_values(&claim.requirements, catalog, &set) {
        Some((key, _, _)) => Err(LeftAlone::FilteredByPrice(format!(
            "minValues requirement is not met for label(s) (label(s)=[{key}])"
        ))),
        None => Ok(()),
    }
}

/// Of a single spot node's replacement keeps the cheapest types: the node that is launched is then
/// among them, and is not replaced again at once.
fn cut_spot_types(
    set: &[&Candidate],
    claim: &mut PlannedClaim,
    catalog: &Catalog,
) -> Result<(), LeftAlone> {
    if set.len() > 1 {
        return Ok(());
    }
    if claim.types.len() < SPOT_TO_SPOT_TYPES_MIN {
        return Err(LeftAlone::SpotToSpotTooFew(claim.types.len()));
    }
    let meets = |count: usize| {
        let set: TypeSet = claim.types[..count].iter().map(|index| *index as usize).collect();
        unmet_min_values(&claim.requirements, catalog, &set).is_none()
    };
    let enough = (SPOT_TO_SPOT_TYPES_MIN..claim.types.len()).find(|count| meets(*count));
    if let Some(enough) = enough {
        claim.types.truncate(enough);
    }
    Ok(())
}

fn uninitialized(node: &crate::node::ExistingNode) -> String {
    if node.name == node.node_claim {
        return format!("would schedule against uninitialized nodeclaim/{}", node.node_claim);
    }
    format!(
        "would schedule against uninitialized nodeclaim/{}, node/{}",
        node.node_claim, node.name
    )
}

/// The first five errors, as upstream lists them.
fn errors_text(errors: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = errors[..errors.len().min(SHOWN)].concat();
    if errors.len() > SHOWN {
        text += &format!(" and {} other(s)", errors.len() - SHOWN);
    }
    text
}

impl PoolTotals {
    /// Adds a node.
    pub fn add(&mut self, price: Price, cost: Cost) {
        self.price = self.price.saturating_add(price);
        self.cost += cost.units();
    }
}
