//! What provisioning must know of a pod: how much it asks for, where it may go, and in which order
//! its preferences are given up.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{NodeSelectorTerm, PodSpec, Toleration};
use wharf_model::object::ObjectKey;
use wharf_model::requirements::{Malformed, Requirements};
use wharf_model::resources::Resources;
use wharf_model::taints;
use wharf_model::time::Time;

use crate::terms::{HostPort, TopologyKind, TopologyTerm};

/// A pod that needs a place.
#[derive(Clone, Debug)]
pub struct PodRequest {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Uid; the last tie-breaker of the queue.
    pub uid: CompactString,
    /// When it was created.
    pub created: Time,
    /// What it asks for, its own pod slot included.
    pub requests: Resources,
    /// Its labels, by which other pods' terms select it.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Where it may go. Shared by the pods of one template.
    pub constraints: Arc<Constraints>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a pod that needs a place comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It waits for a node.
    Pending,
    /// Its node is being deleted already, so any place is better.
    Deleting,
    /// Its node is a candidate for disruption, so it must not be moved to a node that is not ready
    /// or that was busy a moment ago.
    Candidate,
}

/// Where a pod may go, as its template says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Constraints {
    /// The node selector.
    pub selector: Requirements,
    /// The terms of the required node affinity, of which one must hold; empty without one.
    pub required: Vec<Requirements>,
    /// The preferred node affinity: weight and term.
    pub preferred: Vec<(i32, Requirements)>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// What it asks of other pods.
    pub topology: Vec<Arc<TopologyTerm>>,
    /// The node's ports that it takes.
    pub ports: Vec<HostPort>,
}

/// One form of a pod's constraints, between all its preferences and the bare requirements.
#[derive(Clone, Debug, PartialEq)]
pub struct Rung {
    /// What the node must be.
    pub requirements: Requirements,
    /// What the node must be at least: without preferences.
    pub strict: Requirements,
    /// Which taints it may have.
    pub tolerations: Vec<Toleration>,
    /// What is asked of other pods; preferences that are not given up yet are among it.
    pub topology: Vec<Arc<TopologyTerm>>,
}

impl Constraints {
    /// The constraints of a pod spec: node selector, node affinity, tolerations and host ports. What
    /// it asks of other pods is [`TopologyTerm::of_pod`].
    ///
    /// # Errors
    /// If a term is malformed, which the API server does not let through.
    pub fn of(spec: &PodSpec) -> Result<Self, Malformed> {
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity
            .and_then(|affinity| {
                affinity.required_during_scheduling_ignored_during_execution.as_ref()
            })
            .map_or(&[][..], |selector| &selector.node_selector_terms);
        let preferred = affinity
            .and_then(|affinity| {
                affinity.preferred_during_scheduling_ignored_during_execution.as_deref()
            })
            .unwrap_or_default();
        Ok(Self {
            selector: Requirements::from_labels(spec.node_selector.iter().flatten()),
            required: required.iter().map(term_requirements).collect::<Result<_, _>>()?,
            preferred: preferred
                .iter()
                .map(|term| Ok((term.weight, term_requirements(&term.preference)?)))
                .collect::<Result<_, _>>()?,
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            topology: Vec::new(),
            ports: HostPort::of_pod(spec),
        })
    }

    /// The forms in the order in which they are tried (upstream's relaxation order): as written;
    /// then without the first required node term, as long as another remains; then without the
    /// heaviest preference, one by one, for pod affinity, then pod anti-affinity, then node
    /// affinity; then without each ScheduleAnyway; last, where `soft_taints` says that some pool has
    /// one, tolerating every PreferNoSchedule taint.
    pub fn ladder(&self, soft_taints: bool) -> Vec<Rung> {
        let mut preferred: Vec<&(i32, Requirements)> = self.preferred.iter().collect();
        // A stable sort: of equal weights the first written counts.
        preferred.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        let last_term = self.required.len().saturating_sub(1);
        let mut topology = self.topology.clone();
        let mut rungs = vec![self.rung(0, preferred.first(), &topology)];
        let terms = 1..=last_term;
        rungs.extend(terms.map(|term| self.rung(term, preferred.first(), &topology)));
        for kind in [TopologyKind::Affinity, TopologyKind::AntiAffinity] {
            while let Some(heaviest) = heaviest_preference(&topology, |term| term.kind == kind) {
                topology.remove(heaviest);
                rungs.push(self.rung(last_term, preferred.first(), &topology));
            }
        }
        let forms = 1..=preferred.len();
        rungs.extend(forms.map(|from| self.rung(last_term, preferred.get(from), &topology)));
        while let Some(anyway) = heaviest_preference(&topology, TopologyTerm::is_spread) {
            topology.remove(anyway);
            rungs.push(self.rung(last_term, None, &topology));
        }
        if soft_taints {
            let mut last = self.rung(last_term, None, &topology);
            last.tolerations.push(tolerate_soft_taints());
            rungs.push(last);
        }
        rungs
    }

    /// The constraints without preferences.
    pub fn without_preferences(&self) -> Self {
        let mut bare = self.clone();
        bare.preferred.clear();
        bare.topology.retain(|term| term.preference.is_none());
        bare
    }

    fn rung(
        &self,
        term: usize,
        preferred: Option<&&(i32, Requirements)>,
        topology: &[Arc<TopologyTerm>],
    ) -> Rung {
        let mut strict = self.selector.clone();
        strict.extend(self.required.get(term).into_iter().flat_map(|term| term.iter().cloned()));
        let mut requirements = strict.clone();
        requirements
            .extend(preferred.into_iter().flat_map(|(_, preferred)| preferred.iter().cloned()));
        let topology = topology.to_vec();
        Rung { requirements, strict, tolerations: self.tolerations.clone(), topology }
    }
}

/// The position of the heaviest preference of a kind; of equal weights the first written.
fn heaviest_preference(
    topology: &[Arc<TopologyTerm>],
    is_meant: impl Fn(&TopologyTerm) -> bool,
) -> Option<usize> {
    let weight = |at: usize| topology[at].preference.filter(|_| is_meant(&topology[at]));
    let weights = (0..topology.len()).filter_map(|at| Some((weight(at)?, std::cmp::Reverse(at))));
    weights.max().map(|(_, std::cmp::Reverse(at))| at)
}

/// The toleration of every PreferNoSchedule taint.
pub fn tolerate_soft_taints() -> Toleration {
    Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some(taints::PREFER_NO_SCHEDULE.to_owned()),
        ..Toleration::default()
    }
}

/// The order in which pods are placed: most cpu first, then most memory, then oldest, then by uid.
pub fn queue_order(left: &PodRequest, right: &PodRequest) -> Ordering {
    (right.requests.cpu_milli.cmp(&left.requests.cpu_milli))
        .then_with(|| right.requests.memory_bytes.cmp(&left.requests.memory_bytes))
        .then_with(|| left.created.truncate_to_second().cmp(&right.created.truncate_to_second()))
        .then_with(|| left.uid.cmp(&right.uid))
}

fn term_requirements(term: &NodeSelectorTerm) -> Result<Requirements, Malformed> {
    Requirements::from_node_selector_requirements(term.match_expressions.iter().flatten())
}
