//! Choosing machines for pods: the solver.
//!
//! A [`Solver`] holds a snapshot (pools, nodes) in compiled form; [`Solver::solve`] places a batch
//! of pods on it and leaves it as it was, so that one solver serves a provisioning round or the
//! thousand simulations of a consolidation pass.
//!
//! The algorithm is upstream's: pods by size; each goes to the first node
//! that takes it, else to the planned claim with the fewest pods that takes it, else to a new claim
//! of the first pool that can; if nothing does, one preference is given up and all is tried again.
//! Three facts make it fast. Pods of one shape ask the same, so answers are kept per shape. Within
//! a solve nodes and claims only get fuller, so a refusal is final and every search goes on from
//! where the last one for that shape ended. And a claim need only look at its types again when the
//! smallest of them no longer holds its pods. Topology, whose answers can change back, is asked anew
//! for the pods that have it, after the kept refusals.
//!
//! With [`Packing::Cost`], the default, the machines it plans for a batch are replaced by a cheaper
//! mix where there is one (see `cost`).

use std::collections::VecDeque;
use std::sync::Arc;

use compact_str::CompactString;
use fixedbitset::FixedBitSet;
use rustc_hash::FxHashMap;
use wharf_model::taints::PREFER_NO_SCHEDULE;

use crate::catalog::TypeSet;
use crate::claim::{Attempt, Narrowed, OpenClaim, PlannedClaim, explain};
use crate::failure::{PoolFailure, Unschedulable};
use crate::node::ExistingNode;
use crate::pod::{PodRequest, queue_order};
use crate::pool::{CompiledPool, Pool, sort_pools, untolerated};
use crate::shapes::{ShapeId, Shapes};
use crate::terms::{HostPort, ports_conflict};
use crate::topology::{Ask, Tallies, Topology, World};

/// The annotation of a NodePool that chooses a [`Packing`]: `cost` or `upstream`.
pub const PACKING: &str = "wharf.dev/packing";

/// The annotation of a NodePool with the largest part of a batch that one machine may take, such as
/// `25%`, when pods are packed by cost.
pub const PACKING_SHARE: &str = "wharf.dev/packing-share";

/// How pods are put together on machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Upstream's greedy algorithm: first fit over claims that keep every type that still holds
    /// their pods.
    Upstream,
    /// The mix of machines for the whole batch by cost, never dearer than upstream's.
    Cost {
        /// The largest part of what the batch asks for that one machine may take, in percent; less
        /// than 100 spreads pods over more machines than are cheapest.
        share_percent: u32,
    },
}

impl Default for Packing {
    fn default() -> Self {
        Self::Cost { share_percent: 100 }
    }
}

/// Whether preferred node affinity counts (upstream's `PREFERENCE_POLICY`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PreferencePolicy {
    /// Preferences are tried before they are given up.
    #[default]
    Respect,
    /// Preferences are taken as absent.
    Ignore,
}

/// Settings of a solver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How pods are put together.
    pub packing: Packing,
    /// Whether preferences count.
    pub preferences: PreferencePolicy,
}

/// What a solve found. Pods are told by their index in the slice that was solved for.
#[derive(Clone, Debug, Default)]
pub struct Solution {
    /// Pods that existing nodes take: pod and node.
    pub on_nodes: Vec<(u32, u32)>,
    /// Nodes to launch, in the order they were planned.
    pub claims: Vec<PlannedClaim>,
    /// Pods that find no place, and why.
    pub failed: Vec<(u32, Arc<Unschedulable>)>,
}

