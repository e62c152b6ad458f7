//! The Cluster port over a registry.

use k8s_openapi::api::core::v1::Event;
use serde_json::json;
use wharf_ports::cluster::{Cluster as _, ClusterEvent, Delete, Part, Write, WriteId};
use wharf_ports::event::{EventRecord, EventType, Regarding};
use wharf_registry::EmbeddedCluster;

use crate::{Cluster, config_map, kind_of, typed, with};

fn placed(manifest: serde_json::Value) -> Box<dyn wharf_model::object::Typed> {
    typed(&with(manifest, "metadata.namespace", json!("default")))
}

#[test]
fn outcomes_follow_the_changes_they_made() {
    let cluster = Cluster::new();
    let (mut embedded, mut view) = EmbeddedCluster::new(cluster.registry.clone());
    assert_eq!(view.count(kind_of("Namespace")), 4);
    embedded.submit(WriteId(1), Write::Create(placed(config_map("m"))).into());
    embedded.submit(WriteId(2), Write::Create(placed(config_map("m"))).into());
    let mut events = Vec::new();
    embedded.poll(&view, &mut events);
    let [
        ClusterEvent::Changed(change),
        ClusterEvent::Outcome { id: WriteId(1), result: Ok(Some(made)) },
        ClusterEvent::Outcome { id: WriteId(2), result: Err(refusal) },
    ] = events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!(change.revision, made.revision());
    assert_eq!(refusal.message, r#"configmaps "m" already exists"#);
    assert!(view.apply(change));
    embedded.submit(WriteId(3), Write::Delete(Delete::of(made)).into());
    events.clear();
    embedded.poll(&view, &mut events);
    let [ClusterEvent::Changed(change), ClusterEvent::Outcome { result: Ok(None), .. }] =
        events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert!(change.new.is_none());
    events.clear();
    embedded.poll(&view, &mut events);
    assert!(events.is_empty());
}

#[test]
fn controllers_may_update_without_a_version() {
    let cluster = Cluster::new();
    let (mut embedded, view) = EmbeddedCluster::new(cluster.registry.clone());
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    embedded.submit(WriteId(1), Write::Create(placed(lease.clone())).into());
    let object = placed(with(lease, "spec.holderIdentity", json!("b")));
    embedded.submit(WriteId(2), Write::Update { object, part: Part::Main }.into());
    let mut events = Vec::new();
    embedded.poll(&view, &mut events);
    let refused =
        |event: &ClusterEvent| matches!(event, ClusterEvent::Outcome { result: Err(_), .. });
    assert!(!events.iter().any(refused), "{events:?}");
}

/// A reader that sleeps past the window of history still ends up with the world as it is.
#[test]
fn a_reader_that_falls_behind_catches_up() {
    let cluster = Cluster::new();
    let (mut embedded, mut view) = EmbeddedCluster::new(cluster.registry.clone());
    for name in ["a", "b", "c"] {
        cluster.create(config_map(name)).unwrap();
    }
    let mut events = Vec::new();
    embedded.poll(&view, &mut events);
    for event in events.drain(..) {
        if let ClusterEvent::Changed(change) = event {
            assert!(view.apply(&change));
        }
    }
    cluster.delete("ConfigMap", "a").unwrap();
    cluster.delete("ConfigMap", "b").unwrap();
    for turn in 0..9_000 {
        let changed = with(config_map("c"), "data.k", json!(turn.to_string()));
        cluster.update(changed, Part::Main).unwrap();
    }
    cluster.create(config_map("d")).unwrap();
    embedded.poll(&view, &mut events);
    for event in &events {
        if let ClusterEvent::Changed(change) = event {
            assert!(view.apply(change), "{change:?}");
        }
    }
    assert!(events.len() < 100, "it was told to list again");
    let names: Vec<_> =
        view.objects(kind_of("ConfigMap")).map(|o| o.key().name.to_string()).collect();
    assert_eq!(names, ["c", "d"]);
    assert_eq!(
        view.objects(kind_of("ConfigMap")).map(|o| o.revision()).collect::<Vec<_>>(),
        cluster
            .registry
            .store()
            .list(kind_of("ConfigMap"), None)
            .0
            .iter()
            .map(|o| o.revision())
            .collect::<Vec<_>>()
    );
}

/// What is said is recorded once it is handed over, in order, and counted as ever.
#[test]
fn events_can_be_recorded_beside_the_reader() {
    let cluster = Cluster::new();
    cluster.create(config_map("m")).unwrap();
    let (about, _) = cluster.registry.store().list(kind_of("ConfigMap"), None);
    let (mut embedded, view) = EmbeddedCluster::new(cluster.registry.clone());
    embedded.record_beside().unwrap();
    let say = |reason: &str| {
        Write::Record(EventRecord {
            regarding: Regarding::object(&about[0]),
            related: None,
            kind: EventType::Normal,
            reason: reason.to_owned(),
            action: String::new(),
            message: "said".to_owned(),
            component: "test".to_owned(),
            host: String::new(),
            annotations: Default::default(),
        })
    };
    // More than may wait: nothing is lost.
    for turn in 0..10_000_u64 {
        embedded.submit(WriteId(turn), say(["A", "B"][turn as usize % 2]).into());
    }
    embedded.settle_events();
    let mut events = Vec::new();
    embedded.poll(&view, &mut events);
    let outcomes =
        events.iter().filter(|event| matches!(event, ClusterEvent::Outcome { result: Ok(_), .. }));
    assert_eq!(outcomes.count(), 10_000);
    let (recorded, _) = cluster.registry.store().list(kind_of("Event"), None);
    let mut counts: Vec<_> = recorded
        .iter()
        .map(|event| {
            let event = event.typed::<Event>().unwrap();
            (event.reason.clone().unwrap(), event.count.unwrap())
        })
        .collect();
    counts.sort();
    assert_eq!(counts, [("A".to_owned(), 5_000), ("B".to_owned(), 5_000)]);
    // What was said last is recorded even if nobody waits for it.
    embedded.submit(WriteId(0), say("C").into());
    drop(embedded);
    assert_eq!(cluster.registry.store().count(kind_of("Event")), 3);
}
