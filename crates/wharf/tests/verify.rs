//! `wharf verify` answers line by line, whatever is wrong with some of them.

#![allow(clippy::disallowed_methods, reason = "tests drive real processes")]

mod harness;

use std::process::Command;

use harness::{run_with_input, wharf_binary};
use serde_json::{Value, json};

fn verify(what: &str, input: &str) -> (Vec<Value>, String, Option<i32>) {
    let mut command = Command::new(wharf_binary());
    command.args(["verify", what]);
    let finished = run_with_input(command, input);
    let answers =
        finished.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (answers, finished.stderr, finished.code)
}

fn case(id: &str, cpu: &str) -> String {
    let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}});
    let pod = json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}
    });
    json!({"id": id, "nodes": [node], "pods": [], "pod": pod}).to_string()
}

#[test]
fn cases_are_answered_in_order_and_mistakes_are_named_by_their_line() {
    let input = format!("{}\n{{\n\n{}\n{}", case("a", "1"), case("b", "much"), case("c", "3"));
    let (answers, errors, code) = verify("scheduler", &input);
    let ids: Vec<_> = answers.iter().map(|answer| answer["id"].clone()).collect();
    assert_eq!(ids, ["a", "c"]);
    assert_eq!(answers[0]["filter"], json!({"n": "ok"}));
    assert_eq!(answers[1]["message"], "0/1 nodes are available: 1 Insufficient cpu.");
    let errors: Vec<_> = errors.lines().collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].starts_with("wharf: line 2: not JSON"), "{errors:?}");
    assert!(
        errors[1].starts_with("wharf: line 4: pod.spec.containers[0].resources.requests.cpu"),
        "{errors:?}"
    );
    assert_eq!(errors[2], "wharf: 2 lines of 4 could not be answered");
    assert_eq!(code, Some(2));
}

#[test]
fn nothing_asked_is_nothing_answered() {
    assert_eq!(verify("scheduler", "\n"), (Vec::new(), String::new(), Some(0)));
}

#[test]
fn a_history_of_an_hpa_is_answered_pass_by_pass() {
    let pod = |name: &str| {
        json!({
            "metadata": {"name": name, "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
            "status": {
                "phase": "Running", "startTime": "2026-01-01T00:00:00Z",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]
            }
        })
    };
    let case = json!({
        "id": "up", "start": "2026-01-01T01:00:00Z",
        "hpa": {"metadata": {"name": "a", "namespace": "n"}, "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "a", "apiVersion": "apps/v1"},
            "minReplicas": 1, "maxReplicas": 10,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]
        }},
        "steps": [{
            "time": "2026-01-01T01:00:15Z",
            "scale": {"specReplicas": 1, "statusReplicas": 1, "selector": "app=a"},
            "pods": [pod("a-1")],
            "podMetrics": [{"pod": "a-1", "timestamp": "2026-01-01T01:00:10Z", "window": "15s", "containers": [{"name": "c", "usage": {"cpu": "150m"}}]}]
        }]
    });
    let (answers, errors, code) = verify("hpa", &format!("{case}\n{{}}\n"));
    assert_eq!(answers[0]["id"], "up");
    assert_eq!(answers[0]["steps"][0]["scale"], 3);
    assert_eq!(
        answers[0]["steps"][0]["events"][0]["message"],
        "New size: 3; reason: cpu resource utilization (percentage of request) above target"
    );
    assert!(errors.contains("line 2: missing field"), "{errors}");
    assert_eq!((answers.len(), code), (1, Some(2)));
}

#[test]
fn a_history_of_usage_is_answered_with_a_recommendation() {
    let at = "2026-01-01T00:00:00Z";
    let case = json!({
        "id": "steady", "selector": "app=a", "config": {"pod-recommendation-min-cpu-millicores": 1},
        "vpa": {"metadata": {"name": "a", "namespace": "n"}, "spec": {}},
        "events": [
            {"type": "pod", "at": at, "pod": {"name": "a-1", "labels": {"app": "a"}, "containers": [{"name": "c"}]}},
            {"type": "samples", "at": at, "every": 60, "count": 100, "series": [{"pod": "a-1", "container": "c", "cpu": [100], "memory": [524_288_000]}]},
            {"type": "recommend", "at": "2026-01-01T02:00:00Z"}
        ]
    });
    let (answers, errors, code) = verify("vpa", &case.to_string());
    let target = &answers[0]["results"][0]["recommendation"][0]["target"];
    assert_eq!(*target, json!({"cpu": "126m", "memory": "628694953"}));
    assert_eq!((errors.as_str(), code), ("", Some(0)));
}
