use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};
use wharf_ports::cluster::Propagation;

use super::*;
use crate::workloads::harness::World;

const LADDER: &str = r#"{"nodesToReplicas": [[1, 1], [2, 2], [3, 3], [4, 3], [5, 5]]}"#;

fn world() -> World {
    let mut world = World::new(vec![Box::new(ProportionalAutoscalers::default())]);
    deployment(&mut world, "web");
    node(&mut world, 1, true);
    world
}

fn deployment(world: &mut World, name: &str) {
    world.apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": []}}}
    }));
}

/// A node of 2 cores on a simulated machine.
fn node(world: &mut World, index: u32, ready: bool) {
    let id = format!("i-{index:017x}");
    world.apply(json!({
        "apiVersion": "sim.wharf.dev/v1", "kind": "Instance", "metadata": {"name": id},
        "spec": {"instanceType": "m5.large", "capacityType": "on-demand", "region": "r", "zone": "a",
            "zoneId": "1", "privateIp": "10.0.0.1", "privateDnsName": format!("n{index}"),
            "imageId": "ami", "pricePerHour": 1, "priceNanosPerHour": 1},
        "status": {"state": "running", "launchedAtNanos": 0, "runningAtNanos": 0,
            "registersAtNanos": 0, "readyAtNanos": 0}
    }));
    let status = if ready { "True" } else { "False" };
    world.apply(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("n{index}"), "labels": {"half": (index % 2).to_string()}},
        "spec": {"providerID": format!("aws:///a/{id}")},
        "status": {"allocatable": {"cpu": "1930m"},
            "conditions": [{"type": "Ready", "status": status}]}
    }));
}

fn parameters(world: &mut World, mode: &str, text: &str) {
    world.apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cpa", "namespace": "default"}, "data": {mode: text}
    }));
}

/// The autoscaler's pod, which has just started.
fn autoscaler(world: &mut World, arguments: &[&str]) {
    let started = world.now.to_string();
    let mut all = vec!["--namespace=$(MY_POD_NAMESPACE)", "--configmap=cpa", "--logtostderr=true"];
    all.extend(arguments);
    world.apply(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cpa", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [{
            "name": "autoscaler",
            "image": "registry.k8s.io/cpa/cluster-proportional-autoscaler:v1.9.0",
            "command": ["/cluster-proportional-autoscaler"], "args": all,
            "env": [{"name": "MY_POD_NAMESPACE",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]
        }]},
        "status": {"phase": "Running", "containerStatuses": [{
            "name": "autoscaler", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": started}}
        }]}
    }));
}

/// Its pod is deleted; the kubelet ends it.
fn stop(world: &mut World) {
    world.delete::<Pod>(&ObjectKey::namespaced("default", "cpa"), Propagation::Background);
    world.kubelet("n1");
}

fn pass(world: &mut World, seconds: u64) {
    world.run_for(Duration::from_secs(seconds));
}

fn replicas(world: &World, name: &str) -> i32 {
    let deployment = world.get::<Deployment>("default", name).unwrap();
    deployment.spec.as_ref().unwrap().replicas.unwrap()
}

/// What was said, without the heads.
fn said(world: &mut World) -> Vec<String> {
    let logs = std::mem::take(&mut world.logs);
    let text = |(_, line): (String, String)| {
        line.split_once("] ").map_or(line.clone(), |(_, text)| text.to_owned())
    };
    logs.into_iter().map(text).collect()
}

