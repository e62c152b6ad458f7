//! Tables of claims with what they get, and what holds of any cluster of devices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::AllocationResult;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod extended;
mod sharing;

use crate::cycle::{Decision, Rotation, evaluate, schedule};
use crate::hints::{News, wakes};
use crate::profile::{Plugin, PluginSet, Profile};
use crate::snapshot::NodeChange;
use crate::testing::{node, pod};

const DRIVER: &str = "gpu.example.com";

fn slice(name: &str, spec: Value) -> ResourceSlice {
    let mut whole =
        json!({"driver": DRIVER, "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": whole})).unwrap()
}

fn class(name: &str, expression: &str) -> DeviceClass {
    serde_json::from_value(json!({"metadata": {"name": name},
        "spec": {"selectors": [{"cel": {"expression": expression}}]}}))
    .unwrap()
}

fn claim(name: &str, devices: Value, status: Value) -> ResourceClaim {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"devices": devices}, "status": status}))
    .unwrap()
}

fn asks(name: &str, claims: &[&str]) -> Pod {
    let mut pod = pod(name, json!({}));
    let claims: Vec<_> =
        claims.iter().map(|claim| json!({"name": claim, "resourceClaimName": claim})).collect();
    pod.spec.as_mut().unwrap().resource_claims = serde_json::from_value(json!(claims)).unwrap();
    pod
}

fn gpu(name: &str, model: &str, memory: &str) -> Value {
    json!({"name": name, "attributes": {"model": {"string": model}, "index": {"string": name}},
        "capacity": {"memory": {"value": memory}}})
}

/// Two nodes: `a` with three devices, of which two are alike, and `b` with one.
fn lab() -> Snapshot {
    let mut snapshot = Snapshot::new();
    for name in ["a", "b"] {
        snapshot.set_node(&node(name, json!({"labels": {"name": name}}), json!({})));
    }
    snapshot.set_device_class(&class("gpu", &format!("device.driver == '{DRIVER}'")));
    let devices = json!([gpu("g0", "x", "8Gi"), gpu("g1", "y", "16Gi"), gpu("g2", "y", "16Gi")]);
    snapshot.set_resource_slice(&slice("a", json!({"nodeName": "a", "devices": devices})));
    let devices = json!([gpu("g0", "y", "8Gi")]);
    snapshot.set_resource_slice(&slice("b", json!({"nodeName": "b", "devices": devices})));
    snapshot
}

fn exactly(more: Value) -> Value {
    let mut request = json!({"deviceClassName": "gpu"});
    for (key, value) in more.as_object().into_iter().flatten() {
        request[key] = value.clone();
    }
    json!({"name": "r", "exactly": request})
}

/// Request and device of all results.
fn results(allocation: &AllocationResult) -> Vec<String> {
    let devices = allocation.devices.as_ref().unwrap();
    let results = devices.results.iter().flatten();
    results.map(|it| format!("{}={}/{}", it.request, it.pool, it.device)).collect()
}

/// What the claim `c` gets on both nodes, or why not.
fn outcome(snapshot: &mut Snapshot, devices: Value) -> [String; 2] {
    snapshot.set_resource_claim(&claim("c", devices, json!({})));
    let info = snapshot.compile(&asks("p", &["c"]));
    let evaluation = evaluate(snapshot, &info, &Profile::default());
    ["a", "b"].map(|name| {
        if let Some(refused) = &evaluation.prefilter {
            return refused.message.to_string();
        }
        let index = snapshot.find(name).unwrap();
        let refused = evaluation.nodes.iter().find(|(node, _)| *node == index).unwrap().1;
        match refused {
            Some(refused) => refused.reasons(&info).join(", "),
            None => {
                let plan = snapshot.reserve_devices(&info, name).unwrap();
                snapshot.release_devices(&info.uid);
                results(&plan.allocations[0].1).join(" ")
            }
        }
    })
}

