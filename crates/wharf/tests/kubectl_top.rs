//! What is used, with a real kubectl: the memory demos of the Kubernetes documentation, a service
//! under load, `kubectl top`, and what Prometheus would scrape.

mod harness;

use harness::{Wharf, lab_file, wait_for};

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: memory-demo
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: memory-demo-ctr
    image: polinux/stress
    resources:
      requests:
        memory: "100Mi"
      limits:
        memory: "200Mi"
    command: ["stress"]
    args: ["--vm", "1", "--vm-bytes", "150M", "--vm-hang", "1"]
---
apiVersion: v1
kind: Pod
metadata:
  name: memory-demo-2
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: memory-demo-2-ctr
    image: polinux/stress
    resources:
      requests:
        memory: "50Mi"
      limits:
        memory: "100Mi"
    command: ["stress"]
    args: ["--vm", "1", "--vm-bytes", "250M", "--vm-hang", "1"]
---
apiVersion: v1
kind: Pod
metadata:
  name: php-apache
  labels:
    run: php-apache
spec:
  containers:
  - name: php-apache
    image: registry.k8s.io/hpa-example
    ports:
    - containerPort: 80
    resources:
      limits:
        cpu: 500m
      requests:
        cpu: 200m
---
apiVersion: v1
kind: Service
metadata:
  name: php-apache
spec:
  ports:
  - port: 80
  selector:
    run: php-apache
"#;

/// The rows of a table, each as its words.
fn rows(table: &str) -> Vec<Vec<String>> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    table.lines().skip(1).map(words).collect()
}

#[test]
fn what_pods_use_is_measured_and_what_they_may_not_kills_them() {
    let wharf = Wharf::ephemeral();
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    kubectl.ok("wait --for=condition=Ready nodepool/default ec2nodeclass/default --timeout=120s");
    let none = kubectl.run("top pod");
    assert!(none.stderr.contains("No resources found"), "{}", none.stderr);
    kubectl.input("apply -f -", PODS).ok();
    kubectl
        .args(&[
            "run",
            "load-generator",
            "--image=busybox:1.28",
            "--restart=Never",
            "--",
            "/bin/sh",
            "-c",
            "while sleep 0.01; do wget -q -O- http://php-apache; done",
        ])
        .ok();
    wait_for("the pods to be measured", || {
        let table = kubectl.run("top pod").stdout;
        let rows = rows(&table);
        let has = |name: &str, cpu: &str| rows.iter().any(|row| row[0] == name && row[1] == cpu);
        let done = has("memory-demo", "70m") && has("php-apache", "500m");
        if done { Ok(()) } else { Err(table) }
    });
    assert_eq!(rows(&kubectl.ok("top pod memory-demo")), [["memory-demo", "70m", "151Mi"]]);
    assert_eq!(
        rows(&kubectl.ok("top pod memory-demo --containers")),
        [["memory-demo", "memory-demo-ctr", "70m", "151Mi"]]
    );
    let by_memory = rows(&kubectl.ok("top pod --sort-by=memory"));
    assert_eq!(by_memory[0][0], "memory-demo");
    let by_label = rows(&kubectl.ok("top pod -l run=php-apache"));
    assert_eq!(by_label.len(), 1);
    let nodes = rows(&kubectl.ok("top node"));
    assert!(nodes.iter().all(|row| row.len() == 5 && row[2].ends_with('%')), "{nodes:?}");

    // Over its limit: killed, and started again after longer and longer waits.
    wait_for("the demo to be killed twice", || {
        let pod = kubectl.json("get pod memory-demo-2");
        let container = &pod["status"]["containerStatuses"][0];
        let last = &container["lastState"]["terminated"];
        let killed = last["reason"] == "OOMKilled" && last["exitCode"] == 137;
        let again = container["restartCount"].as_i64().is_some_and(|count| count >= 2);
        if killed && again { Ok(()) } else { Err(container.to_string()) }
    });
    let why = wharf.wharf(&["why", "pod/memory-demo"]).ok();
    assert!(why.contains("container memory-demo-ctr: Burstable, oom_score_adj 9"), "{why}");
    assert!(why.contains(", cpu_shares 2, memory limit 200Mi"), "{why}");

    let node = kubectl.ok("get pod memory-demo -o jsonpath={.spec.nodeName}");
    let counters = kubectl.ok(&format!("get --raw /api/v1/nodes/{node}/proxy/metrics/resource"));
    let counter = "container_cpu_usage_seconds_total{container=\"memory-demo-ctr\"";
    assert!(counters.contains(counter), "{counters}");
    let state = kubectl.ok("get --raw /metrics");
    for part in [
        "kube_pod_status_qos_class{namespace=\"default\",pod=\"memory-demo\"",
        "reason=\"OOMKilled\"} 1",
        "kube_node_status_condition{node=",
    ] {
        assert!(state.contains(part), "{part}");
    }
}
