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
        (
            "rate(container_cpu_usage_seconds_total{job='wharf', pod=~'.+', container!='POD', container!=''}[10s])",
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

const WORKLOAD: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector:
    matchLabels: {app.kubernetes.io/name: web}
  template:
    metadata:
      labels: {app.kubernetes.io/name: web}
    spec:
      containers:
      - name: web
        image: nginx
        resources:
          requests: {cpu: 100m, memory: 50Mi}
---
apiVersion: autoscaling.k8s.io/v1
kind: VerticalPodAutoscaler
metadata:
  name: web
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  updatePolicy: {updateMode: "Off"}
"#;

/// A Prometheus that has kept three days of a pod that is gone: half a core, 400 MB. The labels are
/// those that upstream's flags expect by default.
fn kept_by_prometheus(folder: &Path) -> Prometheus {
    const EVERY: u64 = 120;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("it is after 1970").as_secs();
    let times = || (now - 3 * 86_400..now).step_by(EVERY as usize).enumerate();
    let mut text = "# TYPE container_cpu_usage_seconds counter\n".to_owned();
    let container =
        "job=\"kubernetes-cadvisor\",namespace=\"default\",pod_name=\"web-of-yore\",name=\"web\"";
    for (at, time) in times() {
        let used = at as u64 * EVERY / 2;
        text += &format!("container_cpu_usage_seconds_total{{{container}}} {used} {time}\n");
    }
    text += "# TYPE container_memory_working_set_bytes gauge\n";
    for (_, time) in times() {
        text += &format!("container_memory_working_set_bytes{{{container}}} 4e8 {time}\n");
    }
    text += "# TYPE up gauge\n";
    for (_, time) in times() {
        text += &format!(
            "up{{job=\"kubernetes-pods\",kubernetes_namespace=\"default\",kubernetes_pod_name=\"web-of-yore\",pod_label_app_kubernetes_io_name=\"web\"}} 1 {time}\n"
        );
    }
    text += "# EOF\n";
    std::fs::create_dir_all(folder).expect("a folder can be made");
    std::fs::write(folder.join("history.om"), text).expect("a file can be written");
    std::fs::write(folder.join("prometheus.yml"), "global: {}\n").expect("a file can be written");
    promtool(&["tsdb", "create-blocks-from", "openmetrics", "history.om", "data"], folder).ok();
    Prometheus::start(folder)
}

/// What an autoscaler recommends to start with, once it does.
fn recommended(kubectl: &harness::Kubectl) -> Value {
    wait_for("a recommendation", || {
        let status = kubectl.json("get vpa web")["status"].clone();
        match &status["recommendation"]["containerRecommendations"][0]["target"] {
            Value::Null => Err(status.to_string()),
            target => Ok(target.clone()),
        }
    })
}

#[test]
fn the_recommender_begins_with_what_prometheus_has_kept() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let prometheus = kept_by_prometheus(folder.path());
    let address = format!("http://{}", prometheus.address);
    let flags = ["--storage", "prometheus", "--prometheus-address", &address];
    let wanted = serde_json::json!({"cpu": "587m", "memory": "476450463"});

    let lab = Options {
        speed: 20,
        arguments: flags.iter().map(ToString::to_string).collect(),
        ..Options::default()
    };
    let wharf = Wharf::start(&lab);
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    kubectl.input("apply -f -", WORKLOAD).ok();
    assert_eq!(recommended(&kubectl), wanted, "the pods there are use next to nothing");
    let why = wharf.wharf(&["why", "vpa/web"]).ok();
    assert!(why.contains("vpa-recommender: begins with history"), "{why}");
    assert!(why.contains(" samples of 1 pods between "), "{why}");
    assert_eq!(wharf.log(), "");
    drop(wharf);

    // The same beside an API server.
    let apart = ["--controllers", "workloads,scheduler,karpenter,storage,kubelet"];
    let lab = Options {
        speed: 20,
        arguments: apart.iter().map(ToString::to_string).collect(),
        ..Options::default()
    };
    let wharf = Wharf::start(&lab);
    let beside = wharf.run_beside(&[&["--only", "autoscaling"], &flags[..]].concat());
    let kubectl = wharf.kubectl();
    kubectl.input("apply -f -", WORKLOAD).ok();
    assert_eq!(recommended(&kubectl), wanted);
    assert!(beside.stop("TERM").success());
}

#[test]
fn a_broken_prometheus_is_told_of_and_holds_nothing_up() {
    // Nothing listens at a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port is free")
        .port();
    let address = format!("http://127.0.0.1:{port}");
    let flags = ["--storage", "prometheus", "--prometheus-address", &address];
    let arguments = flags.iter().map(ToString::to_string).collect();
    let wharf = Wharf::start(&Options { arguments, ..Options::default() });
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    kubectl.input("apply -f -", WORKLOAD).ok();
    assert_eq!(recommended(&kubectl), serde_json::json!({"cpu": "25m", "memory": "250Mi"}));
    let said = format!("no answer from {address}: Connection refused (os error 111)");
    let events = kubectl.items("get events --field-selector reason=FetchingHistoryFailed");
    let told = format!("cannot fetch history: {said}; beginning without history");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((&events[0]["message"], &events[0]["type"]), (&told.into(), &"Warning".into()));
    assert_eq!(wharf.log(), format!("wharf: {said}; the recommender begins without history\n"));
    let why = wharf.wharf(&["why", "vpa/web"]).ok();
    assert!(why.contains("begins without history"), "{why}");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    for (flags, expected) in [
        (
            &["--prometheus-address", "prometheus:9090"][..],
            "--prometheus-address: \"prometheus:9090\" is no address of a Prometheus; write it as http://HOST:PORT or https://HOST:PORT",
        ),
        (
            &["--history-resolution", "1m"],
            "--history-length in steps of --history-resolution are 11520 values, and Prometheus gives at most 11000; make the steps longer",
        ),
        (
            &["--history-length", "30m"],
            "--history-resolution must be at least 1s and at most --history-length",
        ),
        (&["--history-length", "soon"], "\"soon\" is not a duration; write it as 8d, 1h or 5m30s"),
        (
            &["--container-name-label", "a b"],
            "write the name of a metric's label: letters, digits and _",
        ),
    ] {
        let mut command = Command::new(wharf_binary());
        command.args(["up", "--ephemeral", "--listen", "127.0.0.1:0", "--storage", "prometheus"]);
        let told = run({
            command.args(flags);
            command
        })
        .fails_with(2);
        assert!(told.contains(expected), "{told}");
    }
}

