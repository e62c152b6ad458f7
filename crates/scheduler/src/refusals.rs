//! Who refused a pod: thousands of nodes, a handful of different refusals.

use smallvec::SmallVec;

use crate::plugins::Rejection;
use crate::snapshot::NodeIndex;

/// The nodes that refused a pod in the order in which they were asked, each with its refusal.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    kinds: Tally,
    /// Each node with the place of its refusal in the tally.
    nodes: Vec<(NodeIndex, u32)>,
}

/// How many nodes there are of each refusal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Each refusal once. So few that a search beats a map.
    kinds: SmallVec<[(Rejection, usize); 4]>,
}

impl Refusals {
    /// How many nodes refused.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none did.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Every node with its refusal.
    pub fn iter(&self) -> impl Iterator<Item = (NodeIndex, Rejection)> + '_ {
        self.nodes.iter().map(|(node, kind)| (*node, self.kinds.kinds[*kind as usize].0))
    }

    /// The nodes whose refusals are such.
    pub(crate) fn nodes(&self, such: impl Fn(Rejection) -> bool) -> Vec<NodeIndex> {
        let kinds: SmallVec<[bool; 4]> =
            self.kinds().map(|(rejection, _)| such(rejection)).collect();
        if !kinds.contains(&true) {
            return Vec::new();
        }
        let nodes = self.nodes.iter().filter(|(_, kind)| kinds[*kind as usize]);
        nodes.map(|(node, _)| *node).collect()
    }

    /// The different refusals, each with the number of nodes that gave it.
    pub fn kinds(&self) -> impl Iterator<Item = (Rejection, usize)> + '_ {
        self.kinds.iter()
    }

    pub(crate) fn push(&mut self, node: NodeIndex, rejection: Rejection) {
        let last = self.nodes.last().map_or(0, |(_, kind)| *kind as usize);
        let kind = self.kinds.add(rejection, 1, last);
        self.nodes.push((node, kind as u32));
    }

    /// Adds a node with the same refusal as the one before, if there is one before.
    pub(crate) fn push_again(&mut self, node: NodeIndex) {
        if let Some((_, kind)) = self.nodes.last().copied() {
            self.kinds.kinds[kind as usize].1 += 1;
            self.nodes.push((node, kind));
        }
    }
}

impl Tally {
    /// Counts nodes with a refusal, which may be the one in place `guess`; tells its place.
    pub(crate) fn add(&mut self, rejection: Rejection, nodes: usize, guess: usize) -> usize {
        let kind = match self.kinds.get(guess) {
            Some((known, _)) if *known == rejection => guess,
            _ => {
                self.kinds.iter().position(|(known, _)| *known == rejection).unwrap_or_else(|| {
                    self.kinds.push((rejection, 0));
                    self.kinds.len() - 1
                })
            }
        };
        self.kinds[kind].1 += nodes;
        kind
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Rejection, usize)> + '_ {
        self.kinds.iter().copied()
    }
}
