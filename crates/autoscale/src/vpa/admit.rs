//! What admission does to a new pod under an autoscaler: its containers get the recommended
//! requests, their limits stay in proportion, and two annotations tell of it.
//!
//! The namespace's LimitRanges cut a recommendation first, then the autoscaler's policy, which so may
//! go beyond them, and where limits are left alone a container's limit.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use wharf_model::quantity::Quantity;
use wharf_model::vpa::{ContainerPolicy, VerticalPodAutoscaler, amount};

use super::{LimitRanges, Recommended, api};

/// The annotation that names the containers a pod had when admission saw it.
pub const OBSERVED_CONTAINERS: &str = "vpaObservedContainers";
/// The annotation that tells what admission changed.
pub const UPDATES: &str = "vpaUpdates";

pub(super) type List = BTreeMap<String, ApiQuantity>;

/// What is changed in a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodPatch {
    /// By the container's place; those that stay as they are are left out.
    pub containers: Vec<ContainerPatch>,
    /// The annotation `vpaUpdates`; absent if nothing is changed.
    pub updates: Option<String>,
}

/// What is changed in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPatch {
    /// Its place in the pod.
    pub index: usize,
    /// Requests that are set.
    pub requests: Recommended,
    /// Limits that are set.
    pub limits: Recommended,
}

/// What is recommended for one container of a concrete pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capped {
    /// What it should ask for.
    pub target: Recommended,
    /// Less than this is too little.
    pub lower: Recommended,
    /// More than this is too much.
    pub upper: Recommended,
    /// What cut the target: `cpu capped to maxAllowed`.
    pub notes: Vec<String>,
}

/// What an autoscaler changes in a pod with these containers, in a namespace with these ranges.
pub fn patch(
    autoscaler: &VerticalPodAutoscaler,
    containers: &[Container],
    ranges: &LimitRanges,
) -> PodPatch {
    let mut patch = PodPatch::default();
    let mut told = Vec::new();
    let all = capped(autoscaler, containers, ranges);
    for (index, (container, capped)) in containers.iter().zip(all).enumerate() {
        let (requests, limits) = requests_and_limits(container);
        let (one, mut notes) = container_patch(autoscaler, index, container, capped, ranges);
        let is_changed = one != ContainerPatch { index, ..ContainerPatch::default() };
        // Upstream fills in an empty `resources` where there is none, and tells of that too.
        if !is_changed && (requests.is_some() || limits.is_some()) {
            continue;
        }
        for (list, word) in [(&one.requests, "request"), (&one.limits, "limit")] {
            for (name, amount) in [("cpu", list.cpu), ("memory", list.memory)] {
                notes.extend(amount.map(|_| format!("{name} {word}")));
            }
        }
        told.push(format!("container {index}: {}", notes.join(", ")));
        if is_changed {
            patch.containers.push(one);
        }
    }
    if !told.is_empty() {
        let name = autoscaler.metadata.name.as_deref().unwrap_or_default();
        patch.updates = Some(format!("Pod resources updated by {name}: {}", told.join("; ")));
    }
    patch
}

/// Does to a new pod what its autoscaler says.
pub fn admit(autoscaler: &VerticalPodAutoscaler, pod: &mut Pod, ranges: &LimitRanges) {
    let Some(spec) = &mut pod.spec else { return };
    let patch = patch(autoscaler, &spec.containers, ranges);
    patch.apply(&mut spec.containers);
    let names: Vec<&str> =
        spec.containers.iter().map(|container| container.name.as_str()).collect();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    if let Some(updates) = patch.updates {
        annotations.insert(UPDATES.to_owned(), updates);
    }
    annotations.insert(OBSERVED_CONTAINERS.to_owned(), names.join(", "));
}

impl PodPatch {
    /// Makes the changes.
    pub fn apply(&self, containers: &mut [Container]) {
        for patch in &self.containers {
            let Some(container) = containers.get_mut(patch.index) else { continue };
            let resources = container.resources.get_or_insert_with(ResourceRequirements::default);
            set(&mut resources.requests, &patch.requests);
            set(&mut resources.limits, &patch.limits);
        }
    }
}

fn set(list: &mut Option<List>, amounts: &Recommended) {
    for (name, amount) in [("cpu", amounts.cpu), ("memory", amounts.memory)] {
        if let Some(amount) = amount {
            list.get_or_insert_default().insert(name.to_owned(), amount.to_api());
        }
    }
}

