use serde_json::{Value, json};

use super::*;
use crate::workloads::harness::World;

fn world() -> World {
    World::new(vec![Box::new(ReplicaSetController::new())])
}

fn set(replicas: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn pod(name: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"containers": []}})
}

fn seconds(world: &mut World, seconds: u64) {
    world.run_for(Duration::from_secs(seconds));
}

fn replicas(world: &World) -> (i32, i32, i32) {
    let status = world.get::<ReplicaSet>("default", "web").and_then(|set| set.status.clone());
    let status = status.expect("a status");
    (status.replicas, status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0))
}

#[test]
fn pods_are_made_from_the_template_and_counted() {
    let mut world = world();
    world.apply(set(3));
    seconds(&mut world, 1);
    let pods = world.list::<Pod>();
    assert_eq!(pods.len(), 3);
    let meta = &pods[0].metadata;
    assert!(meta.name.as_deref().is_some_and(|name| name.starts_with("web-") && name.len() == 9));
    assert_eq!(meta.generate_name.as_deref(), Some("web-"));
    assert_eq!(meta.annotations.as_ref().map(|a| a["a"].as_str()), Some("b"));
    assert_eq!(meta.owner_references.as_ref().map(|o| o[0].controller), Some(Some(true)));
    assert_eq!(replicas(&world), (3, 0, 0));
    world.kubelet("n1");
    seconds(&mut world, 1);
    assert_eq!(replicas(&world), (3, 3, 3));
    assert_eq!(world.records.len(), 3);
    assert!(world.messages()[0].starts_with("Created pod: web-"));
    let writes = world.writes;
    seconds(&mut world, 3_600);
    assert_eq!(world.writes, writes, "nothing happens, nothing is written");
}

#[test]
fn a_lagging_view_makes_no_pod_too_many() {
    let mut world = world();
    world.lag = 7;
    world.apply(set(20));
    seconds(&mut world, 1);
    assert_eq!(world.list::<Pod>().len(), 20);
    assert_eq!(world.records.len(), 20);
    world.apply(set(4));
    seconds(&mut world, 1);
    assert_eq!(world.list::<Pod>().len(), 4);
    assert_eq!(world.records.iter().filter(|r| r.reason == "SuccessfulDelete").count(), 16);
}

#[test]
fn a_restart_in_the_middle_makes_no_pod_too_many() {
    let mut world = world();
    world.apply(set(5));
    seconds(&mut world, 0);
    world.restart(vec![Box::new(ReplicaSetController::new())]);
    seconds(&mut world, 10);
    assert_eq!(world.list::<Pod>().len(), 5);
}

#[test]
fn refused_creations_are_told_and_repeated() {
    let mut world = world();
    world.refuse_pods = Some("exceeded quota".to_owned());
    world.apply(set(1));
    world.run_for(Duration::from_millis(8));
    assert!(world.messages()[0].starts_with("Error creating: pods \"web-"));
    assert!(world.messages()[0].ends_with("is forbidden: exceeded quota"));
    let status = world.get::<ReplicaSet>("default", "web").and_then(|s| s.status.clone());
    let conditions = status.and_then(|status| status.conditions).expect("a condition");
    assert_eq!(conditions[0].reason.as_deref(), Some("FailedCreate"));
    world.refuse_pods = None;
    seconds(&mut world, 1);
    assert_eq!(world.list::<Pod>().len(), 1);
    let status = world.get::<ReplicaSet>("default", "web").and_then(|s| s.status.clone());
    assert_eq!(status.and_then(|status| status.conditions), None);
}

#[test]
fn orphans_are_adopted_and_strangers_released() {
    let mut world = world();
    world.apply(pod("lost", "web"));
    world.apply(pod("other", "db"));
    world.apply(set(2));
    seconds(&mut world, 1);
    assert_eq!(world.list::<Pod>().len(), 3);
    let lost = ObjectKey::namespaced("default", "lost");
    let owners = |world: &World, name| {
        let pod: &Pod = world.get("default", name).expect("the pod");
        pod.metadata.owner_references.clone().unwrap_or_default().len()
    };
    assert_eq!((owners(&world, "lost"), owners(&world, "other")), (1, 0));
    world.edit::<Pod>(&lost, |pod| {
        pod.metadata.labels.get_or_insert_default().insert("app".to_owned(), "gone".to_owned());
    });
    seconds(&mut world, 1);
    assert_eq!(owners(&world, "lost"), 0);
    assert_eq!(world.list::<Pod>().len(), 4, "a replacement is made");
}

#[test]
fn finished_pods_are_replaced_and_ready_ones_counted_after_their_time() {
    let mut world = world();
    let mut manifest = set(1);
    manifest["spec"]["minReadySeconds"] = json!(30);
    world.apply(manifest);
    seconds(&mut world, 1);
    world.kubelet("n1");
    seconds(&mut world, 20);
    assert_eq!(replicas(&world), (1, 1, 0));
    seconds(&mut world, 20);
    assert_eq!(replicas(&world), (1, 1, 1));
    let key = ObjectKey::of(&world.list::<Pod>()[0].metadata);
    world.edit::<Pod>(&key, |pod| {
        pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
    });
    seconds(&mut world, 1);
    assert_eq!(world.list::<Pod>().len(), 2);
    assert_eq!(replicas(&world), (1, 0, 0));
}

#[test]
fn five_thousand_pods_take_a_number_of_steps_that_grows_with_their_number() {
    let mut world = world();
    world.apply(set(5_000));
    seconds(&mut world, 60);
    assert_eq!(world.list::<Pod>().len(), 5_000);
    let before = world.steps;
    world.kubelet("n1");
    seconds(&mut world, 60);
    assert_eq!(replicas(&world), (5_000, 5_000, 5_000));
    assert!(world.steps - before < 50, "{} looks at a set of 5,000", world.steps - before);
}

#[test]
fn replication_controllers_are_worked_on_alike() {
    use k8s_openapi::api::core::v1::ReplicationController;
    let mut world = World::new(vec![
        Box::new(ReplicaSetController::new()),
        Box::new(ReplicationManager::new()),
    ]);
    let manifest = |replicas: i32| {
        json!({"apiVersion": "v1", "kind": "ReplicationController",
            "metadata": {"name": "old", "namespace": "default"},
            "spec": {"replicas": replicas, "selector": {"app": "old"},
                "template": {"metadata": {"labels": {"app": "old"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    };
    world.apply(manifest(3));
    world.apply(set(1));
    seconds(&mut world, 1);
    assert_eq!(world.list::<Pod>().len(), 4);
    world.kubelet("n1");
    seconds(&mut world, 1);
    let status = |world: &World| {
        let old: &ReplicationController = world.get("default", "old").expect("it is there");
        old.status.clone().map(|status| (status.replicas, status.ready_replicas)).expect("a status")
    };
    assert_eq!(status(&world), (3, Some(3)));
    let owners = world.list::<Pod>()[0].metadata.owner_references.clone().expect("an owner");
    assert_eq!(
        (owners[0].kind.as_str(), owners[0].api_version.as_str()),
        ("ReplicationController", "v1")
    );
    let writes = world.writes;
    seconds(&mut world, 3_600);
    assert_eq!(world.writes, writes, "nothing happens, nothing is written");
    world.apply(manifest(1));
    seconds(&mut world, 1);
    world.kubelet("n1");
    seconds(&mut world, 1);
    assert_eq!(status(&world), (1, Some(1)));
}
