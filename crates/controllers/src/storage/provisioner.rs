//! The provisioner of the EBS CSI drivers, the add-on's and Auto Mode's, simulated: makes a volume for each claim that asks for one,
//! and deletes those that are given back.
//!
//! What it writes is csi-provisioner's (<https://kubernetes-csi.github.io/docs/external-provisioner.html>).
//! Volumes of the in-tree class are made as the driver's own, without the translation that a real
//! cluster still shows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass, VolumeAttachment};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::ebs::{self, Driver};
use wharf_model::kinds::Kind;
use wharf_model::labels::{
    EXTERNAL_PROVISIONER_FINALIZER, PROVISIONED_BY, SELECTED_NODE, STORAGE_PROVISIONER,
    TOPOLOGY_ZONE,
};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::quantity::Quantity;
use wharf_model::random::{Random, fnv1a};
use wharf_model::storage;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::binder::reference;
use super::ebs::{Request, allowed_zones, duration};
use crate::workloads::event;

/// The wait after a failure doubles from the first to the longest, as csi-provisioner's.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);
const GIBIBYTE: i64 = 1 << 30;

/// The simulated provisioner of `ebs.csi.aws.com` and `ebs.csi.eks.amazonaws.com`.
#[derive(Debug)]
pub(super) struct Provisioner {
    seed: u64,
    /// By claim: the uid of the claim whose volume is being made, and when it will be there.
    creating: BTreeMap<ObjectKey, (String, Time)>,
    /// Volumes that are being deleted, and when they will be gone.
    deleting: BTreeMap<ObjectKey, Time>,
    /// How often a claim has failed in a row.
    failures: BTreeMap<ObjectKey, u32>,
}

impl Provisioner {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            creating: BTreeMap::new(),
            deleting: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    fn forget(&mut self, claim: &ObjectKey) {
        self.creating.remove(claim);
        self.failures.remove(claim);
    }

    fn claim(&mut self, key: &ObjectKey, context: &Context<'_>) -> Step {
        let (view, now) = (context.view, context.now);
        let object = view.object(Kind::of::<PersistentVolumeClaim>(), key);
        let Some(wanted) = object.and_then(|object| Wanted::of(object, view)) else {
            self.forget(key);
            return Step::done();
        };
        if view.get_cluster::<PersistentVolume>(&wanted.name).is_some() {
            self.forget(key);
            return Step::done();
        }
        let zone = match wanted.zone(view) {
            Ok(zone) => zone,
            Err(failure) => return self.fail(key, &wanted, failure),
        };
        let mut step = Step::done();
        let due = match self.creating.get(key) {
            Some((uid, due)) if uid == wanted.object.uid() => *due,
            _ => {
                let due = now + duration(Request::Create, self.seed, &wanted.name);
                self.creating.insert(key.clone(), (wanted.object.uid().to_owned(), due));
                let text =
                    format!("External provisioner is provisioning volume for claim \"{key}\"");
                step.write(event(
                    wanted.object,
                    EventType::Normal,
                    wanted.driver.name,
                    "Provisioning",
                    text,
                ));
                due
            }
        };
        if now < due {
            step.again = Some(due.since(now));
            return step;
        }
        step.write(Write::Create(Box::new(wanted.volume(&zone, self.seed))));
        let text = format!("Successfully provisioned volume {}", wanted.name);
        let write = event(
            wanted.object,
            EventType::Normal,
            wanted.driver.name,
            "ProvisioningSucceeded",
            text,
        );
        step.write(write);
        self.failures.remove(key);
        step
    }

