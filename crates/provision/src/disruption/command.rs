//! What disruption wants done, as a value, with the words upstream's log uses for it.

use std::fmt::Write as _;

use wharf_model::karpenter::DisruptionReason;
use wharf_model::labels;
use wharf_model::money::Price;

use super::candidate::Candidate;
use crate::catalog::Catalog;
use crate::claim::PlannedClaim;

/// Nodes to give up, and what to put in their place first.
#[derive(Clone, Debug)]
pub struct Command {
    /// Why.
    pub reason: DisruptionReason,
    /// Which method found it (`empty`, `multi`, `single`; empty for drift), upstream's
    /// consolidation_type.
    pub consolidation_type: &'static str,
    /// The nodes.
    pub candidates: Vec<Candidate>,
    /// The nodes to launch before; none if the pods fit elsewhere.
    pub replacements: Vec<PlannedClaim>,
    /// What is saved: the candidates' prices less the cheapest the replacements can cost. Negative
    /// where a drifted node is replaced by a dearer one.
    pub savings: Price,
}

impl Command {
    /// `delete` or `replace`.
    pub fn decision(&self) -> &'static str {
        if self.replacements.is_empty() { "delete" } else { "replace" }
    }

    /// The number of pods that move.
    pub fn pod_count(&self) -> usize {
        self.candidates.iter().map(|candidate| candidate.pods.len()).sum()
    }

    /// The log line's text after `disrupting nodeclaim(s) via `, as releases up to 1.2 print it.
    /// `catalog` tells the catalogue of a pool by its index.
    pub fn describe<'c>(&self, catalog: impl Fn(usize) -> &'c Catalog) -> String {
        let mut text = format!(
            "{}, terminating {} nodes ({} pods) ",
            self.decision(),
            self.candidates.len(),
            self.pod_count()
        );
        for (index, candidate) in self.candidates.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let capacity_type = candidate.capacity_type.map_or("", |value| value.as_str());
            let _ = write!(
                text,
                "{separator}{}/{}/{capacity_type}",
                candidate.node, candidate.instance_type
            );
        }
        let Some(first) = self.replacements.first() else { return text };
        let types = type_list(first, catalog(first.pool));
        let allowing = |value: &str| {
            let allows =
                |claim: &&PlannedClaim| claim.requirements.allows(labels::CAPACITY_TYPE, value);
            self.replacements.iter().filter(allows).count()
        };
        let spot = allowing(labels::CAPACITY_TYPE_SPOT);
        let on_demand = allowing(labels::CAPACITY_TYPE_ON_DEMAND);
        if self.replacements.len() > 1 {
            let _ = write!(
                text,
                " and replacing with {spot} spot and {on_demand} on-demand, from types {types}"
            );
            return text;
        }
        let what = match (spot, on_demand) {
            (0, 0) => "node",
            (0, _) => "on-demand node",
            _ => "spot node",
        };
        let _ = write!(text, " and replacing with {what} from types {types}");
        text
    }
}

/// The first five types by name in price order, and how many more there are.
pub fn type_list(claim: &PlannedClaim, catalog: &Catalog) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> =
        claim.types.iter().take(SHOWN).map(|index| &*catalog.get(*index).name).collect();
    let mut text = shown.join(", ");
    if claim.types.len() > SHOWN {
        let _ = write!(text, " and {} other(s)", claim.types.len() - SHOWN);
    }
    text
}
