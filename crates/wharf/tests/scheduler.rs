//! The scheduler of a lab with a configuration of its own, and what it tells of its work.

mod harness;

use std::process::Command;

use harness::{Kubectl, Options, Wharf, run, wait_for, wharf_binary};

const CONFIG: &str = "apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
  plugins: {multiPoint: {enabled: [{name: GangScheduling}]}}
- schedulerName: picky
  pluginConfig:
  - name: NodeAffinity
    args:
      addedAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms: [{matchExpressions: [{key: pool, operator: In, values: [b]}]}]
";

fn create_node(kubectl: &Kubectl, name: &str) {
    let node = format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{pool: {name}}}}}\n"
    );
    kubectl.input("apply -f -", &node).ok();
    let status = r#"{"status":{"allocatable":{"cpu":"2","memory":"8Gi","pods":"110"}}}"#;
    kubectl
        .args(&["patch", "node", name, "--subresource=status", "--type=merge", "-p", status])
        .ok();
    // No node-lifecycle controller runs here to take the taint of a new node away.
    let untainted = r#"{"spec":{"taints":null}}"#;
    kubectl.args(&["patch", "node", name, "--type=merge", "-p", untainted]).ok();
}

fn create_pod(kubectl: &Kubectl, name: &str, more: &str) {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  {more}\n  containers: [{{name: c, image: i, resources: {{requests: {{cpu: 1}}}}}}]\n"
    );
    kubectl.input("apply -f -", &pod).ok();
}

fn wait_bound(kubectl: &Kubectl, pod: &str) -> String {
    wait_for("the pod to be bound", || {
        let node = kubectl.ok(&format!("get pod {pod} -o jsonpath={{.spec.nodeName}}"));
        if node.is_empty() { Err(kubectl.ok("get pods,events")) } else { Ok(node) }
    })
}

#[test]
fn profiles_gangs_and_metrics() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let file = folder.path().join("s.yaml");
    std::fs::write(&file, CONFIG).expect("it can be written");
    let file = file.display().to_string();
    let arguments = ["--controllers", "scheduler", "--scheduler-config", &file];
    let arguments = arguments.map(str::to_owned).to_vec();
    let wharf = Wharf::start(&Options { speed: 1, arguments, ..Options::default() });
    let kubectl = wharf.kubectl();
    create_node(&kubectl, "a");
    create_node(&kubectl, "b");
    create_pod(&kubectl, "p", "schedulerName: picky");
    assert_eq!(wait_bound(&kubectl, "p"), "b");
    let group = "apiVersion: scheduling.k8s.io/v1alpha2\nkind: PodGroup\nmetadata: {name: g}\nspec: {schedulingPolicy: {gang: {minCount: 2}}}\n";
    kubectl.input("apply -f -", group).ok();
    create_pod(&kubectl, "g1", "schedulingGroup: {podGroupName: g}");
    wait_for("the first pod to be kept out", || {
        let metrics = kubectl.ok("get --raw /metrics");
        let gated = metrics.contains("scheduler_pending_pods{queue=\"gated\"} 1\n");
        if gated { Ok(()) } else { Err(metrics) }
    });
    create_pod(&kubectl, "g2", "schedulingGroup: {podGroupName: g}");
    wait_bound(&kubectl, "g1");
    wait_bound(&kubectl, "g2");
    let metrics = wait_for("the metrics to tell of three pods", || {
        let metrics = kubectl.ok("get --raw /metrics");
        let all = metrics
            .contains("scheduler_pod_scheduling_sli_duration_seconds_count{attempts=\"1\"} 3\n");
        if all { Ok(metrics) } else { Err(metrics) }
    });
    for sample in [
        "scheduler_schedule_attempts_total{profile=\"picky\",result=\"scheduled\"} 1\n",
        "scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"scheduled\"} 2\n",
        "scheduler_scheduler_cache_size{type=\"nodes\"} 2\n",
    ] {
        assert!(metrics.contains(sample), "{sample} is not in\n{metrics}");
    }
}

#[test]
fn a_wrong_configuration_is_told_in_one_line() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let file = folder.path().join("s.yaml").display().to_string();
    for (text, message) in [
        (
            CONFIG.replace("GangScheduling", "GangPlanning"),
            "profiles[0].plugins.multiPoint.enabled[0].name: unknown plugin \"GangPlanning\"",
        ),
        (
            format!("{CONFIG}extenders: [{{urlPrefix: 'ftp://e', filterVerb: filter}}]\n"),
            "extenders[0].urlPrefix: has to begin with http:// or https://",
        ),
    ] {
        std::fs::write(&file, text).expect("it can be written");
        let mut command = Command::new(wharf_binary());
        command.args(["up", "--ephemeral", "--listen", "127.0.0.1:0", "--scheduler-config", &file]);
        let error = run(command).fails_with(2);
        assert!(error.contains(message) && error.trim_end().lines().count() == 1, "{error}");
    }
}