    fn fail(&mut self, key: &ObjectKey, wanted: &Wanted<'_>, failure: Failure) -> Step {
        self.creating.remove(key);
        let attempts = self.failures.entry(key.clone()).or_default();
        let wait = RETRY_FIRST * 2_u32.saturating_pow((*attempts).min(20));
        *attempts += 1;
        let mut step = Step::again_after(wait.min(RETRY_MAX));
        let text = match failure {
            Failure::NodeGone(node) => {
                // The scheduler is to choose again.
                let mut claim = wanted.claim.clone();
                claim.metadata.annotations.iter_mut().for_each(|annotations| {
                    annotations.remove(SELECTED_NODE);
                });
                step.write(Write::Update { object: Box::new(claim), part: Part::Main });
                format!("failed to get target node: node {node:?} not found")
            }
            Failure::Topology(why) => {
                let class = wanted.class.metadata.name.as_deref().unwrap_or_default();
                format!(
                    "failed to provision volume with StorageClass {class:?}: error generating accessibility requirements: {why}"
                )
            }
        };
        step.write(event(
            wanted.object,
            EventType::Warning,
            wanted.driver.name,
            "ProvisioningFailed",
            text,
        ));
        step
    }

    /// Deletes a volume that has been given back.
    fn volume(&mut self, key: &ObjectKey, context: &Context<'_>) -> Step {
        let (view, now) = (context.view, context.now);
        let object = view.object(Kind::of::<PersistentVolume>(), key);
        let Some((object, volume)) =
            object.and_then(|object| Some((object, object.typed::<PersistentVolume>()?)))
        else {
            self.deleting.remove(key);
            return Step::done();
        };
        let mut step = Step::done();
        let Some(driver) = maker(volume) else { return step };
        let has_finalizer = finalizers(volume).any(|one| one == EXTERNAL_PROVISIONER_FINALIZER);
        let spec = volume.spec.as_ref();
        let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if policy != Some("Delete") {
            self.deleting.remove(key);
            if has_finalizer {
                step.write(without_finalizer(volume));
            }
            return step;
        }
        if !matches!(phase, Some("Released" | "Failed")) || !has_finalizer {
            return step;
        }
        if let Some(node) = attached_to(&key.name, view) {
            if !self.deleting.contains_key(key) {
                let text =
                    format!("persistentvolume {} is still attached to node {node}", key.name);
                step.write(event(
                    object,
                    EventType::Warning,
                    driver.name,
                    "VolumeFailedDelete",
                    text,
                ));
            }
            return step;
        }
        let due = *self
            .deleting
            .entry(key.clone())
            .or_insert_with(|| now + duration(Request::Delete, self.seed, &key.name));
        if now < due {
            step.again = Some(due.since(now));
        } else if object.header().deleting.is_none() {
            step.write(Write::Delete(Delete::of(object)));
        } else {
            step.write(without_finalizer(volume));
        }
        step
    }
}

impl Controller for Provisioner {
    fn name(&self) -> &'static str {
        "ebs-csi-provisioner"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        let (claims, volumes) =
            (Kind::of::<PersistentVolumeClaim>(), Kind::of::<PersistentVolume>());
        if kind == claims || kind == volumes {
            queue.now(WorkKey::object(kind, change.key()));
        } else if kind == Kind::of::<VolumeAttachment>() && change.new.is_none() {
            let attachment = change.object().typed::<VolumeAttachment>();
            let volume =
                attachment.and_then(|one| one.spec.source.persistent_volume_name.as_deref());
            if let Some(volume) = volume {
                queue.now(WorkKey::object(volumes, &ObjectKey::cluster(volume)));
            }
        } else if kind == Kind::of::<StorageClass>() {
            let class = change.key().name.as_str();
            for object in view.objects(claims) {
                let claim = object.typed::<PersistentVolumeClaim>();
                let name =
                    claim.and_then(|claim| claim.spec.as_ref()?.storage_class_name.as_deref());
                if name == Some(class) {
                    queue.now(WorkKey::object(claims, object.key()));
                }
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        if key.kind == Some(Kind::of::<PersistentVolume>()) {
            return self.volume(&key.key, context);
        }
        self.claim(&key.key, context)
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        match error.reason {
            StatusReason::AlreadyExists | StatusReason::NotFound => OnError::Forget,
            _ => OnError::Retry,
        }
    }
}

/// Why no volume can be made.
enum Failure {
    /// The node that the scheduler chose is gone.
    NodeGone(String),
    /// There is no place for it.
    Topology(String),
}

/// A claim that is to get a volume.
struct Wanted<'v> {
    object: &'v Object,
    claim: &'v PersistentVolumeClaim,
    class: &'v StorageClass,
    /// The driver that makes it.
    driver: &'static Driver,
    /// The node the volume is for, where the class waits for one.
    node: Option<&'v str>,
    /// What the volume is called.
    name: String,
}

