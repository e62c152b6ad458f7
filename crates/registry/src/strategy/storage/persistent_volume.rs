//! PersistentVolumes:
//! <https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/persistent-volume-v1/>.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use wharf_model::time::Time;
use wharf_ports::cluster::Part;

use super::super::Rules;
use super::super::pod::defaults::fill;
use super::super::pod::node_selector;
use super::super::pod::validate::one_of;
use super::{VOLUME_MODES, access_modes, canonical, class_name, driver_name, storage_amount};
use crate::field::{Errors, Path};

const SPEC: Path<'static> = Path::root("spec");
const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
/// The fields of a spec that say what a volume is made of.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

impl Rules for PersistentVolume {
    const LABELS_WITH_STATUS: bool = true;

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        fill(&mut spec.persistent_volume_reclaim_policy, "Retain");
        fill(&mut spec.volume_mode, "Filesystem");
        canonical(&mut spec.capacity);
        if let Some(source) = &mut spec.host_path {
            source.type_.get_or_insert_default();
        }
    }

    fn prepare_create(&mut self, now: Time) {
        self.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".to_owned()),
            last_phase_transition_time: Some(now.to_meta()),
            ..PersistentVolumeStatus::default()
        });
    }

    fn prepare_update(&mut self, old: &Self, part: Part) {
        // The writer of a new phase says when it began; one who forgets keeps no wrong time.
        if part != Part::Main
            && let (Some(status), Some(old)) = (&mut self.status, &old.status)
            && status.last_phase_transition_time.is_none()
            && status.phase == old.phase
        {
            status.last_phase_transition_time.clone_from(&old.last_phase_transition_time);
        }
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        let none = PersistentVolumeSpec::default();
        spec(self.spec.as_ref().unwrap_or(&none), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        let (Some(new), Some(old)) = (&self.spec, &old.spec) else { return };
        if sources(new) != sources(old) {
            // Upstream follows this with a dump of the difference.
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.forbidden(&SPEC.child("persistentvolumesource"), detail);
        }
        errors.immutable(&SPEC.child("volumeMode"), &new.volume_mode, &old.volume_mode);
        if old.node_affinity.is_some() {
            errors.immutable(&SPEC.child("nodeAffinity"), &new.node_affinity, &old.node_affinity);
        }
    }
}

fn spec(spec: &PersistentVolumeSpec, errors: &mut Errors) {
    access_modes(&SPEC.child("accessModes"), spec.access_modes.as_ref(), "", errors);
    capacity(spec, errors);
    let policy = spec.persistent_volume_reclaim_policy.as_deref();
    one_of(&SPEC.child("persistentVolumeReclaimPolicy"), policy, &RECLAIM_POLICIES, errors);
    if let Some(affinity) = &spec.node_affinity {
        let path = SPEC.child("nodeAffinity");
        let path = path.child("required");
        match &affinity.required {
            Some(required) => node_selector(&path, required, errors),
            None => errors.required(&path, "must specify required node constraints"),
        }
    }
    source(spec, errors);
    class_name(&SPEC.child("storageClassName"), spec.storage_class_name.as_ref(), errors);
    one_of(&SPEC.child("volumeMode"), spec.volume_mode.as_deref(), &VOLUME_MODES, errors);
}

fn capacity(spec: &PersistentVolumeSpec, errors: &mut Errors) {
    let path = SPEC.child("capacity");
    let capacity = spec.capacity.clone().unwrap_or_default();
    if capacity.is_empty() {
        errors.required(&path, "");
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        let shown = serde_json::to_string(&capacity).unwrap_or_default();
        errors.not_supported(&path, &shown, &["storage"]);
    }
    for (name, amount) in &capacity {
        storage_amount(&path.key(name), amount, errors);
    }
}

/// A volume is made of one thing.
fn source(spec: &PersistentVolumeSpec, errors: &mut Errors) {
    let given = sources(spec);
    if given.is_empty() {
        errors.required(&SPEC, "must specify a volume type");
    }
    for (extra, _) in given.iter().skip(1) {
        errors.forbidden(&SPEC.child(extra), "may not specify more than 1 volume type");
    }
    if let Some(csi) = &spec.csi {
        let path = SPEC.child("csi");
        driver_name(&path.child("driver"), &csi.driver, errors);
        if csi.volume_handle.is_empty() {
            errors.required(&path.child("volumeHandle"), "");
        }
    }
    let named = [
        ("hostPath", "path", spec.host_path.as_ref().map(|source| source.path.as_str())),
        ("local", "path", spec.local.as_ref().map(|source| source.path.as_str())),
        ("nfs", "server", spec.nfs.as_ref().map(|source| source.server.as_str())),
        ("nfs", "path", spec.nfs.as_ref().map(|source| source.path.as_str())),
        (
            "awsElasticBlockStore",
            "volumeID",
            spec.aws_elastic_block_store.as_ref().map(|source| source.volume_id.as_str()),
        ),
    ];
    for (source, field, value) in named {
        if value.is_some_and(str::is_empty) {
            let path = SPEC.child(source);
            errors.required(&path.child(field), "");
        }
    }
    if spec.local.is_some() && spec.node_affinity.is_none() {
        let path = Path::root("metadata");
        errors.required(&path.child("annotations"), "Local volume requires node affinity");
    }
    let recycles = spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle");
    if recycles && spec.host_path.as_ref().is_some_and(|source| source.path == "/") {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden(&SPEC.child("persistentVolumeReclaimPolicy"), detail);
    }
}

/// What a volume is made of, by the names of the fields.
fn sources(spec: &PersistentVolumeSpec) -> Vec<(&'static str, serde_json::Value)> {
    let value = serde_json::to_value(spec).unwrap_or_default();
    SOURCES
        .into_iter()
        .filter_map(|field| value.get(field).map(|source| (field, source.clone())))
        .collect()
}

/// What is wrong with the spec that a VolumeAttachment brings along.
pub(super) fn inline(path: &Path<'_>, spec: &PersistentVolumeSpec, errors: &mut Errors) {
    if sources(spec).is_empty() {
        errors.required(path, "must specify a volume type");
    }
}
