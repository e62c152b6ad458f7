//! What can be said of one pod's chances, for people: who would take it, who refuses and by how
//! much, whom it could push out, and what would make it fit. Asks every node, whatever share of
//! them is sampled when it is really scheduled.

use std::borrow::Cow;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use serde::{Serialize, Serializer};
use wharf_model::resources::PODS;

use crate::cycle::{Candidate, Decision, Evaluation, Rotation, evaluate, schedule};
use crate::diagnosis::{Diagnosis, Explanation};
use crate::plugins::node_resources_fit::amount;
use crate::pod::PodInfo;
use crate::profile::{Plugin, PluginSet, Profile};
use crate::refusals::Refusals;
use crate::remedy::{Remedy, remedies};
use crate::snapshot::{NodeIndex, Snapshot};

/// How many of the best nodes are told.
const BEST: usize = 5;

/// A pod's chances.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many would take it.
    pub feasible: usize,
    /// The best of those, best first.
    pub best: Vec<Scored>,
    /// Names of the scheduling gates it waits for.
    pub gates: Vec<String>,
    /// Set when it is refused whatever the node: by whom, and the reason.
    #[serde(serialize_with = "whole")]
    pub whole: Option<(Plugin, String)>,
    /// The nodes that refuse it.
    pub refused: Vec<Refused>,
    /// The same in groups of the same reasons, the largest first.
    #[serde(skip)]
    pub groups: Vec<Explanation>,
    /// What it asks for and no node has at all, however empty.
    pub beyond: Vec<Beyond>,
    /// Whom it would push out.
    pub eviction: Option<Eviction>,
    /// What scheduling says of pushing others out, if that was tried in vain.
    pub preemption: Option<String>,
    /// What would make it fit, the smallest change first.
    #[serde(serialize_with = "told")]
    pub remedies: Vec<Remedy>,
}

/// A node that would take the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scored {
    /// The node.
    pub node: CompactString,
    /// The sum of its scores.
    pub total: i64,
    /// Each plugin's normalised score times its weight.
    #[serde(serialize_with = "by_name")]
    pub scores: Vec<(Plugin, i64)>,
}

/// A node that refuses the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The node.
    pub node: CompactString,
    /// The plugin that refuses.
    #[serde(serialize_with = "plugin_name")]
    pub plugin: Plugin,
    /// In upstream's words.
    pub reasons: Vec<Cow<'static, str>>,
    /// With names and numbers.
    pub says: String,
}

/// A resource of which the pod asks for more than any node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Beyond {
    /// The resource.
    pub resource: CompactString,
    /// How much is asked, in the resource's unit.
    pub asked: i64,
    /// The most that a node has.
    pub most: i64,
    /// Which node that is; `None` if none has any.
    pub node: Option<CompactString>,
}

/// Pods that would be pushed out of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Eviction {
    /// The node.
    pub node: CompactString,
    /// The pods, most important first.
    pub victims: Vec<Victim>,
    /// How many of them a disruption budget would have kept.
    pub violations: usize,
}

/// A pod that would be pushed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Victim {
    /// As `namespace/name`.
    pub pod: String,
    /// Its priority.
    pub priority: i32,
}