/// A snapshot to place pods on.
#[derive(Debug)]
pub struct Solver {
    settings: Settings,
    pub(crate) pools: Vec<CompiledPool>,
    pub(crate) nodes: Vec<ExistingNode>,
    node_by_name: FxHashMap<CompactString, u32>,
    /// Nodes that are overcommitted already: upstream puts nothing on them.
    closed: FixedBitSet,
    pub(crate) shapes: Shapes,
    pub(crate) topology: Topology,
    soft_taints: bool,
    /// Per attempt: the first node that would take it while nothing else is placed.
    first_fit: Vec<u32>,
    /// Per attempt: how far the present solve's search came.
    cursor: Vec<Cursor>,
    /// Per form of constraints: which nodes are known to admit it or not.
    admitted: Vec<Admitted>,
    /// Per pool and form of constraints: the start of a new claim; `None` if they contradict.
    starts: FxHashMap<(usize, usize), Option<Arc<Narrowed>>>,
    /// The number of the present solve.
    round: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    round: u32,
    node: u32,
    /// The solve in which no pool could open a claim for this attempt.
    closed_round: u32,
}

#[derive(Clone, Debug)]
struct Admitted {
    known: FixedBitSet,
    yes: FixedBitSet,
}

/// The part of a solve that changes.
struct Round {
    claims: Vec<OpenClaim>,
    /// Claims by number of pods, fewest first.
    order: Vec<u32>,
    /// What is left of each pool's limits.
    remaining: Vec<Vec<(CompactString, i64)>>,
    /// Where pods are, for those that ask.
    tallies: Tallies,
    /// The ports taken of nodes by pods that were placed on them.
    ports: FxHashMap<usize, Vec<HostPort>>,
    /// Per pod: the form of its constraints in which it was placed.
    steps: Vec<u8>,
}

impl Solver {
    /// Compiles a snapshot. Pools are put in the order they are tried in and nodes likewise:
    /// initialized ones first, then by name.
    pub fn new(mut pools: Vec<Pool>, mut nodes: Vec<ExistingNode>, settings: Settings) -> Self {
        sort_pools(&mut pools);
        nodes.sort_by(|a, b| b.initialized.cmp(&a.initialized).then_with(|| a.name.cmp(&b.name)));
        let closed = (0..nodes.len()).filter(|index| nodes[*index].free.is_negative()).collect();
        let soft_taints = pools
            .iter()
            .any(|pool| pool.taints.iter().any(|taint| taint.effect == PREFER_NO_SCHEDULE));
        let pools: Vec<CompiledPool> = pools.into_iter().map(CompiledPool::new).collect();
        Self {
            settings,
            topology: Topology::new(World { nodes: &nodes, pools: &pools }),
            pools,
            node_by_name: std::iter::zip(nodes.iter().map(|node| node.name.clone()), 0..).collect(),
            nodes,
            closed,
            shapes: Shapes::default(),
            soft_taints,
            first_fit: Vec::new(),
            cursor: Vec::new(),
            admitted: Vec::new(),
            starts: FxHashMap::default(),
            round: 0,
        }
    }

    /// The pools, in the order in which they are tried.
    pub fn pools(&self) -> impl ExactSizeIterator<Item = &Pool> {
        self.pools.iter().map(|compiled| &compiled.pool)
    }

    /// A pool by the index that claims tell.
    pub fn pool(&self, index: usize) -> &Pool {
        &self.pools[index].pool
    }

    /// Whether a pool has any type that could be bought; without one it is out of use.
    pub fn has_types(&self, pool: usize) -> bool {
        !self.pools[pool].options.is_clear()
    }

    /// The nodes, in the order in which they are tried.
    pub fn nodes(&self) -> &[ExistingNode] {
        &self.nodes
    }

    /// A node's position by its name.
    pub fn find_node_by_name(&self, name: &str) -> Option<usize> {
        self.node_by_name.get(name).map(|index| *index as usize)
    }

