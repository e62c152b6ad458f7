//! VolumeBinding between decision and binding: what a pod takes is set aside in the snapshot, then
//! written (a volume is kept for its claim, a claim is told its node), and the pod waits until its
//! claims are bound.
//!
//! The volumes themselves are bound and made by others; who cannot make one takes the claim's node
//! off again, and then the pod looks for another.

use std::collections::BTreeMap;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::cluster::{Part, Write};
use wharf_ports::view::View;
use wharf_scheduler::{Plugin, PodInfo, Profile, Snapshot, VolumePlan};

use super::reserve::{Concerned, PreBind, Refusal, Reserver, Waiting};

/// The plugin's part between decision and binding.
#[derive(Debug, Default)]
pub(super) struct VolumeBinder {
    /// Pods with claims that are not bound yet, by uid.
    pods: BTreeMap<CompactString, Pending>,
    /// Which of them a claim or volume concerns.
    concerned: Concerned<(Kind, ObjectKey)>,
}

/// A pod on its way to its volumes.
#[derive(Debug)]
struct Pending {
    node: CompactString,
    plan: VolumePlan,
    /// For each binding and then each provision, whether what was written has been seen. Before
    /// that a difference means that it is on its way; afterwards, that somebody took it back.
    seen: Vec<bool>,
}

/// How far a claim is.
enum Progress {
    Bound,
    Waits,
    /// Waits, with something to write now.
    Writes(Box<Write>),
}

impl Reserver for VolumeBinder {
    fn plugin(&self) -> Plugin {
        Plugin::VolumeBinding
    }

    fn reserve(
        &mut self,
        pod: &PodInfo,
        node: &str,
        snapshot: &mut Snapshot,
        _: &View,
    ) -> Result<bool, Refusal> {
        if pod.volumes.is_none() {
            return Ok(false);
        }
        let plan = snapshot
            .reserve_volumes(pod, node)
            .map_err(|error| Refusal::Error(error.to_string()))?;
        if plan.is_empty() {
            return Ok(false);
        }
        for object in objects_of(&plan) {
            self.concerned.add(object, &pod.uid);
        }
        let seen = vec![false; plan.claims().count()];
        self.pods.insert(pod.uid.clone(), Pending { node: node.into(), plan, seen });
        Ok(true)
    }

    fn unreserve(&mut self, pod: &PodInfo, snapshot: &mut Snapshot) {
        let Some(pending) = self.pods.remove(&pod.uid) else { return };
        for object in objects_of(&pending.plan) {
            self.concerned.remove(&object, &pod.uid);
        }
        // Who may have them now hears that the pod is gone.
        snapshot.release_volumes(&pod.uid);
    }

    fn bound(&mut self, pod: &PodInfo, snapshot: &mut Snapshot) {
        self.unreserve(pod, snapshot);
    }

    fn pre_bind(
        &mut self,
        pod: &PodInfo,
        _: &str,
        snapshot: &mut Snapshot,
        view: &View,
        _: Time,
    ) -> PreBind {
        let Some(pending) = self.pods.get_mut(&pod.uid) else { return PreBind::Done };
        match pending.go_on(snapshot, view) {
            Ok(None) => PreBind::Done,
            Ok(Some(writes)) => PreBind::Waits(Waiting { writes, ..Waiting::default() }),
            Err(error) => PreBind::Failed(Refusal::Error(format!("binding volumes: {error}"))),
        }
    }

    fn patience(&self, profile: &Profile) -> Duration {
        profile.arguments.volume_bind_timeout
    }

    fn concerned(&self, kind: Kind, key: &ObjectKey) -> Vec<CompactString> {
        if self.concerned.is_empty() {
            return Vec::new();
        }
        self.concerned.of(&(kind, key.clone())).to_vec()
    }

    fn renew(&mut self, snapshot: &mut Snapshot) {
        for (uid, pending) in &self.pods {
            snapshot.set_volumes_aside(uid, &pending.node, &pending.plan);
        }
    }
}

/// The objects whose changes move a plan on.
fn objects_of(plan: &VolumePlan) -> impl Iterator<Item = (Kind, ObjectKey)> {
    let claims = plan.claims().map(|claim| (Kind::of::<PersistentVolumeClaim>(), claim.clone()));
    let volumes = plan.bindings.iter();
    let volumes = volumes
        .map(|(_, volume)| (Kind::of::<PersistentVolume>(), ObjectKey::cluster(volume.as_str())));
    claims.chain(volumes)
}

