//! Extended resources that classes stand for.

use super::*;

const GPU: &str = "example.com/gpu";

/// [`lab`] where the class `gpu` stands for `example.com/gpu`.
fn named() -> Snapshot {
    let mut snapshot = lab();
    let mut gpu = class("gpu", "true");
    gpu.spec.extended_resource_name = Some(GPU.to_owned());
    snapshot.set_device_class(&gpu);
    snapshot
}

/// A pod with containers, of which each asks for so much of a resource.
fn asking(init: &[(u32, bool)], containers: &[u32], resource: &str) -> Pod {
    let container = |name: String, amount: u32| json!({"name": name, "resources": {"requests": {"cpu": "1m", resource: amount.to_string()}}});
    let init: Vec<_> = init
        .iter()
        .enumerate()
        .map(|(index, (amount, stays))| {
            let mut one = container(format!("i{index}"), *amount);
            if *stays {
                one["restartPolicy"] = json!("Always");
            }
            one
        })
        .collect();
    let containers = containers.iter().enumerate();
    let containers: Vec<_> =
        containers.map(|(index, amount)| container(format!("c{index}"), *amount)).collect();
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "p"},
        "spec": {"initContainers": init, "containers": containers}
    }))
    .unwrap()
}

type Pairs<T> = Vec<(String, T)>;

/// Requests with their counts, and which container gets which.
fn plan(pod: &Pod) -> (Pairs<i64>, Pairs<String>) {
    let mut snapshot = named();
    let info = snapshot.compile(pod);
    let node = snapshot.node_named("a").unwrap();
    let Some((plan, _)) = snapshot.devices.extended_claim(&info, node) else {
        return Default::default();
    };
    let requests = plan.requests.into_iter();
    let requests = requests.map(|it| (it.name, it.exactly.unwrap().count.unwrap())).collect();
    let mappings = plan.mappings.into_iter();
    (requests, mappings.map(|it| (it.container_name, it.request_name)).collect())
}

fn pairs<T: Copy>(pairs: &[(&str, T)]) -> Vec<(String, T)> {
    pairs.iter().map(|(name, other)| ((*name).to_owned(), *other)).collect()
}

fn texts(all: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs(all).into_iter().map(|(name, other)| (name, other.to_owned())).collect()
}

#[test]
fn containers_share_what_they_do_not_need_at_the_same_time() {
    let [r0, r1, r2] = [0, 1, 2].map(|index| format!("container-{index}-request-1"));
    let [r0, r1, r2] = [r0.as_str(), r1.as_str(), r2.as_str()];
    for (init, containers, requests, mappings) in [
        (&[][..], &[2][..], &[(r0, 2)][..], &[("c0", r0)][..]),
        (&[], &[1, 2], &[(r0, 1), (r1, 2)], &[("c0", r0), ("c1", r1)]),
        // What runs before uses what comes after.
        (&[(1, false)], &[2], &[(r1, 2)], &[("c0", r1), ("i0", r1)]),
        (&[(3, false)], &[1], &[(r0, 2), (r1, 1)], &[("c0", r1), ("i0", r1), ("i0", r0)]),
        (
            &[(2, false), (3, false)],
            &[1],
            &[(r1, 2), (r2, 1)],
            &[("c0", r2), ("i0", r2), ("i0", r1), ("i1", r2), ("i1", r1)],
        ),
        // A sidecar stays, so that it shares with nobody but those before it.
        (
            &[(1, true), (2, false)],
            &[1],
            &[(r0, 1), (r1, 1), (r2, 1)],
            &[("i0", r0), ("c0", r2), ("i1", r2), ("i1", r1)],
        ),
    ] {
        let found = plan(&asking(init, containers, GPU));
        assert_eq!(found, (pairs(requests), texts(mappings)), "{init:?} {containers:?}");
    }
    let implicit = asking(&[], &[1], "deviceclass.resource.kubernetes.io/gpu");
    assert_eq!(plan(&implicit).0, pairs(&[(r0, 1)]));
    assert_eq!(plan(&asking(&[], &[1], "example.com/other")), Default::default());
}

