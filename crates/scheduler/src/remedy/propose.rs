//! What could be changed about a refusal. Each proposal would silence one plugin on one node; what
//! the others then say is found out by trying.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm};
use wharf_model::resources::{CPU, EPHEMERAL_STORAGE, MEMORY, PODS};
use wharf_model::storage::claim_name;

use super::change::Change;
use crate::node::{Effect, NodeInfo};
use crate::plugins::{Rejection, node_resources_fit};
use crate::pod::{HostPort, PodInfo};
use crate::profile::Plugin;
use crate::symbols::{Symbols, label};

/// Taints that say that a node cannot run pods, or soon will not. To tolerate them is no remedy.
const SICK: [&str; 4] = [
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "karpenter.sh/disrupted",
    "karpenter.sh/unregistered",
];

/// Alternatives, each a set of changes that go together.
pub(super) type Proposals = Vec<Vec<Change>>;

/// What could be changed for a node that refuses.
pub(super) fn for_node(
    rejection: &Rejection,
    pod: &Pod,
    info: &PodInfo,
    node: &NodeInfo,
    symbols: &Symbols,
) -> Proposals {
    if let Some(plugins) = rejection.narrowed_by() {
        return plugins.iter().flat_map(|plugin| for_pod(plugin, pod)).collect();
    }
    match rejection.plugin {
        Plugin::NodeUnschedulable => {
            vec![vec![Change::Uncordon { node: node.facts.name.clone() }]]
        }
        Plugin::TaintToleration => tolerations(info, node, symbols).into_iter().collect(),
        Plugin::NodeAffinity => vec![selection(info, node, symbols)],
        Plugin::NodePorts => ports(info, node, symbols),
        Plugin::NodeResourcesFit => resources(rejection, info, node),
        Plugin::PodTopologySpread => spread(pod),
        Plugin::InterPodAffinity => affinity(rejection, pod, info),
        plugin => for_pod(plugin, pod),
    }
}

/// What could be changed about the pod, whatever the node.
pub(super) fn for_pod(plugin: Plugin, pod: &Pod) -> Proposals {
    let Some(spec) = pod.spec.as_ref() else { return Vec::new() };
    match plugin {
        Plugin::NodeAffinity => vec![vec![Change::NodeAffinity]],
        Plugin::VolumeBinding
        | Plugin::VolumeZone
        | Plugin::VolumeRestrictions
        | Plugin::NodeVolumeLimits => {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let volumes = spec.volumes.iter().flatten();
            volumes
                .filter_map(|volume| claim_name(name, volume))
                .map(|claim| vec![Change::Volume { claim }])
                .collect()
        }
        Plugin::DynamicResources => {
            let claims = spec.resource_claims.iter().flatten();
            claims.map(|own| vec![Change::Device { claim: own.name.clone() }]).collect()
        }
        _ => Vec::new(),
    }
}

/// Every taint in the way, unless one of them says that the node is not well.
fn tolerations(info: &PodInfo, node: &NodeInfo, symbols: &Symbols) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    for taint in &node.facts.taints {
        let refuses = matches!(taint.effect, Effect::NoSchedule | Effect::NoExecute);
        if !refuses || info.tolerates(taint) {
            continue;
        }
        let key = symbols.text(taint.key);
        if SICK.iter().any(|prefix| key.starts_with(prefix)) {
            return None;
        }
        changes.push(Change::Tolerate {
            key: key.to_owned(),
            value: symbols.text(taint.value).to_owned(),
            effect: taint.effect.word(),
        });
    }
    Some(changes)
}

fn selection(info: &PodInfo, node: &NodeInfo, symbols: &Symbols) -> Vec<Change> {
    let own = &info.affinity;
    let mut changes: Vec<_> = own
        .selector
        .iter()
        .filter(|(key, value)| label(&node.facts.labels, *key) != Some(*value))
        .map(|(key, value)| Change::NodeSelector {
            key: symbols.text(*key).to_owned(),
            value: symbols.text(*value).to_owned(),
        })
        .collect();
    let required = own.required.as_deref();
    if required.is_some_and(|terms| !terms.iter().any(|term| term.matches(node, symbols))) {
        changes.push(Change::NodeAffinity);
    }
    changes
}