/// The rules of the document, over numbers that this Prometheus makes up.
fn rules(folder: &Path) -> String {
    let text = block("yaml", "kind: PrometheusRules");
    let text = [
        (
            "sum by (namespace, pod) (rate(http_requests_total[2m]))",
            "label_replace(label_replace(vector(12.5), 'namespace', 'default', '', ''), 'pod', 'web', '', '')",
        ),
        (
            "sum by (queue) (rabbitmq_queue_messages)",
            "label_replace(vector(30), 'queue', 'orders', '', '')",
        ),
    ]
    .iter()
    .fold(text, |text, (query, other)| {
        assert!(text.contains(query), "{query} in {text}");
        text.replace(query, other)
    });
    let file = folder.join("rules.yaml");
    std::fs::write(&file, text).expect("a file can be written");
    file.display().to_string()
}

const QUEUE: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: worker
spec:
  selector:
    matchLabels: {app: worker}
  template:
    metadata:
      labels: {app: worker}
    spec:
      containers:
      - {name: worker, image: nginx, resources: {requests: {cpu: 100m}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: worker
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}
  maxReplicas: 10
  metrics:
  - type: External
    external:
      metric:
        name: queue_length
        selector: {matchLabels: {queue: orders}}
      target: {type: AverageValue, averageValue: 10}
"#;

fn replicas(kubectl: &harness::Kubectl, wanted: i64) {
    wait_for(&format!("{wanted} workers"), || {
        let worker = kubectl.json("get deployment worker");
        let is_there = worker["spec"]["replicas"] == wanted;
        let told = || kubectl.run("describe hpa worker").stdout;
        if is_there { Ok(()) } else { Err(told()) }
    });
}

/// The message of an autoscaler's condition, once it is not met.
fn trouble(kubectl: &harness::Kubectl, reason: &str) -> String {
    wait_for(reason, || {
        let status = kubectl.json("get hpa.v2.autoscaling worker")["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|found| found["reason"] == reason);
        let message = found.and_then(|found| found["message"].as_str());
        message.map(str::to_owned).ok_or_else(|| status.to_string())
    })
}

#[test]
fn autoscalers_count_by_what_prometheus_says() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    std::fs::write(folder.path().join("prometheus.yml"), "global: {}\n")
        .expect("it can be written");
    let prometheus = Prometheus::start(folder.path());
    let address = format!("http://{}", prometheus.address);
    let file = rules(folder.path());
    let flags = ["--prometheus-rules", &file, "--prometheus-address", &address];
    let arguments: Vec<String> = flags.iter().map(ToString::to_string).collect();

    let wharf = Wharf::start(&Options { arguments, ..Options::default() });
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    kubectl.input("apply -f -", QUEUE).ok();
    replicas(&kubectl, 3);
    kubectl.ok("run web --image=nginx");
    let raw = |path: &str| -> Value {
        let text = kubectl.ok(&format!("get --raw /apis/{path}"));
        serde_json::from_str(&text).expect("JSON")
    };
    let path = "custom.metrics.k8s.io/v1beta2/namespaces/default/pods/web/http_requests_per_second";
    assert_eq!(raw(path)["items"][0]["value"], "12500m");
    let found = raw("external.metrics.k8s.io/v1beta1/namespaces/kube-system/queue_length");
    assert_eq!(found["items"][0]["value"], "30", "it is in no namespace, hence in all");
    assert_eq!(found["items"][0]["metricLabels"], serde_json::json!({"queue": "orders"}));
    assert_eq!(wharf.log(), "");

    drop(prometheus);
    let message = trouble(&kubectl, "FailedGetExternalMetric");
    assert!(message.contains("queue_length"), "{message}");
    replicas(&kubectl, 3);
    wait_for("both rules to be told of", || {
        let log = wharf.log();
        let lines: Vec<&str> = log.lines().collect();
        let told = |metric: &str| {
            let start = format!("wharf: metric {metric}: no answer from {address}: ");
            let end = "; autoscalers that count by it hold still";
            lines.iter().filter(|line| line.starts_with(&start) && line.ends_with(end)).count()
        };
        assert!(lines.len() <= 2, "{log}");
        let both = told("queue_length") == 1 && told("http_requests_per_second") == 1;
        if both { Ok(()) } else { Err(log) }
    });
    drop(wharf);

    // The same beside an API server.
    let prometheus = Prometheus::start(folder.path());
    let address = format!("http://{}", prometheus.address);
    let flags = ["--prometheus-rules", &file, "--prometheus-address", &address];
    let apart = ["--controllers", "workloads,scheduler,karpenter,storage,kubelet"];
    let arguments = apart.iter().map(ToString::to_string).collect();
    let wharf = Wharf::start(&Options { arguments, ..Options::default() });
    let _beside = wharf.run_beside(&[&["--only", "autoscaling"], &flags[..]].concat());
    let kubectl = wharf.kubectl();
    kubectl.input("apply -f -", QUEUE).ok();
    replicas(&kubectl, 3);
}