fn decide(snapshot: &mut Snapshot, pod: &Pod) -> Result<String, String> {
    let info = snapshot.compile(pod);
    match schedule(snapshot, &info, &Profile::default(), &mut Rotation::default()) {
        Decision::Bind(placement) => Ok(snapshot.node(placement.node).facts.name.to_string()),
        Decision::Unschedulable(answer) => Err(answer.message()),
    }
}

#[test]
fn a_class_serves_where_the_node_does_not() {
    let pod = asking(&[], &[2], GPU);
    let helpless =
        "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    assert_eq!(
        decide(&mut lab(), &pod),
        Err(format!(
            "0/2 nodes are available: 2 Insufficient example.com/gpu. no new claims to deallocate, {helpless}"
        ))
    );
    let mut snapshot = named();
    assert_eq!(decide(&mut snapshot, &pod), Ok("a".to_owned()), "b has but one");
    let info = snapshot.compile(&pod);
    let plan = snapshot.reserve_devices(&info, "a").unwrap();
    assert_eq!(
        results(&plan.allocations[0].1),
        ["container-0-request-1=a/g0", "container-0-request-1=a/g1"]
    );
    let mut other = asking(&[], &[2], GPU);
    other.metadata.name = Some("q".to_owned());
    other.metadata.uid = Some("q".to_owned());
    assert_eq!(
        decide(&mut snapshot, &other),
        Err(format!(
            "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, {helpless}"
        ))
    );
    snapshot.release_devices(&info.uid);
    // A node that offers the resource itself takes nothing of the class.
    let own = json!({"cpu": "4", "memory": "8Gi", "pods": "9", GPU: "2"});
    snapshot.set_node(&crate::testing::sized("a", own));
    assert_eq!(decide(&mut snapshot, &pod), Ok("a".to_owned()));
    let plan = snapshot.reserve_devices(&info, "a").unwrap();
    assert!(plan.extended.is_none() && plan.allocations.is_empty());
}

#[test]
fn a_claim_left_from_an_earlier_try_goes_first() {
    let mut snapshot = named();
    let pod = asking(&[], &[1], GPU);
    let info = snapshot.compile(&pod);
    let plan = snapshot.reserve_devices(&info, "b").unwrap();
    let mut made = extended_resource_claim(&info, &plan.extended.unwrap());
    snapshot.release_devices(&info.uid);
    assert_eq!(made.metadata.generate_name.as_deref(), Some("p-extended-resources-"));
    made.metadata.name = Some("p-extended-resources-x".to_owned());
    snapshot.set_resource_claim(&made);
    let answer = refused(&snapshot, &info);
    assert!(
        answer.message().starts_with(
            "0/2 nodes are available: 2 cannot schedule extended resource claim. deletion of ResourceClaim completed, "
        ),
        "{}",
        answer.message()
    );
    let key = ObjectKey::namespaced("default", "p-extended-resources-x");
    assert_eq!(answer.deallocate, Some(key.clone()));
    let news = snapshot.remove_resource_claim(&key).unwrap();
    assert!(wakes(answer.diagnosis.plugins, &info, &News::Devices(&news), &snapshot));
    assert!(decide(&mut snapshot, &pod).is_ok());
}