#[test]
fn allocation_modes_selectors_and_constraints() {
    let cannot = "cannot allocate all claims";
    let selected = |text: &str| exactly(json!({"selectors": [{"cel": {"expression": text}}]}));
    let model = format!("{DRIVER}/model");
    let two = json!({"count": 2});
    let first = |names: [&str; 2]| {
        json!({"name": "r", "firstAvailable": [
            {"name": names[0], "deviceClassName": "gpu", "count": 3},
            {"name": names[1], "deviceClassName": "gpu"}]})
    };
    for (devices, expected) in [
        (json!({"requests": [exactly(json!({}))]}), ["r=a/g0", "r=b/g0"]),
        (json!({"requests": [exactly(two.clone())]}), ["r=a/g0 r=a/g1", cannot]),
        (json!({"requests": [exactly(json!({"count": 4}))]}), [cannot, cannot]),
        (
            json!({"requests": [exactly(json!({"allocationMode": "All"}))]}),
            ["r=a/g0 r=a/g1 r=a/g2", "r=b/g0"],
        ),
        (
            json!({"requests": [selected(&format!("device.attributes['{DRIVER}'].model == 'y'"))]}),
            ["r=a/g1", "r=b/g0"],
        ),
        (
            json!({"requests": [selected(&format!(
                "device.capacity['{DRIVER}'].memory.compareTo(quantity('10Gi')) > 0"
            ))]}),
            ["r=a/g1", cannot],
        ),
        (
            json!({"requests": [selected(&format!("device.attributes['{DRIVER}'].size > 1"))]}),
            ["cannot allocate all claims: a device selector fails"; 2],
        ),
        (
            json!({"requests": [selected("device.")]}),
            ["cannot allocate all claims: a device selector fails"; 2],
        ),
        (
            json!({"requests": [exactly(two.clone())], "constraints": [{"matchAttribute": model}]}),
            ["r=a/g1 r=a/g2", cannot],
        ),
        (
            json!({"requests": [exactly(json!({"count": 3}))], "constraints": [{"matchAttribute": model}]}),
            [cannot, cannot],
        ),
        (
            json!({"requests": [exactly(json!({"count": 3}))],
                "constraints": [{"distinctAttribute": model}]}),
            [cannot, cannot],
        ),
        (
            json!({"requests": [exactly(two)], "constraints": [{"distinctAttribute": model}]}),
            ["r=a/g0 r=a/g1", cannot],
        ),
        (
            json!({"requests": [first(["three", "one"])]}),
            ["r/three=a/g0 r/three=a/g1 r/three=a/g2", "r/one=b/g0"],
        ),
        (
            json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "fpga"}}]}),
            ["request r: device class fpga does not exist"; 2],
        ),
        (
            json!({"requests": [exactly(json!({"capacity": {"requests": {"memory": "1Gi"}}}))]}),
            ["r=a/g0", "r=b/g0"],
        ),
        (
            json!({"requests": [exactly(json!({"capacity": {"requests": {"memory": "10Gi"}}}))]}),
            ["r=a/g1", cannot],
        ),
        (
            json!({"requests": [exactly(json!({"capacity": {"requests": {"cores": "1"}}}))]}),
            [cannot, cannot],
        ),
    ] {
        let text = devices.to_string();
        assert_eq!(outcome(&mut lab(), devices), expected, "{text}");
    }
}

#[test]
fn backtracking_gives_the_scarce_device_to_who_needs_it() {
    let only_x = json!({"name": "x", "exactly": {"deviceClassName": "gpu", "selectors": [
        {"cel": {"expression": format!("device.attributes['{DRIVER}'].model == 'x'")}}]}});
    let devices = json!({"requests": [exactly(json!({"count": 2})), only_x]});
    assert_eq!(outcome(&mut lab(), devices)[0], "r=a/g1 r=a/g2 x=a/g0");
}

#[test]
fn a_hopeless_search_ends() {
    let mut snapshot = lab();
    let devices: Vec<_> = (0..64)
        .map(|index| gpu(&format!("d{index}"), &format!("m{}", index % 29), "1Gi"))
        .collect();
    snapshot.set_resource_slice(&slice("many", json!({"nodeName": "a", "devices": devices})));
    let devices = json!({"requests": [exactly(json!({"count": 32}))],
        "constraints": [{"distinctAttribute": format!("{DRIVER}/model")}]});
    assert_eq!(
        outcome(&mut snapshot, devices)[0],
        "cannot allocate all claims: the search was given up after too many steps"
    );
}

