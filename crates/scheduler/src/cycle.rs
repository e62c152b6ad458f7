//! The scheduling cycle for one pod: filter, score, pick, or say why not.

mod extended;
mod found;

use std::cell::OnceCell;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::diagnosis::{Diagnosis, Unschedulable};
use crate::measure::{ExtensionPoint, Measure, Status};
use crate::memo::{Memo, Page, Verdict};
use crate::node::NodeInfo;
use crate::plugins::{
    Code, Filter, PreFilterRejection, Prepared, Rejection, Scorer, dynamic_resources, names,
};
use crate::pod::PodInfo;
use crate::preemption;
use crate::profile::{Plugin, PluginSet, Profile};
use crate::scores::Scores;
use crate::snapshot::{NodeIndex, Snapshot};
use crate::symbols::Symbol;

pub use extended::{Choice, Survey, Verdicts, Veto, conclude, survey};
use found::Found;

/// Clusters of fewer nodes are always looked at as a whole, and at least so many feasible nodes
/// are looked for in larger ones.
const MIN_FEASIBLE: usize = 100;
/// The lowest percentage of nodes that the adaptive rule looks for.
const MIN_PERCENTAGE: usize = 5;

/// Where the search for nodes begins. It moves on with every pod, so that all nodes get their turn
/// when only a sample is looked at. One for all profiles of a scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    start: usize,
}

impl Rotation {
    /// Where a search over another list begins.
    pub(crate) fn offset(self) -> usize {
        self.start
    }
}

/// What becomes of a pod.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It goes to a node.
    Bind(Placement),
    /// No node will do.
    Unschedulable(Box<Unschedulable>),
}

/// The node for a pod, and how it was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The node.
    pub node: NodeIndex,
    /// How many nodes were looked at.
    pub evaluated: usize,
    /// How many of them would do.
    pub feasible: usize,
    /// The best of those with their scores, best first, the chosen one leading. Empty when there
    /// was no choice: then nothing is scored.
    pub best: Vec<Candidate>,
}

/// A feasible node with its scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeIndex,
    /// The sum of the weighted scores.
    pub total: i64,
    /// Each scorer's score times its weight. Scorers that had nothing to say are left out.
    pub scores: SmallVec<[(Plugin, i64); 4]>,
}

/// Decides about one pod. The snapshot is not changed: who carries the decision out places the pod
/// in it.
pub fn schedule(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    rotation: &mut Rotation,
) -> Decision {
    decide(snapshot, pod, profile, rotation, None, &mut Measure::off())
}

/// Decides the same as [`schedule`], sooner: what nodes answer to pods of the same shape is
/// remembered from one decision to the next.
pub fn schedule_with(
    memo: &mut Memo,
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    rotation: &mut Rotation,
) -> Decision {
    decide(snapshot, pod, profile, rotation, Some(memo), &mut Measure::off())
}

/// Decides the same as [`schedule_with`], and takes the times of it.
pub fn schedule_measured(
    memo: &mut Memo,
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    rotation: &mut Rotation,
    measure: &mut Measure<'_>,
) -> Decision {
    decide(snapshot, pod, profile, rotation, Some(memo), measure)
}

fn decide(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    rotation: &mut Rotation,
    memo: Option<&mut Memo>,
    measure: &mut Measure<'_>,
) -> Decision {
    let all = snapshot.nodes();
    if all.is_empty() {
        return Decision::Unschedulable(Box::new(Unschedulable::no_nodes()));
    }
    let plan = match Plan::new(snapshot, pod, profile, measure) {
        Ok(plan) => plan,
        Err(rejection) => return refused_as_a_whole(rejection, snapshot, pod, profile, measure),
    };
    if let Some(node) = plan.nominated() {
        Found::one().tell(&plan.filters, measure);
        measure.point(ExtensionPoint::Filter, Status::Success);
        return Decision::Bind(Placement { node, evaluated: 1, feasible: 1, best: Vec::new() });
    }
    let mut page = memo.and_then(|memo| memo.page(&plan));
    let wanted = feasible_wanted(plan.nodes().len(), profile);
    let found = plan.filter(wanted, rotation, page.as_deref_mut(), measure);
    match found.feasible.as_slice() {
        [] => {
            let diagnosis =
                Diagnosis::new(all.len(), found.refusals, plan.outside(), plan.narrowed_by);
            refused_by_nodes(&plan, diagnosis, *rotation, page, measure)
        }
        [only] => Decision::Bind(Placement {
            node: *only,
            evaluated: found.evaluated,
            feasible: 1,
            best: Vec::new(),
        }),
        feasible => {
            let best = Scores::of(&plan, feasible, page.as_deref(), measure).best();
            Decision::Bind(Placement {
                node: best[0].node,
                evaluated: found.evaluated,
                feasible: feasible.len(),
                best,
            })
        }
    }
}

