//! Whatever a user writes: the fuzzers' properties on their seeds and on edited seeds.

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
