//! Why no node will do: counts per reason, upstream's text, and the numbers behind them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use compact_str::CompactString;
use wharf_model::object::ObjectKey;

use crate::cycle::Veto;
use crate::memo::{Memo, Page};
use crate::plugins::{Code, PreFilterRejection, Rejection, node_resources_fit};
use crate::pod::PodInfo;
use crate::preemption::Nomination;
use crate::profile::{Plugin, PluginSet};
use crate::refusals::Refusals;
use crate::snapshot::{NodeIndex, Snapshot};

const NO_NODES: &str = "no nodes available to schedule pods";
/// What it says when it never got to prepare for the pod, because an earlier plugin refused it.
const NOT_PREPARED: &str = "not found";

/// The answer for a pod that no node will take.
#[derive(Clone, Debug)]
pub struct Unschedulable {
    /// Who refused what.
    pub diagnosis: Diagnosis,
    /// What came of trying to make room.
    pub preemption: Preemption,
    /// The text of the condition and the event without what follows about preemption.
    pub summary: String,
    /// Whether DynamicResources has its say in what follows.
    pub(crate) tells_of_claims: bool,
    /// What it says; `None` if it never got to prepare for the pod.
    pub(crate) of_claims: Option<&'static str>,
    /// A claim on devices that is to lose them, since nobody uses it where they are.
    pub deallocate: Option<ObjectKey>,
}

/// What came of trying to make room by evicting pods.
#[derive(Clone, Debug, Default)]
pub struct Preemption {
    /// Upstream's words; `None` if it was not tried.
    pub message: Option<String>,
    /// The node and the pods to go, if there is a way.
    pub nomination: Option<Nomination>,
    /// Whether an earlier nomination stands although there is no new one: nothing was tried.
    pub keeps_nomination: bool,
    /// Whether an extender that was asked about it failed: then upstream tells nothing else of
    /// what was tried.
    pub failed: bool,
}

/// Who refused what.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// Set when the pod was refused before any node was looked at.
    pub prefilter: Option<PreFilterRejection>,
    /// Every node that was looked at with its refusal.
    pub rejected: Refusals,
    /// The nodes that extenders refused, with their words; the plugins would have taken them.
    pub vetoes: BTreeMap<CompactString, Veto>,
    /// How many nodes PreFilters left out, because the pod names others or its volumes are
    /// elsewhere.
    pub outside: usize,
    /// The plugins whose PreFilters did.
    pub narrowed_by: PluginSet,
    /// The plugins that refused: only what changes their mind is worth another try.
    pub plugins: PluginSet,
}

impl Diagnosis {
    pub(crate) fn new(
        nodes: usize,
        rejected: Refusals,
        outside: usize,
        narrowed_by: PluginSet,
    ) -> Self {
        let mut plugins = PluginSet::default();
        for (rejection, _) in rejected.kinds() {
            plugins.insert(rejection.plugin);
        }
        if outside > 0 {
            narrowed_by.iter().for_each(|plugin| plugins.insert(plugin));
        }
        Self { nodes, rejected, outside, narrowed_by, plugins, ..Self::default() }
    }

    pub(crate) fn rejected_as_a_whole(nodes: usize, rejection: PreFilterRejection) -> Self {
        let mut plugins = PluginSet::default();
        plugins.insert(rejection.plugin);
        Self { nodes, prefilter: Some(rejection), plugins, ..Self::default() }
    }

