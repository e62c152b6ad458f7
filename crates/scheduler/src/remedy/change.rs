//! One change to a waiting pod or to what is around it, how large it is, and how it is tried.

use std::fmt;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Toleration};
use serde::Serialize;
use wharf_model::object::ObjectKey;
use wharf_model::quantity::Quantity;
use wharf_model::resources::{amount_text, pod_requests};
use wharf_model::storage::claim_name;
use wharf_model::taints;

use crate::plugins::node_resources_fit::amount;

/// The taint of a cordoned node.
const CORDONED: &str = "node.kubernetes.io/unschedulable";

/// Something that could be otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "change")]
pub enum Change {
    /// The pod asks for less.
    Request {
        /// Of what.
        resource: CompactString,
        /// What it asks for now, in the resource's unit.
        from: i64,
        /// What it would ask for.
        to: i64,
    },
    /// The pod tolerates a taint.
    Tolerate {
        /// The taint's key.
        key: String,
        /// Its value; may be empty.
        value: String,
        /// Its effect.
        effect: &'static str,
    },
    /// A node is uncordoned.
    Uncordon {
        /// Which.
        node: CompactString,
    },
    /// The pod's spread constraint allows more, or only wishes.
    Spread {
        /// Which of its constraints.
        index: usize,
        /// The constraint's topology key.
        key: String,
        /// Its `maxSkew` now.
        from: i32,
        /// The `maxSkew` that would do; `None` for `ScheduleAnyway`.
        to: Option<i32>,
    },
    /// The pod does without a pair of its node selector.
    NodeSelector {
        /// The label's key.
        key: String,
        /// The value it selects.
        value: String,
    },
    /// The pod does without its required node affinity.
    NodeAffinity,
    /// The pod does without a port of its host.
    HostPort {
        /// Which.
        port: i32,
        /// Its protocol.
        protocol: String,
    },
    /// The pod does without one of its required pod affinity terms.
    PodAffinity {
        /// Which of the terms.
        index: usize,
        /// The term's topology key.
        key: String,
    },
    /// The pod does without one of its required pod anti-affinity terms.
    PodAntiAffinity {
        /// Which of the terms.
        index: usize,
        /// The term's topology key.
        key: String,
    },
    /// Another pod goes.
    PodGone {
        /// Which.
        #[serde(serialize_with = "as_text")]
        pod: ObjectKey,
        /// Where it is.
        node: CompactString,
        /// Whether it has a higher priority than the pod that waits.
        outranks: bool,
    },
    /// The pod does without a volume.
    Volume {
        /// The claim that the volume is.
        claim: String,
    },
    /// The pod does without a device.
    Device {
        /// Its name among the pod's resource claims.
        claim: String,
    },
}

