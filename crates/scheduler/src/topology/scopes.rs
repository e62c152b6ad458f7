//! Scopes: which nodes count for a topology spread constraint.
//!
//! A node counts if it has all keys of the pod's constraints of the same kind and passes the
//! constraint's inclusion policies: `nodeAffinityPolicy` (the pod's node selector and required
//! node affinity) and `nodeTaintsPolicy` (its tolerations). Pods with the same answers share a
//! scope.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::Nodes;
use super::keys::{KeyId, Keys};
use crate::node::{Effect, NodeInfo};
use crate::pod::{NodeAffinity, Toleration};
use crate::snapshot::NodeIndex;
use crate::symbols::Symbols;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ScopeId(u32);

impl ScopeId {
    /// All nodes.
    pub(crate) const ALL: Self = Self(0);
}

/// What a node must have to count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Conditions {
    /// Topology keys, sorted, each once.
    pub(crate) keys: SmallVec<[KeyId; 2]>,
    /// Node selector and required node affinity, where they are honoured and there are any.
    pub(crate) affinity: Option<NodeAffinity>,
    /// Tolerations, where taints are honoured.
    pub(crate) tolerations: Option<SmallVec<[Toleration; 4]>>,
}

impl Conditions {
    /// Whether a node counts.
    pub(crate) fn admit(
        &self,
        index: NodeIndex,
        node: &NodeInfo,
        keys: &Keys,
        symbols: &Symbols,
    ) -> bool {
        self.keys.iter().all(|key| keys.get(*key).domain(index).is_some())
            && self.affinity.as_ref().is_none_or(|affinity| affinity.admits(node, symbols))
            && self.tolerations.as_ref().is_none_or(|tolerations| {
                let mut taints = node.facts.taints.iter();
                taints.all(|taint| {
                    !matches!(taint.effect, Effect::NoSchedule | Effect::NoExecute)
                        || tolerations.iter().any(|toleration| toleration.covers(taint))
                })
            })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) conditions: Conditions,
    /// By node.
    eligible: Vec<bool>,
    /// For keys by which hard constraints of this scope spread: the eligible nodes of each domain,
    /// and how many domains have any.
    domains: SmallVec<[(KeyId, Vec<u32>, usize); 1]>,
}

impl Scope {
    #[inline]
    pub(crate) fn counts(&self, index: NodeIndex) -> bool {
        self.eligible.get(index.get()).copied().unwrap_or(false)
    }

    /// How many domains of a followed key have an eligible node.
    pub(crate) fn domains(&self, key: KeyId) -> usize {
        self.domains.iter().find(|(known, ..)| *known == key).map_or(0, |(.., count)| *count)
    }

    fn enter(&mut self, index: NodeIndex, node: &NodeInfo, keys: &Keys, symbols: &Symbols) {
        if !self.conditions.admit(index, node, keys, symbols) {
            return;
        }
        if self.eligible.len() <= index.get() {
            self.eligible.resize(index.get() + 1, false);
        }
        self.eligible[index.get()] = true;
        for (key, nodes, count) in &mut self.domains {
            let Some(domain) = keys.get(*key).domain(index) else { continue };
            let domain = domain as usize;
            if nodes.len() <= domain {
                nodes.resize(domain + 1, 0);
            }
            *count += usize::from(nodes[domain] == 0);
            nodes[domain] += 1;
        }
    }

    fn leave(&mut self, index: NodeIndex, keys: &Keys) {
        if !self.counts(index) {
            return;
        }
        self.eligible[index.get()] = false;
        for (key, nodes, count) in &mut self.domains {
            let Some(domain) = keys.get(*key).domain(index) else { continue };
            let nodes = &mut nodes[domain as usize];
            *nodes -= 1;
            *count -= usize::from(*nodes == 0);
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Scopes {
    scopes: Vec<Scope>,
    known: FxHashMap<Conditions, ScopeId>,
}

impl Default for Scopes {
    fn default() -> Self {
        let conditions = Conditions::default();
        let all = Scope {
            conditions: conditions.clone(),
            eligible: Vec::new(),
            domains: SmallVec::new(),
        };
        Self { scopes: vec![all], known: [(conditions, ScopeId::ALL)].into_iter().collect() }
    }
}

impl Scopes {
    pub(crate) fn get(&self, id: ScopeId) -> &Scope {
        &self.scopes[id.0 as usize]
    }

    pub(super) fn intern(
        &mut self,
        conditions: Conditions,
        keys: &Keys,
        nodes: Nodes<'_>,
        symbols: &Symbols,
    ) -> ScopeId {
        if let Some(id) = self.known.get(&conditions) {
            return *id;
        }
        let mut scope = Scope {
            conditions: conditions.clone(),
            eligible: Vec::new(),
            domains: SmallVec::new(),
        };
        for (index, node) in nodes.known() {
            scope.enter(index, node, keys, symbols);
        }
        let id = ScopeId(super::id(self.scopes.len()));
        self.scopes.push(scope);
        self.known.insert(conditions, id);
        id
    }

    /// Counts the domains of a key within a scope from now on.
    pub(super) fn follow(&mut self, id: ScopeId, key: KeyId, keys: &Keys) {
        let scope = &mut self.scopes[id.0 as usize];
        if scope.domains.iter().any(|(known, ..)| *known == key) {
            return;
        }
        let key_table = keys.get(key);
        let mut nodes = vec![0; key_table.domains_end()];
        for (at, _) in (0..).zip(&scope.eligible).filter(|(_, eligible)| **eligible) {
            if let Some(domain) = key_table.domain(NodeIndex::new(at)) {
                nodes[domain as usize] += 1;
            }
        }
        let count = nodes.iter().filter(|nodes| **nodes > 0).count();
        scope.domains.push((key, nodes, count));
    }

    pub(super) fn enter(
        &mut self,
        index: NodeIndex,
        node: &NodeInfo,
        keys: &Keys,
        symbols: &Symbols,
    ) {
        self.scopes.iter_mut().for_each(|scope| scope.enter(index, node, keys, symbols));
    }

    pub(super) fn leave(&mut self, index: NodeIndex, keys: &Keys) {
        self.scopes.iter_mut().for_each(|scope| scope.leave(index, keys));
    }
}
