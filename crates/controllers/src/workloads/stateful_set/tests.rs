use std::time::Duration;

use serde_json::{Value, json};
use wharf_ports::cluster::Propagation;

use super::*;
use crate::workloads::harness::World;

fn world() -> World {
    World::new(vec![Box::new(StatefulSetController::new())])
}

fn set(replicas: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "serviceName": "nginx",
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"]}}]}})
}

fn seconds(world: &mut World, seconds: u64) {
    world.run_for(Duration::from_secs(seconds));
}

/// Lets kubelets do their part until nothing changes.
fn settle(world: &mut World) {
    for _ in 0..40 {
        world.kubelet("n1");
        seconds(world, 1);
    }
}

fn pods(world: &World) -> Vec<String> {
    world.list::<Pod>().iter().filter_map(|pod| pod.metadata.name.clone()).collect()
}

fn images(world: &World) -> Vec<String> {
    let image = |pod: &&Pod| pod.spec.as_ref()?.containers[0].image.clone();
    world.list::<Pod>().iter().filter_map(image).collect()
}

fn status(world: &World) -> k8s_openapi::api::apps::v1::StatefulSetStatus {
    let set: &StatefulSet = world.get("default", "web").expect("the set");
    set.status.clone().expect("a status")
}

#[test]
fn pods_come_one_after_the_other_with_claims_of_their_own() {
    let mut world = world();
    world.apply(set(3));
    seconds(&mut world, 10);
    assert_eq!(pods(&world), ["web-0"]);
    world.kubelet("n1");
    seconds(&mut world, 1);
    assert_eq!(pods(&world), ["web-0", "web-1"]);
    settle(&mut world);
    assert_eq!(pods(&world), ["web-0", "web-1", "web-2"]);
    let pod: &Pod = world.get("default", "web-1").expect("the pod");
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-1");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "1");
    let spec = pod.spec.clone().unwrap_or_default();
    assert_eq!(
        (spec.hostname.as_deref(), spec.subdomain.as_deref()),
        (Some("web-1"), Some("nginx"))
    );
    let volume = spec.volumes.and_then(|volumes| volumes[0].persistent_volume_claim.clone());
    assert_eq!(volume.map(|claim| claim.claim_name).as_deref(), Some("data-web-1"));
    assert_eq!(world.list::<PersistentVolumeClaim>().len(), 3);
    let status = status(&world);
    assert_eq!(
        (status.replicas, status.ready_replicas, status.current_replicas),
        (3, Some(3), Some(3))
    );
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!(
        world.messages()[..2],
        [
            "create Claim data-web-0 Pod web-0 in StatefulSet web success",
            "create Pod web-0 in StatefulSet web successful"
        ]
    );
    let writes = world.writes;
    seconds(&mut world, 3_600);
    assert_eq!(world.writes, writes, "nothing happens, nothing is written");
}

#[test]
fn pods_go_from_the_highest_and_find_their_claims_again() {
    let mut world = world();
    world.apply(set(3));
    settle(&mut world);
    world.apply(set(1));
    seconds(&mut world, 1);
    assert_eq!(pods(&world), ["web-0", "web-1", "web-2"], "web-2 is being stopped");
    settle(&mut world);
    assert_eq!(pods(&world), ["web-0"]);
    let deleted: Vec<&str> =
        world.messages().into_iter().filter(|text| text.starts_with("delete")).collect();
    assert_eq!(
        deleted,
        [
            "delete Pod web-2 in StatefulSet web successful",
            "delete Pod web-1 in StatefulSet web successful"
        ]
    );
    assert_eq!(world.list::<PersistentVolumeClaim>().len(), 3);
    world.apply(set(2));
    settle(&mut world);
    assert_eq!(pods(&world), ["web-0", "web-1"]);
    assert_eq!(world.list::<PersistentVolumeClaim>().len(), 3);
}

