//! The cluster as provisioning and disruption see it: NodeClaims with their nodes and pods, and the
//! pools that may launch more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use wharf_model::karpenter::conditions::{self, Conditioned, node_claim};
use wharf_model::karpenter::{NodeClaim, NodePool};
use wharf_model::labels;
use wharf_model::requirements::{Requirement, Requirements};
use wharf_model::resources::Resources;
use wharf_model::taints;
use wharf_model::time::Time;
use wharf_ports::view::View;
use wharf_provision::catalog::Catalog;
use wharf_provision::disruption::drift::quiet_at;
use wharf_provision::node::ExistingNode;
use wharf_provision::pool::{NODES, Pool};
use wharf_provision::solve::{PACKING, PACKING_SHARE, Packing, Settings, Solver};
use wharf_provision::terms::HostPort;

use super::class::NodeClass;
use super::daemons::Daemons;
use super::pods;
use super::shared::Shared;

/// A NodeClaim with its node, or a node without a NodeClaim.
pub(super) struct StateNode<'v> {
    /// The NodeClaim; none for a node that Karpenter does not manage.
    pub(super) claim: Option<&'v NodeClaim>,
    /// The node; none while it has not joined.
    pub(super) node: Option<&'v Node>,
    /// Whether it is being deleted, or a command has taken it.
    pub(super) deleting: bool,
    /// The pods bound to it that have not ended.
    pub(super) pods: Vec<&'v Pod>,
}

/// A pool that may launch nodes, with its node class and what that sells.
pub(super) struct ReadyPool<'v> {
    pub(super) pool: &'v NodePool,
    pub(super) catalog: Arc<Catalog>,
}

/// The cluster at one moment.
pub(super) struct Snapshot<'v> {
    view: &'v View,
    daemons: Daemons<'v>,
    pub(super) nodes: Vec<StateNode<'v>>,
    pub(super) pools: Vec<ReadyPool<'v>>,
}