fn container_patch(
    autoscaler: &VerticalPodAutoscaler,
    index: usize,
    container: &Container,
    capped: Option<Capped>,
    ranges: &LimitRanges,
) -> (ContainerPatch, Vec<String>) {
    let mut patch = ContainerPatch { index, ..ContainerPatch::default() };
    let Some(capped) = capped else { return (patch, Vec::new()) };
    let mut notes = capped.notes;
    patch.requests = capped.target;
    if autoscaler.policy_of(&container.name).is_some_and(ContainerPolicy::leaves_limits) {
        return (patch, notes);
    }
    let (requests, limits) = requests_and_limits(container);
    let mut limit_notes = Vec::new();
    let mut limit = |name: &str, target: Option<Quantity>| {
        let own = get(limits, name).filter(|limit| !limit.is_zero());
        let limit = own.or_else(|| ranges.default_limit(name));
        let (limit, note) = proportional_limit(name, limit, get(requests, name), target);
        limit_notes.extend(note);
        limit
    };
    patch.limits = Recommended {
        cpu: limit("cpu", patch.requests.cpu),
        memory: limit("memory", patch.requests.memory),
    };
    // What is said of limits that are not set counts only beside one that is.
    if patch.limits != Recommended::default() {
        notes.extend(limit_notes);
    }
    (patch, notes)
}

/// What is recommended for each container of a pod, within its namespace's ranges, its autoscaler's
/// policy and, where limits are left alone, not above its limit. `None` if nothing is.
pub fn capped(
    autoscaler: &VerticalPodAutoscaler,
    containers: &[Container],
    ranges: &LimitRanges,
) -> Vec<Option<Capped>> {
    let found = containers.iter().map(|container| {
        let found = autoscaler.recommendation_for(&container.name)?;
        let lists = [&found.target, &found.lower_bound, &found.upper_bound];
        Some(lists.map(api::recommended))
    });
    let mut found: Vec<Option<[Recommended; 3]>> = found.collect();
    if ranges.bound_pods() {
        within_pod(containers, &mut found, ranges);
    }
    let one = |(container, found): (&Container, Option<_>)| {
        Some(capped_container(autoscaler, container, found?, ranges))
    };
    containers.iter().zip(found).map(one).collect()
}

/// Brings targets, lower and upper bounds within what is allowed to whole pods. What a container
/// without a recommendation asks for counts as its target.
fn within_pod(
    containers: &[Container],
    found: &mut [Option<[Recommended; 3]>],
    ranges: &LimitRanges,
) {
    for (container, found) in containers.iter().zip(found.iter_mut()) {
        let (requests, _) = requests_and_limits(container);
        if found.is_none() && requests.is_some_and(|requests| !requests.is_empty()) {
            let (cpu, memory) = (get(requests, "cpu"), get(requests, "memory"));
            *found = Some([Recommended { cpu, memory }, <_>::default(), <_>::default()]);
        }
    }
    for which in 0..3 {
        for name in ["cpu", "memory"] {
            let amount = |found: &Option<[Recommended; 3]>| found.as_ref()?[which].of(name);
            let mut amounts: Vec<Option<Quantity>> = found.iter().map(amount).collect();
            ranges.of_pod(name, containers, &mut amounts);
            for (found, amount) in found.iter_mut().zip(amounts) {
                let Some(found) = found else { continue };
                match name {
                    "cpu" => found[which].cpu = amount,
                    _ => found[which].memory = amount,
                }
            }
        }
    }
}

