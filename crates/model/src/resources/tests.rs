use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodCondition, PodSpec, PodStatus, ResourceRequirements,
};
use proptest::prelude::*;

use super::*;

/// `cpu=1,memory=1Gi`
fn list(text: &str) -> BTreeMap<String, ApiQuantity> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, quantity)| (name.to_owned(), ApiQuantity(quantity.to_owned())))
        .collect()
}

fn resources(text: &str) -> Resources {
    Resources::from_map(&list(text))
}

/// `requests` or `requests|limits`
fn requirements(text: &str) -> ResourceRequirements {
    let (requests, limits) = text.split_once('|').unwrap_or((text, ""));
    let some = |text: &str| Some(list(text)).filter(|list| !list.is_empty());
    ResourceRequirements { requests: some(requests), limits: some(limits), claims: None }
}

/// Containers separated by `;`, each `requests|limits`; an init container starts with `init:`, a
/// sidecar with `side:`, pod-level resources with `pod:`, overhead with `over:`.
fn spec(text: &str) -> PodSpec {
    let mut spec = PodSpec::default();
    let mut init = Vec::new();
    for (index, part) in text.split(';').map(str::trim).enumerate() {
        let (kind, rest) = part.split_once(':').unwrap_or(("", part));
        let container = Container {
            name: format!("c{index}"),
            resources: Some(requirements(rest)),
            restart_policy: (kind == "side").then(|| "Always".to_owned()),
            ..Container::default()
        };
        match kind {
            "init" | "side" => init.push(container),
            "pod" => spec.resources = Some(requirements(rest)),
            "over" => spec.overhead = Some(list(rest)),
            _ => spec.containers.push(container),
        }
    }
    spec.init_containers = Some(init);
    spec
}

#[test]
fn amounts_come_from_and_go_to_the_apis_form() {
    for (text, expected) in [
        ("", "{}"),
        (
            "cpu=7910m,memory=14162Mi,pods=58,ephemeral-storage=18242267924",
            "{\"cpu\":\"7910m\",\"ephemeral-storage\":\"18242267924\",\"memory\":\"14162Mi\",\"pods\":\"58\"}",
        ),
        ("cpu=8000m,memory=1.5Gi", "{\"cpu\":\"8\",\"memory\":\"1536Mi\"}"),
        ("cpu=100.1m,memory=0.5", "{\"cpu\":\"101m\",\"memory\":\"1\"}"),
        ("cpu=0,nvidia.com/gpu=0", "{\"nvidia.com/gpu\":\"0\"}"),
        ("b.com/x=2,a.com/x=1", "{\"a.com/x\":\"1\",\"b.com/x\":\"2\"}"),
        ("hugepages-2Mi=4Mi,memory=nonsense", "{\"hugepages-2Mi\":\"4Mi\"}"),
    ] {
        assert_eq!(resources(text).to_string(), expected);
    }
}

#[test]
fn requests_fit_where_enough_is_free() {
    for (asked, free, expected) in [
        ("", "", true),
        ("cpu=1", "cpu=1", true),
        ("cpu=1001m", "cpu=1", false),
        ("memory=1", "cpu=1", false),
        ("pods=1", "pods=0", false),
        ("gpu.com/a=1", "gpu.com/a=1,gpu.com/b=1", true),
        ("gpu.com/a=1", "gpu.com/b=1", false),
        ("gpu.com/a=0", "", true),
        ("cpu=1", "cpu=2,memory=-1", true),
    ] {
        assert_eq!(resources(asked).fits_in(&resources(free)), expected, "{asked} in {free}");
    }
    assert!(resources("cpu=1,memory=-1").is_negative());
    assert!(resources("gpu.com/a=0").is_zero());
    assert!(resources("gpu.com/a=0").contains("gpu.com/a"));
    assert!(!resources("cpu=0").contains("cpu"));
}

#[test]
fn a_pod_asks_for_its_dearest_moment() {
    for (text, expected) in [
        ("cpu=1; cpu=2,memory=1Gi", "cpu=3,memory=1Gi"),
        ("cpu=1; init:cpu=3", "cpu=3"),
        ("cpu=1; init:memory=1Gi", "cpu=1,memory=1Gi"),
        // Sidecars run beside the containers and beside the init containers after them.
        ("cpu=1; side:cpu=2", "cpu=3"),
        ("cpu=1; side:cpu=2; init:cpu=5", "cpu=7"),
        ("cpu=1; init:cpu=5; side:cpu=2", "cpu=5"),
        ("cpu=1; side:cpu=2; init:cpu=5; side:cpu=9", "cpu=12"),
        // Pod-level requests replace, even by less, what may be given for a pod.
        ("cpu=4,memory=4Gi,gpu.com/a=1; pod:cpu=2,gpu.com/a=5", "cpu=2,memory=4Gi,gpu.com/a=1"),
        ("cpu=4; pod:cpu=2; over:cpu=100m,memory=64Mi", "cpu=2100m,memory=64Mi"),
        ("cpu=1|cpu=2", "cpu=1"),
        ("|cpu=2", ""),
        // Rounded up once, at the end.
        ("cpu=100.5m,memory=0.4; cpu=100.5m,memory=0.4", "cpu=201m,memory=1"),
    ] {
        assert_eq!(pod_requests(&spec(text)), resources(expected), "{text}");
    }
}

