//! Whatever a user writes: the fuzzers' properties on their seeds and on edited seeds.

#[path = "../../../fuzz/properties/provision.rs"]
mod properties;
#[path = "../../../fuzz/properties/replay.rs"]
mod replay;

#[test]
fn cron() {
    replay::check("cron", 400, properties::cron);
}
