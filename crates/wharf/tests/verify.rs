//! `wharf verify` answers line by line, whatever is wrong with some of them.

#![allow(clippy::disallowed_methods, reason = "tests drive real processes")]

mod harness;

use std::process::Command;

use harness::{run_with_input, wharf_binary};
use serde_json::{Value, json};

fn verify(input: &str) -> (Vec<Value>, String, Option<i32>) {
    let mut command = Command::new(wharf_binary());
    command.args(["verify", "scheduler"]);
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
    let (answers, errors, code) = verify(&input);
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
    assert_eq!(verify("\n"), (Vec::new(), String::new(), Some(0)));
}
