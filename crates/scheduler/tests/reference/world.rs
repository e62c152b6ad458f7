//! A cluster as plain numbers, and the API's objects for it.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

pub(crate) const HARD: &str = "hard";
pub(crate) const GPU: &str = "example.com/gpu";

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) cpu: i64,
    pub(crate) memory: i64,
    pub(crate) slots: i64,
    pub(crate) gpu: i64,
    pub(crate) zone: u8,
    pub(crate) hard_taint: bool,
    pub(crate) soft_taints: u8,
    pub(crate) cordoned: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) cpu: Option<i64>,
    pub(crate) memory: Option<i64>,
    pub(crate) gpu: i64,
    /// A port of the host; 0 for none.
    pub(crate) port: u16,
    /// Of hard taints and cordons, and of the first soft taint.
    pub(crate) tolerant: bool,
    /// The zone where it has to run. Nobody is in the fourth.
    pub(crate) zone: Option<u8>,
    /// Zones it would like with weights.
    pub(crate) preferred: Vec<(i64, u8)>,
    pub(crate) app: u8,
    pub(crate) priority: i32,
    pub(crate) started: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Resident {
    pub(crate) number: usize,
    pub(crate) task: Task,
    pub(crate) machine: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Budget {
    pub(crate) app: u8,
    pub(crate) allowed: i64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) machines: Vec<Machine>,
    pub(crate) residents: Vec<Resident>,
    pub(crate) nominated: Vec<Resident>,
    pub(crate) budgets: Vec<Budget>,
    /// Where the search begins.
    pub(crate) start: usize,
}

impl Machine {
    pub(crate) fn node(&self, index: usize) -> Node {
        let soft = (0..self.soft_taints).map(|index| (format!("soft{index}"), "PreferNoSchedule"));
        let hard = self.hard_taint.then(|| (HARD.to_owned(), "NoSchedule"));
        let taints: Vec<_> =
            soft.chain(hard).map(|(key, effect)| json!({"key": key, "effect": effect})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": format!("n{index}"), "labels": {"topology.kubernetes.io/zone": zone(self.zone)}},
            "spec": {"taints": taints, "unschedulable": self.cordoned},
            "status": {"allocatable": {
                "cpu": format!("{}m", self.cpu), "memory": self.memory.to_string(),
                "pods": self.slots.to_string(), GPU: self.gpu.to_string(),
            }}
        }))
        .unwrap()
    }
}

impl Task {
    pub(crate) fn pod(&self, number: usize, nominated: Option<usize>) -> Pod {
        let mut requests = json!({});
        if let Some(cpu) = self.cpu {
            requests["cpu"] = json!(format!("{cpu}m"));
        }
        if let Some(memory) = self.memory {
            requests["memory"] = json!(memory.to_string());
        }
        if self.gpu > 0 {
            requests[GPU] = json!(self.gpu.to_string());
        }
        let port = json!({"containerPort": 1, "hostPort": self.port});
        let ports: Vec<_> = (self.port > 0).then_some(port).into_iter().collect();
        let tolerations = if self.tolerant {
            json!([
                {"key": HARD, "operator": "Exists"},
                {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"},
                {"key": "soft0", "operator": "Exists"},
            ])
        } else {
            json!([])
        };
        let selector: Value = match self.zone {
            Some(number) => json!({"topology.kubernetes.io/zone": zone(number)}),
            None => json!({}),
        };
        let preferred: Vec<_> = self
            .preferred
            .iter()
            .map(|(weight, number)| json!({"weight": weight, "preference": {"matchExpressions": [
                {"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone(*number)]}
            ]}}))
            .collect();
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{number}"), "namespace": "default", "labels": {"app": format!("a{}", self.app)}},
            "spec": {
                "priority": self.priority,
                "tolerations": tolerations,
                "nodeSelector": selector,
                "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}},
                "containers": [{"name": "c", "ports": ports, "resources": {"requests": requests}}],
            },
            "status": {
                "startTime": format!("2026-01-01T00:00:{:02}Z", self.started),
                "nominatedNodeName": nominated.map(|machine| format!("n{machine}")),
            },
        }))
        .unwrap()
    }
}

impl Budget {
    pub(crate) fn object(&self) -> PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": {"name": format!("b{}", self.app), "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": format!("a{}", self.app)}}},
            "status": {"disruptionsAllowed": self.allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
        }))
        .unwrap()
    }
}

fn zone(number: u8) -> String {
    format!("zone-{number}")
}
