#![no_main]

#[path = "../properties/model.rs"]
#[allow(dead_code)]
mod model;

libfuzzer_sys::fuzz_target!(|data: &[u8]| model::requirements(data));
