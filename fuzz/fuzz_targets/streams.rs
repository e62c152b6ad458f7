#![no_main]

#[path = "../properties/server.rs"]
#[allow(dead_code)]
mod server;

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::streams(data));
