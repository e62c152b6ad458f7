//! Nodes that are there or on their way, as the solver sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Taint;
use wharf_model::requirements::Requirements;
use wharf_model::resources::Resources;

use crate::pod::Rung;
use crate::pool::untolerated;
use crate::terms::{HostPort, TopologyTerm};

/// A node that pods may be placed on: registered, or in flight with a launched NodeClaim.
#[derive(Clone, Debug)]
pub struct ExistingNode {
    /// The node's name, or its NodeClaim's while it has none.
    pub name: CompactString,
    /// Its NodeClaim's name; empty for a node that Karpenter does not manage.
    pub node_claim: CompactString,
    /// Its labels; of an unregistered one those its NodeClaim will give it.
    pub labels: BTreeMap<String, String>,
    /// The taints that keep pods away. While it is not initialized, startup and ephemeral taints
    /// are not among them: they will be gone.
    pub taints: Vec<Taint>,
    /// What is free: allocatable less its pods, less what its daemons have still to take.
    pub free: Resources,
    /// Whether it is ready for pods. Initialized nodes are tried first.
    pub initialized: bool,
    /// Whether it was busy a moment ago (within its pool's consolidateAfter), so that candidates'
    /// pods must not be moved here.
    pub settling: bool,
    /// The pods that are on it, for those that ask where others are.
    pub pods: Vec<ResidentPod>,
    /// The ports its pods have taken.
    pub ports: Vec<HostPort>,
}

/// A pod on a node, as other pods' terms see it.
#[derive(Clone, Debug)]
pub struct ResidentPod {
    /// Its namespace.
    pub namespace: CompactString,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The required anti-affinity that keeps others away from it.
    pub anti_affinity: Vec<Arc<TopologyTerm>>,
}

impl ExistingNode {
    /// Whether labels and taints let a pod in.
    pub(crate) fn admits(&self, rung: &Rung) -> bool {
        untolerated(&self.taints, &rung.tolerations).is_none() && self.satisfies(&rung.requirements)
    }

    /// Whether the labels satisfy requirements. A node has all the labels it will ever have, so one
    /// that is missing satisfies only NotIn and DoesNotExist.
    pub fn satisfies(&self, requirements: &Requirements) -> bool {
        labels_satisfy(&self.labels, requirements)
    }
}

/// Whether labels satisfy requirements; a missing label satisfies only NotIn and DoesNotExist.
pub fn labels_satisfy(labels: &BTreeMap<String, String>, requirements: &Requirements) -> bool {
    requirements.iter().all(|requirement| match labels.get(requirement.key.as_str()) {
        Some(value) => requirement.has(value),
        None => requirement.operator().is_negative(),
    })
}
