//! Who refused a pod: thousands of nodes, a handful of different refusals.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::plugins::Rejection;
use crate::snapshot::NodeIndex;

/// The nodes that refused a pod in the order in which they were asked, each with its refusal.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    kinds: Tally,
    nodes: Vec<NodeIndex>,
    /// Neighbours with the same refusal, in the order of the nodes: nodes filled with the same pods
    /// say the same.
    runs: Vec<Run>,
}

/// Nodes one after the other with the same refusal.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// One more than the place of the last node.
    end: u32,
    /// The place of the refusal in the tally.
    kind: u32,
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
        self.runs().flat_map(|(kind, nodes)| {
            let (rejection, _) = self.kinds.kinds[kind];
            nodes.iter().map(move |node| (*node, rejection))
        })
    }

    /// The nodes whose refusals are such, one by one.
    pub(crate) fn all(&self, such: impl Fn(Rejection) -> bool) -> impl Iterator<Item = NodeIndex> {
        let kinds = self.choose(such);
        let runs = self.runs().filter(move |(kind, _)| kinds[*kind]);
        runs.flat_map(|(_, nodes)| nodes).copied()
    }

    /// The nodes whose refusals are such, in their order.
    pub(crate) fn nodes(&self, such: impl Fn(Rejection) -> bool) -> Cow<'_, [NodeIndex]> {
        let kinds = self.choose(such);
        if kinds.iter().all(|chosen| *chosen) {
            return Cow::Borrowed(&self.nodes);
        }
        let mut chosen = Vec::new();
        if kinds.contains(&true) {
            for (kind, nodes) in self.runs() {
                if kinds[kind] {
                    chosen.extend_from_slice(nodes);
                }
            }
        }
        Cow::Owned(chosen)
    }

    /// Whether a node's refusal is such.
    pub(crate) fn is_such(&self, node: NodeIndex, such: impl Fn(Rejection) -> bool) -> bool {
        let kinds = self.choose(such);
        kinds.contains(&true)
            && self.runs().any(|(kind, nodes)| kinds[kind] && nodes.contains(&node))
    }

    /// The different refusals, each with the number of nodes that gave it.
    pub fn kinds(&self) -> impl Iterator<Item = (Rejection, usize)> + '_ {
        self.kinds.iter()
    }

    pub(crate) fn push(&mut self, node: NodeIndex, rejection: Rejection) {
        self.extend(&[node], rejection);
    }

    /// Adds nodes with the same refusal.
    pub(crate) fn extend(&mut self, nodes: &[NodeIndex], rejection: Rejection) {
        let last = self.runs.last().map_or(0, |run| run.kind as usize);
        let kind = self.kinds.add(rejection, nodes.len(), last) as u32;
        self.nodes.extend_from_slice(nodes);
        let end = u32::try_from(self.nodes.len()).expect("invariant: fewer than 2^32 nodes");
        match self.runs.last_mut() {
            Some(run) if run.kind == kind => run.end = end,
            _ => self.runs.push(Run { end, kind }),
        }
    }

    /// Which kinds are such.
    fn choose(&self, such: impl Fn(Rejection) -> bool) -> SmallVec<[bool; 4]> {
        self.kinds().map(|(rejection, _)| such(rejection)).collect()
    }

    /// The runs, each with the place of its refusal in the tally.
    fn runs(&self) -> impl Iterator<Item = (usize, &[NodeIndex])> {
        let mut start = 0;
        self.runs.iter().map(move |run| {
            let begin = std::mem::replace(&mut start, run.end as usize);
            (run.kind as usize, &self.nodes[begin..start])
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::Code;
    use crate::profile::Plugin;

    fn refusal(detail: u64) -> Rejection {
        Rejection { plugin: Plugin::NodeResourcesFit, code: Code::Unschedulable, detail }
    }

    #[test]
    fn runs_tell_what_each_node_said() {
        let said = [0, 0, 1, 1, 1, 0, 2, 2, 0].map(refusal);
        let said: Vec<_> = (0..).map(NodeIndex::for_test).zip(said).collect();
        let mut one_by_one = Refusals::default();
        said.iter().for_each(|(node, rejection)| one_by_one.push(*node, *rejection));
        let mut in_parts = Refusals::default();
        for part in said.chunk_by(|(_, left), (_, right)| left == right) {
            let nodes: Vec<_> = part.iter().map(|(node, _)| *node).collect();
            in_parts.extend(&nodes, part[0].1);
        }
        for refusals in [one_by_one, in_parts] {
            assert_eq!(refusals.iter().collect::<Vec<_>>(), said);
            assert_eq!(refusals.len(), said.len());
            let kinds: Vec<_> = refusals.kinds().collect();
            assert_eq!(kinds, [(refusal(0), 4), (refusal(1), 3), (refusal(2), 2)]);
            for wanted in 0..4 {
                let such = |rejection: Rejection| rejection.detail == wanted;
                let expected: Vec<_> =
                    said.iter().filter(|(_, it)| such(*it)).map(|(node, _)| *node).collect();
                assert_eq!(*refusals.nodes(such), *expected);
                assert!(refusals.all(such).eq(expected));
                for (node, rejection) in &said {
                    assert_eq!(refusals.is_such(*node, such), such(*rejection));
                }
            }
            assert!(matches!(refusals.nodes(|_| true), Cow::Borrowed(all) if all.len() == 9));
        }
    }
}
