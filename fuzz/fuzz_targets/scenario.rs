#![no_main]

#[path = "../properties/sim.rs"]
#[allow(dead_code)]
mod sim;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sim::scenario(data));
