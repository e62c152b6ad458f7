//! Remembering what nodes have answered changes no decision, whatever happens in between.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceSlice};
use proptest::prelude::*;
use serde_json::json;
use wharf_model::object::ObjectKey;
use wharf_scheduler::{Decision, Memo, Profile, Rotation, Snapshot, schedule, schedule_with};

#[derive(Clone, Debug)]
enum Event {
    SetNode(u8, u8),
    RemoveNode(u8),
    Displace(u8),
    Withdraw(u8),
    SetBudget(u8, u8),
    RemoveBudget(u8),
    /// A pod of this template and priority asks for a node.
    Decide(u8, u8),
    /// The cluster is looked at through a copy from now on.
    Copy,
    OtherProfile,
    /// A class of devices comes to stand for the extended resource, or no longer does.
    SetClass(bool),
    /// A node gets devices.
    SetDevices(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (any::<u8>(), any::<u8>()).prop_map(|(name, kind)| Event::SetNode(name, kind)),
        1 => any::<u8>().prop_map(Event::RemoveNode),
        4 => any::<u8>().prop_map(Event::Displace),
        1 => any::<u8>().prop_map(Event::Withdraw),
        1 => (0..3u8, 0..3u8).prop_map(|(name, allowed)| Event::SetBudget(name, allowed)),
        1 => (0..3u8).prop_map(Event::RemoveBudget),
        16 => (0..TEMPLATES, 0..3u8).prop_map(|(template, priority)| Event::Decide(template, priority)),
        1 => Just(Event::Copy),
        1 => Just(Event::OtherProfile),
        1 => any::<bool>().prop_map(Event::SetClass),
        1 => any::<u8>().prop_map(Event::SetDevices),
    ]
}

fn node(name: u8, kind: u8) -> Node {
    let taints = match kind % 7 {
        0 => json!([{"key": "k", "effect": "NoSchedule"}]),
        1 | 2 => json!([{"key": "soft", "effect": "PreferNoSchedule"}]),
        _ => json!([]),
    };
    let image = |name: &str| json!({"names": [format!("{name}:latest")], "sizeBytes": 400 << 20});
    let images = match kind % 4 {
        0 => json!([]),
        1 => json!([image("a")]),
        2 => json!([image("b")]),
        _ => json!([image("a"), image("b")]),
    };
    serde_json::from_value(json!({
        "metadata": {"name": format!("n{name}"), "labels": {
            "kubernetes.io/hostname": format!("n{name}"),
            "topology.kubernetes.io/zone": format!("z{}", kind % 3),
            "size": (kind % 5).to_string(),
        }},
        "spec": {"taints": taints, "unschedulable": kind.is_multiple_of(17)},
        "status": {"images": images, "allocatable": {
            "cpu": (1 + kind % 3).to_string(), "memory": "4Gi", "pods": (2 + kind % 4).to_string(),
            "example.com/gpu": (kind % 2).to_string(),
        }}
    }))
    .unwrap()
}

const TEMPLATES: u8 = 10;

/// Pods that speak to every plugin.
fn pod(index: usize, template: u8, priority: u8) -> Pod {
    let requests = match template {
        0 => json!({}),
        1 | 2 => json!({"cpu": "500m", "memory": "1Gi"}),
        3 => json!({"cpu": "500m", "example.com/gpu": "1"}),
        4 => json!({"cpu": "9"}),
        _ => json!({"cpu": "1500m", "memory": "512Mi"}),
    };
    let ports =
        if template == 2 { json!([{"containerPort": 1, "hostPort": 80}]) } else { json!([]) };
    let images: &[&str] = match template {
        0..4 => &["a"],
        4..7 => &["a", "b:latest"],
        // More than are remembered together.
        7 => &["a", "b", "c", "d", "a"],
        _ => &["c"],
    };
    let others = images[1..].iter().map(|image| json!({"name": "o", "image": image}));
    let mut containers = vec![json!({
        "name": "c", "image": images[0], "ports": ports, "resources": {"requests": requests},
    })];
    containers.extend(others);
    let mut spec = json!({"priority": i32::from(priority) - 1, "containers": containers});
    let zone = |zone: &str| json!({"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]});
    let others = |key: &str| json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": format!("a{template}")}}});
    match template {
        5 => spec["nodeSelector"] = json!({"size": "2"}),
        6 => {
            spec["affinity"] = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 10, "preference": zone("z1")}, {"weight": 30, "preference": zone("z2")},
            ]}});
            spec["tolerations"] = json!([{"key": "k", "operator": "Exists"}]);
        }
        7 => {
            spec["affinity"] = json!({"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [others("kubernetes.io/hostname")],
            }});
        }
        8 => {
            spec["topologySpreadConstraints"] = json!([
                {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "a8"}}},
            ]);
        }
        9 => {
            spec["affinity"] = json!({"podAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 5, "podAffinityTerm": others("topology.kubernetes.io/zone")}],
            }});
        }
        _ => {}
    }
    serde_json::from_value(json!({
        "metadata": {"name": format!("p{index}"), "namespace": "default", "labels": {"app": format!("a{template}")}},
        "spec": spec,
        "status": {"startTime": format!("2026-01-01T00:00:{:02}Z", index * 7 % 60)},
    }))
    .unwrap()
}