#[test]
fn limits_follow_the_same_rules_but_overhead_raises_only_those_there_are() {
    for (text, expected) in [
        ("|cpu=1; |cpu=2; init:|memory=1Gi", "cpu=3,memory=1Gi"),
        ("|cpu=1; over:cpu=100m,memory=64Mi,gpu.com/a=1", "cpu=1100m"),
        ("|cpu=4; pod:|cpu=2", "cpu=2"),
    ] {
        assert_eq!(pod_limits(&spec(text)), resources(expected), "{text}");
    }
}

#[test]
fn scores_count_a_little_for_what_is_not_named() {
    let counted = PodLevel::Counted;
    for (text, pod_level, expected) in [
        ("", counted, "cpu=100m,memory=200Mi"),
        (";", counted, "cpu=200m,memory=400Mi"),
        ("cpu=0,memory=0", counted, ""),
        ("cpu=1", counted, "cpu=1,memory=200Mi"),
        ("cpu=1,memory=1Gi; init:memory=10Mi", counted, "cpu=1,memory=1Gi"),
        ("cpu=50m,memory=100Mi; init:", counted, "cpu=100m,memory=200Mi"),
        ("; pod:cpu=2", counted, "cpu=2,memory=200Mi"),
        ("; ; pod:cpu=2,memory=1Gi", counted, "cpu=2,memory=1Gi"),
        ("memory=1Gi; ; pod:cpu=2", counted, "cpu=2,memory=1Gi"),
        ("; pod:cpu=2", PodLevel::Ignored, "cpu=100m,memory=200Mi"),
        ("; over:cpu=1", counted, "cpu=1100m,memory=200Mi"),
        // A resource nothing names counts for every container, also beside pod-level requests.
        ("; ; pod:cpu=2", counted, "cpu=2,memory=400Mi"),
        ("; pod:cpu=2; over:memory=1Mi", counted, "cpu=2,memory=1Mi"),
    ] {
        let pod = Pod { spec: Some(spec(text)), ..Pod::default() };
        assert_eq!(non_zero_requests(&pod, pod_level), resources(expected), "{text}");
    }
}

#[test]
fn a_pod_under_resize_counts_the_most_of_what_it_asks_and_has() {
    let pod = |actual: &str, reason: &str| Pod {
        spec: Some(spec("cpu=2")),
        status: Some(PodStatus {
            conditions: Some(vec![PodCondition {
                type_: "PodResizePending".to_owned(),
                reason: Some(reason.to_owned()),
                ..PodCondition::default()
            }]),
            container_statuses: Some(vec![ContainerStatus {
                name: "c0".to_owned(),
                resources: Some(requirements(actual)).filter(|_| !actual.is_empty()),
                ..ContainerStatus::default()
            }]),
            ..PodStatus::default()
        }),
        ..Pod::default()
    };
    for (actual, reason, expected) in [
        ("", "Deferred", "cpu=2"),
        ("cpu=1", "Deferred", "cpu=2"),
        ("cpu=3", "Deferred", "cpu=3"),
        ("cpu=1", "Infeasible", "cpu=1"),
        ("", "Infeasible", "cpu=2"),
    ] {
        assert_eq!(assigned_pod_requests(&pod(actual, reason)), resources(expected));
    }
    assert!(assigned_pod_requests(&Pod::default()).is_zero());
}

#[test]
fn a_resize_counts_what_is_allotted_but_nothing_of_a_container_that_ends() {
    let pod = |text: &str, status: PodStatus| Pod {
        spec: Some(spec(text)),
        status: Some(status),
        ..Pod::default()
    };
    let has = |name: &str, actual: &str, allocated: &str| ContainerStatus {
        name: name.to_owned(),
        resources: Some(requirements(actual)),
        allocated_resources: Some(list(allocated)),
        ..ContainerStatus::default()
    };
    let running = PodStatus {
        container_statuses: Some(vec![has("c0", "cpu=2", "cpu=3")]),
        init_container_statuses: Some(vec![has("c1", "cpu=4", ""), has("c2", "cpu=99", "")]),
        ..PodStatus::default()
    };
    let expected = resources("cpu=7");
    assert_eq!(assigned_pod_requests(&pod("cpu=1; side:cpu=1; init:cpu=1", running)), expected);

    let resized = PodStatus { resources: Some(requirements("cpu=5")), ..PodStatus::default() };
    assert_eq!(assigned_pod_requests(&pod("cpu=1; pod:cpu=2", resized)), resources("cpu=5"));
}

