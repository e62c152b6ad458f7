//! PodTopologySpread: pods of a kind spread evenly over zones, nodes or other domains.
//!
//! `filter` keeps nodes where a required constraint (`DoNotSchedule`) would be broken; `score`
//! likes nodes where preferred ones (`ScheduleAnyway`) are met best. Here is what both start from:
//! the constraints of the pod, or the profile's defaults for a pod that has none.

mod filter;
mod hints;
mod score;

use std::borrow::Cow;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use smallvec::SmallVec;

pub(crate) use filter::{State, explain, reason};
pub(crate) use hints::{
    wakes_on_node, wakes_on_node_gone, wakes_on_pod, wakes_on_pod_change, wakes_on_self,
    wakes_on_workloads,
};
pub(crate) use score::{Scores, normalize};

use crate::pod::PodInfo;
use crate::profile::{Profile, SpreadDefaults};
use crate::selector::Selector;
use crate::snapshot::{NodeIndex, Snapshot};
use crate::symbols::Symbol;
use crate::topology::groups::Presence;
use crate::topology::keys::{Domain, Key};
use crate::topology::scopes::{Conditions, Scope};
use crate::topology::{
    Constraint, Counts, DomainCounts, Topology, honors_affinity, honors_taints, is_required,
    min_domains,
};

/// The greatest skew of the system's default constraints on nodes and on zones.
const DEFAULT_SKEW_NODES: i64 = 3;
const DEFAULT_SKEW_ZONES: i64 = 5;

/// A constraint with the counts that it is judged by.
#[derive(Clone)]
struct Rule<'a> {
    key: Cow<'a, Key>,
    selector: &'a Selector,
    max_skew: i64,
    min_domains: usize,
    counted: Counted<'a>,
    /// How many domains have a node that counts; only for required constraints.
    domains: usize,
    eligible: Eligible<'a>,
}

/// How many pods a constraint finds.
#[derive(Clone)]
enum Counted<'a> {
    ByDomain(Cow<'a, DomainCounts>),
    ByNode(Cow<'a, Counts>),
}

/// Which nodes count.
#[derive(Clone)]
enum Eligible<'a> {
    Scope(&'a Scope),
    /// By node.
    List(Vec<bool>),
}

impl Eligible<'_> {
    fn counts(&self, index: NodeIndex) -> bool {
        match self {
            Self::Scope(scope) => scope.counts(index),
            Self::List(nodes) => nodes.get(index.get()).copied().unwrap_or(false),
        }
    }
}

impl<'a> Rule<'a> {
    fn domain(&self, index: NodeIndex) -> Option<Domain> {
        self.key.domain(index)
    }
}

type Rules<'a> = SmallVec<[Rule<'a>; 2]>;

/// The pod's own constraints of one kind.
fn own_rules<'a>(pod: &'a PodInfo, required: bool, topology: &'a Topology) -> Rules<'a> {
    counted_rules(&pod.terms.constraints, required, topology)
}

/// Constraints of one kind that are counted.
fn counted_rules<'a>(
    constraints: &'a [Constraint],
    required: bool,
    topology: &'a Topology,
) -> Rules<'a> {
    constraints
        .iter()
        .filter(|constraint| constraint.required == required)
        .map(|constraint| {
            let scope = topology.scope(constraint.scope);
            Rule {
                key: Cow::Borrowed(topology.key(constraint.key)),
                selector: &constraint.selector,
                max_skew: constraint.max_skew,
                min_domains: constraint.min_domains,
                counted: match constraint.tally {
                    Some(tally) => Counted::ByDomain(Cow::Borrowed(&topology.tally(tally).counts)),
                    None => by_node(topology.by_node(constraint.matcher)),
                },
                domains: scope.domains(constraint.key),
                eligible: Eligible::Scope(scope),
            }
        })
        .collect()
}

/// The system's default constraints, if anything selects the pod. Both are preferred.
fn system_rules<'a>(pod: &PodInfo, topology: &'a Topology) -> Rules<'a> {
    let spreading = pod.terms.default.and_then(|id| topology.spreading(id));
    let Some(spreading) = spreading else { return Rules::new() };
    let rule = |key, max_skew, counted| Rule {
        key: Cow::Borrowed(topology.key(key)),
        selector: &spreading.selector,
        max_skew,
        min_domains: 1,
        counted,
        domains: 0,
        eligible: Eligible::List(Vec::new()),
    };
    let zones = &topology.tally(spreading.zones).counts;
    let nodes = by_node(topology.by_node(spreading.matcher));
    Rules::from_iter([
        rule(spreading.hostname, DEFAULT_SKEW_NODES, nodes),
        rule(spreading.zone, DEFAULT_SKEW_ZONES, Counted::ByDomain(Cow::Borrowed(zones))),
    ])
}