fn budget(name: u8, allowed: u8) -> PodDisruptionBudget {
    serde_json::from_value::<PodDisruptionBudget>(json!({
        "metadata": {"name": format!("b{name}"), "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": format!("a{name}")}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
    }))
    .unwrap()
}

const GPU: &str = "example.com/gpu";

fn class(stands: bool) -> DeviceClass {
    let name = stands.then_some(GPU);
    serde_json::from_value(
        json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": name}}),
    )
    .unwrap()
}

fn devices(node: &str) -> ResourceSlice {
    serde_json::from_value(json!({
        "metadata": {"name": node},
        "spec": {"driver": "d", "nodeName": node, "devices": [{"name": "0"}, {"name": "1"}],
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}}
    }))
    .unwrap()
}

fn profiles() -> [Profile; 2] {
    let mut all = Profile { percentage_of_nodes_to_score: 100, ..Profile::default() };
    all.fit.resources.push((GPU.into(), 3));
    all.balanced.push(GPU.into());
    [Profile::default(), all]
}

/// Carries a decision out.
fn carry_out(snapshot: &mut Snapshot, pod: &Pod, decision: &Decision) {
    let info = snapshot.compile(pod);
    match decision {
        Decision::Bind(placement) => {
            let name = snapshot.node(placement.node).facts.name.clone();
            snapshot.reserve_devices(&info, &name).expect("the filter has just said so");
            snapshot.withdraw_nomination(&info.uid);
            snapshot.place(info, &name);
        }
        Decision::Unschedulable(answer) => {
            let Some(nomination) = &answer.preemption.nomination else { return };
            let name = snapshot.node(nomination.node).facts.name.clone();
            // The last victim takes its time.
            for victim in nomination.victims.iter().skip(1) {
                snapshot.displace(&victim.uid);
            }
            snapshot.nominate(info, &name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn decisions_are_the_same_with_and_without(
        nodes in prop_oneof![0..40u8, 100..125u8],
        kinds in any::<u8>(),
        events in prop::collection::vec(event(), 0..150),
        bytes_max in prop_oneof![Just(0), Just(100_000), Just(10_000_000)],
    ) {
        let mut snapshot = Snapshot::new();
        for name in 0..nodes {
            snapshot.set_node(&node(name, name.wrapping_mul(kinds)));
        }
        let name = |from: u8| format!("n{}", from % (nodes + 3));
        let mut memo = Memo::with_bytes_max(bytes_max);
        let mut rotation = Rotation::default();
        let [mut profile, mut other] = profiles();
        for (index, event) in events.into_iter().enumerate() {
            let uid = |from: u8| format!("default/p{}", usize::from(from) % (index + 1));
            match event {
                Event::SetNode(from, kind) => {
                    snapshot.set_node(&node(from % (nodes + 3), kind));
                }
                Event::RemoveNode(from) => snapshot.remove_node(&name(from)),
                Event::Displace(from) => {
                    snapshot.displace(&uid(from));
                }
                Event::Withdraw(from) => {
                    snapshot.withdraw_nomination(&uid(from));
                }
                Event::SetBudget(name, allowed) => snapshot.set_budget(&budget(name, allowed)),
                Event::RemoveBudget(name) => {
                    let budget = budget(name, 0);
                    snapshot.remove_budget(&ObjectKey::of(&budget.metadata));
                }
                Event::Copy => snapshot = snapshot.clone(),
                Event::OtherProfile => std::mem::swap(&mut profile, &mut other),
                Event::SetClass(stands) => {
                    snapshot.set_device_class(&class(stands));
                }
                Event::SetDevices(from) => {
                    snapshot.set_resource_slice(&devices(&name(from)));
                }
                Event::Decide(template, priority) => {
                    // A pod that waits for its room asks again now and then.
                    let waiting = (0..index).rev().find(|index| {
                        index % 3 == 0 && snapshot.nomination(&format!("default/p{index}")).is_some()
                    });
                    let pod = pod(waiting.unwrap_or(index), template, priority);
                    let info = snapshot.compile(&pod);
                    let mut plain_rotation = rotation;
                    let plain = schedule(&snapshot, &info, &profile, &mut plain_rotation);
                    let decision = schedule_with(&mut memo, &snapshot, &info, &profile, &mut rotation);
                    prop_assert_eq!(rotation, plain_rotation);
                    prop_assert_eq!(format!("{decision:?}"), format!("{plain:?}"));
                    if let Decision::Unschedulable(answer) = &decision {
                        let told = answer.diagnosis.explain(&info, &snapshot);
                        // Twice: the second time it is remembered.
                        for _ in 0..2 {
                            let with = answer.diagnosis.explain_with(&mut memo, &info, &snapshot);
                            prop_assert_eq!(&with, &told);
                        }
                    }
                    carry_out(&mut snapshot, &pod, &decision);
                }
            }
        }
    }
}

/// A class that comes to stand for a resource changes what nodes answer although none changes.
#[test]
fn classes_of_devices_are_heard_of() {
    let mut snapshot = Snapshot::new();
    for name in 0..20 {
        snapshot.set_node(&node(name, 4));
        snapshot.set_resource_slice(&devices(&format!("n{name}")));
    }
    let asking = snapshot.compile(&pod(99, 3, 2));
    let mut memo = Memo::new();
    let mut is_placed = |snapshot: &Snapshot| {
        let (profile, mut rotation) = (Profile::default(), Rotation::default());
        let decision = schedule_with(&mut memo, snapshot, &asking, &profile, &mut rotation);
        matches!(decision, Decision::Bind(_))
    };
    for stands in [false, true, false, true] {
        snapshot.set_device_class(&class(stands));
        for _ in 0..3 {
            assert_eq!(is_placed(&snapshot), stands, "no node offers the resource itself");
        }
    }
}

/// A budget changes what evictions cost although no node changes.
#[test]
fn budgets_are_heard_of() {
    let mut snapshot = Snapshot::new();
    for name in 0..20 {
        // Two slots, and both are taken.
        snapshot.set_node(&node(name, 4));
        for index in [name, name + 20] {
            let mut victim = pod(index.into(), 1 + name % 2, 0);
            victim.status = None;
            let victim = snapshot.compile(&victim);
            snapshot.place(victim, &format!("n{name}"));
        }
    }
    let asking = snapshot.compile(&pod(99, 9, 2));
    let mut memo = Memo::new();
    let mut evicts = |snapshot: &Snapshot| {
        let mut rotation = Rotation::default();
        let profile = Profile::default();
        match schedule_with(&mut memo, snapshot, &asking, &profile, &mut rotation) {
            Decision::Unschedulable(answer) => {
                answer.preemption.nomination.unwrap().victims[0].key.name.to_string()
            }
            Decision::Bind(_) => panic!("all nodes are full"),
        }
    };
    for _ in 0..3 {
        assert_eq!(evicts(&snapshot), "p20");
    }
    snapshot.set_budget(&budget(1, 0));
    assert_eq!(evicts(&snapshot), "p21", "the budget keeps what the even nodes run");
    snapshot.set_budget(&budget(1, 20));
    assert_eq!(evicts(&snapshot), "p20");
}

/// What a decision costs does not grow with the cluster but by a look at a number per node: of
/// thousands of nodes only those are asked on which something has changed.
#[test]
fn only_changed_nodes_are_asked_again() {
    const NODES: usize = 2_000;
    let mut snapshot = Snapshot::new();
    for name in 0..NODES {
        let mut node = node(0, 5);
        node.metadata.name = Some(format!("n{name}"));
        snapshot.set_node(&node);
    }
    let [_, profile] = profiles();
    let mut memo = Memo::new();
    let mut rotation = Rotation::default();
    for index in 0..500 {
        let pod = pod(index, 1, 1);
        let info = snapshot.compile(&pod);
        let decision = schedule_with(&mut memo, &snapshot, &info, &profile, &mut rotation);
        carry_out(&mut snapshot, &pod, &decision);
    }
    assert_eq!(snapshot.pod_count(), 500);
    let asked = usize::try_from(memo.asked()).unwrap();
    assert!((NODES..NODES + 500).contains(&asked), "{asked} nodes were asked");
}

/// More shapes than there is memory for take turns: those that have a page keep it, and do not lose
/// it to one whose next turn is further off.
#[test]
fn shapes_that_take_turns_leave_each_other_their_pages() {
    const NODES: u8 = 120;
    let mut snapshot = Snapshot::new();
    for name in 0..NODES {
        snapshot.set_node(&node(name, 5));
    }
    let [_, profile] = profiles();
    // Some ten pages.
    let mut memo = Memo::with_bytes_max(60_000);
    let mut rotation = Rotation::default();
    for turn in 0..20 {
        for shape in 0..40 {
            let mut asking = pod(40 * turn + shape, 1, 1);
            let requests = json!({"cpu": format!("{}m", 10 + shape)});
            asking.spec.as_mut().unwrap().containers[0].resources =
                serde_json::from_value(json!({"requests": requests})).unwrap();
            let info = snapshot.compile(&asking);
            schedule_with(&mut memo, &snapshot, &info, &profile, &mut rotation);
            // A node changes between two decisions.
            let uid = info.uid.clone();
            snapshot.place(info, &format!("n{}", (40 * turn + shape) % usize::from(NODES)));
            snapshot.displace(&uid);
        }
    }
    // A page that has only just been begun was asked of each node once; one that is kept is asked
    // again of each node that has changed since its last turn.
    let asked = usize::try_from(memo.asked()).unwrap();
    assert!(asked > 10 * 5 * usize::from(NODES), "{asked} nodes were asked by pages that are kept");
}