    /// Gives a pod's shape a number, to be used in [`Solver::simulate`].
    pub fn intern(&mut self, pod: &PodRequest) -> ShapeId {
        let soft_taints = self.soft_taints;
        let id = match self.settings.preferences {
            PreferencePolicy::Respect => self.shapes.of(pod, soft_taints),
            PreferencePolicy::Ignore => {
                let constraints = Arc::new(pod.constraints.without_preferences());
                self.shapes.of(&PodRequest { constraints, ..pod.clone() }, soft_taints)
            }
        };
        let world = World { nodes: &self.nodes, pools: &self.pools };
        self.topology.intern_rungs(&self.shapes.rungs, world);
        let id = ShapeId(id, self.topology.intern_labels(&pod.key.namespace, &pod.labels));
        let unknown = Admitted {
            known: FixedBitSet::with_capacity(self.nodes.len()),
            yes: FixedBitSet::with_capacity(self.nodes.len()),
        };
        self.admitted.resize(self.shapes.rungs.len(), unknown);
        self.cursor.resize(self.shapes.attempts, Cursor::default());
        let shape = &self.shapes.shapes[id.0 as usize];
        let (attempts, rungs) = (shape.attempts.clone(), Arc::clone(&shape.rungs));
        if attempts.start == self.first_fit.len() {
            for rung in rungs.iter() {
                let first = (0..self.nodes.len())
                    .find(|node| self.takes(id, *rung as usize, *node))
                    .unwrap_or(self.nodes.len());
                self.first_fit.push(first as u32);
            }
        }
        id
    }

    /// Places a batch of pods. The solver stays as it was.
    pub fn solve(&mut self, pods: &[PodRequest]) -> Solution {
        let batch: Vec<(&PodRequest, ShapeId)> =
            pods.iter().map(|pod| (pod, self.intern(pod))).collect();
        let none = FixedBitSet::with_capacity(self.nodes.len());
        let (solution, steps) = self.first_fit_over_queue(&batch, &none);
        match self.settings.packing {
            Packing::Upstream => solution,
            Packing::Cost { share_percent } => {
                self.cheapen(&batch, &steps, solution, share_percent)
            }
        }
    }

    /// Places a batch of pods as if some nodes were not there, always by upstream's algorithm: a
    /// consolidation asks whether one machine would do. The solver stays as it was.
    pub fn simulate(&mut self, pods: &[(&PodRequest, ShapeId)], without: &FixedBitSet) -> Solution {
        self.first_fit_over_queue(pods, without).0
    }

    fn first_fit_over_queue(
        &mut self,
        pods: &[(&PodRequest, ShapeId)],
        without: &FixedBitSet,
    ) -> (Solution, Vec<u8>) {
        self.round += 1;
        let mut round = Round {
            claims: Vec::new(),
            order: Vec::new(),
            remaining: self.pools.iter().map(|pool| pool.pool.remaining.clone()).collect(),
            tallies: self.topology.tallies(without),
            ports: FxHashMap::default(),
            steps: vec![0; pods.len()],
        };
        let mut on_nodes = Vec::new();
        let mut order: Vec<u32> = (0..pods.len() as u32).collect();
        order.sort_by(|a, b| queue_order(pods[*a as usize].0, pods[*b as usize].0));
        let mut queue: VecDeque<u32> = order.into();
        // A pod that fails goes to the back; when it comes up again and the queue has not become
        // shorter, nothing will change any more.
        let mut length_at_failure = vec![usize::MAX; pods.len()];
        while let Some(&pod) = queue.front() {
            if length_at_failure[pod as usize] == queue.len() {
                break;
            }
            queue.pop_front();
            if !self.place(pod, pods[pod as usize].1, without, &mut round, &mut on_nodes) {
                queue.push_back(pod);
                length_at_failure[pod as usize] = queue.len();
            }
        }
        for (pod, node) in &on_nodes {
            let shape = &self.shapes.shapes[pods[*pod as usize].1.0 as usize];
            self.nodes[*node as usize].free.add(&shape.requests);
        }
        let mut reasons: FxHashMap<ShapeId, Arc<Unschedulable>> = FxHashMap::default();
        let failed = queue
            .into_iter()
            .map(|pod| {
                let shape = pods[pod as usize].1;
                let reason =
                    reasons.entry(shape).or_insert_with(|| Arc::new(self.explain(shape, &round)));
                (pod, Arc::clone(reason))
            })
            .collect();
        let claims = round.claims.into_iter().map(|claim| self.finish(claim)).collect();
        (Solution { on_nodes, claims, failed }, round.steps)
    }

