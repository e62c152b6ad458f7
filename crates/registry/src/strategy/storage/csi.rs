//! What CSI drivers say of themselves, their nodes and their attachments: CSIDrivers, CSINodes,
//! CSIStorageCapacities and VolumeAttachments.

use std::collections::BTreeSet;

use k8s_openapi::api::storage::v1::{
    CSIDriver, CSIDriverSpec, CSINode, CSINodeDriver, CSIStorageCapacity, VolumeAttachment,
    VolumeAttachmentStatus,
};
use wharf_model::names;
use wharf_model::quantity::Quantity;
use wharf_model::time::Time;

use super::super::Rules;
use super::super::pod::label_selector;
use super::super::pod::validate::one_of;
use super::{driver_name, persistent_volume};
use crate::field::{Errors, Json, Path};

const SPEC: Path<'static> = Path::root("spec");
/// How long a driver's name for a node may be.
const NODE_ID_BYTES_MAX: usize = 256;
/// How often, at the least apart in seconds, a driver may be asked how much it can attach.
const ALLOCATABLE_PERIOD_SECONDS_MIN: i64 = 10;

impl Rules for CSIDriver {
    const GENERATION: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;

    fn set_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.attach_required.get_or_insert(true);
        for field in [
            &mut spec.pod_info_on_mount,
            &mut spec.storage_capacity,
            &mut spec.requires_republish,
            &mut spec.se_linux_mount,
        ] {
            field.get_or_insert(false);
        }
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".to_owned());
        if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        driver(&self.spec, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        let (new, old) = (&self.spec, &old.spec);
        // Upstream's paths: the first has a letter too many.
        errors.immutable(
            &SPEC.child("attachedRequired"),
            &new.attach_required,
            &old.attach_required,
        );
        errors.immutable(
            &SPEC.child("volumeLifecycleModes"),
            &new.volume_lifecycle_modes,
            &old.volume_lifecycle_modes,
        );
    }
}

fn driver(spec: &CSIDriverSpec, errors: &mut Errors) {
    one_of(
        &SPEC.child("fsGroupPolicy"),
        spec.fs_group_policy.as_deref(),
        &["File", "None", "ReadWriteOnceWithFSType"],
        errors,
    );
    let requests = SPEC.child("tokenRequests");
    let mut audiences = BTreeSet::new();
    for (index, request) in spec.token_requests.iter().flatten().enumerate() {
        if !audiences.insert(&request.audience) {
            let path = requests.index(index);
            errors.duplicate(&path.child("audience"), &request.audience);
        }
    }
    for mode in spec.volume_lifecycle_modes.iter().flatten() {
        let path = SPEC.child("volumeLifecycleModes");
        one_of(&path, Some(mode), &["Persistent", "Ephemeral"], errors);
    }
    if let Some(period) = spec.node_allocatable_update_period_seconds
        && period < ALLOCATABLE_PERIOD_SECONDS_MIN
    {
        let path = SPEC.child("nodeAllocatableUpdatePeriodSeconds");
        errors.invalid(&path, &period, "must be greater than or equal to 10 seconds");
    }
}

impl Rules for CSINode {
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(&self, errors: &mut Errors) {
        let path = SPEC.child("drivers");
        let mut seen = BTreeSet::new();
        for (index, driver) in self.spec.drivers.iter().enumerate() {
            let path = path.index(index);
            node_driver(&path, driver, errors);
            if !seen.insert(&driver.name) {
                errors.duplicate(&path.child("name"), &driver.name);
            }
        }
    }

    /// A driver's entry stays as it is, but for how much it can attach.
    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        for old in &old.spec.drivers {
            let Some(new) = self.spec.drivers.iter().find(|new| new.name == old.name) else {
                continue;
            };
            let new = CSINodeDriver { allocatable: old.allocatable.clone(), ..new.clone() };
            errors.immutable(&SPEC.child("drivers"), &new, old);
        }
    }
}

fn node_driver(path: &Path<'_>, driver: &CSINodeDriver, errors: &mut Errors) {
    driver_name(&path.child("name"), &driver.name, errors);
    let id = path.child("nodeID");
    if driver.node_id.is_empty() {
        errors.required(&id, "");
    } else if driver.node_id.len() > NODE_ID_BYTES_MAX {
        let detail = format!("must be {NODE_ID_BYTES_MAX} characters or less");
        errors.invalid(&id, &driver.node_id, detail);
    }
    let count = driver.allocatable.as_ref().and_then(|resources| resources.count);
    let allocatable = path.child("allocatable");
    errors.not_negative(&allocatable.child("count"), count.map(i64::from));
    let mut keys = BTreeSet::new();
    for key in driver.topology_keys.iter().flatten() {
        if !keys.insert(key) {
            errors.duplicate(path, key);
        }
        errors.invalid_each(path, key, names::qualified_name(key));
    }
}

impl Rules for CSIStorageCapacity {
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(&self, errors: &mut Errors) {
        label_selector(&Path::root("nodeTopology"), self.node_topology.as_ref(), errors);
        let class = &self.storage_class_name;
        let path = Path::root("storageClassName");
        errors.invalid_each(&path, class, names::dns_1123_subdomain(class));
        if let Some(text) = &self.capacity {
            let path = Path::root("capacity");
            match Quantity::parse(&text.0) {
                Err(error) => errors.invalid(&path, &text.0, error.to_string()),
                Ok(amount) if amount.is_negative() => {
                    errors.invalid(&path, &text.0, "must be greater than or equal to 0");
                }
                Ok(_) => {}
            }
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable(&Path::root("nodeTopology"), &self.node_topology, &old.node_topology);
        errors.immutable(
            &Path::root("storageClassName"),
            &self.storage_class_name,
            &old.storage_class_name,
        );
    }
}

impl Rules for VolumeAttachment {
    const UNCONDITIONAL_UPDATE: bool = false;

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(VolumeAttachmentStatus::default());
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        driver_name(&SPEC.child("attacher"), &spec.attacher, errors);
        let path = SPEC.child("source");
        let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (&spec.source.inline_volume_spec, spec.source.persistent_volume_name.as_deref()) {
            (None, None) => errors.required(&path, one),
            (Some(_), Some(_)) => errors.forbidden(&path, one),
            (None, Some("")) => {
                let detail = "must specify non empty persistentVolumeName";
                errors.required(&path.child("persistentVolumeName"), detail);
            }
            (None, Some(name)) => {
                let messages = names::dns_1123_subdomain(name);
                errors.invalid_each(&path.child("persistentVolumeName"), name, messages);
            }
            (Some(inline), None) => {
                persistent_volume::inline(&path.child("inlineVolumeSpec"), inline, errors);
            }
        }
        let node = &spec.node_name;
        errors.invalid_each(&SPEC.child("nodeName"), node, names::dns_1123_subdomain(node));
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        if self.spec != old.spec {
            errors.invalid(&SPEC, &Json(&self.spec), "field is immutable");
        }
    }
}