fn by_node(counts: Option<&Counts>) -> Counted<'_> {
    Counted::ByNode(counts.map_or_else(|| Cow::Owned(Counts::default()), Cow::Borrowed))
}

/// A profile's own default constraints of one kind.
fn listed_rules<'a>(
    pod: &PodInfo,
    listed: &[TopologySpreadConstraint],
    required: bool,
    snapshot: &'a Snapshot,
) -> Rules<'a> {
    let topology = snapshot.topology();
    match pod.terms.default.and_then(|id| topology.listed(id, listed)) {
        Some(constraints) => counted_rules(constraints, required, topology),
        None => visited_rules(pod, listed, required, snapshot),
    }
}

/// The same by a visit to every node, for a profile that was not compiled against the snapshot
/// before the pod was.
fn visited_rules<'a>(
    pod: &PodInfo,
    listed: &[TopologySpreadConstraint],
    required: bool,
    snapshot: &'a Snapshot,
) -> Rules<'a> {
    let listed = listed.iter().filter(|constraint| is_required(constraint) == required);
    let listed: SmallVec<[&TopologySpreadConstraint; 2]> = listed.collect();
    let selector = snapshot.default_selector(pod).filter(|_| !listed.is_empty());
    let Some(selector) = selector else { return Rules::new() };
    let symbols = snapshot.symbols();
    let keys: SmallVec<[Key; 2]> = listed
        .iter()
        .map(|constraint| {
            // A label that nobody has ever named is on no node, as is the empty one.
            let symbol = symbols.find(&constraint.topology_key).unwrap_or(Symbol::EMPTY);
            Key::new(symbol, false, snapshot.places())
        })
        .collect();
    let mut rules = Rules::new();
    for (constraint, key) in listed.iter().zip(&keys) {
        let conditions = Conditions {
            affinity: honors_affinity(constraint).then(|| pod.affinity.clone()),
            tolerations: honors_taints(constraint).then(|| pod.tolerations.clone()),
            ..Conditions::default()
        };
        let mut counts = DomainCounts::new(true);
        let mut nodes = Counts::default();
        let mut eligible = Vec::new();
        let mut with_nodes = vec![false; key.domains_end()];
        for index in snapshot.nodes() {
            let node = snapshot.node(*index);
            let Some(domain) = key.domain(*index) else { continue };
            let pods = node.pods.iter().filter(|other| {
                other.namespace == pod.namespace
                    && !other.terminating
                    && selector.matches(&other.labels, symbols)
            });
            let live = u32::try_from(pods.count()).unwrap_or(u32::MAX);
            nodes.add(index.number(), live);
            let has_all = keys.iter().all(|key| key.domain(*index).is_some());
            if !has_all || !conditions.admit(*index, node, snapshot.topology().keys(), symbols) {
                continue;
            }
            if eligible.len() <= index.get() {
                eligible.resize(index.get() + 1, false);
            }
            eligible[index.get()] = true;
            with_nodes[domain as usize] = true;
            counts.add(domain, Presence { all: live, live });
        }
        let counted_by_node = !required && constraint.topology_key == wharf_model::labels::HOSTNAME;
        rules.push(Rule {
            key: Cow::Owned(key.clone()),
            selector,
            max_skew: i64::from(constraint.max_skew),
            min_domains: min_domains(constraint),
            counted: if counted_by_node {
                Counted::ByNode(Cow::Owned(nodes))
            } else {
                Counted::ByDomain(Cow::Owned(counts))
            },
            domains: with_nodes.iter().filter(|has| **has).count(),
            eligible: Eligible::List(eligible),
        });
    }
    rules
}

/// The constraints of one kind that a pod is under, and whether a node without one of their keys
/// is left out of the scores.
fn rules<'a>(
    pod: &'a PodInfo,
    profile: &Profile,
    required: bool,
    snapshot: &'a Snapshot,
) -> (Rules<'a>, bool) {
    if !pod.terms.constraints.is_empty() {
        return (own_rules(pod, required, snapshot.topology()), true);
    }
    match &profile.arguments.spread_defaults {
        SpreadDefaults::System if required => (Rules::new(), false),
        SpreadDefaults::System => (system_rules(pod, snapshot.topology()), false),
        SpreadDefaults::List(listed) => (listed_rules(pod, listed, required, snapshot), true),
    }
}

#[cfg(test)]
mod tests;
