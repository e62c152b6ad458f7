//! EKS' node monitoring agent, which says of its node whether kernel, network, storage, container runtime
//! and accelerators work. It runs on Auto Mode's nodes, on those of node groups with node repair, and,
//! where Karpenter's is switched on, on Karpenter's.
//!
//! In a simulated node nothing breaks by itself: an annotation says what is broken
//! ([`wharf_model::node_health`]). <https://docs.aws.amazon.com/eks/latest/userguide/node-health.html>

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::node_health::{MONITORED, Monitored, faults};
use wharf_model::nodegroup::{LABEL as GROUP_LABEL, Nodegroup};
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::view::View;

/// The label and value of Auto Mode's nodes.
const AUTO: (&str, &str) = ("eks.amazonaws.com/compute-type", "auto");
/// What a node with accelerators has.
const ACCELERATORS: [&str; 2] = ["nvidia.com/gpu", "aws.amazon.com/neuron"];

/// The agents of all nodes.
#[derive(Debug, Default)]
pub struct MonitoringAgent {
    /// Whether it runs on Karpenter's own nodes too.
    on_karpenters: bool,
}

impl MonitoringAgent {
    /// Agents; on Karpenter's own nodes where its node repair is switched on.
    pub fn new(on_karpenters: bool) -> Self {
        Self { on_karpenters }
    }

    fn runs_on(&self, node: &Node, view: &View) -> bool {
        let Some(of_node) = &node.metadata.labels else { return false };
        if of_node.get(AUTO.0).is_some_and(|value| value == AUTO.1) {
            return true;
        }
        if let Some(name) = of_node.get(GROUP_LABEL) {
            let group = view.list::<Nodegroup>().find(|group| group.spec.name == *name);
            let config = group.and_then(|group| group.spec.node_repair_config.as_ref());
            return config.is_some_and(|config| config.enabled == Some(true));
        }
        self.on_karpenters && of_node.contains_key(labels::NODEPOOL)
    }
}

impl Controller for MonitoringAgent {
    fn name(&self) -> &'static str {
        "eks-node-monitoring-agent"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(&[
            ("", "nodes"),
            ("sim.wharf.dev", "instances"),
            ("eks.services.k8s.aws", "nodegroups"),
        ])
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let nodes = Kind::of::<Node>();
        if change.kind() == nodes && change.new.is_some() {
            let node = change.object().typed::<Node>();
            if node.is_some_and(|node| self.runs_on(node, view)) {
                queue.now(WorkKey::object(nodes, change.key()));
            }
        } else if change.kind() == Kind::of::<Nodegroup>() {
            let Some(group) = change.object().typed::<Nodegroup>() else { return };
            for object in view.objects(nodes) {
                if object.header().label(GROUP_LABEL) == Some(group.spec.name.as_str()) {
                    queue.now(WorkKey::object(nodes, object.key()));
                }
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let (view, now) = (context.view, context.now);
        let Some(node) = view.get::<Node>(&key.key).filter(|node| self.runs_on(node, view)) else {
            return Step::done();
        };
        let Some(machine) = machine_of(node, view) else { return Step::done() };
        if !matches!(machine.status.state, InstanceState::Pending | InstanceState::Running) {
            return Step::done();
        }
        // It starts with the other pods and processes of the node, when that is ready.
        let ready = Time::from_nanos(machine.status.ready_at_nanos);
        if now < ready {
            return Step::again_after(ready.since(now));
        }
        let mut step = Step::done();
        let mut draft = node.clone();
        let conditions = draft.status.get_or_insert_default().conditions.get_or_insert_default();
        let mut has_changed = false;
        for condition in said(node, now) {
            match conditions.iter_mut().find(|one| one.type_ == condition.type_) {
                Some(one) if one.status == condition.status && one.reason == condition.reason => {}
                Some(one) => {
                    *one = condition;
                    has_changed = true;
                }
                None => {
                    conditions.push(condition);
                    has_changed = true;
                }
            }
        }
        if has_changed {
            step.write(Write::Update { object: Box::new(draft), part: Part::Status });
        }
        step
    }
}

/// What the agent says of its node at `now`.
fn said(node: &Node, now: Time) -> Vec<NodeCondition> {
    let faults = faults(node.metadata.annotations.as_ref());
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    let has_accelerators = capacity.is_some_and(|capacity| {
        ACCELERATORS.iter().any(|name| capacity.get(*name).is_some_and(|n| n.0 != "0"))
    });
    let of = |monitored: &Monitored| {
        let fault = faults.get(monitored.condition);
        let (status, reason, message) = match fault {
            None => ("True", monitored.healthy, monitored.message()),
            Some(reason) => ("False", *reason, format!("{reason} was found on the node")),
        };
        NodeCondition {
            type_: monitored.condition.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(now.to_meta()),
            last_transition_time: Some(now.to_meta()),
        }
    };
    let monitored = MONITORED.iter().filter(|one| {
        !one.is_for_accelerators || has_accelerators || faults.contains_key(one.condition)
    });
    monitored.map(of).collect()
}

fn machine_of<'v>(node: &Node, view: &'v View) -> Option<&'v Instance> {
    let provider_id = node.spec.as_ref()?.provider_id.as_deref()?;
    let (_, id) = provider_id.rsplit_once('/')?;
    view.get::<Instance>(&ObjectKey::cluster(id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(node: serde_json::Value) -> Vec<String> {
        let node: Node = serde_json::from_value(node).expect("a node");
        let text = |one: NodeCondition| {
            format!("{} {} {}", one.type_, one.status, one.reason.unwrap_or_default())
        };
        said(&node, Time::EPOCH).into_iter().map(text).collect()
    }

    #[test]
    fn it_says_that_all_is_well_but_for_what_is_broken() {
        assert_eq!(
            told(json!({})),
            [
                "KernelReady True KernelIsReady",
                "NetworkingReady True NetworkingIsReady",
                "StorageReady True DiskIsReady",
                "ContainerRuntimeReady True ContainerRuntimeIsReady",
            ]
        );
        let gpu = json!({
            "metadata": {"annotations": {"sim.wharf.dev/fail": "AcceleratedHardwareReady=NvidiaXID48Error,StorageReady"}},
            "status": {"capacity": {"nvidia.com/gpu": "1"}},
        });
        let gpu = told(gpu);
        assert_eq!(gpu[4], "AcceleratedHardwareReady False NvidiaXID48Error");
        assert!(gpu[2].starts_with("StorageReady False "));
        assert_eq!(gpu[0], "KernelReady True KernelIsReady");
    }
}
