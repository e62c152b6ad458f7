use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::workloads::harness::World;
use crate::workloads::replica_set::ReplicaSetController;

fn controllers() -> Vec<Box<dyn Controller>> {
    vec![Box::new(DeploymentController::new()), Box::new(ReplicaSetController::new())]
}

fn manifest(image: &str, replicas: i32, spec: Value) -> Value {
    let mut manifest = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "inflate", "namespace": "default", "annotations": {"team": "a"}},
        "spec": {"replicas": replicas, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "inflate"}},
            "template": {"metadata": {"labels": {"app": "inflate"}},
                "spec": {"containers": [{"name": "inflate", "image": image}]}}}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        manifest["spec"][key] = value.clone();
    }
    manifest
}

/// Lets everything come to rest, with a kubelet that runs what it is given.
fn settle(world: &mut World) {
    for _ in 0..40 {
        world.run_for(Duration::from_secs(1));
        world.kubelet("n1");
    }
    world.run_for(Duration::from_secs(1));
}

fn settled(image: &str, replicas: i32, spec: Value) -> World {
    let mut world = World::new(controllers());
    world.apply(manifest(image, replicas, spec));
    settle(&mut world);
    world
}

fn deployment(world: &World) -> &Deployment {
    world.get("default", "inflate").expect("the deployment")
}

fn status(world: &World) -> DeploymentStatus {
    deployment(world).status.clone().expect("a status")
}

fn condition(world: &World, type_: &str) -> (String, String, String) {
    let conditions = status(world).conditions.expect("conditions");
    let condition = conditions.into_iter().find(|c| c.type_ == type_).expect("the condition");
    (condition.status, condition.reason.unwrap_or_default(), condition.message.unwrap_or_default())
}

/// Sizes of the ReplicaSets by revision.
fn sizes(world: &World) -> Vec<(i64, i32)> {
    let mut sizes: Vec<_> = world
        .list::<ReplicaSet>()
        .into_iter()
        .map(|set| (revision::revision(set.metadata.annotations.as_ref()), size(set)))
        .collect();
    sizes.sort_unstable();
    sizes
}

fn scalings(world: &World) -> Vec<String> {
    let all = world.records.iter().filter(|record| record.reason == "ScalingReplicaSet");
    all.map(|record| {
        let words: Vec<&str> = record.message.split(' ').collect();
        format!("{} {}", words[1], words[5..].join(" "))
    })
    .collect()
}

#[test]
fn the_inflate_lab_scales() {
    let mut world = settled("pause:3.7", 0, json!({}));
    assert_eq!(sizes(&world), [(1, 0)]);
    assert_eq!(condition(&world, "Progressing").1, "NewReplicaSetAvailable");
    for replicas in [5, 30, 5] {
        world.apply(manifest("pause:3.7", replicas, json!({})));
        settle(&mut world);
        assert_eq!(world.list::<Pod>().len(), usize::try_from(replicas).expect("positive"));
        let status = status(&world);
        assert_eq!(status.available_replicas, Some(replicas));
        assert_eq!(status.observed_generation, deployment(&world).metadata.generation);
    }
    assert_eq!(scalings(&world), ["up from 0 to 5", "up from 5 to 30", "down from 30 to 5"]);
    let name = world.list::<ReplicaSet>()[0].metadata.name.clone().unwrap_or_default();
    assert_eq!(world.records[0].message, format!("Scaled up replica set {name} from 0 to 5"));
    let (status, reason, message) = condition(&world, "Available");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "MinimumReplicasAvailable"));
    assert_eq!(message, "Deployment has minimum availability.");
    let set = world.list::<ReplicaSet>()[0];
    let annotations = set.metadata.annotations.clone().unwrap_or_default();
    assert_eq!(annotations["team"], "a");
    assert_eq!(annotations["deployment.kubernetes.io/desired-replicas"], "5");
    assert_eq!(annotations["deployment.kubernetes.io/max-replicas"], "7");
}

#[test]
fn a_new_template_is_rolled_out_within_bounds() {
    let mut world = settled("pause:3.7", 4, json!({}));
    world.apply(manifest("pause:3.8", 4, json!({})));
    for _ in 0..40 {
        world.run_for(Duration::from_secs(1));
        let active = world.list::<Pod>().into_iter().filter(|pod| wharf_model::pod::is_active(pod));
        let count = active.count();
        assert!((3..=5).contains(&count), "{count}");
        world.kubelet("n1");
    }
    assert_eq!(sizes(&world), [(1, 0), (2, 4)]);
    assert_eq!(status(&world).updated_replicas, Some(4));
    assert_eq!(
        deployment(&world).metadata.annotations.as_ref().map(|a| a[DEPLOYMENT_REVISION].as_str()),
        Some("2")
    );
    assert_eq!(scalings(&world)[..3], ["up from 0 to 4", "up from 0 to 1", "down from 4 to 3"]);
    let (_, reason, message) = condition(&world, "Progressing");
    assert_eq!(reason, "NewReplicaSetAvailable");
    assert!(message.ends_with("has successfully progressed."), "{message}");
    // Back to the old template: its ReplicaSet is used again under a new revision.
    world.apply(manifest("pause:3.7", 4, json!({})));
    settle(&mut world);
    assert_eq!(sizes(&world), [(2, 0), (3, 4)]);
}

