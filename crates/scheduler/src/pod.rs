//! One pod as decisions see it: its spec compiled against the snapshot's symbols, once.

use std::ops::Deref;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{
    NodeAffinity as ApiNodeAffinity, Pod, Toleration as ApiToleration,
};
use smallvec::SmallVec;
use wharf_model::object::ObjectKey;
use wharf_model::pod::is_sidecar;
use wharf_model::time::Time;

use crate::devices::{ExtendedResources, PodClaims};
use crate::node::{Effect, Taint};
use crate::plugins::{image_locality, node_declared_features};
use crate::requests::PodRequests;
use crate::selector::Term;
use crate::shape::{Shape, Shapes};
use crate::storage::PodVolumes;
use crate::symbols::{Labels, Symbol, Symbols};
use crate::topology::PodTerms;
use crate::topology::groups::GroupId;

/// A pod, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The uid; namespace and name for a pod without one.
    pub uid: CompactString,
    /// The namespace as a symbol.
    pub namespace: Symbol,
    /// Labels.
    pub labels: Labels,
    /// What it has in common with others of its template. A pod's fields are read as if they
    /// were its own.
    pub shape: Arc<Shape>,
    /// Priority; 0 if none is set.
    pub priority: i32,
    /// Whether it may push others out (`preemptionPolicy` is not `Never`).
    pub preempts: bool,
    /// `spec.nodeName`, empty if it has none.
    pub node_name: CompactString,
    /// `status.nominatedNodeName`, empty if it has none.
    pub nominated_node: CompactString,
    /// Its volumes that scheduling looks at, if it has such.
    pub volumes: Option<Box<PodVolumes>>,
    /// Its claims on devices, if it has such.
    pub claims: Option<Box<PodClaims>>,
    /// What it asks for of extended resources that classes of devices may stand for.
    pub extended: Option<Box<ExtendedResources>>,
    /// Names of its scheduling gates.
    pub gates: SmallVec<[CompactString; 0]>,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether it is being deleted to make room for a pod of higher priority.
    pub preempted: bool,
    /// `status.startTime`; [`Time::MAX`] while it has none.
    pub started: Time,
    /// The pods of its namespace with the same labels.
    pub(crate) group: GroupId,
    /// What it says of other pods.
    pub(crate) terms: Arc<PodTerms>,
}

/// A pod's wishes about nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeAffinity {
    /// `spec.nodeSelector`: every pair is a label of the node.
    pub selector: SmallVec<[(Symbol, Symbol); 1]>,
    /// Required terms, one of which matches; `None` if there is no such requirement.
    pub required: Option<Box<[Term]>>,
    /// Preferred terms with their weights.
    pub preferred: Box<[(i64, Term)]>,
}

/// A toleration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// The key it is about; the empty one means all.
    pub key: Symbol,
    /// The value it is about; `None` means all.
    pub value: Option<Symbol>,
    /// The effect it is about; `None` means all.
    pub effect: Option<Effect>,
    /// Whether its operator is one that can match at all.
    pub known_operator: bool,
}

/// A port taken of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The address; `0.0.0.0` is all of them.
    pub address: Symbol,
    /// Whether that address is `0.0.0.0`.
    pub any_address: bool,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Symbol,
    /// The port.
    pub port: i32,
}

