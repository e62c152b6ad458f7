//! NodeResourcesFit: what a pod asks for must be free; and the score by how much is then left.

use std::borrow::Cow;

use smallvec::SmallVec;
use wharf_model::quantity::{Format, Quantity};
use wharf_model::resources::{CPU, EPHEMERAL_STORAGE, MEMORY, PODS, Resources};

use super::{Code, MAX_SCORE, Rejection};
use crate::node::{NodeFacts, NodeInfo};
use crate::pod::PodInfo;
use crate::profile::{FitRule, FitStrategy, Plugin, PluginArguments};
use crate::snapshot::Snapshot;

const PODS_BIT: u64 = 1;
const CPU_BIT: u64 = 1 << 1;
const MEMORY_BIT: u64 = 1 << 2;
const STORAGE_BIT: u64 = 1 << 3;
/// Bits from here on: extended resources in the order of the pod's list. The last one stands for
/// all that do not have a bit of their own.
const EXTENDED: usize = 4;
const LAST_EXTENDED: usize = 62;

#[derive(Clone)]
pub(crate) struct State<'a> {
    asked: &'a Resources,
    /// Whether anything but a pod slot is asked.
    any: bool,
    /// Extended resources that are somebody else's business, as the bits of the pod's list.
    ignored: u64,
    /// Those that a class of devices stands for: they are DynamicResources' business where the node
    /// does not offer them.
    by_class: u64,
}

impl<'a> State<'a> {
    /// The snapshot if classes of devices may serve what nodes do not offer.
    pub(crate) fn new(
        pod: &'a PodInfo,
        arguments: &PluginArguments,
        snapshot: Option<&Snapshot>,
    ) -> Self {
        let extended = pod.amounts.requests.extended.iter().enumerate();
        let ignored = if arguments.ignores_resources() {
            extended
                .filter(|(_, (name, _))| arguments.ignores(name))
                .fold(0, |bits, (index, _)| bits | extended_bit(index))
        } else {
            0
        };
        let by_class = snapshot.map_or(0, |snapshot| by_class(pod, snapshot));
        Self { ignored, by_class, ..Self::asking(pod) }
    }

    /// Whether it reads nothing of the cluster but the node.
    pub(crate) fn is_local(&self) -> bool {
        self.by_class == 0
    }

    fn asking(pod: &'a PodInfo) -> Self {
        let asked = &pod.amounts.requests;
        let any = asked.cpu_milli != 0
            || asked.memory_bytes != 0
            || asked.ephemeral_storage_bytes != 0
            || !asked.extended.is_empty();
        Self { asked, any, ignored: 0, by_class: 0 }
    }

    pub(crate) fn check(&self, node: &NodeInfo) -> Option<Rejection> {
        shortage(self, &node.facts.allocatable, &node.requested)
    }
}

fn shortage(state: &State<'_>, all: &Resources, used: &Resources) -> Option<Rejection> {
    let asked = state.asked;
    let mut detail = 0;
    let mut hopeless = false;
    if used.pods + 1 > all.pods {
        detail |= PODS_BIT;
    }
    if state.any {
        let mut compare = |bit: u64, asked: i64, all: i64, used: i64| {
            if asked > 0 && asked > all - used {
                detail |= bit;
                hopeless |= asked > all;
            }
        };
        compare(CPU_BIT, asked.cpu_milli, all.cpu_milli, used.cpu_milli);
        compare(MEMORY_BIT, asked.memory_bytes, all.memory_bytes, used.memory_bytes);
        compare(
            STORAGE_BIT,
            asked.ephemeral_storage_bytes,
            all.ephemeral_storage_bytes,
            used.ephemeral_storage_bytes,
        );
        for (index, (name, amount)) in asked.extended.iter().enumerate() {
            if state.ignored & extended_bit(index) != 0 {
                continue;
            }
            if state.by_class & extended_bit(index) != 0 && all.get(name) == 0 {
                continue;
            }
            compare(extended_bit(index), *amount, all.get(name), used.get(name));
        }
    }
    (detail != 0).then_some(Rejection {
        plugin: Plugin::NodeResourcesFit,
        code: if hopeless { Code::UnschedulableAndUnresolvable } else { Code::Unschedulable },
        detail,
    })
}

