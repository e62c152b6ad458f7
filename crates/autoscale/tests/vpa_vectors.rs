//! Agreement with upstream's recommender on recorded histories. See `vectors/README.md`.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;
use wharf_autoscale::vpa::cases::Case;

#[test]
fn every_recommendation_agrees() {
    let mut text = String::new();
    GzDecoder::new(&include_bytes!("vectors/vpa-1.7.jsonl.gz")[..])
        .read_to_string(&mut text)
        .unwrap();
    let mut compared = 0;
    for line in text.lines() {
        let mut case: Value = serde_json::from_str(line).unwrap();
        let expect = case["expect"].take();
        let case: Case = serde_json::from_value(case).unwrap();
        let id = case.id.clone();
        let answers = case.run();
        let expected = expect["results"].as_array().unwrap();
        assert_eq!(answers.len(), expected.len(), "{id}");
        for (answer, theirs) in answers.iter().zip(expected) {
            let mine = serde_json::to_value(answer).unwrap();
            agree(&mine, theirs, &format!("{id} event {}", answer.event));
            compared += 1;
        }
    }
    assert!(compared > 400, "only {compared} answers compared");
}

/// Equal but for fields that are null, and the last digits of sums whose order is not fixed.
fn agree(mine: &Value, theirs: &Value, at: &str) {
    match (mine, theirs) {
        (Value::Object(mine), Value::Object(theirs)) => {
            for key in mine.keys().chain(theirs.keys()) {
                let field = |map: &serde_json::Map<_, _>| map.get(key).cloned().unwrap_or_default();
                agree(&field(mine), &field(theirs), &format!("{at} {key}"));
            }
        }
        (Value::Array(mine), Value::Array(theirs)) => {
            assert_eq!(mine.len(), theirs.len(), "{at}");
            for (index, (mine, theirs)) in mine.iter().zip(theirs).enumerate() {
                agree(mine, theirs, &format!("{at} {index}"));
            }
        }
        _ if at.ends_with("totalWeight") => {
            let (mine, theirs) = (mine.as_f64().unwrap(), theirs.as_f64().unwrap());
            assert!((mine - theirs).abs() <= theirs * 1e-9, "{at}: {mine} {theirs}");
        }
        _ => assert_eq!(mine, theirs, "{at}"),
    }
}
