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
use crate::workloads::Owner;

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
    /// `metadata.generation`; 0 if it has none.
    pub(crate) generation: i64,
    /// Its controller, if it is of a kind that counts.
    pub(crate) owner: Option<Owner>,
    /// Whether something in its status says what it asks for.
    pub(crate) asks_by_status: bool,
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
        Self {
            namespace: symbols.intern(&key.namespace),
            key,
            uid: Self::uid_of(pod),
            labels: symbols.intern_labels(pod.metadata.labels.iter().flatten()),
            priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
            preempts: spec.is_none_or(|spec| spec.preemption_policy.as_deref() != Some("Never")),
            shape: shapes.intern(Shape::new(pod, symbols)),
            volumes: PodVolumes::new(pod, symbols),
            claims: PodClaims::new(pod),
            extended: ExtendedResources::new(pod),
            gates: spec
                .iter()
                .flat_map(|spec| spec.scheduling_gates.iter().flatten())
                .map(|gate| CompactString::from(gate.name.as_str()))
                .collect(),
            node_name: node_name(pod).into(),
            nominated_node: nominated_node(pod).into(),
            terminating: is_terminating(pod),
            preempted: is_preempted(pod),
            started: started(pod),
            generation: pod.metadata.generation.unwrap_or(0),
            owner: Owner::of(pod, symbols),
            asks_by_status: asks_by_status(pod),
            group: GroupId::default(),
            terms: Arc::default(),
        }
    }

    /// The pod as it is now, made of what is known of it, which was compiled with the same symbols.
    /// Most news of a pod is of its status, and its spec is the same as long as its generation is.
    /// `None` if it has to be compiled.
    pub(crate) fn again(known: &Arc<Self>, pod: &Pod, symbols: &mut Symbols) -> Option<Arc<Self>> {
        let is_same = known.generation > 0
            && pod.metadata.generation == Some(known.generation)
            && pod.metadata.uid.as_deref() == Some(known.uid.as_str())
            && !known.asks_by_status
            && !asks_by_status(pod)
            && symbols.are_labels(&known.labels, pod.metadata.labels.as_ref())
            && known.owner == Owner::of(pod, symbols);
        if !is_same {
            return None;
        }
        // What no generation tells of.
        let (node_name, nominated_node) = (node_name(pod), nominated_node(pod));
        let (terminating, preempted, started) =
            (is_terminating(pod), is_preempted(pod), started(pod));
        if known.node_name == node_name
            && known.nominated_node == nominated_node
            && (known.terminating, known.preempted, known.started)
                == (terminating, preempted, started)
        {
            return Some(known.clone());
        }
        Some(Arc::new(Self {
            node_name: node_name.into(),
            nominated_node: nominated_node.into(),
            terminating,
            preempted,
            started,
            ..Self::clone(known)
        }))
    }

    /// The uid by which a pod is known here.
    pub fn uid_of(pod: &Pod) -> CompactString {
        match pod.metadata.uid.as_deref() {
            Some(uid) if !uid.is_empty() => uid.into(),
            _ => compact_str::format_compact!("{}", ObjectKey::of(&pod.metadata)),
        }
    }
}

fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn nominated_node(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status.and_then(|status| status.nominated_node_name.as_deref()).unwrap_or_default()
}

fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_preempted(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| {
        condition.type_ == "DisruptionTarget"
            && condition.status == "True"
            && condition.reason.as_deref() == Some("PreemptionByScheduler")
    })
}

fn started(pod: &Pod) -> Time {
    let status = pod.status.as_ref();
    status.and_then(|status| status.start_time.as_ref()).map_or(Time::MAX, Time::from)
}

/// Whether the status has a part in what the pod asks for: by a resize that may be under way, or by
/// claims on devices that were made for it.
fn asks_by_status(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let all = [&status.container_statuses, &status.init_container_statuses];
    status.resources.is_some()
        || status.allocated_resources.is_some()
        || status.resource_claim_statuses.is_some()
        || status.extended_resource_claim_status.is_some()
        || all.into_iter().flatten().flatten().any(|container| {
            container.resources.is_some() || container.allocated_resources.is_some()
        })
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

    /// One change of a pod, as the API server would make it: with a new generation if it is of the
    /// spec.
    fn change(pod: &mut serde_json::Value, which: usize, to: i64) {
        let (path, value, of_spec) = match which {
            0 => ("/metadata/labels/a", json!(to.to_string()), false),
            1 => ("/spec/priority", json!(to), true),
            2 => ("/spec/containers/0/resources/requests/cpu", json!(to.to_string()), true),
            3 => ("/spec/nodeName", json!(format!("node-{to}")), false),
            4 => ("/status/nominatedNodeName", json!(format!("node-{to}")), false),
            5 => ("/status/startTime", json!(format!("2026-01-01T00:00:0{to}Z")), false),
            6 => ("/metadata/ownerReferences/0/name", json!(to.to_string()), false),
            7 => ("/status/conditions/0/status", json!(["True", "False"][to as usize % 2]), false),
            8 => {
                ("/status/containerStatuses/0/resources/requests/cpu", json!(to.to_string()), false)
            }
            9 => ("/spec/schedulingGates/0/name", json!(to.to_string()), true),
            _ => ("/metadata/deletionTimestamp", json!(format!("2026-01-01T00:00:0{to}Z")), false),
        };
        let (parent, last) = path.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[last] = value;
        if of_spec {
            let generation = &mut pod["metadata"]["generation"];
            *generation = json!(generation.as_i64().unwrap() + 1);
        }
    }

    proptest! {
        #[test]
        fn a_pod_known_before_comes_to_the_same_as_a_new_one(
            changes in proptest::collection::vec((0_usize..11, 0_i64..3), 1..12),
            resized in proptest::bool::ANY,
        ) {
            let mut pod = json!({
                "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1,
                    "labels": {"a": "0", "b": "c"},
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                        "name": "r", "uid": "o", "controller": true}]},
                "spec": {"schedulingGates": [{"name": "g"}], "containers": [{"name": "c",
                    "resources": {"requests": {"cpu": "1"}}}]},
                "status": {"conditions": [{"type": "DisruptionTarget", "status": "False",
                    "reason": "PreemptionByScheduler"}]}
            });
            if resized {
                pod["status"]["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "",
                    "ready": true, "restartCount": 0, "resources": {"requests": {"cpu": "2"}}}]);
            }
            let mut snapshot = crate::Snapshot::new();
            let compile = |snapshot: &mut crate::Snapshot, pod: &serde_json::Value, known: Option<&Arc<PodInfo>>| {
                let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
                snapshot.compile_again(&pod, known)
            };
            let mut known = compile(&mut snapshot, &pod, None);
            for (which, to) in changes {
                if which == 8 && !resized {
                    continue;
                }
                change(&mut pod, which, to);
                let again = compile(&mut snapshot, &pod, Some(&known));
                prop_assert_eq!(&*again, &*compile(&mut snapshot, &pod, None), "{}", pod);
                known = again;
            }
            let same = compile(&mut snapshot, &pod, Some(&known));
            prop_assert_eq!(Arc::ptr_eq(&same, &known), !resized, "nothing new is made of nothing new");
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
