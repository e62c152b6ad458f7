//! `wharf bench` measures what it says: tried small, and judged by what was done, not how fast.

#![allow(clippy::disallowed_methods, reason = "tests drive real processes")]

mod harness;

use std::process::Command;

use harness::{run, wharf_binary};
use serde_json::Value;

fn rows(arguments: &[&str]) -> Vec<Value> {
    let mut command = Command::new(wharf_binary());
    command.args(["bench", "scheduling", "-o", "json"]).args(arguments);
    let told: Value = serde_json::from_str(&run(command).ok()).expect("JSON");
    told["items"].as_array().expect("rows").clone()
}

#[test]
fn workloads_go_through_the_whole_path() {
    let names = ["SchedulingBasic", "Unschedulable", "PreemptionBasic", "SchedulingWithMixedChurn"];
    let mut arguments = vec!["--nodes", "20", "--pods", "20"];
    arguments.extend(names);
    let rows = rows(&arguments);
    let told: Vec<_> = rows.iter().map(|row| row["workload"].as_str().expect("a name")).collect();
    assert_eq!(told, names);
    let bound: Vec<_> = rows.iter().map(|row| row["bound"].as_u64().expect("a number")).collect();
    assert_eq!(bound, [20, 18, 20, 20], "a tenth is impossible");
    assert!(rows.iter().all(|row| row["podsPerSecond"].as_f64() > Some(0.0)), "{rows:?}");
}

#[test]
fn autoscalers_have_something_to_do_in_each_round() {
    let mut command = Command::new(wharf_binary());
    command.args(["bench", "autoscale", "-o", "json", "--autoscalers", "20", "--pods", "60"]);
    let told: Value = serde_json::from_str(&run(command).ok()).expect("JSON");
    let rows = told["items"].as_array().expect("rows");
    let horizontal = rows.iter().find(|row| row["controller"] == "hpa").expect("a row");
    assert_eq!(horizontal["writes"], 20, "a status for each: {horizontal}");
    let vertical = rows.iter().find(|row| row["controller"] == "vpa-recommender").expect("a row");
    assert_eq!(vertical["writes"], 40, "a status and a checkpoint for each: {vertical}");
    assert!(vertical["roundMs"].as_f64() > Some(0.0));
}

#[test]
fn the_core_can_be_measured_alone() {
    let rows = rows(&["SchedulingDaemonset", "--core", "--nodes", "30", "--pods", "50"]);
    assert_eq!(rows[0]["placed"], 50);
    assert_eq!(rows[0]["nodes"], 30);
}
