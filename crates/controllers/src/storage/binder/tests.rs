use std::time::Duration;

use serde_json::{Value, json};
use wharf_ports::cluster::Propagation;

use super::*;
use crate::storage::attach::Attacher;
use crate::storage::protection::{ClaimProtection, VolumeProtection};
use crate::storage::provisioner::Provisioner;
use crate::workloads::harness::World;

fn controllers() -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(VolumeBinder::default()),
        Box::new(ClaimProtection::default()),
        Box::new(VolumeProtection),
        Box::new(Provisioner::new(1)),
        Box::new(Attacher::new(1)),
    ]
}

fn world() -> World {
    let mut world = World::new(controllers());
    for (name, zone) in [("n1", "us-east-1a"), ("n2", "us-east-1b")] {
        let labels = json!({"topology.kubernetes.io/zone": zone});
        world.apply(json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels}}));
        world.apply(json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
            "metadata": {"name": name}, "spec": {"drivers": [
                {"name": "ebs.csi.aws.com", "nodeID": name, "topologyKeys": ["topology.ebs.csi.aws.com/zone"]}
            ]}}));
    }
    world
}

fn claim(name: &str, size: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default", "finalizers": ["kubernetes.io/pvc-protection"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
        "status": {"phase": "Pending"}})
}

fn volume(name: &str, size: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "finalizers": ["kubernetes.io/pv-protection"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/x"}},
        "status": {"phase": "Pending"}})
}

fn class(name: &str, mode: &str) -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "ebs.csi.aws.com", "volumeBindingMode": mode, "reclaimPolicy": "Delete"})
}

fn of_class(mut claim: Value, class: &str) -> Value {
    claim["spec"]["storageClassName"] = json!(class);
    claim
}

fn seconds(world: &mut World, seconds: u64) {
    world.run_for(Duration::from_secs(seconds));
}

/// `phase volume` of a claim.
fn of_claim(world: &World, name: &str) -> String {
    let claim: &PersistentVolumeClaim = world.get("default", name).expect("the claim");
    let phase = claim.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    format!("{phase} {}", volume_name(claim).unwrap_or("-"))
}

