//! Where pods are in relation to each other while they are being placed: spread, affinity and
//! anti-affinity, counted as upstream counts them.
//!
//! Every distinct term is a [`Group`] with a count of its pods in each domain (each value of the
//! term's node label). A pod asks every group whose term it has, and every group of anti-affinity
//! whose owners it would disturb ("inverse" groups). The answer is a set of domains, so that one
//! look at a claim is an intersection of bits. Host names are not kept as values: a node or a claim
//! is its own domain.
//!
//! Upstream's peculiarities are kept: a spread counts a pod only where its claim has one domain
//! left; anti-affinity counts it in every domain that is still open; a spread over hosts has the
//! minimum 0, since a new host is always possible.

mod ask;
mod group;
mod pin;

use compact_str::CompactString;
use fixedbitset::FixedBitSet;
use rustc_hash::{FxHashMap, FxHasher};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use wharf_model::labels;
use wharf_model::requirements::Requirements;

pub(crate) use ask::Ask;
use group::{Group, Tally};
pub(crate) use pin::Pins;

use crate::node::ExistingNode;
use crate::pod::Rung;
use crate::pool::CompiledPool;
use crate::terms::{TopologyKind, TopologyTerm};

/// A set of domains of a key: bits by their position in the key's sorted values.
pub(crate) type Domains = u128;

/// So many values of one node label are told apart as domains; a node with a further one takes no
/// pod that asks for the key. A region has six zones; host names are not counted.
pub(crate) const DOMAINS_MAX: usize = 128;

/// A node label that some term names.
#[derive(Debug)]
struct Key {
    name: CompactString,
    /// Whether each node is a domain of its own.
    host: bool,
    /// The values that nodes have or new ones can have, sorted.
    values: Vec<CompactString>,
    /// Per node: its domain.
    of_node: Vec<Option<u8>>,
    /// Per pool: the domains its machines can be in.
    of_pool: Vec<Domains>,
}

/// All groups of a solver.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    keys: Vec<Key>,
    groups: Vec<Group>,
    by_fingerprint: FxHashMap<u64, Vec<u32>>,
    /// Pods' labels: each distinct one once.
    labels: Vec<PodLabels>,
    labels_by_value: FxHashMap<(CompactString, Arc<BTreeMap<String, String>>), u32>,
    labels_by_address: FxHashMap<(CompactString, usize), u32>,
    /// Per form of constraints: its groups.
    rungs: Vec<RungGroups>,
}

#[derive(Debug)]
struct PodLabels {
    namespace: CompactString,
    labels: Arc<BTreeMap<String, String>>,
    /// The groups that select them, of the first `known`.
    selected_by: Vec<u32>,
    known: usize,
}

/// What one form of constraints has to do with topology.
#[derive(Clone, Debug, Default)]
struct RungGroups {
    /// Groups whose term it has.
    owned: Vec<u32>,
    /// Inverse groups of its required anti-affinity.
    inverse: Vec<u32>,
}

/// The counts of one solve.
#[derive(Debug, Default)]
pub(crate) struct Tallies(Vec<Tally>);

/// What groups are made from: the solver's nodes and pools.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) nodes: &'a [ExistingNode],
    pub(crate) pools: &'a [CompiledPool],
}

impl Topology {
    /// The groups that pods on nodes bring along: their anti-affinity keeps others away.
    pub(crate) fn new(world: World<'_>) -> Self {
        let mut topology = Self::default();
        let residents = world.nodes.iter().flat_map(|node| &node.pods);
        for term in residents.flat_map(|pod| &pod.anti_affinity) {
            topology.group_of(term, None, true, world);
        }
        topology
    }