/// The resources that a class of devices stands for, as the bits of the pod's list.
fn by_class(pod: &PodInfo, snapshot: &Snapshot) -> u64 {
    if !snapshot.devices.stand_for(pod) {
        return 0;
    }
    let extended = pod.amounts.requests.extended.iter().enumerate();
    extended
        .filter(|(_, (name, _))| snapshot.devices.class_for(name).is_some())
        .fold(0, |bits, (index, _)| bits | extended_bit(index))
}

fn extended_bit(index: usize) -> u64 {
    1 << (EXTENDED + index).min(LAST_EXTENDED)
}

/// The missing resources: pods, cpu, memory, ephemeral storage, then the others by name.
pub(crate) fn missing(detail: u64, pod: &PodInfo) -> SmallVec<[&str; 4]> {
    let core =
        [(PODS_BIT, PODS), (CPU_BIT, CPU), (MEMORY_BIT, MEMORY), (STORAGE_BIT, EPHEMERAL_STORAGE)];
    let extended = pod.amounts.requests.extended.iter().enumerate();
    core.into_iter()
        .chain(extended.map(|(index, (name, _))| (extended_bit(index), name.as_str())))
        .filter(|(bit, _)| detail & bit != 0)
        .map(|(_, name)| name)
        .collect()
}

pub(crate) fn reasons(detail: u64, pod: &PodInfo) -> Vec<Cow<'static, str>> {
    missing(detail, pod)
        .into_iter()
        .map(|name| match name {
            PODS => "Too many pods".into(),
            CPU => "Insufficient cpu".into(),
            MEMORY => "Insufficient memory".into(),
            EPHEMERAL_STORAGE => "Insufficient ephemeral-storage".into(),
            name => format!("Insufficient {name}").into(),
        })
        .collect()
}

/// Asked, free, short and the node's whole, for every missing resource.
pub(crate) fn explain(detail: u64, pod: &PodInfo, node: &NodeInfo) -> String {
    let mut texts = Vec::new();
    for name in missing(detail, pod) {
        let asked = pod.amounts.requests.get(name);
        let all = node.facts.allocatable.get(name);
        let free = all - node.requested.get(name);
        texts.push(format!(
            "{name}: asks {}, free {} of {}, short {}",
            amount(name, asked),
            amount(name, free),
            amount(name, all),
            amount(name, asked - free),
        ));
    }
    texts.join("; ")
}

/// By how much the worst resource falls short, in millionths of what the node would need to have
/// more: for finding the node that comes closest.
pub(crate) fn shortfall<'p>(detail: u64, pod: &'p PodInfo) -> impl Fn(&NodeInfo) -> i64 + 'p {
    let missing = missing(detail, pod).into_iter();
    let missing: SmallVec<[_; 4]> =
        missing.map(|name| (name, pod.amounts.requests.get(name).max(1))).collect();
    move |node| {
        let short = missing.iter().map(|(name, asked)| {
            let free = node.facts.allocatable.get(name) - node.requested.get(name);
            millionths(asked - free, *asked)
        });
        short.max().unwrap_or(0)
    }
}

fn millionths(part: i64, whole: i64) -> i64 {
    match part.checked_mul(1_000_000) {
        Some(product) => product / whole,
        // A division twice as wide takes ten times as long.
        None => i64::try_from(i128::from(part) * 1_000_000 / i128::from(whole)).unwrap_or(i64::MAX),
    }
}

/// An amount as people write it.
pub(crate) fn amount(name: &str, amount: i64) -> String {
    match name {
        CPU => Quantity::from_milli(amount).to_string(),
        MEMORY | EPHEMERAL_STORAGE => {
            let step = 1 << 20;
            // Whole mebibytes: nobody compares bytes by eye.
            let whole = if amount.abs() >= step { amount / step * step } else { amount };
            Quantity::from_units(whole, Format::BinarySi).to_string()
        }
        _ => amount.to_string(),
    }
}

/// A pod that held resources went.
pub(crate) fn wakes_on_pod_gone() -> bool {
    true
}

/// A pod that runs shrank in a resource this one asks for.
pub(crate) fn wakes_on_shrink(pod: &PodInfo, old: &PodInfo, new: &PodInfo) -> bool {
    pod.amounts.requests.iter().any(|(name, amount)| {
        amount > 0 && new.amounts.requests.get(name) < old.amounts.requests.get(name)
    })
}

