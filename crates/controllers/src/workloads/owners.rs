//! Who manages an object: owner references as controllers write and follow them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::{Object, ObjectKey};
use wharf_ports::view::View;

/// A reference that makes `owner` the managing owner.
pub(crate) fn controller_reference<T: Resource>(owner: &T) -> OwnerReference {
    let meta = k8s_openapi::Metadata::metadata(owner);
    let kind = Kind::of::<T>();
    OwnerReference {
        api_version: kind.api_version(),
        kind: kind.kind.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The managing owner of an object, if it is of kind `T` and there.
pub(crate) fn controller_of<'v, T: Resource>(
    object: &Object,
    view: &'v View,
) -> Option<&'v Object> {
    let owner = object.header().controller().filter(|owner| owner.kind == T::kind().kind)?;
    let key = ObjectKey { namespace: object.key().namespace.clone(), name: owner.name.clone() };
    let found = view.object(T::kind(), &key)?;
    (found.uid() == owner.uid).then_some(found.as_ref())
}