/// The PostFilter of DynamicResources, if the profile has it and it got to prepare for the pod.
fn tell_of_claims(
    answer: &mut Unschedulable,
    prepared: bool,
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
) {
    answer.tells_of_claims = profile.tells_of_claims;
    if profile.tells_of_claims && prepared {
        let (text, deallocate) =
            dynamic_resources::post_filter(pod, snapshot, &answer.diagnosis.rejected);
        answer.of_claims = Some(text);
        answer.deallocate = deallocate;
    }
}

/// The answer for a pod that was refused before any node was looked at.
fn refused_as_a_whole(
    rejection: PreFilterRejection,
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    measure: &mut Measure<'_>,
) -> Decision {
    measure.point(ExtensionPoint::PreFilter, rejection.code.into());
    let nodes = snapshot.nodes().len();
    let mut answer = Unschedulable::new(Diagnosis::rejected_as_a_whole(nodes, rejection), pod);
    let prepared = answer.diagnosis.plugins.contains(Plugin::DynamicResources);
    tell_of_claims(&mut answer, prepared, snapshot, pod, profile);
    if profile.preemption && (prepared || !profile.tells_of_claims) {
        preemption::without_nodes(pod, &mut answer);
    }
    measure.point(ExtensionPoint::PostFilter, Status::Unschedulable);
    Decision::Unschedulable(Box::new(answer))
}

/// The answer for a pod that every node refused.
fn refused_by_nodes(
    plan: &Plan<'_>,
    diagnosis: Diagnosis,
    rotation: Rotation,
    page: Option<&mut Page>,
    measure: &mut Measure<'_>,
) -> Decision {
    let point = ExtensionPoint::PostFilter;
    let mut answer = Unschedulable::new(diagnosis, plan.pod);
    measure.skip();
    let mut tell = || tell_of_claims(&mut answer, true, plan.snapshot, plan.pod, plan.profile);
    if plan.profile.tells_of_claims {
        measure.plugin(Plugin::DynamicResources, point, tell, |()| Status::Unschedulable);
    } else {
        tell();
    }
    if plan.profile.preemption {
        let make_room = || {
            preemption::post_filter(plan, &mut answer, rotation, page);
            answer.preemption.nomination.is_some()
        };
        measure.plugin(Plugin::DefaultPreemption, point, make_room, |made| made_room(*made));
    }
    measure.point(point, made_room(answer.preemption.nomination.is_some()));
    Decision::Unschedulable(Box::new(answer))
}

fn made_room(made: bool) -> Status {
    if made { Status::Success } else { Status::Unschedulable }
}

/// Whether one node would take a pod as things stand.
pub fn fits(snapshot: &Snapshot, pod: &PodInfo, profile: &Profile, node: &str) -> bool {
    let Some(node) = snapshot.find(node) else { return false };
    Plan::new(snapshot, pod, profile, &mut Measure::off()).is_ok_and(|plan| {
        plan.nodes.as_ref().is_none_or(|set| set.contains(&node)) && plan.check(node).is_none()
    })
}