#[test]
fn replicas_climb_the_ladder_with_the_nodes() {
    let mut world = world();
    parameters(&mut world, "ladder", LADDER);
    autoscaler(&mut world, &["--target=deployment/web"]);
    pass(&mut world, 1);
    assert_eq!(
        said(&mut world),
        [
            "Scaling Namespace: default, Target: deployment/web".to_owned(),
            format!(
                "Detected ConfigMap version change (old:  new: {}) - rebuilding lookup entries",
                version(&world)
            ),
        ]
    );
    for (nodes, expected) in [(2, 2), (3, 3), (4, 3), (5, 5), (6, 5)] {
        node(&mut world, nodes, true);
        pass(&mut world, 10);
        assert_eq!(replicas(&world, "web"), expected, "{nodes} nodes");
    }
    let said = said(&mut world);
    assert_eq!(
        said[..2],
        [
            "Cluster status: SchedulableNodes[2], TotalNodes[2], SchedulableCores[4], TotalCores[4]",
            "Replicas are not as expected : updating deployment/web from 1 to 2"
        ]
    );
    assert_eq!(said.len(), 6, "{said:?}");
    world.delete::<Node>(&ObjectKey::cluster("n6"), Propagation::Background);
    world.delete::<Node>(&ObjectKey::cluster("n5"), Propagation::Background);
    node(&mut world, 4, false);
    pass(&mut world, 10);
    assert_eq!(replicas(&world, "web"), 3, "a node that is not ready does not count");
}

fn version(world: &World) -> String {
    let config_map = world.get::<ConfigMap>("default", "cpa").unwrap();
    config_map.metadata.resource_version.clone().unwrap()
}

#[test]
fn lines_have_heads_and_their_own_log() {
    let mut world = world();
    parameters(&mut world, "linear", r#"{"coresPerReplica": 1}"#);
    autoscaler(&mut world, &["--target=deployment/web", "--v=4"]);
    pass(&mut world, 1);
    let uid = world.get::<Pod>("default", "cpa").unwrap().metadata.uid.clone().unwrap();
    let (name, line) = world.logs[0].clone();
    assert_eq!(name, format!("container/{uid}/autoscaler/0"));
    let head = "I0101 02:46:40.000000       1 autoscaler.go:49] Scaling Namespace: default, ";
    assert!(line.starts_with(head), "{line}");
    let said = said(&mut world).join("\n");
    assert!(said.contains("Total cores     2, schedulable cores:     2"), "{said}");
    assert!(said.contains("Expected replica count:   2"), "{said}");
    // By default only errors reach the container's output.
    stop(&mut world);
    autoscaler(&mut world, &["--target=deployment/gone", "--logtostderr=false"]);
    pass(&mut world, 1);
    let lines: Vec<_> = world.logs.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "E0101 02:46:41.000000       1 autoscaler_server.go:154] Update failure: deployments.apps \"gone\" not found"
        ]
    );
}

#[test]
fn a_missing_configmap_is_made_of_the_defaults() {
    let mut world = world();
    let defaults = r#"--default-params={"linear": {"nodesPerReplica": 1, "min": 3}}"#;
    autoscaler(&mut world, &["--target=deployment/web", defaults]);
    pass(&mut world, 1);
    let config_map = world.get::<ConfigMap>("default", "cpa").unwrap();
    let data = config_map.data.clone().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&data["linear"]).unwrap(),
        json!({"nodesPerReplica": 1, "min": 3})
    );
    assert_eq!(replicas(&world, "web"), 3, "in the same poll");
    assert_eq!(
        said(&mut world)[1..3],
        [
            "ConfigMap not found: configmaps \"cpa\" not found, will create one with default params",
            "Created ConfigMap cpa in namespace default"
        ]
    );
    world.delete::<ConfigMap>(&ObjectKey::namespaced("default", "cpa"), Propagation::Background);
    pass(&mut world, 10);
    assert!(world.get::<ConfigMap>("default", "cpa").is_some(), "and again when it is gone");
}

