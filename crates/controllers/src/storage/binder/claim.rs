//! One claim: which volume it gets, and what is said while it gets none.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use wharf_model::ebs;
use wharf_model::kinds::Kind;
use wharf_model::labels::{
    BETA_STORAGE_PROVISIONER, BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE,
    STORAGE_PROVISIONER,
};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::is_terminal;
use wharf_model::storage::default_class;
use wharf_ports::cluster::{Part, Write};
use wharf_ports::controller::{Context, Step};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::super::usage;
use super::{COMPONENT, Seen, VolumeBinder, matching, volume, volume_name};
use crate::workloads::event;

/// Brings one claim closer to its volume.
pub(super) fn sync(key: &ObjectKey, binder: &mut VolumeBinder, context: &Context<'_>) -> Step {
    let mut step = Step::done();
    let object = context.view.object(Kind::of::<PersistentVolumeClaim>(), key);
    let Some((object, claim)) =
        object.and_then(|object| Some((object, object.typed::<PersistentVolumeClaim>()?)))
    else {
        return step;
    };
    let Some(spec) = claim.spec.as_ref() else { return step };
    let VolumeBinder { pending, users, binding, .. } = binder;
    let said = pending.get_mut(key);
    let mut about = About { object, claim, spec, said, users, binding, step: &mut step };
    if annotation(claim, BIND_COMPLETED).is_some() {
        about.bound(context);
    } else {
        match volume_name(claim) {
            Some(name) => about.asks_for(name, context),
            None => about.unbound(context),
        }
    }
    step
}

struct About<'a> {
    object: &'a Object,
    claim: &'a PersistentVolumeClaim,
    spec: &'a PersistentVolumeClaimSpec,
    said: Option<&'a mut String>,
    users: &'a usage::Users,
    binding: &'a mut BTreeMap<ObjectKey, Seen>,
    step: &'a mut Step,
}

