//! Remedies where other pods, volumes and devices stand in the way.

use wharf_model::object::ObjectKey;

use super::*;
use crate::snapshot::Snapshot;

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// A small cluster, described by its objects.
#[derive(Clone, Debug, Default)]
struct World {
    /// Objects of storage and devices.
    objects: Vec<Value>,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

impl World {
    fn snapshot(&self, gone: &[&ObjectKey]) -> Snapshot {
        let mut snapshot = Snapshot::new();
        for node in &self.nodes {
            snapshot.set_node(node);
        }
        for object in &self.objects {
            match object["kind"].as_str().unwrap() {
                "PersistentVolumeClaim" => drop(snapshot.set_claim(&read(object))),
                "PersistentVolume" => drop(snapshot.set_volume(&read(object))),
                "StorageClass" => drop(snapshot.set_storage_class(&read(object))),
                "CSINode" => drop(snapshot.set_csi_node(&read(object))),
                "ResourceClaim" => drop(snapshot.set_resource_claim(&read(object))),
                "DeviceClass" => drop(snapshot.set_device_class(&read(object))),
                "ResourceSlice" => drop(snapshot.set_resource_slice(&read(object))),
                kind => panic!("no {kind} here"),
            }
        }
        for pod in &self.pods {
            let info = snapshot.compile(pod);
            if !gone.contains(&&info.key) {
                let node = info.node_name.clone();
                snapshot.place(info, &node);
            }
        }
        snapshot
    }

    /// The nodes that take the pod with the changes made, found out from scratch.
    fn takers(&self, asked: &Pod, changes: &[Change]) -> Vec<String> {
        let gone = changes.iter().filter_map(|change| match change {
            Change::PodGone { pod, .. } => Some(pod),
            _ => None,
        });
        let mut snapshot = self.snapshot(&gone.collect::<Vec<_>>());
        let info = snapshot.compile(&change::changed(asked, changes));
        let candidates = evaluate(&snapshot, &info, &Profile::default()).candidates;
        candidates.iter().map(|it| snapshot.node(it.node).facts.name.to_string()).collect()
    }

    /// What is advised, each time after it has been shown to work and to be no more than is needed.
    fn advice(&self, asked: &Pod) -> Vec<String> {
        let found = remedies(&mut self.snapshot(&[]), asked, &Profile::default());
        for remedy in &found {
            let takers = self.takers(asked, &remedy.changes);
            assert!(takers.contains(&remedy.node.to_string()), "{remedy:?} lets {takers:?}");
            assert_eq!(takers.len(), remedy.nodes, "{remedy:?} lets {takers:?}");
            for index in 0..remedy.changes.len() {
                let mut fewer = remedy.changes.clone();
                let left_out = fewer.remove(index);
                let takers = self.takers(asked, &fewer);
                assert!(takers.is_empty(), "{left_out:?} of {remedy:?} is not needed: {takers:?}");
            }
        }
        assert!(found.is_sorted_by_key(|remedy| remedy.cost));
        let told = |remedy: Remedy| {
            let changes: Vec<_> = remedy.changes.iter().map(ToString::to_string).collect();
            changes.join(" and ")
        };
        found.into_iter().map(told).collect()
    }
}

fn in_zone(name: &str, zone: &str) -> Node {
    node(name, json!({"labels": {ZONE: zone, HOST: name}}), json!({}))
}

fn labelled(pod: Pod, app: &str) -> Pod {
    let mut pod = pod;
    pod.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
    pod
}

fn of_app(name: &str, app: &str, on: &str) -> Pod {
    labelled(running(name, on, json!({"cpu": "100m"})), app)
}

fn waiting(spec: Value) -> Pod {
    with(labelled(pod("p", json!({"cpu": "100m"})), "a"), spec)
}

fn term(app: &str, key: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

/// Pod affinity or anti-affinity that is required.
fn affine(kind: &str, terms: &[Value]) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}})
}

fn spread(key: &str, max_skew: i32) -> Value {
    json!({
        "topologyKey": key, "maxSkew": max_skew, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "a"}}
    })
}

fn spreading(constraints: &[Value]) -> Value {
    json!({"topologySpreadConstraints": constraints})
}

fn tainted_in(name: &str, zone: &str) -> Node {
    let taints = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
    node(name, json!({"labels": {ZONE: zone, HOST: name}}), taints)
}

