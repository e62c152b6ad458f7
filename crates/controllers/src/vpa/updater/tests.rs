use serde_json::{Value, json};

use super::*;
use crate::workloads::deployment::DeploymentController;
use crate::workloads::harness::World;
use crate::workloads::replica_set::ReplicaSetController;

/// A deployment whose pods ask for 100m of cpu, and an autoscaler that recommends 587m.
fn hamsters(replicas: u32, policy: &Value) -> World {
    let mut world = World::new(vec![
        Box::new(DeploymentController::new()),
        Box::new(ReplicaSetController::new()),
        Box::new(Updater::default()),
    ]);
    world.apply(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "hamster", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "hamster"}},
            "template": {"metadata": {"labels": {"app": "hamster"}},
                "spec": {"containers": [{"name": "c", "image": "i", "resources":
                    {"requests": {"cpu": "100m", "memory": "50Mi"}}}]}}}}));
    world.apply(json!({"apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler",
        "metadata": {"name": "v", "namespace": "default"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hamster"},
            "updatePolicy": policy}}));
    world.edit::<VerticalPodAutoscaler>(&ObjectKey::namespaced("default", "v"), |autoscaler| {
        let one = json!({"containerName": "c", "target": {"cpu": "587m", "memory": "262144k"},
            "lowerBound": {"cpu": "500m", "memory": "250Mi"}});
        autoscaler.status.recommendation =
            serde_json::from_value(json!({"containerRecommendations": [one]})).expect("valid");
    });
    world.run_for(Duration::from_secs(1));
    world.kubelet("n1");
    world
}

fn told(world: &World) -> Vec<(String, &str)> {
    let told = world.records.iter().filter(|record| record.component == COMPONENT);
    told.map(|record| (record.reason.clone(), record.message.as_str())).collect()
}

fn evictions(world: &World) -> usize {
    told(world).iter().filter(|(reason, _)| reason == "EvictedByVPA").count()
}

#[test]
fn half_of_the_pods_go_in_a_round() {
    for (replicas, expected) in [(1, 0), (2, 1), (3, 1), (4, 2), (7, 3)] {
        let mut world = hamsters(replicas, &json!({"updateMode": "Recreate"}));
        world.run_for(Duration::from_secs(60));
        assert_eq!(evictions(&world), expected, "{replicas} replicas");
    }
}

#[test]
fn events_are_upstreams() {
    let mut world = hamsters(2, &json!({"updateMode": "Recreate"}));
    let first = world.list::<Pod>()[0].metadata.name.clone().expect("a name");
    world.run_for(Duration::from_secs(60));
    let vpa = format!("VPA Updater evicted Pod {first} to apply resource recommendation.");
    assert_eq!(
        told(&world),
        [
            (
                "EvictedByVPA".to_owned(),
                "Pod was evicted by VPA Updater to apply resource recommendation."
            ),
            ("EvictedPod".to_owned(), vpa.as_str()),
        ]
    );
}

#[test]
fn other_modes_and_requirements_leave_pods_alone() {
    let shrink =
        json!([{"resources": ["cpu", "memory"], "changeRequirement": "TargetLowerThanRequests"}]);
    for (policy, expected) in [
        (json!({"updateMode": "Off"}), 0),
        (json!({"updateMode": "Initial"}), 0),
        (json!({"updateMode": "Auto"}), 2),
        (json!({"updateMode": "Recreate", "minReplicas": 5}), 0),
        (json!({"updateMode": "Recreate", "evictionRequirements": shrink}), 0),
        (json!({"updateMode": "InPlace"}), 0),
    ] {
        let mut world = hamsters(4, &policy);
        world.run_for(Duration::from_secs(60));
        assert_eq!(evictions(&world), expected, "{policy}");
    }
}

#[test]
fn pods_are_resized_in_place_and_marked() {
    let mut world = hamsters(4, &json!({"updateMode": "InPlaceOrRecreate"}));
    world.run_for(Duration::from_secs(70));
    let once = ("InPlaceResizedByVPA".to_owned(), "Pod was resized in place by VPA Updater.");
    assert_eq!(told(&world), [once.clone(), once]);
    let resized: Vec<&Pod> = world
        .list::<Pod>()
        .into_iter()
        .filter(|pod| {
            pod.metadata.annotations.as_ref().is_some_and(|a| a[IN_PLACE_UPDATED] == "true")
        })
        .collect();
    assert_eq!(resized.len(), 2);
    for pod in resized {
        let resources = &pod.spec.as_ref().expect("a spec").containers[0].resources;
        assert_eq!(
            serde_json::to_value(resources).expect("JSON"),
            json!({"requests": {"cpu": "587m", "memory": "262144k"}})
        );
    }
    world.run_for(Duration::from_secs(120));
    assert_eq!(evictions(&world), 0, "what is resized fits");
    assert_eq!(told(&world).len(), 4);
}