impl Pending {
    /// What is to be written now; `None` when every claim is bound.
    fn go_on(&mut self, snapshot: &Snapshot, view: &View) -> Result<Option<Vec<Write>>, String> {
        let Self { node, plan, seen } = self;
        let mut writes = Vec::new();
        let mut bound = true;
        let mut note = |progress: Progress| match progress {
            Progress::Bound => {}
            Progress::Waits => bound = false,
            Progress::Writes(write) => {
                bound = false;
                writes.push(*write);
            }
        };
        let mut seen = seen.iter_mut();
        for ((claim, volume), seen) in plan.bindings.iter().zip(&mut seen) {
            note(bind(claim, volume, node, seen, snapshot, view)?);
        }
        for (claim, seen) in plan.provisions.iter().zip(&mut seen) {
            note(provision(claim, node, seen, snapshot, view)?);
        }
        Ok((!bound).then_some(writes))
    }
}

/// Keeps a volume for a claim and looks whether they are bound.
fn bind(
    claim: &ObjectKey,
    volume: &CompactString,
    node: &str,
    seen: &mut bool,
    snapshot: &Snapshot,
    view: &View,
) -> Result<Progress, String> {
    let claim = find(claim, view)?;
    let Some(object) = view.get_cluster::<PersistentVolume>(volume) else {
        return Err(format!("could not find persistentvolume {volume:?}"));
    };
    reachable(volume, node, snapshot)?;
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    let name = claim.metadata.name.as_deref();
    let kept_for = object.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    match kept_for {
        Some(kept)
            if kept.uid.as_deref() == Some(uid)
                && kept.name.as_deref() == name
                && kept.namespace == claim.metadata.namespace =>
        {
            *seen = true;
            Ok(if is_bound(claim) { Progress::Bound } else { Progress::Waits })
        }
        Some(kept)
            if kept.name.as_deref() != name
                || kept.namespace != claim.metadata.namespace
                || kept.uid.as_deref().is_some_and(|kept| !kept.is_empty()) =>
        {
            Err(format!("pv {volume:?} was taken by another claim"))
        }
        _ if *seen => Err(format!("ClaimRef got reset for pv {volume:?}")),
        _ => {
            let mut object = object.clone();
            // A volume that a user keeps for the claim by name stays marked as the user's.
            if kept_for.is_none() {
                let annotations = object.metadata.annotations.get_or_insert_default();
                annotations.insert(labels::BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
            }
            object.spec.get_or_insert_default().claim_ref = Some(ObjectReference {
                kind: Some("PersistentVolumeClaim".to_owned()),
                api_version: Some("v1".to_owned()),
                namespace: claim.metadata.namespace.clone(),
                name: claim.metadata.name.clone(),
                uid: claim.metadata.uid.clone(),
                resource_version: claim.metadata.resource_version.clone(),
                field_path: None,
            });
            Ok(writes(Write::Update { object: Box::new(object), part: Part::Main }))
        }
    }
}

/// Tells a claim for which node its volume is to be made, and looks whether it is there.
fn provision(
    claim: &ObjectKey,
    node: &str,
    seen: &mut bool,
    snapshot: &Snapshot,
    view: &View,
) -> Result<Progress, String> {
    let object = find(claim, view)?;
    let annotations = object.metadata.annotations.as_ref();
    let selected = annotations.and_then(|all| all.get(labels::SELECTED_NODE));
    match selected {
        Some(selected) if selected == node => *seen = true,
        None if !*seen => {
            let mut object = object.clone();
            let annotations = object.metadata.annotations.get_or_insert_default();
            annotations.insert(labels::SELECTED_NODE.to_owned(), node.to_owned());
            return Ok(writes(Write::Update { object: Box::new(object), part: Part::Main }));
        }
        _ => return Err(format!("provisioning failed for PVC {:?}", claim.name.as_str())),
    }
    let volume = object.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    if let Some(volume) = volume.filter(|volume| !volume.is_empty()) {
        reachable(volume, node, snapshot)?;
    }
    Ok(if is_bound(object) { Progress::Bound } else { Progress::Waits })
}

fn writes(write: Write) -> Progress {
    Progress::Writes(Box::new(write))
}

fn find<'v>(claim: &ObjectKey, view: &'v View) -> Result<&'v PersistentVolumeClaim, String> {
    view.get(claim).ok_or_else(|| format!("could not find persistentvolumeclaim \"{claim}\""))
}

/// Refuses a volume that the node cannot reach after all. One that is not known yet may come.
fn reachable(volume: &str, node: &str, snapshot: &Snapshot) -> Result<(), String> {
    if snapshot.reaches_volume(node, volume) == Some(false) {
        return Err(format!(
            "pv {volume:?} node affinity doesn't match node {node:?}: no matching NodeSelectorTerms"
        ));
    }
    Ok(())
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    named.is_some_and(|name| !name.is_empty())
        && claim
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|annotations| annotations.contains_key(labels::BIND_COMPLETED))
}