impl About<'_> {
    /// A claim that names no volume.
    fn unbound(&mut self, context: &Context<'_>) {
        let view = context.view;
        let class_name = matching::class(self.spec.storage_class_name.as_ref());
        let class = view.get_cluster::<StorageClass>(class_name);
        let waits = class.is_some_and(|class| {
            class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
        });
        let key = self.object.key();
        let is_current = |seen: &Seen| {
            let volume = view.get_cluster::<PersistentVolume>(seen.name.as_deref().unwrap_or(""));
            volume.is_some_and(|volume| Seen::of(volume) == *seen)
        };
        if self.binding.get(key).is_some_and(is_current) {
            // What was written has not shown up.
            return;
        }
        let binding = &*self.binding;
        let is_taken = |volume: &PersistentVolume| {
            let seen = Seen::of(volume);
            binding.iter().any(|(claim, other)| claim != key && *other == seen)
        };
        if let Some(volume) = matching::best(self.claim, waits, is_taken, view) {
            return self.bind(volume, context);
        }
        if self.claim.metadata.deletion_timestamp.is_some() {
            return;
        }
        if self.spec.storage_class_name.is_none()
            && let Some(default) = default_class(view.list::<StorageClass>())
        {
            // The class became the default after the claim (KEP-3333).
            let mut claim = self.claim.clone();
            claim
                .spec
                .get_or_insert_default()
                .storage_class_name
                .clone_from(&default.metadata.name);
            self.step.write(Write::Update { object: Box::new(claim), part: Part::Main });
            return;
        }
        if waits && annotation(self.claim, SELECTED_NODE).is_none() {
            let (reason, text) = self.waiting(view);
            self.say(EventType::Normal, reason, text);
        } else if !class_name.is_empty() {
            self.provision(class_name, class);
        } else {
            let text = "no persistent volumes available for this claim and no storage class is set";
            self.say(EventType::Normal, "FailedBinding", text.to_owned());
        }
    }

    /// What a claim waits for: a pod that uses it, or that pod's node.
    fn waiting(&self, view: &View) -> (&'static str, String) {
        let pods: Vec<&str> = self
            .users
            .of(self.object.key(), view)
            .filter(|(_, pod)| usage::node(pod).is_none() && !is_terminal(pod))
            .map(|(object, _)| object.key().name.as_str())
            .collect();
        match pods.as_slice() {
            [] => (
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".to_owned(),
            ),
            [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            pods => (
                "WaitForPodScheduled",
                format!("waiting for pods {} to be scheduled", pods.join(",")),
            ),
        }
    }

    /// Asks the provisioner of the claim's class for a volume.
    fn provision(&mut self, name: &str, class: Option<&StorageClass>) {
        let Some(class) = class else {
            let text = format!("storageclass.storage.k8s.io {name:?} not found");
            return self.say(EventType::Warning, "ProvisioningFailed", text);
        };
        let provisioner = match class.provisioner.as_str() {
            ebs::IN_TREE => ebs::DRIVER,
            // No volume is made by the control plane itself any more.
            other if other.starts_with("kubernetes.io/") => {
                let text = format!("no volume plugin matched name: {other}");
                return self.say(EventType::Warning, "ProvisioningFailed", text);
            }
            other => other,
        };
        if annotation(self.claim, STORAGE_PROVISIONER) != Some(provisioner) {
            let mut claim = self.claim.clone();
            let annotations = claim.metadata.annotations.get_or_insert_default();
            for key in [STORAGE_PROVISIONER, BETA_STORAGE_PROVISIONER] {
                annotations.insert(key.to_owned(), provisioner.to_owned());
            }
            self.step.write(Write::Update { object: Box::new(claim), part: Part::Main });
        }
        let text = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        self.say(EventType::Normal, "ExternalProvisioning", text);
    }

    /// A claim that asks for a volume by name.
    fn asks_for(&mut self, name: &str, context: &Context<'_>) {
        let Some(volume) = context.view.get_cluster::<PersistentVolume>(name) else { return };
        let Some(spec) = volume.spec.as_ref() else { return };
        if spec.claim_ref.is_none() {
            match matching::mismatch(self.spec, spec) {
                Some(why) => {
                    let text = format!("Cannot bind to requested volume {name:?}: {why}");
                    self.tell(EventType::Warning, "VolumeMismatch", text);
                }
                None => self.bind(volume, context),
            }
        } else if matching::is_reserved(volume, self.claim) {
            self.bind(volume, context);
        } else if annotation(self.claim, BOUND_BY_CONTROLLER).is_none() {
            let text = format!("volume {name:?} already bound to a different claim.");
            self.tell(EventType::Warning, "FailedBinding", text);
        }
    }

    /// A claim that was bound once: it stays so, or is lost.
    fn bound(&mut self, context: &Context<'_>) {
        let name = volume_name(self.claim);
        let volume = name.and_then(|name| context.view.get_cluster::<PersistentVolume>(name));
        let (reason, text) = match (name, volume) {
            (None, _) => (
                "ClaimLost",
                "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
            ),
            (_, None) => (
                "ClaimLost",
                "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
            ),
            (_, Some(volume)) => {
                let is_free = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
                if is_free || matching::is_reserved(volume, self.claim) {
                    return self.bind(volume, context);
                }
                (
                    "ClaimMisbound",
                    "Two claims are bound to the same volume, this one is bound incorrectly",
                )
            }
        };
        if phase(self.claim) != Some("Lost") {
            let mut claim = self.claim.clone();
            claim.status.get_or_insert_default().phase = Some("Lost".to_owned());
            self.step.write(Write::Update { object: Box::new(claim), part: Part::Status });
            let write = event(self.object, EventType::Warning, COMPONENT, reason, text);
            self.step.write(write);
        }
    }

    /// Binds claim and volume to each other: what is missing of it is written, the volume's part
    /// first.
    fn bind(&mut self, volume: &PersistentVolume, context: &Context<'_>) {
        let (now, claim) = (context.now, self.claim);
        let mut bound = volume.clone();
        let spec = bound.spec.get_or_insert_default();
        if spec.claim_ref.as_ref().is_none_or(|reference| reference.uid != claim.metadata.uid) {
            if spec.claim_ref.is_none() {
                let annotations = bound.metadata.annotations.get_or_insert_default();
                annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
            }
            spec.claim_ref = Some(reference(claim));
        }
        volume::set_phase(&mut bound, "Bound", "", now);
        if bound != *volume {
            self.binding.insert(self.object.key().clone(), Seen::of(volume));
            self.step.write(Write::Update { object: Box::new(bound), part: Part::All });
        }

        let mut claim = claim.clone();
        let annotations = claim.metadata.annotations.get_or_insert_default();
        annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
        let spec = claim.spec.get_or_insert_default();
        if volume_name(self.claim).is_none() {
            annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
            spec.volume_name.clone_from(&volume.metadata.name);
        }
        let was_bound = phase(&claim) == Some("Bound");
        let status = claim.status.get_or_insert_default();
        status.phase = Some("Bound".to_owned());
        let of_volume = volume.spec.as_ref();
        status.access_modes = of_volume.and_then(|spec| spec.access_modes.clone());
        if !was_bound {
            // Later on it is the resizer's to say.
            status.capacity = of_volume.and_then(|spec| spec.capacity.clone());
        }
        if claim != *self.claim {
            self.step.write(Write::Update { object: Box::new(claim), part: Part::All });
        }
    }

    /// Says something of a pending claim, if it is news.
    fn say(&mut self, kind: EventType, reason: &str, text: String) {
        match &mut self.said {
            Some(said) if **said == text => return,
            Some(said) => (**said).clone_from(&text),
            None => {}
        }
        self.tell(kind, reason, text);
    }

    fn tell(&mut self, kind: EventType, reason: &str, text: String) {
        self.step.write(event(self.object, kind, COMPONENT, reason, text));
    }
}

/// The reference by which a volume names its claim.
pub(in super::super) fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

fn phase(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.phase.as_deref()
}

fn annotation<'c>(claim: &'c PersistentVolumeClaim, key: &str) -> Option<&'c str> {
    claim.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}