/// What every node says to a pod, without sampling, choosing or preempting.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Set when the pod is refused before any node is looked at; then there is nothing else.
    pub prefilter: Option<PreFilterRejection>,
    /// All nodes in their order, each with its refusal.
    pub nodes: Vec<(NodeIndex, Option<Rejection>)>,
    /// The nodes that do not refuse, with their scores, in the same order.
    pub candidates: Vec<Candidate>,
}

/// Asks every node.
pub fn evaluate(snapshot: &Snapshot, pod: &PodInfo, profile: &Profile) -> Evaluation {
    let plan = match Plan::new(snapshot, pod, profile, &mut Measure::off()) {
        Ok(plan) => plan,
        Err(rejection) => {
            return Evaluation {
                prefilter: Some(rejection),
                nodes: Vec::new(),
                candidates: Vec::new(),
            };
        }
    };
    let nodes: Vec<_> = snapshot
        .nodes()
        .iter()
        .map(|node| {
            let outside = plan.nodes.as_ref().is_some_and(|set| !set.contains(node));
            let rejection = if outside {
                Some(Rejection::outside(plan.narrowed_by))
            } else {
                plan.check(*node)
            };
            (*node, rejection)
        })
        .collect();
    let feasible: Vec<_> =
        nodes.iter().filter(|(_, refused)| refused.is_none()).map(|(node, _)| *node).collect();
    let candidates = Scores::of(&plan, &feasible, None, &mut Measure::off()).all();
    Evaluation { prefilter: None, nodes, candidates }
}

/// The filters prepared for one pod.
pub(crate) struct Plan<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) pod: &'a PodInfo,
    pub(crate) profile: &'a Profile,
    pub(crate) filters: Filters<'a>,
    /// The only nodes to look at, in node order, if PreFilters narrow them.
    nodes: Option<Vec<NodeIndex>>,
    /// Whose PreFilters did.
    narrowed_by: PluginSet,
    /// The node on which room is being made for the pod.
    own_nomination: Option<NodeIndex>,
    /// Whether every filter is local to the node.
    local_only: bool,
    /// The local filters, when they are not all.
    local_filters: OnceCell<Filters<'a>>,
    /// The scorers that are local to the node, with their weights.
    local_scorers: OnceCell<Vec<(Plugin, i64, Scorer<'a>)>>,
}

/// The filters that have something to say of a pod, in their order.
pub(crate) type Filters<'a> = SmallVec<[Filter<'a>; 8]>;

impl<'a> Plan<'a> {
    /// PreFilter: prepares what the filters need and leaves out those with nothing to say.
    pub(crate) fn new(
        snapshot: &'a Snapshot,
        pod: &'a PodInfo,
        profile: &'a Profile,
        measure: &mut Measure<'_>,
    ) -> Result<Self, PreFilterRejection> {
        let mut filters = SmallVec::new();
        let mut names: Option<Vec<Symbol>> = None;
        let mut narrowed_by = PluginSet::default();
        let mut refused: Option<PreFilterRejection> = None;
        for plugin in &profile.filters {
            let prepare = || Filter::prepare(*plugin, pod, profile, snapshot);
            let point = ExtensionPoint::PreFilter;
            let prepared = match measure.plugin(*plugin, point, prepare, Prepared::status) {
                Ok(prepared) => prepared,
                // What evictions cannot mend ends the search at once; otherwise the other
                // plugins are still heard, since one of them may say so.
                Err(rejection) if rejection.code == Code::UnschedulableAndUnresolvable => {
                    return Err(rejection);
                }
                Err(rejection) => {
                    refused.get_or_insert(rejection);
                    Prepared::default()
                }
            };
            if prepared.filter.is_some() || prepared.nodes.is_some() {
                measure.answered(*plugin, point, 1);
            }
            filters.extend(prepared.filter);
            if let Some(set) = prepared.nodes {
                narrowed_by.insert(*plugin);
                names = Some(match names {
                    None => set,
                    Some(known) => {
                        known.into_iter().filter(|name| set.binary_search(name).is_ok()).collect()
                    }
                });
                if names.as_ref().is_some_and(Vec::is_empty) {
                    return Err(none_left(*plugin, narrowed_by));
                }
            }
        }
        if let Some(rejection) = refused {
            return Err(rejection);
        }
        let nodes = names.map(|names| in_node_order(&names, snapshot));
        measure.point(ExtensionPoint::PreFilter, Status::Success);
        let local_only = filters.iter().all(Filter::is_local);
        Ok(Self {
            snapshot,
            pod,
            profile,
            filters,
            nodes,
            narrowed_by,
            own_nomination: snapshot.nominated_to(&pod.uid),
            local_only,
            local_filters: OnceCell::new(),
            local_scorers: OnceCell::new(),
        })
    }