/// A node came that would hold the pod were it empty, or one grew so in what the pod needs.
pub(crate) fn wakes_on_node(
    pod: &PodInfo,
    old: Option<&NodeFacts>,
    new: &NodeFacts,
    snapshot: &Snapshot,
) -> bool {
    let state = State { by_class: by_class(pod, snapshot), ..State::asking(pod) };
    if shortage(&state, &new.allocatable, &Resources::default()).is_some() {
        return false;
    }
    let Some(old) = old else { return true };
    // The pod's requests include its slot, so `pods` is among the names.
    pod.amounts
        .requests
        .iter()
        .any(|(name, _)| new.allocatable.get(name) > old.allocatable.get(name))
}

/// The scorer.
pub(crate) struct Scores<'a> {
    pod: &'a PodInfo,
    strategy: &'a FitStrategy,
    devices: ByClass<'a>,
}

/// What classes of devices have of resources that nodes do not offer themselves.
#[derive(Clone, Copy)]
pub(crate) struct ByClass<'a> {
    /// `None` if no class stands for anything that the pod asks for.
    snapshot: Option<&'a Snapshot>,
}

impl<'a> ByClass<'a> {
    pub(crate) fn new(pod: &PodInfo, snapshot: &'a Snapshot) -> Self {
        Self { snapshot: snapshot.devices.stand_for(pod).then_some(snapshot) }
    }

    /// What a node has of a resource and what of that is used: its own or, if it does not offer any,
    /// the devices of the class.
    pub(crate) fn of(self, name: &str, node: &NodeInfo, used: i64) -> (i64, i64) {
        let own = node.facts.allocatable.get(name);
        match self.snapshot {
            Some(snapshot) if own == 0 => {
                let totals = snapshot.devices.totals(name, node, snapshot.symbols());
                totals.unwrap_or((own, used))
            }
            _ => (own, used),
        }
    }
}

impl<'a> Scores<'a> {
    pub(crate) fn new(pod: &'a PodInfo, strategy: &'a FitStrategy, snapshot: &'a Snapshot) -> Self {
        Self { pod, strategy, devices: ByClass::new(pod, snapshot) }
    }

    pub(crate) fn score(&self, node: &NodeInfo) -> i64 {
        let mut sum = 0;
        let mut weights = 0;
        for (name, weight) in &self.strategy.resources {
            let asked = self.pod.amounts.scored.get(name);
            let core = matches!(name.as_str(), CPU | MEMORY | EPHEMERAL_STORAGE);
            // A scalar resource the pod does not ask for says nothing about any node.
            if asked == 0 && !core {
                continue;
            }
            let used = match name.as_str() {
                CPU => node.non_zero.cpu_milli,
                MEMORY => node.non_zero.memory_bytes,
                name => node.requested.get(name),
            };
            let (capacity, used) = match core {
                true => (node.facts.allocatable.get(name), used),
                false => self.devices.of(name, node, used),
            };
            if capacity == 0 {
                continue;
            }
            let score = score(&self.strategy.rule, used + asked, capacity);
            let ratio = matches!(self.strategy.rule, FitRule::RequestedToCapacityRatio(_));
            if ratio && score <= 0 {
                continue;
            }
            sum += score * weight;
            weights += weight;
        }
        match &self.strategy.rule {
            _ if weights == 0 => 0,
            FitRule::RequestedToCapacityRatio(_) => (2 * sum + weights) / (2 * weights),
            _ => sum / weights,
        }
    }
}

fn score(rule: &FitRule, requested: i64, capacity: i64) -> i64 {
    match rule {
        FitRule::LeastAllocated if requested > capacity => 0,
        FitRule::LeastAllocated => (capacity - requested) * MAX_SCORE / capacity,
        FitRule::MostAllocated => requested.min(capacity) * MAX_SCORE / capacity,
        FitRule::RequestedToCapacityRatio(shape) => {
            let used =
                if requested > capacity { MAX_SCORE } else { requested * MAX_SCORE / capacity };
            interpolate(shape, used)
        }
    }
}

