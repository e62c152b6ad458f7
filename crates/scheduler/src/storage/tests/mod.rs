//! The volume plugins together, as pods meet them: tables of rules with upstream's texts.

mod properties;

use serde_json::{Value, json};

use crate::cycle::{Decision, Rotation, evaluate, schedule};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::Snapshot;
use crate::storage::StorageNews;

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// Takes in an object of any kind the plugins look at.
fn apply(snapshot: &mut Snapshot, object: &Value) -> Option<StorageNews> {
    match object["kind"].as_str().unwrap() {
        "PersistentVolumeClaim" => snapshot.set_claim(&read(object)),
        "PersistentVolume" => snapshot.set_volume(&read(object)),
        "StorageClass" => snapshot.set_storage_class(&read(object)),
        "CSINode" => snapshot.set_csi_node(&read(object)),
        "CSIDriver" => snapshot.set_csi_driver(&read(object)),
        "CSIStorageCapacity" => snapshot.set_storage_capacity(&read(object)),
        "VolumeAttachment" => {
            snapshot.set_volume_attachment(&read(object));
            None
        }
        "Node" => {
            snapshot.set_node(&read(object));
            None
        }
        kind => panic!("no {kind} here"),
    }
}

fn node(name: &str, zone: &str) -> Value {
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone});
    json!({
        "kind": "Node", "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110"}}
    })
}

fn class(name: &str, provisioner: &str, mode: &str) -> Value {
    json!({
        "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": mode
    })
}

/// A claim that waits for its pod.
fn claim(name: &str, class: &str, size: &str) -> Value {
    json!({
        "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}
    })
}

fn bound(name: &str, volume: &str) -> Value {
    let mut claim = claim(name, "fast", "1Gi");
    claim["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
    claim["spec"]["volumeName"] = json!(volume);
    claim
}

fn requires(key: &str, value: &str) -> Value {
    json!({"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}
    ]}})
}

/// A free volume of the class `local`.
fn volume(name: &str, size: &str, affinity: Value) -> Value {
    json!({
        "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": size}, "nodeAffinity": affinity,
            "csi": {"driver": "csi", "volumeHandle": name}},
        "status": {"phase": "Available"}
    })
}

fn csi_node(name: &str, count: i64, migrated: &str) -> Value {
    json!({
        "kind": "CSINode",
        "metadata": {"name": name, "annotations": {"storage.alpha.kubernetes.io/migrated-plugins": migrated}},
        "spec": {"drivers": [
            {"name": "csi", "nodeID": name, "allocatable": {"count": count}},
            {"name": "ebs.csi.aws.com", "nodeID": name, "allocatable": {"count": count}}
        ]}
    })
}

fn with(mut object: Value, changes: Value) -> Value {
    fn merge(into: &mut Value, from: &Value) {
        match from {
            Value::Object(fields) if into.is_object() => {
                for (key, value) in fields {
                    merge(&mut into[key], value);
                }
            }
            other => *into = other.clone(),
        }
    }
    merge(&mut object, &changes);
    object
}

fn pod(name: &str, volumes: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"containers": [{"name": "c"}], "volumes": volumes}
    })
}

fn using(name: &str, claims: &[&str]) -> Value {
    let volume =
        |claim: &&str| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
    pod(name, claims.iter().map(volume).collect())
}

fn cluster(objects: &[Value], running: &[(Value, &str)]) -> Snapshot {
    let mut snapshot = Snapshot::new();
    for object in objects {
        apply(&mut snapshot, object);
    }
    for (pod, node) in running {
        let pod = snapshot.compile(&read(pod));
        snapshot.place(pod, node);
    }
    snapshot
}

/// Why nodes refuse the pod: `node: reason, reason`, or one line without a node if the pod is
/// refused as a whole.
fn refusals(snapshot: &Snapshot, pod: &PodInfo) -> Vec<String> {
    let evaluation = evaluate(snapshot, pod, &Profile::default());
    if let Some(rejection) = evaluation.prefilter {
        return vec![rejection.message.into_owned()];
    }
    let refused = evaluation.nodes.iter().filter_map(|(node, refused)| {
        let name = &snapshot.node(*node).facts.name;
        Some(format!("{name}: {}", (*refused)?.reasons(pod).join(", ")))
    });
    refused.collect()
}

fn refused(objects: &[Value], running: &[(Value, &str)], pod: &Value) -> Vec<String> {
    let mut snapshot = cluster(objects, running);
    let pod = snapshot.compile(&read(pod));
    refusals(&snapshot, &pod)
}

