//! The world that is measured in: deployments with their sets and running pods.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wharf_model::object::{Object, ObjectKey, Typed};
use wharf_ports::cluster::Change;
use wharf_ports::controller::{Controller, Enqueue};
use wharf_ports::view::View;

use crate::failure::Failure;

/// Since when the pods run and are ready.
const STARTED: &str = "2026-01-01T00:00:00Z";
/// Namespaces over which the workloads are spread.
const NAMESPACES: u32 = 10;

/// A world in memory, with the revisions of its objects.
#[derive(Default)]
pub(super) struct World {
    pub(super) view: View,
    revision: u64,
}

impl World {
    /// `workloads` deployments, with `pods` running pods among them.
    pub(super) fn new(workloads: u32, pods: u32) -> Result<Self, Failure> {
        let mut world = Self::default();
        for index in 0..workloads {
            let (namespace, name) = (namespace(index), name(index));
            let selector = json!({"matchLabels": {"app": name}});
            let template = json!({"metadata": {"labels": {"app": name}}, "spec": containers()});
            world.add::<Deployment>(json!({
                "metadata": {"name": name, "namespace": namespace, "uid": format!("d-{index}")},
                "spec": {"replicas": 10, "selector": selector, "template": template},
            }))?;
            world.add::<ReplicaSet>(json!({
                "metadata": {"name": format!("{name}-5d4f"), "namespace": namespace,
                    "uid": format!("s-{index}"),
                    "ownerReferences": owner("Deployment", &name, &format!("d-{index}"))},
                "spec": {"replicas": 10, "selector": selector, "template": template},
            }))?;
        }
        for pod in 0..pods {
            let index = pod % workloads.max(1);
            let name = name(index);
            world.add::<Pod>(json!({
                "metadata": {"name": format!("{name}-5d4f-{pod}"), "namespace": namespace(index),
                    "uid": format!("p-{pod}"),
                    "labels": {"app": name, "pod-template-hash": "5d4f"},
                    "ownerReferences": owner("ReplicaSet", &format!("{name}-5d4f"), &format!("s-{index}"))},
                "spec": with_node(pod),
                "status": {"phase": "Running", "startTime": STARTED, "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": STARTED}]},
            }))?;
        }
        Ok(world)
    }

    /// Adds an object.
    pub(super) fn add<T: Typed + DeserializeOwned>(
        &mut self,
        object: Value,
    ) -> Result<(), Failure> {
        let object: T = serde_json::from_value(object).map_err(Failure::failed)?;
        self.put(Box::new(object));
        Ok(())
    }

    /// Puts an object, as a write that was carried out would.
    pub(super) fn put(&mut self, object: Box<dyn Typed>) {
        self.revision += 1;
        let key = ObjectKey::of(object.meta());
        let old = self.view.object(object.kind(), &key).cloned();
        let new = Some(Arc::new(Object::from_typed(object, self.revision)));
        self.view.apply(&Change { revision: self.revision, old, new });
    }

    /// Has a controller see every object, as at its start.
    pub(super) fn show_to(&self, controller: &mut dyn Controller) {
        let mut queue = Enqueue::default();
        controller.start(&mut queue);
        for kind in wharf_model::kinds::built_in() {
            for object in self.view.objects(*kind) {
                let (revision, new) = (object.revision(), Some(Arc::clone(object)));
                controller.observe(&Change { revision, old: None, new }, &self.view, &mut queue);
            }
        }
    }
}

/// The namespace of a workload.
pub(super) fn namespace(index: u32) -> String {
    format!("team-{}", index % NAMESPACES)
}

/// The name of a workload.
pub(super) fn name(index: u32) -> String {
    format!("web-{index:05}")
}

fn containers() -> Value {
    json!({"containers": [{"name": "app", "image": "i",
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}]})
}

fn with_node(pod: u32) -> Value {
    let mut spec = containers();
    spec["nodeName"] = format!("node-{}", pod % 1000).into();
    spec
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}])
}
