//! Dynamic resource allocation: claims, templates, classes and slices.

use k8s_openapi::api::resource::v1::{
    DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use wharf_model::time::Time;

use super::{Column, age};

pub(super) const NAMED: &[Column] = &[Column::text("Name"), Column::text("Age")];

pub(super) fn class(class: &DeviceClass, now: Time) -> Vec<Value> {
    named(&class.metadata, now)
}

pub(super) fn template(template: &ResourceClaimTemplate, now: Time) -> Vec<Value> {
    named(&template.metadata, now)
}

fn named(meta: &ObjectMeta, now: Time) -> Vec<Value> {
    vec![json!(meta.name), json!(age(meta.creation_timestamp.as_ref(), now))]
}

pub(super) const CLAIM: &[Column] =
    &[Column::text("Name"), Column::text("State"), Column::text("Age")];

pub(super) fn claim(claim: &ResourceClaim, now: Time) -> Vec<Value> {
    vec![
        json!(claim.metadata.name),
        json!(state(claim)),
        json!(age(claim.metadata.creation_timestamp.as_ref(), now)),
    ]
}

/// `pending`, `allocated,reserved`, `deleted,allocated`.
fn state(claim: &ResourceClaim) -> String {
    let status = claim.status.as_ref();
    let is_deleted = claim.metadata.deletion_timestamp.is_some();
    let is_allocated = status.is_some_and(|status| status.allocation.is_some());
    let is_reserved = status
        .and_then(|status| status.reserved_for.as_ref())
        .is_some_and(|consumers| !consumers.is_empty());
    let words = [
        (is_deleted, "deleted"),
        (!is_allocated && !is_deleted, "pending"),
        (is_allocated, "allocated"),
        (is_allocated && is_reserved, "reserved"),
    ];
    let words: Vec<&str> = words.into_iter().filter(|(holds, _)| *holds).map(|w| w.1).collect();
    words.join(",")
}

pub(super) const SLICE: &[Column] = &[
    Column::text("Name"),
    Column::text("Node"),
    Column::text("Driver"),
    Column::text("Pool"),
    Column::text("Age"),
];

pub(super) fn slice(slice: &ResourceSlice, now: Time) -> Vec<Value> {
    vec![
        json!(slice.metadata.name),
        json!(slice.spec.node_name.as_deref().unwrap_or_default()),
        json!(slice.spec.driver),
        json!(slice.spec.pool.name),
        json!(age(slice.metadata.creation_timestamp.as_ref(), now)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    #[test]
    fn claims_say_how_far_they_are() {
        let claim = |status: Value| {
            let meta = json!({"name": "c", "creationTimestamp": "2026-01-01T23:55:00Z"});
            printed("ResourceClaim", json!({"metadata": meta, "spec": {}, "status": status}))
        };
        let consumer = json!([{"resource": "pods", "name": "p", "uid": "u"}]);
        for (status, expected) in [
            (json!({}), "c|pending|5m"),
            (json!({"allocation": {}}), "c|allocated|5m"),
            (json!({"allocation": {}, "reservedFor": consumer}), "c|allocated,reserved|5m"),
        ] {
            assert_eq!(claim(status), expected);
        }
    }

    #[test]
    fn slices_name_their_node_driver_and_pool() {
        let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 1});
        let spec = json!({"driver": "d", "nodeName": "n", "pool": pool});
        let slice = json!({"metadata": {"name": "s"}, "spec": spec});
        assert_eq!(printed("ResourceSlice", slice), "s|n|d|p|<unknown>");
    }
}
