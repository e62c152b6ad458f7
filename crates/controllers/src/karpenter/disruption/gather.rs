//! The candidates of a pass: which nodes may be disrupted, and how many.

use std::collections::BTreeMap;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use wharf_model::karpenter::conditions::{self, Conditioned, node_claim};
use wharf_model::karpenter::{DisruptionReason, NodePool};
use wharf_model::labels;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::controller::Step;
use wharf_ports::view::View;
use wharf_provision::catalog::Catalog;
use wharf_provision::disruption::budget::{PoolNodes, allowed};
use wharf_provision::disruption::candidate::{
    Blocked, Candidate, NodeFacts, PodBlock, Skip, blocked,
};
use wharf_provision::disruption::consolidate::{Allowances, PoolTotals};
use wharf_provision::disruption::cost::Cost;
use wharf_provision::pod::Origin;

use super::super::pods::{self, Budgets, Requests};
use super::super::snapshot::{Snapshot, StateNode, is_node_ready};
use super::DisruptionController;

/// The candidates of one pass, and what was found out on the way.
pub(super) struct Candidates {
    pub(super) graceful: Vec<Candidate>,
    pub(super) eventual: Vec<Candidate>,
    pub(super) totals: BTreeMap<CompactString, PoolTotals>,
    /// Whether some node is blocked by something that passes without a change of objects.
    pub(super) passing: bool,
}

impl DisruptionController {
    /// Which nodes may be disrupted; tells of those that may not.
    pub(super) fn candidates(
        &self,
        snapshot: &Snapshot<'_>,
        view: &View,
        requests: &mut Requests<'_>,
        now: Time,
        step: &mut Step,
    ) -> Candidates {
        let budgets = Budgets::of(view);
        let mut found = Candidates {
            graceful: Vec::new(),
            eventual: Vec::new(),
            totals: BTreeMap::new(),
            passing: false,
        };
        self.shared.memory().forget_nominations(now);
        for node in snapshot.nodes.iter().filter(|node| node.claim.is_some()) {
            let pool = view.get_cluster::<NodePool>(node.pool_name());
            let catalog = snapshot
                .pools
                .iter()
                .find(|ready| ready.pool.metadata.name.as_deref() == Some(node.pool_name()))
                .map(|ready| &ready.catalog);
            let facts = self.facts(node, pool.is_some() && catalog.is_some(), &budgets, now);
            let eventual =
                node.claim.is_some_and(|claim| claim.spec.termination_grace_period.is_some());
            let graceful = blocked(&facts, false);
            if let (Some(pool), Some(catalog)) = (pool, catalog) {
                let candidate = candidate(node, pool, catalog, requests);
                let totals = found.totals.entry(candidate.pool.clone()).or_default();
                totals.add(candidate.price, candidate.cost);
                if blocked(&facts, eventual).is_none() {
                    found.eventual.push(candidate.clone());
                }
                if graceful.is_none() {
                    found.graceful.push(candidate);
                }
            }
            if let Some(why) = graceful {
                found.passing |= matches!(why, Blocked::Nominated | Blocked::Pod(_));
                self.tell_blocked(node, &why, now, step);
            }
        }
        for candidate in &found.graceful {
            let skips = [candidate.skip_emptiness(), candidate.skip_consolidation()];
            for skip in skips.into_iter().flatten() {
                if let Skip::Tell(message) = skip {
                    self.tell_unconsolidatable(candidate, &message, view, now, step);
                }
            }
        }
        found
    }

