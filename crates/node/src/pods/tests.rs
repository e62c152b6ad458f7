use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::harness::{World, instance};

const NODE: &str = "ip-192-168-0-5.ec2.internal";

/// A world with one node that is ready.
fn world() -> World<PodAgent> {
    let mut world = World::new(PodAgent::default());
    world.put(Box::new(instance("i-1", "192.168.0.5")));
    run(&mut world, 60.0);
    world
}

fn run(world: &mut World<PodAgent>, seconds: f64) {
    world.run_for(Duration::from_secs_f64(seconds));
}

fn pod(name: &str, spec: Value) -> Box<Pod> {
    let mut spec = spec;
    spec["nodeName"] = json!(NODE);
    let pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": spec,
        "status": {"phase": "Pending", "qosClass": "BestEffort", "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:17:00Z"}]}
    });
    Box::new(serde_json::from_value(pod).expect("a pod"))
}

fn shell(script: &str) -> Value {
    json!({"containers": [{"name": "c", "image": "busybox:1.36", "command": ["sh", "-c", script]}]})
}

fn pause() -> Value {
    json!({"containers": [{"name": "inflate", "image": "public.ecr.aws/eks-distro/kubernetes/pause:3.7"}]})
}

fn get<'w>(world: &'w World<PodAgent>, name: &str) -> Option<&'w Pod> {
    world.view.get(&ObjectKey::namespaced("default", name))
}

fn status(world: &World<PodAgent>, name: &str) -> PodStatus {
    get(world, name).and_then(|pod| pod.status.clone()).expect("the pod has a status")
}

fn phase(world: &World<PodAgent>, name: &str) -> String {
    status(world, name).phase.expect("a phase")
}

fn condition(world: &World<PodAgent>, name: &str, type_: &str) -> String {
    let conditions = status(world, name).conditions.expect("conditions");
    conditions.into_iter().find(|c| c.type_ == type_).expect("the condition").status
}

fn delete(world: &mut World<PodAgent>, name: &str, grace: i64) {
    let ends = (world.now + Duration::from_secs(grace.unsigned_abs())).to_meta();
    world.edit::<Pod>(&ObjectKey::namespaced("default", name), |pod| {
        pod.metadata.deletion_timestamp = Some(ends);
        pod.metadata.deletion_grace_period_seconds = Some(grace);
    });
}

fn reasons(world: &World<PodAgent>) -> Vec<&str> {
    world.records.iter().map(|(_, record)| record.reason.as_str()).collect()
}

fn waiting_reason(world: &World<PodAgent>, name: &str) -> Option<String> {
    let statuses = status(world, name).container_statuses?;
    statuses[0].state.clone()?.waiting?.reason
}

#[test]
fn a_pod_pulls_starts_and_is_ready() {
    let mut world = world();
    world.put(pod("a", pause()));
    run(&mut world, 0.1);
    assert_eq!(waiting_reason(&world, "a").as_deref(), Some("ContainerCreating"));
    assert_eq!(condition(&world, "a", "PodReadyToStartContainers"), "False");
    run(&mut world, 10.0);
    assert_eq!(phase(&world, "a"), "Running");
    assert_eq!(condition(&world, "a", "Ready"), "True");
    assert_eq!(reasons(&world), ["Pulling", "Pulled", "Created", "Started"]);
    let messages = world.messages();
    assert_eq!(messages[0], "Pulling image \"public.ecr.aws/eks-distro/kubernetes/pause:3.7\"");
    assert!(messages[1].starts_with("Successfully pulled image \"public.ecr"), "{}", messages[1]);
    assert!(messages[1].ends_with("s including waiting). Image size: 2002080 bytes."));
    assert_eq!(world.records[0].1.regarding.field_path, "spec.containers{inflate}");
    let first = status(&world, "a");
    assert!(first.pod_ip.as_deref().is_some_and(|ip| ip.starts_with("192.168.")));
    assert_eq!(first.host_ip.as_deref(), Some("192.168.0.5"));
    assert_eq!(first.qos_class.as_deref(), Some("BestEffort"), "what others wrote stays");
    // A second pod of the same image pulls nothing.
    world.put(pod("b", pause()));
    run(&mut world, 3.0);
    assert_eq!(
        world.messages()[4],
        "Container image \"public.ecr.aws/eks-distro/kubernetes/pause:3.7\" already present on machine and can be accessed by the pod"
    );
    assert_eq!(condition(&world, "b", "Ready"), "True");
    assert_ne!(status(&world, "b").pod_ip, first.pod_ip);
    let writes = world.writes;
    run(&mut world, 600.0);
    assert_eq!(world.writes, writes, "nothing happens, nothing is written");
}