#[test]
fn limits_become_the_requests_that_are_missing() {
    for (text, containers, pod) in [
        ("|cpu=1", "cpu=1", None),
        ("cpu=500m|cpu=1,memory=1Gi", "cpu=500m,memory=1Gi", None),
        ("cpu=500m", "cpu=500m", None),
        ("cpu=500m; pod:|cpu=2,memory=1Gi", "cpu=500m", Some("cpu=500m,memory=1Gi")),
        ("cpu=500m; pod:cpu=1", "cpu=500m", Some("cpu=1")),
    ] {
        let mut spec = spec(text);
        default_requests_from_limits(&mut spec);
        let requests = |resources: &Option<ResourceRequirements>| {
            resources.as_ref().and_then(|r| r.requests.clone())
        };
        assert_eq!(requests(&spec.containers[0].resources), Some(list(containers)), "{text}");
        assert_eq!(requests(&spec.resources), pod.map(list), "{text}");
        let once = spec.clone();
        default_requests_from_limits(&mut spec);
        assert_eq!(spec, once, "{text}");
    }
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    use QosClass::{BestEffort, Burstable, Guaranteed};
    for (text, expected) in [
        ("", BestEffort),
        ("cpu=0,gpu.com/a=1|gpu.com/a=1", BestEffort),
        ("cpu=1", Burstable),
        ("|cpu=1,memory=1Gi", Burstable),
        ("cpu=1,memory=1Gi|cpu=1,memory=1Gi", Guaranteed),
        ("cpu=1000m,memory=1024Mi|cpu=1,memory=1Gi", Guaranteed),
        ("cpu=1,memory=1Gi|cpu=2,memory=1Gi", Burstable),
        ("cpu=1|cpu=1", Burstable),
        ("cpu=1,memory=1Gi|cpu=1,memory=1Gi; ", Burstable),
        ("cpu=1,memory=1Gi|cpu=1,memory=1Gi; init:cpu=1", Burstable),
        ("; pod:cpu=1,memory=1Gi|cpu=1,memory=1Gi", Guaranteed),
        ("cpu=1; pod:cpu=1", Burstable),
    ] {
        assert_eq!(qos_class(&spec(text)), expected, "{text}");
    }
}

#[test]
fn the_scheduler_counts_only_some_names() {
    for (name, expected) in [
        ("nvidia.com/gpu", true),
        ("kubernetes.io/batch", true),
        ("requests.nvidia.com/gpu", false),
        ("hugepages-2Mi", true),
        ("attachable-volumes-aws-ebs", true),
        ("storage", false),
        ("gpu", false),
    ] {
        assert_eq!(is_scalar_resource(name), expected, "{name}");
    }
    let all = resources("cpu=1,nvidia.com/gpu=1,example.com/zero=0,storage=5");
    assert_eq!(all.counted_by_scheduler(), resources("cpu=1,nvidia.com/gpu=1"));
}

fn any_resources() -> impl Strategy<Value = Resources> {
    let amount = -1000i64..1000;
    let extended = proptest::collection::btree_map("[a-c]\\.com/x", amount.clone(), 0..3);
    (amount.clone(), amount, extended).prop_map(|(cpu, memory, extended)| {
        let mut resources = Resources::default();
        resources.set(CPU, cpu);
        resources.set(MEMORY, memory);
        extended.iter().for_each(|(name, amount)| resources.set(name, *amount));
        resources
    })
}

proptest! {
    #[test]
    fn arithmetic_is_entry_by_entry(left in any_resources(), right in any_resources()) {
        let (mut sum, mut most) = (left.clone(), left.clone());
        sum.add(&right);
        most.max(&right);
        let mut back = sum.clone();
        back.subtract(&right);
        for name in [CPU, MEMORY, PODS, "a.com/x", "b.com/x", "c.com/x"] {
            prop_assert_eq!(sum.get(name), left.get(name) + right.get(name));
            prop_assert_eq!(back.get(name), left.get(name));
            if left.contains(name) && right.contains(name) {
                prop_assert_eq!(most.get(name), left.get(name).max(right.get(name)));
            }
        }
        prop_assert!(sum.extended.is_sorted());
    }

    #[test]
    fn what_fits_leaves_nothing_negative(asked in any_resources(), free in any_resources()) {
        let mut left = free.clone();
        left.subtract(&asked);
        let short = asked.iter().any(|(name, amount)| amount > 0 && left.get(name) < 0);
        prop_assert_eq!(asked.fits_in(&free), !short);
    }

    #[test]
    fn the_apis_form_round_trips(resources in any_resources()) {
        prop_assert_eq!(Resources::from_map(&resources.to_map()), resources);
    }
}
