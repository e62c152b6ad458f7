//! What the registry does to objects, seen from outside: JSON in, the stored JSON or the refusal
//! out.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod admission;
mod autoscaler;
mod autoscaling;
mod batch;
mod certificates;
mod deletion;
mod embedded;
mod events;
mod eviction;
mod fargate;
mod limit_ranges;
mod nodegroup;
mod properties;
mod resize;
mod sets;
mod storage;
mod updates;
mod validation;

use std::sync::Arc;

use serde_json::{Value, json};
use wharf_model::kinds::{Kind, built_in};
use wharf_model::object::{Object, ObjectKey, Typed};
use wharf_model::time::Time;
use wharf_ports::clock::VirtualClock;
use wharf_ports::cluster::{Delete, Part, Propagation};
use wharf_ports::error::ApiError;
use wharf_registry::{Deleted, Registry, WriteOptions};
use wharf_store::Store;

/// A cluster in memory that has been bootstrapped, with a clock that stands still.
pub(crate) struct Cluster {
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Arc<VirtualClock>,
}

/// 2026-11-21T10:00:00Z.
pub(crate) const START: Time = Time::from_seconds(1_795_255_200);

impl Cluster {
    pub(crate) fn new() -> Self {
        Self::with_gates(Default::default())
    }

    pub(crate) fn with_gates(gates: wharf_model::gates::FeatureGates) -> Self {
        let clock = Arc::new(VirtualClock::starting_at(START));
        let registry = Registry::new(Store::ephemeral(), clock.clone(), 1).with_gates(gates);
        let registry = Arc::new(registry);
        registry.bootstrap().expect("an empty store takes the first objects");
        Self { registry, clock }
    }

    pub(crate) fn create(&self, manifest: Value) -> Result<Value, ApiError> {
        self.create_with(
            manifest,
            &WriteOptions { namespace: "default".into(), ..Default::default() },
        )
    }

    pub(crate) fn create_with(
        &self,
        manifest: Value,
        options: &WriteOptions,
    ) -> Result<Value, ApiError> {
        self.registry.create(typed(&manifest), options).map(|object| json_of(&object))
    }

    pub(crate) fn update(&self, manifest: Value, part: Part) -> Result<Value, ApiError> {
        let options = WriteOptions { namespace: "default".into(), ..Default::default() };
        self.registry.update(typed(&manifest), part, &options).map(|object| json_of(&object))
    }

    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let kind = kind_of(kind);
        self.registry.store().get(kind, &key(kind, name)).map(|object| json_of(&object))
    }

    pub(crate) fn delete(&self, kind: &str, name: &str) -> Result<Deleted, ApiError> {
        self.registry.delete(&deletion(kind, name), &WriteOptions::default())
    }
}

pub(crate) fn deletion(kind: &str, name: &str) -> Delete {
    let kind = kind_of(kind);
    Delete {
        kind,
        key: key(kind, name),
        uid: None,
        revision: None,
        grace_seconds: None,
        propagation: Propagation::Background,
    }
}

pub(crate) fn kind_of(name: &str) -> Kind {
    *built_in().iter().find(|kind| kind.kind == name).expect("a known kind")
}

pub(crate) fn key(kind: Kind, name: &str) -> ObjectKey {
    if kind.namespaced { ObjectKey::namespaced("default", name) } else { ObjectKey::cluster(name) }
}

pub(crate) fn typed(manifest: &Value) -> Box<dyn Typed> {
    let kind = kind_of(manifest["kind"].as_str().expect("a manifest names its kind"));
    (kind.decode)(manifest.to_string().as_bytes()).expect("a manifest that decodes")
}

pub(crate) fn json_of(object: &Object) -> Value {
    serde_json::from_slice(object.json()).expect("stored JSON")
}

/// `manifest` with the value at a path replaced; null takes it away.
pub(crate) fn with(mut manifest: Value, path: &str, value: Value) -> Value {
    let mut place = &mut manifest;
    for part in path.split('.') {
        place = match part.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[part],
        };
    }
    *place = value;
    manifest
}

pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}})
}

pub(crate) fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}})
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

#[test]
fn a_registry_is_shared_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Registry>();
}