fn capped_container(
    autoscaler: &VerticalPodAutoscaler,
    container: &Container,
    [target, lower, upper]: [Recommended; 3],
    ranges: &LimitRanges,
) -> Capped {
    let policy = autoscaler.policy_of(&container.name);
    let (_, limits) = requests_and_limits(container);
    let leaves_limits = policy.is_some_and(ContainerPolicy::leaves_limits);
    let mut notes = Vec::new();
    let mut cut = |amounts: Recommended, told: bool| {
        let cap = |name: &'static str, amount: Option<Quantity>, notes: &mut Vec<String>| {
            let mut amount = amount?;
            let bound = |list: Option<Quantity>| list.filter(|bound| !bound.is_zero());
            if let Some(least) = bound(policy.and_then(|p| self::amount(&p.min_allowed, name)))
                && amount < least
            {
                amount = least;
                notes.push(format!("{name} capped to minAllowed"));
            }
            if let Some(most) = bound(policy.and_then(|p| self::amount(&p.max_allowed, name)))
                && amount > most
            {
                amount = most;
                notes.push(format!("{name} capped to maxAllowed"));
            }
            if let Some(limit) = bound(get(limits, name)).filter(|_| leaves_limits)
                && amount > limit
            {
                amount = limit;
                notes.push(format!("{name} capped to container limit"));
            }
            Some(amount)
        };
        let mut own = Vec::new();
        let mut range = |name, amount: Option<Quantity>| {
            Some(ranges.of_container(name, amount?, container, &mut own))
        };
        let (cpu, memory) = (range("cpu", amounts.cpu), range("memory", amounts.memory));
        let amounts =
            Recommended { cpu: cap("cpu", cpu, &mut own), memory: cap("memory", memory, &mut own) };
        if told {
            notes = own;
        }
        amounts
    };
    let (target, lower, upper) = (cut(target, true), cut(lower, false), cut(upper, false));
    Capped { target, lower, upper, notes }
}

/// The limit that stands to the target as the container's limit stands to its request, with what
/// there is to say of it.
pub(super) fn proportional_limit(
    name: &str,
    limit: Option<Quantity>,
    request: Option<Quantity>,
    target: Option<Quantity>,
) -> (Option<Quantity>, Option<String>) {
    let set = |amount: Option<Quantity>| amount.filter(|amount| !amount.is_zero());
    let Some(limit) = set(limit) else {
        return (None, Some(format!("{name}: limit NOT set since originalLimit is nil or 0")));
    };
    let Some(target) = set(target) else {
        return (None, Some(format!("{name}: limit NOT set since recommendedRequest is nil or 0")));
    };
    // Without a request the limit is the request.
    let Some(request) = set(request).filter(|request| *request != limit) else {
        return (Some(target), None);
    };
    let units = |amount: &Quantity| {
        if name == "cpu" { amount.milli_value_ceil() } else { amount.value_ceil() }
    };
    let scaled =
        i128::from(units(&limit)) * i128::from(units(&target)) / i128::from(units(&request));
    let (scaled, note) = match i64::try_from(scaled) {
        Ok(scaled) => (scaled, None),
        Err(_) => {
            let why = "failed to keep limit to request ratio; capping limit to int64";
            (i64::MAX, Some(format!("{name}: {why}")))
        }
    };
    let scaled = if name == "cpu" {
        Quantity::from_milli(scaled).in_format(limit.format())
    } else {
        Quantity::from_units(scaled, limit.format())
    };
    (Some(scaled), note)
}

/// What a container asks for, and its limits.
pub(super) fn requests_and_limits(container: &Container) -> (Option<&List>, Option<&List>) {
    let resources = container.resources.as_ref();
    (
        resources.and_then(|resources| resources.requests.as_ref()),
        resources.and_then(|resources| resources.limits.as_ref()),
    )
}

/// An amount of a list, if it is there and can be read.
pub(super) fn get(list: Option<&List>, name: &str) -> Option<Quantity> {
    Quantity::parse(&list?.get(name)?.0).ok()
}