    /// The reasons in upstream's words, each with the number of nodes that gave it.
    pub fn reasons(&self, pod: &PodInfo) -> BTreeMap<Cow<'static, str>, usize> {
        let outside = (Rejection::outside(self.narrowed_by), self.outside);
        let kinds = self.rejected.kinds().chain((self.outside > 0).then_some(outside));
        let mut texts = texts(kinds, pod);
        for veto in self.vetoes.values() {
            *texts.entry(veto.text.clone().into()).or_default() += 1;
        }
        texts
    }

    /// The refusals in groups of the same rule and reasons, largest group first, each with the
    /// node that comes closest and its numbers.
    pub fn explain(&self, pod: &PodInfo, snapshot: &Snapshot) -> Vec<Explanation> {
        self.explain_by(pod, snapshot, None)
    }

    /// The same, sooner: the memo that the decision was made with knows how close most nodes come.
    pub fn explain_with(
        &self,
        memo: &mut Memo,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Vec<Explanation> {
        self.explain_by(pod, snapshot, memo.known_page(pod, snapshot))
    }

    fn explain_by(
        &self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        mut page: Option<&mut Page>,
    ) -> Vec<Explanation> {
        // Groups of one rule are told apart by their reasons, not by whether evictions help.
        let key = |rejection| Rejection { code: Code::Unschedulable, ..rejection };
        let mut groups: BTreeMap<Rejection, usize> = BTreeMap::new();
        for (rejection, nodes) in self.rejected.kinds() {
            *groups.entry(key(rejection)).or_default() += nodes;
        }
        let mut explanations: Vec<_> = groups
            .into_iter()
            .filter_map(|(rejection, nodes)| {
                let alike = |other| key(other) == rejection;
                let group = self.rejected.all(alike);
                let closest = match (rejection.plugin, &mut page) {
                    (Plugin::NodeResourcesFit, Some(page)) => {
                        let shortfall = node_resources_fit::shortfall(rejection.detail, pod);
                        page.closest(group, alike, shortfall, snapshot)
                    }
                    _ => closest(rejection, group, pod, snapshot),
                }?;
                Some((rejection, nodes, closest))
            })
            .map(|(rejection, nodes, closest)| {
                let node = snapshot.node(closest);
                Explanation {
                    plugin: rejection.plugin,
                    nodes,
                    reasons: rejection.reasons(pod),
                    closest: Some(node.facts.name.clone()),
                    says: rejection.explain(pod, closest, snapshot),
                }
            })
            .collect();
        if self.outside > 0 {
            let outside = Rejection::outside(self.narrowed_by);
            let reasons = outside.reasons(pod);
            explanations.push(Explanation {
                plugin: outside.plugin,
                nodes: self.outside,
                says: if self.narrowed_by.contains(Plugin::NodeAffinity) {
                    "the pod names the nodes it may run on".to_owned()
                } else {
                    "not among the nodes its volumes or devices leave over".to_owned()
                },
                closest: None,
                reasons,
            });
        }
        let mut vetoes: BTreeMap<&str, (usize, &CompactString)> = BTreeMap::new();
        for (node, veto) in &self.vetoes {
            vetoes.entry(&veto.text).or_insert((0, node)).0 += 1;
        }
        explanations.extend(vetoes.into_iter().map(|(text, (nodes, first))| Explanation {
            plugin: Plugin::Extender,
            nodes,
            reasons: vec![text.to_owned().into()],
            closest: Some(first.clone()),
            says: text.to_owned(),
        }));
        explanations.sort_by_key(|group| std::cmp::Reverse(group.nodes));
        explanations
    }
}

/// A group of nodes that refused for the same reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Who refused.
    pub plugin: Plugin,
    /// How many nodes.
    pub nodes: usize,
    /// In upstream's words.
    pub reasons: Vec<Cow<'static, str>>,
    /// The node of the group that comes closest to taking the pod.
    pub closest: Option<CompactString>,
    /// That node's refusal with names and numbers.
    pub says: String,
}

/// The first of a group's nodes that comes closest to taking the pod.
fn closest(
    rejection: Rejection,
    mut group: impl Iterator<Item = NodeIndex>,
    pod: &PodInfo,
    snapshot: &Snapshot,
) -> Option<NodeIndex> {
    match rejection.plugin {
        Plugin::NodeResourcesFit => {
            let shortfall = node_resources_fit::shortfall(rejection.detail, pod);
            group.min_by_key(|node| shortfall(snapshot.node(*node)))
        }
        _ => group.next(),
    }
}

impl Unschedulable {
    pub(crate) fn no_nodes() -> Self {
        Self {
            diagnosis: Diagnosis::default(),
            preemption: Preemption::default(),
            summary: NO_NODES.to_owned(),
            tells_of_claims: true,
            of_claims: None,
            deallocate: None,
        }
    }

    pub(crate) fn new(diagnosis: Diagnosis, pod: &PodInfo) -> Self {
        let summary = match &diagnosis.prefilter {
            Some(rejection) => {
                format!("0/{} nodes are available: {}.", diagnosis.nodes, rejection.message)
            }
            None => sentence(diagnosis.nodes, diagnosis.reasons(pod)),
        };
        Self { diagnosis, summary, ..Self::no_nodes() }
    }

    /// What follows the summary about making room; empty when room is being made.
    pub fn postscript(&self) -> String {
        if self.diagnosis.nodes == 0 || self.preemption.nomination.is_some() {
            return String::new();
        }
        let claims = match self.of_claims {
            _ if !self.tells_of_claims || self.preemption.failed => None,
            None => return NOT_PREPARED.to_owned(),
            Some(text) => Some(text.to_owned()),
        };
        let preemption = self.preemption.message.as_ref().map(|text| format!("preemption: {text}"));
        let parts: Vec<_> = claims.into_iter().chain(preemption).collect();
        parts.join(", ")
    }

    /// The whole text of the condition and the event.
    pub fn message(&self) -> String {
        let postscript = self.postscript();
        if postscript.is_empty() {
            self.summary.clone()
        } else {
            format!("{} {postscript}", self.summary)
        }
    }
}

/// Counts nodes per text: a node may give several reasons.
pub(crate) fn texts(
    kinds: impl Iterator<Item = (Rejection, usize)>,
    pod: &PodInfo,
) -> BTreeMap<Cow<'static, str>, usize> {
    let mut texts = BTreeMap::new();
    for (rejection, nodes) in kinds {
        for reason in rejection.reasons(pod) {
            *texts.entry(reason).or_default() += nodes;
        }
    }
    texts
}