fn ports(info: &PodInfo, node: &NodeInfo, symbols: &Symbols) -> Proposals {
    let taken = |wanted: &&HostPort| node.ports.iter().any(|held| wanted.conflicts_with(held));
    let without = info.host_ports.iter().filter(taken).map(|wanted| Change::HostPort {
        port: wanted.port,
        protocol: symbols.text(wanted.protocol).to_owned(),
    });
    let mut proposals = vec![without.collect()];
    let holds = |other: &&Arc<PodInfo>| {
        let mut pairs = info.host_ports.iter().filter(taken);
        pairs.all(|wanted| other.host_ports.iter().any(|held| wanted.conflicts_with(held)))
    };
    proposals.extend(node.pods.iter().find(holds).map(|holder| vec![gone(holder, node, info)]));
    proposals
}

/// That a pod goes from its node.
pub(super) fn gone(other: &PodInfo, node: &NodeInfo, waits: &PodInfo) -> Change {
    Change::PodGone {
        pod: other.key.clone(),
        node: node.facts.name.clone(),
        outranks: other.priority > waits.priority,
    }
}

/// To ask for what is free; or that the least important pod goes without which it would fit.
fn resources(rejection: &Rejection, info: &PodInfo, node: &NodeInfo) -> Proposals {
    let missing = node_resources_fit::missing(rejection.detail, info);
    let free = |name: &str| node.facts.allocatable.get(name) - node.requested.get(name);
    let asked = &info.amounts.requests;
    let mut proposals = Vec::new();
    let less: Option<Vec<_>> = missing
        .iter()
        .map(|name| {
            let to = whole(name, free(name));
            (*name != PODS && to > 0).then(|| Change::Request {
                resource: (*name).into(),
                from: asked.get(name),
                to,
            })
        })
        .collect();
    proposals.extend(less);
    let enough = |other: &PodInfo| {
        let gained = &other.amounts.requests;
        missing.iter().all(|name| free(name) + gained.get(name) >= asked.get(name))
    };
    let goes = node.pods.iter().filter(|other| enough(other)).min_by_key(|other| {
        (other.priority, other.amounts.requests.get(CPU), Reverse(other.started), &other.key)
    });
    proposals.extend(goes.map(|other| vec![gone(other, node, info)]));
    proposals
}

/// Bytes are advised in whole mebibytes: nobody writes others.
fn whole(name: &str, amount: i64) -> i64 {
    match name {
        MEMORY | EPHEMERAL_STORAGE if amount >= 1 << 20 => amount >> 20 << 20,
        _ => amount,
    }
}

fn spread(pod: &Pod) -> Proposals {
    let spec = pod.spec.as_ref();
    let constraints =
        spec.into_iter().flat_map(|own| own.topology_spread_constraints.iter().flatten());
    constraints
        .enumerate()
        .filter(|(_, constraint)| constraint.when_unsatisfiable == "DoNotSchedule")
        .map(|(index, constraint)| {
            vec![Change::Spread {
                index,
                key: constraint.topology_key.clone(),
                from: constraint.max_skew,
                to: None,
            }]
        })
        .collect()
}

/// The pod's own terms. Which other pod may be in the way is found out by trying.
fn affinity(rejection: &Rejection, pod: &Pod, info: &PodInfo) -> Proposals {
    let all = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let near = all.and_then(|all| all.pod_affinity.as_ref());
    let near =
        near.and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref());
    let away = all.and_then(|all| all.pod_anti_affinity.as_ref());
    let away =
        away.and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref());
    let keys = |terms: Option<&Vec<PodAffinityTerm>>| {
        let keys: Vec<_> =
            terms.into_iter().flatten().map(|term| term.topology_key.clone()).collect();
        keys.into_iter().enumerate()
    };
    let reasons = rejection.reasons(info);
    let says = |words: &str| reasons.iter().any(|reason| reason.contains(words));
    if says("didn't match pod affinity rules") {
        keys(near).map(|(index, key)| vec![Change::PodAffinity { index, key }]).collect()
    } else if says("didn't match pod anti-affinity rules") {
        keys(away).map(|(index, key)| vec![Change::PodAntiAffinity { index, key }]).collect()
    } else {
        Vec::new()
    }
}
