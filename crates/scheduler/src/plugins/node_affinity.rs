//! NodeAffinity: node selectors, required and preferred node affinity, and the affinity a profile
//! adds to every pod.

use super::{Code, PreFilterRejection, Rejection};
use crate::node::NodeInfo;
use crate::pod::{NodeAffinity, PodInfo};
use crate::profile::{Plugin, Profile};
use crate::snapshot::Snapshot;
use crate::symbols::{Symbol, Symbols, label};

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";
const REASON_ENFORCED: &str = "node(s) didn't match scheduler-enforced node affinity";
const REASON_CONFLICT: &str = "pod affinity terms conflict";

const ENFORCED: u64 = 1;

pub(crate) fn reason(detail: u64) -> &'static str {
    if detail == ENFORCED { REASON_ENFORCED } else { REASON }
}

#[derive(Clone)]
pub(crate) struct State<'a> {
    own: &'a NodeAffinity,
    added: Option<&'a NodeAffinity>,
    symbols: &'a Symbols,
}

impl<'a> State<'a> {
    pub(crate) fn new(
        pod: &'a PodInfo,
        profile: &'a Profile,
        snapshot: &'a Snapshot,
    ) -> Option<Self> {
        let own = &pod.affinity;
        let added = profile.added_affinity.as_deref();
        let speaks = !own.selector.is_empty() || own.required.is_some();
        (speaks || added.is_some()).then_some(Self { own, added, symbols: snapshot.symbols() })
    }

    pub(crate) fn for_scores(
        pod: &'a PodInfo,
        profile: &'a Profile,
        snapshot: &'a Snapshot,
    ) -> Option<Self> {
        let own = &pod.affinity;
        let added = profile.added_affinity.as_deref();
        let speaks =
            !own.preferred.is_empty() || added.is_some_and(|added| !added.preferred.is_empty());
        speaks.then_some(Self { own, added, symbols: snapshot.symbols() })
    }

    pub(crate) fn check(&self, node: &NodeInfo) -> Option<Rejection> {
        let code = Code::UnschedulableAndUnresolvable;
        if self.added.is_some_and(|added| !added.admits(node, self.symbols)) {
            return Some(Rejection { plugin: Plugin::NodeAffinity, code, detail: ENFORCED });
        }
        if self.own.admits(node, self.symbols) {
            return None;
        }
        Rejection::new(Plugin::NodeAffinity, code)
    }

    /// The sum of the weights of preferred terms that match.
    pub(crate) fn score(&self, node: &NodeInfo) -> i64 {
        let preferred = self.own.preferred.iter();
        preferred
            .chain(self.added.into_iter().flat_map(|added| added.preferred.iter()))
            .filter(|(_, term)| term.matches(node, self.symbols))
            .map(|(weight, _)| weight)
            .sum()
    }
}

impl NodeAffinity {
    /// Whether selector and required terms let the pod run on the node.
    pub fn admits(&self, node: &NodeInfo, symbols: &Symbols) -> bool {
        self.selector.iter().all(|(key, value)| label(&node.facts.labels, *key) == Some(*value))
            && self
                .required
                .as_deref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(node, symbols)))
    }
}

/// PreFilter: when every required term names nodes, only those are looked at.
pub(crate) fn node_set(pod: &PodInfo) -> Result<Option<Vec<Symbol>>, PreFilterRejection> {
    let Some(terms) = pod.affinity.required.as_deref().filter(|terms| !terms.is_empty()) else {
        return Ok(None);
    };
    let mut names: Vec<Symbol> = Vec::new();
    for term in terms {
        let Some(pinned) = term.pinned() else { return Ok(None) };
        names.extend(pinned);
    }
    if names.is_empty() {
        return Err(PreFilterRejection {
            plugin: Plugin::NodeAffinity,
            code: Code::UnschedulableAndUnresolvable,
            message: REASON_CONFLICT.into(),
        });
    }
    names.sort_unstable();
    names.dedup();
    Ok(Some(names))
}

/// A matching node came, or a node's labels became matching.
pub(crate) fn wakes_on_node(
    pod: &PodInfo,
    old: Option<&NodeInfo>,
    new: &NodeInfo,
    symbols: &Symbols,
) -> bool {
    pod.affinity.admits(new, symbols) && old.is_none_or(|old| !pod.affinity.admits(old, symbols))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{node, pod, refusals, scores};

    fn affine(required: Value, preferred: Value) -> k8s_openapi::api::core::v1::Pod {
        let mut pod = pod("p", json!({}));
        let affinity = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": required,
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
        }});
        pod.spec.as_mut().unwrap().affinity = serde_json::from_value(affinity).unwrap();
        pod
    }

    fn zones() -> Vec<k8s_openapi::api::core::v1::Node> {
        ["a", "b", "c"].map(|zone| node(zone, json!({"labels": {"zone": zone}}), json!({}))).into()
    }

    fn zone(name: &str) -> Value {
        json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [name]}]})
    }

    fn refused(pod: &k8s_openapi::api::core::v1::Pod) -> Vec<(Option<&'static str>, Vec<String>)> {
        refusals(&zones(), &[], pod)
            .into_iter()
            .map(|(name, reasons)| {
                (["a", "b", "c"].into_iter().find(|known| name == Some(known)), reasons)
            })
            .collect()
    }

    #[test]
    fn selector_and_required_terms_are_anded_and_terms_are_ored() {
        let mut pod = affine(json!({"nodeSelectorTerms": [zone("a"), zone("b"), {}]}), json!(null));
        assert_eq!(refused(&pod), [(Some("c"), vec![REASON.to_owned()])]);
        pod.spec.as_mut().unwrap().node_selector =
            Some([("zone".to_owned(), "b".to_owned())].into());
        assert_eq!(refused(&pod).len(), 2);
    }

    #[test]
    fn terms_that_all_name_nodes_narrow_the_search() {
        let field = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        let pod = affine(json!({"nodeSelectorTerms": [field("b"), field("gone")]}), json!(null));
        let outside = "node(s) didn't satisfy plugin(s) [NodeAffinity]".to_owned();
        assert_eq!(refused(&pod), [(Some("a"), vec![outside.clone()]), (Some("c"), vec![outside])]);
        let pod = affine(json!({"nodeSelectorTerms": [field("b"), zone("a")]}), json!(null));
        assert_eq!(refused(&pod), [(Some("c"), vec![REASON.to_owned()])]);
        let both =
            json!({"matchFields": [field("a")["matchFields"][0], field("b")["matchFields"][0]]});
        let pod = affine(json!({"nodeSelectorTerms": [both]}), json!(null));
        assert_eq!(refused(&pod), [(None, vec![REASON_CONFLICT.to_owned()])]);
    }

    #[test]
    fn preferred_terms_add_their_weights() {
        let preferred = json!([
            {"weight": 10, "preference": zone("b")}, {"weight": 30, "preference": zone("c")},
        ]);
        let pod = affine(json!(null), preferred);
        assert_eq!(scores(&zones(), &[], &pod, Plugin::NodeAffinity), [0, 66, 200]);
    }
}
