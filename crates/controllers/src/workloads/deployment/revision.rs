//! Templates and revisions: which ReplicaSet is of the Deployment's present template, how a new
//! one is named and made, and what annotations it carries.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use wharf_model::labels::{
    DEPLOYMENT_DESIRED_REPLICAS, DEPLOYMENT_MAX_REPLICAS, DEPLOYMENT_REVISION,
    LAST_APPLIED_CONFIGURATION, POD_TEMPLATE_HASH,
};
use wharf_model::random::fnv1a;

use super::scale::Wanted;
use crate::workloads::owners::controller_reference;

/// Earlier revisions of a ReplicaSet that was rolled back to.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DEPRECATED_ROLLBACK: &str = "deprecated.deployment.rollback.to";

/// Annotations of a Deployment that its ReplicaSets do not take over.
fn is_own_annotation(key: &str) -> bool {
    [
        LAST_APPLIED_CONFIGURATION,
        DEPLOYMENT_REVISION,
        REVISION_HISTORY,
        DEPLOYMENT_DESIRED_REPLICAS,
        DEPLOYMENT_MAX_REPLICAS,
        DEPRECATED_ROLLBACK,
    ]
    .contains(&key)
}

/// The short hash that tells templates apart. It is made of digits written in the alphabet of
/// generated names, as upstream's is; the value is Wharf's own and never changes.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    // Plain data with string keys cannot fail to encode.
    let json = serde_json::to_vec(template).unwrap_or_default();
    let wide = fnv1a(&[json.as_slice(), &collisions.to_le_bytes()].concat());
    let hash = (wide ^ (wide >> 32)) & u64::from(u32::MAX);
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let digits = hash.to_string();
    digits.bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// Whether a ReplicaSet is of the Deployment's present template.
pub(super) fn is_of_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let Some(own) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else { return false };
    if own.spec != template.spec {
        return false;
    }
    let without_hash = |template: &PodTemplateSpec| {
        let mut meta = template.metadata.clone().unwrap_or_default();
        if let Some(labels) = &mut meta.labels {
            labels.remove(POD_TEMPLATE_HASH);
        }
        meta.labels = meta.labels.filter(|labels| !labels.is_empty());
        meta
    };
    without_hash(own) == without_hash(template)
}

/// The revision in an object's annotations; 0 if there is none.
pub(super) fn revision(annotations: Option<&BTreeMap<String, String>>) -> i64 {
    let text = annotations.and_then(|annotations| annotations.get(DEPLOYMENT_REVISION));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A number in an object's annotations.
pub(super) fn annotated(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// The ReplicaSet of a new template, of size 0.
pub(super) fn new_replica_set(deployment: &Deployment, collisions: i32) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector
        .match_labels
        .get_or_insert_default()
        .insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let mut set = ReplicaSet {
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        ..ReplicaSet::default()
    };
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    set.metadata.name = Some(format!("{name}-{hash}"));
    set.metadata.namespace.clone_from(&deployment.metadata.namespace);
    set.metadata.labels = Some(labels);
    set.metadata.owner_references = Some(vec![controller_reference(deployment)]);
    set
}

/// Brings the annotations of the new ReplicaSet up to date: the Deployment's own, and the
/// revision, which only grows. Returns whether anything changed.
pub(super) fn annotate(set: &mut ReplicaSet, deployment: &Deployment, new_revision: i64) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let before = annotations.clone();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !is_own_annotation(key) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let old = revision(Some(annotations));
    if old < new_revision {
        annotations.insert(DEPLOYMENT_REVISION.to_owned(), new_revision.to_string());
        if old > 0 {
            let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&old.to_string());
        }
    }
    *annotations != before
}

/// Notes in a ReplicaSet which numbers its size was computed from. Returns whether they changed.
pub(super) fn annotate_sizes(set: &mut ReplicaSet, wanted: Wanted) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut note = |key: &str, number: i32| {
        let text = number.to_string();
        annotations.insert(key.to_owned(), text.clone()).as_deref() != Some(text.as_str())
    };
    let desired = note(DEPLOYMENT_DESIRED_REPLICAS, wanted.replicas);
    note(DEPLOYMENT_MAX_REPLICAS, wanted.most()) || desired
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(serde_json::json!({"metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "image": image}]}}))
        .expect("a template")
    }

    #[test]
    fn hashes_look_like_upstreams_and_never_change() {
        let hash = template_hash(&template("pause:3.7"), 0);
        assert!(hash.len() <= 10 && hash.chars().all(|c| "bcdf456789".contains(c)), "{hash}");
        assert_ne!(hash, template_hash(&template("pause:3.8"), 0));
        assert_ne!(hash, template_hash(&template("pause:3.7"), 1));
        assert_eq!(hash, template_hash(&template("pause:3.7"), 0));
    }

    #[test]
    fn a_replica_set_is_found_by_its_template() {
        let mut deployment = Deployment::default();
        deployment.metadata.name = Some("d".to_owned());
        deployment.spec.get_or_insert_default().template = template("pause:3.7");
        let set = new_replica_set(&deployment, 0);
        assert!(is_of_template(&set, &template("pause:3.7")));
        assert!(!is_of_template(&set, &template("pause:3.8")));
    }
}
