//! Packing by cost: the mix of machines for a whole batch, chosen for the money.
//!
//! Upstream's pass comes first ([`crate::solve`]): it says which pods existing nodes take, which
//! find no place and in which form of its constraints each other pod is placed. The pods of its
//! planned claims are then packed again. Pods that care about zones (or other domains) are pinned to
//! one, which turns spread and affinity into plain requirements; what pods think of others on the
//! same host becomes a number per machine. What remains is a packing problem ([`problem`]) with a
//! lower bound and worths from linear programming ([`duals`]), a way to fill one machine ([`fill`])
//! and a search ([`search`]). Every claim is then built by the same code as upstream's, and all that
//! pods ask of each other is looked at again. The cheaper plan is the answer, so that none is ever
//! dearer than upstream's.

#![allow(
    clippy::needless_range_loop,
    reason = "resources are numbered, and several tables are looked at for each"
)]

pub(crate) mod duals;
pub(crate) mod fill;
pub(crate) mod problem;
pub(crate) mod search;

use fixedbitset::FixedBitSet;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use wharf_model::money::Price;
use wharf_model::requirements::{Operator, Requirement, Requirements};
use wharf_model::resources::Resources;

use crate::catalog::{Cells, TypeSet, bits, core};
use crate::claim::{Narrowed, OpenClaim, PlannedClaim};
use crate::pod::{PodRequest, queue_order};
use crate::shapes::ShapeId;
use crate::solve::{Solution, Solver};
use crate::topology::{Domains, Pins, Tallies};
use problem::{Amounts, Bin, Class, DIMS_MAX, HostRule, Kind, Problem, SETS_MAX};

/// The search's choices are always the same for the same input.
const SEED: u64 = 1;

/// Equal pods, as the solver knows them.
struct Members {
    shape: ShapeId,
    step: usize,
    pool: usize,
    pins: Pins,
    /// Indexes of the pods, the last to be taken first.
    pods: Vec<u32>,
}

/// A kind of machine, if one is chosen, and what goes on it: pods with their classes.
type Load = (Option<u32>, Vec<(u32, u32)>);

/// A set of machines that pods may use.
struct Usable {
    pool: usize,
    options: TypeSet,
    cells: Cells,
}

/// The pods to pack, and what is known of the others.
struct Batch<'a> {
    pods: &'a [(&'a PodRequest, ShapeId)],
    upstream: &'a Solution,
    /// Per pod: the form of its constraints in which upstream's pass placed it.
    steps: &'a [u8],
    /// Upstream's claims that stay: some pod on them wants company on its host.
    kept: Vec<u32>,
}

impl Solver {
    /// Upstream's solution with its claims replaced by cheaper ones, if there are any.
    pub(crate) fn cheapen(
        &mut self,
        pods: &[(&PodRequest, ShapeId)],
        steps: &[u8],
        upstream: Solution,
        share_percent: u32,
    ) -> Solution {
        if upstream.claims.is_empty() {
            return upstream;
        }
        let mut batch = Batch { pods, upstream: &upstream, steps, kept: Vec::new() };
        let rung = |pod: u32| self.rung(pods[pod as usize].1, steps[pod as usize]);
        for (index, claim) in upstream.claims.iter().enumerate() {
            if claim.pods.iter().any(|pod| self.topology.wants_company_on_host(rung(*pod))) {
                batch.kept.push(index as u32);
            }
        }
        let Some(claims) = self.pack_again(&batch, share_percent) else { return upstream };
        let cost = |claims: &[PlannedClaim]| -> Price {
            claims.iter().map(|claim| claim.launch(&self.pool(claim.pool).catalog).2).sum()
        };
        // Who wants pods on more machines than are cheapest pays for it.
        if cost(&claims) < cost(&upstream.claims) || share_percent < 100 {
            return Solution { claims, ..upstream };
        }
        upstream
    }

    fn pack_again(&mut self, batch: &Batch<'_>, share_percent: u32) -> Option<Vec<PlannedClaim>> {
        let members = self.members(batch)?;
        let mut problem = self.problem(&members)?;
        let mut paired: Vec<(Class, Members)> =
            std::iter::zip(std::mem::take(&mut problem.classes), members).collect();
        paired.sort_by_key(|(class, _)| class.kinship());
        let (classes, mut members): (Vec<Class>, Vec<Members>) = paired.into_iter().unzip();
        problem.classes = classes;
        spread_out(&mut problem, share_percent);
        problem.drop_dominated();
        let bins = search::solve(&problem, SEED)?;
        let kept = batch.kept.iter().map(|index| batch.upstream.claims[*index as usize].clone());
        let mut claims: Vec<PlannedClaim> = kept.collect();
        claims.extend(self.claims(batch, &problem, &bins, &mut members)?);
        self.holds(batch, &claims).then_some(claims)
    }

