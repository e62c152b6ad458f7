//! The inflate lab by hand, with a real kubectl: pods come, machines appear; pods go, machines go.

mod harness;

use harness::{Kubectl, Options, Wharf, lab_file, wait_for};
use serde_json::Value;

const HEADER: [&str; 7] = ["NAME", "TYPE", "CAPACITY", "ZONE", "NODE", "READY", "AGE"];
const NO_NODE_HOLDS_IT: &str = "0/1 nodes are available: 1 Insufficient memory. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";

#[test]
fn the_lab_runs_from_no_machine_to_no_machine() {
    let wharf = Wharf::ephemeral();
    the_lab_runs(&wharf.kubectl());
}

#[test]
fn the_lab_runs_just_the_same_with_the_controllers_in_another_process() {
    let arguments = ["--controllers", "none"].map(str::to_owned).to_vec();
    // What is milliseconds between two processes is seconds of a clock that runs fast: at 60x a
    // batch of pods, which Karpenter gathers in one second, would come apart. At 5x no two of them may
    // come more than 200 ms apart.
    let wharf = Wharf::start(&Options { arguments, speed: 5, ..Options::default() });
    let beside = wharf.run_beside(&["--cloud", "sim"]);
    the_lab_runs(&wharf.kubectl());
    assert!(beside.stop("TERM").success());
}

fn the_lab_runs(kubectl: &Kubectl) {
    let applied = kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    assert_eq!(
        applied,
        "nodepool.karpenter.sh/default created\nec2nodeclass.karpenter.k8s.aws/default created\n"
    );
    let applied = kubectl.ok(&format!("apply -f {}", lab_file("inflate.yaml")));
    assert_eq!(applied, "deployment.apps/inflate created\n");
    kubectl.ok("wait --for=condition=Ready nodepool/default ec2nodeclass/default --timeout=120s");
    assert_eq!(kubectl.ok("get nodes -o name"), "", "no pods, no machines");

    five_pods_get_one_machine(kubectl);
    a_pod_that_fits_nowhere_says_so(kubectl);
    thirty_pods_get_more(kubectl);
    five_pods_again_need_less(kubectl);
    no_pods_need_no_machine(kubectl);
    the_log_tells_it_all(kubectl);
    the_events_tell_it_all(kubectl);
}

fn five_pods_get_one_machine(kubectl: &Kubectl) {
    assert_eq!(
        kubectl.ok("scale deployment inflate --replicas 5"),
        "deployment.apps/inflate scaled\n"
    );
    let rolled = kubectl.ok("rollout status deployment/inflate --timeout=120s");
    assert!(rolled.ends_with("deployment \"inflate\" successfully rolled out\n"), "{rolled}");

    let table = kubectl.ok("get nodeclaims");
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(header, HEADER);
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 1, "five small pods go on one machine:\n{table}");
    let [name, instance_type, capacity, zone, node, ready, age] = rows[0][..] else {
        panic!("every column has a value:\n{table}")
    };
    assert!(name.strip_prefix("default-").is_some_and(|suffix| suffix.len() == 5), "{name}");
    assert!(instance_type.starts_with(['c', 'm', 'r']), "{instance_type}");
    assert_eq!(capacity, "on-demand");
    assert!(zone.strip_prefix("us-east-1").is_some_and(|letter| letter.len() == 1), "{zone}");
    assert!(node.starts_with("ip-192-168-") && node.ends_with(".ec2.internal"), "{node}");
    assert_eq!(ready, "True");
    assert!(age.ends_with(['s', 'm']), "{age}");

    let nodes = kubectl.items("get nodes");
    assert_eq!(nodes.len(), 1);
    assert_eq!(nodes[0]["metadata"]["name"], node);
    let labels = &nodes[0]["metadata"]["labels"];
    assert_eq!(labels["node.kubernetes.io/instance-type"], instance_type);
    assert_eq!(labels["topology.kubernetes.io/zone"], zone);
    assert_eq!(labels["karpenter.sh/nodepool"], "default");
    assert_eq!(labels["karpenter.sh/registered"], "true");
    assert_eq!(labels["karpenter.sh/initialized"], "true");
    assert!(millis(&nodes[0]["status"]["allocatable"]["cpu"]) >= 5_000, "{}", nodes[0]);
    assert!(nodes[0]["spec"]["taints"].is_null(), "{}", nodes[0]["spec"]);
    assert_eq!(running_on(kubectl), vec![node.to_owned(); 5]);
}