/// `0/3 nodes are available: 1 …, 2 ….`; the counted phrases are sorted as strings.
pub(crate) fn sentence(nodes: usize, reasons: BTreeMap<Cow<'static, str>, usize>) -> String {
    let mut phrases: Vec<_> =
        reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    phrases.sort_unstable();
    format!("0/{nodes} nodes are available: {}.", phrases.join(", "))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::json;

    use super::*;
    use crate::cycle::{Decision, Rotation, schedule};
    use crate::profile::Profile;
    use crate::testing::{cluster, node, pod, sized};

    fn refused(nodes: &[Node], pods: &[Pod], pod: &Pod) -> Unschedulable {
        let (snapshot, pod) = cluster(nodes, pods, pod);
        match schedule(&snapshot, &pod, &Profile::default(), &mut Rotation::default()) {
            Decision::Unschedulable(answer) => *answer,
            Decision::Bind(_) => panic!("nothing fits here"),
        }
    }

    fn tainted(name: &str) -> Node {
        node(name, json!({}), json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}))
    }

    fn small(name: &str) -> Node {
        sized(name, json!({"cpu": "2", "memory": "4Gi", "pods": "10"}))
    }

    fn running(name: &str, node: &str, cpu: &str) -> Pod {
        let mut pod = pod(name, json!({"cpu": cpu}));
        pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
        pod
    }

    #[test]
    fn texts_are_upstreams() {
        assert_eq!(
            refused(&[], &[], &pod("p", json!({}))).message(),
            "no nodes available to schedule pods"
        );
        let huge = pod("p", json!({"memory": "1000Gi"}));
        assert_eq!(
            refused(&[small("a")], &[], &huge).message(),
            "0/1 nodes are available: 1 Insufficient memory. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        );
        assert_eq!(
            refused(&[tainted("a")], &[], &pod("p", json!({}))).message(),
            "0/1 nodes are available: 1 node(s) had untolerated taint(s). no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        );
        let nodes = [tainted("a"), small("b"), small("c")];
        let pods = [running("b1", "b", "2"), running("c1", "c", "2")];
        assert_eq!(
            refused(&nodes, &pods, &pod("p", json!({"cpu": "1"}))).message(),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. no new claims to deallocate, preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
        );
        let mut never = pod("p", json!({"cpu": "1"}));
        never.spec.as_mut().unwrap().preemption_policy = Some("Never".to_owned());
        assert_eq!(
            refused(&nodes, &pods, &never).postscript(),
            "no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never."
        );
    }

    #[test]
    fn a_conflict_of_terms_is_told_without_counts() {
        let field =
            |name: &str| json!({"key": "metadata.name", "operator": "In", "values": [name]});
        let mut pod = pod("p", json!({}));
        pod.spec.as_mut().unwrap().affinity = serde_json::from_value(json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [field("a"), field("b")]}]}
        }}))
        .unwrap();
        assert_eq!(
            refused(&[small("a")], &[], &pod).message(),
            "0/1 nodes are available: pod affinity terms conflict. not found"
        );
        let profile = Profile { tells_of_claims: false, ..Profile::default() };
        let (snapshot, pod) = cluster(&[small("a")], &[], &pod);
        let decision = schedule(&snapshot, &pod, &profile, &mut Rotation::default());
        let Decision::Unschedulable(answer) = decision else { panic!("nothing fits here") };
        assert_eq!(
            answer.postscript(),
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        );
    }

    #[test]
    fn counted_phrases_are_sorted_as_strings_and_counts_may_exceed_the_nodes() {
        let nodes: Vec<_> = (0..10).map(|index| small(&format!("n{index}"))).collect();
        let mut nodes = nodes;
        nodes.extend([tainted("t1"), tainted("t2")]);
        let answer = refused(&nodes, &[], &pod("p", json!({"cpu": "3", "memory": "5Gi"})));
        assert_eq!(
            answer.summary,
            "0/12 nodes are available: 10 Insufficient cpu, 10 Insufficient memory, 2 node(s) had untolerated taint(s)."
        );
    }

    #[test]
    fn groups_tell_the_closest_node_and_its_numbers() {
        let nodes = [small("a"), small("b"), tainted("c")];
        let pods = [running("a1", "a", "1500m"), running("b1", "b", "1200m")];
        let (snapshot, info) = cluster(&nodes, &pods, &pod("p", json!({"cpu": "1"})));
        let decision = schedule(&snapshot, &info, &Profile::default(), &mut Rotation::default());
        let Decision::Unschedulable(answer) = decision else { panic!("nothing fits here") };
        let groups = answer.diagnosis.explain(&info, &snapshot);
        let told: Vec<_> = groups
            .iter()
            .map(|group| (group.plugin, group.nodes, group.closest.as_deref(), group.says.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (Plugin::NodeResourcesFit, 2, Some("b"), "cpu: asks 1, free 800m of 2, short 200m"),
                (Plugin::TaintToleration, 1, Some("c"), "does not tolerate taint k:NoSchedule"),
            ]
        );
    }
}