impl PodInfo {
    /// Compiles a pod but for what it says of other pods.
    pub(crate) fn new(pod: &Pod, symbols: &mut Symbols, shapes: &mut Shapes) -> Self {
        let key = ObjectKey::of(&pod.metadata);
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let text = |value: Option<&String>| CompactString::from(value.map_or("", String::as_str));
        Self {
            namespace: symbols.intern(&key.namespace),
            key,
            uid: Self::uid_of(pod),
            labels: symbols.intern_labels(pod.metadata.labels.iter().flatten()),
            priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
            preempts: spec.is_none_or(|spec| spec.preemption_policy.as_deref() != Some("Never")),
            node_name: text(spec.and_then(|spec| spec.node_name.as_ref())),
            nominated_node: text(status.and_then(|status| status.nominated_node_name.as_ref())),
            shape: shapes.intern(Shape::new(pod, symbols)),
            volumes: PodVolumes::new(pod, symbols),
            claims: PodClaims::new(pod),
            extended: ExtendedResources::new(pod),
            gates: spec
                .iter()
                .flat_map(|spec| spec.scheduling_gates.iter().flatten())
                .map(|gate| CompactString::from(gate.name.as_str()))
                .collect(),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            preempted: status.into_iter().flat_map(|s| s.conditions.iter().flatten()).any(
                |condition| {
                    condition.type_ == "DisruptionTarget"
                        && condition.status == "True"
                        && condition.reason.as_deref() == Some("PreemptionByScheduler")
                },
            ),
            started: status
                .and_then(|status| status.start_time.as_ref())
                .map_or(Time::MAX, Time::from),
            group: GroupId::default(),
            terms: Arc::default(),
        }
    }

    /// The uid by which a pod is known here.
    pub fn uid_of(pod: &Pod) -> CompactString {
        match pod.metadata.uid.as_deref() {
            Some(uid) if !uid.is_empty() => uid.into(),
            _ => compact_str::format_compact!("{}", ObjectKey::of(&pod.metadata)),
        }
    }
}

impl Deref for PodInfo {
    type Target = Shape;

    fn deref(&self) -> &Shape {
        &self.shape
    }
}

impl Shape {
    fn new(pod: &Pod, symbols: &mut Symbols) -> Self {
        let spec = pod.spec.as_ref();
        Self {
            amounts: PodRequests::of(pod),
            affinity: NodeAffinity::new(pod, symbols),
            tolerations: spec
                .iter()
                .flat_map(|spec| spec.tolerations.iter().flatten())
                .map(|toleration| Toleration::new(toleration, symbols))
                .collect(),
            host_ports: host_ports(pod, symbols),
            images: image_locality::images_of(pod, symbols),
            containers: spec.map_or(0, |spec| {
                let init = spec.init_containers.as_ref().map_or(0, Vec::len);
                i64::try_from(init + spec.containers.len()).unwrap_or(i64::MAX)
            }),
            features: node_declared_features::required_by(pod, symbols),
        }
    }

    /// Whether any toleration covers the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|toleration| toleration.covers(taint))
    }
}

impl NodeAffinity {
    fn new(pod: &Pod, symbols: &mut Symbols) -> Self {
        let Some(spec) = pod.spec.as_ref() else { return Self::default() };
        let selector = spec
            .node_selector
            .iter()
            .flatten()
            .map(|(key, value)| (symbols.intern(key), symbols.intern(value)))
            .collect();
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        Self { selector, ..Self::of_terms(affinity, symbols) }
    }

    /// Compiles a node affinity without a node selector beside it.
    pub(crate) fn of_terms(affinity: Option<&ApiNodeAffinity>, symbols: &mut Symbols) -> Self {
        let required = affinity
            .and_then(|affinity| {
                affinity.required_during_scheduling_ignored_during_execution.as_ref()
            })
            .map(|required| {
                required.node_selector_terms.iter().map(|term| Term::new(term, symbols)).collect()
            });
        let preferred = affinity
            .into_iter()
            .flat_map(|affinity| {
                affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten()
            })
            .map(|item| (i64::from(item.weight), Term::new(&item.preference, symbols)))
            .collect();
        Self { selector: SmallVec::new(), required, preferred }
    }
}

impl Toleration {
    fn new(toleration: &ApiToleration, symbols: &mut Symbols) -> Self {
        let operator = toleration.operator.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        Self {
            key: symbols.intern(toleration.key.as_deref().unwrap_or_default()),
            value: (operator != "Exists")
                .then(|| symbols.intern(toleration.value.as_deref().unwrap_or_default())),
            effect: (!effect.is_empty()).then(|| Effect::parse(effect)),
            // `Gt` and `Lt` need a feature gate that is off by default; until then they match
            // nothing.
            known_operator: matches!(operator, "" | "Equal" | "Exists"),
        }
    }

