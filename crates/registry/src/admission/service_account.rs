//! A pod without a ServiceAccount gets `default`; the one it has must be there.

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_ports::error::ApiError;
use wharf_store::Store;

use super::namespace_lifecycle::called;

pub(super) fn admit(store: &Store, pod: &mut Pod) -> Result<(), ApiError> {
    let is_mirror = pod
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key("kubernetes.io/config.mirror"));
    if is_mirror {
        return Ok(());
    }
    let spec = pod.spec.get_or_insert_default();
    let given = spec.service_account_name.take().filter(|name| !name.is_empty());
    // The old field still counts, and both are kept the same.
    let given = given.or_else(|| spec.service_account.take().filter(|name| !name.is_empty()));
    let name = given.unwrap_or_else(|| "default".to_owned());
    spec.service_account_name = Some(name.clone());
    spec.service_account = Some(name.clone());
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let key = ObjectKey::namespaced(namespace, &name);
    if store.get(Kind::of::<ServiceAccount>(), &key).is_some() {
        return Ok(());
    }
    let why = format!(
        "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
    );
    Err(ApiError::forbidden(Kind::of::<Pod>(), called(pod), &why))
}