    /// Finds a place for a pod, giving up its preferences one by one.
    fn place(
        &mut self,
        pod: u32,
        shape: ShapeId,
        without: &FixedBitSet,
        round: &mut Round,
        on_nodes: &mut Vec<(u32, u32)>,
    ) -> bool {
        let rungs = Arc::clone(&self.shapes.shapes[shape.0 as usize].rungs);
        for step in 0..rungs.len() {
            let rung = rungs[step] as usize;
            round.steps[pod as usize] = u8::try_from(step).unwrap_or(u8::MAX);
            let form = &self.shapes.rungs[rung];
            let ask = self.topology.ask(shape.1, rung, form, &round.tallies);
            if let Some(node) = self.find_node(shape, step, without, ask.as_ref(), round) {
                let taken = &self.shapes.shapes[shape.0 as usize];
                self.nodes[node].free.subtract(&taken.requests);
                if !taken.ports.is_empty() {
                    round.ports.entry(node).or_default().extend(taken.ports.iter().cloned());
                }
                let (existing, tallies) = (&self.nodes[node], &mut round.tallies);
                self.topology.record_on_node(shape.1, rung, node, existing, tallies);
                on_nodes.push((pod, node as u32));
                return true;
            }
            let claim = self
                .add_to_claim(pod, shape, step, ask.as_ref(), round)
                .or_else(|| self.open_claim(pod, shape, step, ask.as_ref(), round));
            if let Some(index) = claim {
                let (claim, tallies) = (&round.claims[index], &mut round.tallies);
                let pool = &self.pools[claim.pool];
                let requirements = &claim.requirements;
                self.topology.record_on_claim(shape.1, rung, index, requirements, pool, tallies);
                return true;
            }
        }
        false
    }

    fn find_node(
        &mut self,
        shape: ShapeId,
        step: usize,
        without: &FixedBitSet,
        ask: Option<&Ask>,
        round: &Round,
    ) -> Option<usize> {
        let rung = self.shapes.shapes[shape.0 as usize].rungs[step] as usize;
        let attempt = self.shapes.shapes[shape.0 as usize].attempts.start + step;
        let cursor = self.cursor[attempt];
        let mut node =
            if cursor.round == self.round { cursor.node } else { self.first_fit[attempt] } as usize;
        while node < self.nodes.len() && (without.contains(node) || !self.takes(shape, rung, node))
        {
            node += 1;
        }
        let cursor = &mut self.cursor[attempt];
        (cursor.round, cursor.node) = (self.round, node as u32);
        // What follows may change back, so the search goes on without moving the cursor.
        let ports = Arc::clone(&self.shapes.shapes[shape.0 as usize].ports);
        while node < self.nodes.len() {
            let fits = !without.contains(node)
                && self.takes(shape, rung, node)
                && !ports_conflict(&ports, &self.nodes[node].ports)
                && !round.ports.get(&node).is_some_and(|taken| ports_conflict(&ports, taken))
                && ask.is_none_or(|ask| self.topology.node_fits(ask, node, &round.tallies));
            if fits {
                return Some(node);
            }
            node += 1;
        }
        None
    }

    /// Whether a node takes a pod of a shape in one form of its constraints.
    fn takes(&mut self, shape: ShapeId, rung: usize, node: usize) -> bool {
        let shape = &self.shapes.shapes[shape.0 as usize];
        let existing = &self.nodes[node];
        if self.closed.contains(node)
            || !shape.requests.fits_in(&existing.free)
            || (shape.settled_only && existing.settling)
        {
            return false;
        }
        let admitted = &mut self.admitted[rung];
        if !admitted.known.put(node) {
            admitted.yes.set(node, existing.admits(&self.shapes.rungs[rung]));
        }
        admitted.yes.contains(node)
    }