    fn facts(
        &self,
        node: &StateNode<'_>,
        pool_exists: bool,
        budgets: &Budgets<'_>,
        now: Time,
    ) -> NodeFacts {
        let forbids = |annotations: Option<&BTreeMap<String, String>>| {
            annotations
                .and_then(|map| map.get(labels::DO_NOT_DISRUPT))
                .is_some_and(|value| value == "true")
        };
        let of_claim = node.claim.and_then(|claim| claim.metadata.annotations.as_ref());
        let of_node = node.node.and_then(|node| node.metadata.annotations.as_ref());
        let mut blocks = Vec::new();
        for pod in &node.pods {
            if pods::forbids_disruption(pod, now) {
                blocks.push(PodBlock::DoNotDisrupt(ObjectKey::of(&pod.metadata)));
            } else if pods::is_reschedulable(pod) {
                blocks.extend(budgets.against(pod));
            }
        }
        NodeFacts {
            has_node: node.node.is_some(),
            initialized: node.is_initialized(),
            deleting: node.deleting,
            nominated: self.shared.memory().is_nominated(node.claim_name(), now),
            do_not_disrupt: forbids(of_claim) || forbids(of_node),
            pool: node.pool_name().into(),
            pool_exists,
            pods: blocks,
        }
    }
}

/// How many nodes of each pool may be disrupted for a reason.
pub(super) fn allowances(
    snapshot: &Snapshot<'_>,
    view: &View,
    reason: DisruptionReason,
    now: Time,
) -> Allowances {
    let nodes = pool_nodes(snapshot);
    view.list::<NodePool>()
        .map(|pool| {
            let name = pool.metadata.name.as_deref().unwrap_or_default();
            let nodes = nodes.get(name).copied().unwrap_or_default();
            let budgets = pool.spec.disruption.budgets();
            (name.into(), allowed(Some(&budgets), reason, nodes, now))
        })
        .collect()
}

/// The nodes of each pool, as budgets count them.
pub(super) fn pool_nodes<'s>(snapshot: &'s Snapshot<'_>) -> BTreeMap<&'s str, PoolNodes> {
    let mut nodes: BTreeMap<&str, PoolNodes> = BTreeMap::new();
    for node in &snapshot.nodes {
        let Some(claim) = node.claim.filter(|_| node.is_initialized()) else { continue };
        if claim.is_true(node_claim::INSTANCE_TERMINATING) {
            continue;
        }
        let count = nodes.entry(node.pool_name()).or_default();
        count.total += 1;
        let ready = node.node.is_some_and(is_node_ready);
        count.unavailable += u32::from(!ready || node.deleting);
    }
    nodes
}

fn candidate(
    node: &StateNode<'_>,
    pool: &NodePool,
    catalog: &Catalog,
    requests: &mut Requests<'_>,
) -> Candidate {
    let instance_type = node.label(labels::INSTANCE_TYPE).unwrap_or_default();
    let capacity_type = node.label(labels::CAPACITY_TYPE).and_then(|text| text.parse().ok());
    let zone = node.label(labels::TOPOLOGY_ZONE);
    let price = capacity_type
        .zip(zone)
        .and_then(|(capacity_type, zone)| catalog.node_price(instance_type, capacity_type, zone));
    let moving: Vec<&&Pod> = node.pods.iter().filter(|pod| pods::is_reschedulable(pod)).collect();
    let drifted = node
        .claim
        .and_then(|claim| {
            let conditions = claim.conditions();
            conditions::get(conditions, node_claim::DRIFTED)
        })
        .filter(|condition| condition.status == "True")
        .map(|condition| Time::from(&condition.last_transition_time));
    Candidate {
        node: node.name().into(),
        node_claim: node.claim_name().into(),
        pool: node.pool_name().into(),
        instance_type: instance_type.into(),
        type_known: catalog.find(instance_type).is_some(),
        capacity_type,
        zone: zone.map(Into::into),
        price: price.unwrap_or_default(),
        cost: Cost::of_rescheduling(moving.iter().map(|pod| pods::eviction_cost(pod))),
        pods: moving.iter().filter_map(|pod| requests.of(pod, Origin::Candidate)).collect(),
        consolidatable: node.claim.is_some_and(|claim| claim.is_true(node_claim::CONSOLIDATABLE)),
        drifted_since: drifted,
        static_pool: pool.spec.is_static(),
        consolidates: pool.spec.disruption.consolidate_after().is_some(),
        policy: pool.spec.disruption.consolidation_policy(),
    }
}
