//! Events in the form of `events.k8s.io/v1`. Both forms are one stored object; only the names of
//! fields differ.

use bytes::Bytes;
use serde_json::{Map, Value};

/// The fields whose names differ: the core name, then that of `events.k8s.io/v1`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// The fields that are always there in the stored form, and here only if something is in them.
const OMITTED_WHEN_EMPTY: [&str; 2] = ["reportingController", "reportingInstance"];

const API_VERSION: &str = "events.k8s.io/v1";

/// A stored event's JSON as `events.k8s.io/v1`; JSON that is no object stays as it is.
pub(crate) fn from_stored(json: &Bytes) -> Bytes {
    match serde_json::from_slice::<Value>(json) {
        Ok(Value::Object(event)) => {
            let mut shown = rename(event, API_VERSION, |(core, new)| (core, new));
            for field in OMITTED_WHEN_EMPTY {
                if shown.get(field).is_some_and(|value| value == "") {
                    shown.remove(field);
                }
            }
            reorder(Value::Object(shown)).into()
        }
        _ => json.clone(),
    }
}

/// An event's JSON of `events.k8s.io/v1` in the stored form. An event that says it is of another
/// version is left for the decoder to refuse.
pub(crate) fn to_stored(json: Bytes) -> Bytes {
    match serde_json::from_slice::<Value>(&json) {
        Ok(value) if value.is_object() => value_to_stored(value).to_string().into(),
        _ => json,
    }
}

/// The same for a value.
pub(crate) fn value_to_stored(value: Value) -> Value {
    match value {
        Value::Object(event)
            if event.get("apiVersion").is_none_or(|version| version == API_VERSION) =>
        {
            Value::Object(rename(event, "v1", |(core, new)| (new, core)))
        }
        other => other,
    }
}

fn rename(
    event: Map<String, Value>,
    api_version: &str,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Map<String, Value> {
    let mut out: Map<String, Value> = event
        .into_iter()
        .map(|(field, value)| {
            let new = NAMES.iter().map(|pair| direction(*pair)).find(|(from, _)| *from == field);
            (new.map_or(field, |(_, to)| to.to_owned()), value)
        })
        .collect();
    out.insert("apiVersion".to_owned(), api_version.into());
    out
}

/// Writes `apiVersion` and `kind` first, as all stored objects have them.
fn reorder(value: Value) -> String {
    let Value::Object(mut event) = value else { return value.to_string() };
    event.remove("apiVersion");
    event.remove("kind");
    let rest = Value::Object(event).to_string();
    format!("{{\"apiVersion\":\"{API_VERSION}\",\"kind\":\"Event\",{}", &rest[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_the_round_trip() {
        let stored = serde_json::json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"},
            "involvedObject": {"name": "p"}, "message": "m", "reason": "r", "type": "Normal",
            "source": {"component": "c"}, "count": 2, "reportingComponent": "x",
            "firstTimestamp": null, "lastTimestamp": "t", "action": "Bind", "eventTime": null
        });
        let shown = from_stored(&stored.to_string().into());
        let value: Value = serde_json::from_slice(&shown).expect("JSON");
        assert_eq!(value["note"], "m");
        assert_eq!(value["regarding"]["name"], "p");
        assert_eq!(value["deprecatedCount"], 2);
        assert_eq!(value["reportingController"], "x");
        assert!(value.get("message").is_none());
        for field in ["deprecatedFirstTimestamp", "eventTime"] {
            assert_eq!(value.get(field), Some(&Value::Null), "{field} is there without a value");
        }
        assert!(shown.starts_with(br#"{"apiVersion":"events.k8s.io/v1","kind":"Event","#));
        let back: Value = serde_json::from_slice(&to_stored(shown)).expect("JSON");
        assert_eq!(back, stored);
    }
    #[test]
    fn a_reporter_without_a_name_is_left_out() {
        let stored = r#"{"apiVersion":"v1","kind":"Event","metadata":{},"reportingComponent":"","reportingInstance":""}"#;
        let shown = from_stored(&Bytes::from_static(stored.as_bytes()));
        assert_eq!(
            &shown[..],
            br#"{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{}}"#
        );
    }
}
