//! The rules of object metadata: names, labels, annotations, owners, finalizers, and what may
//! never change. <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/>

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use wharf_model::kinds::Kind;
pub use wharf_model::labels::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use wharf_model::names;

use crate::field::{Errors, Json, Path};
use crate::strategy::Strategy;

/// The finalizer of namespaces, in their spec.
pub const KUBERNETES_FINALIZER: &str = "kubernetes";

/// Upstream's bound on the total size of annotations.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Brings metadata into the one form in which it is stored: what is empty is absent.
pub(crate) fn normalize(meta: &mut ObjectMeta) {
    fn drop_if<T>(field: &mut Option<T>, is_empty: impl Fn(&T) -> bool) {
        if field.as_ref().is_some_and(is_empty) {
            *field = None;
        }
    }
    drop_if(&mut meta.labels, |labels| labels.is_empty());
    drop_if(&mut meta.annotations, |annotations| annotations.is_empty());
    drop_if(&mut meta.finalizers, Vec::is_empty);
    drop_if(&mut meta.owner_references, Vec::is_empty);
    drop_if(&mut meta.managed_fields, Vec::is_empty);
    drop_if(&mut meta.generate_name, String::is_empty);
    meta.self_link = None;
}

/// What is wrong with the metadata of an object, new or changed.
pub(crate) fn validate(
    kind: Kind,
    strategy: &dyn Strategy,
    meta: &ObjectMeta,
    errors: &mut Errors,
) {
    let path = Path::root("metadata");
    if let Some(prefix) = meta.generate_name.as_deref().filter(|prefix| !prefix.is_empty()) {
        // A generated name ends in random characters, so its prefix may end in a dash.
        let stem = prefix.strip_suffix('-').unwrap_or(prefix);
        errors.invalid_each(&path.child("generateName"), prefix, strategy.name_errors(stem));
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.required(&path.child("name"), "name or generateName is required"),
        name => errors.invalid_each(&path.child("name"), name, strategy.name_errors(name)),
    }
    match (kind.namespaced, meta.namespace.as_deref().unwrap_or_default()) {
        (true, "") => errors.required(&path.child("namespace"), ""),
        (true, namespace) => {
            let messages = names::dns_1123_label(namespace);
            errors.invalid_each(&path.child("namespace"), namespace, messages);
        }
        (false, "") => {}
        (false, _) => errors.forbidden(&path.child("namespace"), "not allowed on this type"),
    }
    errors.not_negative(&path.child("generation"), meta.generation);
    labels(&path.child("labels"), meta.labels.iter().flatten(), errors);
    annotations(&path.child("annotations"), meta, errors);
    owners(&path.child("ownerReferences"), meta.owner_references.as_deref(), errors);
    for finalizer in meta.finalizers.iter().flatten() {
        finalizer_name(kind, &path.child("finalizers"), finalizer, errors);
    }
}

/// What is wrong with a change of metadata.
pub(crate) fn validate_update(new: &ObjectMeta, old: &ObjectMeta, errors: &mut Errors) {
    let path = Path::root("metadata");
    errors.immutable(&path.child("name"), &new.name, &old.name);
    errors.immutable(&path.child("namespace"), &new.namespace, &old.namespace);
    errors.immutable(&path.child("uid"), &new.uid, &old.uid);
    errors.immutable(
        &path.child("creationTimestamp"),
        &new.creation_timestamp,
        &old.creation_timestamp,
    );
    errors.immutable(
        &path.child("deletionTimestamp"),
        &new.deletion_timestamp,
        &old.deletion_timestamp,
    );
    errors.immutable(
        &path.child("deletionGracePeriodSeconds"),
        &new.deletion_grace_period_seconds,
        &old.deletion_grace_period_seconds,
    );
    if old.deletion_timestamp.is_some() {
        let had = old.finalizers.as_deref().unwrap_or_default();
        let added: Vec<String> = new
            .finalizers
            .iter()
            .flatten()
            .filter(|finalizer| !had.contains(finalizer))
            .map(|finalizer| format!("{finalizer:?}"))
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.forbidden(&path.child("finalizers"), detail);
        }
    }
}

