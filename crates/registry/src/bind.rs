//! The `pods/binding` subresource: a pod gets its node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_ports::error::ApiError;

use crate::strategy::{self, pod};
use crate::{Registry, WriteOptions};

/// The labels of a node that its pods get (`PodTopologyLabels` admission, KEP-4742).
const TOPOLOGY_LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

impl Registry {
    /// Binds a pod to a node, with the condition PodScheduled and the node's topology labels.
    ///
    /// # Errors
    /// Conflict if the pod has a node already, is being deleted, is gated, or is another pod than
    /// the one with `uid`.
    pub fn bind(
        &self,
        key: &ObjectKey,
        uid: Option<&str>,
        node: &str,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, ApiError> {
        let kind = Kind::of::<Pod>();
        let holder = self.store.get(Kind::of::<Node>(), &ObjectKey::cluster(node));
        let label = |key| Some((key, holder.as_ref()?.header().label(key)?.to_owned()));
        let topology: Vec<(&str, String)> = TOPOLOGY_LABELS.into_iter().filter_map(label).collect();
        let now = self.now();
        self.change(kind, key, options.dry_run, &|object| {
            let bound = strategy::typed_mut::<Pod>(object);
            refuse_binding(bound, uid)?;
            let generation = bound.metadata.generation;
            bound.spec.get_or_insert_default().node_name = Some(node.to_owned());
            if !topology.is_empty() {
                let labels = bound.metadata.labels.get_or_insert_default();
                let copies = topology.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
                labels.extend(copies);
            }
            let status = bound.status.get_or_insert_default();
            // What was hoped for is settled (KEP-5278).
            status.nominated_node_name = None;
            let condition = pod::condition("PodScheduled", true, generation);
            pod::set_condition(status, condition, now);
            Ok(())
        })
    }
}

fn refuse_binding(bound: &Pod, uid: Option<&str>) -> Result<(), ApiError> {
    let name = bound.metadata.name.as_deref().unwrap_or_default();
    let stored = bound.metadata.uid.as_deref().unwrap_or_default();
    let spec = bound.spec.as_ref();
    let why = if let Some(uid) = uid.filter(|uid| !uid.is_empty() && *uid != stored) {
        format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}")
    } else if bound.metadata.deletion_timestamp.is_some() {
        format!("pod {name} is being deleted, cannot be assigned to a host")
    } else if let Some(node) = pod::node_name(bound) {
        format!("pod {name} is already assigned to node \"{node}\"")
    } else if spec.and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|g| !g.is_empty()) {
        format!("pod {name} has non-empty .spec.schedulingGates")
    } else {
        return Ok(());
    };
    let mut refusal = ApiError::conflict(Kind::of::<Pod>(), name, &why);
    // Upstream names the subresource.
    refusal.message = format!("Operation cannot be fulfilled on pods/binding \"{name}\": {why}");
    refusal.kind = "pods/binding".to_owned();
    Err(refusal)
}
