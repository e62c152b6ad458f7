//! What must hold of volumes for any cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    WAIT, apply, bound, claim, class, cluster, csi_node, node, read, refusals, requires, using,
    volume, with,
};
use crate::cycle::{Decision, Rotation, schedule};
use crate::hints::{News, wakes};
use crate::pod::PodInfo;
use crate::profile::{PluginSet, Profile};
use crate::snapshot::{NodeChange, Snapshot};
use crate::storage::{StorageNews, VolumePlan};

/// A small cluster's objects by kind and name.
type Objects = BTreeMap<(&'static str, String), Value>;

#[derive(Clone, Debug)]
enum Event {
    Set(Value),
    Remove(&'static str, String),
    Run(Value, String),
    Stop(String),
    Reserve(Value, String),
    Release(String),
}

const CLAIMS: [&str; 3] = ["c0", "c1", "c2"];

fn any_pod() -> impl Strategy<Value = Value> {
    let name = (0..4u8).prop_map(|name| format!("p{name}"));
    let disk = prop::option::of(0..2u8);
    (name, prop::sample::subsequence(CLAIMS.to_vec(), 0..=2), disk).prop_map(
        |(name, claims, disk)| {
            let mut pod = using(&name, &claims);
            if let Some(disk) = disk {
                let disk = json!({"name": "d", "awsElasticBlockStore": {"volumeID": format!("vol-{disk}")}});
                pod["spec"]["volumes"].as_array_mut().unwrap().push(disk);
            }
            pod
        },
    )
}

fn any_object() -> impl Strategy<Value = Value> {
    let nodes =
        (0..3u8, 0..2u8).prop_map(|(name, zone)| node(&format!("n{name}"), &format!("z{zone}")));
    let classes = prop::sample::select(vec![
        class("manual", "kubernetes.io/no-provisioner", WAIT),
        class("local", "csi", WAIT),
        class("fast", "csi", "Immediate"),
    ]);
    let claims = (prop::sample::select(CLAIMS.to_vec()), 1..4u8, 0..4u8, 0..3u8).prop_map(
        |(name, size, state, volume)| {
            // The API lets nobody change a claim's class and access modes, nor a class.
            let class = if name == "c1" { "manual" } else { "local" };
            let claim = match state {
                0 => bound(name, &format!("v{volume}")),
                _ => claim(name, class, &format!("{size}Gi")),
            };
            let only = json!({"spec": {"accessModes": ["ReadWriteOncePod"]}});
            if name == "c2" { with(claim, only) } else { claim }
        },
    );
    let volumes = (0..4u8, 1..4u8, 0..4u8, 0..3u8, any::<bool>()).prop_map(
        |(name, size, place, at, kept)| {
            let affinity = match place {
                0 => requires("kubernetes.io/hostname", &format!("n{at}")),
                1 => requires("topology.kubernetes.io/zone", &format!("z{at}")),
                _ => json!(null),
            };
            let class = if name < 2 { "local" } else { "manual" };
            let class = json!({"spec": {"storageClassName": class}});
            let volume = with(volume(&format!("v{name}"), &format!("{size}Gi"), affinity), class);
            let reference =
                json!({"spec": {"claimRef": {"namespace": "default", "name": format!("c{at}")}}});
            if kept && place == 3 { with(volume, reference) } else { volume }
        },
    );
    let drivers = (0..3u8, 0..3i64, any::<bool>()).prop_map(|(name, count, migrated)| {
        csi_node(&format!("n{name}"), count, if migrated { "kubernetes.io/aws-ebs" } else { "" })
    });
    let driver = any::<bool>().prop_map(
        |tells| json!({"kind": "CSIDriver", "metadata": {"name": "csi"}, "spec": {"storageCapacity": tells}}),
    );
    let room = (0..2u8, 1..4u8).prop_map(|(zone, size)| {
        json!({"kind": "CSIStorageCapacity", "metadata": {"name": format!("r{zone}"), "namespace": "s"},
            "storageClassName": "local", "capacity": format!("{size}Gi"),
            "nodeTopology": {"matchLabels": {"topology.kubernetes.io/zone": format!("z{zone}")}}})
    });
    let attachments = (0..3u8, 0..4u8).prop_map(|(node, volume)| {
        json!({"kind": "VolumeAttachment", "metadata": {"name": format!("a{volume}")}, "spec": {
            "attacher": "csi", "nodeName": format!("n{node}"),
            "source": {"persistentVolumeName": format!("v{volume}")}}})
    });
    prop_oneof![
        3 => nodes, 1 => classes, 4 => claims, 4 => volumes, 2 => drivers, 1 => driver, 1 => room,
        1 => attachments
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let node = || (0..3u8).prop_map(|name| format!("n{name}"));
    let kinds = prop::sample::select(vec![
        ("Node", "n"),
        ("PersistentVolumeClaim", "c"),
        ("PersistentVolume", "v"),
        ("CSINode", "n"),
        ("VolumeAttachment", "a"),
        ("CSIStorageCapacity", "r"),
    ]);
    let name = || (0..4u8).prop_map(|name| format!("p{name}"));
    prop_oneof![
        8 => any_object().prop_map(Event::Set),
        2 => (kinds, 0..3u8).prop_map(|((kind, prefix), name)| Event::Remove(kind, format!("{prefix}{name}"))),
        3 => (any_pod(), node()).prop_map(|(pod, node)| Event::Run(pod, node)),
        1 => name().prop_map(Event::Stop),
        2 => (any_pod(), node()).prop_map(|(pod, node)| Event::Reserve(pod, node)),
        1 => name().prop_map(Event::Release),
    ]
}

fn key_of(object: &Value) -> (&'static str, String) {
    let kinds = [
        "Node",
        "PersistentVolumeClaim",
        "PersistentVolume",
        "StorageClass",
        "CSINode",
        "CSIDriver",
        "CSIStorageCapacity",
        "VolumeAttachment",
    ];
    let kind = kinds.into_iter().find(|kind| object["kind"] == **kind).unwrap();
    (kind, object["metadata"]["name"].as_str().unwrap().to_owned())
}

fn remove(snapshot: &mut Snapshot, kind: &str, name: &str) -> Option<StorageNews> {
    use wharf_model::object::ObjectKey;
    match kind {
        "Node" => snapshot.remove_node(name),
        "PersistentVolumeClaim" => snapshot.remove_claim(&ObjectKey::namespaced("default", name)),
        "PersistentVolume" => snapshot.remove_volume(name),
        "CSINode" => return snapshot.remove_csi_node(name),
        "VolumeAttachment" => return snapshot.remove_volume_attachment(name),
        "CSIStorageCapacity" => snapshot.remove_storage_capacity(&ObjectKey::namespaced("s", name)),
        _ => unreachable!("only these are removed here"),
    }
    None
}

fn by_name(mut refusals: Vec<String>) -> Vec<String> {
    refusals.sort();
    refusals
}

proptest! {
    /// A snapshot that has seen a history answers like one that has seen only its end.
    #[test]
    fn history_leaves_no_trace(
        events in prop::collection::vec(any_event(), 1..60),
        asked in prop::collection::vec(any_pod(), 1..4),
    ) {
        let mut snapshot = Snapshot::new();
        let mut objects = Objects::new();
        let mut running: BTreeMap<String, (Value, String)> = BTreeMap::new();
        let uid = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap().to_owned();
        for event in &events {
            match event {
                Event::Set(object) => {
                    apply(&mut snapshot, object);
                    objects.insert(key_of(object), object.clone());
                }
                Event::Remove(kind, name) => {
                    remove(&mut snapshot, kind, name);
                    objects.remove(&(*kind, name.clone()));
                }
                Event::Run(pod, node) => {
                    let info = snapshot.compile(&read(pod));
                    snapshot.place(info, node);
                    running.insert(uid(pod), (pod.clone(), node.clone()));
                }
                Event::Stop(name) => {
                    snapshot.displace(name);
                    running.remove(name);
                }
                Event::Reserve(pod, node) => {
                    let info = snapshot.compile(&read(pod));
                    let _ = snapshot.reserve_volumes(&info, node);
                }
                Event::Release(name) => {
                    snapshot.release_volumes(name);
                }
            }
            // Asking in between fills what is counted on demand.
            let info = snapshot.compile(&read(&asked[0]));
            refusals(&snapshot, &info);
        }
        for name in 0..4 {
            snapshot.release_volumes(&format!("p{name}"));
        }
        let objects: Vec<_> = objects.into_values().collect();
        let running: Vec<_> = running.values().map(|(pod, node)| (pod.clone(), node.as_str())).collect();
        let mut fresh = cluster(&objects, &running);
        for pod in &asked {
            let pod = with(pod.clone(), json!({"metadata": {"uid": "asked", "name": "asked"}}));
            let [ours, theirs] = [&mut snapshot, &mut fresh].map(|s| (s.compile(&read(&pod)), s));
            prop_assert_eq!(by_name(refusals(ours.1, &ours.0)), by_name(refusals(theirs.1, &theirs.0)));
            for node in ["n0", "n1", "n2"] {
                let plans = [ours.1.reserve_volumes(&ours.0, node), theirs.1.reserve_volumes(&theirs.0, node)];
                prop_assert_eq!(&plans[0], &plans[1]);
                ours.1.release_volumes("asked");
                theirs.1.release_volumes("asked");
            }
        }
    }

    /// However pods and volumes come together: no volume goes to two claims, none is out of its
    /// node's reach or too small, no node gets more than its driver attaches, and a pod is turned
    /// down only if there is nothing for it. (A claim that waits counts for the driver of its
    /// class, as upstream has it; a class without one knows no limit until the claim is bound.)
    #[test]
    fn what_is_handed_out_is_there_and_once(
        volumes in prop::collection::vec((1..5i64, 0..4u8), 0..8),
        claims in prop::collection::vec(1..5i64, 1..8),
        limits in prop::collection::vec(1..4i64, 3),
        provisioned in any::<bool>(),
    ) {
        let provisioner = if provisioned { "csi" } else { "kubernetes.io/no-provisioner" };
        let mut objects = vec![class("local", provisioner, WAIT)];
        for (index, limit) in limits.iter().enumerate() {
            objects.extend([node(&format!("n{index}"), "z"), csi_node(&format!("n{index}"), *limit, "")]);
        }
        for (index, (size, place)) in volumes.iter().enumerate() {
            let affinity = match place {
                3 => json!(null),
                host => requires("kubernetes.io/hostname", &format!("n{host}")),
            };
            objects.push(volume(&format!("v{index}"), &format!("{size}Gi"), affinity));
        }
        objects.extend(claims.iter().enumerate().map(|(index, size)| claim(&format!("c{index}"), "local", &format!("{size}Gi"))));
        let mut snapshot = cluster(&objects, &[]);
        let mut taken = BTreeSet::new();
        let mut on_node = [0i64; 3];
        for (index, size) in claims.iter().enumerate() {
            let pod = snapshot.compile(&read(&using(&format!("p{index}"), &[&format!("c{index}")])));
            let free = |node: usize| {
                let reached = |place: u8| place == 3 || usize::from(place) == node;
                let mut free: Vec<_> = volumes.iter().enumerate()
                    .filter(|(volume, (bytes, place))| bytes >= size && reached(*place) && !taken.contains(volume))
                    .map(|(volume, (bytes, _))| (*bytes, volume)).collect();
                free.sort_unstable();
                free.first().map(|(_, volume)| *volume)
            };
            match schedule(&snapshot, &pod, &Profile::default(), &mut Rotation::default()) {
                Decision::Bind(placement) => {
                    let node = snapshot.node(placement.node).facts.name.to_string();
                    let at: usize = node[1..].parse().unwrap();
                    let expected = free(at);
                    let plan = snapshot.reserve_volumes(&pod, &node).unwrap();
                    match expected {
                        Some(volume) => {
                            prop_assert_eq!(&plan.bindings[0].1, &format!("v{volume}"));
                            prop_assert!(taken.insert(volume), "given twice");
                            let written = with(claim(&format!("c{index}"), "local", "1Gi"), json!({
                                "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
                                "spec": {"volumeName": format!("v{volume}")}
                            }));
                            apply(&mut snapshot, &written);
                        }
                        None => {
                            prop_assert!(provisioned);
                            prop_assert_eq!(plan.provisions.len(), 1);
                        }
                    }
                    snapshot.place(pod, &node);
                    on_node[at] += 1;
                    prop_assert!(!provisioned || on_node[at] <= limits[at]);
                }
                Decision::Unschedulable(_) => {
                    for at in 0..3 {
                        let full = provisioned && on_node[at] == limits[at];
                        prop_assert!(full || !(provisioned || free(at).is_some()));
                    }
                }
            }
        }
    }

    /// Whatever happens to the cluster's volumes: if a pod that was turned down would fit now, some
    /// news since has woken it.
    #[test]
    fn hints_never_strand_a_pod(
        events in prop::collection::vec(any_event(), 1..60),
        asked in any_pod(),
    ) {
        let mut snapshot = Snapshot::new();
        let asked = with(asked, json!({"metadata": {"uid": "asked", "name": "asked"}}));
        let info = snapshot.compile(&read(&asked));
        let mut asleep: Option<PluginSet> = None;
        let stir = |asleep: &mut Option<PluginSet>, news: Option<News<'_>>, snapshot: &Snapshot| {
            if let (Some(by), Some(news)) = (*asleep, news)
                && wakes(by, &info, &news, snapshot)
            {
                *asleep = None;
            }
        };
        for event in events {
            match event {
                Event::Set(object) if object["kind"] == "Node" => {
                    let change = snapshot.set_node(&read(&object));
                    let new = snapshot.node_named(object["metadata"]["name"].as_str().unwrap()).unwrap();
                    let old = match &change { NodeChange::Updated(old) => Some(&**old), _ => None };
                    let news = (change != NodeChange::Same).then_some(News::Node { old, new });
                    stir(&mut asleep, news, &snapshot);
                }
                Event::Set(object) if object["kind"] == "VolumeAttachment" => {
                    apply(&mut snapshot, &object);
                    // Upstream has no hint for that a volume the pod wants is attached already.
                    asleep = None;
                }
                Event::Set(object) => {
                    let news = apply(&mut snapshot, &object).map(News::Storage);
                    stir(&mut asleep, news, &snapshot);
                }
                // Nobody is told of volumes of running pods that vanish; the API keeps them.
                Event::Remove("PersistentVolume" | "PersistentVolumeClaim", _) => {}
                Event::Remove(kind, name) => {
                    let news = remove(&mut snapshot, kind, &name).map(News::Storage);
                    stir(&mut asleep, news, &snapshot);
                }
                Event::Run(pod, node) => {
                    let running = snapshot.compile(&read(&pod));
                    let shared = info.volumes.iter().flat_map(|volumes| &volumes.claims);
                    if shared.into_iter().any(|used| running.volumes.as_ref().is_some_and(|others| others.uses(used.key))) {
                        asleep = None;
                    }
                    let gone: Option<Arc<PodInfo>> = snapshot.displace(&running.uid);
                    snapshot.place(running, &node);
                    stir(&mut asleep, gone.as_deref().map(News::PodGone), &snapshot);
                }
                Event::Stop(name) => {
                    let gone = snapshot.displace(&name);
                    stir(&mut asleep, gone.as_deref().map(News::PodGone), &snapshot);
                }
                Event::Reserve(pod, node) => {
                    let other = snapshot.compile(&read(&pod));
                    let given_back = snapshot.release_volumes(&other.uid).map(News::Storage);
                    let plan = snapshot.reserve_volumes(&other, &node);
                    prop_assert!(plan.is_err() || plan.iter().all(|plan: &VolumePlan| plan.claims().count() <= 2));
                    stir(&mut asleep, given_back, &snapshot);
                }
                Event::Release(name) => {
                    let news = snapshot.release_volumes(&name).map(News::Storage);
                    stir(&mut asleep, news, &snapshot);
                }
            }
            match schedule(&snapshot, &info, &Profile::default(), &mut Rotation::default()) {
                Decision::Bind(_) => prop_assert!(asleep.is_none(), "asleep but it would fit"),
                Decision::Unschedulable(answer) if asleep.is_none() && answer.diagnosis.nodes > 0 => {
                    asleep = Some(answer.diagnosis.plugins);
                }
                Decision::Unschedulable(_) => {}
            }
        }
    }
}
