//! Whatever a user writes: the fuzzers' properties on their seeds and on edited seeds.

#[path = "../../../fuzz/properties/model.rs"]
mod properties;
#[path = "../../../fuzz/properties/replay.rs"]
mod replay;

#[test]
fn quantity() {
    replay::check("quantity", 600, properties::quantity);
}

#[test]
fn go_duration() {
    replay::check("go_duration", 600, properties::go_duration);
}

#[test]
fn label_selector() {
    replay::check("label_selector", 600, properties::label_selector);
}

#[test]
fn field_selector() {
    replay::check("field_selector", 600, properties::field_selector);
}

#[test]
fn requirements() {
    replay::check("requirements", 600, properties::requirements);
}