    /// The nodes that come into question, in node order.
    pub(crate) fn nodes(&self) -> &[NodeIndex] {
        self.nodes.as_deref().unwrap_or_else(|| self.snapshot.nodes())
    }

    /// Whether a node's answer depends on nothing but the node.
    pub(crate) fn local_only(&self) -> bool {
        self.local_only
    }

    /// The filters that look at nothing but the node.
    pub(crate) fn local_filters(&self) -> &[Filter<'a>] {
        if self.local_only {
            return &self.filters;
        }
        self.local_filters.get_or_init(|| {
            self.filters.iter().filter(|filter| filter.is_local()).cloned().collect()
        })
    }

    /// The scorers that look at nothing but the node, and have something to say, in their order.
    pub(crate) fn local_scorers(&self) -> &[(Plugin, i64, Scorer<'a>)] {
        self.local_scorers.get_or_init(|| {
            let prepare =
                |plugin| Scorer::prepare(plugin, self.pod, self.profile, self.snapshot, &[]);
            let local = self.profile.scores.iter();
            let local =
                local.filter(|(plugin, _)| Scorer::is_local(*plugin, self.pod, self.snapshot));
            local
                .filter_map(|(plugin, weight)| Some((*plugin, *weight, prepare(*plugin)?)))
                .collect()
        })
    }

    /// The node on which room was made for the pod, if it passes now.
    fn nominated(&self) -> Option<NodeIndex> {
        if self.pod.nominated_node.is_empty() {
            return None;
        }
        let node = self.snapshot.find(&self.pod.nominated_node)?;
        let inside = self.nodes.as_ref().is_none_or(|set| set.contains(&node));
        (inside && self.check(node).is_none()).then_some(node)
    }

    /// Looks at nodes in turn until as many will do as are wanted.
    fn filter(
        &self,
        wanted: usize,
        rotation: &mut Rotation,
        page: Option<&mut Page>,
        measure: &mut Measure<'_>,
    ) -> Found {
        let nodes = self.nodes();
        // A subset may be shorter than where the rotation stands among all nodes.
        let start = if nodes.is_empty() { 0 } else { rotation.start % nodes.len() };
        let turns = [&nodes[start..], &nodes[..start]];
        let mut found = Found::with_capacity(wanted.min(nodes.len()));
        match page {
            Some(page) if self.local_only => self.scan(turns, wanted, page, &mut found),
            Some(page) => {
                self.ask(turns, wanted, &mut found, |node| self.recall(node, page));
            }
            None => self.ask(turns, wanted, &mut found, |node| self.check(node)),
        }
        rotation.start = (rotation.start + found.evaluated) % self.snapshot.nodes().len();
        found.tell(&self.filters, measure);
        measure.point(ExtensionPoint::Filter, Status::Success);
        if let Some(first) = nodes.get(start).filter(|_| measure.is_sampled()) {
            self.time_filters(*first, measure);
            measure.skip();
        }
        found
    }

    /// Asks the filters about a node once more, for the time that each takes.
    fn time_filters(&self, node: NodeIndex, measure: &mut Measure<'_>) {
        let info = self.snapshot.node(node);
        for (filter, plugin) in self.filters.iter().map(|filter| (filter, filter.plugin())) {
            let status = |refused: &Option<Rejection>| {
                refused.map_or(Status::Success, |rejection| rejection.code.into())
            };
            let ask = || filter.check(node, info);
            if measure.plugin(plugin, ExtensionPoint::Filter, ask, status).is_some() {
                return;
            }
        }
    }

    fn ask(
        &self,
        turns: [&[NodeIndex]; 2],
        wanted: usize,
        found: &mut Found,
        mut check: impl FnMut(NodeIndex) -> Option<Rejection>,
    ) {
        for node in turns.into_iter().flatten() {
            found.evaluated += 1;
            match check(*node) {
                None => {
                    found.feasible.push(*node);
                    if found.feasible.len() == wanted {
                        return;
                    }
                }
                Some(rejection) => found.refuse(&[*node], rejection),
            }
        }
    }

    /// The same as [`Plan::ask`] for what a page remembers in full: nothing but a byte is looked at
    /// of most nodes, and neighbours that say the same are told of at once.
    fn scan(&self, turns: [&[NodeIndex]; 2], wanted: usize, page: &mut Page, found: &mut Found) {
        for nodes in turns {
            let mut at = 0;
            while let Some(node) = nodes.get(at) {
                let verdict = page.known(*node);
                if verdict == Verdict::UNKNOWN || self.own_nomination == Some(*node) {
                    at += 1;
                    found.evaluated += 1;
                    match self.recall(*node, page) {
                        None => found.feasible.push(*node),
                        Some(rejection) => found.refuse(&[*node], rejection),
                    }
                } else {
                    let open = wanted - found.feasible.len();
                    let most = if verdict == Verdict::FITS { open } else { nodes.len() };
                    let alike = |other: &&NodeIndex| {
                        page.known(**other) == verdict && self.own_nomination != Some(**other)
                    };
                    let run = nodes[at..].iter().take(most).take_while(alike).count();
                    let run = &nodes[at..at + run];
                    at += run.len();
                    found.evaluated += run.len();
                    if verdict == Verdict::FITS {
                        found.feasible.extend_from_slice(run);
                    } else {
                        found.refuse(run, page.rejection(verdict));
                    }
                }
                if found.feasible.len() == wanted {
                    return;
                }
            }
        }
    }

    /// The same answer as [`Plan::check`], from a page of the memo where that has it.
    #[inline]
    fn recall(&self, node: NodeIndex, page: &mut Page) -> Option<Rejection> {
        if self.is_apart(node) {
            let refused = self.check(node);
            if refused.is_none() {
                page.score(self, node);
            }
            return refused;
        }
        let refused = page.verdict(self, node);
        if self.local_only {
            return refused;
        }
        if refused.is_none() {
            let info = self.snapshot.node(node);
            let mut beyond = self.filters.iter().filter(|filter| !filter.is_local());
            return beyond.find_map(|filter| filter.check(node, info));
        }
        // The first filter that refuses is heard, be it local or not.
        for filter in &self.filters {
            match (filter.local(), refused) {
                (None, _) => {
                    let refused = filter.check(node, self.snapshot.node(node));
                    if refused.is_some() {
                        return refused;
                    }
                }
                (Some(plugin), Some(rejection)) if rejection.plugin == plugin => break,
                (Some(_), _) => {}
            }
        }
        refused
    }

    /// Whether nominations make the node's answer one that no other pod of the shape gets: the
    /// pod's own, or ones that filters beyond the node have to hear of.
    pub(crate) fn is_apart(&self, node: NodeIndex) -> bool {
        self.own_nomination == Some(node)
            || !self.local_only
                && self.snapshot.has_nominations()
                && self.snapshot.nominated_on(node, self.pod).next().is_some()
    }

    /// How many nodes are outside the set that the pod names.
    fn outside(&self) -> usize {
        self.nodes.as_ref().map_or(0, |set| self.snapshot.nodes().len() - set.len())
    }

    /// Whether a node refuses the pod, both as it is and with the pods of at least its priority
    /// for which room is being made there.
    pub(crate) fn check(&self, index: NodeIndex) -> Option<Rejection> {
        self.check_with(self.snapshot.node(index), index, &self.filters)
    }

    /// The same for a node and filters as a trial has changed them.
    pub(crate) fn check_with(
        &self,
        node: &NodeInfo,
        index: NodeIndex,
        filters: &[Filter<'a>],
    ) -> Option<Rejection> {
        if self.snapshot.has_nominations() {
            let mut nominated = self.snapshot.nominated_on(index, self.pod).peekable();
            if nominated.peek().is_some() {
                let refused = self.check_among(nominated, node, index, filters);
                if refused.is_some() {
                    return refused;
                }
            }
        }
        check(filters, index, node)
    }

    /// Whether the node refuses once these pods are there too.
    fn check_among<'n>(
        &self,
        nominated: impl Iterator<Item = &'n Arc<PodInfo>>,
        node: &NodeInfo,
        index: NodeIndex,
        filters: &[Filter<'a>],
    ) -> Option<Rejection> {
        let all_local = filters.iter().all(Filter::is_local);
        let listed = filters.iter().any(Filter::lists_pods);
        let mut node = if listed { node.clone() } else { node.without_pods() };
        if all_local {
            nominated.for_each(|pod| node.take_up(pod));
            return check(filters, index, &node);
        }
        let mut filters: Filters<'a> = filters.iter().cloned().collect();
        for pod in nominated {
            if listed {
                node.add(pod.clone());
            } else {
                node.take_up(pod);
            }
            filters.iter_mut().for_each(|filter| filter.pod_added(pod, index, &node));
        }
        check(&filters, index, &node)
    }
}

fn check(filters: &[Filter<'_>], index: NodeIndex, node: &NodeInfo) -> Option<Rejection> {
    filters.iter().find_map(|filter| filter.check(index, node))
}

/// The known nodes of these names, in node order.
fn in_node_order(names: &[Symbol], snapshot: &Snapshot) -> Vec<NodeIndex> {
    let symbols = snapshot.symbols();
    let mut nodes: Vec<_> =
        names.iter().filter_map(|name| snapshot.find(symbols.text(*name))).collect();
    // A pod of a DaemonSet names one node: then there is no order to keep, and the cost does not
    // grow with the cluster.
    if nodes.len() > 1 {
        nodes.sort_unstable();
        let wanted = nodes;
        let all = snapshot.nodes().iter().copied();
        nodes = all.filter(|node| wanted.binary_search(node).is_ok()).collect();
    }
    nodes
}

/// The refusal of a pod for which the PreFilters left no node over.
fn none_left(last: Plugin, narrowed_by: PluginSet) -> PreFilterRejection {
    let all = names(narrowed_by);
    PreFilterRejection {
        plugin: last,
        code: Code::UnschedulableAndUnresolvable,
        message: if narrowed_by.iter().count() == 1 {
            format!("node(s) didn't satisfy plugin {all}").into()
        } else {
            format!("node(s) didn't satisfy plugin(s) [{all}] simultaneously").into()
        },
    }
}

/// How many feasible nodes are enough among `nodes`.
fn feasible_wanted(nodes: usize, profile: &Profile) -> usize {
    if profile.scores.is_empty() {
        return 1;
    }
    sample(nodes, profile)
}

/// How many feasible nodes are enough to choose from.
fn sample(nodes: usize, profile: &Profile) -> usize {
    if nodes < MIN_FEASIBLE {
        return nodes;
    }
    let percentage = match profile.percentage_of_nodes_to_score {
        0 => 50_usize.saturating_sub(nodes / 125).max(MIN_PERCENTAGE),
        configured => configured.min(100) as usize,
    };
    (nodes * percentage / 100).max(MIN_FEASIBLE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, pod, sized};

    fn large(name: &str) -> k8s_openapi::api::core::v1::Node {
        sized(name, json!({"cpu": "4", "memory": "32Gi", "pods": "110"}))
    }

    #[test]
    fn the_sample_follows_the_table() {
        for (nodes, expected) in [
            (50, 50),
            (100, 100),
            (200, 100),
            (500, 230),
            (1000, 420),
            (2000, 680),
            (2500, 750),
            (5000, 500),
            (5625, 281),
            (15000, 750),
        ] {
            assert_eq!(feasible_wanted(nodes, &Profile::default()), expected, "{nodes}");
        }
        let all = Profile { percentage_of_nodes_to_score: 100, ..Profile::default() };
        assert_eq!(feasible_wanted(5000, &all), 5000);
        let none = Profile { scores: Vec::new(), ..Profile::default() };
        assert_eq!(feasible_wanted(5000, &none), 1);
    }

    #[test]
    fn an_empty_node_scores_as_upstream_has_it() {
        let nodes = [large("a"), large("b")];
        let asked = pod("p", json!({"cpu": "100m", "memory": "500Mi"}));
        let (snapshot, pod) = cluster(&nodes, &[], &asked);
        let mut rotation = Rotation::default();
        let Decision::Bind(placement) =
            schedule(&snapshot, &pod, &Profile::default(), &mut rotation)
        else {
            panic!("it fits")
        };
        assert_eq!(placement.best[0].total, 471);
        assert_eq!(snapshot.node(placement.node).facts.name, "a", "the first of the best");
        assert_eq!((placement.evaluated, placement.feasible), (2, 2));
    }

    #[test]
    fn the_search_goes_on_where_it_left_off() {
        let nodes: Vec<_> = (0..150).map(|index| large(&format!("n{index:03}"))).collect();
        let (snapshot, pod) = cluster(&nodes, &[], &pod("p", json!({"cpu": "1"})));
        let mut rotation = Rotation::default();
        let mut first = || match schedule(&snapshot, &pod, &Profile::default(), &mut rotation) {
            Decision::Bind(placement) => {
                assert_eq!((placement.evaluated, placement.feasible), (100, 100));
                snapshot.node(placement.node).facts.name.to_string()
            }
            Decision::Unschedulable(_) => panic!("it fits"),
        };
        assert_eq!([first(), first(), first()], ["n000", "n100", "n050"]);
    }

    #[test]
    fn a_single_feasible_node_is_taken_unscored_and_a_nominated_one_first() {
        let nodes = [large("a"), sized("b", json!({"cpu": "1", "memory": "32Gi", "pods": "110"}))];
        let mut asked = pod("p", json!({"cpu": "2"}));
        let (snapshot, info) = cluster(&nodes, &[], &asked);
        let decide = |snapshot: &Snapshot, pod: &PodInfo| {
            let mut rotation = Rotation::default();
            match schedule(snapshot, pod, &Profile::default(), &mut rotation) {
                Decision::Bind(placement) => placement,
                Decision::Unschedulable(_) => panic!("it fits"),
            }
        };
        let placement = decide(&snapshot, &info);
        assert!(placement.best.is_empty() && placement.evaluated == 2);
        asked.status = serde_json::from_value(json!({"nominatedNodeName": "c"})).ok();
        let (snapshot, info) = cluster(&[large("a"), large("b"), large("c")], &[], &asked);
        let placement = decide(&snapshot, &info);
        assert_eq!(snapshot.node(placement.node).facts.name, "c");
        assert_eq!(placement.evaluated, 1);
    }

    #[test]
    fn room_made_for_an_equal_is_kept_for_it() {
        let asked = pod("p", json!({"cpu": "3"}));
        let (mut snapshot, info) = cluster(&[large("a")], &[], &asked);
        let mut other = pod("other", json!({"cpu": "2"}));
        let nominated = snapshot.compile(&other);
        snapshot.nominate(nominated, "a");
        let mut rotation = Rotation::default();
        let profile = Profile::default();
        assert!(matches!(
            schedule(&snapshot, &info, &profile, &mut rotation),
            Decision::Unschedulable(_)
        ));
        other.spec.as_mut().unwrap().priority = Some(-1);
        let lower = snapshot.compile(&other);
        snapshot.nominate(lower, "a");
        assert!(matches!(schedule(&snapshot, &info, &profile, &mut rotation), Decision::Bind(_)));
    }
}
