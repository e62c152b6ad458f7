//! A distinct term with the count of its pods in each domain.

use std::sync::Arc;

use fixedbitset::FixedBitSet;
use k8s_openapi::api::core::v1::Toleration;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use wharf_model::requirements::{Requirements, Undefined};

use super::ask::{Entry, Hosts, Pick};
use super::{Domains, Key, World, all_domains, allowed_domains, bits};
use crate::node::ExistingNode;
use crate::pod::Rung;
use crate::pool::{CompiledPool, untolerated};
use crate::terms::{TopologyKind, TopologyTerm};

/// A term that at least one pod has.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) term: Arc<TopologyTerm>,
    pub(super) key: usize,
    /// Whether it counts the owners of an anti-affinity rather than the pods they avoid.
    pub(super) inverse: bool,
    /// Of a spread that honours node affinity: what a node must be to count.
    filter: Requirements,
    /// Of a spread that honours taints: what its pods tolerate.
    tolerations: Option<Vec<Toleration>>,
    /// The domains there are for it.
    pub(super) universe: Domains,
    /// Its pods on nodes: node, domain, how many.
    residents: Vec<(u32, Option<u8>, u32)>,
}

/// A group's counts during a solve.
#[derive(Debug)]
pub(super) struct Tally {
    domains: SmallVec<[u32; 8]>,
    /// For hosts: pods on nodes and on claims.
    nodes: FxHashMap<u32, u32>,
    claims: Vec<u32>,
    total: u64,
}

impl Group {
    pub(super) fn new(
        term: &Arc<TopologyTerm>,
        rung: Option<&Rung>,
        inverse: bool,
        key: usize,
    ) -> Self {
        let (honor_affinity, honor_taints) = match term.kind {
            TopologyKind::Spread { honor_affinity, honor_taints, .. } => {
                (honor_affinity, honor_taints)
            }
            TopologyKind::Affinity | TopologyKind::AntiAffinity => (false, false),
        };
        let filter = rung.filter(|_| honor_affinity).map(|rung| rung.strict.clone());
        let tolerations = rung.filter(|_| honor_taints).map(|rung| rung.tolerations.clone());
        Self {
            term: Arc::clone(term),
            key,
            inverse,
            filter: filter.unwrap_or_default(),
            tolerations,
            universe: 0,
            residents: Vec::new(),
        }
    }

