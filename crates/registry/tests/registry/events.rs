//! Recorded Events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use wharf_ports::event::{EventRecord, EventType, Regarding};
use wharf_registry::Registry;

use crate::{Cluster, START, json_of, kind_of, pod};

fn said(cluster: &Cluster, message: &str) -> EventRecord {
    let object = cluster.registry.get(kind_of("Pod"), &crate::key(kind_of("Pod"), "p")).unwrap();
    EventRecord {
        regarding: Regarding::object(&object),
        related: None,
        kind: EventType::Normal,
        reason: "Scheduled".into(),
        action: "Binding".into(),
        message: message.into(),
        component: "default-scheduler".into(),
        host: String::new(),
        annotations: BTreeMap::new(),
    }
}

/// The same through the older interface.
fn older(record: EventRecord) -> EventRecord {
    EventRecord { action: String::new(), ..record }
}

#[test]
fn a_repeat_raises_the_count_until_it_expires() {
    let cluster = Cluster::new();
    let uid = cluster.create(pod("p")).unwrap()["metadata"]["uid"].clone();
    let record = older(said(&cluster, "hello"));
    let first = json_of(&cluster.registry.record(&record).unwrap());
    let name = first["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(name, format!("p.{:x}", START.as_nanos()));
    assert_eq!(
        first["involvedObject"],
        json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "default", "uid": uid})
    );
    assert_eq!(first["source"], json!({"component": "default-scheduler"}));
    assert_eq!(first["type"], "Normal");
    assert_eq!(first["eventTime"], json!(null));
    assert_eq!(first["count"], 1);

    cluster.clock.advance_to(START + Duration::from_secs(60));
    let again = json_of(&cluster.registry.record(&record).unwrap());
    assert_eq!((&again["metadata"]["name"], &again["count"]), (&json!(name), &json!(2)));
    assert_eq!(again["firstTimestamp"], "2026-11-21T10:00:00Z");
    assert_eq!(again["lastTimestamp"], "2026-11-21T10:01:00Z");
    let other = json_of(&cluster.registry.record(&older(said(&cluster, "other"))).unwrap());
    assert_ne!(other["metadata"]["name"], json!(name));

    // A restarted registry knows what was said.
    let registry =
        Registry::new(cluster.registry.store().clone(), Arc::clone(&cluster.clock) as _, 1);
    assert_eq!(json_of(&registry.record(&record).unwrap())["count"], 3);

    let later = START + Duration::from_secs(60 + 3_600);
    assert_eq!(cluster.registry.expired_events(later - Duration::from_secs(1)), []);
    assert_eq!(cluster.registry.expired_events(later).len(), 2);
    cluster.clock.advance_to(later);
    assert_eq!(json_of(&registry.record(&record).unwrap())["count"], 1);
}

#[test]
fn what_the_newer_interface_says_again_is_a_series() {
    let cluster = Cluster::new();
    cluster.create(pod("p")).unwrap();
    let record = said(&cluster, "hello");
    let first = json_of(&cluster.registry.record(&record).unwrap());
    assert_eq!(first["action"], "Binding");
    assert_eq!(first["eventTime"], "2026-11-21T10:00:00.000000Z");
    assert_eq!(first["reportingComponent"], "default-scheduler");
    assert_eq!(first["reportingInstance"], "default-scheduler-wharf");
    assert_eq!(first["source"], json!({}));
    for field in ["count", "firstTimestamp", "lastTimestamp", "series"] {
        assert_eq!(first[field], json!(null), "{field}");
    }
    let shown = |field: &str| first.as_object().is_some_and(|event| event.contains_key(field));
    assert!(
        shown("firstTimestamp") && shown("lastTimestamp"),
        "clients are told that they are not set"
    );
    assert!(!shown("count") && !shown("series"));
    for (seconds, count) in [(60, 2), (400, 3)] {
        cluster.clock.advance_to(START + Duration::from_secs(seconds));
        let again = json_of(&cluster.registry.record(&record).unwrap());
        assert_eq!(again["metadata"]["name"], first["metadata"]["name"]);
        assert_eq!(again["series"]["count"], count);
        assert_eq!(again["count"], json!(null));
    }
    // A restarted registry knows what was said; six minutes later the series is over.
    let registry =
        Registry::new(cluster.registry.store().clone(), Arc::clone(&cluster.clock) as _, 1);
    assert_eq!(json_of(&registry.record(&record).unwrap())["series"]["count"], 4);
    cluster.clock.advance_to(START + Duration::from_secs(760));
    let anew = json_of(&registry.record(&record).unwrap());
    assert_ne!(anew["metadata"]["name"], first["metadata"]["name"]);
    assert_eq!(anew["series"], json!(null));
}

#[test]
fn events_of_one_instant_have_names_of_their_own() {
    let cluster = Cluster::new();
    cluster.create(pod("p")).unwrap();
    for message in ["a", "b", "c"] {
        cluster.registry.record(&said(&cluster, message)).unwrap();
    }
    assert_eq!(cluster.registry.store().count(kind_of("Event")), 3);
}

#[test]
fn a_deleted_event_is_said_anew() {
    let cluster = Cluster::new();
    cluster.create(pod("p")).unwrap();
    let record = said(&cluster, "a");
    let first = cluster.registry.record(&record).unwrap();
    cluster.delete("Event", &first.key().name).unwrap();
    assert_eq!(json_of(&cluster.registry.record(&record).unwrap())["series"], json!(null));
}