/// `phase claim` of a volume.
fn of_volume(world: &World, name: &str) -> String {
    let Some(volume) = world.get::<PersistentVolume>("", name) else { return "gone".to_owned() };
    let phase = volume.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let claim = matching::claimed(volume).map(|(claim, _)| claim.name.to_string());
    format!("{phase} {}", claim.unwrap_or_else(|| "-".to_owned()))
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn rests(world: &mut World) {
    let writes = world.writes;
    seconds(world, 3_600);
    assert_eq!(world.writes, writes, "nothing happens, nothing is written");
}

#[test]
fn a_claim_gets_the_smallest_volume_that_suits_it() {
    let mut world = world();
    for (name, size) in [("large", "10Gi"), ("small", "1Gi"), ("fitting", "5Gi")] {
        world.apply(volume(name, size));
    }
    let mut other = volume("other-class", "4Gi");
    other["spec"]["storageClassName"] = json!("x");
    world.apply(other);
    seconds(&mut world, 1);
    assert_eq!(of_volume(&world, "small"), "Available -");
    world.apply(claim("c", "4Gi"));
    seconds(&mut world, 1);
    assert_eq!(of_claim(&world, "c"), "Bound fitting");
    assert_eq!(of_volume(&world, "fitting"), "Bound c");
    let bound: &PersistentVolumeClaim = world.get("default", "c").expect("it is there");
    let status = bound.status.clone().expect("a status");
    assert_eq!(status.capacity.map(|capacity| capacity["storage"].0.clone()), Some("5Gi".into()));
    let annotations = bound.metadata.annotations.clone().unwrap_or_default();
    assert_eq!(
        annotations.keys().map(String::as_str).collect::<Vec<_>>(),
        ["pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"]
    );
    rests(&mut world);
}

#[test]
fn two_claims_never_share_a_volume() {
    let mut world = world();
    world.lag = 5;
    for index in 0..8 {
        world.apply(claim(&format!("c{index}"), "1Gi"));
    }
    for index in 0..6 {
        world.apply(volume(&format!("v{index}"), "1Gi"));
    }
    seconds(&mut world, 10);
    let mut taken: Vec<String> =
        (0..8).map(|index| of_claim(&world, &format!("c{index}"))).collect();
    taken.sort();
    let pending = taken.iter().filter(|text| *text == "Pending -").count();
    taken.dedup();
    assert_eq!((pending, taken.len()), (2, 7));
}

#[test]
fn selectors_modes_and_reservations_are_heeded() {
    let mut world = world();
    let mut labelled = volume("labelled", "3Gi");
    labelled["metadata"]["labels"] = json!({"tier": "gold"});
    world.apply(labelled);
    world.apply(volume("plain", "1Gi"));
    let mut reserved = volume("reserved", "9Gi");
    reserved["spec"]["claimRef"] = json!({"namespace": "default", "name": "mine"});
    world.apply(reserved);
    seconds(&mut world, 1);
    let mut gold = claim("gold", "1Gi");
    gold["spec"]["selector"] = json!({"matchLabels": {"tier": "gold"}});
    world.apply(gold);
    world.apply(claim("mine", "1Gi"));
    let mut named = claim("named", "1Gi");
    named["spec"]["volumeName"] = json!("plain");
    world.apply(named);
    let mut too_large = claim("late", "1Gi");
    too_large["spec"]["volumeName"] = json!("plain");
    world.apply(too_large);
    seconds(&mut world, 1);
    assert_eq!(of_claim(&world, "gold"), "Bound labelled");
    assert_eq!(of_claim(&world, "mine"), "Bound reserved");
    assert_eq!(of_claim(&world, "named"), "Bound plain");
    assert_eq!(of_claim(&world, "late"), "Pending plain");
    assert!(world.messages().contains(&"volume \"plain\" already bound to a different claim."));
    // A reservation by name was not the controller's, a choice was.
    let by_controller = |world: &World, name| {
        let volume: &PersistentVolume = world.get("", name).expect("the volume");
        volume.metadata.annotations.as_ref().is_some_and(|annotations| !annotations.is_empty())
    };
    assert!(by_controller(&world, "labelled") && !by_controller(&world, "reserved"));
}

#[test]
fn a_volume_asked_for_by_name_has_to_suit() {
    for (path, value, why) in [
        ("size", json!("2Gi"), "requested PV is too small"),
        ("storageClassName", json!("x"), "storageClassName does not match"),
        ("volumeMode", json!("Block"), "incompatible volumeMode"),
        ("accessModes", json!(["ReadWriteMany"]), "incompatible accessMode"),
    ] {
        let mut world = world();
        world.apply(volume("v", "1Gi"));
        let mut claim = claim("c", "1Gi");
        claim["spec"]["volumeName"] = json!("v");
        match path {
            "size" => claim["spec"]["resources"]["requests"]["storage"] = value,
            field => claim["spec"][field] = value,
        }
        world.apply(claim);
        seconds(&mut world, 1);
        assert_eq!(of_claim(&world, "c"), "Pending v");
        let expected = format!("Cannot bind to requested volume \"v\": {why}");
        assert!(world.messages().contains(&expected.as_str()), "{:?}", world.messages());
    }
}

#[test]
fn a_released_volume_is_kept_or_fails_as_its_policy_says() {
    let mut world = world();
    world.apply(volume("kept", "1Gi"));
    world.apply(claim("c", "1Gi"));
    seconds(&mut world, 1);
    let mut lost = volume("lost", "1Gi");
    lost["spec"]["persistentVolumeReclaimPolicy"] = json!("Delete");
    world.apply(lost);
    world.apply(claim("d", "1Gi"));
    seconds(&mut world, 1);
    for name in ["c", "d"] {
        world.delete::<PersistentVolumeClaim>(&key(name), Propagation::Background);
    }
    seconds(&mut world, 1);
    assert_eq!(of_volume(&world, "kept"), "Released c");
    assert_eq!(of_volume(&world, "lost"), "Failed d");
    assert_eq!(
        world.messages().last().copied(),
        Some(
            "error getting deleter volume plugin for volume \"lost\": no deletable volume plugin matched"
        )
    );
    // A claim of the same name is another claim.
    world.apply(claim("c", "1Gi"));
    seconds(&mut world, 1);
    assert_eq!(of_claim(&world, "c"), "Pending -");
    rests(&mut world);
}

#[test]
fn a_claim_that_lost_its_volume_says_so() {
    let mut world = world();
    world.apply(volume("v", "1Gi"));
    world.apply(claim("c", "1Gi"));
    seconds(&mut world, 1);
    world.edit::<PersistentVolume>(&ObjectKey::cluster("v"), |volume| {
        volume.metadata.finalizers = None;
        volume.status.get_or_insert_default().phase = Some("Released".to_owned());
    });
    world.delete::<PersistentVolume>(&ObjectKey::cluster("v"), Propagation::Background);
    seconds(&mut world, 1);
    assert_eq!(of_claim(&world, "c"), "Lost v");
    assert!(
        world
            .messages()
            .contains(&"Bound claim has lost its PersistentVolume. Data on the volume is lost!")
    );
}

#[test]
fn a_volume_is_made_at_once_or_for_the_first_pod() {
    let mut world = world();
    world.apply(class("now", "Immediate"));
    world.apply(class("later", "WaitForFirstConsumer"));
    world.apply(of_class(claim("web-0", "1500Mi"), "now"));
    world.apply(of_class(claim("web-1", "1Gi"), "now"));
    world.apply(of_class(claim("waits", "8Gi"), "later"));
    world.apply(of_class(claim("lost", "1Gi"), "typo"));
    seconds(&mut world, 1);
    assert_eq!(of_claim(&world, "web-0"), "Pending -");
    seconds(&mut world, 4);
    let zone_of = |world: &World, name: &str| {
        let claim: &PersistentVolumeClaim = world.get("default", name).expect("the claim");
        let volume = volume_name(claim).and_then(|name| world.get::<PersistentVolume>("", name));
        let spec = volume.and_then(|volume| volume.spec.clone()).expect("a volume");
        let affinity = spec.node_affinity.and_then(|affinity| affinity.required);
        let terms = affinity.expect("a zone").node_selector_terms;
        let zone = terms[0].match_expressions.as_ref().and_then(|all| all[0].values.clone());
        (zone.expect("values").join(","), spec.capacity.expect("a size")["storage"].0.clone())
    };
    let (first, size) = zone_of(&world, "web-0");
    assert_eq!(size, "2Gi", "volumes come in whole gibibytes");
    assert_ne!(first, zone_of(&world, "web-1").0, "a set's claims are spread over the zones");
    assert_eq!(of_claim(&world, "waits"), "Pending -");
    for text in [
        "waiting for first consumer to be created before binding",
        "storageclass.storage.k8s.io \"typo\" not found",
        "External provisioner is provisioning volume for claim \"default/web-0\"",
        "Waiting for a volume to be created either by the external provisioner 'ebs.csi.aws.com' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
    ] {
        assert_eq!(
            world.messages().iter().filter(|said| **said == text).count().min(1),
            1,
            "{text}"
        );
    }
    world.apply(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "waits"}}]}}));
    seconds(&mut world, 1);
    assert_eq!(world.messages().last().copied(), Some("waiting for pod p to be scheduled"));
    world.edit::<PersistentVolumeClaim>(&key("waits"), |claim| {
        let annotations = claim.metadata.annotations.get_or_insert_default();
        annotations.insert("volume.kubernetes.io/selected-node".to_owned(), "n2".to_owned());
    });
    seconds(&mut world, 5);
    assert_eq!(zone_of(&world, "waits"), ("us-east-1b".to_owned(), "8Gi".to_owned()));
    assert!(of_claim(&world, "waits").starts_with("Bound pvc-"));
    rests(&mut world);
}