#[test]
fn what_others_have_is_only_for_administrators() {
    let mut snapshot = lab();
    let results = json!([{"request": "r", "driver": DRIVER, "pool": "b", "device": "g0"}]);
    let status = json!({"allocation": {"devices": {"results": results}}});
    snapshot.set_resource_claim(&claim("other", json!({"requests": []}), status));
    let ask = |more: Value| json!({"requests": [exactly(more)]});
    let cannot = "cannot allocate all claims";
    assert_eq!(outcome(&mut snapshot, ask(json!({}))), ["r=a/g0", cannot]);
    let all = json!({"allocationMode": "All"});
    assert_eq!(outcome(&mut snapshot, ask(all))[1], cannot, "all means all");
    assert_eq!(outcome(&mut snapshot, ask(json!({"adminAccess": true})))[1], "r=b/g0");
    let news = snapshot.remove_resource_claim(&ObjectKey::namespaced("default", "other"));
    assert!(matches!(news, Some(DeviceNews::Claim { freed: true, .. })));
    assert_eq!(outcome(&mut snapshot, ask(json!({})))[1], "r=b/g0");
}

#[test]
fn only_complete_pools_of_the_newest_generation_count() {
    let ask = || json!({"requests": [exactly(json!({}))]});
    let mut snapshot = lab();
    let part = |name: &str, generation: i64, count: i64, device: &str| {
        let pool = json!({"name": "b", "generation": generation, "resourceSliceCount": count});
        slice(name, json!({"nodeName": "b", "pool": pool, "devices": [gpu(device, "z", "1Gi")]}))
    };
    snapshot.set_resource_slice(&part("b-new", 2, 2, "n0"));
    assert_eq!(outcome(&mut snapshot, ask())[1], "cannot allocate all claims");
    snapshot.set_resource_slice(&part("b-more", 2, 2, "n1"));
    assert_eq!(outcome(&mut snapshot, ask())[1], "r=b/n1");
    snapshot.remove_resource_slice("b-new");
    snapshot.remove_resource_slice("b-more");
    assert_eq!(outcome(&mut snapshot, ask())[1], "r=b/g0");
}

#[test]
fn taints_and_pools_that_contradict_themselves() {
    let mut snapshot = lab();
    let mut tainted = gpu("g0", "y", "8Gi");
    tainted["taints"] = json!([{"key": "sick", "value": "very", "effect": "NoSchedule"}]);
    let taint = slice("b", json!({"nodeName": "b", "devices": [tainted]}));
    snapshot.set_resource_slice(&taint);
    let ask = |more: Value| json!({"requests": [exactly(more)]});
    assert_eq!(outcome(&mut snapshot, ask(json!({})))[1], "cannot allocate all claims");
    let tolerations = json!({"tolerations": [{"key": "sick", "operator": "Exists"}]});
    assert_eq!(outcome(&mut snapshot, ask(tolerations))[1], "r=b/g0");
    let mut shared = gpu("g0", "y", "8Gi");
    shared["consumesCounters"] = json!([{"counterSet": "s", "counters": {"m": {"value": "1"}}}]);
    snapshot.set_resource_slice(&slice("b", json!({"nodeName": "b", "devices": [shared]})));
    assert_eq!(
        outcome(&mut snapshot, ask(json!({})))[1],
        "invalid resource pools were encountered",
        "there is no such set of counters"
    );
}

#[test]
fn an_allocation_says_where_it_is_and_what_goes_with_it() {
    let mut snapshot = lab();
    let opaque = |name: &str| json!({"opaque": {"driver": DRIVER, "parameters": {"from": name}}});
    let mut with_config = class("gpu", "true");
    with_config.spec.config = serde_json::from_value(json!([opaque("class")])).unwrap();
    snapshot.set_device_class(&with_config);
    let devices = json!({"requests": [exactly(json!({}))], "config": [opaque("claim")]});
    snapshot.set_resource_claim(&claim("c", devices, json!({})));
    let info = snapshot.compile(&asks("p", &["c"]));
    let plan = snapshot.reserve_devices(&info, "b").unwrap();
    assert_eq!(
        serde_json::to_value(&plan.allocations[0].1).unwrap(),
        json!({
            "devices": {
                "results": [{"request": "r", "driver": DRIVER, "pool": "b", "device": "g0"}],
                "config": [
                    {"source": "FromClass", "requests": ["r"],
                        "opaque": {"driver": DRIVER, "parameters": {"from": "class"}}},
                    {"source": "FromClaim",
                        "opaque": {"driver": DRIVER, "parameters": {"from": "claim"}}},
                ]
            },
            "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}
        })
    );
    // While it is under way nobody else gets the claim or the device.
    let other = snapshot.compile(&asks("q", &["c"]));
    let refused = evaluate(&snapshot, &other, &Profile::default()).prefilter.unwrap();
    assert_eq!(refused.message, "resource claim default/c is in the process of being allocated");
}