    fn add_to_claim(
        &mut self,
        pod: u32,
        shape: ShapeId,
        step: usize,
        ask: Option<&Ask>,
        round: &mut Round,
    ) -> Option<usize> {
        let attempt = self.attempt(shape, step);
        let asked = ask.map(|ask| (ask, &self.topology));
        let tallies = &round.tallies;
        let fits = |ask: &Ask, index: usize| self.topology.host_fits(ask, index, tallies);
        let mut position = round.order.iter().position(|index| {
            let claim = &mut round.claims[*index as usize];
            !claim.has_rejected(&attempt)
                && ask.is_none_or(|ask| fits(ask, *index as usize))
                && claim.try_add(&self.pools[claim.pool], &attempt, asked)
        })?;
        let claim = round.order[position];
        round.claims[claim as usize].pods.push(pod);
        // The claim has one pod more now: move it behind those with fewer. Among equals it comes
        // first, as a stable sort of upstream's list would leave it.
        let count = |claim: u32| round.claims[claim as usize].pods.len();
        while round.order.get(position + 1).is_some_and(|next| count(*next) < count(claim)) {
            round.order.swap(position, position + 1);
            position += 1;
        }
        Some(claim as usize)
    }

    fn open_claim(
        &mut self,
        pod: u32,
        shape: ShapeId,
        step: usize,
        ask: Option<&Ask>,
        round: &mut Round,
    ) -> Option<usize> {
        let id = self.shapes.shapes[shape.0 as usize].attempts.start + step;
        if self.cursor[id].closed_round == self.round {
            return None;
        }
        let number = round.claims.len();
        if ask.is_some_and(|ask| !self.topology.host_fits(ask, number, &round.tallies)) {
            return None;
        }
        for pool in 0..self.pools.len() {
            let remaining = &round.remaining[pool];
            let Some(mut claim) = self.open_in(pool, shape, step, ask, remaining) else {
                continue;
            };
            self.pools[pool].charge(&mut round.remaining[pool], &claim.options);
            claim.pods.push(pod);
            round.claims.push(claim);
            let position =
                round.order.partition_point(|claim| round.claims[*claim as usize].pods.len() <= 1);
            round.order.insert(position, number as u32);
            return Some(number);
        }
        if ask.is_none() {
            self.cursor[id].closed_round = self.round;
        }
        None
    }

    /// Opens a claim of one pool for a shape in one form of its constraints, within what is left of
    /// the pool's limits.
    fn open_in(
        &mut self,
        pool: usize,
        shape: ShapeId,
        step: usize,
        ask: Option<&Ask>,
        remaining: &[(CompactString, i64)],
    ) -> Option<OpenClaim> {
        let rung = self.shapes.shapes[shape.0 as usize].rungs[step] as usize;
        let start = self.start(pool, rung)?;
        let compiled = &self.pools[pool];
        let mut narrowed = match ask {
            Some(ask) => start.settle(ask, &self.topology, &compiled.pool.catalog)?,
            None => Narrowed::clone(&start),
        };
        compiled.retain_within(remaining, &mut narrowed.options).ok()?;
        OpenClaim::open(pool, compiled, narrowed, &self.attempt(shape, step))
    }