impl<'v> StateNode<'v> {
    /// The node's name, or the NodeClaim's while there is none.
    pub(super) fn name(&self) -> &'v str {
        let node = self.node.and_then(|node| node.metadata.name.as_deref());
        node.unwrap_or_else(|| self.claim_name())
    }

    /// The NodeClaim's name; empty for a node that Karpenter does not manage.
    pub(super) fn claim_name(&self) -> &'v str {
        self.claim.and_then(|claim| claim.metadata.name.as_deref()).unwrap_or_default()
    }

    /// Whether the NodeClaim has found its node; true for unmanaged nodes.
    fn is_registered(&self) -> bool {
        self.claim.is_none_or(|claim| claim.is_true(node_claim::REGISTERED))
    }

    /// Whether it is ready for pods.
    pub(super) fn is_initialized(&self) -> bool {
        self.node.is_some() && self.claim.is_none_or(|claim| claim.is_true(node_claim::INITIALIZED))
    }

    /// The labels: the node's own once it is registered, until then those it will get.
    pub(super) fn labels(&self) -> Option<&'v BTreeMap<String, String>> {
        match (self.node, self.claim) {
            (Some(node), _) if self.is_registered() => node.metadata.labels.as_ref(),
            (_, Some(claim)) => claim.metadata.labels.as_ref(),
            (node, None) => node.and_then(|node| node.metadata.labels.as_ref()),
        }
    }

    /// A label's value.
    pub(super) fn label(&self, key: &str) -> Option<&'v str> {
        self.labels()?.get(key).map(String::as_str)
    }

    /// The pool's name.
    pub(super) fn pool_name(&self) -> &'v str {
        self.label(labels::NODEPOOL).unwrap_or_default()
    }

    /// The taints that count: until it is initialized not the startup taints, and not those that go
    /// away by themselves.
    fn taints(&self) -> Vec<Taint> {
        let of_node = || self.node.and_then(|node| node.spec.as_ref()?.taints.clone());
        let Some(claim) = self.claim else { return of_node().unwrap_or_default() };
        let mut taints = match self.is_registered() {
            true => of_node().unwrap_or_default(),
            false => claim.spec.taints.clone(),
        };
        if !self.is_initialized() {
            taints.retain(|taint| {
                let startup = &claim.spec.startup_taints;
                !taints::is_ephemeral(taint)
                    && !startup.iter().any(|other| taints::same_taint(other, taint))
            });
        }
        taints
    }

    /// What the machine has.
    pub(super) fn capacity(&self) -> Resources {
        let reported = self.node.and_then(|node| node.status.as_ref()?.capacity.as_ref());
        self.reported_or_expected(reported, |claim| &claim.status.capacity)
    }

    fn allocatable(&self) -> Resources {
        let reported = self.node.and_then(|node| node.status.as_ref()?.allocatable.as_ref());
        self.reported_or_expected(reported, |claim| &claim.status.allocatable)
    }

    /// What the node reports; until it is initialized, what the NodeClaim expects stands in for what
    /// is missing (devices whose driver has not started).
    fn reported_or_expected(
        &self,
        reported: Option<
            &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
        >,
        expected: impl Fn(
            &NodeClaim,
        )
            -> &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    ) -> Resources {
        let mut amounts = reported.map(Resources::from_map).unwrap_or_default();
        if let Some(claim) = self.claim.filter(|_| !self.is_initialized()) {
            for (name, amount) in Resources::from_map(expected(claim)).iter() {
                if amounts.get(name) == 0 {
                    amounts.set(name, amount);
                }
            }
        }
        amounts
    }

    /// When the node will have been quiet for its pool's consolidateAfter; `None` if it never counts
    /// as quiet.
    pub(super) fn quiet_at(&self, pool: &NodePool) -> Option<Time> {
        claim_quiet_at(self.claim?, pool)
    }

    /// The node as the solver sees it; `residents` says whether its pods matter to others.
    fn existing(
        &self,
        settling: bool,
        residents: bool,
        daemons: &Daemons<'_>,
        view: &View,
    ) -> ExistingNode {
        let taints = self.taints();
        let labels = self.labels().cloned().unwrap_or_default();
        let mut free = self.allocatable();
        free.subtract(&daemons.still_to_come(self.name(), &labels, &taints, &self.pods));
        for pod in &self.pods {
            free.subtract(&pods::usage(pod));
        }
        ExistingNode {
            name: self.name().into(),
            node_claim: self.claim_name().into(),
            labels,
            taints,
            free,
            initialized: self.is_initialized(),
            settling,
            pods: match residents {
                true => self.pods.iter().map(|pod| pods::resident(pod, view)).collect(),
                false => Vec::new(),
            },
            ports: self
                .pods
                .iter()
                .filter_map(|pod| pod.spec.as_ref())
                .flat_map(HostPort::of_pod)
                .collect(),
        }
    }
}

/// When a NodeClaim's node will have been quiet for its pool's consolidateAfter; `None` if it is not
/// initialized or the pool does not consolidate.
pub(super) fn claim_quiet_at(claim: &NodeClaim, pool: &NodePool) -> Option<Time> {
    let after = pool.spec.disruption.consolidate_after()?;
    let initialized = conditions::get(&claim.status.conditions, node_claim::INITIALIZED)
        .filter(|condition| condition.status == conditions::TRUE)?;
    let last = claim.status.last_pod_event_time.as_ref().map(Time::from);
    Some(quiet_at(Time::from(&initialized.last_transition_time), last, after))
}

impl<'v> Snapshot<'v> {
    /// Gathers the cluster from the view.
    pub(super) fn gather(shared: &Shared, view: &'v View, now: Time) -> Self {
        let marked = shared.memory().marked.clone();
        Self {
            view,
            daemons: Daemons::of(view),
            nodes: state_nodes(view, &marked),
            pools: ready_pools(shared, view, now),
        }
    }