    /// Whether nobody asks for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.groups.is_empty()
    }

    /// The number of a pod's labels.
    pub(crate) fn intern_labels(
        &mut self,
        namespace: &CompactString,
        labels: &Arc<BTreeMap<String, String>>,
    ) -> u32 {
        // The allocation is kept alive in `labels`, so its address stays its own.
        let address = (namespace.clone(), Arc::as_ptr(labels).addr());
        if let Some(id) = self.labels_by_address.get(&address) {
            return *id;
        }
        let key = (namespace.clone(), Arc::clone(labels));
        if let Some(id) = self.labels_by_value.get(&key) {
            return *id;
        }
        let id = self.labels.len() as u32;
        self.labels.push(PodLabels {
            namespace: namespace.clone(),
            labels: Arc::clone(labels),
            selected_by: Vec::new(),
            known: 0,
        });
        self.labels_by_address.insert(address, id);
        self.labels_by_value.insert(key, id);
        id
    }

    /// Learns forms of constraints up to number `rungs.len()`.
    pub(crate) fn intern_rungs(&mut self, rungs: &[Rung], world: World<'_>) {
        for rung in &rungs[self.rungs.len()..] {
            let mut groups = RungGroups::default();
            for term in &rung.topology {
                groups.owned.push(self.group_of(term, Some(rung), false, world));
                if term.kind == TopologyKind::AntiAffinity && term.preference.is_none() {
                    groups.inverse.push(self.group_of(term, None, true, world));
                }
            }
            self.rungs.push(groups);
        }
    }

    /// The counts at the start of a solve without some nodes.
    pub(crate) fn tallies(&self, without: &FixedBitSet) -> Tallies {
        Tallies(
            self.groups.iter().map(|group| group.tally(&self.keys[group.key], without)).collect(),
        )
    }

    /// What a pod asks, given the counts; `None` if nothing.
    pub(crate) fn ask(
        &mut self,
        labels: u32,
        rung_id: usize,
        rung: &Rung,
        tallies: &Tallies,
    ) -> Option<Ask> {
        if self.is_idle() {
            return None;
        }
        self.select(labels);
        let selected = &self.labels[labels as usize].selected_by;
        let owned = &self.rungs[rung_id].owned;
        let inverse = selected.iter().filter(|group| self.groups[**group as usize].inverse);
        let mut ask = Ask::default();
        for index in owned.iter().chain(inverse) {
            let group = &self.groups[*index as usize];
            let key = &self.keys[group.key];
            let own = selected.binary_search(index).is_ok();
            ask.entries.push(group.entry(*index, key, rung, own, &tallies.0[*index as usize]));
        }
        (!ask.entries.is_empty()).then_some(ask)
    }

    /// Whether a node will do.
    pub(crate) fn node_fits(&self, ask: &Ask, node: usize, tallies: &Tallies) -> bool {
        ask.entries.iter().all(|entry| {
            let key = &self.keys[entry.key];
            if key.host {
                let count = tallies.0[entry.group as usize].on_node(node);
                return entry.host.admits(count);
            }
            key.of_node[node].is_some_and(|domain| entry.allowed >> domain & 1 == 1)
        })
    }

    /// Whether a claim may still do as far as hosts are concerned; a refusal is final unless the
    /// entry asks for company.
    pub(crate) fn host_fits(&self, ask: &Ask, claim: usize, tallies: &Tallies) -> bool {
        ask.entries.iter().all(|entry| {
            !self.keys[entry.key].host
                || entry.host.admits(tallies.0[entry.group as usize].on_claim(claim))
        })
    }

    /// The domains that a claim with these requirements can be in.
    pub(crate) fn open_domains(&self, key: usize, requirements: &Requirements) -> Domains {
        allowed_domains(&self.keys[key], requirements)
    }

    /// What a key is called, and the names of some of its domains.
    pub(crate) fn names(
        &self,
        key: usize,
        domains: Domains,
    ) -> (&str, impl Iterator<Item = &CompactString>) {
        let key = &self.keys[key];
        (&key.name, bits(domains).map(|bit| &key.values[bit]))
    }

    /// Whether a key's domains are hosts.
    pub(crate) fn is_host(&self, key: usize) -> bool {
        self.keys[key].host
    }

    /// Counts a pod that was placed on a node. Like [`Topology::record_on_claim`] it comes after
    /// the pod's [`Topology::ask`].
    pub(crate) fn record_on_node(
        &self,
        labels: u32,
        rung: usize,
        node: usize,
        existing: &ExistingNode,
        tallies: &mut Tallies,
    ) {
        for index in self.counted_in(labels, rung) {
            let group = &self.groups[index as usize];
            let key = &self.keys[group.key];
            if !group.counts_node(existing) {
                continue;
            }
            let tally = &mut tallies.0[index as usize];
            if key.host {
                tally.add_on_node(node);
            } else if let Some(domain) = key.of_node[node] {
                tally.add(usize::from(domain));
            }
        }
    }

    /// Counts a pod that was placed on a claim, whose requirements are narrowed by it already.
    pub(crate) fn record_on_claim(
        &self,
        labels: u32,
        rung: usize,
        claim: usize,
        requirements: &Requirements,
        pool: &CompiledPool,
        tallies: &mut Tallies,
    ) {
        for index in self.counted_in(labels, rung) {
            let group = &self.groups[index as usize];
            if !group.counts_claim(requirements, pool) {
                continue;
            }
            let key = &self.keys[group.key];
            let tally = &mut tallies.0[index as usize];
            if key.host {
                tally.add_on_claim(claim);
                continue;
            }
            let open = allowed_domains(key, requirements);
            let anti = group.term.kind == TopologyKind::AntiAffinity;
            if anti || open.count_ones() == 1 {
                bits(open).for_each(|domain| tally.add(domain));
            }
        }
    }

    /// The groups that a pod counts in: those that select it, and those that keep others from it.
    fn counted_in(&self, labels: u32, rung: usize) -> impl Iterator<Item = u32> {
        let selected = match self.is_idle() {
            true => &[][..],
            false => &self.labels[labels as usize].selected_by,
        };
        let selected = selected.iter().filter(|index| !self.groups[**index as usize].inverse);
        selected.chain(&self.rungs[rung].inverse).copied()
    }

    /// Why a pod finds no place, in upstream's words, if the reason lies here: the first group that
    /// no pool's machines could satisfy.
    pub(crate) fn unmet(&self, ask: &Ask, pool: usize, tallies: &Tallies) -> Option<String> {
        let failed = ask.entries.iter().find(|entry| {
            let key = &self.keys[entry.key];
            if key.host { !entry.host.admits(0) } else { entry.allowed & key.of_pool[pool] == 0 }
        })?;
        let group = &self.groups[failed.group as usize];
        let key = &self.keys[failed.key];
        let what = match group.term.kind {
            TopologyKind::Spread { .. } => "topology spread",
            TopologyKind::Affinity => "pod affinity",
            TopologyKind::AntiAffinity => "pod anti-affinity",
        };
        let tally = &tallies.0[failed.group as usize];
        let counts: Vec<String> = std::iter::zip(&key.values, tally.domains())
            .map(|(value, count)| format!("{value}:{count}"))
            .collect();
        Some(format!(
            "unsatisfiable topology constraint for {what}, key={} (counts = map[{}])",
            key.name,
            counts.join(" ")
        ))
    }

    /// Brings the list of groups that select some labels up to date.
    fn select(&mut self, labels: u32) {
        let known = &mut self.labels[labels as usize];
        for index in known.known..self.groups.len() {
            if self.groups[index].term.selects(&known.namespace, &*known.labels) {
                known.selected_by.push(index as u32);
            }
        }
        known.known = self.groups.len();
    }

    fn group_of(
        &mut self,
        term: &Arc<TopologyTerm>,
        rung: Option<&Rung>,
        inverse: bool,
        world: World<'_>,
    ) -> u32 {
        let mut hasher = FxHasher::default();
        (term.kind, &term.key, &term.selector, inverse).hash(&mut hasher);
        let fingerprint = hasher.finish();
        let key = self.key_of(&term.key, world);
        let group = Group::new(term, rung, inverse, key);
        let known = self.by_fingerprint.entry(fingerprint).or_default();
        if let Some(id) = known.iter().find(|id| self.groups[**id as usize].is_same(&group)) {
            return *id;
        }
        let id = self.groups.len() as u32;
        known.push(id);
        self.groups.push(group.counted(&self.keys[key], world));
        id
    }

    fn key_of(&mut self, name: &CompactString, world: World<'_>) -> usize {
        if let Some(known) = self.keys.iter().position(|key| key.name == *name) {
            return known;
        }
        self.keys.push(Key::new(name, world));
        self.keys.len() - 1
    }
}

