//! Attaching and detaching: the VolumeAttachment of each volume and the node whose pods use it.
//!
//! Two of a cluster's programs in one: the attach-detach controller, which asks
//! (<https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/volume-attachment-v1/>),
//! and the EBS drivers' attachers, which are simulated and answer after a while. Volumes of other
//! drivers are left alone.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{
    VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec, VolumeAttachmentStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::ebs::{Driver, attachment_name, driver};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::is_terminal;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::ebs::{Request, duration};
use super::usage;
use crate::workloads::event;

const COMPONENT: &str = "attachdetach-controller";
/// Attaches and detaches the simulated EBS volumes.
#[derive(Debug)]
pub(super) struct Attacher {
    seed: u64,
    users: usage::Users,
    /// Attachments by node.
    attachments: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// Nodes that wait for a volume to be detached elsewhere, by volume.
    waiting: BTreeMap<String, BTreeSet<String>>,
}

impl Attacher {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            users: usage::Users::default(),
            attachments: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    fn observe_attachment(&mut self, change: &Change, queue: &mut Enqueue) {
        let Some(attachment) = change.object().typed::<VolumeAttachment>() else { return };
        let node = &attachment.spec.node_name;
        let of_node = self.attachments.entry(node.clone()).or_default();
        if change.new.is_some() {
            of_node.insert(change.key().clone());
        } else {
            of_node.remove(change.key());
            if of_node.is_empty() {
                self.attachments.remove(node);
            }
            let volume = attachment.spec.source.persistent_volume_name.as_ref();
            for node in volume.and_then(|volume| self.waiting.remove(volume)).into_iter().flatten()
            {
                queue.now(node_key(&node));
            }
        }
        queue.now(node_key(node));
    }

    fn node(&mut self, node: &str, context: &Context<'_>) -> Step {
        let (view, now) = (context.view, context.now);
        let mut step = Step { independent: true, ..Step::default() };
        let wanted = wanted(node, view);
        let mut there = BTreeSet::new();
        let mut wakes: Option<Time> = None;
        let keys = self.attachments.get(node).cloned().unwrap_or_default();
        for key in &keys {
            let object = view.object(Kind::of::<VolumeAttachment>(), key);
            let Some((object, attachment)) =
                object.and_then(|object| Some((object, object.typed::<VolumeAttachment>()?)))
            else {
                continue;
            };
            let name = attachment.spec.source.persistent_volume_name.as_deref().unwrap_or_default();
            there.insert(name.to_owned());
            let users = wanted.get(name);
            let due = self.attend(object, attachment, users, now, &mut step);
            wakes = wakes.into_iter().chain(due).min();
        }
        for (name, users) in &wanted {
            if there.contains(*name) {
                continue;
            }
            match elsewhere(users.volume, node, view) {
                Some(_) => {
                    let waiting = self.waiting.entry((*name).to_owned()).or_default();
                    if waiting.insert(node.to_owned()) {
                        let text = format!(
                            "Multi-Attach error for volume {name:?} Volume is already exclusively attached to one node and can't be attached to another"
                        );
                        step.writes.extend(users.pods.iter().map(|pod| {
                            event(pod, EventType::Warning, COMPONENT, "FailedAttachVolume", &*text)
                        }));
                    }
                }
                None => {
                    let attachment = attachment(users.volume, node);
                    step.writes.extend(attachment.map(|new| Write::Create(Box::new(new))));
                }
            }
        }
        step.again = wakes.map(|at| at.since(now));
        step
    }

    /// Does what is due for one attachment; says when something will be.
    fn attend(
        &self,
        object: &Object,
        attachment: &VolumeAttachment,
        users: Option<&Users<'_>>,
        now: Time,
        step: &mut Step,
    ) -> Option<Time> {
        let name = &object.key().name;
        if let Some(deleting) = object.header().deleting {
            let due = deleting + duration(Request::Detach, self.seed, name);
            if now < due {
                return Some(due);
            }
            let mut attachment = attachment.clone();
            attachment.metadata.finalizers = None;
            step.write(Write::Update { object: Box::new(attachment), part: Part::Main });
            return None;
        }
        let Some(users) = users else {
            step.write(Write::Delete(Delete::of(object)));
            return None;
        };
        if attachment.status.as_ref().is_some_and(|status| status.attached) {
            return None;
        }
        let due = object.header().created + duration(Request::Attach, self.seed, name);
        if now < due {
            return Some(due);
        }
        let mut attached = attachment.clone();
        attached.metadata.resource_version = None;
        // Device names are handed out in their order; the guest sees NVMe names anyway.
        attached.status = Some(VolumeAttachmentStatus {
            attached: true,
            attachment_metadata: Some([("devicePath".to_owned(), "/dev/xvdaa".to_owned())].into()),
            ..VolumeAttachmentStatus::default()
        });
        step.write(Write::Update { object: Box::new(attached), part: Part::Status });
        let volume = attachment.spec.source.persistent_volume_name.as_deref().unwrap_or_default();
        let text = format!("AttachVolume.Attach succeeded for volume {volume:?} ");
        step.writes.extend(
            users.pods.iter().map(|pod| {
                event(pod, EventType::Normal, COMPONENT, "SuccessfulAttachVolume", &*text)
            }),
        );
        None
    }
}

