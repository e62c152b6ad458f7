//! NodeDeclaredFeatures: nodes that declare the features a pod needs.
//!
//! Two features follow from a pod's spec in 1.36; the others that nodes declare matter to
//! updates of running pods only.

use k8s_openapi::api::core::v1::Pod;
use smallvec::SmallVec;

use super::{Code, Rejection};
use crate::node::{NodeFacts, NodeInfo};
use crate::pod::PodInfo;
use crate::profile::Plugin;
use crate::symbols::{Symbol, Symbols};

pub(crate) const REASON: &str = "node(s) didn't match Pod's required features";

const RESTART_ALL_CONTAINERS: &str = "RestartAllContainersOnContainerExits";
const USER_NAMESPACES_HOST_NETWORK: &str = "UserNamespacesHostNetworkSupport";

/// The features that follow from a pod's spec.
pub(crate) fn required_by(pod: &Pod, symbols: &mut Symbols) -> SmallVec<[Symbol; 0]> {
    let mut features = SmallVec::new();
    let Some(spec) = pod.spec.as_ref() else { return features };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut rules =
        containers.flat_map(|container| container.restart_policy_rules.iter().flatten());
    if rules.any(|rule| rule.action == "RestartAllContainers") {
        features.push(symbols.intern(RESTART_ALL_CONTAINERS));
    }
    if spec.host_network == Some(true) && spec.host_users == Some(false) {
        features.push(symbols.intern(USER_NAMESPACES_HOST_NETWORK));
    }
    features
}

#[derive(Clone)]
pub(crate) struct State<'a> {
    required: &'a [Symbol],
}

impl<'a> State<'a> {
    pub(crate) fn new(pod: &'a PodInfo) -> Option<Self> {
        let required = pod.features.as_slice();
        (!required.is_empty()).then_some(Self { required })
    }

    pub(crate) fn check(&self, node: &NodeInfo) -> Option<Rejection> {
        if self.required.iter().all(|feature| node.facts.features.contains(feature)) {
            return None;
        }
        Rejection::new(Plugin::NodeDeclaredFeatures, Code::UnschedulableAndUnresolvable)
    }
}

/// Names what the node does not declare.
pub(crate) fn explain(pod: &PodInfo, node: &NodeInfo, symbols: &Symbols) -> String {
    let missing = pod.features.iter().filter(|feature| !node.facts.features.contains(feature));
    let missing: Vec<_> = missing.map(|feature| symbols.text(*feature)).collect();
    format!("does not declare the feature {}", missing.join(", "))
}

/// A node came, or declares other features.
pub(crate) fn wakes_on_node(old: Option<&NodeFacts>, new: &NodeFacts) -> bool {
    old.is_none_or(|old| old.features != new.features)
}

/// The waiting pod needs other features.
pub(crate) fn wakes_on_self(old: &PodInfo, new: &PodInfo) -> bool {
    old.features != new.features
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{node, pod, refusals};

    #[test]
    fn only_nodes_that_declare_what_the_spec_needs_will_do() {
        let mut plain = node("plain", json!({}), json!({}));
        plain.status.as_mut().unwrap().declared_features = Some(vec!["Other".to_owned()]);
        let mut able = plain.clone();
        able.metadata.name = Some("able".to_owned());
        able.status.as_mut().unwrap().declared_features =
            Some(vec!["Other".to_owned(), RESTART_ALL_CONTAINERS.to_owned()]);
        let nodes = [plain, able];
        let with = |rules: Value| {
            let mut pod = pod("p", json!({}));
            pod.spec.as_mut().unwrap().containers[0].restart_policy_rules =
                serde_json::from_value(rules).unwrap();
            pod
        };
        let restart = with(json!([{"action": "RestartAllContainers"}]));
        let expected = vec![(Some("plain"), vec![REASON.to_owned()])];
        assert_eq!(refusals(&nodes, &[], &restart), expected);
        assert_eq!(refusals(&nodes, &[], &with(json!([{"action": "Restart"}]))), []);
        let mut shared = pod("p", json!({}));
        let spec = shared.spec.as_mut().unwrap();
        spec.host_network = Some(true);
        assert_eq!(refusals(&nodes, &[], &shared), []);
        shared.spec.as_mut().unwrap().host_users = Some(false);
        assert_eq!(refusals(&nodes, &[], &shared).len(), 2);
    }
}