const WAIT: &str = "WaitForFirstConsumer";

#[test]
fn a_pod_is_turned_down_as_a_whole_for_what_its_claims_lack() {
    let nodes = [node("a", "z1"), class("fast", "csi", WAIT), class("now", "csi", "Immediate")];
    let ephemeral =
        pod("p", json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]));
    let owned = |by: &str| {
        with(
            claim("p-v", "fast", "1Gi"),
            json!({"metadata": {"ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": by, "controller": true}
            ]}}),
        )
    };
    for (claims, pod, message) in [
        (vec![], using("p", &["c"]), r#"persistentvolumeclaim "c" not found"#),
        (
            vec![with(bound("c", "v"), json!({"status": {"phase": "Lost"}}))],
            using("p", &["c"]),
            r#"persistentvolumeclaim "c" bound to non-existent persistentvolume "v""#,
        ),
        (
            vec![with(
                bound("c", "v"),
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            )],
            using("p", &["c"]),
            r#"persistentvolumeclaim "c" is being deleted"#,
        ),
        (
            vec![],
            ephemeral.clone(),
            r#"waiting for ephemeral volume controller to create the persistentvolumeclaim "p-v""#,
        ),
        (
            vec![owned("other")],
            ephemeral.clone(),
            "PVC default/p-v was not created for pod default/p (pod is not owner)",
        ),
        (
            vec![claim("c", "now", "1Gi")],
            using("p", &["c"]),
            "pod has unbound immediate PersistentVolumeClaims",
        ),
        (
            vec![with(claim("c", "fast", "1Gi"), json!({"spec": {"volumeName": "v"}}))],
            using("p", &["c"]),
            "pod has unbound immediate PersistentVolumeClaims",
        ),
        (vec![bound("c", "v")], using("p", &["c"]), r#"persistentvolume "v" not found"#),
    ] {
        let objects: Vec<_> = nodes.iter().cloned().chain(claims).collect();
        assert_eq!(refused(&objects, &[], &pod), [message]);
    }
    let objects: Vec<_> = nodes.into_iter().chain([owned("p")]).collect();
    assert_eq!(refused(&objects, &[], &ephemeral), [""; 0]);
    let mut snapshot = cluster(&objects, &[]);
    let waiting = snapshot.compile(&read(&using("p", &["c"])));
    let Decision::Unschedulable(answer) =
        schedule(&snapshot, &waiting, &Profile::default(), &mut Rotation::default())
    else {
        panic!("its claim is missing")
    };
    assert_eq!(
        answer.message(),
        r#"0/1 nodes are available: persistentvolumeclaim "c" not found. not found"#
    );
}

#[test]
fn bound_volumes_are_where_they_are() {
    let zonal = |name: &str| volume(name, "1Gi", requires("topology.kubernetes.io/zone", "z1"));
    let nodes = || vec![node("a", "z1"), node("b", "z2")];
    let mut objects = nodes();
    objects.extend([zonal("v"), bound("c", "v")]);
    let reason = "b: node(s) didn't match PersistentVolume's node affinity";
    assert_eq!(refused(&objects, &[], &using("p", &["c"])), [reason]);
    let label = |zones: &str| {
        let labels =
            json!({"metadata": {"labels": {"failure-domain.beta.kubernetes.io/zone": zones}}});
        with(volume("v", "1Gi", json!(null)), labels)
    };
    for (zones, expected) in [
        ("z1", vec!["b: node(s) had no available volume zone"]),
        ("z1__z2", vec![]),
        ("z1__", vec![]),
    ] {
        let mut objects = nodes();
        objects.extend([label(zones), bound("c", "v")]);
        assert_eq!(refused(&objects, &[], &using("p", &["c"])), expected, "{zones}");
    }
    let mut unlabelled = node("n", "");
    unlabelled["metadata"]["labels"] = json!({});
    let objects = [unlabelled, label("z1"), bound("c", "v")];
    assert_eq!(refused(&objects, &[], &using("p", &["c"])), [""; 0], "a cluster of one zone");
}

#[test]
fn a_claim_that_waits_takes_the_smallest_volume_that_fits() {
    let here = |name: &str, size: &str| volume(name, size, requires("kubernetes.io/hostname", "a"));
    let objects = [
        node("a", "z1"),
        node("b", "z2"),
        class("local", "kubernetes.io/no-provisioner", WAIT),
        here("large", "10Gi"),
        here("small", "2Gi"),
        with(here("reads", "1Gi"), json!({"spec": {"accessModes": ["ReadOnlyMany"]}})),
        with(here("device", "1Gi"), json!({"spec": {"volumeMode": "Block"}})),
        with(here("taken", "1Gi"), json!({"status": {"phase": "Released"}})),
        with(here("other", "1Gi"), json!({"spec": {"storageClassName": "slow"}})),
        claim("c", "local", "1Gi"),
        claim("d", "local", "5Gi"),
        claim("e", "local", "5Gi"),
    ];
    let mut snapshot = cluster(&objects, &[]);
    let pods = ["c", "d", "e"].map(|claim| snapshot.compile(&read(&using(claim, &[claim]))));
    let nowhere = "node(s) didn't find available persistent volumes to bind";
    assert_eq!(refusals(&snapshot, &pods[0]), [format!("b: {nowhere}")]);
    let takes = |snapshot: &mut Snapshot, pod: &PodInfo| -> Vec<String> {
        let plan = snapshot.reserve_volumes(pod, "a").unwrap();
        assert!(plan.provisions.is_empty());
        plan.bindings.iter().map(|(claim, volume)| format!("{claim} {volume}")).collect()
    };
    assert_eq!(takes(&mut snapshot, &pods[0]), ["default/c small"]);
    assert_eq!(takes(&mut snapshot, &pods[1]), ["default/d large"]);
    assert_eq!(
        refusals(&snapshot, &pods[2]),
        [format!("a: {nowhere}"), format!("b: {nowhere}")],
        "what is set aside is nobody else's"
    );
    assert!(snapshot.reserve_volumes(&pods[2], "a").is_err());
    assert_eq!(refusals(&snapshot, &pods[1]), [format!("b: {nowhere}")], "but its own");
    assert_eq!(snapshot.release_volumes("d"), Some(StorageNews::GivenBack));
    assert_eq!(snapshot.release_volumes("d"), None);
    assert_eq!(takes(&mut snapshot, &pods[2]), ["default/e large"]);
}

#[test]
fn a_volume_kept_for_a_claim_is_the_one_it_gets() {
    let kept = |uid: &str| {
        let reference =
            json!({"spec": {"claimRef": {"namespace": "default", "name": "c", "uid": uid}}});
        with(volume("kept", "10Gi", requires("kubernetes.io/hostname", "a")), reference)
    };
    let objects = |uid: &str| {
        [
            node("a", "z1"),
            node("b", "z2"),
            class("local", "csi", WAIT),
            kept(uid),
            volume("free", "1Gi", json!(null)),
            claim("c", "local", "1Gi"),
        ]
    };
    for (uid, expected) in [("", "kept"), ("c", "kept"), ("an earlier one", "free")] {
        let mut snapshot = cluster(&objects(uid), &[]);
        let pod = snapshot.compile(&read(&using("p", &["c"])));
        let plan = snapshot.reserve_volumes(&pod, "a").unwrap();
        assert_eq!(plan.bindings[0].1, expected, "{uid}");
    }
    let mut snapshot = cluster(&objects(""), &[]);
    let pod = snapshot.compile(&read(&using("p", &["c"])));
    let plan = snapshot.reserve_volumes(&pod, "b").unwrap();
    assert_eq!(plan.provisions.len(), 1, "elsewhere one is made, not another taken");
}

#[test]
fn volumes_are_made_where_class_and_room_allow() {
    let topologies = json!({"allowedTopologies": [
        {"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": ["z1"]}]}
    ]});
    let driver = json!({"kind": "CSIDriver", "metadata": {"name": "csi"}, "spec": {"storageCapacity": true}});
    let room = |capacity: Value| {
        let object = json!({"kind": "CSIStorageCapacity", "metadata": {"name": "r", "namespace": "s"},
            "storageClassName": "fast", "nodeTopology": {"matchLabels": {"kubernetes.io/hostname": "a"}}});
        with(object, capacity)
    };
    let nowhere = "node(s) didn't find available persistent volumes to bind";
    let full = "node(s) did not have enough free storage";
    let selected = |node: &str| {
        let chosen =
            json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": node}}});
        vec![class("fast", "csi", WAIT), with(claim("c", "fast", "5Gi"), chosen)]
    };
    let plain = |class: Value| vec![class, claim("c", "fast", "5Gi")];
    for (objects, a, b) in [
        (plain(class("fast", "csi", WAIT)), "", ""),
        (plain(class("fast", "kubernetes.io/no-provisioner", WAIT)), nowhere, nowhere),
        (plain(with(class("fast", "csi", WAIT), topologies)), "", nowhere),
        (
            plain(with(class("fast", "csi", WAIT), json!({"allowedTopologies": [{}]}))),
            nowhere,
            nowhere,
        ),
        (selected("b"), nowhere, ""),
        (selected("gone"), nowhere, nowhere),
        ([plain(class("fast", "csi", WAIT)), vec![driver.clone()]].concat(), full, full),
        (
            [
                plain(class("fast", "csi", WAIT)),
                vec![driver.clone(), room(json!({"capacity": "5Gi"}))],
            ]
            .concat(),
            "",
            full,
        ),
        (
            [
                plain(class("fast", "csi", WAIT)),
                vec![driver.clone(), room(json!({"capacity": "50Gi", "maximumVolumeSize": "4Gi"}))],
            ]
            .concat(),
            full,
            full,
        ),
    ] {
        let objects = [vec![node("a", "z1"), node("b", "z2")], objects].concat();
        let expected: Vec<_> = [("a", a), ("b", b)]
            .iter()
            .filter(|(_, reason)| !reason.is_empty())
            .map(|(node, reason)| format!("{node}: {reason}"))
            .collect();
        assert_eq!(refused(&objects, &[], &using("p", &["c"])), expected, "{objects:?}");
    }
}

