//! Whatever a client sends: the fuzzers' properties on their seeds and on edited seeds.

#[path = "../../../fuzz/properties/server.rs"]
mod properties;
#[path = "../../../fuzz/properties/replay.rs"]
mod replay;

#[test]
fn streams() {
    replay::check("streams", 200, properties::streams);
}