#[test]
fn recreate_stops_the_old_pods_first() {
    let recreate = json!({"strategy": {"type": "Recreate"}});
    let mut world = settled("pause:3.7", 3, recreate.clone());
    world.apply(manifest("pause:3.8", 3, recreate));
    world.run_for(Duration::from_secs(5));
    assert_eq!(sizes(&world), [(1, 0)], "the old pods are still being stopped");
    assert_eq!(world.list::<Pod>().len(), 3);
    settle(&mut world);
    assert_eq!(sizes(&world), [(1, 0), (2, 3)]);
    assert_eq!(world.list::<Pod>().len(), 3);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = settled("pause:3.7", 2, json!({}));
    world.apply(manifest("pause:3.8", 3, json!({"paused": true})));
    settle(&mut world);
    assert_eq!(sizes(&world), [(1, 3)]);
    assert_eq!(condition(&world, "Progressing").1, "DeploymentPaused");
    world.apply(manifest("pause:3.8", 3, json!({"paused": false})));
    settle(&mut world);
    assert_eq!(sizes(&world), [(1, 0), (2, 3)]);
}

#[test]
fn old_revisions_are_cleared_away() {
    let limit = json!({"revisionHistoryLimit": 1});
    let mut world = settled("pause:1", 1, limit.clone());
    for image in ["pause:2", "pause:3", "pause:4"] {
        world.apply(manifest(image, 1, limit.clone()));
        settle(&mut world);
    }
    assert_eq!(sizes(&world), [(3, 0), (4, 1)]);
}

/// Anyone may write the annotation; there is no number after the largest.
#[test]
fn the_largest_revision_has_a_successor() {
    let mut world = settled("pause:1", 1, json!({}));
    let key = ObjectKey::of(&world.list::<ReplicaSet>()[0].metadata);
    world.edit::<ReplicaSet>(&key, |set| {
        let annotations = set.metadata.annotations.get_or_insert_default();
        annotations.insert("deployment.kubernetes.io/revision".to_owned(), i64::MAX.to_string());
    });
    world.apply(manifest("pause:2", 1, json!({})));
    settle(&mut world);
    assert_eq!(sizes(&world).iter().map(|(_, size)| size).sum::<i32>(), 1);
    assert!(sizes(&world).iter().all(|(revision, _)| *revision > 0));
}

#[test]
fn a_rollout_without_progress_times_out() {
    let mut world = World::new(controllers());
    world.apply(manifest("pause:3.7", 2, json!({"progressDeadlineSeconds": 60})));
    world.run_for(Duration::from_secs(30));
    assert_eq!(condition(&world, "Progressing").1, "ReplicaSetUpdated");
    assert_eq!(condition(&world, "Available").1, "MinimumReplicasUnavailable");
    world.run_for(Duration::from_secs(60));
    let (status, reason, message) = condition(&world, "Progressing");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ProgressDeadlineExceeded"));
    assert!(message.ends_with("has timed out progressing."), "{message}");
}

#[test]
fn lag_and_restarts_make_no_difference_to_the_end() {
    for lag in [0, 1, 3, 10] {
        let mut world = World::new(controllers());
        world.lag = lag;
        world.apply(manifest("pause:3.7", 6, json!({})));
        for (second, image) in [(3, "pause:3.8"), (5, "pause:3.9"), (4, "pause:3.8")] {
            world.run_for(Duration::from_secs(second));
            world.kubelet("n1");
            world.apply(manifest(image, 6, json!({})));
            world.run_for(Duration::from_millis(1));
            world.restart(controllers());
        }
        settle(&mut world);
        assert_eq!(world.list::<Pod>().len(), 6, "lag {lag}");
        let sizes = sizes(&world);
        assert_eq!(sizes.iter().filter(|(_, size)| *size > 0).count(), 1, "lag {lag}: {sizes:?}");
        assert_eq!(sizes.last().map(|(_, size)| *size), Some(6));
    }
}

#[test]
fn a_selector_of_everything_is_refused() {
    let mut world = World::new(controllers());
    world.apply(manifest("pause:3.7", 1, json!({"selector": {}})));
    world.run_for(Duration::from_secs(5));
    assert_eq!(
        world.messages(),
        ["This deployment is selecting all pods. A non-empty selector is required."]
    );
    assert_eq!(world.list::<ReplicaSet>().len(), 0);
}
