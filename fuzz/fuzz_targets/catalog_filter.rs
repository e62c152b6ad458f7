#![no_main]

#[path = "../properties/cloud.rs"]
#[allow(dead_code)]
mod cloud;

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloud::catalog_filter(data));
