//! Every scenario of the labs can be read, with the files that it names, and begins.

use std::path::Path;
use std::time::Duration;

use wharf_sim::rehearsal::{Options, Rehearsal, START};
use wharf_sim::scenario;

#[test]
fn every_scenario_of_the_labs_begins() {
    let labs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../labs");
    let mut begun = Vec::new();
    for lab in std::fs::read_dir(labs).expect("the labs are there") {
        for file in std::fs::read_dir(lab.expect("a lab").path()).expect("a folder") {
            let file = file.expect("a file").path();
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if !text.lines().any(|line| line == "kind: Scenario") {
                continue;
            }
            let scenario = scenario::load(&file).unwrap_or_else(|error| panic!("{error}"));
            // The lab of the queue goes down to no pod, which its README turns on.
            let gates = "HPAScaleToZero=true".parse().expect("a gate");
            let options = Options { gates, ..Options::default() };
            let mut rehearsal =
                Rehearsal::new(scenario, &options).unwrap_or_else(|error| panic!("{error}"));
            // Before the first step of any but the smallest.
            rehearsal
                .run_to(START + Duration::from_secs(5))
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            begun.push(file);
        }
    }
    assert!(begun.len() >= 7, "{begun:?}");
}