    fn rung(&self, shape: ShapeId, step: u8) -> usize {
        self.shapes.shapes[shape.0 as usize].rungs[usize::from(step)] as usize
    }

    /// The counts of the pods that are placed for good: on nodes and on the claims that stay.
    fn placed(&mut self, batch: &Batch<'_>) -> Tallies {
        let none = FixedBitSet::with_capacity(self.nodes.len());
        let mut tallies = self.topology.tallies(&none);
        for (pod, node) in &batch.upstream.on_nodes {
            let shape = batch.pods[*pod as usize].1;
            let rung = self.rung(shape, batch.steps[*pod as usize]);
            let node = *node as usize;
            let existing = &self.nodes[node];
            self.topology.record_on_node(shape.1, rung, node, existing, &mut tallies);
        }
        for (number, index) in batch.kept.iter().enumerate() {
            let claim = &batch.upstream.claims[*index as usize];
            self.record(batch, claim, number, &mut tallies);
        }
        tallies
    }

    fn record(
        &self,
        batch: &Batch<'_>,
        claim: &PlannedClaim,
        number: usize,
        tallies: &mut Tallies,
    ) {
        let pool = &self.pools[claim.pool];
        for pod in &claim.pods {
            let shape = batch.pods[*pod as usize].1;
            let rung = self.rung(shape, batch.steps[*pod as usize]);
            let requirements = &claim.requirements;
            self.topology.record_on_claim(shape.1, rung, number, requirements, pool, tallies);
        }
    }

    /// Groups the pods to pack, pinned to domains where somebody asks for them.
    fn members(&mut self, batch: &Batch<'_>) -> Option<Vec<Members>> {
        let mut queue: Vec<(u32, usize)> = Vec::new();
        for (index, claim) in batch.upstream.claims.iter().enumerate() {
            if !batch.kept.contains(&(index as u32)) {
                queue.extend(claim.pods.iter().map(|pod| (*pod, claim.pool)));
            }
        }
        queue.sort_by(|a, b| queue_order(batch.pods[a.0 as usize].0, batch.pods[b.0 as usize].0));
        let mut tallies = self.placed(batch);
        let mut open: FxHashMap<(usize, usize, usize), Domains> = FxHashMap::default();
        let mut by_key: FxHashMap<(u32, u32, u8, usize, Pins), usize> = FxHashMap::default();
        let mut members: Vec<Members> = Vec::new();
        while !queue.is_empty() {
            let before = queue.len();
            for (pod, pool) in std::mem::take(&mut queue) {
                let (shape, step) = (batch.pods[pod as usize].1, batch.steps[pod as usize]);
                let rung = self.rung(shape, step);
                let start = self.start(pool, rung)?;
                let catalog = &self.pools[pool].pool.catalog;
                let form = &self.shapes.rungs[rung];
                let pins = self.topology.pin(
                    shape.1,
                    rung,
                    form,
                    |topology, key| {
                        *open.entry((pool, rung, key)).or_insert_with(|| {
                            let (name, _) = topology.names(key, 0);
                            let sold = catalog.values_of(name, &start.options, start.cells);
                            let allowed = topology.open_domains(key, &start.requirements);
                            let sold = topology.domains_of(key, &sold);
                            if sold == 0 { allowed } else { allowed & sold }
                        })
                    },
                    &mut tallies,
                );
                let Some(pins) = pins else {
                    queue.push((pod, pool));
                    continue;
                };
                let labels = if self.topology.is_idle() { 0 } else { shape.1 };
                let at = *by_key.entry((shape.0, labels, step, pool, pins.clone())).or_insert_with(
                    || {
                        let step = usize::from(step);
                        members.push(Members { shape, step, pool, pins, pods: Vec::new() });
                        members.len() - 1
                    },
                );
                members[at].pods.push(pod);
            }
            if queue.len() == before {
                return None;
            }
        }
        members.iter_mut().for_each(|member| member.pods.reverse());
        Some(members)
    }

    fn pinned(&mut self, pool: usize, rung: usize, pins: &Pins) -> Option<Narrowed> {
        let start = self.start(pool, rung)?;
        let catalog = &self.pools[pool].pool.catalog;
        start.by(&self.pin_requirements(pins), catalog).ok()
    }

    fn pin_requirements(&self, pins: &Pins) -> Requirements {
        pins.iter()
            .map(|(key, domains)| {
                let (name, values) = self.topology.names(*key, *domains);
                Requirement::new(name, Operator::In, values)
            })
            .collect()
    }

