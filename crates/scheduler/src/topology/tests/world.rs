//! Small clusters in plain words, and the same as API objects.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use proptest::collection::{btree_map, vec};
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::select;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(super) const KEYS: [&str; 3] =
    ["kubernetes.io/hostname", "topology.kubernetes.io/zone", "rack"];

pub(super) type Labels = BTreeMap<&'static str, &'static str>;

#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) hostname: bool,
    pub(super) zone: Option<&'static str>,
    pub(super) rack: Option<&'static str>,
    pub(super) tainted: bool,
    pub(super) images: Vec<u8>,
    pub(super) features: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Selector {
    Nothing,
    Everything,
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, &'static str),
    Exists(&'static str),
    DoesNotExist(&'static str),
    Both(&'static str, &'static str, &'static str),
}

#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) key: usize,
    pub(super) selector: Selector,
    pub(super) namespaces: Vec<u8>,
    pub(super) namespace_selector: Option<Selector>,
}

#[derive(Clone, Debug)]
pub(super) struct Constraint {
    pub(super) required: bool,
    pub(super) skew: i64,
    pub(super) key: usize,
    pub(super) selector: Selector,
    pub(super) min_domains: Option<usize>,
    pub(super) ignores_affinity: bool,
    pub(super) honors_taints: bool,
    pub(super) match_label_key: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) namespace: u8,
    pub(super) labels: Labels,
    pub(super) terminating: bool,
    pub(super) constraints: Vec<Constraint>,
    pub(super) required: Vec<Term>,
    pub(super) anti: Vec<Term>,
    /// Negative weights are of anti-affinity.
    pub(super) preferred: Vec<(i64, Term)>,
    pub(super) zone: Option<&'static str>,
    pub(super) tolerant: bool,
    pub(super) images: Vec<u8>,
    pub(super) needs_feature: bool,
    pub(super) owner: Option<u8>,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Machine(u8, Machine),
    NoMachine(u8),
    Run(u8, u8, Task),
    Stop(u8),
    Namespace(u8, Labels),
    NoNamespace(u8),
    Service(u8, u8, Labels),
    NoService(u8, u8),
    ReplicaSet(u8, u8, Selector),
    NoReplicaSet(u8, u8),
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(select(vec!["app", "tier"]), select(vec!["a", "b"]), 0..3)
}

fn machine() -> impl Strategy<Value = Machine> {
    (
        prop::bool::weighted(0.85),
        weighted(0.85, select(vec!["z1", "z2", "z3", ""])),
        weighted(0.6, select(vec!["r1", "r2"])),
        prop::bool::weighted(0.2),
        vec(0..3u8, 0..3),
        any::<bool>(),
    )
        .prop_map(|(hostname, zone, rack, tainted, images, features)| Machine {
            hostname,
            zone,
            rack,
            tainted,
            images,
            features,
        })
}

fn selector() -> impl Strategy<Value = Selector> {
    let key = || select(vec!["app", "tier"]);
    let value = || select(vec!["a", "b"]);
    prop_oneof![
        4 => (key(), vec(value(), 1..3)).prop_map(|(key, values)| Selector::In(key, values)),
        1 => Just(Selector::Nothing),
        1 => Just(Selector::Everything),
        1 => (key(), value()).prop_map(|(key, value)| Selector::NotIn(key, value)),
        1 => key().prop_map(Selector::Exists),
        1 => key().prop_map(Selector::DoesNotExist),
        1 => (value(), key(), value()).prop_map(|(app, key, other)| Selector::Both(app, key, other)),
    ]
}

fn term() -> impl Strategy<Value = Term> {
    (0..3usize, selector(), vec(0..2u8, 0..2), weighted(0.25, selector())).prop_map(
        |(key, selector, namespaces, namespace_selector)| Term {
            key,
            selector,
            namespaces,
            // An absent selector is told apart from one that selects nothing only there.
            namespace_selector: namespace_selector
                .filter(|selector| !matches!(selector, Selector::Nothing)),
        },
    )
}

fn constraint() -> impl Strategy<Value = Constraint> {
    (
        any::<bool>(),
        1..3i64,
        0..3usize,
        selector(),
        of(1..4usize),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.3),
        weighted(0.2, select(vec!["app", "tier"])),
    )
        .prop_map(
            |(
                required,
                skew,
                key,
                selector,
                min_domains,
                ignores_affinity,
                honors_taints,
                match_label_key,
            )| {
                Constraint {
                    required,
                    skew,
                    key,
                    selector,
                    min_domains: min_domains.filter(|_| required),
                    ignores_affinity,
                    honors_taints,
                    match_label_key,
                }
            },
        )
}

