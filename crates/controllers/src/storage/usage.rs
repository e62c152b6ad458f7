//! Which claims a pod uses, and which pods use a claim.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Volume};
use rustc_hash::FxHashMap;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::storage::claim_name;
use wharf_ports::cluster::Change;
use wharf_ports::view::View;

/// The claims of a pod.
pub(super) fn claims(pod: &Object) -> Vec<ObjectKey> {
    let key = pod.key();
    let spec = pod.typed::<Pod>().and_then(|pod| pod.spec.as_ref());
    volumes(spec)
        .filter_map(|volume| claim_name(&key.name, volume))
        .map(|name| ObjectKey::namespaced(&key.namespace, name))
        .collect()
}

/// The pods that use each claim. What a pod uses never changes.
#[derive(Debug, Default)]
pub(super) struct Users(FxHashMap<ObjectKey, BTreeSet<ObjectKey>>);

impl Users {
    /// Takes in a change of a pod.
    pub(super) fn observe(&mut self, change: &Change) {
        if change.kind() != Kind::of::<Pod>() {
            return;
        }
        for claim in claims(change.object()) {
            if change.new.is_some() {
                self.0.entry(claim).or_default().insert(change.key().clone());
            } else if let Some(pods) = self.0.get_mut(&claim) {
                pods.remove(change.key());
                if pods.is_empty() {
                    self.0.remove(&claim);
                }
            }
        }
    }

    /// The pods that use a claim, in the order of their names.
    pub(super) fn of<'v>(
        &self,
        claim: &ObjectKey,
        view: &'v View,
    ) -> impl Iterator<Item = (&'v Object, &'v Pod)> {
        self.0.get(claim).into_iter().flatten().filter_map(|key| {
            let object = view.object(Kind::of::<Pod>(), key)?;
            Some((object.as_ref(), object.typed::<Pod>()?))
        })
    }
}

fn volumes(spec: Option<&PodSpec>) -> impl Iterator<Item = &Volume> {
    spec.and_then(|spec| spec.volumes.as_ref()).into_iter().flatten()
}

/// The node of a pod.
pub(super) fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}
