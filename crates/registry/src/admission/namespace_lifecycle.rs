//! Nothing is created in a namespace that is not there or is being deleted.

use k8s_openapi::api::core::v1::Namespace;
use wharf_model::kinds::Kind;
use wharf_model::object::{ObjectKey, Typed};
use wharf_ports::error::{ApiError, Cause};
use wharf_store::Store;

pub(super) fn admit(store: &Store, object: &dyn Typed) -> Result<(), ApiError> {
    let name = object.meta().namespace.as_deref().unwrap_or_default();
    let kind = Kind::of::<Namespace>();
    let Some(namespace) = store.get(kind, &ObjectKey::cluster(name)) else {
        return Err(ApiError::not_found(kind, name));
    };
    if namespace.header().deleting.is_none() {
        return Ok(());
    }
    let why =
        format!("unable to create new content in namespace {name} because it is being terminated");
    let mut refusal = ApiError::forbidden(object.kind(), called(object), &why);
    refusal.causes.push(Cause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace".to_owned(),
    });
    Err(refusal)
}

/// What a refusal calls an object that may not have its name yet.
pub(super) fn called(object: &dyn Typed) -> &str {
    let meta = object.meta();
    let name = meta.name.as_deref().filter(|name| !name.is_empty());
    name.or(meta.generate_name.as_deref()).unwrap_or_default()
}