#[test]
fn the_newest_class_stands_for_a_resource_and_its_coming_wakes() {
    let mut snapshot = lab();
    let pod = asking(&[], &[1], GPU);
    let info = snapshot.compile(&pod);
    let by = refused(&snapshot, &info).diagnosis.plugins;
    let named = |name: &str, year: u32| {
        let mut class = class(name, "true");
        class.spec.extended_resource_name = Some(GPU.to_owned());
        class.metadata.creation_timestamp =
            serde_json::from_value(json!(format!("{year}-01-01T00:00:00Z"))).unwrap();
        class
    };
    let news = snapshot.set_device_class(&named("old", 2024));
    assert!(wakes(by, &info, &News::Devices(&news), &snapshot));
    snapshot.set_device_class(&named("new", 2026));
    snapshot.set_device_class(&named("also-new", 2026));
    assert_eq!(snapshot.devices.class_for(GPU), Some("also-new"));
    snapshot.remove_device_class("also-new");
    snapshot.remove_device_class("new");
    assert_eq!(snapshot.devices.class_for(GPU), Some("old"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Every container gets at least what it asks for, those that run at the same time share
    /// nothing, and no more is asked for than the pod needs at its busiest.
    #[test]
    fn every_container_gets_its_part(
        init in prop::collection::vec((0..4u32, any::<bool>()), 0..4),
        containers in prop::collection::vec(0..4u32, 1..4),
    ) {
        let (requests, mappings) = plan(&asking(&init, &containers, GPU));
        let counts: BTreeMap<_, _> = requests.into_iter().collect();
        let of = |name: &str| -> BTreeSet<String> {
            mappings.iter().filter(|(it, _)| it == name).map(|(_, request)| request.clone()).collect()
        };
        let sum = |names: &BTreeSet<String>| names.iter().map(|name| counts[name]).sum::<i64>();
        let init_names = (0..init.len()).map(|index| format!("i{index}"));
        let asked = init_names.zip(&init).map(|(name, (amount, stays))| (name, *amount, *stays));
        let names = (0..containers.len()).map(|index| format!("c{index}"));
        let all: Vec<_> =
            asked.chain(names.zip(&containers).map(|(name, amount)| (name, *amount, true))).collect();
        let mut taken = BTreeSet::new();
        for (index, (name, amount, stays)) in all.iter().enumerate() {
            let own = of(name);
            prop_assert!(sum(&own) >= i64::from(*amount), "{name} has {own:?}");
            // Sidecars before it and all that stay run beside it.
            for (other, _, _) in all[..index].iter().filter(|(_, _, stays)| *stays) {
                prop_assert!(of(other).is_disjoint(&own), "{other} and {name}");
            }
            if *stays {
                taken.extend(own);
            }
        }
        let long: i64 = all.iter().filter(|(_, _, stays)| *stays).map(|it| i64::from(it.1)).sum();
        prop_assert_eq!(sum(&taken), long);
        let most = all.iter().enumerate().filter(|(_, (_, _, stays))| !stays).map(|(index, it)| {
            let later: i64 =
                all[index..].iter().filter(|(_, _, stays)| *stays).map(|it| i64::from(it.1)).sum();
            i64::from(it.1) - later
        });
        let beyond = most.max().unwrap_or(0).max(0);
        prop_assert_eq!(counts.values().sum::<i64>(), long + beyond);
    }
}

#[test]
fn scores_count_devices_of_the_class_where_nodes_do_not_offer_the_resource() {
    use wharf_model::resources::CPU;

    use crate::profile::{FitRule, FitStrategy};
    use crate::testing::evaluate_in;

    let strategy = |rule: FitRule| {
        let fit = FitStrategy { rule, resources: vec![(GPU.into(), 1)] };
        Profile { fit, balanced: vec![CPU.into(), GPU.into()], ..Profile::default() }
    };
    let asked = crate::testing::pod("p", json!({"cpu": "1", GPU: "1"}));
    let mut snapshot = named();
    let of = |snapshot: &mut Snapshot, rule: FitRule, plugin: Plugin| {
        let info = snapshot.compile(&asked);
        evaluate_in(snapshot, &info, &strategy(rule), plugin)
    };
    let devices = |snapshot: &Snapshot, node: &str| {
        let node = snapshot.node_named(node).unwrap();
        snapshot.devices.totals(GPU, node, snapshot.symbols())
    };
    let (all, taken) = devices(&snapshot, "a").expect("the node has devices");
    assert!(all > 1 && taken == 0);
    let most = of(&mut snapshot, FitRule::MostAllocated, Plugin::NodeResourcesFit);
    assert_eq!(most[0], 100 / all);
    let least = of(&mut snapshot, FitRule::LeastAllocated, Plugin::NodeResourcesFit);
    assert_eq!(least[0], (all - 1) * 100 / all);
    // Another pod has one on its way.
    let other = snapshot.compile(&crate::testing::pod("other", json!({GPU: "1"})));
    snapshot.reserve_devices(&other, "a").expect("there are devices");
    assert_eq!(devices(&snapshot, "a"), Some((all, 1)));
    let most = of(&mut snapshot, FitRule::MostAllocated, Plugin::NodeResourcesFit);
    assert_eq!(most[0], 2 * 100 / all);
    // Without a class nothing is said of the resource.
    snapshot.remove_device_class("gpu");
    assert_eq!(devices(&snapshot, "a"), None);
}
