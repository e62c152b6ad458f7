#![no_main]

#[path = "../properties/provision.rs"]
#[allow(dead_code)]
mod provision;

libfuzzer_sys::fuzz_target!(|data: &[u8]| provision::cron(data));