/// Reviews a pod's chances. One that runs is reviewed as if it had to be placed again.
pub fn review(snapshot: &mut Snapshot, pod: &Pod, profile: &Profile) -> Review {
    let mut pod = pod.clone();
    snapshot.displace(&PodInfo::uid_of(&pod));
    if let Some(spec) = &mut pod.spec {
        spec.node_name = None;
    }
    let profile = &Profile { percentage_of_nodes_to_score: 100, ..profile.clone() };
    let info = snapshot.compile(&pod);
    let evaluation = evaluate(snapshot, &info, profile);
    let name = |node: NodeIndex| snapshot.node(node).facts.name.clone();
    let mut review = Review {
        nodes: snapshot.nodes().len(),
        feasible: evaluation.candidates.len(),
        best: best(&evaluation.candidates, name),
        gates: info.gates.iter().map(ToString::to_string).collect(),
        whole: evaluation
            .prefilter
            .as_ref()
            .map(|refusal| (refusal.plugin, refusal.message.to_string())),
        refused: refused(&evaluation, &info, snapshot),
        groups: diagnosis(&evaluation, snapshot).explain(&info, snapshot),
        beyond: beyond(&info, snapshot),
        eviction: None,
        preemption: None,
        remedies: Vec::new(),
    };
    if review.feasible > 0 || review.nodes == 0 {
        return review;
    }
    if let Decision::Unschedulable(answer) =
        schedule(snapshot, &info, profile, &mut Rotation::default())
    {
        review.preemption = answer.preemption.message.clone();
        review.eviction = answer.preemption.nomination.as_ref().map(|nomination| Eviction {
            node: snapshot.node(nomination.node).facts.name.clone(),
            violations: nomination.violations,
            victims: nomination
                .victims
                .iter()
                .map(|pod| Victim { pod: pod.key.to_string(), priority: pod.priority })
                .collect(),
        });
    }
    review.remedies = remedies(snapshot, &pod, profile);
    review
}

fn best(candidates: &[Candidate], name: impl Fn(NodeIndex) -> CompactString) -> Vec<Scored> {
    let mut candidates: Vec<_> = candidates.iter().collect();
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.total));
    candidates
        .into_iter()
        .take(BEST)
        .map(|candidate| Scored {
            node: name(candidate.node),
            total: candidate.total,
            scores: candidate.scores.to_vec(),
        })
        .collect()
}

fn refused(evaluation: &Evaluation, pod: &PodInfo, snapshot: &Snapshot) -> Vec<Refused> {
    let nodes = evaluation.nodes.iter();
    nodes
        .filter_map(|(node, refused)| {
            let rejection = refused.as_ref()?;
            Some(Refused {
                node: snapshot.node(*node).facts.name.clone(),
                plugin: rejection.plugin,
                reasons: rejection.reasons(pod),
                says: rejection.explain(pod, *node, snapshot),
            })
        })
        .collect()
}

/// What was said, as if it had been said while scheduling.
fn diagnosis(evaluation: &Evaluation, snapshot: &Snapshot) -> Diagnosis {
    let mut narrowed_by = PluginSet::default();
    let mut outside = 0;
    let mut rejected = Refusals::default();
    for (node, refused) in &evaluation.nodes {
        let Some(rejection) = refused else { continue };
        match rejection.narrowed_by() {
            Some(plugins) => {
                narrowed_by = plugins;
                outside += 1;
            }
            None => rejected.push(*node, *rejection),
        }
    }
    Diagnosis::new(snapshot.nodes().len(), rejected, outside, narrowed_by)
}

fn beyond(pod: &PodInfo, snapshot: &Snapshot) -> Vec<Beyond> {
    let asked = pod.amounts.requests.iter();
    asked
        .filter(|(name, asked)| *name != PODS && *asked > 0)
        .filter_map(|(resource, asked)| {
            let has = |node: &NodeIndex| snapshot.node(*node).facts.allocatable.get(resource);
            // The first of equals, so that the answer does not depend on how many there are.
            let mut richest: Option<NodeIndex> = None;
            for node in snapshot.nodes() {
                if has(node) > richest.as_ref().map_or(0, has) {
                    richest = Some(*node);
                }
            }
            let most = richest.as_ref().map_or(0, has);
            (!snapshot.nodes().is_empty() && asked > most).then(|| Beyond {
                resource: resource.into(),
                asked,
                most,
                node: richest.map(|node| snapshot.node(node).facts.name.clone()),
            })
        })
        .collect()
}

impl Beyond {
    /// What is asked, as people write it.
    pub fn asked_text(&self) -> String {
        amount(&self.resource, self.asked)
    }

    /// The most that there is, as people write it.
    pub fn most_text(&self) -> String {
        amount(&self.resource, self.most)
    }
}

fn plugin_name<S: Serializer>(plugin: &Plugin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(plugin.name())
}