#[test]
fn a_broken_configmap_stops_scaling_until_it_is_mended() {
    let mut world = world();
    parameters(&mut world, "ladder", LADDER);
    autoscaler(&mut world, &["--target=deployment/web"]);
    pass(&mut world, 1);
    parameters(&mut world, "ladder", r#"{"nodesToReplicas": [[1, -1]]}"#);
    said(&mut world);
    pass(&mut world, 10);
    let wrong = "Error ensuring controller: Error syncing configMap with controller: error parsing ladder params: invalid negative values in entry [1 -1] in nodes_to_replicas_map";
    assert_eq!(said(&mut world), [wrong]);
    node(&mut world, 2, true);
    pass(&mut world, 10);
    assert_eq!(said(&mut world), [wrong], "every poll fails");
    assert_eq!(replicas(&world, "web"), 1, "failures change nothing");
    parameters(&mut world, "linear", r#"{"nodesPerReplica": 1}"#);
    pass(&mut world, 1);
    assert_eq!(replicas(&world, "web"), 1, "it is read at the next poll");
    pass(&mut world, 9);
    assert_eq!(replicas(&world, "web"), 2);
}

#[test]
fn all_targets_are_scaled_until_one_cannot_be() {
    let mut world = world();
    deployment(&mut world, "last");
    parameters(&mut world, "linear", r#"{"nodesPerReplica": 1, "min": 4}"#);
    autoscaler(&mut world, &["--target=deployment/web, Deployment/gone,deployment/last"]);
    pass(&mut world, 1);
    assert_eq!((replicas(&world, "web"), replicas(&world, "last")), (4, 1));
    let last = said(&mut world).pop().unwrap();
    assert_eq!(last, "Update failure: deployments.apps \"gone\" not found");
    deployment(&mut world, "gone");
    pass(&mut world, 10);
    assert_eq!((replicas(&world, "gone"), replicas(&world, "last")), (4, 4));
}

#[test]
fn it_ends_after_too_many_failures_or_for_wrong_flags() {
    let mut world = world();
    autoscaler(&mut world, &["--target=deployment/web", "--max-sync-failures=2"]);
    pass(&mut world, 30);
    let failure = "Error syncing configMap with apiserver: configmaps \"cpa\" not found";
    let end =
        "Maximum number of api server polling attempts (2) have been reached. Exiting application.";
    assert_eq!(said(&mut world)[1..], [failure, failure, end]);
    stop(&mut world);
    parameters(&mut world, "ladder", LADDER);
    node(&mut world, 2, true);
    autoscaler(&mut world, &["--target=statefulset/web", "--poll-period-seconds=0"]);
    pass(&mut world, 30);
    assert_eq!(said(&mut world), Vec::<String>::new(), "the kubelet tells it");
    assert_eq!(replicas(&world, "web"), 1);
}

#[test]
fn only_nodes_with_the_labels_count() {
    let mut world = world();
    for index in 2..=5 {
        node(&mut world, index, true);
    }
    parameters(&mut world, "linear", r#"{"nodesPerReplica": 1}"#);
    autoscaler(&mut world, &["--target=deployment/web", "--nodelabels=half=1"]);
    pass(&mut world, 1);
    assert_eq!(replicas(&world, "web"), 3);
}

#[test]
fn it_acts_only_while_it_runs_on_a_simulated_machine() {
    let mut world = world();
    parameters(&mut world, "ladder", LADDER);
    autoscaler(&mut world, &["--target=deployment/web"]);
    pass(&mut world, 1);
    stop(&mut world);
    node(&mut world, 2, true);
    pass(&mut world, 60);
    assert_eq!(replicas(&world, "web"), 1, "it is gone");
    world.delete::<Instance>(&ObjectKey::cluster("i-00000000000000001"), Propagation::Background);
    autoscaler(&mut world, &["--target=deployment/web"]);
    pass(&mut world, 60);
    assert_eq!(replicas(&world, "web"), 1, "it runs elsewhere and has its own program");
}

#[test]
fn a_restart_of_the_simulation_keeps_the_ticks() {
    let mut world = world();
    parameters(&mut world, "ladder", LADDER);
    autoscaler(&mut world, &["--target=deployment/web"]);
    pass(&mut world, 13);
    world.restart(vec![Box::new(ProportionalAutoscalers::default())]);
    pass(&mut world, 1);
    node(&mut world, 2, true);
    pass(&mut world, 5);
    assert_eq!(replicas(&world, "web"), 1);
    pass(&mut world, 2);
    assert_eq!(replicas(&world, "web"), 2, "20 s after its start");
}