    /// Whether the taint is tolerated.
    pub fn covers(&self, taint: &Taint) -> bool {
        self.known_operator
            && self.effect.is_none_or(|effect| effect == taint.effect)
            && (self.key == Symbol::EMPTY || self.key == taint.key)
            && self.value.is_none_or(|value| value == taint.value)
    }
}

fn host_ports(pod: &Pod, symbols: &mut Symbols) -> SmallVec<[HostPort; 1]> {
    let Some(spec) = pod.spec.as_ref() else { return SmallVec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    let word = |value: &Option<String>, default: &'static str| match value.as_deref() {
        None | Some("") => default.to_owned(),
        Some(value) => value.to_owned(),
    };
    let mut ports = SmallVec::new();
    for port in spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten()) {
        let Some(number) = port.host_port.filter(|number| *number > 0) else { continue };
        let address = word(&port.host_ip, "0.0.0.0");
        ports.push(HostPort {
            any_address: address == "0.0.0.0",
            address: symbols.intern(&address),
            protocol: symbols.intern(&word(&port.protocol, "TCP")),
            port: number,
        });
    }
    ports
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use wharf_model::taints::{ComparisonOperators, tolerates};

    use super::*;

    #[test]
    fn tolerations_cover_taints_by_effect_key_and_operator() {
        let taint = json!({"key": "k", "value": "v", "effect": "NoSchedule"});
        for (toleration, expected) in [
            (json!({"key": "k", "value": "v", "effect": "NoSchedule"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "w"}), false),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "j", "operator": "Exists"}), false),
            (json!({"key": "k"}), false),
            (json!({"key": "k", "operator": "Gt", "value": "v"}), false),
        ] {
            let mut symbols = Symbols::default();
            let taint = Taint::new_for_test(&taint, &mut symbols);
            let compiled =
                Toleration::new(&serde_json::from_value(toleration.clone()).unwrap(), &mut symbols);
            assert_eq!(compiled.covers(&taint), expected, "{toleration}");
        }
    }

    proptest! {
        #[test]
        fn compiled_tolerations_agree_with_the_plain_ones(
            key in "[ab]?", operator in "|Equal|Exists|Gt|In", value in "[12]?",
            effect in "|NoSchedule|NoExecute", tainted in "[ab]", with in "[12]?",
        ) {
            let toleration = ApiToleration {
                key: Some(key), operator: Some(operator), value: Some(value),
                effect: Some(effect), toleration_seconds: None,
            };
            let taint = json!({"key": tainted, "value": with, "effect": "NoSchedule"});
            let mut symbols = Symbols::default();
            let compiled = Toleration::new(&toleration, &mut symbols);
            prop_assert_eq!(
                compiled.covers(&Taint::new_for_test(&taint, &mut symbols)),
                tolerates(
                    &toleration,
                    &serde_json::from_value(taint).unwrap(),
                    ComparisonOperators::Off,
                )
            );
        }
    }

    impl Taint {
        fn new_for_test(taint: &serde_json::Value, symbols: &mut Symbols) -> Self {
            let node = crate::testing::node("n", json!({}), json!({"taints": [taint]}));
            crate::node::NodeFacts::new(&node, symbols).taints[0]
        }
    }

    #[test]
    fn ports_of_containers_and_sidecars_count() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {
                "initContainers": [
                    {"name": "i", "ports": [{"containerPort": 1, "hostPort": 1}]},
                    {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 2, "hostPort": 2, "protocol": "UDP", "hostIP": "10.0.0.1"}]}
                ],
                "containers": [{"name": "c", "ports": [{"containerPort": 80}, {"containerPort": 3, "hostPort": 3}]}]
            }
        });
        let mut symbols = Symbols::default();
        let pod = PodInfo::new(
            &serde_json::from_value(pod).unwrap(),
            &mut symbols,
            &mut Shapes::default(),
        );
        let ports: Vec<_> = pod
            .host_ports
            .iter()
            .map(|port| (port.port, symbols.text(port.protocol), port.any_address))
            .collect();
        assert_eq!(ports, [(3, "TCP", true), (2, "UDP", false)]);
        assert_eq!(pod.uid, "n/p", "a pod without uid goes by its name");
    }
}
