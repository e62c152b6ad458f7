//! `wharf simulate`: one seed, one output; and the same machines as the lab by hand.

mod harness;

use std::collections::BTreeSet;
use std::process::Command;

use harness::{Finished, Options, Wharf, lab_file, run, wharf_binary};
use serde_json::Value;

#[test]
fn one_seed_gives_one_output() {
    let mut outputs = BTreeSet::new();
    for seed in 0..20 {
        // The text is the same story; it need not be told for every seed.
        for format in if seed < 3 { &["json", "text"][..] } else { &["json"] } {
            let seed = seed.to_string();
            let first = simulate(&["--seed", &seed, "-o", format]).ok();
            let second = simulate(&["--seed", &seed, "-o", format]).ok();
            assert!(!first.is_empty());
            assert_eq!(first, second, "two runs with seed {seed} differ");
            outputs.insert(first);
        }
    }
    assert_eq!(outputs.len(), 23, "seeds draw different boot times and names");
}

#[test]
fn until_cuts_the_run_short() {
    let whole = simulate(&["--seed", "1", "-o", "text"]).ok();
    let cut = simulate(&["--seed", "1", "-o", "text", "--until", "4m"]).ok();
    let cut_lines: Vec<&str> = cut.lines().filter(|line| line.starts_with('+')).collect();
    let whole_lines: Vec<&str> = whole.lines().filter(|line| line.starts_with('+')).collect();
    assert!(!cut_lines.is_empty() && cut_lines.len() < whole_lines.len(), "{cut}");
    assert_eq!(cut_lines, whole_lines[..cut_lines.len()], "a shorter run is a prefix");
}

/// The lab of the scenario with a kubectl, on a clock that stands still between the steps.
#[test]
fn the_lab_by_hand_launches_the_machines_of_the_rehearsal() {
    let report: Value = serde_json::from_str(&simulate(&["--seed", "7", "-o", "json"]).ok())
        .expect("simulate -o json prints JSON");
    let rehearsed: Vec<String> = launches(&report);
    assert!(rehearsed.len() >= 3, "{report:#}");

    let seed = ["--seed", "7"].map(str::to_owned).to_vec();
    let wharf = Wharf::start(&Options { speed: 1, arguments: seed, ..Options::default() });
    let kubectl = wharf.kubectl();
    wharf.wharf(&["clock", "pause"]).ok();
    for file in ["nodepool.yaml", "inflate.yaml"] {
        kubectl.ok(&format!("apply -f {}", lab_file(file)));
    }
    for (span, then) in [
        ("10s", "scale deployment inflate --replicas 5".to_owned()),
        ("170s", format!("apply -f {}", lab_file("memory-demo-3.yaml"))),
        ("1m", "delete pod memory-demo-3 --wait=false".to_owned()),
        ("1m", "scale deployment inflate --replicas 30".to_owned()),
        ("5m", "scale deployment inflate --replicas 5".to_owned()),
        ("10m", "delete deployment inflate --wait=false".to_owned()),
    ] {
        wharf.wharf(&["clock", "step", span]).ok();
        kubectl.ok(&then);
    }
    wharf.wharf(&["clock", "step", "10m"]).ok();
    let log = kubectl.karpenter_log();
    let by_hand: Vec<&str> = log
        .iter()
        .filter(|line| line["message"] == "launched nodeclaim")
        .filter_map(|line| line["instance-type"].as_str())
        .collect();
    assert_eq!(by_hand, rehearsed);
    assert_eq!(kubectl.ok("get nodes,nodeclaims,pods -o name"), "");
}

fn simulate(arguments: &[&str]) -> Finished {
    let mut command = Command::new(wharf_binary());
    command.args(["simulate", &lab_file("scenario.yaml")]).args(arguments);
    run(command)
}

/// The instance types launched, in order, read from the timeline's launch entries:
/// `launched i-…: on-demand c5a.2xlarge in us-east-1c at …`.
fn launches(report: &Value) -> Vec<String> {
    let timeline = report["timeline"].as_array().expect("the report has a timeline");
    let launched = timeline.iter().filter(|entry| entry["what"] == "launch");
    launched
        .map(|entry| {
            let text = entry["text"].as_str().unwrap_or_default();
            text.split_whitespace().nth(3).unwrap_or_default().to_owned()
        })
        .collect()
}
