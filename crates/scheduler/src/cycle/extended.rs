//! The cycle of a pod in which extenders have a say: first the nodes that would do ([`survey`]),
//! then, once the extenders have been heard, the decision ([`conclude`]).
//!
//! Asking takes time. What is decided in the end is decided on the snapshot as it is then: nodes
//! are known by their names meanwhile, and looked at again.

use std::collections::BTreeMap;

use compact_str::CompactString;

use super::found::Found;
use super::{Decision, Placement, Plan, Rotation, refused_as_a_whole, refused_by_nodes, sample};
use crate::diagnosis::{Diagnosis, Unschedulable};
use crate::measure::{ExtensionPoint, Measure, Status};
use crate::plugins::MAX_SCORE;
use crate::pod::PodInfo;
use crate::profile::{Plugin, Profile};
use crate::refusals::Refusals;
use crate::scores::Scores;
use crate::snapshot::{NodeIndex, Snapshot};

/// The highest score an extender gives.
const MAX_EXTENDER_SCORE: i64 = 10;

/// What there is to ask extenders about.
#[derive(Clone, Debug)]
pub enum Survey {
    /// Nothing: no node will do.
    Decided(Decision),
    /// These nodes.
    Open(Choice),
}

/// The nodes that would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Their names, in the order in which they were found.
    pub nodes: Vec<CompactString>,
    /// Whether it is the one node on which room was made for the pod, which is taken unscored.
    pub nominated: bool,
    /// How many nodes were looked at.
    pub evaluated: usize,
}

/// What extenders said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// The nodes that they left over.
    pub kept: Vec<CompactString>,
    /// Those that they refused with a word why.
    pub vetoes: BTreeMap<CompactString, Veto>,
    /// The sums of their scores, each times its extender's weight.
    pub scores: BTreeMap<CompactString, i64>,
}

/// An extender's refusal of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veto {
    /// Its words.
    pub text: String,
    /// Whether evictions would not change its mind.
    pub unresolvable: bool,
}

/// Looks for the nodes to ask extenders about. With `nomination` it is the one on which room was
/// made for the pod, if that would do.
pub fn survey(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    rotation: &mut Rotation,
    nomination: bool,
    measure: &mut Measure<'_>,
) -> Survey {
    let all = snapshot.nodes().len();
    if all == 0 {
        return Survey::Decided(Decision::Unschedulable(Box::new(Unschedulable::no_nodes())));
    }
    let plan = match Plan::new(snapshot, pod, profile, measure) {
        Ok(plan) => plan,
        Err(rejection) => {
            return Survey::Decided(refused_as_a_whole(rejection, snapshot, pod, profile, measure));
        }
    };
    let name = |node: &NodeIndex| snapshot.node(*node).facts.name.clone();
    if let Some(node) = plan.nominated().filter(|_| nomination) {
        Found::one().tell(&plan.filters, measure);
        measure.point(ExtensionPoint::Filter, Status::Success);
        return Survey::Open(Choice { nodes: vec![name(&node)], nominated: true, evaluated: 1 });
    }
    // Without scorers one node would be enough, but for the extenders.
    let found = plan.filter(sample(plan.nodes().len(), profile), rotation, None, measure);
    if found.feasible.is_empty() {
        let diagnosis = Diagnosis::new(all, found.refusals, plan.outside(), plan.narrowed_by);
        return Survey::Decided(refused_by_nodes(&plan, diagnosis, *rotation, None, measure));
    }
    let nodes = found.feasible.iter().map(name).collect();
    Survey::Open(Choice { nodes, nominated: false, evaluated: found.evaluated })
}