    fn problem(&mut self, members: &[Members]) -> Option<Problem> {
        let mut names: Vec<String> = Vec::new();
        let mut usable: Vec<Usable> = Vec::new();
        let mut set_of: FxHashMap<(usize, usize, Pins), u8> = FxHashMap::default();
        let mut ports: BTreeMap<(i32, String), u32> = BTreeMap::new();
        let mut classes = Vec::new();
        let groups = self.topology.len();
        for member in members {
            let rung = self.rung(member.shape, member.step as u8);
            let key = (member.pool, rung, member.pins.clone());
            let set = match set_of.get(&key) {
                Some(set) => *set,
                None => {
                    let narrowed = self.pinned(member.pool, rung, &member.pins)?;
                    let same = |known: &Usable| {
                        known.pool == member.pool
                            && known.cells == narrowed.cells
                            && known.options == narrowed.options
                    };
                    let set = usable.iter().position(same).unwrap_or_else(|| {
                        let Narrowed { options, cells, .. } = narrowed;
                        usable.push(Usable { pool: member.pool, options, cells });
                        usable.len() - 1
                    });
                    if set >= SETS_MAX {
                        return None;
                    }
                    set_of.insert(key, set as u8);
                    set as u8
                }
            };
            let shape = &self.shapes.shapes[member.shape.0 as usize];
            let need = amounts(&shape.requests, &mut names)?;
            let mut hosts = self.topology.host_rules(member.shape.1, rung);
            for port in shape.ports.iter() {
                let next = ports.len() as u32;
                let known = ports.entry((port.port, port.protocol.to_string())).or_insert(next);
                hosts.push(HostRule { group: groups as u32 + *known, most: 1, counts: true });
            }
            classes.push(Class { need, set, count: member.pods.len() as u32, hosts });
        }
        let groups = groups + ports.len();
        // Groups about which nobody on the new machines minds are nothing to look at.
        let mut minded = vec![false; groups];
        for rule in classes.iter().flat_map(|class| &class.hosts).filter(|r| r.most < u32::MAX) {
            minded[rule.group as usize] = true;
        }
        for class in &mut classes {
            class.hosts.retain(|rule| minded[rule.group as usize]);
        }
        let dims = 4 + names.len();
        let kinds = self.kinds(&usable, &names)?;
        Some(Problem { dims, classes, kinds, groups })
    }

    /// What can be bought: a type, and where it matters to some pod, where and how.
    fn kinds(&self, usable: &[Usable], names: &[String]) -> Option<Vec<Kind>> {
        let mut kinds = Vec::new();
        for pool in 0..self.pools.len() {
            let of_pool = || usable.iter().enumerate().filter(|(_, set)| set.pool == pool);
            let Some((_, first)) = of_pool().next() else { continue };
            let catalog = &self.pools[pool].pool.catalog;
            let mut all = first.cells;
            let mut alike = true;
            for (_, set) in of_pool() {
                alike &= set.cells == first.cells;
                all |= set.cells;
            }
            let ways: Vec<Cells> =
                if alike { vec![all] } else { bits(all).map(|cell| 1 << cell).collect() };
            for index in 0..catalog.len() as u32 {
                let machine = catalog.get(index);
                // A launch takes bare metal only if nothing else is left.
                if machine.name.contains("metal") {
                    continue;
                }
                let mut room = [0; DIMS_MAX];
                room[..4].copy_from_slice(&self.pools[pool].usable[index as usize]);
                for (room, name) in room[4..].iter_mut().zip(names) {
                    *room = self.pools[pool].left_for_pods(index as usize, name);
                }
                for way in &ways {
                    let Some(price) = catalog.cheapest(index, *way) else { continue };
                    let fits = |set: &Usable| {
                        set.options.contains(index as usize)
                            && set.cells & way & catalog.available(index) != 0
                    };
                    let sets = of_pool()
                        .filter(|(_, set)| fits(set))
                        .fold(0, |sets, (at, _)| sets | 1 << at);
                    if sets != 0 {
                        let price = price.nano_dollars_per_hour();
                        kinds.push(Kind { pool, index, price, room, sets });
                    }
                }
            }
        }
        (!kinds.is_empty()).then_some(kinds)
    }

