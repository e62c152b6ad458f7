//! DefaultPreemption: which pods of lower priority would have to go, and on which node, for a pod
//! that no node will take.

use std::cmp::Reverse;
use std::sync::Arc;

use wharf_model::time::Time;

use crate::cycle::{Filters, Plan, Rotation};
use crate::diagnosis::{Unschedulable, sentence, texts};
use crate::measure::Measure;
use crate::memo::Page;
use crate::node::NodeInfo;
use crate::plugins::{Code, Filter, Rejection};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::refusals::{Refusals, Tally};
use crate::snapshot::{Budget, NodeIndex, Snapshot};

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const POLICY_NEVER: &str = "not eligible due to preemptionPolicy=Never.";
const VICTIMS_LEAVING: &str = "not eligible due to a terminating pod on the nominated node.";

/// A node and the pods that have to leave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Nomination {
    /// The node.
    pub node: NodeIndex,
    /// The pods, most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them a disruption budget would have kept.
    pub violations: usize,
}

/// What evictions on a node would bring.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// There is nobody to evict.
    NoVictims,
    /// The pod would not fit even then.
    Refused(Rejection),
    /// Room, at this cost.
    Room(Cost),
}

/// By what candidates are chosen: each field decides only among equals of those before it, and the
/// first candidate in order wins in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost {
    violations: usize,
    /// The highest priority of a victim.
    highest: i32,
    /// The sum of the victims' priorities, none of which counts as negative.
    priorities: i64,
    victims: usize,
    /// When the first of the most important victims started: better late than early.
    earliest: Reverse<Option<Time>>,
}

/// Looks for room and adds what came of it to the answer.
pub(crate) fn post_filter(
    plan: &Plan<'_>,
    answer: &mut Unschedulable,
    rotation: Rotation,
    page: Option<&mut Page>,
) {
    if let Some(reason) = not_eligible(plan, answer) {
        answer.preemption.message = Some(reason.to_owned());
        answer.preemption.keeps_nomination = true;
        return;
    }
    let mut best: Option<(Cost, NodeIndex)> = None;
    let found = |node, cost| {
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, node));
        }
    };
    let tried = search(plan, &answer.diagnosis.rejected, rotation.offset(), page, found);
    if let Some((_, best)) = best {
        // A candidate's victims are found once more, rather than kept for all of them.
        answer.preemption.nomination = victims(&mut Trial::new(plan), best).ok();
        return;
    }
    // Where only an extender objects, every pod would be let back: nobody is in the way.
    let vetoes = answer.diagnosis.vetoes.values();
    let without_victims = tried.without_victims + vetoes.filter(|veto| !veto.unresolvable).count();
    let nodes = answer.diagnosis.nodes;
    let refused: usize = tried.refused.iter().map(|(_, nodes)| nodes).sum();
    let mut reasons = texts(tried.refused.iter(), plan.pod);
    let hopeless = nodes - without_victims - refused;
    for (text, count) in [(NO_VICTIMS, without_victims), (NOT_HELPFUL, hopeless)] {
        if count > 0 {
            reasons.insert(text.into(), count);
        }
    }
    answer.preemption.message = Some(sentence(nodes, reasons));
}

/// The same for a pod that was refused before any node was looked at: then no node is one where
/// evictions could help. With DynamicResources in the profile it never comes to this, since that
/// plugin ends the search for room.
pub(crate) fn without_nodes(pod: &PodInfo, answer: &mut Unschedulable) {
    if !pod.preempts {
        answer.preemption.message = Some(POLICY_NEVER.to_owned());
        return;
    }
    let nodes = answer.diagnosis.nodes;
    answer.preemption.message = Some(sentence(nodes, [(NOT_HELPFUL.into(), nodes)].into()));
}

