//! Devices of which several claims have a part, devices that share counters, devices with a place of
//! their own, and devices that are made ready for a pod.

use super::*;

/// One node, `a`, with the slices of one pool.
fn pool(slices: &[Value]) -> Snapshot {
    let mut snapshot = lab();
    snapshot.remove_resource_slice("a");
    add(&mut snapshot, slices);
    snapshot
}

fn add(snapshot: &mut Snapshot, slices: &[Value]) {
    for (index, spec) in slices.iter().enumerate() {
        let mut spec = spec.clone();
        spec["pool"] = json!({"name": "p", "generation": 1, "resourceSliceCount": slices.len()});
        snapshot.set_resource_slice(&slice(&format!("p{index}"), spec));
    }
}

fn ask(more: Value) -> Value {
    json!({"requests": [exactly(more)]})
}

fn amount(memory: &str) -> Value {
    json!({"capacity": {"requests": {"memory": memory}}})
}

/// Allocates a claim on a node and leaves it allocated. Returns what it has got.
fn give(snapshot: &mut Snapshot, name: &str, devices: Value, node: &str) -> AllocationResult {
    snapshot.set_resource_claim(&claim(name, devices.clone(), json!({})));
    let info = snapshot.compile(&asks(name, &[name]));
    let plan = snapshot.reserve_devices(&info, node).unwrap();
    let allocation = plan.allocations[0].1.clone();
    snapshot.set_resource_claim(&claim(name, devices, json!({"allocation": allocation})));
    snapshot.release_devices(&info.uid);
    allocation
}

const CANNOT: &str = "cannot allocate all claims";

/// A card of 8 parts, as a whole, as two halves and as parts of one.
fn card() -> [Value; 2] {
    let part = |name: &str, parts: u32| {
        json!({"name": name, "attributes": {"parts": {"int": parts}}, "consumesCounters": [
            {"counterSet": "card", "counters": {"parts": {"value": parts.to_string()}}}]})
    };
    let devices =
        [part("all", 8), part("left", 4), part("one", 1), part("right", 4), part("two", 2)];
    let counters = json!([{"name": "card", "counters": {"parts": {"value": "8"}}}]);
    [
        json!({"nodeName": "a", "devices": devices}),
        json!({"nodeName": "a", "sharedCounters": counters}),
    ]
}

#[test]
fn parts_of_a_card_take_from_the_same_counters() {
    let parts = |count: u32| {
        let text = format!("device.attributes['{DRIVER}'].parts == {count}");
        exactly(json!({"selectors": [{"cel": {"expression": text}}]}))
    };
    let named = |name: &str, mut request: Value| {
        request["name"] = json!(name);
        request
    };
    let mut snapshot = pool(&card());
    assert_eq!(outcome(&mut snapshot, ask(json!({})))[0], "r=p/all");
    let two = |one: u32, other: u32| json!({"requests": [parts(one), named("q", parts(other))]});
    assert_eq!(outcome(&mut snapshot, two(4, 2))[0], "r=p/left q=p/two");
    assert_eq!(outcome(&mut snapshot, two(8, 1))[0], CANNOT, "nothing is left of it");
    assert_eq!(
        outcome(&mut snapshot, ask(json!({"count": 3})))[0],
        "r=p/left r=p/one r=p/two",
        "both halves and another are too much"
    );
    assert_eq!(outcome(&mut snapshot, ask(json!({"allocationMode": "All"})))[0], CANNOT);
    give(&mut snapshot, "other", json!({"requests": [parts(4)]}), "a");
    assert_eq!(outcome(&mut snapshot, json!({"requests": [parts(8)]}))[0], CANNOT);
    assert_eq!(outcome(&mut snapshot, json!({"requests": [parts(4)]}))[0], "r=p/right");
    give(&mut snapshot, "one more", json!({"requests": [parts(1)]}), "a");
    assert_eq!(outcome(&mut snapshot, json!({"requests": [parts(4)]}))[0], CANNOT, "3 are left");
    let news = snapshot.remove_resource_claim(&ObjectKey::namespaced("default", "other"));
    assert!(matches!(news, Some(DeviceNews::Claim { freed: true, .. })));
    assert_eq!(outcome(&mut snapshot, json!({"requests": [parts(4)]}))[0], "r=p/left");
}