fn by_name<S: Serializer>(scores: &[(Plugin, i64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(scores.iter().map(|(plugin, score)| (plugin.name(), score)))
}

fn whole<S: Serializer>(
    refusal: &Option<(Plugin, String)>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Whole<'a> {
        plugin: &'static str,
        says: &'a str,
    }
    refusal
        .as_ref()
        .map(|(plugin, says)| Whole { plugin: plugin.name(), says })
        .serialize(serializer)
}

/// A remedy's changes as they are made, and as they are told.
fn told<S: Serializer>(remedies: &[Remedy], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Told<'a> {
        says: Vec<String>,
        #[serde(flatten)]
        remedy: &'a Remedy,
    }
    serializer.collect_seq(remedies.iter().map(|remedy| Told {
        says: remedy.changes.iter().map(ToString::to_string).collect(),
        remedy,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, pod, sized};

    fn node(name: &str) -> k8s_openapi::api::core::v1::Node {
        sized(name, json!({"cpu": "4", "memory": "8Gi", "pods": "10"}))
    }

    fn running(name: &str, on: &str, priority: i32) -> Pod {
        let mut pod = pod(name, json!({"cpu": "3"}));
        let spec = pod.spec.as_mut().unwrap();
        spec.node_name = Some(on.to_owned());
        spec.priority = Some(priority);
        pod
    }

    #[test]
    fn what_no_node_has_is_told_apart_from_what_is_taken() {
        let nodes = [node("a"), node("b")];
        let asked = pod("p", json!({"cpu": "5", "memory": "1Gi", "example.com/gpu": "1"}));
        let (mut snapshot, _) = cluster(&nodes, &[], &asked);
        let review = review(&mut snapshot, &asked, &Profile::default());
        let told: Vec<_> = review
            .beyond
            .iter()
            .map(|one| {
                (one.resource.as_str(), one.asked_text(), one.most_text(), one.node.as_deref())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("cpu", "5".to_owned(), "4".to_owned(), Some("a")),
                ("example.com/gpu", "1".to_owned(), "0".to_owned(), None),
            ]
        );
        assert_eq!((review.feasible, review.refused.len()), (0, 2));
    }

    #[test]
    fn whom_it_would_push_out_is_told_with_priorities() {
        let mut asked = pod("p", json!({"cpu": "2"}));
        asked.spec.as_mut().unwrap().priority = Some(10);
        let pods = [running("low", "a", 1), running("high", "b", 20)];
        let (mut snapshot, _) = cluster(&[node("a"), node("b")], &pods, &asked);
        let review = review(&mut snapshot, &asked, &Profile::default());
        let eviction = review.eviction.unwrap();
        assert_eq!(eviction.node, "a");
        assert_eq!(eviction.victims, [Victim { pod: "default/low".to_owned(), priority: 1 }]);
        assert_eq!(review.preemption, None);
    }

    #[test]
    fn a_pod_that_runs_is_reviewed_as_if_it_had_to_be_placed_again() {
        let pods = [running("p", "a", 0)];
        let (mut snapshot, _) = cluster(&[node("a"), node("b")], &pods, &pods[0]);
        let review = review(&mut snapshot, &pods[0], &Profile::default());
        assert_eq!(review.feasible, 2);
        assert_eq!(
            review.best[0].total, review.best[1].total,
            "its own node is as free as the other"
        );
    }

    #[test]
    fn the_same_is_told_to_scripts() {
        let asked = pod("p", json!({"cpu": "5"}));
        let (mut snapshot, _) = cluster(&[node("a")], &[], &asked);
        let review = review(&mut snapshot, &asked, &Profile::default());
        let told = serde_json::to_value(&review).unwrap();
        assert_eq!(
            told["refused"],
            json!([{"node": "a", "plugin": "NodeResourcesFit", "reasons": ["Insufficient cpu"],
                "says": "cpu: asks 5, free 4 of 4, short 1"}])
        );
        assert_eq!(
            told["remedies"],
            json!([{"says": ["ask for 4 of cpu instead of 5"], "node": "a", "nodes": 1, "cost": 20,
                "changes": [{"change": "request", "resource": "cpu", "from": 5000, "to": 4000}]}])
        );
        assert_eq!(
            told["beyond"],
            json!([{"resource": "cpu", "asked": 5000, "most": 4000, "node": "a"}])
        );
    }
}