#[test]
fn readiness_waits_for_the_probe() {
    let mut world = world();
    let mut spec = pause();
    spec["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"port": 80}, "initialDelaySeconds": 20});
    world.put(pod("a", spec));
    run(&mut world, 15.0);
    assert_eq!(
        (phase(&world, "a").as_str(), condition(&world, "a", "Ready").as_str()),
        ("Running", "False")
    );
    run(&mut world, 15.0);
    assert_eq!(condition(&world, "a", "Ready"), "True");
}

#[test]
fn finished_pods_end_as_their_restart_policy_says() {
    let cases = [
        ("sleep 10", "Never", "Succeeded"),
        ("sleep 10; exit 3", "Never", "Failed"),
        ("true", "OnFailure", "Succeeded"),
        ("false", "OnFailure", "Running"),
        ("sleep 10", "Always", "Running"),
    ];
    for (script, policy, expected) in cases {
        let mut world = world();
        let mut spec = shell(script);
        spec["restartPolicy"] = json!(policy);
        world.put(pod("a", spec));
        run(&mut world, 30.0);
        assert_eq!(phase(&world, "a"), expected, "{script} {policy}");
        let ready = condition(&world, "a", "Ready");
        assert!(expected == "Running" || ready == "False");
    }
}

#[test]
fn a_crashing_container_backs_off() {
    let mut world = world();
    world.put(pod("a", shell("exit 1")));
    run(&mut world, 12.0);
    assert_eq!(waiting_reason(&world, "a").as_deref(), Some("CrashLoopBackOff"));
    let first = status(&world, "a").container_statuses.expect("statuses").remove(0);
    assert_eq!(first.restart_count, 1);
    assert_eq!(
        first.state.and_then(|s| s.waiting?.message).as_deref(),
        Some("back-off 10s restarting failed container=c pod=a_default(uid-a)")
    );
    let last = first.last_state.and_then(|s| s.terminated).expect("it ended before");
    assert_eq!((last.exit_code, last.reason.as_deref()), (1, Some("Error")));
    run(&mut world, 3_600.0);
    let restarts = status(&world, "a").container_statuses.expect("statuses")[0].restart_count;
    assert!((14..=18).contains(&restarts), "{restarts}");
    assert!(
        world
            .messages()
            .contains(&"Back-off restarting failed container c in pod a_default(uid-a)")
    );
}

#[test]
fn init_containers_come_first_and_sidecars_stay() {
    let mut world = world();
    world.put(pod(
        "a",
        json!({"restartPolicy": "Never",
        "initContainers": [
            {"name": "setup", "image": "busybox:1", "command": ["sleep", "20"]},
            {"name": "proxy", "image": "envoy:1", "restartPolicy": "Always"}],
        "containers": [{"name": "c", "image": "busybox:1", "command": ["sleep", "60"]}]}),
    ));
    run(&mut world, 15.0);
    assert_eq!(phase(&world, "a"), "Pending");
    assert_eq!(condition(&world, "a", "Initialized"), "False");
    assert_eq!(waiting_reason(&world, "a").as_deref(), Some("PodInitializing"));
    run(&mut world, 30.0);
    assert_eq!(
        (phase(&world, "a").as_str(), condition(&world, "a", "Ready").as_str()),
        ("Running", "True")
    );
    run(&mut world, 60.0);
    assert_eq!(phase(&world, "a"), "Succeeded", "a sidecar keeps no pod alive");
    assert_eq!(reasons(&world).last().copied(), Some("Killing"));
}

#[test]
fn deletion_is_graceful() {
    // Script, grace, after which the pod must still be there, and be gone.
    let mut cases = vec![(pause(), 30, 0.05, 1.5), (shell("sleep 3600"), 30, 29.0, 31.5)];
    cases.push((shell("sleep 3600"), 5, 4.0, 6.5));
    let mut hooked = pause();
    hooked["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 10}}});
    cases.push((hooked, 30, 9.0, 12.0));
    for (spec, grace, there, gone) in cases {
        let mut world = world();
        world.put(pod("a", spec));
        run(&mut world, 30.0);
        delete(&mut world, "a", grace);
        run(&mut world, there);
        assert!(get(&world, "a").is_some());
        assert_eq!(reasons(&world).last().copied(), Some("Killing"));
        run(&mut world, gone - there);
        assert!(get(&world, "a").is_none());
        run(&mut world, 60.0);
        assert_eq!(reasons(&world).len(), 5);
    }
}

#[test]
fn a_pod_deleted_before_it_runs_goes_at_once() {
    let mut world = World::new(PodAgent::default());
    world.put(Box::new(instance("i-1", "192.168.0.5")));
    world.put(pod("a", pause()));
    run(&mut world, 10.0);
    assert_eq!(world.writes, 0, "the node is not ready");
    delete(&mut world, "a", 30);
    run(&mut world, 1.0);
    assert!(get(&world, "a").is_none());
}

#[test]
fn a_pod_past_its_deadline_fails() {
    let mut world = world();
    let mut spec = pause();
    spec["activeDeadlineSeconds"] = json!(60);
    world.put(pod("a", spec));
    run(&mut world, 70.0);
    assert_eq!(phase(&world, "a"), "Failed");
    assert_eq!(status(&world, "a").reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let mut world = world();
    world.put(pod("a", pause()));
    world.put(pod("b", shell("sleep 100")));
    world.put(pod("c", shell("exit 1")));
    run(&mut world, 20.0);
    let (records, before) = (world.records.len(), status(&world, "a"));
    world.restart(PodAgent::default());
    run(&mut world, 0.0);
    assert_eq!(world.records.len(), records);
    assert_eq!(status(&world, "a"), before);
    world.put(pod("d", pause()));
    run(&mut world, 5.0);
    assert!(
        world.messages().iter().filter(|text| text.starts_with("Pulling image \"public")).count()
            == 1
    );
    assert_ne!(status(&world, "d").pod_ip, before.pod_ip);
    delete(&mut world, "a", 30);
    world.restart(PodAgent::default());
    run(&mut world, 5.0);
    assert!(get(&world, "a").is_none());
    run(&mut world, 100.0);
    let statuses = status(&world, "b").container_statuses.expect("statuses");
    assert!(statuses[0].last_state.as_ref().is_some_and(|last| last.terminated.is_some()));
}

#[test]
fn pods_stop_with_their_machine_and_others_nodes_are_left_alone() {
    let mut world = world();
    world.put(pod("a", shell("sleep 100")));
    let mut foreign = pod("f", pause());
    foreign.spec.as_mut().expect("a spec").node_name = Some("kind-worker".to_owned());
    world.put(foreign);
    run(&mut world, 10.0);
    world.edit::<Instance>(&ObjectKey::cluster("i-1"), |instance| {
        instance.status.state = InstanceState::ShuttingDown;
    });
    let writes = world.writes;
    run(&mut world, 300.0);
    assert_eq!(world.writes, writes);
    assert_eq!(phase(&world, "f"), "Pending");
}

#[test]
fn a_pod_removed_without_grace_is_stopped_all_the_same() {
    let mut world = world();
    world.put(pod("a", pause()));
    run(&mut world, 30.0);
    world.remove::<Pod>(&ObjectKey::namespaced("default", "a"));
    run(&mut world, 1.0);
    assert_eq!(world.messages().last().copied(), Some("Stopping container inflate"));
    assert_eq!(world.records.len(), 5);
}

#[test]
fn containers_wait_for_their_volumes() {
    let mut world = world();
    let mut spec = pause();
    spec["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    world.put(pod("a", spec));
    run(&mut world, 600.0);
    assert_eq!(phase(&world, "a"), "Pending");
    assert_eq!(waiting_reason(&world, "a").as_deref(), Some("ContainerCreating"));
    assert!(status(&world, "a").pod_ip.is_none());
    let put = |world: &mut World<PodAgent>, kind: &str, group: &str, value: Value| {
        let kind = wharf_model::kinds::Kind::by_kind(group, kind).expect("a kind");
        world.put((kind.decode)(value.to_string().as_bytes()).expect("a valid object"));
    };
    put(
        &mut world,
        "PersistentVolume",
        "",
        json!({"metadata": {"name": "pv"},
        "spec": {"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}}}),
    );
    put(
        &mut world,
        "PersistentVolumeClaim",
        "",
        json!({
        "metadata": {"name": "c", "namespace": "default"},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}),
    );
    run(&mut world, 60.0);
    assert_eq!(phase(&world, "a"), "Pending");
    let name = wharf_model::ebs::attachment_name("vol-1", wharf_model::ebs::DRIVER, NODE);
    put(
        &mut world,
        "VolumeAttachment",
        "storage.k8s.io",
        json!({"metadata": {"name": name},
        "spec": {"attacher": "ebs.csi.aws.com", "nodeName": NODE, "source": {"persistentVolumeName": "pv"}},
        "status": {"attached": true}}),
    );
    run(&mut world, 10.0);
    assert_eq!(phase(&world, "a"), "Running");
    // A restart of the kubelet does not start it anew.
    let before = status(&world, "a");
    world.restart(PodAgent::default());
    run(&mut world, 60.0);
    assert_eq!(status(&world, "a"), before);
}
