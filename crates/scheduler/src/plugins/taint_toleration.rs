//! TaintToleration: refuses nodes with hard taints the pod does not tolerate; prefers those with
//! the fewest soft ones.

use smallvec::SmallVec;

use super::{Code, Rejection};
use crate::node::{Effect, NodeFacts, NodeInfo, Taint};
use crate::pod::{PodInfo, Toleration};
use crate::profile::Plugin;
use crate::symbols::Symbols;

pub(crate) const REASON: &str = "node(s) had untolerated taint(s)";

#[derive(Clone)]
pub(crate) struct State<'a> {
    pod: &'a PodInfo,
    /// Those that can cover a PreferNoSchedule taint.
    soft: SmallVec<[Toleration; 2]>,
}

impl<'a> State<'a> {
    pub(crate) fn new(pod: &'a PodInfo) -> Self {
        let soft = pod.tolerations.iter().copied();
        let soft = soft.filter(|toleration| {
            toleration.effect.is_none_or(|effect| effect == Effect::PreferNoSchedule)
        });
        Self { pod, soft: soft.collect() }
    }

    pub(crate) fn check(&self, node: &NodeInfo) -> Option<Rejection> {
        untolerated(self.pod, &node.facts)?;
        Rejection::new(Plugin::TaintToleration, Code::UnschedulableAndUnresolvable)
    }

    /// How many soft taints the pod does not tolerate: the fewer the better.
    pub(crate) fn score(&self, node: &NodeInfo) -> i64 {
        let mut count = 0;
        for taint in &node.facts.taints {
            if taint.effect == Effect::PreferNoSchedule
                && !self.soft.iter().any(|toleration| toleration.covers(taint))
            {
                count += 1;
            }
        }
        count
    }
}

fn untolerated<'n>(pod: &PodInfo, node: &'n NodeFacts) -> Option<&'n Taint> {
    node.taints
        .iter()
        .filter(|taint| matches!(taint.effect, Effect::NoSchedule | Effect::NoExecute))
        .find(|taint| !pod.tolerates(taint))
}

pub(crate) fn explain(pod: &PodInfo, node: &NodeInfo, symbols: &Symbols) -> String {
    let refusing = node.facts.taints.iter().filter(|taint| {
        matches!(taint.effect, Effect::NoSchedule | Effect::NoExecute) && !pod.tolerates(taint)
    });
    let refusing: Vec<_> = refusing.map(|taint| taint.display(symbols)).collect();
    let taints = if refusing.len() == 1 { "taint" } else { "taints" };
    format!("does not tolerate {taints} {}", refusing.join(", "))
}

/// A node came whose taints are tolerated, or its taints became so.
pub(crate) fn wakes_on_node(pod: &PodInfo, old: Option<&NodeFacts>, new: &NodeFacts) -> bool {
    untolerated(pod, new).is_none() && old.is_none_or(|old| untolerated(pod, old).is_some())
}

/// The pod got another toleration.
pub(crate) fn wakes_on_self(old: &PodInfo, new: &PodInfo) -> bool {
    new.tolerations.iter().any(|toleration| !old.tolerations.contains(toleration))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::profile::Plugin;
    use crate::testing::{node, pod, refusals, scores};

    #[test]
    fn hard_taints_refuse_and_soft_ones_do_not() {
        for (effect, refused) in
            [("NoSchedule", true), ("NoExecute", true), ("PreferNoSchedule", false)]
        {
            let nodes = [node("a", json!({}), json!({"taints": [{"key": "k", "effect": effect}]}))];
            assert_eq!(refusals(&nodes, &[], &pod("p", json!({}))).len(), usize::from(refused));
        }
    }

    #[test]
    fn fewer_soft_taints_score_higher() {
        let soft = |keys: &[&str]| {
            let taints: Vec<_> =
                keys.iter().map(|key| json!({"key": key, "effect": "PreferNoSchedule"})).collect();
            json!({"taints": taints})
        };
        let nodes = [
            node("a", json!({}), soft(&[])),
            node("b", json!({}), soft(&["x"])),
            node("c", json!({}), soft(&["x", "y", "z"])),
        ];
        let mut pod = pod("p", json!({}));
        assert_eq!(scores(&nodes, &[], &pod, Plugin::TaintToleration), [300, 201, 0]);
        let toleration = json!({"key": "y", "operator": "Exists", "effect": "NoSchedule"});
        pod.spec.as_mut().unwrap().tolerations = serde_json::from_value(json!([toleration])).ok();
        let unchanged = scores(&nodes, &[], &pod, Plugin::TaintToleration);
        assert_eq!(unchanged, [300, 201, 0], "a toleration of another effect says nothing");
    }
}
