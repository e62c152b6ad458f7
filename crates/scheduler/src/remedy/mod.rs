//! The smallest change that would let a waiting pod run: found by changing the pod and asking all
//! nodes again, so that what is advised has been seen to work.
//!
//! The search tries sets of changes in the order of their cost. A set under which no node will do is
//! extended by what the nodes then say; so the first set that works is the cheapest of those that
//! were thought of. [`Change::cost`] has the costs: in short, a request costs the percents that are
//! cut, a toleration 20, a node selector 30, a term of affinity 40, another pod 50 (80 if it
//! has a higher priority), a volume 60.
//! What is not thought of: a higher priority (preemption has its own answer), other labels of nodes,
//! and taints that say that a node is not well.

mod change;
mod propose;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

pub use change::Change;

use crate::cycle::{Evaluation, Plan, evaluate};
use crate::measure::Measure;
use crate::plugins::Rejection;
use crate::pod::PodInfo;
use crate::profile::{Plugin, Profile};
use crate::snapshot::{NodeIndex, Snapshot};
use propose::{Proposals, for_node, for_pod, gone};

/// How often all nodes are asked at most: what takes longer to find is no small change.
const EVALUATIONS_MAX: usize = 64;
/// How many remedies are looked for.
const REMEDIES_MAX: usize = 3;
/// How many extensions of one set are followed: the cheapest.
const EXTENSIONS_MAX: usize = 8;
/// How many changes go together at most.
const CHANGES_MAX: usize = 6;
/// How often a node is searched, pod by pod, for those that are in the way.
const SEARCHES_MAX: usize = 8;
/// The largest `maxSkew` that is tried, above the present one.
const SKEW_MORE_MAX: i32 = 10;

/// Changes that together would let the pod run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// The changes. Without any one of them it would not.
    pub changes: Vec<Change>,
    /// Their costs together.
    pub cost: u32,
    /// A node that would then take it.
    pub node: CompactString,
    /// How many nodes would.
    pub nodes: usize,
}

/// The cheapest remedies for a pod that no node will take, cheapest first. Empty if none was found,
/// or none is needed.
pub fn remedies(snapshot: &mut Snapshot, pod: &Pod, profile: &Profile) -> Vec<Remedy> {
    let mut search = Search {
        snapshot,
        pod,
        profile,
        evaluations: 0,
        searched: BTreeSet::new(),
        found: Vec::new(),
    };
    search.run();
    search.found.sort_by_key(|remedy| remedy.cost);
    search.found
}

/// Sets of changes to be tried, cheapest first.
type Queue = BTreeSet<(u32, Vec<Change>)>;

struct Search<'s> {
    snapshot: &'s mut Snapshot,
    pod: &'s Pod,
    profile: &'s Profile,
    evaluations: usize,
    /// Nodes that were searched for pods that are in the way of a plugin.
    searched: BTreeSet<(NodeIndex, Plugin)>,
    found: Vec<Remedy>,
}