impl Recommended {
    /// The amount of a resource by its name.
    pub fn of(&self, name: &str) -> Option<Quantity> {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn autoscaler(target: Value, policy: Value) -> VerticalPodAutoscaler {
        serde_json::from_value(json!({
            "metadata": {"name": "hamster-vpa"},
            "spec": {"resourcePolicy": {"containerPolicies": [policy]}},
            "status": {"recommendation": {"containerRecommendations": [
                {"containerName": "hamster", "target": target}]}},
        }))
        .expect("it decodes")
    }

    fn pod(resources: Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [
            {"name": "hamster", "resources": resources}, {"name": "side", "resources": {"requests": {"cpu": "1m"}}}]}}))
        .expect("it decodes")
    }

    fn admitted(resources: Value, target: Value, policy: Value) -> (Value, String) {
        let mut pod = pod(resources);
        let mut policy = policy;
        policy["containerName"] = json!("*");
        admit(&autoscaler(target, policy), &mut pod, &LimitRanges::default());
        let annotations = pod.metadata.annotations.unwrap_or_default();
        assert_eq!(annotations[OBSERVED_CONTAINERS], "hamster, side");
        let container = &pod.spec.expect("a spec").containers[0];
        let updates = annotations.get(UPDATES).cloned().unwrap_or_default();
        (serde_json::to_value(&container.resources).expect("JSON"), updates)
    }

    #[test]
    fn requests_become_the_target_and_limits_keep_their_ratio() {
        let target = json!({"cpu": "587m", "memory": "262144k"});
        let told = "Pod resources updated by hamster-vpa: container 0: ";
        for (resources, policy, expected, updates) in [
            (
                json!({"requests": {"cpu": "100m", "memory": "50Mi"}}),
                json!({}),
                json!({"requests": {"cpu": "587m", "memory": "262144k"}}),
                "cpu request, memory request",
            ),
            (
                json!({"requests": {"cpu": "100m", "memory": "50Mi"}, "limits": {"cpu": "200m"}}),
                json!({}),
                json!({"requests": {"cpu": "587m", "memory": "262144k"}, "limits": {"cpu": "1174m"}}),
                "memory: limit NOT set since originalLimit is nil or 0, cpu request, memory request, cpu limit",
            ),
            (
                json!({"requests": {"cpu": "300m", "memory": "50Mi"}, "limits": {"cpu": "1", "memory": "50Mi"}}),
                json!({}),
                json!({"requests": {"cpu": "587m", "memory": "262144k"}, "limits": {"cpu": "1956m", "memory": "262144k"}}),
                "cpu request, memory request, cpu limit, memory limit",
            ),
            (
                json!({"limits": {"cpu": "1"}}),
                json!({"controlledResources": ["cpu"]}),
                json!({"requests": {"cpu": "587m", "memory": "262144k"}, "limits": {"cpu": "587m"}}),
                "memory: limit NOT set since originalLimit is nil or 0, cpu request, memory request, cpu limit",
            ),
            (
                json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}),
                json!({"controlledValues": "RequestsOnly"}),
                json!({"requests": {"cpu": "200m", "memory": "262144k"}, "limits": {"cpu": "200m"}}),
                "cpu capped to container limit, cpu request, memory request",
            ),
            (
                Value::Null,
                json!({"maxAllowed": {"cpu": "500m"}, "minAllowed": {"memory": "300Mi"}}),
                json!({"requests": {"cpu": "500m", "memory": "300Mi"}}),
                "cpu capped to maxAllowed, memory capped to minAllowed, cpu request, memory request",
            ),
        ] {
            let (found, told_of) = admitted(resources.clone(), target.clone(), policy.clone());
            assert_eq!(found, expected, "{resources} {policy}");
            assert_eq!(told_of, format!("{told}{updates}"), "{resources} {policy}");
        }
    }

    #[test]
    fn ranges_of_the_namespace_cut_before_the_policy() {
        let range = |limits: Value| -> LimitRanges {
            let range = json!({"spec": {"limits": limits}});
            LimitRanges::of([&serde_json::from_value(range).expect("it decodes")])
        };
        let target = json!({"cpu": "2", "memory": "200M"});
        let resources = json!({"requests": {"cpu": "1", "memory": "1G"}, "limits": {"cpu": "1", "memory": "1G"}});
        let container =
            json!([{"type": "Container", "max": {"cpu": "1"}, "min": {"memory": "500M"}}]);
        let default = json!([{"type": "Container", "max": {"cpu": "8"}, "default": {"cpu": "4"}}]);
        let bare = json!({"requests": {"cpu": "1"}});
        let pod_max = json!([{"type": "Pod", "max": {"cpu": "1500m"}}]);
        for (limits, resources, policy, expected, told) in [
            (
                &container,
                &resources,
                json!({}),
                json!({"requests": {"cpu": "1", "memory": "500M"}, "limits": {"cpu": "1", "memory": "500M"}}),
                "cpu capped to fit Max in container LimitRange, memory capped to fit Min in container LimitRange, cpu request, memory request, cpu limit, memory limit",
            ),
            (
                &container,
                &resources,
                json!({"minAllowed": {"cpu": "1500m"}}),
                json!({"requests": {"cpu": "1500m", "memory": "500M"}, "limits": {"cpu": "1500m", "memory": "500M"}}),
                "cpu capped to fit Max in container LimitRange, memory capped to fit Min in container LimitRange, cpu capped to minAllowed, cpu request, memory request, cpu limit, memory limit",
            ),
            (
                &default,
                &bare,
                json!({}),
                json!({"requests": {"cpu": "2", "memory": "200M"}, "limits": {"cpu": "8"}}),
                "memory: limit NOT set since originalLimit is nil or 0, cpu request, memory request, cpu limit",
            ),
            (
                &pod_max,
                &resources,
                json!({}),
                json!({"requests": {"cpu": "1500m", "memory": "200M"}, "limits": {"cpu": "1500m", "memory": "200M"}}),
                "cpu request, memory request, cpu limit, memory limit",
            ),
        ] {
            let mut pod = pod(resources.clone());
            let mut policy = policy;
            policy["containerName"] = json!("*");
            let autoscaler = autoscaler(target.clone(), policy);
            admit(&autoscaler, &mut pod, &range(limits.clone()));
            let found = &pod.spec.as_ref().expect("a spec").containers[0].resources;
            assert_eq!(serde_json::to_value(found).expect("JSON"), expected, "{limits}");
            let updates = &pod.metadata.annotations.expect("annotations")[UPDATES];
            let start = format!("Pod resources updated by hamster-vpa: container 0: {told}");
            assert!(updates.starts_with(&start), "{updates}");
        }
    }

    #[test]
    fn a_limit_that_cannot_be_counted_is_cut() {
        let resources = json!({"requests": {"memory": "1"}, "limits": {"memory": "4Ei"}});
        let (found, told) = admitted(resources, json!({"memory": "1Gi"}), json!({}));
        assert_eq!(found["limits"]["memory"], "9223372036854775807");
        assert!(
            told.contains("memory: failed to keep limit to request ratio; capping limit to int64")
        );
    }

    #[test]
    fn a_pod_without_a_recommendation_is_only_marked() {
        let mut pod = pod(json!({"requests": {"cpu": "1"}}));
        let before = pod.spec.clone();
        admit(&VerticalPodAutoscaler::default(), &mut pod, &LimitRanges::default());
        assert_eq!(pod.spec, before);
        let annotations = pod.metadata.annotations.expect("annotations");
        assert_eq!(annotations.keys().collect::<Vec<_>>(), [OBSERVED_CONTAINERS]);
    }

    proptest! {
        /// A limit stands to the new request as it stood to the old one, but for what is cut off.
        #[test]
        fn limits_keep_their_ratio(request in 1..100_000_i64, factor in 1..50_i64, extra in 0..1000_i64, target in 1..1_000_000_i64) {
            let limit = request * factor + extra;
            let quantity = |millis| Some(Quantity::from_milli(millis));
            let (scaled, note) = proportional_limit("cpu", quantity(limit), quantity(request), quantity(target));
            let scaled = scaled.expect("a limit").milli_value_ceil();
            prop_assert_eq!(note, None);
            prop_assert!(scaled >= target);
            let exact = i128::from(limit) * i128::from(target);
            prop_assert!(i128::from(scaled) * i128::from(request) <= exact);
            prop_assert!(i128::from(scaled + 1) * i128::from(request) > exact);
        }

        /// What a pod is given lies within its autoscaler's policy.
        #[test]
        fn targets_lie_within_the_policy(target in 1..10_000_i64, least in 0..5_000_i64, more in 0..5_000_i64) {
            let policy = json!({"containerName": "*", "minAllowed": {"cpu": format!("{least}m")},
                "maxAllowed": {"cpu": format!("{}m", least + more)}});
            let autoscaler = autoscaler(json!({"cpu": format!("{target}m")}), policy);
            let container = Container { name: "hamster".to_owned(), ..Container::default() };
            let cpu = capped(&autoscaler, &[container], &LimitRanges::default());
            let cpu = cpu[0].as_ref().and_then(|capped| capped.target.cpu);
            let cpu = cpu.expect("a target").milli_value_ceil();
            prop_assert!(cpu >= least && (least + more == 0 || cpu <= least + more));
            prop_assert!(target < least || (target > least + more && least + more > 0) || cpu == target);
        }
    }
}
