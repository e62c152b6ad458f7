//! Nodes: <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/node-v1/>.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use wharf_model::names;
use wharf_model::quantity::canonicalize_list;
use wharf_ports::cluster::Part;

use super::Rules;
use crate::field::{Errors, Json, Path};

/// Upstream's text for everything in a node's spec that a user cannot change.
const FIELDS_THAT_MAY_CHANGE: &str = "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)";

impl Rules for Node {
    const LABELS_WITH_STATUS: bool = true;

    fn set_defaults(&mut self) {
        self.spec.get_or_insert_default();
        drop_empty_taints(self);
        let Some(status) = &mut self.status else { return };
        // A kubelet that says nothing of what pods may use leaves them everything.
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
        status.capacity.iter_mut().for_each(canonicalize_list);
        status.allocatable.iter_mut().for_each(canonicalize_list);
    }

    /// A kubelet's amounts come with its status.
    fn prepare_update(&mut self, _old: &Self, part: Part) {
        if part == Part::Status {
            self.set_defaults();
        }
        drop_empty_taints(self);
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = Path::root("spec");
        let path = spec.child("taints");
        let mut seen = BTreeSet::new();
        let taints = self.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        for (index, taint) in taints.into_iter().flatten().enumerate() {
            let path = path.index(index);
            errors.invalid_each(&path.child("key"), &taint.key, names::qualified_name(&taint.key));
            if let Some(value) = &taint.value {
                errors.invalid_each(&path.child("value"), value, names::label_value(value));
            }
            match taint.effect.as_str() {
                "NoSchedule" | "PreferNoSchedule" | "NoExecute" => {}
                "" => errors.required(&path.child("effect"), ""),
                other => errors.not_supported(
                    &path.child("effect"),
                    other,
                    &["NoSchedule", "PreferNoSchedule", "NoExecute"],
                ),
            }
            if !seen.insert((&taint.key, &taint.effect)) {
                errors.duplicate(&path, &Json(taint));
            }
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        let new = self.spec.clone().unwrap_or_default();
        let old = old.spec.clone().unwrap_or_default();
        let spec = Path::root("spec");
        // What the cloud says of a node is said once.
        let id = old.provider_id.as_deref().unwrap_or_default();
        if !id.is_empty() && new.provider_id.as_deref() != Some(id) {
            errors.forbidden(&spec.child("providerID"), FIELDS_THAT_MAY_CHANGE);
        }
        let ranges = old.pod_cidrs.as_deref().unwrap_or_default();
        if !ranges.is_empty() && new.pod_cidrs.as_deref() != Some(ranges) {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.forbidden(&spec.child("podCIDRs"), detail);
        }
    }
}

/// A list that has become empty is not sent, as everywhere in the API.
fn drop_empty_taints(node: &mut Node) {
    let Some(spec) = &mut node.spec else { return };
    if spec.taints.as_ref().is_some_and(Vec::is_empty) {
        spec.taints = None;
    }
}