/// The piecewise linear function through the points; their scores run from 0 to 10.
fn interpolate(shape: &[(i64, i64)], at: i64) -> i64 {
    const SCALE: i64 = MAX_SCORE / 10;
    let Some(index) = shape.iter().position(|(x, _)| at <= *x) else {
        return shape.last().map_or(0, |(_, y)| y * SCALE);
    };
    let (right_x, right_y) = (shape[index].0, shape[index].1 * SCALE);
    if index == 0 {
        return right_y;
    }
    let (left_x, left_y) = (shape[index - 1].0, shape[index - 1].1 * SCALE);
    left_y + (right_y - left_y) * (at - left_x) / (right_x - left_x)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::profile::Profile;
    use crate::testing::{evaluate_with, node, pod, refusals, scores, sized};

    fn running(name: &str, requests: Value) -> k8s_openapi::api::core::v1::Pod {
        let mut pod = pod(name, requests);
        pod.spec.as_mut().unwrap().node_name = Some("a".to_owned());
        pod
    }

    fn four_cores() -> k8s_openapi::api::core::v1::Node {
        sized("a", json!({"cpu": "4", "memory": "32Gi", "pods": "110"}))
    }

    #[test]
    fn every_missing_resource_is_named_in_order() {
        let nodes = [sized("a", json!({"cpu": "1", "memory": "1Gi", "pods": "1"}))];
        let asked = json!({"cpu": "2", "memory": "2Gi", "ephemeral-storage": "1Gi", "z.io/b": "1", "example.com/a": "1"});
        let refused = refusals(&nodes, &[running("r", json!({}))], &pod("p", asked));
        let expected = [
            "Too many pods",
            "Insufficient cpu",
            "Insufficient memory",
            "Insufficient ephemeral-storage",
            "Insufficient example.com/a",
            "Insufficient z.io/b",
        ];
        assert_eq!(refused, [(Some("a"), expected.map(str::to_owned).to_vec())]);
    }

    #[test]
    fn a_pod_without_requests_needs_only_a_slot() {
        let full = [running("r", json!({"cpu": "5"}))];
        assert_eq!(refusals(&[four_cores()], &full, &pod("p", json!({}))), []);
        let nodes = [node("a", json!({}), json!({}))];
        let mut bare = nodes[0].clone();
        bare.status = None;
        assert_eq!(refusals(&[bare], &[], &pod("p", json!({}))).len(), 1, "no slots, no pods");
    }

    #[test]
    fn resources_of_others_are_left_alone() {
        let asked =
            json!({"cpu": "5", "example.com/a": "1", "example.org/b": "1", "example.net/c": "1"});
        let (snapshot, pod) = crate::testing::cluster(&[four_cores()], &[], &pod("p", asked));
        let arguments = PluginArguments {
            ignored_resources: vec!["example.com/a".into(), "cpu".into()],
            ignored_resource_groups: vec!["example.org".into()],
            ..PluginArguments::default()
        };
        let rejection = State::new(&pod, &arguments, None).check(snapshot.node_named("a").unwrap());
        let reasons = reasons(rejection.unwrap().detail, &pod);
        assert_eq!(reasons, ["Insufficient cpu", "Insufficient example.net/c"]);
    }

    #[test]
    fn strategies_follow_the_vectors() {
        let used = [running("r", json!({"cpu": "1500m", "memory": "10Gi"}))];
        let pod = pod("p", json!({"cpu": "500m", "memory": "2Gi"}));
        assert_eq!(scores(&[four_cores()], &used, &pod, Plugin::NodeResourcesFit), [56]);
        let with = |rule: FitRule, resources: Value| {
            let resources = serde_json::from_value(resources).unwrap();
            let fit = FitStrategy { rule, resources };
            let profile = Profile { fit, ..Profile::default() };
            evaluate_with(&[four_cores()], &used, &pod, &profile, Plugin::NodeResourcesFit)
        };
        assert_eq!(with(FitRule::MostAllocated, json!([["cpu", 1], ["memory", 1]])), [43]);
        let shape = FitRule::RequestedToCapacityRatio(vec![(0, 0), (100, 10)]);
        assert_eq!(with(shape, json!([["cpu", 1]])), [50]);
    }

    #[test]
    fn refusals_are_explained_with_their_numbers() {
        let mut symbols = crate::symbols::Symbols::default();
        let mut info = NodeInfo::new(&four_cores(), &mut symbols);
        let held = running("r", json!({"cpu": "2590m"}));
        let mut shapes = crate::shape::Shapes::default();
        info.add(std::sync::Arc::new(PodInfo::new(&held, &mut symbols, &mut shapes)));
        let pod = PodInfo::new(&pod("p", json!({"cpu": "2"})), &mut symbols, &mut shapes);
        let rejection = State::asking(&pod).check(&info).unwrap();
        assert_eq!(rejection.code, Code::Unschedulable);
        let text = explain(rejection.detail, &pod, &info);
        assert_eq!(text, "cpu: asks 2, free 1410m of 4, short 590m");
        assert_eq!(shortfall(rejection.detail, &pod)(&info), 295_000);
    }
}
