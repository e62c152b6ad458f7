//! NodeName: a pod that names its node runs there or nowhere.

use super::{Code, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::profile::Plugin;

pub(crate) const REASON: &str = "node(s) didn't match the requested node name";

#[derive(Clone)]
pub(crate) struct State<'a> {
    name: &'a str,
}

impl<'a> State<'a> {
    pub(crate) fn new(pod: &'a PodInfo) -> Option<Self> {
        (!pod.node_name.is_empty()).then_some(Self { name: &pod.node_name })
    }

    pub(crate) fn check(&self, node: &NodeInfo) -> Option<Rejection> {
        if node.facts.name == self.name {
            return None;
        }
        Rejection::new(Plugin::NodeName, Code::UnschedulableAndUnresolvable)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{node, pod, refusals};

    #[test]
    fn only_the_named_node_will_do() {
        let mut pod = pod("p", json!({}));
        pod.spec.as_mut().unwrap().node_name = Some("b".to_owned());
        let nodes = [node("a", json!({}), json!({})), node("b", json!({}), json!({}))];
        assert_eq!(refusals(&nodes, &[], &pod), [(Some("a"), vec![super::REASON.to_owned()])]);
    }
}