/// What is wrong with labels, those of an object or of a template.
pub(crate) fn labels<'l>(
    path: &Path<'_>,
    labels: impl Iterator<Item = (&'l String, &'l String)>,
    errors: &mut Errors,
) {
    for (key, value) in labels {
        errors.invalid_each(path, key, names::qualified_name(key));
        errors.invalid_each(path, value, names::label_value(value));
    }
}

/// What is wrong with annotations, those of an object or of a template.
pub(crate) fn annotations(path: &Path<'_>, meta: &ObjectMeta, errors: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in meta.annotations.iter().flatten() {
        bytes += key.len() + value.len();
        errors.invalid_each(path, key, names::qualified_name(&key.to_ascii_lowercase()));
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.too_long(path, ANNOTATIONS_BYTES_MAX);
    }
}

fn owners(path: &Path<'_>, owners: Option<&[OwnerReference]>, errors: &mut Errors) {
    let owners = owners.unwrap_or_default();
    let mut controller: Option<&OwnerReference> = None;
    for owner in owners {
        let version = owner.api_version.rsplit('/').next().unwrap_or_default();
        if version.is_empty() {
            let path = path.child("apiVersion");
            errors.invalid(&path, &owner.api_version, "version must not be empty");
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.invalid(&path.child(field), value, "must not be empty");
            }
        }
        if owner.controller != Some(true) {
            continue;
        }
        if let Some(first) = controller {
            let detail = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} and {}/{}",
                first.kind, first.name, owner.kind, owner.name
            );
            errors.invalid(path, &Json(&owners), detail);
        }
        controller = Some(owner);
    }
}

fn finalizer_name(kind: Kind, path: &Path<'_>, finalizer: &str, errors: &mut Errors) {
    errors.invalid_each(path, finalizer, names::qualified_name(finalizer));
    // Custom resources may have finalizers without a domain; upstream only warns of them.
    let is_built_in =
        kind.group.is_empty() || !kind.group.contains('.') || kind.group.ends_with(".k8s.io");
    let standard = [FOREGROUND_FINALIZER, ORPHAN_FINALIZER, KUBERNETES_FINALIZER];
    if is_built_in && !finalizer.contains('/') && !standard.contains(&finalizer) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.invalid(path, finalizer, detail);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn texts(meta: serde_json::Value) -> Vec<String> {
        let meta: ObjectMeta = serde_json::from_value(meta).unwrap();
        let kind = Kind::of::<ConfigMap>();
        let mut errors = Errors::default();
        validate(kind, crate::strategy::of(kind), &meta, &mut errors);
        let refusal = errors.into_result(kind, "x");
        refusal
            .err()
            .into_iter()
            .flat_map(|e| e.causes)
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    }

    #[test]
    fn what_is_wrong_is_named() {
        let base = |extra: serde_json::Value| {
            let mut meta = json!({"name": "a", "namespace": "n"});
            meta.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            texts(meta)
        };
        assert_eq!(base(json!({})), Vec::<String>::new());
        assert_eq!(
            texts(json!({"namespace": "n"})),
            ["metadata.name: Required value: name or generateName is required"]
        );
        assert!(base(json!({"name": "A"}))[0].starts_with(
            "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of"
        ));
        assert!(base(json!({"labels": {"a": "b c"}}))[0].starts_with(
            "metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or"
        ));
        assert!(base(json!({"annotations": {"a b": ""}}))[0].starts_with(
            "metadata.annotations: Invalid value: \"a b\": name part must consist of"
        ));
        assert_eq!(
            base(json!({"finalizers": ["mine"]})),
            [
                "metadata.finalizers: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"
            ]
        );
        assert_eq!(
            base(
                json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}]})
            ),
            ["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"]
        );
        let owner = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": name, "controller": true});
        assert!(base(json!({"ownerReferences": [owner("a"), owner("b")]}))[0].ends_with(
            "Only one reference can have Controller set to true. Found \"true\" in references for Pod/a and Pod/b"
        ));
    }
}