    /// Whether every NodeClaim that is to stay has a machine: until then what is on its way is not
    /// known, and planning would count it twice or not at all.
    pub(super) fn is_synced(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.claim.is_none_or(|claim| {
                !claim.status.provider_id.is_empty() || claim.metadata.deletion_timestamp.is_some()
            })
        })
    }

    /// A solver over the nodes that stay. In a simulation of disruption (`settle`) nodes that were
    /// busy a moment ago take no pods of candidates.
    pub(super) fn solver(&self, shared: &Shared, settle: bool, now: Time) -> Solver {
        let policies: BTreeMap<&str, &NodePool> = self
            .pools
            .iter()
            .map(|ready| (ready.pool.metadata.name.as_deref().unwrap_or_default(), ready.pool))
            .collect();
        let settling = |node: &StateNode<'_>| {
            let quiet = policies.get(node.pool_name()).and_then(|pool| node.quiet_at(pool));
            settle && quiet.is_some_and(|quiet| now < quiet)
        };
        let residents = self.view.list::<Pod>().any(pods::asks_of_others);
        let existing = self
            .nodes
            .iter()
            .filter(|node| !node.deleting)
            .map(|node| node.existing(settling(node), residents, &self.daemons, self.view))
            .collect();
        let pools = self.pools.iter().map(|ready| self.pool(ready)).collect();
        let packing = self.packing(shared.settings.solver.packing);
        Solver::new(pools, existing, Settings { packing, ..shared.settings.solver })
    }

    /// How pods are packed: as the pools' annotations say. Pods may go to any pool, so there is one
    /// answer for all: if pools differ, the cheaper way; the smallest share.
    fn packing(&self, otherwise: Packing) -> Packing {
        let annotated = |name: &'static str| {
            self.pools.iter().filter_map(move |ready| {
                ready.pool.metadata.annotations.as_ref()?.get(name).map(String::as_str)
            })
        };
        let shares = annotated(PACKING_SHARE)
            .filter_map(|text| text.trim_end_matches('%').parse().ok())
            .filter(|percent| (1..=100).contains(percent));
        let cost = Packing::Cost { share_percent: shares.min().unwrap_or(100) };
        match annotated(PACKING).filter(|text| matches!(*text, "cost" | "upstream")).min() {
            Some("cost") => cost,
            Some(_) => Packing::Upstream,
            None => otherwise,
        }
    }

    fn pool(&self, ready: &ReadyPool<'_>) -> Pool {
        let pool = ready.pool;
        let name = pool.metadata.name.as_deref().unwrap_or_default();
        Pool {
            name: name.into(),
            weight: pool.spec.weight.unwrap_or(0),
            catalog: Arc::clone(&ready.catalog),
            requirements: pool_requirements(pool),
            taints: pool.spec.template.spec.taints.clone(),
            remaining: self.remaining(pool, name),
            daemons: self.daemons.for_pool(),
        }
    }

    /// What is left of a pool's limits: only resources that are limited.
    fn remaining(&self, pool: &NodePool, name: &str) -> Vec<(CompactString, i64)> {
        let limits = Resources::from_map(&pool.spec.limits);
        let of_pool = || {
            self.nodes
                .iter()
                .filter(|node| !node.deleting && node.claim.is_some() && node.pool_name() == name)
        };
        let capacities: Vec<Resources> = of_pool().map(StateNode::capacity).collect();
        pool.spec
            .limits
            .keys()
            .map(|resource| {
                let used: i64 = if resource == NODES {
                    i64::try_from(capacities.len()).unwrap_or(i64::MAX)
                } else {
                    let amounts = capacities.iter().map(|capacity| capacity.get(resource));
                    // A node may say that it has the largest amount there is.
                    amounts.fold(0, i64::saturating_add)
                };
                (resource.as_str().into(), limits.get(resource).saturating_sub(used))
            })
            .collect()
    }
}

/// What a pool asks of its nodes. A malformed requirement, which validation reports, is left out.
pub(super) fn pool_requirements(pool: &NodePool) -> Requirements {
    pool.template_requirements()
        .iter()
        .filter_map(|entry| {
            Requirement::parse(&entry.key, &entry.operator, &entry.values, entry.min_values).ok()
        })
        .collect()
}

