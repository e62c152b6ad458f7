//! Whatever a user writes: the fuzzers' properties on their seeds and on edited seeds.

#[path = "../../../fuzz/properties/sim.rs"]
mod properties;
#[path = "../../../fuzz/properties/replay.rs"]
mod replay;

#[test]
fn scenario() {
    replay::check("scenario", 300, properties::scenario);
}
