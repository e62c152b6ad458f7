//! Agreement with upstream's controller on recorded histories. See `vectors/README.md`.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;
use wharf_autoscale::hpa::cases::Case;

#[test]
fn every_pass_agrees() {
    let mut text = String::new();
    GzDecoder::new(&include_bytes!("vectors/hpa-kubernetes-1.36.jsonl.gz")[..])
        .read_to_string(&mut text)
        .unwrap();
    let mut passes = 0;
    for line in text.lines() {
        let mut case: Value = serde_json::from_str(line).unwrap();
        let expect = case["expect"].take();
        let case: Case = serde_json::from_value(case).unwrap();
        let id = case.id.clone();
        for (index, answer) in case.run().iter().enumerate() {
            let mine = serde_json::to_value(answer).unwrap();
            let theirs = &expect["steps"][index];
            for field in ["scale", "status", "statusWritten", "events"] {
                assert_eq!(plain(&mine[field]), plain(&theirs[field]), "{id} pass {index} {field}");
            }
            passes += 1;
        }
    }
    assert!(passes > 1000, "only {passes} passes compared");
}

/// Without fields that say nothing: absent, null, an empty list and no replicas are alike.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, value)| {
                !(value.is_null()
                    || (*key == "currentReplicas" && **value == 0)
                    || value.as_array().is_some_and(Vec::is_empty))
            })
            .map(|(key, value)| (key.clone(), plain(value)))
            .collect(),
        Value::Array(list) => list.iter().map(plain).collect(),
        other => other.clone(),
    }
}
