//! NodePorts: two pods cannot take the same port of one host.

use super::{Code, Rejection};
use crate::node::NodeInfo;
use crate::pod::{HostPort, PodInfo};
use crate::profile::Plugin;
use crate::symbols::Symbols;

pub(crate) const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

#[derive(Clone)]
pub(crate) struct State<'a> {
    wanted: &'a [HostPort],
}

impl<'a> State<'a> {
    pub(crate) fn new(pod: &'a PodInfo) -> Option<Self> {
        (!pod.host_ports.is_empty()).then_some(Self { wanted: &pod.host_ports })
    }

    pub(crate) fn check(&self, node: &NodeInfo) -> Option<Rejection> {
        conflict(self.wanted, &node.ports)?;
        Rejection::new(Plugin::NodePorts, Code::Unschedulable)
    }
}

fn conflict<'p>(wanted: &'p [HostPort], held: &[HostPort]) -> Option<&'p HostPort> {
    wanted.iter().find(|wanted| held.iter().any(|held| wanted.conflicts_with(held)))
}

impl HostPort {
    /// Whether both cannot be had on one host. Only `0.0.0.0` stands for every address.
    pub fn conflicts_with(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.any_address || other.any_address || self.address == other.address)
    }
}

pub(crate) fn explain(pod: &PodInfo, node: &NodeInfo, symbols: &Symbols) -> String {
    match conflict(&pod.host_ports, &node.ports) {
        Some(port) => {
            format!("host port {}/{} is taken", port.port, symbols.text(port.protocol))
        }
        None => REASON.to_owned(),
    }
}

/// A pod that held a wanted port went.
pub(crate) fn wakes_on_pod_gone(pod: &PodInfo, gone: &PodInfo) -> bool {
    conflict(&pod.host_ports, &gone.host_ports).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{node, pod, refusals};

    fn with_port(name: &str, port: Value) -> k8s_openapi::api::core::v1::Pod {
        let mut pod = pod(name, json!({}));
        pod.spec.as_mut().unwrap().containers[0].ports =
            Some(vec![serde_json::from_value(port).unwrap()]);
        pod
    }

    #[test]
    fn addresses_conflict_with_themselves_and_with_all() {
        let port = |ip: &str, protocol: &str, port: i32| json!({"containerPort": 1, "hostPort": port, "hostIP": ip, "protocol": protocol});
        for (held, wanted, conflict) in [
            (port("", "", 80), port("10.0.0.1", "TCP", 80), true),
            (port("10.0.0.1", "TCP", 80), port("10.0.0.2", "TCP", 80), false),
            (port("10.0.0.1", "TCP", 80), port("10.0.0.1", "TCP", 80), true),
            (port("10.0.0.1", "TCP", 80), port("0.0.0.0", "TCP", 80), true),
            (port("", "", 80), port("", "UDP", 80), false),
            (port("", "", 80), port("", "", 81), false),
            (port("::", "", 80), port("10.0.0.1", "", 80), false),
        ] {
            let nodes = [node("a", json!({}), json!({}))];
            let mut holder = with_port("holder", held.clone());
            holder.spec.as_mut().unwrap().node_name = Some("a".to_owned());
            let refused = refusals(&nodes, &[holder], &with_port("p", wanted.clone()));
            let expected =
                if conflict { vec![(Some("a"), vec![super::REASON.to_owned()])] } else { vec![] };
            assert_eq!(refused, expected, "{held} {wanted}");
        }
    }
}