impl<'v> Wanted<'v> {
    /// `None` for a claim that is none of these drivers', has its volume, or waits.
    fn of(object: &'v Object, view: &'v View) -> Option<Self> {
        let claim = object.typed::<PersistentVolumeClaim>()?;
        let spec = claim.spec.as_ref()?;
        let annotation = |key| claim.metadata.annotations.as_ref()?.get(key).map(String::as_str);
        let driver = ebs::driver(annotation(STORAGE_PROVISIONER)?)?;
        let is_bound = spec.volume_name.as_deref().is_some_and(|name| !name.is_empty());
        if is_bound || object.header().deleting.is_some() {
            return None;
        }
        let class = view.get_cluster::<StorageClass>(spec.storage_class_name.as_deref()?)?;
        if ebs::driver_of_provisioner(&class.provisioner) != Some(driver) {
            return None;
        }
        let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        let node = annotation(SELECTED_NODE);
        if waits && node.is_none() {
            return None;
        }
        let name = format!("pvc-{}", object.uid());
        Some(Self { object, claim, class, driver, node, name })
    }

    /// Where the volume is made: where its node is, or else in one of the zones that have nodes.
    fn zone(&self, view: &View) -> Result<String, Failure> {
        let allowed = allowed_zones(self.class, self.driver);
        let is_allowed =
            |zone: &str| allowed.as_ref().is_none_or(|allowed| allowed.contains(&zone));
        if let Some(name) = self.node {
            let Some(node) = view.get_cluster::<Node>(name) else {
                return Err(Failure::NodeGone(name.to_owned()));
            };
            let Some(csi_node) = view.get_cluster::<CSINode>(name) else {
                let why = format!(
                    "error getting CSINode for selected node {name:?}: csinode.storage.k8s.io {name:?} not found"
                );
                return Err(Failure::Topology(why));
            };
            if !self.runs_on(csi_node) {
                let why = format!("no topology key found on CSINode {name}");
                return Err(Failure::Topology(why));
            }
            return match zone_of(node) {
                Some(zone) if is_allowed(zone) => Ok(zone.to_owned()),
                zone => Err(Failure::Topology(format!(
                    "selected node '{name:?}' topology '{}' is not in allowed topologies",
                    zone.unwrap_or_default()
                ))),
            };
        }
        let zones: BTreeSet<&str> = view
            .list::<CSINode>()
            .filter(|node| self.runs_on(node))
            .filter_map(|node| view.get_cluster::<Node>(node.metadata.name.as_deref()?))
            .filter_map(zone_of)
            .filter(|zone| is_allowed(zone))
            .collect();
        let Some(index) = spread(&self.object.key().name).checked_rem(zones.len()) else {
            return Err(Failure::Topology("no available topology found".to_owned()));
        };
        Ok(zones.into_iter().nth(index).unwrap_or_default().to_owned())
    }

    /// Whether the driver runs on a node.
    fn runs_on(&self, node: &CSINode) -> bool {
        node.spec.drivers.iter().any(|driver| driver.name == self.driver.name)
    }