impl Search<'_> {
    fn run(&mut self) {
        let mut queue = Queue::from([(0, Vec::new())]);
        let mut seen = BTreeSet::new();
        while let Some((_, changes)) = queue.pop_first() {
            if self.evaluations >= EVALUATIONS_MAX || self.found.len() >= REMEDIES_MAX {
                return;
            }
            // More than what is enough is no remedy.
            let enough = |remedy: &Remedy| covers(&remedy.changes, &changes);
            if self.found.iter().any(enough) || !seen.insert(changes.clone()) {
                continue;
            }
            let (info, evaluation) = self.ask(&changes);
            if !evaluation.candidates.is_empty() {
                if changes.is_empty() {
                    return;
                }
                self.take(changes);
                continue;
            }
            for extension in self.extensions(&changes, &info, &evaluation) {
                let extended = extend(&changes, &extension);
                if extended.len() <= CHANGES_MAX && extended != changes {
                    queue.insert((cost(&extended), extended));
                }
            }
        }
    }

    /// What all nodes say with the changes made.
    fn ask(&mut self, changes: &[Change]) -> (Arc<PodInfo>, Evaluation) {
        self.evaluations += 1;
        let info = self.snapshot.compile(&change::changed(self.pod, changes));
        let away = self.take_away(changes);
        let evaluation = evaluate(self.snapshot, &info, self.profile);
        for (pod, node) in away {
            self.snapshot.place(pod, &node);
        }
        (info, evaluation)
    }

    /// Takes the pods that the changes do without off their nodes.
    fn take_away(&mut self, changes: &[Change]) -> Vec<(Arc<PodInfo>, CompactString)> {
        let mut away = Vec::new();
        for change in changes {
            let Change::PodGone { pod, node, .. } = change else { continue };
            let on_node = self.snapshot.node_named(node);
            let found = on_node.and_then(|on| on.pods.iter().find(|other| other.key == *pod));
            let Some(uid) = found.map(|found| found.uid.clone()) else { continue };
            away.extend(self.snapshot.displace(&uid).map(|gone| (gone, node.clone())));
        }
        away
    }

    /// Whether some node would do with the changes made; which, and how many.
    fn works(&mut self, changes: &[Change]) -> Option<(CompactString, usize)> {
        let (_, evaluation) = self.ask(changes);
        let first = evaluation.candidates.first()?;
        Some((self.snapshot.node(first.node).facts.name.clone(), evaluation.candidates.len()))
    }

    /// Keeps what works, without what is not needed for it.
    fn take(&mut self, mut changes: Vec<Change>) {
        let mut index = 0;
        while changes.len() > 1 && index < changes.len() {
            let mut fewer = changes.clone();
            fewer.remove(index);
            if self.works(&fewer).is_some() {
                changes = fewer;
            } else {
                index += 1;
            }
        }
        for index in 0..changes.len() {
            self.refine(&mut changes, index);
        }
        let known = |remedy: &Remedy| remedy.changes == changes;
        if self.found.iter().any(known) {
            return;
        }
        if let Some((node, nodes)) = self.works(&changes) {
            self.found.push(Remedy { cost: cost(&changes), changes, node, nodes });
        }
    }

    /// A constraint that may be violated at will may do with a larger skew.
    fn refine(&mut self, changes: &mut [Change], at: usize) {
        let Change::Spread { index, key, from, to: None } = changes[at].clone() else { return };
        for more in 1..=SKEW_MORE_MAX {
            let to = Some(from.saturating_add(more));
            let mut trial = changes.to_vec();
            trial[at] = Change::Spread { index, key: key.clone(), from, to };
            if self.works(&trial).is_some() {
                changes[at] = trial.swap_remove(at);
                return;
            }
        }
    }

    /// What could be changed besides, going by what the nodes say; the cheapest ideas.
    fn extensions(
        &mut self,
        changes: &[Change],
        info: &Arc<PodInfo>,
        evaluation: &Evaluation,
    ) -> Proposals {
        let pod = change::changed(self.pod, changes);
        let mut ideas: BTreeMap<Vec<Change>, u32> = BTreeMap::new();
        let mut add = |proposals: Proposals| {
            for idea in proposals.into_iter().filter(|idea| !idea.is_empty()) {
                let cost = cost(&idea);
                ideas.entry(idea).or_insert(cost);
            }
        };
        if let Some(refusal) = &evaluation.prefilter {
            add(for_pod(refusal.plugin, &pod));
        }
        let mut in_the_way = Vec::new();
        for (node, refused) in &evaluation.nodes {
            let Some(rejection) = refused else { continue };
            let on = self.snapshot.node(*node);
            add(for_node(rejection, &pod, info, on, self.snapshot.symbols()));
            if is_by_a_pod(rejection, info) {
                in_the_way.push((*node, rejection.plugin));
            }
        }
        for (node, plugin) in in_the_way {
            if self.searched.len() < SEARCHES_MAX && self.searched.insert((node, plugin)) {
                add(self.pods_in_the_way(changes, info, node, plugin).into_iter().collect());
            }
        }
        let mut ideas: Vec<_> = ideas.into_iter().collect();
        ideas.sort_by(|one, other| (one.1, &one.0).cmp(&(other.1, &other.0)));
        keep_largest_requests(&mut ideas);
        ideas.truncate(EXTENSIONS_MAX);
        ideas.into_iter().map(|(idea, _)| idea).collect()
    }

    /// That the pods go without which the plugin would have nothing to say on a node.
    fn pods_in_the_way(
        &mut self,
        changes: &[Change],
        info: &Arc<PodInfo>,
        index: NodeIndex,
        plugin: Plugin,
    ) -> Option<Vec<Change>> {
        let away = self.take_away(changes);
        let found = self.in_the_way_on(info, index, plugin);
        let node = self.snapshot.node(index);
        let changes: Vec<_> = found.iter().map(|other| gone(other, node, info)).collect();
        for (pod, node) in away {
            self.snapshot.place(pod, &node);
        }
        (!changes.is_empty()).then_some(changes)
    }

    /// One pod, if one alone is in the way. Otherwise all that are left off when all go and come back
    /// one after the other, the most important first.
    fn in_the_way_on(
        &mut self,
        info: &Arc<PodInfo>,
        index: NodeIndex,
        plugin: Plugin,
    ) -> Vec<Arc<PodInfo>> {
        let name = self.snapshot.node(index).facts.name.clone();
        let mut pods = self.snapshot.node(index).pods.to_vec();
        pods.sort_by_key(|pod| pod.priority);
        for other in &pods {
            self.snapshot.displace(&other.uid);
            let refuses = self.refuses(plugin, info, index);
            self.snapshot.place(other.clone(), &name);
            if !refuses {
                return vec![other.clone()];
            }
        }
        for other in &pods {
            self.snapshot.displace(&other.uid);
        }
        let helps = !self.refuses(plugin, info, index);
        let mut found = Vec::new();
        for other in pods.into_iter().rev() {
            self.snapshot.place(other.clone(), &name);
            if helps && self.refuses(plugin, info, index) {
                self.snapshot.displace(&other.uid);
                found.push(other);
            }
        }
        for other in &found {
            self.snapshot.place(other.clone(), &name);
        }
        found
    }

    fn refuses(&self, plugin: Plugin, info: &Arc<PodInfo>, node: NodeIndex) -> bool {
        Plan::new(self.snapshot, info, self.profile, &mut Measure::off()).map_or(true, |plan| {
            plan.check(node).is_some_and(|rejection| rejection.plugin == plugin)
        })
    }
}