#[test]
fn pods_that_share_a_claim_follow_its_first_pod() {
    let objects =
        [node("a", "z1"), node("b", "z2"), class("fast", "csi", WAIT), claim("c", "fast", "1Gi")];
    let mut snapshot = cluster(&objects, &[]);
    let [first, second] = ["p", "q"].map(|name| snapshot.compile(&read(&using(name, &["c"]))));
    let plan = snapshot.reserve_volumes(&first, "b").unwrap();
    assert_eq!(plan.provisions.iter().map(ToString::to_string).collect::<Vec<_>>(), ["default/c"]);
    assert_eq!(
        refusals(&snapshot, &second),
        ["a: node(s) didn't find available persistent volumes to bind"]
    );
    snapshot.reserve_volumes(&second, "b").unwrap();
    snapshot.release_volumes("p");
    assert_eq!(refusals(&snapshot, &second).len(), 1, "the second still counts on it");
    snapshot.release_volumes("q");
    assert_eq!(refusals(&snapshot, &second), [""; 0]);
}

#[test]
fn a_driver_attaches_only_so_many_volumes() {
    let exceeds = "a: node(s) exceed max volume count";
    let base = |count| {
        let mut objects =
            vec![node("a", "z1"), csi_node("a", count, ""), class("fast", "csi", WAIT)];
        for name in ["v1", "v2", "v3"] {
            objects.push(volume(name, "1Gi", json!(null)));
            objects.push(bound(&name.replace('v', "c"), name));
        }
        objects.push(claim("unbound", "fast", "1Gi"));
        objects
    };
    let two = [(using("r1", &["c1"]), "a"), (using("r2", &["c2", "c1"]), "a")];
    for (count, claims, expected) in [
        (2, vec!["c3"], vec![exceeds]),
        (3, vec!["c3"], vec![]),
        (2, vec!["c1", "c2"], vec![]),
        (3, vec!["c3", "unbound"], vec![exceeds]),
        (4, vec!["c3", "unbound"], vec![]),
    ] {
        let asked = using("p", &claims);
        assert_eq!(refused(&base(count), &two, &asked), expected, "{count} {claims:?}");
    }
    let attached = |volume: &str| {
        json!({"kind": "VolumeAttachment", "metadata": {"name": volume}, "spec": {
            "attacher": "csi", "nodeName": "a", "source": {"persistentVolumeName": volume}}})
    };
    let mut objects = base(3);
    objects.push(attached("v1"));
    assert_eq!(refused(&objects, &two, &using("p", &["c3"])), [""; 0], "a pod there uses it");
    objects.extend([volume("v4", "1Gi", json!(null)), attached("v4")]);
    assert_eq!(refused(&objects, &two, &using("p", &["c3"])), [exceeds]);
}