#[test]
fn a_volume_is_attached_moved_and_deleted() {
    let mut world = world();
    world.apply(class("now", "Immediate"));
    world.apply(of_class(claim("c", "1Gi"), "now"));
    let pod = |name: &str, node: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [], "nodeName": node,
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}})
    };
    world.apply(pod("p", "n1"));
    seconds(&mut world, 12);
    let attached = |world: &World| {
        let all = world.list::<k8s_openapi::api::storage::v1::VolumeAttachment>();
        let text = all.iter().map(|one| {
            let is = one.status.as_ref().is_some_and(|status| status.attached);
            format!("{} {is}", one.spec.node_name)
        });
        text.collect::<Vec<_>>().join(",")
    };
    assert_eq!(attached(&world), "n1 true");
    let claim: &PersistentVolumeClaim = world.get("default", "c").expect("the claim");
    let name = volume_name(claim).expect("bound").to_owned();
    let said = format!("AttachVolume.Attach succeeded for volume \"{name}\" ");
    assert!(world.messages().contains(&said.as_str()));
    world.apply(pod("q", "n2"));
    seconds(&mut world, 1);
    let said = format!(
        "Multi-Attach error for volume \"{name}\" Volume is already exclusively attached to one node and can't be attached to another"
    );
    assert!(world.messages().contains(&said.as_str()));
    world.delete::<Pod>(&key("p"), Propagation::Background);
    world.kubelet("n2");
    seconds(&mut world, 20);
    assert_eq!(attached(&world), "n2 true");
    // The claim outlives its deletion as long as a pod uses it; then everything goes.
    world.delete::<PersistentVolumeClaim>(&key("c"), Propagation::Background);
    seconds(&mut world, 20);
    assert!(world.get::<PersistentVolumeClaim>("default", "c").is_some());
    world.delete::<Pod>(&key("q"), Propagation::Background);
    world.kubelet("n2");
    seconds(&mut world, 30);
    assert!(world.get::<PersistentVolumeClaim>("default", "c").is_none());
    assert_eq!((attached(&world), of_volume(&world, &name)), (String::new(), "gone".to_owned()));
    rests(&mut world);
}

#[test]
fn a_restart_in_the_middle_makes_no_second_volume() {
    let mut world = world();
    world.apply(class("now", "Immediate"));
    for index in 0..4 {
        world.apply(of_class(claim(&format!("c{index}"), "1Gi"), "now"));
    }
    seconds(&mut world, 2);
    world.restart(controllers());
    seconds(&mut world, 10);
    world.restart(controllers());
    seconds(&mut world, 10);
    assert_eq!(world.list::<PersistentVolume>().len(), 4);
    for index in 0..4 {
        assert!(of_claim(&world, &format!("c{index}")).starts_with("Bound pvc-"));
    }
}

#[test]
fn without_nodes_there_is_no_place_for_a_volume() {
    let mut world = World::new(controllers());
    world.apply(class("now", "Immediate"));
    world.apply(of_class(claim("c", "1Gi"), "now"));
    seconds(&mut world, 60);
    let said = "failed to provision volume with StorageClass \"now\": error generating accessibility requirements: no available topology found";
    let count = world.messages().iter().filter(|text| **text == said).count();
    assert!((5..=7).contains(&count), "{count} attempts with growing waits in a minute");
}