#[test]
fn pools_that_contradict_themselves_are_left_out() {
    let invalid = "invalid resource pools were encountered";
    let [devices, counters] = card();
    for slices in [
        vec![devices.clone(), counters.clone(), counters.clone()],
        vec![
            devices.clone(),
            json!({"nodeName": "a", "sharedCounters": [
            {"name": "card", "counters": {"other": {"value": "8"}}}]}),
        ],
        vec![devices.clone(), devices, counters],
    ] {
        assert_eq!(outcome(&mut pool(&slices), ask(json!({})))[0], invalid, "{slices:?}");
    }
}

/// A card with memory that several may have.
fn shareable(name: &str, memory: &str, policy: Value) -> Value {
    let mut memory = json!({"value": memory});
    if !policy.is_null() {
        memory["requestPolicy"] = policy;
    }
    json!({"name": name, "allowMultipleAllocations": true, "capacity": {"memory": memory}})
}

#[test]
fn claims_share_a_device_as_far_as_its_capacity_goes() {
    let policy = json!({"default": "2Gi", "validRange": {"min": "1Gi", "step": "1Gi"}});
    let devices = json!([shareable("x", "10Gi", policy), shareable("y", "4Gi", json!(null))]);
    let mut snapshot = pool(&[json!({"nodeName": "a", "devices": devices})]);
    let first = give(&mut snapshot, "c1", ask(amount("5500Mi")), "a");
    let result = serde_json::to_value(&first.devices.unwrap().results.unwrap()[0]).unwrap();
    assert_eq!(result["device"], "x");
    assert_eq!(result["consumedCapacity"], json!({"memory": "6Gi"}), "rounded up");
    let share = result["shareID"].as_str().unwrap().to_owned();
    assert_eq!(share.len(), 36, "{share} is a UUID");
    assert_eq!(outcome(&mut snapshot, ask(json!({})))[0], "r=p/x", "takes 2Gi");
    assert_eq!(outcome(&mut snapshot, ask(amount("4Gi")))[0], "r=p/x");
    assert_eq!(outcome(&mut snapshot, ask(amount("5Gi")))[0], CANNOT, "4Gi are left of each");
    let second = give(&mut snapshot, "c2", ask(amount("3Gi")), "a");
    let second = second.devices.unwrap().results.unwrap()[0].share_id.clone().unwrap();
    assert_ne!(second, share);
    assert_eq!(outcome(&mut snapshot, ask(json!({})))[0], "r=p/y", "all of it");
    let both = json!({"requests": [exactly(amount("1Gi")), {"name": "q", "exactly":
        {"deviceClassName": "gpu", "capacity": {"requests": {"memory": "1Gi"}}}}]});
    assert_eq!(outcome(&mut snapshot, both)[0], "r=p/x q=p/y");
    let count = json!({"count": 2, "capacity": {"requests": {"memory": "1Gi"}}});
    assert_eq!(outcome(&mut snapshot, ask(count))[0], "r=p/x r=p/y", "a request has each once");
    snapshot.remove_resource_claim(&ObjectKey::namespaced("default", "c1"));
    assert_eq!(outcome(&mut snapshot, ask(amount("7Gi")))[0], "r=p/x");
}

#[test]
fn a_share_is_counted_once_whether_planned_or_seen() {
    let device = shareable("x", "4Gi", json!(null));
    let mut snapshot = pool(&[json!({"nodeName": "a", "devices": [device]})]);
    let asked = ask(amount("2Gi"));
    snapshot.set_resource_claim(&claim("one", asked.clone(), json!({})));
    let info = snapshot.compile(&asks("one", &["one"]));
    let plan = snapshot.reserve_devices(&info, "a").unwrap();
    assert_eq!(outcome(&mut snapshot, asked.clone())[0], "r=p/x", "planned");
    let status = json!({"allocation": plan.allocations[0].1});
    snapshot.set_resource_claim(&claim("one", asked.clone(), status));
    assert_eq!(outcome(&mut snapshot, asked.clone())[0], "r=p/x", "planned and seen");
    snapshot.release_devices(&info.uid);
    assert_eq!(outcome(&mut snapshot, asked)[0], "r=p/x", "seen");
    assert_eq!(outcome(&mut snapshot, ask(amount("3Gi")))[0], CANNOT);
}

