//! Fields that the API writes though nothing is set in them: upstream's Go types hold them by value
//! and their `omitempty` leaves no structs out, so clients see `null` or `{}` and some rely on it
//! (`kubectl get event -o yaml` shows `firstTimestamp: null` of an Event with an `eventTime`).

use std::any::Any;

use k8s_openapi::api::core::v1::Event;

/// The object with such structs and texts filled in, if it lacks any of them. For a type without such
/// fields nothing of this is left when it is compiled.
pub(crate) fn filled_in(object: &dyn Any) -> Option<Event> {
    let event = object.downcast_ref::<Event>()?;
    let is_whole = event.source.is_some()
        && event.reporting_component.is_some()
        && event.reporting_instance.is_some();
    if is_whole {
        return None;
    }
    let mut event = event.clone();
    event.source.get_or_insert_default();
    event.reporting_component.get_or_insert_default();
    event.reporting_instance.get_or_insert_default();
    Some(event)
}

/// Adds the times that an object's encoder has left out; `json` ends with the object's JSON.
pub(crate) fn append_to(json: &mut Vec<u8>, object: &dyn Any) {
    let Some(event) = object.downcast_ref::<Event>() else { return };
    let fields = [
        (event.event_time.is_none(), &br#","eventTime":null"#[..]),
        (event.first_timestamp.is_none(), br#","firstTimestamp":null"#),
        (event.last_timestamp.is_none(), br#","lastTimestamp":null"#),
    ];
    let end = json.pop();
    debug_assert_eq!(end, Some(b'}'), "an Event is an object and never empty");
    for (_, text) in fields.iter().filter(|(is_unset, _)| *is_unset) {
        json.extend_from_slice(text);
    }
    json.push(b'}');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::kinds::Kind;
    use crate::object::Object;

    use super::*;

    fn shown(event: Value) -> Value {
        let event: Event = serde_json::from_value(event).expect("an Event");
        let object = Object::from_typed(Box::new(event.clone()), 1);
        let again = Object::from_json(Kind::of::<Event>(), object.json().clone(), 1)
            .expect("its own JSON decodes");
        let read = Event { metadata: event.metadata.clone(), ..again.draft().expect("an Event") };
        let unset = |text: Option<String>| text.unwrap_or_default();
        assert_eq!(read.first_timestamp, event.first_timestamp, "the same is read back");
        assert_eq!(unset(read.reporting_instance), unset(event.reporting_instance));
        serde_json::from_slice(object.json()).expect("JSON")
    }

    #[test]
    fn an_event_shows_its_times_whether_they_are_set_or_not() {
        let series = shown(json!({
            "metadata": {"name": "e"}, "involvedObject": {}, "reportingComponent": "default-scheduler",
            "reportingInstance": "default-scheduler-wharf", "eventTime": "2026-01-01T00:00:00.000001Z"
        }));
        assert_eq!(series["eventTime"], "2026-01-01T00:00:00.000001Z");
        assert_eq!(series["reportingComponent"], "default-scheduler");
        let object = series.as_object().expect("an object");
        for field in ["firstTimestamp", "lastTimestamp"] {
            assert_eq!(object.get(field), Some(&Value::Null), "{field}");
        }
        assert_eq!(series["source"], json!({}));
        assert!(!object.contains_key("count") && !object.contains_key("series"));

        let counted = shown(json!({
            "metadata": {"name": "e"}, "involvedObject": {}, "count": 2,
            "source": {"component": "kubelet"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:01Z"
        }));
        assert_eq!(counted.get("eventTime"), Some(&Value::Null));
        assert_eq!(counted["lastTimestamp"], "2026-01-01T00:00:01Z");
        assert_eq!(counted["source"], json!({"component": "kubelet"}));
        assert_eq!(counted["reportingComponent"], "");
    }
}
