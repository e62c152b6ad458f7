//! With a real Prometheus: it scrapes a lab as docs/prometheus.md says, and finds what it should.

#![allow(clippy::disallowed_methods, reason = "tests drive real processes, on real time")]

mod harness;

use std::path::Path;
use std::process::Command;

use harness::{
    Options, Prometheus, Wharf, lab_file, newest_kubectl, promtool, repository, run, wait_for,
    wharf_binary,
};
use serde_json::Value;

const DOCUMENT: &str = "docs/prometheus.md";

/// The first block of a document in a language that holds a text.
fn block(language: &str, holding: &str) -> String {
    let text = std::fs::read_to_string(repository().join(DOCUMENT)).expect("it is there");
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.contains(holding)).map(str::to_owned).next().unwrap_or_else(|| {
        panic!("{DOCUMENT} has no block of {language} with {holding}");
    })
}

/// Does in a folder what the document says.
fn follow(wharf: &Wharf, folder: &Path) {
    let tools = folder.join("bin");
    std::fs::create_dir_all(&tools).expect("a folder can be made");
    for (name, target) in [("wharf", wharf_binary()), ("kubectl", &newest_kubectl())] {
        std::os::unix::fs::symlink(target, tools.join(name)).expect("a link can be made");
    }
    let path = std::env::var("PATH").unwrap_or_default();
    for line in block("console", "> token").lines().filter_map(|line| line.strip_prefix("$ ")) {
        let mut command = Command::new("bash");
        command.args(["-e", "-o", "pipefail", "-c", line]).current_dir(folder);
        command.env("PATH", format!("{}:{path}", tools.display())).env("HOME", folder);
        command.env("KUBECONFIG", &wharf.kubeconfig);
        run(command).ok();
    }
    let config = block("yaml", "scrape_configs:");
    let address = wharf.url.trim_start_matches("https://");
    assert!(config.contains("127.0.0.1:6443") && config.contains("15s"), "{config}");
    let config = config.replace("127.0.0.1:6443", address).replace("15s", "1s");
    std::fs::write(folder.join("prometheus.yml"), config).expect("a file can be written");
    let checked = promtool(&["check", "config", "prometheus.yml"], folder);
    assert_eq!(checked.code, Some(0), "{checked}");
}

#[test]
fn prometheus_scrapes_a_lab_as_the_document_says() {
    let wharf = Wharf::start(&Options { speed: 60, ..Options::default() });
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    for lab in ["labs/vpa/hamster.yaml", "labs/hpa/php-apache.yaml"] {
        kubectl.ok(&format!("apply -f {}", repository().join(lab).display()));
    }
    kubectl.ok("autoscale deployment php-apache --cpu=50% --min=1 --max=10");
    let folder = wharf.folder().join("prometheus");
    follow(&wharf, &folder);
    let prometheus = Prometheus::start(&folder);

    wait_for("the lab to be scraped", || {
        let targets = prometheus.targets()?;
        let target = targets.first().ok_or("no target yet")?;
        let is_up = target["health"] == "up" && target["lastError"] == "";
        if is_up { Ok(()) } else { Err(target.to_string()) }
    });
    for (query, labels) in [
        ("kube_pod_info", r#"{"namespace": "default", "created_by_kind": "ReplicaSet"}"#),
        ("kube_pod_labels{label_app='hamster'}", r#"{"namespace": "default"}"#),
        ("kube_pod_status_phase == 1", r#"{"phase": "Running"}"#),
        ("kube_pod_container_resource_requests", r#"{"resource": "cpu", "unit": "core"}"#),
        ("kube_node_info", r#"{}"#),
        ("kube_node_status_allocatable", r#"{"resource": "memory", "unit": "byte"}"#),
        ("kube_deployment_status_replicas_ready > 0", r#"{"deployment": "hamster"}"#),
        (
            "kube_horizontalpodautoscaler_spec_target_metric == 50",
            r#"{"horizontalpodautoscaler": "php-apache", "metric_name": "cpu", "metric_target_type": "utilization"}"#,
        ),
        (
            "kube_horizontalpodautoscaler_status_condition == 1",
            r#"{"condition": "AbleToScale", "status": "true"}"#,
        ),
        (
            "kube_customresource_vpa_containerrecommendations_target == 0.587",
            r#"{"verticalpodautoscaler": "hamster-vpa", "container": "hamster", "resource": "cpu",
                "unit": "core", "target_name": "hamster", "customresource_kind": "VerticalPodAutoscaler"}"#,
        ),
        (
            "kube_verticalpodautoscaler_status_recommendation_containerrecommendations_upperbound",
            r#"{"verticalpodautoscaler": "hamster-vpa", "resource": "memory"}"#,
        ),
        (
            "container_memory_working_set_bytes",
            r#"{"namespace": "default", "container": "hamster"}"#,
        ),
        ("node_memory_working_set_bytes", r#"{}"#),
        ("scheduler_schedule_attempts_total > 0", r#"{"result": "scheduled"}"#),
        ("scheduler_pending_pods", r#"{"queue": "active"}"#),
        ("karpenter_nodes_allocatable", r#"{"nodepool": "default", "resource_type": "cpu"}"#),
        ("karpenter_nodes_total_pod_requests > 0", r#"{"resource_type": "cpu"}"#),
        ("karpenter_nodepools_usage > 0", r#"{"nodepool": "default"}"#),
        ("karpenter_nodeclaims_created_total > 0", r#"{"nodepool": "default"}"#),
        ("karpenter_pods_state", r#"{"phase": "Running", "nodepool": "default"}"#),
    ] {
        let labels: Value = serde_json::from_str(labels).expect("an object");
        let labels = labels.as_object().expect("an object");
        wait_for(query, || {
            let series = prometheus.query(query)?;
            let is_it = |(found, _): &(Value, f64)| {
                found["job"] == "wharf" && labels.iter().all(|(key, value)| found[key] == *value)
            };
            if series.iter().any(is_it) { Ok(()) } else { Err(format!("{labels:?} in {series:?}")) }
        });
    }
    // A hamster is busy for half of its time, on the lab's clock.
    let used = "sum by (pod) (rate(container_cpu_usage_seconds_total{container='hamster'}[10s])) \
                / on() group_left() rate(wharf_cluster_time_seconds[10s])";
    wait_for("the use of cpu on the lab's clock", || {
        let series = prometheus.query(used)?;
        let is_it = |(_, value): &(Value, f64)| (0.3..0.7).contains(value);
        if series.iter().any(is_it) { Ok(()) } else { Err(format!("{series:?}")) }
    });
    let metrics = kubectl.ok("get --raw /metrics");
    let helped = metrics.lines().filter(|line| line.starts_with("# HELP "));
    let families: std::collections::BTreeSet<&str> =
        helped.clone().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(helped.count(), families.len(), "each family is told once");
}