#[test]
fn in_tree_ebs_volumes_count_where_they_are_migrated() {
    let disk = |id: &str| json!({"name": "d", "awsElasticBlockStore": {"volumeID": id}});
    let in_tree = json!({
        "kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {"awsElasticBlockStore": {"volumeID": "aws://z1/vol-1"}, "capacity": {"storage": "1Gi"},
            "nodeAffinity": requires("topology.kubernetes.io/zone", "z1")}
    });
    let running = [(pod("r", json!([disk("vol-2")])), "a")];
    let mut labelled = node("a", "z1");
    labelled["metadata"]["labels"]["topology.ebs.csi.aws.com/zone"] = json!("z1");
    for (migrated, expected) in
        [("kubernetes.io/aws-ebs", vec!["a: node(s) exceed max volume count"]), ("", vec![])]
    {
        let objects =
            [labelled.clone(), csi_node("a", 1, migrated), in_tree.clone(), bound("c", "v")];
        assert_eq!(refused(&objects, &running, &using("p", &["c"])), expected, "{migrated}");
    }
    let objects =
        [node("a", "z1"), csi_node("a", 9, "kubernetes.io/aws-ebs"), in_tree, bound("c", "v")];
    assert_eq!(
        refused(&objects, &[], &using("p", &["c"])),
        ["a: node(s) didn't match PersistentVolume's node affinity"],
        "the driver's zone label is missing"
    );
}