fn not_eligible(plan: &Plan<'_>, answer: &Unschedulable) -> Option<&'static str> {
    let pod = plan.pod;
    if !pod.preempts {
        return Some(POLICY_NEVER);
    }
    let nominated = plan.snapshot.find(&pod.nominated_node)?;
    // A node that can never take the pod is given up, whoever is leaving it.
    let hopeless = answer
        .diagnosis
        .rejected
        .is_such(nominated, |rejection| rejection.code == Code::UnschedulableAndUnresolvable);
    let leaving = plan
        .snapshot
        .node(nominated)
        .pods
        .iter()
        .any(|other| other.priority < pod.priority && other.terminating && other.preempted);
    (!hopeless && leaving).then_some(VICTIMS_LEAVING)
}

/// Where else, or at whose cost, room could be made for a pod than `answer` says: every candidate
/// that was compared, in the order in which they were tried. For extenders, which have a say in
/// which of them it is. `rotation` is the one with which the answer was found, as it was left.
pub fn candidates(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    rotation: Rotation,
    answer: &Unschedulable,
) -> Vec<Nomination> {
    let plan = Plan::new(snapshot, pod, profile, &mut Measure::off());
    let Ok(plan) = plan else { return Vec::new() };
    let mut nodes = Vec::new();
    let found = |node, _| nodes.push(node);
    search(&plan, &answer.diagnosis.rejected, rotation.offset(), None, found);
    let mut trial = Trial::new(&plan);
    nodes.into_iter().filter_map(|node| victims(&mut trial, node).ok()).collect()
}

/// The place of the cheapest among sets of victims, each with the number of disruption budgets it
/// breaks; the first of equals. The victims of each are expected to begin with the most important.
pub fn cheapest<'v>(
    candidates: impl Iterator<Item = (&'v [Arc<PodInfo>], usize)>,
) -> Option<usize> {
    let costs = candidates.map(|(victims, violations)| Cost::of(victims, violations));
    costs.enumerate().min_by_key(|(_, cost)| *cost).map(|(place, _)| place)
}

/// What came of trying nodes.
#[derive(Default)]
struct Tried {
    without_victims: usize,
    /// Why evictions would not do, for the other nodes without room.
    refused: Tally,
}

/// Tries nodes until there are enough candidates to choose from, and tells each candidate.
fn search(
    plan: &Plan<'_>,
    rejected: &Refusals,
    offset: usize,
    mut page: Option<&mut Page>,
    mut candidate: impl FnMut(NodeIndex, Cost),
) -> Tried {
    let mut tried = Tried::default();
    let potential = rejected.nodes(|rejection| rejection.code == Code::Unschedulable);
    if potential.is_empty() {
        return tried;
    }
    let profile = plan.profile;
    let wanted = (potential.len() * profile.min_candidate_nodes_percentage / 100)
        .max(profile.min_candidate_nodes_absolute)
        .min(potential.len());
    let offset = offset % potential.len();
    let mut trial = Trial::new(plan);
    let mut found = 0;
    let mut clean = false;
    for node in potential[offset..].iter().chain(&potential[..offset]) {
        let outcome = match &mut page {
            Some(page) if plan.local_only() && !plan.is_apart(*node) => {
                page.outcome(*node, || outcome(&mut trial, *node))
            }
            _ => outcome(&mut trial, *node),
        };
        match outcome {
            Outcome::Room(cost) => {
                found += 1;
                clean |= cost.violations == 0;
                candidate(*node, cost);
                if clean && found >= wanted {
                    break;
                }
            }
            Outcome::Refused(rejection) => {
                tried.refused.add(rejection, 1, 0);
            }
            Outcome::NoVictims => tried.without_victims += 1,
        }
    }
    tried
}

fn outcome(trial: &mut Trial<'_, '_>, node: NodeIndex) -> Outcome {
    match victims(trial, node) {
        Ok(Nomination { victims, violations, .. }) => Outcome::Room(Cost::of(&victims, violations)),
        Err(None) => Outcome::NoVictims,
        Err(Some(rejection)) => Outcome::Refused(rejection),
    }
}

impl Cost {
    fn of(victims: &[Arc<PodInfo>], violations: usize) -> Self {
        let highest = victims.first().map_or(i32::MIN, |pod| pod.priority);
        Self {
            violations,
            highest,
            priorities: victims.iter().map(|pod| i64::from(pod.priority) + (1 << 31)).sum(),
            victims: victims.len(),
            earliest: Reverse(
                victims.iter().filter(|pod| pod.priority == highest).map(|pod| pod.started).min(),
            ),
        }
    }
}

/// A node and its filters as a trial changes them. One serves node after node: the filters are
/// copied once, and what a trial has changed in them is taken back before the next.
struct Trial<'p, 'a> {
    plan: &'p Plan<'a>,
    filters: Filters<'a>,
    /// Whether a filter looks through the node's pods.
    listed: bool,
    /// Whether the filters are as they were.
    clean: bool,
}

/// A node in a trial.
struct Tested {
    index: NodeIndex,
    node: NodeInfo,
}

impl<'p, 'a> Trial<'p, 'a> {
    fn new(plan: &'p Plan<'a>) -> Self {
        let listed = plan.filters.iter().any(Filter::lists_pods);
        Self { plan, filters: plan.filters.clone(), listed, clean: true }
    }

    fn begin(&mut self, index: NodeIndex) -> Tested {
        if !self.clean {
            let pairs = self.filters.iter_mut().zip(&self.plan.filters);
            pairs.for_each(|(filter, before)| filter.undo(before));
            self.clean = true;
        }
        let node = self.plan.snapshot.node(index);
        // Most filters look at no pods but at what they use together.
        let node = if self.listed { node.clone() } else { node.without_pods() };
        Tested { index, node }
    }

    fn remove(&mut self, tested: &mut Tested, pod: &Arc<PodInfo>) {
        if self.listed {
            tested.node.remove(pod);
        } else {
            tested.node.give_up(pod);
        }
        self.change(|filter| filter.pod_removed(pod, tested.index, &tested.node));
    }

    fn add(&mut self, tested: &mut Tested, pod: &Arc<PodInfo>) {
        if self.listed {
            tested.node.add(pod.clone());
        } else {
            tested.node.take_up(pod);
        }
        self.change(|filter| filter.pod_added(pod, tested.index, &tested.node));
    }

    fn change(&mut self, change: impl FnMut(&mut Filter<'a>)) {
        if !self.plan.local_only() {
            self.clean = false;
            self.filters.iter_mut().for_each(change);
        }
    }

    fn check(&self, tested: &Tested) -> Option<Rejection> {
        self.plan.check_with(&tested.node, tested.index, &self.filters)
    }
}

/// The fewest pods that have to leave the node: all of lower priority are taken away, then let
/// back in one by one, the most important first, as long as the pod still fits.
fn victims(trial: &mut Trial<'_, '_>, index: NodeIndex) -> Result<Nomination, Option<Rejection>> {
    let plan = trial.plan;
    let pods = plan.snapshot.node(index).pods.iter();
    let mut lower: Vec<_> = pods.filter(|pod| pod.priority < plan.pod.priority).cloned().collect();
    if lower.is_empty() {
        return Err(None);
    }
    let mut tested = trial.begin(index);
    for pod in &lower {
        trial.remove(&mut tested, pod);
    }
    if let Some(rejection) = trial.check(&tested) {
        return Err(Some(rejection));
    }
    lower.sort_by_key(|pod| importance(pod));
    let (protected, free) = by_budget(&lower, plan);
    let mut victims = Vec::new();
    let mut violations = 0;
    for (pods, counted) in [(protected, true), (free, false)] {
        for pod in pods {
            trial.add(&mut tested, &pod);
            if trial.check(&tested).is_some() {
                trial.remove(&mut tested, &pod);
                victims.push(pod);
                violations += usize::from(counted);
            }
        }
    }
    victims.sort_by_key(|pod| importance(pod));
    Ok(Nomination { node: index, victims, violations })
}

/// Sorts more important pods first: higher priority, then longer running.
fn importance(pod: &PodInfo) -> (Reverse<i32>, Time) {
    (Reverse(pod.priority), pod.started)
}

/// Pods whose eviction would break a disruption budget, and the others, in the given order.
fn by_budget(pods: &[Arc<PodInfo>], plan: &Plan<'_>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let budgets = plan.snapshot.budgets();
    let symbols = plan.snapshot.symbols();
    let mut allowed: Vec<_> = budgets.iter().map(|budget| budget.allowed).collect();
    let covers = |budget: &Budget, pod: &PodInfo| {
        !pod.labels.is_empty()
            && budget.namespace == pod.namespace
            && !budget.selector.is_everything()
            && budget.selector.matches(&pod.labels, symbols)
            && !budget.disrupted.contains(&pod.key.name)
    };
    pods.iter().cloned().partition(|pod| {
        let mut violated = false;
        for (budget, allowed) in budgets.iter().zip(&mut allowed) {
            if covers(budget, pod) {
                *allowed -= 1;
                violated |= *allowed < 0;
            }
        }
        violated
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::cycle::{Decision, schedule};
    use crate::testing::{cluster, pod, sized};

    fn running(name: &str, node: &str, priority: i32, cpu: &str) -> Pod {
        let mut pod = pod(name, json!({"cpu": cpu}));
        pod.metadata.labels = Some([("app".to_owned(), name.to_owned())].into());
        let spec = pod.spec.as_mut().unwrap();
        spec.node_name = Some(node.to_owned());
        spec.priority = Some(priority);
        pod
    }

    fn nomination(snapshot: &Snapshot, pod: &PodInfo) -> Option<(String, Vec<String>)> {
        let decision = schedule(snapshot, pod, &Profile::default(), &mut Rotation::default());
        let Decision::Unschedulable(answer) = decision else { panic!("nothing fits here") };
        let nomination = answer.preemption.nomination.as_ref()?;
        assert_eq!(answer.postscript(), "");
        let victims = nomination.victims.iter().map(|pod| pod.key.name.to_string()).collect();
        Some((snapshot.node(nomination.node).facts.name.to_string(), victims))
    }

    /// Every candidate with the number of victims; the cheapest is the one that is nominated.
    fn all(snapshot: &Snapshot, pod: &PodInfo) -> Vec<(String, usize)> {
        let (profile, mut rotation) = (Profile::default(), Rotation::default());
        let decision = schedule(snapshot, pod, &profile, &mut rotation);
        let Decision::Unschedulable(answer) = decision else { panic!("nothing fits here") };
        let all = candidates(snapshot, pod, &profile, rotation, &answer);
        let sets = all.iter().map(|it| (it.victims.as_slice(), it.violations));
        let best = cheapest(sets).map(|place| all[place].clone());
        assert_eq!(best, answer.preemption.nomination);
        let name = |it: &Nomination| snapshot.node(it.node).facts.name.to_string();
        all.iter().map(|it| (name(it), it.victims.len())).collect()
    }

    fn nodes() -> [k8s_openapi::api::core::v1::Node; 2] {
        ["a", "b"].map(|name| sized(name, json!({"cpu": "4", "memory": "8Gi", "pods": "10"})))
    }

    #[test]
    fn the_least_important_pods_go_and_only_as_many_as_needed() {
        let mut asked = pod("p", json!({"cpu": "2"}));
        asked.spec.as_mut().unwrap().priority = Some(100);
        let pods = [
            running("a1", "a", 50, "2"),
            running("a2", "a", 10, "2"),
            running("b1", "b", 20, "2"),
            running("b2", "b", 200, "2"),
        ];
        let (mut snapshot, info) = cluster(&nodes(), &pods, &asked);
        assert_eq!(nomination(&snapshot, &info), Some(("a".into(), vec!["a2".into()])));
        assert_eq!(all(&snapshot, &info), [("a", 1), ("b", 1)].map(|(n, c)| (n.to_owned(), c)));
        let budget = json!({
            "metadata": {"name": "keep", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "a2"}}},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
        });
        snapshot.set_budget(&serde_json::from_value(budget).unwrap());
        assert_eq!(
            nomination(&snapshot, &info),
            Some(("b".into(), vec!["b1".into()])),
            "a budget makes its pods the last to go"
        );
    }

    #[test]
    fn a_pod_waits_for_those_it_pushed_out() {
        let mut asked = pod("p", json!({"cpu": "2"}));
        asked.spec.as_mut().unwrap().priority = Some(100);
        asked.status = serde_json::from_value(json!({"nominatedNodeName": "a"})).ok();
        let mut leaving = running("a1", "a", 0, "4");
        leaving.metadata.deletion_timestamp =
            Some(wharf_model::time::Time::from_seconds(1).to_meta());
        leaving.status = serde_json::from_value(json!({"conditions": [
            {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
        ]}))
        .ok();
        let (snapshot, info) = cluster(&nodes()[..1], &[leaving], &asked);
        let decision = schedule(&snapshot, &info, &Profile::default(), &mut Rotation::default());
        let Decision::Unschedulable(answer) = decision else { panic!("nothing fits here") };
        assert_eq!(
            answer.message(),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to a terminating pod on the nominated node."
        );
    }

    #[test]
    fn of_equal_candidates_the_shortest_running_victims_go() {
        let mut asked = pod("p", json!({"cpu": "4"}));
        asked.spec.as_mut().unwrap().priority = Some(1);
        let started = |mut pod: Pod, at: &str| {
            pod.status = serde_json::from_value(json!({"startTime": at})).ok();
            pod
        };
        let pods = [
            started(running("a1", "a", 0, "4"), "2026-01-01T00:00:00Z"),
            started(running("b1", "b", 0, "4"), "2026-01-02T00:00:00Z"),
        ];
        let (snapshot, info) = cluster(&nodes(), &pods, &asked);
        assert_eq!(nomination(&snapshot, &info), Some(("b".into(), vec!["b1".into()])));
    }
}
