#![no_main]

#[path = "../properties/schema.rs"]
#[allow(dead_code)]
mod schema;

libfuzzer_sys::fuzz_target!(|data: &[u8]| schema::merge_patch(data));
