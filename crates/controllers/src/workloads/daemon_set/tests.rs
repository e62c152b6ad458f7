use serde_json::{Value, json};
use wharf_ports::cluster::Propagation;

use super::*;
use crate::workloads::harness::World;

fn world() -> World {
    let mut world = World::new(vec![Box::new(DaemonSetController::new())]);
    for name in ["n1", "n2", "n3"] {
        world.apply(node(name, json!({}), json!([])));
    }
    world
}

fn node(name: &str, labels: Value, taints: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints}})
}

fn set(update: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "updateStrategy": update,
            "template": {"metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "c", "image": "agent:1"}]}}}})
}

fn rolling(unavailable: i32, surge: i32) -> Value {
    json!({"type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
}

fn seconds(world: &mut World, seconds: u64) {
    world.run_for(Duration::from_secs(seconds));
}

/// Nodes with the images of their pods, those that go left out.
fn placed(world: &World) -> Vec<String> {
    let mut placed: Vec<String> = world
        .list::<Pod>()
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(|pod| {
            let image = pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
            format!("{} {}", nodes::node_of(pod).unwrap_or("?"), image.unwrap_or_default())
        })
        .collect();
    placed.sort();
    placed
}

/// Starts pods on the nodes that they are for, and removes those that go.
fn kubelets(world: &mut World) {
    let pods: Vec<(ObjectKey, Option<String>, bool)> = world
        .stored
        .objects(Kind::of::<Pod>())
        .filter_map(|object| {
            let node = nodes::node_of(object.typed::<Pod>()?).map(str::to_owned);
            Some((object.key().clone(), node, object.header().deleting.is_some()))
        })
        .collect();
    let now = world.now.to_string();
    for (key, node, going) in pods {
        if going {
            let object = world.stored.object(Kind::of::<Pod>(), &key).expect("it is there").clone();
            let delete = Delete::of(&object).with_grace(0);
            world.remove(&delete).expect("a deletion");
            continue;
        }
        world.edit::<Pod>(&key, |pod| {
            let status = pod.status.get_or_insert_default();
            if status.phase.as_deref() == Some("Running") {
                return;
            }
            status.phase = Some("Running".to_owned());
            let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
            status.conditions = serde_json::from_value(ready).expect("conditions");
            pod.spec.get_or_insert_default().node_name.clone_from(&node);
        });
    }
}

fn counts(world: &World) -> [i32; 5] {
    let set = world.get::<DaemonSet>("default", "agent").expect("the set");
    let status = set.status.clone().unwrap_or_default();
    [
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.updated_number_scheduled.unwrap_or(0),
        status.number_available.unwrap_or(0),
    ]
}

#[test]
fn every_node_that_suits_gets_a_pod() {
    let mut world = world();
    let fargate = json!([{"key": "eks.amazonaws.com/compute-type", "value": "fargate", "effect": "NoSchedule"}]);
    world.apply(node("fargate-1", json!({}), fargate));
    let cordoned = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
    world.apply(node("cordoned", json!({}), cordoned));
    world.apply(set(rolling(1, 0)));
    seconds(&mut world, 2);
    assert_eq!(placed(&world), ["cordoned agent:1", "n1 agent:1", "n2 agent:1", "n3 agent:1"]);
    assert_eq!(counts(&world), [4, 4, 0, 4, 0]);
    kubelets(&mut world);
    seconds(&mut world, 2);
    assert_eq!(counts(&world), [4, 4, 4, 4, 4]);
    let pod = world.list::<Pod>()[0].clone();
    let spec = pod.spec.expect("a spec");
    assert_eq!(spec.tolerations.map(|all| all.len()), Some(6));
    assert!(pod.metadata.labels.expect("labels").contains_key(CONTROLLER_REVISION_HASH));
    assert!(world.messages()[0].starts_with("Created pod: agent-"));
    let writes = world.writes;
    seconds(&mut world, 3_600);
    assert_eq!(world.writes, writes, "nothing happens, nothing is written");
}

#[test]
fn nodes_come_go_and_change() {
    let mut world = world();
    let mut ssd = set(rolling(1, 0));
    ssd["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    world.apply(ssd);
    seconds(&mut world, 2);
    assert_eq!(placed(&world), Vec::<String>::new());
    let label = |world: &mut World, name: &str, disk: &str| {
        world.edit::<Node>(&ObjectKey::cluster(name), |node| {
            node.metadata.labels = Some([("disk".to_owned(), disk.to_owned())].into());
        });
        seconds(world, 2);
    };
    label(&mut world, "n1", "ssd");
    label(&mut world, "n2", "ssd");
    assert_eq!(placed(&world), ["n1 agent:1", "n2 agent:1"]);
    label(&mut world, "n1", "slow");
    assert_eq!(placed(&world), ["n2 agent:1"]);
    world.delete::<Node>(&ObjectKey::cluster("n2"), Propagation::Background);
    seconds(&mut world, 2);
    assert_eq!(placed(&world), Vec::<String>::new(), "it was not bound yet");
}

#[test]
fn updates_roll_within_their_bounds() {
    for (update, steps) in
        [(rolling(1, 0), 3), (rolling(3, 0), 1), (rolling(0, 1), 3), (rolling(0, 2), 2)]
    {
        let mut world = world();
        world.apply(set(update.clone()));
        seconds(&mut world, 2);
        kubelets(&mut world);
        seconds(&mut world, 2);
        world.edit::<DaemonSet>(&ObjectKey::namespaced("default", "agent"), |set| {
            let spec = set.spec.get_or_insert_default();
            let pods = spec.template.spec.get_or_insert_default();
            pods.containers[0].image = Some("agent:2".to_owned());
        });
        let mut taken = 0;
        while placed(&world) != ["n1 agent:2", "n2 agent:2", "n3 agent:2"] {
            taken += 1;
            assert!(taken <= steps * 3, "{update} does not end: {:?}", placed(&world));
            seconds(&mut world, 2);
            let available = counts(&world)[4];
            let floor = if update["rollingUpdate"]["maxSurge"] == 0 {
                3 - i32::try_from(update["rollingUpdate"]["maxUnavailable"].as_i64().unwrap())
                    .unwrap()
            } else {
                3
            };
            assert!(available >= floor, "{update}: {available} are available");
            kubelets(&mut world);
            seconds(&mut world, 2);
            kubelets(&mut world);
            seconds(&mut world, 2);
        }
        assert!(taken >= steps, "{update} took {taken}");
        let revisions = world.list::<ControllerRevision>();
        assert_eq!(revisions.iter().map(|one| one.revision).max(), Some(2));
    }
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut world = world();
    world.apply(set(json!({"type": "OnDelete"})));
    seconds(&mut world, 2);
    kubelets(&mut world);
    world.edit::<DaemonSet>(&ObjectKey::namespaced("default", "agent"), |set| {
        let spec = set.spec.get_or_insert_default();
        spec.template.spec.get_or_insert_default().containers[0].image = Some("agent:2".to_owned());
    });
    seconds(&mut world, 60);
    assert_eq!(placed(&world), ["n1 agent:1", "n2 agent:1", "n3 agent:1"]);
    assert_eq!(counts(&world)[3], 0);
    let first = world
        .list::<Pod>()
        .iter()
        .find(|pod| nodes::node_of(pod) == Some("n2"))
        .map(|pod| ObjectKey::of(&pod.metadata));
    world.delete::<Pod>(&first.expect("a pod"), Propagation::Background);
    kubelets(&mut world);
    seconds(&mut world, 2);
    assert_eq!(placed(&world), ["n1 agent:1", "n2 agent:2", "n3 agent:1"]);
}

#[test]
fn a_pod_that_has_failed_is_replaced_after_a_while() {
    let mut world = world();
    world.apply(set(rolling(1, 0)));
    seconds(&mut world, 2);
    kubelets(&mut world);
    seconds(&mut world, 2);
    let fail = |world: &mut World| {
        let pods = world.list::<Pod>();
        let key = pods
            .iter()
            .find(|pod| nodes::node_of(pod) == Some("n1"))
            .map(|pod| ObjectKey::of(&pod.metadata));
        world.edit::<Pod>(&key.expect("a pod"), |pod| {
            pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
        });
    };
    fail(&mut world);
    seconds(&mut world, 1);
    assert!(
        world
            .messages()
            .iter()
            .any(|text| text.starts_with("Found failed daemon pod default/agent-"))
    );
    kubelets(&mut world);
    seconds(&mut world, 2);
    assert_eq!(placed(&world).len(), 3);
}

#[test]
fn a_lagging_view_and_a_restart_make_no_pod_twice() {
    let mut world = world();
    world.lag = 5;
    world.apply(set(rolling(1, 0)));
    seconds(&mut world, 1);
    world.restart(vec![Box::new(DaemonSetController::new())]);
    seconds(&mut world, 2);
    assert_eq!(placed(&world), ["n1 agent:1", "n2 agent:1", "n3 agent:1"]);
    assert_eq!(world.list::<Pod>().len(), 3);
}