#[test]
fn a_skew_is_let_grow_as_far_as_is_needed() {
    let world = |pods: usize| World {
        nodes: vec![tainted_in("a", "z0"), in_zone("b", "z1")],
        pods: (0..pods).map(|index| of_app(&format!("b{index}"), "a", "b")).collect(),
        ..World::default()
    };
    let asked = waiting(spreading(&[spread(ZONE, 1)]));
    assert_eq!(
        world(1).advice(&asked),
        [
            "spread over topology.kubernetes.io/zone with maxSkew 2 instead of 1",
            "tolerate k:NoSchedule"
        ]
    );
    // From here on to go where nobody is costs less.
    assert_eq!(
        world(4).advice(&asked),
        [
            "tolerate k:NoSchedule",
            "spread over topology.kubernetes.io/zone with maxSkew 5 instead of 1"
        ]
    );
    assert_eq!(
        world(12).advice(&asked),
        [
            "tolerate k:NoSchedule",
            "spread over topology.kubernetes.io/zone with ScheduleAnyway instead of DoNotSchedule"
        ]
    );
}

#[test]
fn a_topology_that_no_node_has_can_only_be_wished_for() {
    let world = World { nodes: vec![large("a")], ..World::default() };
    let asked = waiting(spreading(&[spread("rack", 1)]));
    assert_eq!(
        world.advice(&asked),
        ["spread over rack with ScheduleAnyway instead of DoNotSchedule"]
    );
    let both = waiting(spreading(&[spread("rack", 1), spread("row", 1)]));
    assert_eq!(
        world.advice(&both),
        [
            "spread over rack with ScheduleAnyway instead of DoNotSchedule and spread over row with ScheduleAnyway instead of DoNotSchedule"
        ]
    );
}

#[test]
fn affinity_to_nobody_is_done_without() {
    let world = World { nodes: vec![in_zone("a", "z0")], ..World::default() };
    let asked = waiting(affine("podAffinity", &[term("b", ZONE)]));
    assert_eq!(
        world.advice(&asked),
        ["do without required pod affinity by topology.kubernetes.io/zone"]
    );
    let own = waiting(affine("podAffinity", &[term("a", ZONE)]));
    assert_eq!(world.advice(&own), Vec::<String>::new(), "the first of its kind goes anywhere");
}

#[test]
fn who_repels_goes_or_the_term_does() {
    let nodes = vec![in_zone("a", "z0")];
    let asked = waiting(affine("podAntiAffinity", &[term("b", HOST)]));
    let one = World {
        nodes: nodes.clone(),
        pods: vec![of_app("other", "c", "a"), of_app("b1", "b", "a")],
        ..World::default()
    };
    assert_eq!(
        one.advice(&asked),
        [
            "do without required pod anti-affinity by kubernetes.io/hostname",
            "take pod default/b1 off a"
        ]
    );
    // The one that runs wants nobody like the pod near: that is not the pod's to give up.
    let repels = with(of_app("b1", "b", "a"), affine("podAntiAffinity", &[term("a", HOST)]));
    let symmetric = World { nodes: nodes.clone(), pods: vec![repels], ..World::default() };
    assert_eq!(symmetric.advice(&waiting(json!({}))), ["take pod default/b1 off a"]);
    // Of two neither alone is in the way: both go, or the term.
    let two = World {
        nodes,
        pods: vec![of_app("b1", "b", "a"), of_app("b2", "b", "a")],
        ..World::default()
    };
    assert_eq!(
        two.advice(&asked),
        [
            "do without required pod anti-affinity by kubernetes.io/hostname",
            "take pod default/b1 off a and take pod default/b2 off a"
        ]
    );
}

fn class(name: &str) -> Value {
    json!({
        "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"
    })
}

/// A claim of the class `local`, bound if a volume is named.
fn claim(name: &str, volume: Option<&str>, modes: &str) -> Value {
    let annotations = volume.map(|_| json!({"pv.kubernetes.io/bind-completed": "yes"}));
    json!({
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default", "uid": name, "annotations": annotations},
        "spec": {"storageClassName": "local", "accessModes": [modes], "volumeName": volume,
            "resources": {"requests": {"storage": "1Gi"}}}
    })
}

/// A volume of the class `local` where a label has a value.
fn volume(name: &str, key: &str, value: &str) -> Value {
    let place = json!({"key": key, "operator": "In", "values": [value]});
    json!({
        "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"}, "csi": {"driver": "csi", "volumeHandle": name},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [place]}]}}}
    })
}

fn csi_node(name: &str, count: i32) -> Value {
    json!({
        "kind": "CSINode", "metadata": {"name": name},
        "spec": {"drivers": [{"name": "csi", "nodeID": name, "allocatable": {"count": count}}]}
    })
}