#[test]
fn a_new_template_rolls_from_the_highest_down_to_the_partition() {
    let mut world = world();
    world.apply(set(3));
    settle(&mut world);
    let first = status(&world).current_revision;
    let mut changed = set(3);
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:2");
    changed["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(1);
    world.apply(changed.clone());
    settle(&mut world);
    assert_eq!(images(&world), ["i:1", "i:2", "i:2"]);
    assert_eq!(status(&world).current_revision, first);
    assert_eq!(status(&world).updated_replicas, Some(2));
    // A pod below the partition that is lost comes back as it was.
    world.delete::<Pod>(&ObjectKey::namespaced("default", "web-0"), Propagation::Background);
    settle(&mut world);
    assert_eq!(images(&world), ["i:1", "i:2", "i:2"]);
    changed["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(0);
    world.apply(changed);
    settle(&mut world);
    assert_eq!(images(&world), ["i:2", "i:2", "i:2"]);
    assert_ne!(status(&world).current_revision, first);
    assert_eq!(world.list::<ControllerRevision>().len(), 2);
    // Back to the first template: its revision is used again, with the next number.
    world.apply(set(3));
    settle(&mut world);
    assert_eq!(images(&world), ["i:1", "i:1", "i:1"]);
    assert_eq!(status(&world).current_revision, first);
    let mut numbers: Vec<i64> =
        world.list::<ControllerRevision>().iter().map(|one| one.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
}

#[test]
fn parallel_sets_and_other_first_ordinals() {
    let mut world = world();
    let mut manifest = set(3);
    manifest["spec"]["podManagementPolicy"] = json!("Parallel");
    manifest["spec"]["ordinals"] = json!({"start": 5});
    world.apply(manifest);
    seconds(&mut world, 1);
    assert_eq!(pods(&world), ["web-5", "web-6", "web-7"]);
}

#[test]
fn a_lagging_view_and_restarts_do_no_harm() {
    let mut world = world();
    world.lag = 7;
    let mut manifest = set(20);
    manifest["spec"]["podManagementPolicy"] = json!("Parallel");
    world.apply(manifest);
    seconds(&mut world, 2);
    world.restart(vec![Box::new(StatefulSetController::new())]);
    settle(&mut world);
    assert_eq!(pods(&world).len(), 20);
    assert_eq!(world.list::<ControllerRevision>().len(), 1);
    let created = world.messages().into_iter().filter(|text| text.starts_with("create Pod"));
    assert_eq!(created.count(), 20, "each pod is told once");
}

#[test]
fn claims_go_with_the_set_or_with_the_pod_if_asked() {
    let mut world = world();
    let mut manifest = set(2);
    manifest["spec"]["persistentVolumeClaimRetentionPolicy"] =
        json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    world.apply(manifest.clone());
    settle(&mut world);
    let owner = |world: &World, name: &str| {
        let claim: &PersistentVolumeClaim = world.get("default", name).expect("the claim");
        let owners = claim.metadata.owner_references.clone().unwrap_or_default();
        owners.iter().map(|owner| format!("{} {}", owner.kind, owner.name)).collect::<Vec<_>>()
    };
    assert_eq!(owner(&world, "data-web-1"), ["StatefulSet web"]);
    manifest["spec"]["replicas"] = json!(1);
    world.apply(manifest);
    seconds(&mut world, 1);
    assert_eq!(owner(&world, "data-web-1"), ["Pod web-1"]);
    assert_eq!(owner(&world, "data-web-0"), ["StatefulSet web"]);
}

#[test]
fn an_orphan_with_the_right_name_is_adopted_and_a_failed_pod_made_anew() {
    let mut world = world();
    world.apply(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "old"}]}}));
    world.apply(set(1));
    seconds(&mut world, 1);
    let pod: &Pod = world.get("default", "web-0").expect("the pod");
    assert_eq!(pod.metadata.owner_references.as_ref().map(Vec::len), Some(1));
    settle(&mut world);
    assert_eq!(images(&world), ["i:1"], "it is of no revision and is replaced");
    let before = world.get::<Pod>("default", "web-0").and_then(|pod| pod.metadata.uid.clone());
    world.edit::<Pod>(&ObjectKey::namespaced("default", "web-0"), |pod| {
        pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
    });
    seconds(&mut world, 1);
    settle(&mut world);
    let after = world.get::<Pod>("default", "web-0").and_then(|pod| pod.metadata.uid.clone());
    assert!(after.is_some() && after != before);
}

#[test]
fn refused_pods_are_told() {
    let mut world = world();
    world.refuse_pods = Some("exceeded quota".to_owned());
    world.apply(set(1));
    world.run_for(Duration::from_millis(20));
    assert!(world.messages().iter().any(|text| {
        *text == "create Pod web-0 in StatefulSet web failed error: pods \"web-0\" is forbidden: exceeded quota"
    }));
}
