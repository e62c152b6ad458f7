//! Rules about claims and classes that the API server, the controllers and the kubelet share.

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, Volume};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::labels::DEFAULT_STORAGE_CLASS;
use crate::time::Time;

/// The class of claims that name none: the newest of those marked as default, and of two of one age
/// the first by name.
pub fn default_class<'c>(
    classes: impl IntoIterator<Item = &'c StorageClass>,
) -> Option<&'c StorageClass> {
    let order = |class: &&StorageClass| {
        let created = class.metadata.creation_timestamp.as_ref().map(Time::from);
        (created, Reverse(class.metadata.name.clone()))
    };
    classes.into_iter().filter(|class| is_default_class(class)).max_by_key(order)
}

/// Whether a class is marked as default.
pub fn is_default_class(class: &StorageClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(DEFAULT_STORAGE_CLASS)).is_some_and(|mark| mark == "true")
}

/// How much storage a claim asks for.
pub fn requested(claim: &PersistentVolumeClaimSpec) -> Option<&ApiQuantity> {
    claim.resources.as_ref()?.requests.as_ref()?.get("storage")
}

/// The claim behind a volume of a pod: the one it names, or the one made for it.
pub fn claim_name(pod: &str, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(ephemeral_claim_name(pod, &volume.name)),
        (None, None) => None,
    }
}

/// The name of the claim of a generic ephemeral volume.
pub fn ephemeral_claim_name(pod: &str, volume: &str) -> String {
    format!("{pod}-{volume}")
}