fn using(claims: &[&str]) -> Value {
    let volume =
        |claim: &&str| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
    json!({"volumes": claims.iter().map(volume).collect::<Vec<_>>()})
}

#[test]
fn a_volume_out_of_reach_is_done_without() {
    let world = World {
        nodes: vec![in_zone("a", "z0")],
        objects: vec![
            class("local"),
            volume("v", ZONE, "z1"),
            claim("far", Some("v"), "ReadWriteOnce"),
            claim("none", None, "ReadWriteOnce"),
        ],
        ..World::default()
    };
    for (claims, expected) in [
        (vec!["far"], "do without volume claim far"),
        (vec!["none"], "do without volume claim none"),
        (vec!["missing"], "do without volume claim missing"),
        (vec!["far", "none"], "do without volume claim far and do without volume claim none"),
    ] {
        assert_eq!(world.advice(&waiting(using(&claims))), [expected], "{claims:?}");
    }
    // The claim of a volume that comes and goes with the pod has the pod's name in its own.
    let own = json!({"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {
        "storageClassName": "local", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}}}}]});
    assert_eq!(world.advice(&waiting(own)), ["do without volume claim p-scratch"]);
}

#[test]
fn who_uses_what_cannot_be_shared_goes_or_the_volume_does() {
    let user = |claim: &str| with(of_app("user", "b", "a"), using(&[claim]));
    let mut world = World {
        nodes: vec![in_zone("a", "z0")],
        pods: vec![of_app("other", "c", "a"), user("sole")],
        objects: vec![
            class("local"),
            volume("v", ZONE, "z0"),
            claim("sole", Some("v"), "ReadWriteOncePod"),
        ],
    };
    let expected = ["take pod default/user off a", "do without volume claim sole"];
    assert_eq!(world.advice(&waiting(using(&["sole"]))), expected);
    // A node that attaches one volume, which is there.
    world.pods = vec![of_app("other", "c", "a"), user("first")];
    world.objects = vec![
        class("local"),
        volume("v", ZONE, "z0"),
        volume("w", ZONE, "z0"),
        claim("first", Some("v"), "ReadWriteOnce"),
        claim("second", Some("w"), "ReadWriteOnce"),
        csi_node("a", 1),
    ];
    let expected = ["take pod default/user off a", "do without volume claim second"];
    assert_eq!(world.advice(&waiting(using(&["second"]))), expected);
}

fn gpus(node: &str, count: u32) -> Value {
    let devices: Vec<_> = (0..count).map(|index| json!({"name": format!("g{index}")})).collect();
    json!({
        "kind": "ResourceSlice", "metadata": {"name": node},
        "spec": {"driver": "gpu.example.com", "nodeName": node, "devices": devices,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}}
    })
}

fn wants_gpus(name: &str, count: u32) -> Value {
    let request = json!({"name": "r", "exactly": {"deviceClassName": "gpu", "count": count}});
    json!({
        "kind": "ResourceClaim", "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"devices": {"requests": [request]}}
    })
}

fn gpu_class() -> Value {
    json!({"kind": "DeviceClass", "metadata": {"name": "gpu"}, "spec": {}})
}

fn with_devices(claims: &[&str]) -> Value {
    let claims: Vec<_> =
        claims.iter().map(|it| json!({"name": it, "resourceClaimName": it})).collect();
    json!({"resourceClaims": claims})
}

#[test]
fn devices_that_no_node_has_are_done_without() {
    let mut world = World {
        nodes: vec![in_zone("a", "z0")],
        objects: vec![gpu_class(), gpus("a", 2), wants_gpus("one", 1), wants_gpus("three", 3)],
        ..World::default()
    };
    let asked = |claims: &[&str]| waiting(with_devices(claims));
    assert_eq!(world.advice(&asked(&["one"])), Vec::<String>::new());
    assert_eq!(world.advice(&asked(&["three"])), ["do without device claim three"]);
    assert_eq!(world.advice(&asked(&["one", "three"])), ["do without device claim three"]);
    world.objects.push(wants_gpus("two", 2));
    let either = ["do without device claim one", "do without device claim two"];
    assert_eq!(world.advice(&asked(&["one", "two"])), either);
}