#[test]
fn an_infeasible_resize_ends_in_an_eviction() {
    for (reason, expected) in [("Infeasible", 1), ("Deferred", 0)] {
        let mut world = hamsters(2, &json!({"updateMode": "InPlaceOrRecreate"}));
        let pods: Vec<ObjectKey> =
            world.list::<Pod>().iter().map(|pod| ObjectKey::of(&pod.metadata)).collect();
        for key in pods {
            world.edit::<Pod>(&key, |pod| {
                let status = pod.status.get_or_insert_default();
                let pending =
                    json!({"type": "PodResizePending", "status": "True", "reason": reason});
                status.conditions =
                    Some(vec![serde_json::from_value(pending).expect("a condition")]);
            });
        }
        world.run_for(Duration::from_secs(60));
        assert_eq!(evictions(&world), expected, "{reason}");
        world.run_for(Duration::from_secs(300));
        assert!(evictions(&world) > 0, "{reason} for more than five minutes");
    }
}

#[test]
fn in_place_alone_minds_no_budget_and_never_evicts() {
    let mut world = hamsters(4, &json!({"updateMode": "InPlace"}));
    world.run_for(Duration::from_secs(70));
    let once = ("InPlaceResizedByVPA".to_owned(), "Pod was resized in place by VPA Updater.");
    assert_eq!(told(&world), vec![once; 4]);

    let mut world = hamsters(2, &json!({"updateMode": "InPlace"}));
    let pods: Vec<ObjectKey> =
        world.list::<Pod>().iter().map(|pod| ObjectKey::of(&pod.metadata)).collect();
    for key in &pods {
        world.edit::<Pod>(key, |pod| {
            let pending =
                json!({"type": "PodResizePending", "status": "True", "reason": "Infeasible"});
            let status = pod.status.get_or_insert_default();
            status.conditions = Some(vec![serde_json::from_value(pending).expect("a condition")]);
        });
    }
    world.run_for(Duration::from_secs(60));
    assert_eq!(told(&world), [], "what cannot be given is remembered");
    world.run_for(Duration::from_secs(60));
    let skipped = (
        "InPlaceResizeSkipped".to_owned(),
        "Previously recorded in-place update was infeasible, current recommendation is not lower than previous, skipping resize",
    );
    assert_eq!(told(&world), vec![skipped.clone(); 2]);
    world.edit::<VerticalPodAutoscaler>(&ObjectKey::namespaced("default", "v"), |autoscaler| {
        let one = json!({"containerName": "c", "target": {"cpu": "550m", "memory": "262144k"},
            "lowerBound": {"cpu": "500m", "memory": "250Mi"}});
        autoscaler.status.recommendation =
            serde_json::from_value(json!({"containerRecommendations": [one]})).expect("valid");
    });
    world.run_for(Duration::from_secs(60));
    let resized = ("InPlaceResizedByVPA".to_owned(), "Pod was resized in place by VPA Updater.");
    assert_eq!(told(&world)[2..], [resized.clone(), resized], "less is recommended now");
    assert_eq!(evictions(&world), 0);
}

#[test]
fn the_older_of_two_autoscalers_has_the_say() {
    let mut world = hamsters(4, &json!({"updateMode": "Recreate"}));
    world.run_for(Duration::from_secs(1));
    let mut other =
        world.get::<VerticalPodAutoscaler>("default", "v").expect("it is there").clone();
    other.metadata = json_meta("a");
    other.status.recommendation = None;
    world.apply(serde_json::to_value(&other).expect("JSON"));
    world.run_for(Duration::from_secs(60));
    assert_eq!(evictions(&world), 2, "the younger one recommends nothing");
}

fn json_meta(name: &str) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
    serde_json::from_value(json!({"name": name, "namespace": "default"})).expect("metadata")
}