pub(super) fn task() -> impl Strategy<Value = Task> {
    let preferred = (1..20i64, any::<bool>(), term())
        .prop_map(|(weight, anti, term)| (if anti { -weight } else { weight }, term));
    (
        (0..2u8, labels(), prop::bool::weighted(0.15)),
        weighted(0.5, vec(constraint(), 1..3)),
        (weighted(0.25, vec(term(), 1..3)), weighted(0.25, vec(term(), 1..3))),
        weighted(0.3, vec(preferred, 1..3)),
        (weighted(0.15, select(vec!["z1", "z2"])), prop::bool::weighted(0.7)),
        (vec(0..4u8, 0..3), prop::bool::weighted(0.1), of(0..2u8)),
    )
        .prop_map(
            |(
                (namespace, labels, terminating),
                constraints,
                (required, anti),
                preferred,
                (zone, tolerant),
                (images, needs_feature, owner),
            )| Task {
                namespace,
                labels,
                terminating,
                constraints: constraints.unwrap_or_default(),
                required: required.unwrap_or_default(),
                anti: anti.unwrap_or_default(),
                preferred: preferred.unwrap_or_default(),
                zone,
                tolerant,
                images,
                needs_feature,
                owner,
            },
        )
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let name = || 0..5u8;
    prop_oneof![
        5 => (name(), machine()).prop_map(|(name, machine)| Event::Machine(name, machine)),
        1 => name().prop_map(Event::NoMachine),
        10 => (0..10u8, name(), task()).prop_map(|(name, on, task)| Event::Run(name, on, task)),
        3 => (0..10u8).prop_map(Event::Stop),
        2 => (0..2u8, labels()).prop_map(|(name, labels)| Event::Namespace(name, labels)),
        1 => (0..2u8).prop_map(Event::NoNamespace),
        1 => (0..2u8, 0..2u8, labels()).prop_map(|(space, name, labels)| Event::Service(space, name, labels)),
        1 => (0..2u8, 0..2u8).prop_map(|(space, name)| Event::NoService(space, name)),
        1 => (0..2u8, 0..2u8, selector()).prop_map(|(space, name, selector)| Event::ReplicaSet(space, name, selector)),
        1 => (0..2u8, 0..2u8).prop_map(|(space, name)| Event::NoReplicaSet(space, name)),
    ]
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

impl Machine {
    pub(super) fn label(&self, name: u8, key: usize) -> Option<String> {
        match key {
            0 => self.hostname.then(|| format!("host-{name}")),
            1 => self.zone.map(str::to_owned),
            _ => self.rack.map(str::to_owned),
        }
    }

    pub(super) fn object(&self, name: u8) -> Node {
        let labels: BTreeMap<_, _> =
            (0..3).filter_map(|key| Some((KEYS[key], self.label(name, key)?))).collect();
        let images: Vec<_> = self
            .images
            .iter()
            .map(|image| json!({"names": [format!("image-{image}:latest")], "sizeBytes": size(*image)}))
            .collect();
        let taints =
            if self.tainted { json!([{"key": "k", "effect": "NoExecute"}]) } else { json!([]) };
        read(json!({
            "metadata": {"name": format!("n{name}"), "labels": labels},
            "spec": {"taints": taints},
            "status": {
                "allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"},
                "images": images,
                "declaredFeatures": if self.features { json!(["RestartAllContainersOnContainerExits"]) } else { json!([]) },
            },
        }))
    }
}

/// The size of an image.
pub(super) fn size(image: u8) -> i64 {
    (i64::from(image) + 1) * 300 * 1024 * 1024
}

impl Selector {
    fn object(&self) -> Value {
        let expression = |key: &str, operator: &str, values: Vec<&str>| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        match self {
            Self::Nothing => Value::Null,
            Self::Everything => json!({}),
            Self::In(key, values) => expression(key, "In", values.clone()),
            Self::NotIn(key, value) => expression(key, "NotIn", vec![value]),
            Self::Exists(key) => expression(key, "Exists", vec![]),
            Self::DoesNotExist(key) => expression(key, "DoesNotExist", vec![]),
            Self::Both(app, key, other) => json!({
                "matchLabels": {"app": app},
                "matchExpressions": [{"key": key, "operator": "In", "values": [other]}],
            }),
        }
    }