/// Whether it is other pods on the node that keep the pod off: they repel it, they use volumes that
/// it may not share, or as many as the node attaches.
fn is_by_a_pod(rejection: &Rejection, info: &PodInfo) -> bool {
    match rejection.plugin {
        Plugin::InterPodAffinity => {
            rejection.reasons(info).iter().any(|reason| reason.contains("anti-affinity"))
        }
        Plugin::VolumeRestrictions | Plugin::NodeVolumeLimits => rejection.narrowed_by().is_none(),
        _ => false,
    }
}

/// Of ideas that only ask for less of the same resources, the first is the cheapest: the others
/// are of nodes with less room.
fn keep_largest_requests(ideas: &mut Vec<(Vec<Change>, u32)>) {
    let mut known = BTreeSet::new();
    ideas.retain(|(idea, _)| {
        let resources: Option<Vec<_>> = idea
            .iter()
            .map(|change| match change {
                Change::Request { resource, .. } => Some(resource.clone()),
                _ => None,
            })
            .collect();
        resources.is_none_or(|resources| known.insert(resources))
    });
}

/// One set more; of two requests for a resource the smaller counts.
fn extend(changes: &[Change], more: &[Change]) -> Vec<Change> {
    let mut all: BTreeSet<Change> = changes.iter().cloned().collect();
    for change in more {
        if let Change::Request { resource, to, .. } = change {
            let of_same = |known: &Change| matches!(known, Change::Request { resource: known, .. } if known == resource);
            if let Some(known) = all.iter().find(|known| of_same(known)).cloned() {
                let Change::Request { from, to: before, .. } = known else { continue };
                let to = before.min(*to);
                all.remove(&known);
                all.insert(Change::Request { resource: resource.clone(), from, to });
                continue;
            }
        }
        all.insert(change.clone());
    }
    all.into_iter().collect()
}

fn cost(changes: &[Change]) -> u32 {
    changes.iter().map(Change::cost).sum()
}

/// Whether `more` has all that is in `some`.
fn covers(some: &[Change], more: &[Change]) -> bool {
    some.iter().all(|change| more.contains(change))
}

#[cfg(test)]
mod tests;