/// Any small cluster of everything that is in here.
fn any_world() -> impl Strategy<Value = World> {
    let nodes = prop::collection::vec((0..2u8, 0..3i32, 0..3u32, prop::bool::weighted(0.3)), 1..4);
    let repels = prop::option::weighted(0.3, (any::<bool>(), any::<bool>()));
    let pods = prop::collection::vec((0..4usize, any::<bool>(), repels, any::<bool>()), 0..5);
    (nodes, pods).prop_map(|(nodes, pods)| {
        let app = |a: bool| if a { "a" } else { "b" };
        let key = |zone: bool| if zone { ZONE } else { HOST };
        let mut world = World {
            objects: vec![
                class("local"),
                gpu_class(),
                volume("v0", ZONE, "z0"),
                volume("v1", ZONE, "z1"),
                volume("v2", HOST, "n1"),
                volume("v3", ZONE, "z0"),
                claim("c0", Some("v0"), "ReadWriteOncePod"),
                claim("c1", Some("v1"), "ReadWriteOnce"),
                claim("c2", None, "ReadWriteOnce"),
                wants_gpus("d1", 1),
                wants_gpus("d2", 2),
            ],
            ..World::default()
        };
        for (index, (zone, attached, devices, tainted)) in nodes.iter().enumerate() {
            let (name, zone) = (format!("n{index}"), format!("z{zone}"));
            let node = if *tainted { tainted_in(&name, &zone) } else { in_zone(&name, &zone) };
            world.nodes.push(node);
            world.objects.extend([csi_node(&name, *attached), gpus(&name, *devices)]);
        }
        for (index, (on, of_a, repels, uses)) in pods.into_iter().enumerate() {
            let on = format!("n{}", on % world.nodes.len());
            let mut pod = of_app(&format!("r{index}"), app(of_a), &on);
            if let Some((a, zone)) = repels {
                pod = with(pod, affine("podAntiAffinity", &[term(app(a), key(zone))]));
            }
            if uses {
                pod = with(pod, using(&["c0"]));
            }
            world.pods.push(pod);
        }
        world
    })
}

/// A pod that may ask for anything there is.
fn any_asked() -> impl Strategy<Value = Pod> {
    let term = || prop::option::weighted(0.4, (any::<bool>(), any::<bool>()));
    let skew = prop::option::weighted(0.5, (any::<bool>(), 1..3));
    let claims = prop::sample::subsequence(vec!["c0", "c1", "c2"], 0..=2);
    let devices = prop::sample::subsequence(vec!["d1", "d2"], 0..=2);
    (term(), term(), skew, claims, devices).prop_map(|(near, away, skew, claims, devices)| {
        let terms = |it: Option<(bool, bool)>| -> Vec<Value> {
            let of = |(a, zone)| {
                super::others::term(if a { "a" } else { "b" }, if zone { ZONE } else { HOST })
            };
            it.map(of).into_iter().collect()
        };
        let required = |it| json!({"requiredDuringSchedulingIgnoredDuringExecution": terms(it)});
        let affinity = json!({"podAffinity": required(near), "podAntiAffinity": required(away)});
        let mut asked = waiting(json!({"affinity": affinity}));
        if let Some((zone, skew)) = skew {
            asked = with(asked, spreading(&[spread(if zone { ZONE } else { HOST }, skew)]));
        }
        with(with(asked, using(&claims)), with_devices(&devices))
    })
}

/// How many things a pod asks for that could be in the way.
fn demands(pod: &Pod) -> usize {
    let spec = pod.spec.as_ref().unwrap();
    let text = serde_json::to_string(&spec.affinity).unwrap();
    text.matches("topologyKey").count()
        + spec.topology_spread_constraints.as_ref().map_or(0, Vec::len)
        + spec.volumes.as_ref().map_or(0, Vec::len)
        + spec.resource_claims.as_ref().map_or(0, Vec::len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever stands in the way: what is advised works, and nothing less does; and a pod that fits
    /// is advised nothing.
    #[test]
    fn advice_about_others_is_proven_and_minimal(world in any_world(), asked in any_asked()) {
        let fits = !world.takers(&asked, &[]).is_empty();
        let advice = world.advice(&asked);
        prop_assert!(!fits || advice.is_empty(), "{advice:?} for a pod that fits");
        // Everything that keeps a pod off here can be given up, if it is not too much at once, but for
        // what pods on several nodes want.
        let across = world.pods.iter().any(|pod| serde_json::to_string(pod).unwrap().contains(ZONE));
        let at_once = demands(&asked) + world.pods.len() + 1;
        let possible = !across && at_once <= 4;
        prop_assert!(fits || !possible || !advice.is_empty(), "no advice");
    }
}
