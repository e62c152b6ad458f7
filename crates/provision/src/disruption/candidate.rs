//! Which nodes may be disrupted at all, and what is known of those that may.

use std::fmt;

use compact_str::CompactString;
use wharf_model::instance_type::CapacityType;
use wharf_model::karpenter::ConsolidationPolicy;
use wharf_model::labels;
use wharf_model::money::Price;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;

use super::cost::Cost;
use crate::pod::PodRequest;

/// What decides whether a node may be disrupted, gathered by the caller.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// Whether the NodeClaim has a node.
    pub has_node: bool,
    /// Whether the node is initialized.
    pub initialized: bool,
    /// Whether it is being deleted or a command has taken it.
    pub deleting: bool,
    /// Whether a pending pod is expected on it.
    pub nominated: bool,
    /// Whether node or NodeClaim carry `karpenter.sh/do-not-disrupt: "true"`.
    pub do_not_disrupt: bool,
    /// Its pool's name, and whether there is such a pool.
    pub pool: CompactString,
    /// Whether there is such a pool and its instance types are known.
    pub pool_exists: bool,
    /// Pods that stand in the way, in order, each with why.
    pub pods: Vec<PodBlock>,
}

/// A pod that stands in the way of its node's disruption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodBlock {
    /// It carries an active do-not-disrupt annotation.
    DoNotDisrupt(ObjectKey),
    /// A budget allows no eviction now.
    Pdb(ObjectKey),
    /// Several budgets cover it, which the eviction API refuses.
    MultiplePdbs(Vec<ObjectKey>),
}

/// Why a node may not be disrupted; the texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// No node yet.
    NoNode,
    /// Not initialized.
    NotInitialized,
    /// Deleting, or taken by a command.
    Deleting,
    /// Nominated for a pending pod.
    Nominated,
    /// The node's own annotation.
    Annotation,
    /// Its pool is gone, or sells nothing.
    PoolNotFound(CompactString),
    /// A pod.
    Pod(PodBlock),
}

/// Whether a node may be disrupted. With `eventual` (drift of a node whose termination grace period
/// will end every wait) pods do not stand in the way.
pub fn blocked(facts: &NodeFacts, eventual: bool) -> Option<Blocked> {
    if !facts.has_node {
        return Some(Blocked::NoNode);
    }
    if !facts.initialized {
        return Some(Blocked::NotInitialized);
    }
    if facts.deleting {
        return Some(Blocked::Deleting);
    }
    if facts.nominated {
        return Some(Blocked::Nominated);
    }
    if facts.do_not_disrupt {
        return Some(Blocked::Annotation);
    }
    if !facts.pool_exists {
        return Some(Blocked::PoolNotFound(facts.pool.clone()));
    }
    if eventual { None } else { facts.pods.first().cloned().map(Blocked::Pod) }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let annotation = labels::DO_NOT_DISRUPT;
        match self {
            Self::NoNode => f.write_str("Nodeclaim does not have an associated node"),
            Self::NotInitialized => f.write_str("Node isn't initialized"),
            Self::Deleting => f.write_str("Node is deleting or marked for deletion"),
            Self::Nominated => f.write_str("Node is nominated for a pending pod"),
            Self::Annotation => {
                write!(f, "Disruption is blocked through the \"{annotation}\" annotation")
            }
            Self::PoolNotFound(pool) => write!(f, "NodePool not found (NodePool={pool})"),
            Self::Pod(PodBlock::DoNotDisrupt(pod)) => {
                write!(f, "Pod has \"{annotation}\" annotation (Pod={pod})")
            }
            Self::Pod(PodBlock::Pdb(pdb)) => {
                write!(f, "Pdb prevents pod evictions (PodDisruptionBudget={pdb})")
            }
            Self::Pod(PodBlock::MultiplePdbs(pdbs)) => {
                let pdbs: Vec<String> = pdbs.iter().map(ToString::to_string).collect();
                let pdbs = pdbs.join(" ");
                write!(f, "Eviction does not support multiple PDBs (PodDisruptionBudget=[{pdbs}])")
            }
        }
    }
}