fn a_pod_that_fits_nowhere_says_so(kubectl: &Kubectl) {
    assert_eq!(
        kubectl.ok(&format!("apply -f {}", lab_file("memory-demo-3.yaml"))),
        "pod/memory-demo-3 created\n"
    );
    let from_scheduler = wait_for("the scheduler's event", || {
        let events = kubectl.items(
            "get events --field-selector involvedObject.name=memory-demo-3,reason=FailedScheduling",
        );
        let from = |event: &&Value| source(event) == "default-scheduler";
        events.iter().find(from).cloned().ok_or_else(|| format!("{events:#?}"))
    });
    assert_eq!(from_scheduler["message"], NO_NODE_HOLDS_IT);
    assert_eq!(from_scheduler["type"], "Warning");
    let described = kubectl.ok("describe pod memory-demo-3");
    assert!(described.contains(NO_NODE_HOLDS_IT), "{described}");
    let row = kubectl.ok("get pod memory-demo-3 --no-headers");
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(columns[..4], ["memory-demo-3", "0/1", "Pending", "0"]);
    assert_eq!(
        kubectl.ok("get pod memory-demo-3 -o jsonpath={.status.conditions[0].reason}"),
        "Unschedulable"
    );
    let deleted = kubectl.ok("delete pod memory-demo-3");
    assert!(deleted.starts_with("pod \"memory-demo-3\" deleted"), "{deleted}");
    assert_eq!(kubectl.items("get nodeclaims").len(), 1, "no machine was bought for it");
}

fn thirty_pods_get_more(kubectl: &Kubectl) {
    kubectl.ok("scale deployment inflate --replicas 30");
    kubectl.ok("rollout status deployment/inflate --timeout=120s");
    wait_for("thirty running pods", || {
        let running = running_on(kubectl).len();
        if running == 30 { Ok(()) } else { Err(format!("{running} pods run")) }
    });
    let log = kubectl.karpenter_log();
    let launched = log.iter().filter(|line| line["message"] == "launched nodeclaim").count();
    assert!(launched > 1, "another machine was launched: {log:#?}");
    // The new machine has room for all pods, so the first one is given up a minute later. Scaling
    // down before that would leave one of the two empty instead.
    wait_for("one machine for all thirty", || {
        let (cpu, nodes) = allocatable_cpu(kubectl);
        let settled = nodes == 1 && cpu >= 30_000 && running_on(kubectl).len() == 30;
        if settled { Ok(()) } else { Err(format!("{nodes} nodes with {cpu}m")) }
    });
}

fn five_pods_again_need_less(kubectl: &Kubectl) {
    let before = disruptions(&kubectl.karpenter_log()).len();
    kubectl.ok("scale deployment inflate --replicas 5");
    wait_for("consolidation", || {
        let disrupted = disruptions(&kubectl.karpenter_log());
        let (cpu, nodes) = allocatable_cpu(kubectl);
        let replaced = disrupted.iter().skip(before).any(|(message, reason)| {
            reason == "underutilized"
                && message.contains(" and replacing with on-demand node from ")
        });
        // One machine of 8 cores, or two of 4: which of the two, at one price, is a matter of when
        // pods move.
        let settled = replaced && nodes == 1 && cpu < 10_000 && running_on(kubectl).len() == 5;
        if settled { Ok(()) } else { Err(format!("{nodes} nodes with {cpu}m, {disrupted:#?}")) }
    });
}

/// The CPU that all nodes offer, in thousandths, and how many nodes there are.
fn allocatable_cpu(kubectl: &Kubectl) -> (i64, usize) {
    let nodes = kubectl.items("get nodes");
    let cpu = nodes.iter().map(|node| millis(&node["status"]["allocatable"]["cpu"])).sum();
    (cpu, nodes.len())
}

