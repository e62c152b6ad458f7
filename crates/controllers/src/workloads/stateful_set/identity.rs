//! What makes a set's pods tell-apart: names, labels, and claims of their own.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use wharf_model::labels::{CONTROLLER_REVISION_HASH, POD_INDEX, STATEFULSET_POD_NAME};
use wharf_model::object::{Object, ObjectKey};
use wharf_ports::cluster::{Part, Write};
use wharf_ports::view::View;

use crate::workloads::owners::controller_reference;
use crate::workloads::revision;

/// `web-0`.
pub(super) fn pod_name(set: &str, ordinal: i32) -> String {
    format!("{set}-{ordinal}")
}

/// The set and the ordinal that a pod's name says.
pub(super) fn parent(pod: &str) -> Option<(&str, i32)> {
    let (set, ordinal) = pod.rsplit_once('-')?;
    let ordinal: i32 = ordinal.parse().ok().filter(|ordinal| *ordinal >= 0)?;
    Some((set, ordinal))
}

/// The lowest ordinal.
pub(super) fn start(set: &StatefulSet) -> i32 {
    let ordinals = set.spec.as_ref().and_then(|spec| spec.ordinals.as_ref());
    ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0)
}

/// The pod of an ordinal, from the template of a revision.
pub(super) fn pod(set: &StatefulSet, ordinal: i32, revision: &ControllerRevision) -> Pod {
    let spec = set.spec.clone().unwrap_or_default();
    let template: PodTemplateSpec = revision::template(revision).unwrap_or(spec.template);
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    let name = pod_name(set_name, ordinal);
    let from = template.metadata.unwrap_or_default();
    let mut labels = from.labels.unwrap_or_default();
    let revision = revision.metadata.name.clone().unwrap_or_default();
    for (key, value) in [
        (STATEFULSET_POD_NAME, name.clone()),
        (POD_INDEX, ordinal.to_string()),
        (CONTROLLER_REVISION_HASH, revision),
    ] {
        labels.insert(key.to_owned(), value);
    }
    let mut pod_spec = template.spec.unwrap_or_default();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain.clone_from(&spec.service_name);
    let mut volumes: Vec<Volume> = claims(set, ordinal)
        .into_iter()
        .zip(spec.volume_claim_templates.iter().flatten())
        .map(|(claim, template)| Volume {
            name: template.metadata.name.clone().unwrap_or_default(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.metadata.name.unwrap_or_default(),
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    // A claim takes the place of a volume of the template that has its name.
    for volume in pod_spec.volumes.take().into_iter().flatten() {
        if volumes.iter().all(|other| other.name != volume.name) {
            volumes.push(volume);
        }
    }
    pod_spec.volumes = (!volumes.is_empty()).then_some(volumes);
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: Some(format!("{set_name}-")),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(pod_spec),
        status: None,
    }
}

/// The claims of the pod of an ordinal: `data-web-0`.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let spec = set.spec.as_ref();
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    let selected = spec.and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    let templates = spec.and_then(|spec| spec.volume_claim_templates.as_ref());
    let claim = |template: &PersistentVolumeClaim| {
        let from = &template.metadata;
        let name = from.name.as_deref().unwrap_or_default();
        let mut labels: BTreeMap<String, String> = from.labels.clone().unwrap_or_default();
        labels.extend(selected.clone());
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{}", pod_name(set_name, ordinal))),
                namespace: set.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: from.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    };
    templates.into_iter().flatten().map(claim).collect()
}

/// Makes the owners of a pod's claims those that the retention policy wants
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#persistentvolumeclaim-retention>):
/// the set, where claims go with it; the pod that is given up, where they go with the pod.
pub(super) fn retain(
    set: &StatefulSet,
    ordinal: i32,
    given_up: Option<&Object>,
    view: &View,
) -> Vec<Write> {
    let policy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_claim_retention_policy.clone())
        .unwrap_or_default();
    let deletes = |when: &Option<String>| when.as_deref() == Some("Delete");
    let of_set = controller_reference(set);
    let wanted = match given_up {
        Some(pod) if deletes(&policy.when_scaled) => Some(OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: pod.key().name.to_string(),
            uid: pod.uid().to_owned(),
            ..OwnerReference::default()
        }),
        _ if deletes(&policy.when_deleted) => {
            Some(OwnerReference { controller: None, block_owner_deletion: None, ..of_set.clone() })
        }
        _ => None,
    };
    let pod = pod_name(&of_set.name, ordinal);
    let owned_by_us = |owner: &OwnerReference| {
        owner.uid == of_set.uid || (owner.kind == "Pod" && owner.name == pod)
    };
    let change = |claim: PersistentVolumeClaim| {
        let mut claim = view.get::<PersistentVolumeClaim>(&ObjectKey::of(&claim.metadata))?.clone();
        let owners = claim.metadata.owner_references.get_or_insert_default();
        let before = owners.clone();
        owners.retain(|owner| !owned_by_us(owner));
        owners.extend(wanted.clone());
        (*owners != before).then(|| Write::Update { object: Box::new(claim), part: Part::Main })
    };
    claims(set, ordinal).into_iter().filter_map(change).collect()
}
