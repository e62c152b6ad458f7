//! What is measured where the autoscalers and the kubelets are in two processes: through the metrics
//! APIs, as on any cluster.

mod harness;

use harness::{Kubectl, Options, Wharf, lab_file, repository, wait_for};

/// A lab without autoscalers.
fn without_autoscalers(arguments: &[&str]) -> Wharf {
    let rest = "workloads,scheduler,karpenter,storage,kubelet";
    let mut all = vec!["--controllers".to_owned(), rest.to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Wharf::start(&Options { arguments: all, ..Options::default() })
}

fn apply(kubectl: &Kubectl, files: &[&str]) {
    for file in files {
        let file = repository().join("labs").join(file);
        kubectl.ok(&format!("apply -f {}", file.display()));
    }
}

fn autoscaler(kubectl: &Kubectl, path: &str) -> String {
    kubectl.ok(&format!("get hpa php-apache -o jsonpath={path}"))
}

#[test]
fn autoscalers_read_the_metrics_apis_of_a_cluster() {
    let wharf = without_autoscalers(&[]);
    let kubectl = wharf.kubectl();
    apply(&kubectl, &["inflate/nodepool.yaml", "hpa/php-apache.yaml", "hpa/hpa.yaml"]);
    apply(&kubectl, &["hpa/load.yaml", "vpa/hamster.yaml"]);
    let beside = wharf.run_beside(&["--only", "autoscaling"]);
    assert!(beside.ready.starts_with("wharf runs autoscaling at https://"), "{}", beside.ready);
    wait_for("the load to make more pods", || {
        let replicas = kubectl.ok("get deployment php-apache -o jsonpath={.status.readyReplicas}");
        let told = kubectl.ok("get events --field-selector reason=SuccessfulRescale");
        if replicas.parse().unwrap_or(0) >= 6 { Ok(()) } else { Err(told) }
    });
    let events = kubectl.items("get events --field-selector reason=SuccessfulRescale");
    let first = events[0]["message"].as_str().expect("a text");
    assert!(first.starts_with("New size: "), "{first}");
    let above = "; reason: cpu resource utilization (percentage of request) above target";
    assert!(first.ends_with(above), "{first}");
    let active = "{.status.conditions[?(@.type=='ScalingActive')].reason}";
    assert_eq!(autoscaler(&kubectl, active), "ValidMetricFound");
    let why = wharf.wharf(&["why", "hpa/php-apache"]).ok();
    assert!(why.contains("of requests ("), "{why}");

    wait_for("the recommender to learn what hamsters use", || {
        let table = kubectl.ok("get vpa hamster-vpa");
        if table.contains("True") && table.contains("250Mi") { Ok(()) } else { Err(table) }
    });
    assert!(beside.stop("TERM").success());
}

#[test]
fn without_metrics_apis_scaling_holds_still_and_says_why() {
    let wharf = without_autoscalers(&["--metrics-apis", "none"]);
    let kubectl = wharf.kubectl();
    apply(&kubectl, &["inflate/nodepool.yaml", "hpa/php-apache.yaml", "hpa/hpa.yaml"]);
    apply(&kubectl, &["hpa/load.yaml"]);
    let _beside = wharf.run_beside(&["--only", "horizontal-pod-autoscaler-controller"]);
    let condition = "{.status.conditions[?(@.type=='ScalingActive')]['status','reason','message']}";
    let expected = "False FailedGetResourceMetric the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)";
    wait_for("the condition", || {
        let told = autoscaler(&kubectl, condition);
        if told == expected { Ok(()) } else { Err(told) }
    });
    wait_for("the events", || {
        let events =
            kubectl.items("get events --field-selector reason=FailedComputeMetricsReplicas");
        let told = events.iter().map(|event| event["message"].to_string()).collect::<String>();
        if told.contains("invalid metrics (1 invalid out of 1), first error is: ") {
            Ok(())
        } else {
            Err(told)
        }
    });
    assert_eq!(kubectl.ok("get deployment php-apache -o jsonpath={.spec.replicas}"), "1");
    let top = kubectl.run("top pod").fails();
    assert!(top.contains("Metrics API not available"), "{top}");
}

#[test]
fn kubectl_top_shows_what_kubelets_in_another_process_measure() {
    let arguments = ["--controllers", "none"].map(str::to_owned).to_vec();
    let wharf = Wharf::start(&Options { arguments, ..Options::default() });
    let kubectl = wharf.kubectl();
    let beside = wharf.run_beside(&["--cloud", "sim"]);
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    apply(&kubectl, &["hpa/php-apache.yaml", "hpa/load.yaml"]);
    let rows = |what: &str| -> Vec<Vec<String>> {
        let table = kubectl.run(&format!("top {what}")).stdout;
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        table.lines().skip(1).map(words).collect()
    };
    wait_for("php-apache to be measured", || {
        let pods = rows("pod --containers");
        let busy = pods.iter().any(|row| row[1] == "php-apache" && row[2] == "500m");
        if busy { Ok(()) } else { Err(format!("{pods:?}")) }
    });
    let nodes = rows("node");
    let cores: i64 = nodes[0][1].trim_end_matches('m').parse().expect("milli-cores");
    assert!(nodes[0].len() == 5 && cores >= 500, "{nodes:?}");
    assert!(beside.stop("TERM").success());
}
