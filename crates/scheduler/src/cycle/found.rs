//! What became of looking for nodes.

use super::Filters;
use crate::measure::{ExtensionPoint, Measure};
use crate::plugins::Rejection;
use crate::profile::PLUGINS;
use crate::refusals::Refusals;
use crate::snapshot::NodeIndex;

/// The nodes that would do, and who refused the others.
pub(super) struct Found {
    pub(super) feasible: Vec<NodeIndex>,
    /// How many nodes were looked at.
    pub(super) evaluated: usize,
    /// Who refused, if nobody would do.
    pub(super) refusals: Refusals,
    /// How many nodes each plugin refused, whoever would do.
    refused: [usize; PLUGINS],
}

impl Found {
    /// Nothing yet, with room for so many nodes.
    pub(super) fn with_capacity(nodes: usize) -> Self {
        Self {
            feasible: Vec::with_capacity(nodes),
            evaluated: 0,
            refusals: Refusals::default(),
            refused: [0; PLUGINS],
        }
    }

    /// A node that was looked at by itself.
    pub(super) fn one() -> Self {
        Self { evaluated: 1, ..Self::with_capacity(0) }
    }

    /// Nodes refuse. Why is only told when nobody will do.
    #[inline]
    pub(super) fn refuse(&mut self, nodes: &[NodeIndex], rejection: Rejection) {
        self.refused[rejection.plugin as usize] += nodes.len();
        if self.feasible.is_empty() {
            self.refusals.extend(nodes, rejection);
        }
    }

    /// Tells about how many nodes each filter was heard: those that none before it refused.
    pub(super) fn tell(&self, filters: &Filters<'_>, measure: &mut Measure<'_>) {
        let mut left = self.evaluated;
        for plugin in filters.iter().map(|filter| filter.plugin()) {
            measure.answered(plugin, ExtensionPoint::Filter, left);
            left = left.saturating_sub(self.refused[plugin as usize]);
        }
    }
}