fn as_text<S: serde::Serializer>(key: &ObjectKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

impl Change {
    /// How much is changed. A request costs the percents that are cut; the rest is ranked against
    /// that: what is added to a pod costs less than what it has to give up, and that less than
    /// what others have to.
    pub fn cost(&self) -> u32 {
        match self {
            Self::Request { from, to, .. } => {
                let percent = i128::from(from - to) * 100 / i128::from((*from).max(1));
                u32::try_from(percent.clamp(1, 100)).unwrap_or(100)
            }
            Self::Tolerate { .. } => 20,
            Self::Uncordon { .. } => 25,
            Self::Spread { to: Some(to), from, .. } => {
                10 + 5 * to.saturating_sub(*from).clamp(1, 10).unsigned_abs()
            }
            Self::NodeSelector { .. } => 30,
            Self::NodeAffinity | Self::HostPort { .. } => 35,
            Self::Spread { to: None, .. }
            | Self::PodAffinity { .. }
            | Self::PodAntiAffinity { .. } => 40,
            Self::PodGone { outranks, .. } => {
                if *outranks {
                    80
                } else {
                    50
                }
            }
            Self::Volume { .. } | Self::Device { .. } => 60,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { resource, from, to } => {
                let [from, to] = [from, to].map(|of| amount(resource, *of));
                write!(f, "ask for {to} of {resource} instead of {from}")
            }
            Self::Tolerate { key, value, effect } => {
                let value = if value.is_empty() { String::new() } else { format!("={value}") };
                write!(f, "tolerate {key}{value}:{effect}")
            }
            Self::Uncordon { node } => write!(f, "uncordon {node}"),
            Self::Spread { key, from, to: Some(to), .. } => {
                write!(f, "spread over {key} with maxSkew {to} instead of {from}")
            }
            Self::Spread { key, to: None, .. } => {
                write!(f, "spread over {key} with ScheduleAnyway instead of DoNotSchedule")
            }
            Self::NodeSelector { key, value } => {
                write!(f, "do without node selector {key}={value}")
            }
            Self::NodeAffinity => f.write_str("do without the required node affinity"),
            Self::HostPort { port, protocol } => {
                write!(f, "do without host port {port}/{protocol}")
            }
            Self::PodAffinity { key, .. } => write!(f, "do without required pod affinity by {key}"),
            Self::PodAntiAffinity { key, .. } => {
                write!(f, "do without required pod anti-affinity by {key}")
            }
            Self::PodGone { pod, node, .. } => write!(f, "take pod {pod} off {node}"),
            Self::Volume { claim } => write!(f, "do without volume claim {claim}"),
            Self::Device { claim } => write!(f, "do without device claim {claim}"),
        }
    }
}

/// The pod with the changes made, as far as they are changes of the pod.
pub(super) fn changed(pod: &Pod, changes: &[Change]) -> Pod {
    let mut pod = pod.clone();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let Some(spec) = pod.spec.as_mut() else { return pod };
    // Terms are known by their index: the last are taken out first.
    for change in changes.iter().rev() {
        change.apply(spec, &name);
    }
    pod
}

impl Change {
    fn apply(&self, spec: &mut PodSpec, pod: &str) {
        match self {
            Self::Request { resource, to, .. } => lower(spec, resource, *to),
            Self::Tolerate { key, value, effect } => {
                spec.tolerations.get_or_insert_default().push(Toleration {
                    key: Some(key.clone()),
                    operator: Some("Equal".to_owned()),
                    value: Some(value.clone()),
                    effect: Some((*effect).to_owned()),
                    ..Toleration::default()
                });
            }
            // To the pod, a node that is cordoned and one whose cordon it tolerates are the same.
            Self::Uncordon { .. } => {
                spec.tolerations.get_or_insert_default().push(Toleration {
                    key: Some(CORDONED.to_owned()),
                    operator: Some("Exists".to_owned()),
                    effect: Some(taints::NO_SCHEDULE.to_owned()),
                    ..Toleration::default()
                });
            }
            Self::Spread { index, to, .. } => {
                let constraints = spec.topology_spread_constraints.iter_mut().flatten();
                if let Some(constraint) = constraints.into_iter().nth(*index) {
                    match to {
                        Some(to) => constraint.max_skew = *to,
                        None => constraint.when_unsatisfiable = "ScheduleAnyway".to_owned(),
                    }
                }
            }
            Self::NodeSelector { key, .. } => {
                if let Some(selector) = &mut spec.node_selector {
                    selector.remove(key);
                }
            }
            Self::NodeAffinity => {
                let affinity = spec.affinity.as_mut().and_then(|all| all.node_affinity.as_mut());
                if let Some(affinity) = affinity {
                    affinity.required_during_scheduling_ignored_during_execution = None;
                }
            }
            Self::HostPort { port, .. } => {
                for container in containers(spec) {
                    for known in container.ports.iter_mut().flatten() {
                        known.host_port = known.host_port.filter(|known| known != port);
                    }
                }
            }
            Self::PodAffinity { index, .. } => {
                let affinity = spec.affinity.as_mut().and_then(|all| all.pod_affinity.as_mut());
                remove(
                    affinity.and_then(|own| {
                        own.required_during_scheduling_ignored_during_execution.as_mut()
                    }),
                    *index,
                );
            }
            Self::PodAntiAffinity { index, .. } => {
                let affinity =
                    spec.affinity.as_mut().and_then(|all| all.pod_anti_affinity.as_mut());
                remove(
                    affinity.and_then(|own| {
                        own.required_during_scheduling_ignored_during_execution.as_mut()
                    }),
                    *index,
                );
            }
            Self::PodGone { .. } => {}
            Self::Volume { claim } => {
                let volumes = spec.volumes.get_or_insert_default();
                volumes.retain(|volume| {
                    claim_name(pod, volume).is_none_or(|name| name != claim.as_str())
                });
            }
            Self::Device { claim } => {
                spec.resource_claims.get_or_insert_default().retain(|own| own.name != *claim);
            }
        }
    }
}

fn remove<T>(terms: Option<&mut Vec<T>>, index: usize) {
    if let Some(terms) = terms.filter(|terms| index < terms.len()) {
        terms.remove(index);
    }
}

fn containers(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten())
}

