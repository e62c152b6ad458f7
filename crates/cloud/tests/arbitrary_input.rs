//! Whatever a user writes: the fuzzers' properties on their seeds and on edited seeds.

#[path = "../../../fuzz/properties/cloud.rs"]
mod properties;
#[path = "../../../fuzz/properties/replay.rs"]
mod replay;

#[test]
fn catalog_filter() {
    replay::check("catalog_filter", 20, properties::catalog_filter);
}