/// Every NodeClaim with its node, and every node without a NodeClaim.
pub(super) fn state_nodes<'v>(
    view: &'v View,
    marked: &BTreeSet<CompactString>,
) -> Vec<StateNode<'v>> {
    let mut claimed: BTreeSet<&str> = BTreeSet::new();
    let mut nodes = Vec::new();
    for claim in view.list::<NodeClaim>() {
        let node = node_of_claim(view, claim);
        let name = node.and_then(|node| node.metadata.name.as_deref());
        claimed.extend(name);
        let claim_name = claim.metadata.name.as_deref().unwrap_or_default();
        nodes.push(StateNode {
            claim: Some(claim),
            node,
            deleting: claim.metadata.deletion_timestamp.is_some()
                || node.is_some_and(|node| node.metadata.deletion_timestamp.is_some())
                || marked.contains(claim_name),
            pods: name.map(|name| live_pods(view, name)).unwrap_or_default(),
        });
    }
    for node in view.list::<Node>() {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if claimed.contains(name) {
            continue;
        }
        nodes.push(StateNode {
            claim: None,
            node: Some(node),
            deleting: node.metadata.deletion_timestamp.is_some(),
            pods: live_pods(view, name),
        });
    }
    nodes
}

/// The node with a NodeClaim's provider id.
pub(super) fn node_of_claim<'v>(view: &'v View, claim: &NodeClaim) -> Option<&'v Node> {
    let provider_id = claim.status.provider_id.as_str();
    if provider_id.is_empty() {
        return None;
    }
    view.nodes_with_provider_id(provider_id).find_map(|object| object.typed::<Node>())
}

/// The NodeClaim of a node: the one it names as owner, else the one with its provider id.
pub(super) fn claim_of_node<'v>(view: &'v View, node: &Node) -> Option<&'v NodeClaim> {
    let owner = node.metadata.owner_references.iter().flatten().find(|o| o.kind == "NodeClaim");
    if let Some(owner) = owner {
        return view.get_cluster::<NodeClaim>(&owner.name);
    }
    let provider_id = node.spec.as_ref()?.provider_id.as_deref()?;
    view.list::<NodeClaim>().find(|claim| claim.status.provider_id == provider_id)
}

fn live_pods<'v>(view: &'v View, node: &str) -> Vec<&'v Pod> {
    view.pods_on(node)
        .filter_map(|object| object.typed::<Pod>())
        .filter(|pod| !pods::is_terminal(pod))
        .collect()
}

/// The dynamic pools that are ready and not being deleted.
fn ready_pools<'v>(shared: &Shared, view: &'v View, now: Time) -> Vec<ReadyPool<'v>> {
    view.list::<NodePool>()
        .filter(|pool| {
            pool.metadata.deletion_timestamp.is_none() && !pool.spec.is_static() && pool.is_ready()
        })
        .filter_map(|pool| {
            let class = class_of(view, pool)?;
            let catalog = match asks_in_foreign_words(pool, class) {
                // Nothing has such a label: no type will do.
                true => Arc::new(Catalog::new(Vec::new())),
                false => shared.instance_types(class, now),
            };
            Some(ReadyPool { pool, catalog })
        })
        .collect()
}

/// Whether a pool of Auto Mode asks for labels of self-managed Karpenter's, which no machine of Auto
/// Mode has.
fn asks_in_foreign_words(pool: &NodePool, class: NodeClass<'_>) -> bool {
    let is_foreign = |key: &str| labels::domain(key) == labels::KARPENTER_AWS_DOMAIN;
    let requirements = pool_requirements(pool);
    class.is_auto()
        && requirements
            .iter()
            .any(|asked| is_foreign(&asked.key) && !asked.operator().is_negative())
}

/// The node class that a pool names.
pub(super) fn class_of<'v>(view: &'v View, pool: &NodePool) -> Option<NodeClass<'v>> {
    NodeClass::of(view, &pool.spec.template.spec.node_class_ref)
}

/// Whether a node reports that it is ready.
pub(super) fn is_node_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