    /// Builds claims for bins by the code that builds upstream's. Pods that it does not add after
    /// all (a pool's own labels, minValues) get claims of their own.
    fn claims(
        &mut self,
        batch: &Batch<'_>,
        problem: &Problem,
        bins: &[Bin],
        members: &mut [Members],
    ) -> Option<Vec<PlannedClaim>> {
        let mut remaining: Vec<_> =
            self.pools.iter().map(|pool| pool.pool.remaining.clone()).collect();
        for index in &batch.kept {
            let claim = &batch.upstream.claims[*index as usize];
            let set: TypeSet = claim.types.iter().map(|index| *index as usize).collect();
            self.pools[claim.pool].charge(&mut remaining[claim.pool], &set);
        }
        let mut claims = Vec::new();
        let mut work: Vec<Load> = Vec::new();
        for bin in bins {
            let mut pods: Vec<(u32, u32)> = Vec::new();
            for (class, count) in &bin.content {
                let member = &mut members[*class as usize];
                let from = member.pods.len().checked_sub(*count as usize)?;
                pods.extend(member.pods.drain(from..).map(|pod| (pod, *class)));
            }
            pods.sort_by(|a, b| {
                queue_order(batch.pods[a.0 as usize].0, batch.pods[b.0 as usize].0)
            });
            work.push((Some(bin.kind), pods));
        }
        work.reverse();
        while let Some((kind, pods)) = work.pop() {
            let (first, class) = *pods.first()?;
            let member = &members[class as usize];
            let (pool_index, shape, step) = (member.pool, member.shape, member.step);
            let mut pins = Pins::new();
            for pin in pods.iter().flat_map(|(_, class)| &members[*class as usize].pins) {
                if !pins.contains(pin) {
                    pins.push(*pin);
                }
            }
            let rung = self.rung(shape, step as u8);
            let mut narrowed = self.pinned(pool_index, rung, &pins)?;
            let pool = &self.pools[pool_index];
            let left = &mut remaining[pool_index];
            pool.retain_within(left, &mut narrowed.options).ok()?;
            if let Some(kind) = kind.filter(|_| !left.is_empty()) {
                // Under limits a claim counts with its largest type.
                let machine = &problem.kinds[kind as usize];
                let chosen = self.pools[machine.pool].pool.catalog.get(machine.index);
                let chosen = &chosen.capacity;
                let larger = |index: &usize| {
                    let capacity = &pool.pool.catalog.get(*index as u32).capacity;
                    left.iter().any(|(name, _)| capacity.get(name) > chosen.get(name))
                };
                let larger: Vec<usize> = narrowed.options.ones().filter(larger).collect();
                larger.into_iter().for_each(|index| narrowed.options.set(index, false));
            }
            let attempt = self.attempt(shape, step);
            let mut claim = OpenClaim::open(pool_index, pool, narrowed, &attempt)?;
            claim.pods.push(first);
            let mut turned_away = Vec::new();
            for (pod, class) in &pods[1..] {
                let attempt =
                    self.attempt(batch.pods[*pod as usize].1, members[*class as usize].step);
                if claim.try_add(pool, &attempt, None) {
                    claim.pods.push(*pod);
                } else {
                    turned_away.push((*pod, *class));
                }
            }
            pool.charge(left, &claim.options);
            claims.push(claim.finish(pool));
            if !turned_away.is_empty() {
                work.push((None, turned_away));
            }
        }
        Some(claims)
    }

    /// Whether all that the pods on claims ask of others is so in the end.
    fn holds(&mut self, batch: &Batch<'_>, claims: &[PlannedClaim]) -> bool {
        if self.topology.is_idle() {
            return true;
        }
        let mut tallies = self.placed(batch);
        for (number, claim) in claims.iter().enumerate().skip(batch.kept.len()) {
            self.record(batch, claim, number, &mut tallies);
        }
        for (number, claim) in claims.iter().enumerate().skip(batch.kept.len()) {
            for pod in &claim.pods {
                let shape = batch.pods[*pod as usize].1;
                let rung = self.rung(shape, batch.steps[*pod as usize]);
                let form = &self.shapes.rungs[rung];
                let requirements = &claim.requirements;
                let topology = &mut self.topology;
                if !topology.holds_on_claim(shape.1, rung, form, number, requirements, &tallies) {
                    return false;
                }
            }
        }
        true
    }
}

/// Lets no machine take more than a part of what all pods ask for together.
fn spread_out(problem: &mut Problem, share_percent: u32) {
    if share_percent >= 100 {
        return;
    }
    for dim in 0..problem.dims {
        let needs = problem.classes.iter().map(|class| class.need[dim] * i64::from(class.count));
        let share = needs.sum::<i64>() / 100 * i64::from(share_percent);
        // The largest pod must fit all the same.
        let largest = problem.classes.iter().map(|class| class.need[dim]).max().unwrap_or(0);
        for kind in &mut problem.kinds {
            kind.room[dim] = kind.room[dim].min(share.max(largest));
        }
    }
}

/// Requests by number of resource; `names` are those of the extended ones met so far. `None` if
/// there are too many.
fn amounts(requests: &Resources, names: &mut Vec<String>) -> Option<Amounts> {
    let mut amounts = [0; DIMS_MAX];
    amounts[..4].copy_from_slice(&core(requests));
    for (name, amount) in &requests.extended {
        let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.to_string());
            names.len() - 1
        });
        *amounts.get_mut(4 + at)? = *amount;
    }
    Some(amounts)
}