    /// The claim that a pool would make for one pod alone, nothing else being placed, giving up its
    /// preferences one by one.
    pub(crate) fn open_alone(
        &mut self,
        pool: usize,
        shape: ShapeId,
    ) -> Result<PlannedClaim, PoolFailure> {
        let tallies = self.topology.tallies(&FixedBitSet::with_capacity(self.nodes.len()));
        let remaining = self.pools[pool].pool.remaining.clone();
        let rungs = Arc::clone(&self.shapes.shapes[shape.0 as usize].rungs);
        for (step, rung) in rungs.iter().enumerate() {
            let form = &self.shapes.rungs[*rung as usize];
            let ask = self.topology.ask(shape.1, *rung as usize, form, &tallies);
            if ask.as_ref().is_some_and(|ask| !self.topology.host_fits(ask, 0, &tallies)) {
                continue;
            }
            if let Some(claim) = self.open_in(pool, shape, step, ask.as_ref(), &remaining) {
                return Ok(self.finish(claim));
            }
        }
        let ask = self.last_ask(shape, &tallies);
        Err(self.explain_pool(pool, shape, ask.as_ref(), &remaining, &tallies))
    }

    /// The start of a new claim of a pool for one form of constraints; kept, since pools and
    /// constraints do not change.
    pub(crate) fn start(&mut self, pool: usize, rung: usize) -> Option<Arc<Narrowed>> {
        let compiled = &self.pools[pool];
        let form = &self.shapes.rungs[rung];
        self.starts
            .entry((pool, rung))
            .or_insert_with(|| {
                if untolerated(&compiled.pool.taints, &form.tolerations).is_some() {
                    return None;
                }
                let all = Narrowed::of_pool(compiled);
                all.by(&form.requirements, &compiled.pool.catalog).ok().map(Arc::new)
            })
            .clone()
    }

    fn finish(&self, claim: OpenClaim) -> PlannedClaim {
        let pool = &self.pools[claim.pool];
        claim.finish(pool)
    }

    pub(crate) fn attempt(&self, shape: ShapeId, step: usize) -> Attempt<'_> {
        let shape = &self.shapes.shapes[shape.0 as usize];
        let rung_id = shape.rungs[step] as usize;
        Attempt {
            id: shape.attempts.start + step,
            node_form: self.shapes.node_form[rung_id] as usize,
            rung: &self.shapes.rungs[rung_id],
            requests: &shape.requests,
            ports: &shape.ports,
        }
    }

    /// A shape with all its preferences given up.
    pub(crate) fn barest(&self, shape: ShapeId) -> Attempt<'_> {
        self.attempt(shape, self.shapes.shapes[shape.0 as usize].rungs.len() - 1)
    }

    /// What a shape with all its preferences given up asks of other pods.
    fn last_ask(&mut self, shape: ShapeId, tallies: &Tallies) -> Option<Ask> {
        let rungs = &self.shapes.shapes[shape.0 as usize].rungs;
        let rung = *rungs.last().expect("invariant: a shape has a form") as usize;
        self.topology.ask(shape.1, rung, &self.shapes.rungs[rung], tallies)
    }

    /// Why no pool can open a claim for a shape with all its preferences given up.
    fn explain(&mut self, shape: ShapeId, round: &Round) -> Unschedulable {
        let ask = self.last_ask(shape, &round.tallies);
        let failures = std::iter::zip(0.., &round.remaining)
            .filter(|(pool, _)| self.has_types(*pool))
            .map(|(pool, remaining)| {
                self.explain_pool(pool, shape, ask.as_ref(), remaining, &round.tallies)
            })
            .collect();
        Unschedulable(failures)
    }

    fn explain_pool(
        &self,
        pool: usize,
        shape: ShapeId,
        ask: Option<&Ask>,
        remaining: &[(CompactString, i64)],
        tallies: &Tallies,
    ) -> PoolFailure {
        let compiled = &self.pools[pool];
        let mut options: TypeSet = compiled.options.clone();
        if let Err(limits) = compiled.retain_within(remaining, &mut options) {
            return limits;
        }
        ask.and_then(|ask| self.topology.unmet(ask, pool, tallies))
            .map_or_else(|| explain(compiled, &options, &self.barest(shape)), PoolFailure::Topology)
    }
}