fn refused(snapshot: &Snapshot, pod: &Arc<PodInfo>) -> Box<crate::Unschedulable> {
    match schedule(snapshot, pod, &Profile::default(), &mut Rotation::default()) {
        Decision::Unschedulable(answer) => answer,
        Decision::Bind(_) => panic!("nothing fits here"),
    }
}

#[test]
fn texts_of_claims_that_stand_in_the_way() {
    let mut snapshot = lab();
    let gone = snapshot.compile(&asks("p", &["nowhere"]));
    assert!(snapshot.missing_claim(&gone).is_some());
    let helpless =
        "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    assert_eq!(
        refused(&snapshot, &gone).message(),
        format!(
            "0/2 nodes are available: resourceclaim \"nowhere\" not found. still not schedulable, {helpless}"
        )
    );
    let ask = json!({"requests": [exactly(json!({"count": 9}))]});
    snapshot.set_resource_claim(&claim("c", ask.clone(), json!({})));
    let info = snapshot.compile(&asks("p", &["c"]));
    assert!(snapshot.missing_claim(&info).is_none());
    assert_eq!(
        refused(&snapshot, &info).message(),
        format!(
            "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, {helpless}"
        )
    );
    // Allocated where there is no such node, and not used by anybody.
    let away = json!({"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["c"]}]}]});
    let status = json!({"allocation": {"devices": {"results": []}, "nodeSelector": away}});
    snapshot.set_resource_claim(&claim("c", ask.clone(), status.clone()));
    let answer = refused(&snapshot, &info);
    assert_eq!(
        answer.message(),
        format!(
            "0/2 nodes are available: 2 resourceclaim not available on the node. deallocation of ResourceClaim completed, {helpless}"
        )
    );
    assert_eq!(answer.deallocate, Some(ObjectKey::namespaced("default", "c")));
    let mut used = status;
    let consumer = |uid: usize| json!({"resource": "pods", "name": "q", "uid": uid.to_string()});
    used["reservedFor"] = json!([consumer(0)]);
    snapshot.set_resource_claim(&claim("c", ask.clone(), used.clone()));
    assert_eq!(refused(&snapshot, &info).deallocate, None, "somebody uses it");
    used["reservedFor"] = (0..256).map(consumer).collect();
    snapshot.set_resource_claim(&claim("c", ask, used));
    assert_eq!(refused(&snapshot, &info).summary, "0/2 nodes are available: resourceclaim in use.");
}

#[test]
fn nodes_where_the_better_alternative_is_had_score_higher() {
    let mut snapshot = lab();
    let alternatives = json!([
        {"name": "three", "deviceClassName": "gpu", "count": 3},
        {"name": "one", "deviceClassName": "gpu"}
    ]);
    let devices = json!({"requests": [{"name": "r", "firstAvailable": alternatives}]});
    snapshot.set_resource_claim(&claim("c", devices, json!({})));
    let info = snapshot.compile(&asks("p", &["c"]));
    let candidates = evaluate(&snapshot, &info, &Profile::default()).candidates;
    let score = |name: &str| {
        let index = snapshot.find(name).unwrap();
        let candidate = candidates.iter().find(|it| it.node == index).unwrap();
        candidate.scores.iter().find(|(plugin, _)| *plugin == Plugin::DynamicResources).unwrap().1
    };
    assert_eq!((score("a"), score("b")), (200, 174), "8 and 7 of 8, twice");
}

#[derive(Clone, Debug)]
enum Event {
    Node(u8, u8),
    Slice(u8, u8, u8, u8),
    RemoveSlice(u8),
    Claim(u8, u8, bool),
    RemoveClaim(u8),
    Reserve(u8),
    Release(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..3u8, 0..2u8).prop_map(|(name, zone)| Event::Node(name, zone)),
        (0..5u8, 0..5u8, 1..3u8, 1..4u8).prop_map(|(a, b, c, d)| Event::Slice(a, b, c, d)),
        (0..5u8).prop_map(Event::RemoveSlice),
        (0..4u8, 1..4u8, any::<bool>()).prop_map(|(a, b, c)| Event::Claim(a, b, c)),
        (0..4u8).prop_map(Event::RemoveClaim),
        (0..4u8).prop_map(Event::Reserve),
        (0..4u8).prop_map(Event::Release),
    ]
}