fn no_pods_need_no_machine(kubectl: &Kubectl) {
    assert_eq!(
        kubectl.ok("delete deployment inflate").split(" from ").next().map(str::trim_end),
        Some("deployment.apps \"inflate\" deleted")
    );
    wait_for("all machines to go", || {
        let left = kubectl.ok("get nodes,nodeclaims,pods -o name");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

fn the_log_tells_it_all(kubectl: &Kubectl) {
    let log = kubectl.karpenter_log();
    for line in &log {
        for field in ["level", "time", "logger", "message"] {
            assert!(line[field].is_string(), "{field} is missing: {line}");
        }
    }
    for message in [
        "found provisionable pod(s)",
        "computed new nodeclaim(s) to fit pod(s)",
        "created nodeclaim",
        "launched nodeclaim",
        "registered nodeclaim",
        "initialized nodeclaim",
        "tainted node",
        "deleted node",
        "deleted nodeclaim",
    ] {
        assert!(log.iter().any(|line| line["message"] == message), "{message:?} is missing");
    }
    let launched = log.iter().find(|line| line["message"] == "launched nodeclaim");
    let launched = launched.expect("it was looked for above");
    assert_eq!(launched["level"], "INFO");
    assert_eq!(launched["logger"], "controller");
    assert_eq!(launched["controller"], "nodeclaim.lifecycle");
    assert_eq!(launched["capacity-type"], "on-demand");
    assert!(
        launched["provider-id"].as_str().is_some_and(|id| id.starts_with("aws:///us-east-1")),
        "{launched}"
    );
    assert!(launched["allocatable"]["cpu"].is_string(), "{launched}");

    let disrupted = disruptions(&log);
    for reason in ["underutilized", "empty"] {
        assert!(disrupted.iter().any(|(_, given)| given == reason), "{reason}: {disrupted:#?}");
    }
    for (message, _) in &disrupted {
        assert!(
            message.starts_with("disrupting nodeclaim(s) via delete, terminating ")
                || message.starts_with("disrupting nodeclaim(s) via replace, terminating "),
            "{message}"
        );
    }
}

fn the_events_tell_it_all(kubectl: &Kubectl) {
    let events = kubectl.items("get events -A");
    for (kind, reason, source_is) in [
        ("Deployment", "ScalingReplicaSet", "deployment-controller"),
        ("ReplicaSet", "SuccessfulCreate", "replicaset-controller"),
        ("Pod", "Scheduled", "default-scheduler"),
        ("Pod", "Nominated", "karpenter"),
        ("Pod", "Pulling", "kubelet"),
        ("Pod", "Pulled", "kubelet"),
        ("Pod", "Created", "kubelet"),
        ("Pod", "Started", "kubelet"),
        ("NodeClaim", "DisruptionTerminating", "karpenter"),
    ] {
        assert!(
            events.iter().any(|event| event["involvedObject"]["kind"] == kind
                && event["reason"] == reason
                && source(event) == source_is),
            "no {reason} of {kind} from {source_is} among {:#?}",
            events.iter().map(summary).collect::<std::collections::BTreeSet<_>>()
        );
    }
}

/// The nodes of the inflate pods that run, one entry a pod.
fn running_on(kubectl: &Kubectl) -> Vec<String> {
    kubectl
        .items("get pods -l app=inflate")
        .iter()
        .filter(|pod| {
            pod["status"]["phase"] == "Running"
                && pod["status"]["containerStatuses"][0]["ready"] == true
                && pod["metadata"]["deletionTimestamp"].is_null()
        })
        .map(|pod| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Messages and reasons of the disruptions in a log.
fn disruptions(log: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    log.iter()
        .map(|line| (text(&line["message"]), text(&line["reason"])))
        .filter(|(message, _)| message.starts_with("disrupting nodeclaim(s)"))
        .collect()
}

fn source(event: &Value) -> &str {
    [&event["source"]["component"], &event["reportingComponent"], &event["reportingController"]]
        .into_iter()
        .filter_map(Value::as_str)
        .find(|name| !name.is_empty())
        .unwrap_or_default()
}

fn summary(event: &Value) -> String {
    format!("{} {} {}", event["involvedObject"]["kind"], event["reason"], source(event))
}

/// A CPU quantity in thousandths.
fn millis(quantity: &Value) -> i64 {
    let text = quantity.as_str().unwrap_or_default();
    match text.strip_suffix('m') {
        Some(millis) => millis.parse().expect("a number of thousandths"),
        None => text.parse::<i64>().expect("a number of CPUs") * 1_000,
    }
}
