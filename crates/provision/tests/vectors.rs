//! Batches for which it is known what Karpenter's own solver buys and what no plan can undercut.

mod checker;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use wharf_cloud::catalog::{Catalog, NodeSettings};
use wharf_model::instance_type::InstanceType;
use wharf_provision::cases::Case;
use wharf_provision::solve::{Packing, Settings};

/// The known costs are given to five digits after the point.
const ROUNDING: f64 = 1e-5;

fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/cases.jsonl.gz");
    let file = std::fs::File::open(path).expect("the cases");
    let mut lines = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut lines).expect("readable cases");
    let cases: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(cases.len(), 29, "a case is missing");
    cases
}

fn types() -> Vec<InstanceType> {
    let catalog = Catalog::load("us-east-1").expect("a known region");
    catalog.instance_types(&NodeSettings::default())
}

fn answer(case: &Value, types: &[InstanceType], packing: Packing) -> Value {
    let case: Case = serde_json::from_value(case.clone()).expect("a valid case");
    let settings = Settings { packing, ..Settings::default() };
    let answer = case.answer(types.to_vec(), settings).expect("a valid pool");
    serde_json::to_value(answer).expect("JSON")
}

fn pods(case: &Value) -> i64 {
    let groups = case["pod_groups"].as_array().expect("groups");
    groups.iter().filter_map(|group| group["count"].as_i64()).sum()
}

fn cost(answer: &Value) -> f64 {
    answer["usd_per_hour"].as_f64().expect("a cost")
}

#[test]
fn upstreams_algorithm_costs_what_upstream_pays() {
    let types = types();
    let by_name: BTreeMap<String, InstanceType> =
        types.iter().map(|machine| (machine.name.to_string(), machine.clone())).collect();
    for case in cases() {
        let answer = answer(&case, &types, Packing::Upstream);
        let (low, high) = (&case["upstream_usd"][0], &case["upstream_usd"][1]);
        let (low, high) = (low.as_f64().expect("a cost"), high.as_f64().expect("a cost"));
        let ours = cost(&answer);
        assert!(
            ours >= low - ROUNDING && ours <= high + ROUNDING,
            "{}: {ours} is not within {low}..{high}",
            case["name"]
        );
        // What pods ask of each other upstream heeds only at the moment of placing.
        let faults = checker::faults(&case, &answer, &by_name, false);
        assert!(faults.is_empty(), "{}: {faults:#?}", case["name"]);
    }
}

#[test]
fn packing_by_cost_is_near_the_bound_and_breaks_nothing() {
    let types = types();
    let by_name: BTreeMap<String, InstanceType> =
        types.iter().map(|machine| (machine.name.to_string(), machine.clone())).collect();
    let small: Vec<Value> = cases().into_iter().filter(|case| pods(case) <= 1_000).collect();
    let mut ratios = 0.0;
    for case in &small {
        let answer = answer(case, &types, Packing::default());
        assert_eq!(answer["unplaced"], json!({}), "{}", case["name"]);
        let faults = checker::faults(case, &answer, &by_name, true);
        assert!(faults.is_empty(), "{}: {faults:#?}", case["name"]);
        let (ours, most) = (cost(&answer), case["upstream_usd"][0].as_f64().expect("a cost"));
        assert!(ours <= most + ROUNDING, "{}: {ours} is more than {most}", case["name"]);
        let bound = case["bound_usd"].as_f64().expect("a bound");
        assert!(ours >= bound - ROUNDING, "{}: {ours} is less than {bound}", case["name"]);
        assert!(ours <= bound * 1.05, "{}: {ours} is far from {bound}", case["name"]);
        ratios += ours / bound;
    }
    let mean = ratios / small.len() as f64;
    assert!(mean <= 1.02, "{mean} times the bound");
}

#[test]
fn one_input_has_one_plan() {
    let types = types();
    let case = &cases()[0];
    let once = answer(case, &types, Packing::default());
    assert_eq!(answer(case, &types, Packing::default()), once);
}

#[test]
fn who_asks_for_more_machines_gets_them() {
    let types = types();
    let case = &cases()[0];
    let machines = |share_percent| {
        let answer = answer(case, &types, Packing::Cost { share_percent });
        answer["machines"].as_array().expect("machines").len()
    };
    let spread = machines(5);
    assert!(spread >= 20 && spread > machines(100), "{spread}");
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let types = types();
    let by_name: BTreeMap<String, InstanceType> =
        types.iter().map(|machine| (machine.name.to_string(), machine.clone())).collect();
    let find = |name: &str| cases().into_iter().find(|case| case["name"] == name).expect("known");
    let apart = find("anti-affinity-100");
    let good = answer(&apart, &types, Packing::default());
    let faults = |answer: &Value| checker::faults(&apart, answer, &by_name, true);
    assert!(faults(&good).is_empty());
    let mut lost = good.clone();
    lost["machines"].as_array_mut().expect("machines").pop();
    assert!(!faults(&lost).is_empty(), "a machine less");
    let mut small = good.clone();
    small["machines"][0]["type"] = json!("c7a.medium");
    assert!(!faults(&small).is_empty(), "a machine too small");
    let mut together = good.clone();
    let (name, _) = together["machines"][0]["pods"]
        .as_object()
        .expect("pods")
        .iter()
        .next()
        .map(|(name, count)| (name.clone(), count.clone()))
        .expect("a pod");
    together["machines"][0]["pods"][&name] = json!(2);
    let found = faults(&together).join("\n");
    assert!(found.contains("anti_affinity"), "{found}");
}
