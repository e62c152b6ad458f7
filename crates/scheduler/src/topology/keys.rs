//! Topology keys: for each key that some pod names, the domain of every node.

use rustc_hash::FxHashMap;

use super::Nodes;
use crate::node::NodeInfo;
use crate::snapshot::NodeIndex;
use crate::symbols::{Symbol, label};

/// A topology key that is kept track of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyId(u32);

/// All nodes with the same value of a key. Numbers of domains without nodes are used again.
pub(crate) type Domain = u32;

const NONE: Domain = Domain::MAX;

/// A key with the domains of all nodes.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// The label.
    pub(crate) symbol: Symbol,
    /// Whether nodes without the label count to the domain of the empty value, as the system's
    /// default spread constraints have it.
    missing_is_empty: bool,
    /// By node.
    domain_of: Vec<Domain>,
    /// The value and the number of nodes of each domain.
    domains: Vec<(Symbol, u32)>,
    by_value: FxHashMap<Symbol, Domain>,
    free: Vec<Domain>,
}

impl Key {
    /// A key as it is among these nodes.
    pub(crate) fn new(symbol: Symbol, missing_is_empty: bool, nodes: Nodes<'_>) -> Self {
        let mut key = Self {
            symbol,
            missing_is_empty,
            domain_of: Vec::new(),
            domains: Vec::new(),
            by_value: FxHashMap::default(),
            free: Vec::new(),
        };
        for (index, node) in nodes.known() {
            key.enter(index, node);
        }
        key
    }

    /// The domain of a node, if it has one.
    #[inline]
    pub(crate) fn domain(&self, node: NodeIndex) -> Option<Domain> {
        self.domain_of.get(node.get()).copied().filter(|domain| *domain != NONE)
    }

    /// The value that the nodes of a domain share.
    pub(crate) fn value(&self, domain: Domain) -> Symbol {
        self.domains[domain as usize].0
    }

    /// One more than the highest number of a domain.
    pub(crate) fn domains_end(&self) -> usize {
        self.domains.len()
    }

    fn enter(&mut self, index: NodeIndex, node: &NodeInfo) {
        let value = match label(&node.facts.labels, self.symbol) {
            Some(value) => value,
            None if self.missing_is_empty => Symbol::EMPTY,
            None => return,
        };
        let domain = match self.by_value.get(&value) {
            Some(domain) => *domain,
            None => {
                let domain = self.free.pop().unwrap_or_else(|| {
                    self.domains.push((value, 0));
                    Domain::try_from(self.domains.len() - 1)
                        .expect("invariant: there are fewer than 2^32 nodes")
                });
                self.domains[domain as usize] = (value, 0);
                self.by_value.insert(value, domain);
                domain
            }
        };
        self.domains[domain as usize].1 += 1;
        if self.domain_of.len() <= index.get() {
            self.domain_of.resize(index.get() + 1, NONE);
        }
        self.domain_of[index.get()] = domain;
    }

    fn leave(&mut self, index: NodeIndex) {
        let Some(domain) = self.domain(index) else { return };
        self.domain_of[index.get()] = NONE;
        let (value, nodes) = &mut self.domains[domain as usize];
        *nodes -= 1;
        if *nodes == 0 {
            self.by_value.remove(value);
            self.free.push(domain);
        }
    }
}

/// All keys that are kept track of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    keys: Vec<Key>,
    known: FxHashMap<(Symbol, bool), KeyId>,
}

impl Keys {
    pub(crate) fn get(&self, id: KeyId) -> &Key {
        &self.keys[id.0 as usize]
    }

    /// The id of a key, which is followed from now on.
    pub(super) fn intern(
        &mut self,
        symbol: Symbol,
        missing_is_empty: bool,
        nodes: Nodes<'_>,
    ) -> KeyId {
        if let Some(id) = self.known.get(&(symbol, missing_is_empty)) {
            return *id;
        }
        let key = Key::new(symbol, missing_is_empty, nodes);
        let id = KeyId(super::id(self.keys.len()));
        self.keys.push(key);
        self.known.insert((symbol, missing_is_empty), id);
        id
    }

    /// Whether any pod names this label as a topology key.
    pub(crate) fn follows(&self, symbol: Symbol) -> bool {
        self.known.contains_key(&(symbol, false)) || self.known.contains_key(&(symbol, true))
    }

    pub(super) fn enter(&mut self, index: NodeIndex, node: &NodeInfo) {
        self.keys.iter_mut().for_each(|key| key.enter(index, node));
    }

    pub(super) fn leave(&mut self, index: NodeIndex) {
        self.keys.iter_mut().for_each(|key| key.leave(index));
    }
}