    fn volume(&self, zone: &str, seed: u64) -> PersistentVolume {
        let spec = self.claim.spec.clone().unwrap_or_default();
        let bytes = storage::requested(&spec).and_then(|text| Quantity::parse(&text.0).ok());
        // Volumes come in whole gibibytes.
        let gibibytes =
            bytes.map_or(1, |bytes| bytes.value_ceil().saturating_add(GIBIBYTE - 1) / GIBIBYTE);
        let policy = self.class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned());
        let parameter = |key: &str| self.class.parameters.as_ref()?.get(key).cloned();
        let fs_type = parameter("csi.storage.k8s.io/fstype").or_else(|| parameter("fsType"));
        let is_block = spec.volume_mode.as_deref() == Some("Block");
        let annotations = [
            (PROVISIONED_BY, self.driver.name),
            ("volume.kubernetes.io/provisioner-deletion-secret-name", ""),
            ("volume.kubernetes.io/provisioner-deletion-secret-namespace", ""),
        ];
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let finalizer = EXTERNAL_PROVISIONER_FINALIZER.to_owned();
        PersistentVolume {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                annotations: Some(annotations.into_iter().map(owned).collect()),
                finalizers: (policy == "Delete").then(|| vec![finalizer]),
                ..ObjectMeta::default()
            },
            spec: Some(PersistentVolumeSpec {
                access_modes: spec.access_modes,
                capacity: Some(
                    [("storage".to_owned(), ApiQuantity(format!("{gibibytes}Gi")))].into(),
                ),
                claim_ref: Some(reference(self.claim)),
                csi: Some(CSIPersistentVolumeSource {
                    driver: self.driver.name.to_owned(),
                    fs_type: (!is_block).then(|| fs_type.unwrap_or_else(|| "ext4".to_owned())),
                    volume_handle: handle(seed, self.object.uid()),
                    volume_attributes: Some(
                        [owned(("storage.kubernetes.io/csiProvisionerIdentity", self.driver.name))]
                            .into(),
                    ),
                    ..CSIPersistentVolumeSource::default()
                }),
                mount_options: self.class.mount_options.clone(),
                node_affinity: Some(in_zone(self.driver.affinity, zone)),
                persistent_volume_reclaim_policy: Some(policy),
                storage_class_name: self.class.metadata.name.clone(),
                volume_mode: spec.volume_mode,
                ..PersistentVolumeSpec::default()
            }),
            status: None,
        }
    }
}

/// `vol-0` and sixteen digits, as EC2 names volumes.
fn handle(seed: u64, uid: &str) -> String {
    format!("vol-0{}", Random::for_purpose(seed, &format!("ebs/volume/{uid}")).hex(16))
}

/// A volume can be attached in its zone only.
fn in_zone(label: &str, zone: &str) -> VolumeNodeAffinity {
    let requirement = NodeSelectorRequirement {
        key: label.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![zone.to_owned()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), match_fields: None };
    VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) }
}

fn zone_of(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(TOPOLOGY_ZONE).map(String::as_str)
}

/// A number by which claims are spread over zones: those of one StatefulSet one after the other.
fn spread(claim: &str) -> usize {
    let (base, ordinal) = match claim.rsplit_once('-') {
        Some((base, ordinal)) => match ordinal.parse::<u64>() {
            Ok(ordinal) => (base, ordinal),
            Err(_) => (claim, 0),
        },
        None => (claim, 0),
    };
    let number = (fnv1a(base.as_bytes()) >> 32).wrapping_add(ordinal);
    usize::try_from(number).unwrap_or(0)
}

/// The driver that made a volume, if it is one of these.
fn maker(volume: &PersistentVolume) -> Option<&'static Driver> {
    ebs::driver(volume.metadata.annotations.as_ref()?.get(PROVISIONED_BY)?)
}

fn finalizers(volume: &PersistentVolume) -> impl Iterator<Item = &str> {
    volume.metadata.finalizers.iter().flatten().map(String::as_str)
}

fn without_finalizer(volume: &PersistentVolume) -> Write {
    let mut volume = volume.clone();
    volume.metadata.finalizers.iter_mut().for_each(|finalizers| {
        finalizers.retain(|one| one != EXTERNAL_PROVISIONER_FINALIZER);
    });
    Write::Update { object: Box::new(volume), part: Part::Main }
}

/// The node that a volume is attached to.
fn attached_to<'v>(volume: &str, view: &'v View) -> Option<&'v str> {
    view.list::<VolumeAttachment>()
        .find(|one| one.spec.source.persistent_volume_name.as_deref() == Some(volume))
        .map(|one| one.spec.node_name.as_str())
}