impl Key {
    fn new(name: &CompactString, world: World<'_>) -> Self {
        let host = name == labels::HOSTNAME;
        let mut values: Vec<CompactString> = Vec::new();
        if !host {
            for pool in world.pools {
                let known = pool.pool.catalog.values_of(name, &pool.options, pool.cells);
                let asked = pool.pool.requirements.get(name);
                let own = asked.and_then(|asked| asked.values.allowed()).unwrap_or_default();
                let mut of_pool = known;
                if of_pool.is_empty() {
                    of_pool.extend(own.iter().cloned());
                }
                values.extend(
                    of_pool.into_iter().filter(|value| asked.is_none_or(|asked| asked.has(value))),
                );
            }
            let of_nodes = world.nodes.iter().filter_map(|node| node.labels.get(name.as_str()));
            values.extend(of_nodes.map(CompactString::from));
            values.sort_unstable();
            values.dedup();
            values.truncate(DOMAINS_MAX);
        }
        let position = |value: &str| values.binary_search_by(|known| (**known).cmp(value)).ok();
        let of_node = world
            .nodes
            .iter()
            .map(|node| node.labels.get(name.as_str()).and_then(|value| position(value)))
            .map(|at| at.map(|at| at as u8))
            .collect();
        let key = Self { name: name.clone(), host, values, of_node, of_pool: Vec::new() };
        let of_pool =
            world.pools.iter().map(|pool| allowed_domains(&key, &pool.pool.requirements)).collect();
        Self { of_pool, ..key }
    }
}

/// The domains of a key that requirements leave open.
fn allowed_domains(key: &Key, requirements: &Requirements) -> Domains {
    let Some(requirement) = requirements.get(&key.name) else { return all_domains(key) };
    let allowed = (0..key.values.len()).filter(|at| requirement.has(&key.values[*at]));
    allowed.fold(0, |domains, at| domains | 1 << at)
}

fn all_domains(key: &Key) -> Domains {
    if key.values.len() == DOMAINS_MAX { Domains::MAX } else { (1 << key.values.len()) - 1 }
}

/// The positions of the bits that are set.
fn bits(mut domains: Domains) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = domains.trailing_zeros();
        domains &= domains.wrapping_sub(1);
        (bit < Domains::BITS).then_some(bit as usize)
    })
}