    /// Whether both are one group: whether a term is required or preferred makes no difference.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.key == other.key
            && self.inverse == other.inverse
            && self.term.kind == other.term.kind
            && self.term.selector == other.term.selector
            && self.term.namespaces == other.term.namespaces
            && self.filter == other.filter
            && self.tolerations == other.tolerations
    }

    /// With its domains, and the pods that are on nodes already.
    pub(super) fn counted(mut self, key: &Key, world: World<'_>) -> Self {
        self.universe = match &self.tolerations {
            None => all_domains(key),
            Some(tolerations) => {
                let pools = std::iter::zip(world.pools, &key.of_pool)
                    .filter(|(pool, _)| untolerated(&pool.pool.taints, tolerations).is_none());
                let nodes = std::iter::zip(world.nodes, &key.of_node)
                    .filter(|(node, _)| self.counts_node(node))
                    .filter_map(|(_, domain)| *domain);
                let of_pools = pools.fold(0, |all, (_, domains)| all | domains);
                nodes.fold(of_pools, |all, domain| all | 1 << domain)
            }
        };
        for (index, node) in world.nodes.iter().enumerate() {
            if node.pods.is_empty() || !self.counts_node(node) {
                continue;
            }
            let is_counted = |pod: &&crate::node::ResidentPod| {
                if self.inverse {
                    let same = |term: &Arc<TopologyTerm>| {
                        term.key == self.term.key
                            && term.selector == self.term.selector
                            && term.namespaces == self.term.namespaces
                    };
                    pod.anti_affinity.iter().any(same)
                } else {
                    self.term.selects(&pod.namespace, &*pod.labels)
                }
            };
            let count = node.pods.iter().filter(is_counted).count() as u32;
            if count > 0 {
                self.residents.push((index as u32, key.of_node[index], count));
            }
        }
        self
    }

    /// Whether pods on this node count.
    pub(super) fn counts_node(&self, node: &ExistingNode) -> bool {
        node.satisfies(&self.filter)
            && self
                .tolerations
                .as_ref()
                .is_none_or(|tolerations| untolerated(&node.taints, tolerations).is_none())
    }

    /// Whether pods on a claim with these requirements count.
    pub(super) fn counts_claim(&self, requirements: &Requirements, pool: &CompiledPool) -> bool {
        (self.filter.is_empty()
            || requirements.is_compatible(&self.filter, Undefined::WellKnownAllowed))
            && self
                .tolerations
                .as_ref()
                .is_none_or(|tolerations| untolerated(&pool.pool.taints, tolerations).is_none())
    }

    /// The counts without the pods of some nodes.
    pub(super) fn tally(&self, key: &Key, without: &FixedBitSet) -> Tally {
        let mut tally = Tally {
            domains: SmallVec::from_elem(0, key.values.len()),
            nodes: FxHashMap::default(),
            claims: Vec::new(),
            total: 0,
        };
        for (node, domain, count) in &self.residents {
            if without.contains(*node as usize) {
                continue;
            }
            if key.host {
                tally.nodes.insert(*node, *count);
            } else if let Some(domain) = domain {
                tally.domains[usize::from(*domain)] += count;
            }
            tally.total += u64::from(*count);
        }
        tally
    }

    /// The answer to a pod with some form of constraints; `own` says whether the term selects the
    /// pod itself.
    pub(super) fn entry(
        &self,
        group: u32,
        key: &Key,
        rung: &Rung,
        own: bool,
        tally: &Tally,
    ) -> Entry {
        let mut entry =
            Entry { group, key: self.key, allowed: 0, pick: Pick::All, host: Hosts::Any };
        let of_pod = self.universe & allowed_domains(key, &rung.strict);
        let where_count = |holds: &dyn Fn(u32) -> bool| {
            let meant = bits(self.universe).filter(|domain| holds(tally.domains[*domain]));
            meant.fold(0, |domains: Domains, domain| domains | 1 << domain)
        };
        match self.term.kind {
            TopologyKind::Spread { max_skew, min_domains, .. } => {
                let counts = bits(of_pod).map(|domain| i64::from(tally.domains[domain]));
                let few = min_domains.is_some_and(|least| i64::from(of_pod.count_ones()) < least);
                let least = if few || key.host { 0 } else { counts.min().unwrap_or(0) };
                let most = max_skew + least - i64::from(own);
                entry.host = Hosts::AtMost(most);
                entry.allowed = where_count(&|count| i64::from(count) <= most);
                entry.pick = Pick::Least(tally.domains.clone());
            }
            TopologyKind::Affinity => {
                let company = where_count(&|count| count > 0) & of_pod;
                // The first of a group that wants its own company may go anywhere.
                let first = own && company == 0 && (!key.host || tally.total == 0);
                entry.host = if first { Hosts::Any } else { Hosts::Some };
                entry.allowed = if first { of_pod } else { company };
                entry.pick = if first { Pick::First } else { Pick::All };
            }
            TopologyKind::AntiAffinity => {
                entry.host = Hosts::AtMost(0);
                entry.allowed = where_count(&|count| count == 0) & of_pod;
            }
        }
        entry
    }
}

impl Tally {
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn domains(&self) -> &[u32] {
        &self.domains
    }

    pub(super) fn on_node(&self, node: usize) -> u32 {
        self.nodes.get(&(node as u32)).copied().unwrap_or(0)
    }

    pub(super) fn on_claim(&self, claim: usize) -> u32 {
        self.claims.get(claim).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, domain: usize) {
        self.domains[domain] += 1;
        self.total += 1;
    }

    pub(super) fn add_on_node(&mut self, node: usize) {
        *self.nodes.entry(node as u32).or_default() += 1;
        self.total += 1;
    }

    pub(super) fn add_on_claim(&mut self, claim: usize) {
        if self.claims.len() <= claim {
            self.claims.resize(claim + 1, 0);
        }
        self.claims[claim] += 1;
        self.total += 1;
    }
}
