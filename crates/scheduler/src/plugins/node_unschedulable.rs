//! NodeUnschedulable: nothing new on a cordoned node, but for pods that tolerate the taint which
//! stands for it.

use wharf_model::labels::TAINT_UNSCHEDULABLE;

use super::{Code, Rejection};
use crate::node::{Effect, NodeFacts, NodeInfo, Taint};
use crate::pod::PodInfo;
use crate::profile::Plugin;
use crate::snapshot::Snapshot;
use crate::symbols::Symbol;

pub(crate) const REASON: &str = "node(s) were unschedulable";

#[derive(Clone)]
pub(crate) struct State {
    tolerated: bool,
}

impl State {
    pub(crate) fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        Self { tolerated: tolerates(pod, snapshot) }
    }

    pub(crate) fn check(&self, node: &NodeInfo) -> Option<Rejection> {
        if !node.facts.unschedulable || self.tolerated {
            return None;
        }
        Rejection::new(Plugin::NodeUnschedulable, Code::UnschedulableAndUnresolvable)
    }
}

fn tolerates(pod: &PodInfo, snapshot: &Snapshot) -> bool {
    pod.tolerations.iter().any(|toleration| {
        // The key need not be interned: a toleration that names it has interned it.
        let key = toleration.key;
        let named = key != Symbol::EMPTY && snapshot.symbols().text(key) == TAINT_UNSCHEDULABLE;
        let taint = Taint {
            key: if named { key } else { Symbol::EMPTY },
            value: Symbol::EMPTY,
            effect: Effect::NoSchedule,
        };
        (named || key == Symbol::EMPTY) && toleration.covers(&taint)
    })
}

/// A schedulable node came, or a cordon went.
pub(crate) fn wakes_on_node(old: Option<&NodeFacts>, new: &NodeFacts) -> bool {
    !new.unschedulable && old.is_none_or(|old| old.unschedulable)
}

/// The pod learned to tolerate the cordon.
pub(crate) fn wakes_on_self(old: &PodInfo, new: &PodInfo, snapshot: &Snapshot) -> bool {
    !tolerates(old, snapshot) && tolerates(new, snapshot)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{node, pod, refusals};

    #[test]
    fn a_cordon_keeps_out_who_does_not_tolerate_it() {
        let nodes = [node("a", json!({}), json!({"unschedulable": true}))];
        let mut pod = pod("p", json!({}));
        assert_eq!(refusals(&nodes, &[], &pod), [(Some("a"), vec![super::REASON.to_owned()])]);
        for toleration in [
            json!({"operator": "Exists"}),
            json!({"key": super::TAINT_UNSCHEDULABLE, "operator": "Exists", "effect": "NoSchedule"}),
        ] {
            pod.spec.as_mut().unwrap().tolerations =
                Some(vec![serde_json::from_value(toleration).unwrap()]);
            assert_eq!(refusals(&nodes, &[], &pod), []);
        }
    }
}