/// Takes from what the pod asks for, from its largest part first, until the whole is at most `to`.
fn lower(spec: &mut PodSpec, resource: &str, to: i64) {
    let parts = spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len) + 1;
    // Each round settles a part for good, or all of it.
    for _ in 0..parts {
        let excess = pod_requests(spec).get(resource) - to;
        if excess <= 0 {
            return;
        }
        if lower_pod_level(spec, resource, excess) {
            continue;
        }
        let asks = |container: &Container| {
            let own = container.resources.as_ref().and_then(|own| own.requests.as_ref());
            own.map_or(0, |own| wharf_model::resources::Resources::from_map(own).get(resource))
        };
        let largest = containers(spec).max_by_key(|container| asks(container));
        let Some(largest) = largest else { return };
        let left = (asks(largest) - excess).max(0);
        let requests = largest.resources.get_or_insert_default().requests.get_or_insert_default();
        requests.insert(resource.to_owned(), quantity(resource, left));
    }
}

/// The same for a pod that asks as a whole.
fn lower_pod_level(spec: &mut PodSpec, resource: &str, excess: i64) -> bool {
    let requests = spec.resources.as_mut().and_then(|own| own.requests.as_mut());
    let Some(own) = requests.and_then(|requests| requests.get_mut(resource)) else { return false };
    let Ok(asked) = Quantity::try_from(&*own) else { return false };
    let scale = if resource == wharf_model::resources::CPU { -3 } else { 0 };
    let left = (asked.scaled_ceil(scale) - excess).max(0);
    *own = quantity(resource, left);
    true
}

fn quantity(
    resource: &str,
    amount: i64,
) -> k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    k8s_openapi::apimachinery::pkg::api::resource::Quantity(amount_text(resource, amount))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn asking(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn requests_are_lowered_where_they_are_largest() {
        let change = |to| Change::Request { resource: "cpu".into(), from: 3_000, to };
        for (spec, to, expected) in [
            (json!({"containers": [asking("2"), asking("1")]}), 2_500, ["1500m", "1"]),
            (json!({"containers": [asking("2"), asking("1")]}), 500, ["0", "500m"]),
        ] {
            let lowered = changed(&pod(spec), &[change(to)]).spec.unwrap();
            assert!(pod_requests(&lowered).cpu_milli <= to);
            let own = |container: &Container| {
                container.resources.clone().unwrap().requests.unwrap()["cpu"].0.clone()
            };
            assert_eq!(lowered.containers.iter().map(own).collect::<Vec<_>>(), expected);
        }
        let init = json!({"initContainers": [asking("3")], "containers": [asking("1")]});
        let lowered = changed(&pod(init), &[change(2_000)]).spec.unwrap();
        assert_eq!(pod_requests(&lowered).cpu_milli, 2_000);
        let whole = json!({"resources": {"requests": {"cpu": "3"}}, "containers": [{"name": "c"}]});
        let lowered = changed(&pod(whole), &[change(2_000)]).spec.unwrap();
        assert_eq!(pod_requests(&lowered).cpu_milli, 2_000);
    }

    #[test]
    fn several_terms_go_at_once() {
        let term = |key: &str| json!({"topologyKey": key});
        let spec = json!({"containers": [], "affinity": {"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [term("a"), term("b"), term("c")]
        }}});
        let without = |index, key: &str| Change::PodAntiAffinity { index, key: key.to_owned() };
        let pod = changed(&pod(spec), &[without(0, "a"), without(1, "b")]);
        let left = pod.spec.unwrap().affinity.unwrap().pod_anti_affinity.unwrap();
        let left = left.required_during_scheduling_ignored_during_execution.unwrap();
        assert_eq!(left.iter().map(|term| term.topology_key.as_str()).collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn changes_are_told_as_orders() {
        for (change, expected) in [
            (
                Change::Request { resource: "memory".into(), from: 3 << 30, to: 1536 << 20 },
                "ask for 1536Mi of memory instead of 3Gi",
            ),
            (
                Change::Tolerate { key: "k".into(), value: String::new(), effect: "NoSchedule" },
                "tolerate k:NoSchedule",
            ),
            (
                Change::Spread { index: 0, key: "zone".into(), from: 1, to: Some(2) },
                "spread over zone with maxSkew 2 instead of 1",
            ),
            (
                Change::PodGone {
                    pod: ObjectKey::namespaced("a", "b"),
                    node: "n".into(),
                    outranks: false,
                },
                "take pod a/b off n",
            ),
        ] {
            assert_eq!(change.to_string(), expected);
        }
    }
}