#[test]
fn disks_without_a_claim_are_not_shared() {
    let gce =
        |read_only: bool| json!({"gcePersistentDisk": {"pdName": "d", "readOnly": read_only}});
    let iscsi = |read_only: bool| json!({"iscsi": {"iqn": "d", "lun": 0, "targetPortal": "t", "readOnly": read_only}});
    let rbd = |monitor: &str, read_only: bool| json!({"rbd": {"monitors": ["m", monitor], "pool": "p", "image": "d", "readOnly": read_only}});
    let other_rbd = json!({"rbd": {"monitors": ["x"], "pool": "p", "image": "d"}});
    let ebs = json!({"awsElasticBlockStore": {"volumeID": "d", "readOnly": true}});
    let taken = "a: node(s) had no available disk";
    for (held, wanted, expected) in [
        (gce(false), gce(true), vec![taken]),
        (gce(true), gce(true), vec![]),
        (iscsi(true), iscsi(false), vec![taken]),
        (iscsi(true), iscsi(true), vec![]),
        (rbd("n", false), rbd("o", true), vec![taken]),
        (rbd("n", true), rbd("o", true), vec![]),
        (rbd("n", false), other_rbd, vec![]),
        (ebs.clone(), ebs.clone(), vec![taken]),
        (gce(false), ebs, vec![]),
    ] {
        let [held, wanted] =
            [held, wanted].map(|disk| pod("p", json!([with(json!({"name": "v"}), disk)])));
        let held = with(held, json!({"metadata": {"name": "r", "uid": "r"}}));
        assert_eq!(
            refused(&[node("a", "z1")], &[(held.clone(), "a")], &wanted),
            expected,
            "{held}"
        );
    }
}

#[test]
fn a_claim_for_one_pod_is_for_one_pod_unless_that_is_less_important() {
    let only = json!({"spec": {"accessModes": ["ReadWriteOncePod"]}});
    let objects = [
        node("a", "z1"),
        node("b", "z1"),
        volume("v", "1Gi", json!(null)),
        with(bound("c", "v"), only),
    ];
    let running = [(using("r", &["c"]), "a")];
    let reason = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
    let asked = using("p", &["c"]);
    assert_eq!(
        refused(&objects, &running, &asked),
        [format!("a: {reason}"), format!("b: {reason}")]
    );
    let important = with(asked, json!({"spec": {"priority": 10}}));
    let mut snapshot = cluster(&objects, &running);
    let important = snapshot.compile(&read(&important));
    let Decision::Unschedulable(answer) =
        schedule(&snapshot, &important, &Profile::default(), &mut Rotation::default())
    else {
        panic!("the claim is in use")
    };
    let nomination = answer.preemption.nomination.expect("it may push the other out");
    assert_eq!(nomination.victims[0].key.name, "r");
}

#[test]
fn room_under_a_limit_is_made_by_evictions() {
    let objects = [
        node("a", "z1"),
        csi_node("a", 1, ""),
        volume("v1", "1Gi", json!(null)),
        volume("v2", "1Gi", json!(null)),
        bound("c1", "v1"),
        bound("c2", "v2"),
    ];
    let mut snapshot = cluster(&objects, &[(using("r", &["c1"]), "a")]);
    let important = with(using("p", &["c2"]), json!({"spec": {"priority": 10}}));
    let important = snapshot.compile(&read(&important));
    let Decision::Unschedulable(answer) =
        schedule(&snapshot, &important, &Profile::default(), &mut Rotation::default())
    else {
        panic!("the node is full")
    };
    let nomination = answer.preemption.nomination.expect("it may push the other out");
    assert_eq!(nomination.victims[0].key.name, "r");
}
