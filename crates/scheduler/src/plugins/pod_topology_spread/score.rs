//! Preferred constraints: the fewer matching pods in a node's domains, the better. A domain's count
//! weighs the more, the more domains there are.

use smallvec::SmallVec;
use wharf_model::labels;

use super::{Counted, Rule, rules};
use crate::node::NodeInfo;
use crate::plugins::MAX_SCORE;
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::{NodeIndex, Snapshot};
use crate::symbols::{Symbol, label};

/// The raw score of a node that is left out of the scores.
const LEFT_OUT: i64 = -1;

/// The scorer for one pod and the nodes that passed the filters.
pub(crate) struct Scores<'a> {
    rules: SmallVec<[(Rule<'a>, f64); 2]>,
    /// Whether nodes without one of the keys are left out.
    needs_all_keys: bool,
}

impl<'a> Scores<'a> {
    pub(crate) fn new(
        pod: &'a PodInfo,
        profile: &Profile,
        snapshot: &'a Snapshot,
        feasible: &[NodeIndex],
    ) -> Option<Self> {
        let (rules, needs_all_keys) = rules(pod, profile, false, snapshot);
        if rules.is_empty() {
            return None;
        }
        let hostname = snapshot.symbols().find(labels::HOSTNAME);
        let mut seen: SmallVec<[Vec<u64>; 2]> =
            rules.iter().map(|rule| vec![0; rule.key.domains_end() / 64 + 1]).collect();
        let mut sizes: SmallVec<[usize; 2]> = rules.iter().map(|_| 0).collect();
        let mut nodes = 0_usize;
        for index in feasible {
            if needs_all_keys && rules.iter().any(|rule| rule.domain(*index).is_none()) {
                continue;
            }
            nodes += 1;
            for ((rule, seen), size) in rules.iter().zip(&mut seen).zip(&mut sizes) {
                if let Some(domain) = rule.domain(*index) {
                    let (word, bit) = (&mut seen[domain as usize / 64], 1 << (domain % 64));
                    *size += usize::from(*word & bit == 0);
                    *word |= bit;
                }
            }
        }
        let rules = rules.into_iter().zip(sizes).map(|(rule, size)| {
            let by_name = Some(rule.key.symbol) == hostname;
            let size = if by_name { nodes } else { size };
            (rule, ((size + 2) as f64).ln())
        });
        Some(Self { rules: rules.collect(), needs_all_keys })
    }

    #[inline]
    pub(crate) fn score(&self, index: NodeIndex, node: &NodeInfo) -> i64 {
        let mut score = 0.0;
        for (rule, weight) in &self.rules {
            let Some(domain) = rule.domain(index) else {
                if self.needs_all_keys {
                    return LEFT_OUT;
                }
                continue;
            };
            // Nodes without a zone count to the zone without a name, but are not in it.
            if !self.needs_all_keys
                && rule.key.value(domain) == Symbol::EMPTY
                && label(&node.facts.labels, rule.key.symbol).is_none()
            {
                continue;
            }
            let count = match &rule.counted {
                Counted::ByDomain(counts) => counts.get(domain),
                Counted::ByNode(counts) => i64::from(counts.get(index.number())),
            };
            score += count as f64 * weight + (rule.max_skew - 1) as f64;
        }
        score.round() as i64
    }
}

/// Brings raw scores into 0 to [`MAX_SCORE`], the least first; nodes left out get nothing.
pub(crate) fn normalize(scores: &mut [i64]) {
    let scored = scores.iter().copied().filter(|score| *score != LEFT_OUT);
    let (least, most) =
        scored.fold((i64::MAX, 0), |(least, most), score| (least.min(score), most.max(score)));
    for score in scores {
        *score = match *score {
            LEFT_OUT => 0,
            _ if most == 0 => MAX_SCORE,
            raw => MAX_SCORE * (most + least - raw) / most,
        };
    }
}
