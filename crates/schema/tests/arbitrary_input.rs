//! Whatever a user writes: the fuzzers' properties on their seeds and on edited seeds.

use serde_json::json;
use wharf_model::kinds::Kind;
use wharf_schema::patch::{PatchType, apply};

#[path = "../../../fuzz/properties/schema.rs"]
mod properties;
#[path = "../../../fuzz/properties/replay.rs"]
mod replay;

#[test]
fn manifest_yaml() {
    replay::check("manifest_yaml", 400, properties::manifest_yaml);
}

#[test]
fn json_body() {
    replay::check("json_body", 400, properties::json_body);
}

#[test]
fn json_patch() {
    replay::check("json_patch", 400, properties::json_patch);
}

#[test]
fn merge_patch() {
    replay::check("merge_patch", 400, properties::merge_patch);
}

#[test]
fn strategic_patch() {
    replay::check("strategic_patch", 400, properties::strategic_patch);
}

/// Lists as long as a request may hold; in time that grows with their square this takes minutes.
#[test]
fn long_lists_are_merged_in_time() {
    let kind = Kind::by_kind("", "Pod").expect("built in");
    let names = |range: std::ops::Range<u32>| range.map(|n| format!("example.org/{n}"));
    let items = |range| names(range).map(|name| json!({"name": name})).collect::<Vec<_>>();
    let pod = |range: std::ops::Range<u32>| {
        let finalizers: Vec<_> = names(range.clone()).collect();
        json!({
            "metadata": {"finalizers": finalizers, "$setElementOrder/finalizers": finalizers},
            "spec": {"containers": items(range.clone()), "$setElementOrder/containers": items(range)},
        })
    };
    let current = pod(0..20_000);
    let patch = pod(10_000..30_000).to_string();
    let patched = apply(kind, PatchType::StrategicMerge, &current, patch.as_bytes());
    let patched = patched.expect("it fits");
    assert_eq!(patched["spec"]["containers"].as_array().map(Vec::len), Some(30_000));
    assert_eq!(patched["metadata"]["finalizers"].as_array().map(Vec::len), Some(30_000));
}