/// Decides among the nodes that extenders left over and that still would do. The times taken are of
/// what follows the filters, which have been timed by [`survey`].
pub fn conclude(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    rotation: Rotation,
    choice: &Choice,
    verdicts: Verdicts,
    measure: &mut Measure<'_>,
) -> Decision {
    let all = snapshot.nodes().len();
    if all == 0 {
        return Decision::Unschedulable(Box::new(Unschedulable::no_nodes()));
    }
    let plan = match Plan::new(snapshot, pod, profile, &mut Measure::off()) {
        Ok(plan) => plan,
        Err(rejection) => return refused_as_a_whole(rejection, snapshot, pod, profile, measure),
    };
    let inside = |node: &NodeIndex| plan.nodes.as_ref().is_none_or(|set| set.contains(node));
    let kept = verdicts.kept.iter().filter_map(|name| snapshot.find(name));
    let feasible: Vec<_> =
        kept.filter(|node| inside(node) && plan.check(*node).is_none()).collect();
    let evaluated = choice.evaluated;
    match feasible.as_slice() {
        [] => {
            let mut refusals = Refusals::default();
            let mut vetoes = verdicts.vetoes;
            vetoes.retain(|name, _| snapshot.find(name).is_some_and(|node| inside(&node)));
            for node in plan.nodes() {
                if !vetoes.contains_key(&snapshot.node(*node).facts.name)
                    && let Some(rejection) = plan.check(*node)
                {
                    refusals.push(*node, rejection);
                }
            }
            let mut diagnosis = Diagnosis::new(all, refusals, plan.outside(), plan.narrowed_by);
            diagnosis.vetoes = vetoes;
            // Also of nodes that it dropped without a word.
            diagnosis.plugins.insert(Plugin::Extender);
            refused_by_nodes(&plan, diagnosis, rotation, None, measure)
        }
        [only] => {
            Decision::Bind(Placement { node: *only, evaluated, feasible: 1, best: Vec::new() })
        }
        feasible => {
            measure.skip();
            let mut scores = Scores::of(&plan, feasible, None, measure);
            if !verdicts.scores.is_empty() {
                let factor = MAX_SCORE / MAX_EXTENDER_SCORE;
                scores.add_extenders(|node| {
                    let score = verdicts.scores.get(&snapshot.node(node).facts.name);
                    score.map_or(0, |score| score.saturating_mul(factor))
                });
            }
            let best = scores.best();
            Decision::Bind(Placement {
                node: best[0].node,
                evaluated,
                feasible: feasible.len(),
                best,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, pod, sized};

    #[test]
    fn extenders_have_the_last_word() {
        let node = |name| sized(name, json!({"cpu": "4", "memory": "32Gi", "pods": "110"}));
        let small = sized("small", json!({"cpu": "1", "memory": "32Gi", "pods": "110"}));
        let nodes = [node("a"), node("b"), node("c"), small];
        let (snapshot, pod) = cluster(&nodes, &[], &pod("p", json!({"cpu": "2"})));
        let profile = Profile::default();
        let mut rotation = Rotation::default();
        let Survey::Open(choice) =
            survey(&snapshot, &pod, &profile, &mut rotation, true, &mut Measure::off())
        else {
            panic!("three would do")
        };
        assert_eq!(choice.nodes, ["a", "b", "c"]);
        assert!(!choice.nominated);
        let conclude = |kept: &[&str], vetoes: &[(&str, &str, bool)], scores: &[(&str, i64)]| {
            let verdicts = Verdicts {
                kept: kept.iter().map(|name| (*name).into()).collect(),
                vetoes: vetoes
                    .iter()
                    .map(|(name, text, unresolvable)| {
                        let veto = Veto { text: (*text).to_owned(), unresolvable: *unresolvable };
                        ((*name).into(), veto)
                    })
                    .collect(),
                scores: scores.iter().map(|(name, score)| ((*name).into(), *score)).collect(),
            };
            conclude(&snapshot, &pod, &profile, rotation, &choice, verdicts, &mut Measure::off())
        };
        for (kept, scores, chosen, extra) in [
            (&["a", "b", "c"][..], &[][..], "a", None),
            (&["b", "c"], &[], "b", None),
            // A score of 7 with a weight of 2 is worth 140.
            (&["a", "b", "c"], &[("c", 14)], "c", Some(140)),
            // Nodes that would not do, or are not there, gain nothing.
            (&["b", "small", "ghost"], &[("small", 10)], "b", None),
        ] {
            let Decision::Bind(placement) = conclude(kept, &[], scores) else { panic!("{kept:?}") };
            assert_eq!(snapshot.node(placement.node).facts.name, chosen);
            let score = placement.best.first().and_then(|best| {
                best.scores.iter().find(|(plugin, _)| *plugin == Plugin::Extender)
            });
            assert_eq!(score.map(|(_, score)| *score), extra);
        }
        let refused = conclude(&[], &[("a", "busy", false), ("b", "broken", true)], &[]);
        let Decision::Unschedulable(answer) = refused else { panic!("none is left") };
        assert_eq!(
            answer.message(),
            "0/4 nodes are available: 1 Insufficient cpu, 1 broken, 1 busy. no new claims to deallocate, preemption: 0/4 nodes are available: 1 No preemption victims found for incoming pod, 3 Preemption is not helpful for scheduling."
        );
        assert!(answer.diagnosis.plugins.contains(Plugin::Extender));
    }
}
