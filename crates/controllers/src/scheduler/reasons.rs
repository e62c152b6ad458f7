//! Decisions of the scheduler as `wharf why` tells them.

use k8s_openapi::api::core::v1::Pod;
use wharf_model::kinds::Kind;
use wharf_ports::reason::{Because, Reason};
use wharf_scheduler::{Memo, Placement, Plugin, PluginSet, PodInfo, Snapshot, Unschedulable};

use super::cycle::Refused;

const BY: &str = "scheduler";

/// Why a pod goes where it goes: how many nodes would do, and the scores of the best.
pub(super) fn placed(pod: &PodInfo, placement: &Placement, snapshot: &Snapshot) -> Reason {
    let name = &snapshot.node(placement.node).facts.name;
    let mut because = vec![Because::new("nodes", choice(placement))];
    for candidate in &placement.best {
        let scores = candidate.scores.iter().map(|(plugin, score)| (plugin.name().into(), *score));
        because.push(Because::scored(
            snapshot.node(candidate.node).facts.name.to_string(),
            candidate.total,
            scores.collect(),
        ));
    }
    reason(pod, format!("goes to node {name}"), because)
}

fn choice(placement: &Placement) -> String {
    match placement.feasible {
        1 => format!("the only one of {} looked at that will do", placement.evaluated),
        feasible => format!("{feasible} of {} looked at will do", placement.evaluated),
    }
}

/// Why no node takes a pod: what stood against it, and what evictions would bring.
pub(super) fn refused(pod: &PodInfo, refused: &Refused) -> Reason {
    let mut because = refused.obstacles.clone();
    let rule = Plugin::DefaultPreemption.name();
    if let Some(room) = &refused.room {
        let victims: Vec<_> = room.victims.iter().map(|pod| pod.key.to_string()).collect();
        because
            .push(Because::new(rule, format!("evicts {} from {}", victims.join(", "), room.node)));
    } else if let Some(message) = refused.of_preemption() {
        because.push(Because::new(rule, message.to_owned()));
    }
    reason(pod, format!("stays pending: {}", refused.summary()), because)
}

/// The rules against a pod, with the number of nodes each kept out and the closest node's numbers.
pub(super) fn obstacles(
    pod: &PodInfo,
    answer: &Unschedulable,
    memo: &mut Memo,
    snapshot: &Snapshot,
) -> Vec<Because> {
    let mut because = Vec::new();
    if let Some(rejection) = &answer.diagnosis.prefilter {
        because.push(Because::new(rejection.plugin.name(), rejection.message.clone()));
    }
    for group in answer.diagnosis.explain_with(memo, pod, snapshot) {
        let says = match &group.closest {
            Some(closest) if group.nodes == 1 => format!("{closest}: {}", group.says),
            Some(closest) => {
                format!("{} nodes; closest is {closest}: {}", group.nodes, group.says)
            }
            None => format!("{} nodes: {}", group.nodes, group.says),
        };
        because.push(Because::new(group.plugin.name(), says));
    }
    because
}

/// Why a pod does not go to the node that had been chosen for it.
pub(super) fn rejected(pod: &PodInfo, by: PluginSet, message: &str) -> Reason {
    let because = by.iter().map(|plugin| Because::new(plugin.name(), message.to_owned())).collect();
    reason(pod, format!("stays pending: {message}"), because)
}

/// Why a pod that has a place is not bound yet: its group is not complete.
pub(super) fn waits(
    pod: &PodInfo,
    node: &str,
    group: &str,
    placed: usize,
    needed: usize,
) -> Reason {
    let says = format!("pod group {group} has places for {placed} of {needed} pods");
    let because = vec![Because::new(Plugin::GangScheduling.name(), says)];
    reason(pod, format!("waits at node {node} for the others of its group"), because)
}

fn reason(pod: &PodInfo, decision: String, because: Vec<Because>) -> Reason {
    Reason { kind: Kind::of::<Pod>(), key: pod.key.clone(), by: BY, decision, because }
}