    pub(super) fn selects(&self, labels: &Labels) -> bool {
        let value = |key: &str| labels.get(key).copied();
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::In(key, values) => value(key).is_some_and(|value| values.contains(&value)),
            Self::NotIn(key, unwanted) => value(key) != Some(*unwanted),
            Self::Exists(key) => value(key).is_some(),
            Self::DoesNotExist(key) => value(key).is_none(),
            Self::Both(app, key, other) => value("app") == Some(*app) && value(key) == Some(*other),
        }
    }
}

impl Term {
    fn object(&self) -> Value {
        let namespaces: Vec<_> = self.namespaces.iter().map(|name| format!("ns{name}")).collect();
        json!({
            "topologyKey": KEYS[self.key],
            "labelSelector": self.selector.object(),
            "namespaces": namespaces,
            "namespaceSelector": self.namespace_selector.as_ref().map(Selector::object),
        })
    }
}

impl Task {
    pub(super) fn object(&self, name: &str) -> Pod {
        let terms = |terms: &[Term]| terms.iter().map(Term::object).collect::<Vec<_>>();
        let weighted = |anti: bool| {
            let terms = self.preferred.iter().filter(|(weight, _)| (*weight < 0) == anti);
            terms.map(|(weight, term)| json!({"weight": weight.abs(), "podAffinityTerm": term.object()})).collect::<Vec<_>>()
        };
        let constraints: Vec<_> = self
            .constraints
            .iter()
            .map(|constraint| {
                json!({
                    "maxSkew": constraint.skew,
                    "topologyKey": KEYS[constraint.key],
                    "whenUnsatisfiable": if constraint.required { "DoNotSchedule" } else { "ScheduleAnyway" },
                    "labelSelector": constraint.selector.object(),
                    "minDomains": constraint.min_domains,
                    "nodeAffinityPolicy": constraint.ignores_affinity.then_some("Ignore"),
                    "nodeTaintsPolicy": constraint.honors_taints.then_some("Honor"),
                    "matchLabelKeys": constraint.match_label_key.map(|key| vec![key]),
                })
            })
            .collect();
        let rules = if self.needs_feature {
            json!([{"action": "RestartAllContainers"}])
        } else {
            json!([])
        };
        // At least one container, the first of which has the restart rules.
        let images = if self.images.is_empty() { vec![9] } else { self.images.clone() };
        let containers: Vec<_> = images
            .iter()
            .map(|image| json!({"name": "c", "image": format!("image-{image}"), "restartPolicyRules": rules}))
            .collect();
        let owners: Vec<_> = self
            .owner
            .iter()
            .map(|owner| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("rs{owner}"), "uid": "u", "controller": true}))
            .collect();
        read(json!({
            "metadata": {
                "name": name,
                "namespace": format!("ns{}", self.namespace),
                "labels": self.labels,
                "ownerReferences": owners,
                "deletionTimestamp": self.terminating.then_some("2026-01-01T00:00:00Z"),
            },
            "spec": {
                "containers": containers,
                "nodeSelector": self.zone.map(|zone| json!({KEYS[1]: zone})),
                "tolerations": if self.tolerant { json!([{"operator": "Exists"}]) } else { json!([]) },
                "topologySpreadConstraints": constraints,
                "affinity": {
                    "podAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": terms(&self.required),
                        "preferredDuringSchedulingIgnoredDuringExecution": weighted(false),
                    },
                    "podAntiAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": terms(&self.anti),
                        "preferredDuringSchedulingIgnoredDuringExecution": weighted(true),
                    },
                },
            },
        }))
    }
}

pub(super) fn namespace(name: u8, labels: &Labels) -> Namespace {
    read(json!({"metadata": {"name": format!("ns{name}"), "labels": labels}}))
}

pub(super) fn service(namespace: u8, name: u8, selector: &Labels) -> Service {
    read(
        json!({"metadata": {"name": format!("s{name}"), "namespace": format!("ns{namespace}")}, "spec": {"selector": selector}}),
    )
}

pub(super) fn replica_set(namespace: u8, name: u8, selector: &Selector) -> ReplicaSet {
    // The API wants a selector there.
    let selector = match selector {
        Selector::Nothing => json!({}),
        other => other.object(),
    };
    read(
        json!({"metadata": {"name": format!("rs{name}"), "namespace": format!("ns{namespace}")}, "spec": {"selector": selector}}),
    )
}