impl Controller for Attacher {
    fn name(&self) -> &'static str {
        "persistentvolume-attach-detach-controller"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        self.users.observe(change);
        if kind == Kind::of::<VolumeAttachment>() {
            self.observe_attachment(change, queue);
        } else if kind == Kind::of::<Pod>() {
            let versions = change.old.iter().chain(&change.new);
            let nodes: BTreeSet<&str> = versions
                .filter(|version| !usage::claims(version).is_empty())
                .filter_map(|version| usage::node(version.typed::<Pod>()?))
                .collect();
            nodes.into_iter().for_each(|node| queue.now(node_key(node)));
        } else if kind == Kind::of::<PersistentVolumeClaim>() {
            // It may have been bound after its pods were.
            let users = self.users.of(change.key(), view);
            let nodes: BTreeSet<&str> = users.filter_map(|(_, pod)| usage::node(pod)).collect();
            nodes.into_iter().for_each(|node| queue.now(node_key(node)));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        self.node(&key.key.name, context)
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        match error.reason {
            StatusReason::AlreadyExists | StatusReason::NotFound => OnError::Forget,
            _ => OnError::Retry,
        }
    }
}

fn node_key(node: &str) -> WorkKey {
    WorkKey::object(Kind::of::<k8s_openapi::api::core::v1::Node>(), &ObjectKey::cluster(node))
}

/// A volume with the pods of one node that use it.
struct Users<'v> {
    volume: &'v PersistentVolume,
    pods: Vec<&'v Object>,
}

/// The volumes that the pods of a node need.
fn wanted<'v>(node: &str, view: &'v View) -> BTreeMap<&'v str, Users<'v>> {
    let mut wanted: BTreeMap<&str, Users<'_>> = BTreeMap::new();
    for object in view.pods_on(node) {
        if object.typed::<Pod>().is_none_or(is_terminal) {
            continue;
        }
        for claim in usage::claims(object) {
            let claim = view.get::<PersistentVolumeClaim>(&claim);
            let name = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.as_deref());
            let volume = name.and_then(|name| view.get_cluster::<PersistentVolume>(name));
            if let (Some(name), Some(volume)) = (name, volume)
                && handle(volume).is_some()
            {
                let users = wanted.entry(name).or_insert(Users { volume, pods: Vec::new() });
                users.pods.push(object);
            }
        }
    }
    wanted
}

/// The handle of a volume of a simulated driver, and the driver.
fn handle(volume: &PersistentVolume) -> Option<(&str, &'static Driver)> {
    let csi = volume.spec.as_ref()?.csi.as_ref()?;
    Some((csi.volume_handle.as_str(), driver(&csi.driver)?))
}

/// Another node that has a volume which only one node can have.
fn elsewhere<'v>(volume: &PersistentVolume, node: &str, view: &'v View) -> Option<&'v str> {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
    let is_shared =
        modes.into_iter().flatten().any(|mode| matches!(&**mode, "ReadWriteMany" | "ReadOnlyMany"));
    if is_shared {
        return None;
    }
    view.list::<VolumeAttachment>()
        .filter(|one| one.spec.source.persistent_volume_name == volume.metadata.name)
        .map(|one| one.spec.node_name.as_str())
        .find(|other| *other != node)
}

fn attachment(volume: &PersistentVolume, node: &str) -> Option<VolumeAttachment> {
    let (handle, driver) = handle(volume)?;
    Some(VolumeAttachment {
        metadata: ObjectMeta {
            name: Some(attachment_name(handle, driver.name, node)),
            finalizers: Some(vec![driver.attacher.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: VolumeAttachmentSpec {
            attacher: driver.name.to_owned(),
            node_name: node.to_owned(),
            source: VolumeAttachmentSource {
                persistent_volume_name: volume.metadata.name.clone(),
                ..VolumeAttachmentSource::default()
            },
        },
        status: None,
    })
}