#[test]
fn devices_say_for_themselves_where_they_are() {
    let zone = json!({"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "name", "operator": "In", "values": ["b"]}]}]});
    let devices = json!([
        {"name": "on-a", "nodeName": "a"},
        {"name": "on-b", "nodeSelector": zone},
        {"name": "z", "allNodes": true},
    ]);
    let mut snapshot = pool(&[json!({"perDeviceNodeSelection": true, "devices": devices})]);
    snapshot.remove_resource_slice("b");
    let all = ask(json!({"allocationMode": "All"}));
    assert_eq!(outcome(&mut snapshot, all), ["r=p/on-a r=p/z", "r=p/on-b r=p/z"]);
    let selector = |allocation: AllocationResult| serde_json::to_value(allocation.node_selector);
    let first = give(&mut snapshot, "c1", ask(json!({})), "b");
    let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "name", "operator": "In", "values": ["b"]}]}]});
    assert_eq!(selector(first).unwrap(), terms);
    let second = give(&mut snapshot, "c2", ask(json!({})), "b");
    assert_eq!(selector(second).unwrap(), json!(null), "z is everywhere");
}

#[test]
fn devices_that_must_be_made_ready_come_last_and_stay_at_their_node() {
    let ready = json!({"allNodes": true, "devices": [{"name": "g", "bindsToNode": true,
        "bindingConditions": ["Attached"], "bindingFailureConditions": ["Broken"]}]});
    let mut snapshot = pool(&[ready]);
    // The pool "zz" comes after "p", but needs nothing.
    let other = json!({"name": "zz", "generation": 1, "resourceSliceCount": 1});
    let other = json!({"allNodes": true, "pool": other, "devices": [{"name": "h"}]});
    snapshot.set_resource_slice(&slice("zz", other));
    assert_eq!(outcome(&mut snapshot, ask(json!({})))[0], "r=zz/h");
    snapshot.remove_resource_slice("zz");
    let allocation = give(&mut snapshot, "c1", ask(json!({})), "a");
    let mut status = json!({"allocation": allocation});
    assert_eq!(
        status["allocation"]["devices"]["results"][0],
        json!({"request": "r", "driver": DRIVER, "pool": "p", "device": "g",
            "bindingConditions": ["Attached"], "bindingFailureConditions": ["Broken"]})
    );
    assert_eq!(
        status["allocation"]["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"][0]["values"],
        json!(["a"])
    );
    let told = |status: &Value| binding_conditions(&claim("c1", ask(json!({})), status.clone()));
    let condition = |kind: &str, holds: &str| {
        json!([{"driver": DRIVER, "pool": "p", "device": "g", "conditions": [{"type": kind,
            "status": holds, "reason": "Why", "message": "so", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}])
    };
    assert_eq!(told(&status), Ok(false), "nobody has said anything");
    status["devices"] = condition("Attached", "False");
    assert_eq!(told(&status), Ok(false));
    status["devices"] = condition("Attached", "True");
    assert_eq!(told(&status), Ok(true));
    status["devices"] = condition("Broken", "True");
    assert_eq!(
        told(&status),
        Err("claim c1 binding failed: reason=Why, message=\"so\"".to_owned())
    );
    // Then the claim is of no use anywhere, until it has got something else.
    let devices = || ask(json!({}));
    snapshot.set_resource_claim(&claim("c1", devices(), status.clone()));
    let info = snapshot.compile(&asks("c1", &["c1"]));
    let text = "0/2 nodes are available: 2 resourceclaim not available on the node.";
    let answer = refused(&snapshot, &info);
    assert_eq!(answer.summary, text);
    assert_eq!(answer.deallocate, Some(ObjectKey::namespaced("default", "c1")));
    // The same if it takes too long; but not if it is ready by then.
    status["devices"] = json!(null);
    snapshot.set_resource_claim(&claim("c1", devices(), status.clone()));
    let late = ObjectKey::namespaced("default", "c1");
    let fits = |snapshot: &Snapshot| {
        let decision = schedule(snapshot, &info, &Profile::default(), &mut Rotation::default());
        matches!(decision, Decision::Bind(_))
    };
    assert!(fits(&snapshot));
    snapshot.give_up_binding(&late);
    assert_eq!(refused(&snapshot, &info).deallocate, Some(late.clone()));
    status["devices"] = condition("Attached", "True");
    snapshot.set_resource_claim(&claim("c1", devices(), status));
    assert!(fits(&snapshot));
}

#[test]
fn a_class_says_once_what_goes_with_its_devices() {
    let mut snapshot = lab();
    let opaque = |name: &str| json!({"opaque": {"driver": DRIVER, "parameters": {"from": name}}});
    let mut with_config = class("gpu", "true");
    with_config.spec.config = serde_json::from_value(json!([opaque("class")])).unwrap();
    snapshot.set_device_class(&with_config);
    let mut other = exactly(json!({}));
    other["name"] = json!("q");
    let mut for_q = opaque("claim");
    for_q["requests"] = json!(["q"]);
    let devices = json!({"requests": [exactly(json!({})), other], "config": [for_q]});
    let allocation = give(&mut snapshot, "c", devices, "a");
    let config = serde_json::to_value(allocation.devices.unwrap().config).unwrap();
    assert_eq!(config[0]["requests"], json!(["r", "q"]));
    assert_eq!(
        (config[1]["source"].as_str(), config.as_array().unwrap().len()),
        (Some("FromClaim"), 2)
    );
}

/// A device of a random pool: what it takes of the one counter, and what it has to share if
/// several may have it.
#[derive(Clone, Debug)]
struct AnyDevice {
    counter: u8,
    shares: Option<u8>,
}

#[derive(Clone, Debug)]
struct AnyRequest {
    count: u8,
    capacity: Option<u8>,
}

fn devices() -> impl Strategy<Value = Vec<AnyDevice>> {
    let device = (0..4u8, prop::option::of(1..5u8));
    let device = device.prop_map(|(counter, shares)| AnyDevice { counter, shares });
    prop::collection::vec(device, 1..5)
}

fn requests() -> impl Strategy<Value = Vec<AnyRequest>> {
    let request = (1..3u8, prop::option::of(1..4u8));
    let request = request.prop_map(|(count, capacity)| AnyRequest { count, capacity });
    prop::collection::vec(request, 1..4)
}

/// Who has which device, as the index of a device and what is asked of it.
type Assignment = Vec<(usize, Option<u8>)>;

/// Whether all this can be had together, counted from nothing.
fn holds(devices: &[AnyDevice], counter: u8, all: &Assignment) -> bool {
    let mut left = i32::from(counter);
    for (index, device) in devices.iter().enumerate() {
        let users: Vec<_> = all.iter().filter(|(used, _)| *used == index).collect();
        if users.is_empty() {
            continue;
        }
        left -= i32::from(device.counter);
        match device.shares {
            None if users.len() > 1 || users[0].1.is_some() => return false,
            None => {}
            Some(capacity) => {
                let taken = users.iter().map(|(_, asked)| asked.unwrap_or(capacity));
                if taken.map(u32::from).sum::<u32>() > u32::from(capacity) {
                    return false;
                }
            }
        }
    }
    left >= 0
}

/// Looks at every way to give the requests devices.
fn can_be_had(
    devices: &[AnyDevice],
    counter: u8,
    before: &Assignment,
    requests: &[AnyRequest],
) -> bool {
    let Some((request, rest)) = requests.split_first() else {
        return holds(devices, counter, before);
    };
    (0..1_u32 << devices.len())
        .filter(|chosen| chosen.count_ones() == u32::from(request.count))
        .any(|chosen| {
            let picked = (0..devices.len()).filter(|index| chosen & (1 << index) != 0);
            let mut with: Assignment = before.clone();
            with.extend(picked.map(|index| (index, request.capacity)));
            can_be_had(devices, counter, &with, rest)
        })
}

fn any_pool(devices: &[AnyDevice], counter: u8) -> [Value; 2] {
    let devices: Vec<_> = devices
        .iter()
        .enumerate()
        .map(|(index, device)| {
            let mut one = json!({"name": format!("d{index}"), "consumesCounters": [
                {"counterSet": "s", "counters": {"c": {"value": device.counter.to_string()}}}]});
            if let Some(capacity) = device.shares {
                one["allowMultipleAllocations"] = json!(true);
                one["capacity"] = json!({"m": {"value": capacity.to_string()}});
            }
            one
        })
        .collect();
    let counters = json!([{"name": "s", "counters": {"c": {"value": counter.to_string()}}}]);
    [
        json!({"nodeName": "a", "devices": devices}),
        json!({"nodeName": "a", "sharedCounters": counters}),
    ]
}

fn any_claim(requests: &[AnyRequest]) -> Value {
    let requests: Vec<_> = requests
        .iter()
        .enumerate()
        .map(|(index, request)| {
            let mut one = json!({"deviceClassName": "gpu", "count": request.count});
            if let Some(capacity) = request.capacity {
                one["capacity"] = json!({"requests": {"m": capacity.to_string()}});
            }
            json!({"name": format!("r{index}"), "exactly": one})
        })
        .collect();
    json!({"requests": requests})
}

/// What an allocation says, as an assignment.
fn said(devices: &[AnyDevice], allocation: &AllocationResult) -> Assignment {
    let results = allocation.devices.as_ref().unwrap().results.iter().flatten();
    results
        .map(|result| {
            let index: usize = result.device[1..].parse().unwrap();
            let consumed = result.consumed_capacity.as_ref().map(|all| all["m"].0.parse().unwrap());
            assert_eq!(consumed.is_some(), devices[index].shares.is_some());
            (index, consumed)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Claims come one after the other, and some go again. Each gets devices just when looking at
    /// all ways there are finds one, and what all have can be had together.
    #[test]
    fn sharing_is_as_looking_at_all_ways_says(
        devices in devices(), counter in 0..8u8,
        claims in prop::collection::vec((requests(), any::<bool>()), 1..4),
    ) {
        let mut snapshot = pool(&any_pool(&devices, counter));
        let mut have: Vec<Assignment> = Vec::new();
        for (index, (requests, stays)) in claims.iter().enumerate() {
            let name = format!("c{index}");
            snapshot.set_resource_claim(&claim(&name, any_claim(requests), json!({})));
            let info = snapshot.compile(&asks(&name, &[&name]));
            let before: Assignment = have.iter().flatten().copied().collect();
            let plan = snapshot.reserve_devices(&info, "a");
            prop_assert_eq!(plan.is_ok(), can_be_had(&devices, counter, &before, requests));
            let Ok(plan) = plan else { continue };
            let own = said(&devices, &plan.allocations[0].1);
            let all: Assignment = before.iter().chain(&own).copied().collect();
            prop_assert!(holds(&devices, counter, &all), "{all:?} is too much");
            if *stays {
                let status = json!({"allocation": plan.allocations[0].1});
                snapshot.set_resource_claim(&claim(&name, any_claim(requests), status));
                have.push(own);
            }
            snapshot.release_devices(&info.uid);
        }
        for index in 0..claims.len() {
            snapshot.remove_resource_claim(&ObjectKey::namespaced("default", format!("c{index}")));
        }
        prop_assert!(snapshot.devices.taken.is_empty() && snapshot.devices.shared.is_empty());
        prop_assert!(snapshot.devices.held.is_empty());
    }
}