/// A node that may be disrupted.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The node's name.
    pub node: CompactString,
    /// Its NodeClaim's name.
    pub node_claim: CompactString,
    /// Its pool's name.
    pub pool: CompactString,
    /// Its instance type.
    pub instance_type: CompactString,
    /// Whether its pool's node class still knows the type.
    pub type_known: bool,
    /// How it is paid for, if the label is there.
    pub capacity_type: Option<CapacityType>,
    /// Its zone, if the label is there.
    pub zone: Option<CompactString>,
    /// What it costs; zero if that is not known.
    pub price: Price,
    /// What moving its pods costs.
    pub cost: Cost,
    /// The pods that need another place, as [`Origin::Candidate`](crate::pod::Origin::Candidate).
    pub pods: Vec<PodRequest>,
    /// Whether its NodeClaim's Consolidatable condition is True.
    pub consolidatable: bool,
    /// Since when it has drifted.
    pub drifted_since: Option<Time>,
    /// Whether its pool has a fixed number of nodes.
    pub static_pool: bool,
    /// Whether its pool consolidates at all (`consolidateAfter` is not `Never`).
    pub consolidates: bool,
    /// Its pool's policy.
    pub policy: ConsolidationPolicy,
}

/// Why consolidation passes a node over; `None` in [`Candidate::skip_consolidation`]'s answer means
/// silently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// To be told in an Unconsolidatable event.
    Tell(String),
    /// Nothing to tell.
    Silent,
}

impl Candidate {
    /// Whether it has no pods whose move counts.
    pub fn is_empty(&self) -> bool {
        self.cost.is_empty_node()
    }

    /// Why emptiness passes this node over; `None` if it takes it.
    pub fn skip_emptiness(&self) -> Option<Skip> {
        if self.static_pool {
            return Some(Skip::Silent);
        }
        if !self.consolidates {
            return Some(self.disabled());
        }
        (!self.is_empty() || !self.consolidatable).then_some(Skip::Silent)
    }

    /// Why consolidation of used nodes passes this node over; `None` if it takes it.
    pub fn skip_consolidation(&self) -> Option<Skip> {
        if self.static_pool {
            return Some(Skip::Silent);
        }
        let missing = |key: &str| Some(Skip::Tell(format!("Node does not have label \"{key}\"")));
        if !self.type_known {
            let name = &self.instance_type;
            return Some(Skip::Tell(format!("Instance Type \"{name}\" not found")));
        }
        if self.capacity_type.is_none() {
            return missing(labels::CAPACITY_TYPE);
        }
        if self.zone.is_none() {
            return missing(labels::TOPOLOGY_ZONE);
        }
        if !self.consolidates {
            return Some(self.disabled());
        }
        if self.is_empty() {
            return Some(Skip::Silent);
        }
        if self.policy == ConsolidationPolicy::WhenEmpty {
            let pool = &self.pool;
            return Some(Skip::Tell(format!(
                "NodePool \"{pool}\" has consolidation policy WhenEmpty, but node is not empty"
            )));
        }
        (!self.consolidatable).then_some(Skip::Silent)
    }

    fn disabled(&self) -> Skip {
        Skip::Tell(format!("NodePool \"{}\" has consolidation disabled", self.pool))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> NodeFacts {
        NodeFacts {
            has_node: true,
            initialized: true,
            pool: "default".into(),
            pool_exists: true,
            ..NodeFacts::default()
        }
    }

    #[test]
    fn blocking_reasons_read_as_upstreams() {
        let key = ObjectKey::namespaced("default", "web");
        let with = |block: PodBlock| NodeFacts { pods: vec![block], ..facts() };
        let table = [
            (
                NodeFacts { has_node: false, ..facts() },
                "Nodeclaim does not have an associated node",
            ),
            (NodeFacts { initialized: false, ..facts() }, "Node isn't initialized"),
            (NodeFacts { deleting: true, ..facts() }, "Node is deleting or marked for deletion"),
            (NodeFacts { nominated: true, ..facts() }, "Node is nominated for a pending pod"),
            (
                NodeFacts { do_not_disrupt: true, ..facts() },
                "Disruption is blocked through the \"karpenter.sh/do-not-disrupt\" annotation",
            ),
            (NodeFacts { pool_exists: false, ..facts() }, "NodePool not found (NodePool=default)"),
            (
                with(PodBlock::DoNotDisrupt(key.clone())),
                "Pod has \"karpenter.sh/do-not-disrupt\" annotation (Pod=default/web)",
            ),
            (
                with(PodBlock::Pdb(key.clone())),
                "Pdb prevents pod evictions (PodDisruptionBudget=default/web)",
            ),
        ];
        for (facts, expected) in table {
            let text = blocked(&facts, false).map(|blocked| blocked.to_string());
            assert_eq!(text.as_deref(), Some(expected));
        }
        assert_eq!(blocked(&facts(), false), None);
        assert_eq!(blocked(&with(PodBlock::Pdb(key)), true), None);
    }
}
