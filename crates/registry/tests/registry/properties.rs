//! Invariants that hold whatever is asked, in whatever order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use wharf_ports::cluster::{Part, Propagation};
use wharf_registry::WriteOptions;

use crate::{Cluster, config_map, deletion, deployment, key, kind_of, pod, with};

#[derive(Clone, Debug)]
enum Step {
    Create { kind: usize, name: usize, finalizer: bool },
    Spec { kind: usize, name: usize, value: u8, versioned: bool },
    Status { kind: usize, name: usize, value: u8 },
    Repeat { kind: usize, name: usize },
    Unhold { kind: usize, name: usize },
    Delete { kind: usize, name: usize, grace: Option<i64>, foreground: bool },
    Bind { name: usize },
}

const KINDS: [&str; 3] = ["Pod", "Deployment", "ConfigMap"];
const NAMES: [&str; 2] = ["a", "b"];

fn step() -> impl Strategy<Value = Step> {
    let (kind, name) = (0..KINDS.len(), 0..NAMES.len());
    let both = (kind, name);
    prop_oneof![
        (both.clone(), any::<bool>()).prop_map(|((kind, name), finalizer)| Step::Create {
            kind,
            name,
            finalizer
        }),
        (both.clone(), 0..3u8, any::<bool>()).prop_map(|((kind, name), value, versioned)| {
            Step::Spec { kind, name, value, versioned }
        }),
        (both.clone(), 0..3u8).prop_map(|((kind, name), value)| Step::Status { kind, name, value }),
        both.clone().prop_map(|(kind, name)| Step::Repeat { kind, name }),
        both.clone().prop_map(|(kind, name)| Step::Unhold { kind, name }),
        (both, proptest::option::of(0..40i64), any::<bool>()).prop_map(
            |((kind, name), grace, foreground)| Step::Delete { kind, name, grace, foreground }
        ),
        (0..NAMES.len()).prop_map(|name| Step::Bind { name }),
    ]
}

fn manifest(kind: &str, name: &str) -> Value {
    match kind {
        "Pod" => pod(name),
        "Deployment" => deployment(name),
        _ => config_map(name),
    }
}

/// Carries out a step; refusals are part of the game.
fn run(cluster: &Cluster, step: &Step) {
    let stored = |kind: usize, name: usize| cluster.get(KINDS[kind], NAMES[name]);
    match step {
        Step::Create { kind, name, finalizer } => {
            let mut object = manifest(KINDS[*kind], NAMES[*name]);
            if *finalizer {
                object["metadata"]["finalizers"] = json!(["a.b/c"]);
            }
            let _ = cluster.create(object);
        }
        Step::Spec { kind, name, value, versioned } => {
            let Some(object) = stored(*kind, *name) else { return };
            let object = match KINDS[*kind] {
                "Pod" => with(object, "spec.containers.0.image", json!(format!("i:{value}"))),
                "Deployment" => with(object, "spec.replicas", json!(value)),
                _ => with(object, "data.k", json!(value.to_string())),
            };
            let version = object["metadata"]["resourceVersion"].clone();
            let version = if *versioned { version } else { Value::Null };
            let changed = with(object, "metadata.resourceVersion", version);
            cluster.update(changed, Part::Main).expect("a valid change of what is stored");
        }
        Step::Status { kind, name, value } => {
            let Some(object) = stored(*kind, *name) else { return };
            let object = match KINDS[*kind] {
                "Pod" => with(object, "status.message", json!(value.to_string())),
                "Deployment" => with(object, "status.replicas", json!(value)),
                _ => return,
            };
            cluster.update(object, Part::Status).expect("a valid change of what is stored");
        }
        Step::Repeat { kind, name } => {
            let Some(object) = stored(*kind, *name) else { return };
            let revision = cluster.registry.store().revision();
            assert_eq!(cluster.update(object.clone(), Part::Main).unwrap(), object);
            assert_eq!(cluster.update(object.clone(), Part::Status).unwrap(), object);
            assert_eq!(cluster.registry.store().revision(), revision, "a no-op wrote something");
        }
        Step::Unhold { kind, name } => {
            let Some(object) = stored(*kind, *name) else { return };
            let free = with(object, "metadata.finalizers", json!([]));
            cluster.update(free, Part::Main).expect("finalizers may go");
        }
        Step::Delete { kind, name, grace, foreground } => {
            let mut delete = deletion(KINDS[*kind], NAMES[*name]);
            delete.grace_seconds = *grace;
            if *foreground {
                delete.propagation = Propagation::Foreground;
            }
            let before = stored(*kind, *name);
            if let Ok(deleted) = cluster.registry.delete(&delete, &WriteOptions::default()) {
                let held = before.is_some_and(|object| {
                    object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
                });
                assert!(!(held && deleted.gone), "a finalizer did not hold");
                assert_eq!(deleted.gone, stored(*kind, *name).is_none());
            }
        }
        Step::Bind { name } => {
            let key = key(kind_of("Pod"), NAMES[*name]);
            let _ = cluster.registry.bind(&key, None, "n", &WriteOptions::default());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn versions_of_an_object_fit_together(steps in proptest::collection::vec(step(), 1..40)) {
        let cluster = Cluster::new();
        let mut last: BTreeMap<(&str, &str), Value> = BTreeMap::new();
        let mut uids = std::collections::BTreeSet::new();
        for step in &steps {
            run(&cluster, step);
            for kind in KINDS {
                for name in NAMES {
                    let now = cluster.get(kind, name);
                    let before = last.remove(&(kind, name));
                    let Some(now) = now else { continue };
                    let meta = now["metadata"].clone();
                    match &before {
                        Some(before) if before["metadata"]["uid"] == meta["uid"] => {
                            let before = &before["metadata"];
                            prop_assert!(meta["generation"].as_i64() >= before["generation"].as_i64());
                            prop_assert_eq!(&meta["creationTimestamp"], &before["creationTimestamp"]);
                            prop_assert!(before.get("deletionTimestamp").is_none() || meta.get("deletionTimestamp").is_some());
                        }
                        _ => prop_assert!(uids.insert(meta["uid"].to_string()), "a uid was given twice"),
                    }
                    // Whatever is being deleted is held by something.
                    if meta.get("deletionTimestamp").is_some() {
                        let held = meta["finalizers"].as_array().is_some_and(|list| !list.is_empty());
                        let graceful = meta["deletionGracePeriodSeconds"].as_i64() > Some(0);
                        prop_assert!(held || graceful, "{now}");
                    }
                    last.insert((kind, name), now);
                }
            }
        }
    }
}