/// A slice: on one of three nodes, in a zone, or everywhere.
fn any_slice(name: u8, place: u8, generation: u8, devices: u8) -> ResourceSlice {
    let devices: Vec<_> = (0..devices).map(|index| gpu(&format!("d{index}"), "m", "1Gi")).collect();
    let pool = json!({"name": name.to_string(), "generation": generation, "resourceSliceCount": 1});
    let mut spec = json!({"devices": devices, "pool": pool});
    match place {
        0..3 => spec["nodeName"] = json!(format!("n{place}")),
        3 => {
            let zone = json!({"key": "zone", "operator": "In", "values": ["1"]});
            spec["nodeSelector"] = json!({"nodeSelectorTerms": [{"matchExpressions": [zone]}]});
        }
        _ => spec["allNodes"] = json!(true),
    }
    slice(&format!("s{name}"), spec)
}

fn any_node(name: u8, zone: u8) -> Node {
    node(&format!("n{name}"), json!({"labels": {"zone": zone.to_string()}}), json!({}))
}

fn any_claim(name: u8, count: u8, allocation: Option<&AllocationResult>) -> ResourceClaim {
    let status = json!({"allocation": allocation});
    claim(&format!("c{name}"), json!({"requests": [exactly(json!({"count": count}))]}), status)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever comes and goes: no device is given out twice, claims get devices that their node
    /// reaches, the snapshot is the one built from what is left, and a pod that would fit now has
    /// been woken.
    #[test]
    fn devices_are_given_out_once_and_nobody_is_stranded(
        events in prop::collection::vec(event(), 1..50), wanted in 1..4u8,
    ) {
        let mut snapshot = Snapshot::new();
        let everything = class("gpu", "true");
        snapshot.set_device_class(&everything);
        snapshot.set_resource_claim(&any_claim(9, wanted, None));
        let waiting = snapshot.compile(&asks("waiting", &["c9"]));
        let mut asleep: Option<PluginSet> = None;
        let (mut nodes, mut slices) = (BTreeMap::new(), BTreeMap::new());
        let mut claims: BTreeMap<u8, ResourceClaim> = BTreeMap::new();
        let mut plans: BTreeMap<u8, DevicePlan> = BTreeMap::new();
        for event in events {
            let mut news = None;
            match event {
                Event::Node(name, zone) => {
                    let node = any_node(name, zone);
                    let change = snapshot.set_node(&node);
                    let new = snapshot.node_named(&format!("n{name}")).unwrap();
                    let old = match &change { NodeChange::Updated(old) => Some(&**old), _ => None };
                    if change != NodeChange::Same
                        && asleep.is_some_and(|by| wakes(by, &waiting, &News::Node { old, new }, &snapshot))
                    {
                        asleep = None;
                    }
                    nodes.insert(name, node);
                }
                Event::Slice(name, place, generation, devices) => {
                    let slice = any_slice(name, place, generation, devices);
                    news = Some(snapshot.set_resource_slice(&slice));
                    slices.insert(name, slice);
                }
                Event::RemoveSlice(name) => {
                    news = snapshot.remove_resource_slice(&format!("s{name}"));
                    slices.remove(&name);
                }
                Event::Claim(name, count, keeps) => {
                    // Its plan comes true, if it has one and keeps it.
                    let plan = plans.get(&name).filter(|_| keeps);
                    let claim = any_claim(name, count, plan.map(|plan| &plan.allocations[0].1));
                    news = Some(snapshot.set_resource_claim(&claim));
                    claims.insert(name, claim);
                }
                Event::RemoveClaim(name) => {
                    news = snapshot.remove_resource_claim(&ObjectKey::namespaced("default", format!("c{name}")));
                    claims.remove(&name);
                }
                Event::Reserve(name) if !plans.contains_key(&name) => {
                    let info = snapshot.compile(&asks(&format!("p{name}"), &[&format!("c{name}")]));
                    let decision = schedule(&snapshot, &info, &Profile::default(), &mut Rotation::default());
                    if let Decision::Bind(placement) = decision {
                        let node = snapshot.node(placement.node).facts.name.clone();
                        let plan = snapshot.reserve_devices(&info, &node);
                        prop_assert!(plan.is_ok(), "what the filter found is there: {plan:?}");
                        let plan = plan.unwrap();
                        if plan.allocations.is_empty() {
                            snapshot.release_devices(&info.uid);
                        } else {
                            let info = snapshot.node_named(&node).unwrap();
                            let here: BTreeSet<_> = snapshot.devices.slices_for(info)
                                .flat_map(|slice| &slice.devices)
                                .filter(|device| device.place.reaches(info, snapshot.symbols()))
                                .map(|device| format!("r={}/{}", device.pool, device.name))
                                .collect();
                            for result in results(&plan.allocations[0].1) {
                                prop_assert!(here.contains(&result), "{result} is on {node}");
                            }
                            plans.insert(name, plan);
                        }
                    }
                }
                Event::Reserve(_) => {}
                Event::Release(name) => {
                    let gone = snapshot.compile(&asks(&format!("p{name}"), &[&format!("c{name}")]));
                    snapshot.release_devices(&gone.uid);
                    plans.remove(&name);
                    if asleep.is_some_and(|by| wakes(by, &waiting, &News::PodGone(&gone), &snapshot)) {
                        asleep = None;
                    }
                }
            }
            if let Some(news) = news
                && asleep.is_some_and(|by| wakes(by, &waiting, &News::Devices(&news), &snapshot))
            {
                asleep = None;
            }
            // Only a claim and its own plan may have the same device.
            let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (name, claim) in &claims {
                let status = claim.status.as_ref().and_then(|it| it.allocation.as_ref());
                for device in status.iter().flat_map(|it| results(it)) {
                    owners.entry(device).or_default().insert(format!("c{name}"));
                }
            }
            for plan in plans.values() {
                for (claim, allocation) in &plan.allocations {
                    for device in results(allocation) {
                        owners.entry(device).or_default().insert(claim.name.to_string());
                    }
                }
            }
            for (device, by) in owners {
                prop_assert_eq!(by.len(), 1, "{} has several owners", device);
            }
            match schedule(&snapshot, &waiting, &Profile::default(), &mut Rotation::default()) {
                Decision::Bind(_) => prop_assert!(asleep.is_none(), "asleep but it would fit"),
                Decision::Unschedulable(answer) if asleep.is_none() && answer.diagnosis.nodes > 0 => {
                    asleep = Some(answer.diagnosis.plugins);
                }
                Decision::Unschedulable(_) => {}
            }
        }
        let mut scratch = Snapshot::new();
        scratch.set_device_class(&everything);
        scratch.set_resource_claim(&any_claim(9, wanted, None));
        nodes.values().for_each(|node| { scratch.set_node(node); });
        slices.values().for_each(|slice| { scratch.set_resource_slice(slice); });
        claims.values().for_each(|claim| { scratch.set_resource_claim(claim); });
        for (name, plan) in &plans {
            scratch.set_devices_aside(&format!("default/p{name}"), plan);
        }
        let info = scratch.compile(&asks("waiting", &["c9"]));
        prop_assert_eq!(snapshot.devices.taken.len(), scratch.devices.taken.len());
        prop_assert_eq!(snapshot.devices.in_flight.len(), scratch.devices.in_flight.len());
        for name in nodes.keys().map(|name| format!("n{name}")) {
            let one = snapshot.reserve_devices(&waiting, &name);
            let other = scratch.reserve_devices(&info, &name);
            prop_assert_eq!(one, other);
        }
    }
}
