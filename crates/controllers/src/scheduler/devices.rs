//! DynamicResources outside the core: claims, classes and slices as the scheduler follows them, and
//! the plugin's part between decision and binding. What a pod takes is set aside in the snapshot,
//! then written into its claims, and the pod waits until they show it.

use std::collections::BTreeMap;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::resource::v1::{
    DeviceClass, ResourceClaim, ResourceClaimConsumerReference, ResourceSlice,
};
use rustc_hash::FxHashMap;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::cluster::{Part, Write};
use wharf_ports::view::View;
use wharf_scheduler::{DeviceNews, DevicePlan, News, Plugin, PodInfo, Profile, Snapshot};

use super::Scheduler;
use super::reserve::{PreBind, Refusal, Reserver};

/// Keeps a claim as long as devices are allocated for it.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// As many may share a claim.
const CONSUMERS_MAX: usize = 256;

/// Whether a kind is one of those in here.
pub(super) fn is_of_devices(kind: Kind) -> bool {
    kind == Kind::of::<ResourceClaim>()
        || kind == Kind::of::<DeviceClass>()
        || kind == Kind::of::<ResourceSlice>()
}

/// Gives a new snapshot all of a view's objects of devices.
pub(super) fn refeed(snapshot: &mut Snapshot, view: &View) {
    for class in view.list::<DeviceClass>() {
        snapshot.set_device_class(class);
    }
    for slice in view.list::<ResourceSlice>() {
        snapshot.set_resource_slice(slice);
    }
    for claim in view.list::<ResourceClaim>() {
        snapshot.set_resource_claim(claim);
    }
}

/// Takes the devices of an unused claim away, so that it can get others.
pub(super) fn deallocate(claim: &ObjectKey, view: &View) -> Option<Write> {
    let mut claim = view.get::<ResourceClaim>(claim)?.clone();
    let status = claim.status.as_mut()?;
    status.allocation = None;
    status.reserved_for = None;
    Some(Write::Update { object: Box::new(claim), part: Part::Status })
}

impl Scheduler {
    /// Takes in an object of devices as it is now. Returns whether there is work.
    pub(super) fn observe_devices(&mut self, kind: Kind, key: &ObjectKey, view: &View) -> bool {
        let snapshot = &mut self.snapshot;
        let news = if kind == Kind::of::<ResourceClaim>() {
            match view.get::<ResourceClaim>(key) {
                Some(claim) => Some(snapshot.set_resource_claim(claim)),
                None => snapshot.remove_resource_claim(key),
            }
        } else if kind == Kind::of::<DeviceClass>() {
            match view.get::<DeviceClass>(key) {
                Some(class) => Some(snapshot.set_device_class(class)),
                None => {
                    snapshot.remove_device_class(&key.name);
                    None
                }
            }
        } else {
            match view.get::<ResourceSlice>(key) {
                Some(slice) => Some(snapshot.set_resource_slice(slice)),
                None => snapshot.remove_resource_slice(&key.name),
            }
        };
        let Some(news) = news else { return false };
        let let_in = match &news {
            DeviceNews::Claim { key, .. } => self.claim_changed(key),
            DeviceNews::Class | DeviceNews::Slice => false,
        };
        self.wake(&News::Devices(&news)) | let_in
    }

    /// Lets pods in that have waited for a claim.
    fn claim_changed(&mut self, key: &ObjectKey) -> bool {
        let mut work = false;
        for uid in self.awaiting_claims.remove(key).unwrap_or_default() {
            let Some(pod) = self.queue.get(&uid).cloned() else { continue };
            let gate = self.gate(&pod, self.queue.profile_of(&uid).unwrap_or(0));
            self.await_claims(&pod, gate);
            work |= self.queue.regate(&uid, gate);
        }
        work
    }

    /// Notes for which claim a pod is kept out of the queue, if it is for one. A claim that has not
    /// been made yet is told of by the pod itself.
    pub(super) fn await_claims(&mut self, pod: &PodInfo, gate: Option<Plugin>) {
        if pod.claims.is_none() {
            return;
        }
        self.forget_awaiting(&pod.uid);
        if gate == Some(Plugin::DynamicResources)
            && let Some(Some(missing)) = self.snapshot.missing_claim(pod)
        {
            self.awaiting_claims.entry(missing.clone()).or_default().insert(pod.uid.clone());
        }
    }

    /// Drops what is noted of a pod that was kept out of the queue.
    pub(super) fn forget_awaiting(&mut self, uid: &str) {
        if self.awaiting_claims.is_empty() {
            return;
        }
        self.awaiting_claims.retain(|_, pods| {
            pods.remove(uid);
            !pods.is_empty()
        });
    }
}

/// The plugin's part between decision and binding.
#[derive(Debug, Default)]
pub(super) struct DeviceBinder {
    /// Pods with claims, by uid.
    pods: BTreeMap<CompactString, Pending>,
    /// Which of them a claim concerns.
    concerned: FxHashMap<ObjectKey, Vec<CompactString>>,
}

/// A pod on its way to its devices.
#[derive(Debug)]
struct Pending {
    plan: DevicePlan,
    /// Whether the claim shows what was planned, by claim. Then a difference means that somebody
    /// took it back.
    seen: Vec<bool>,
}

impl Reserver for DeviceBinder {
    fn plugin(&self) -> Plugin {
        Plugin::DynamicResources
    }

    fn reserve(
        &mut self,
        pod: &PodInfo,
        node: &str,
        snapshot: &mut Snapshot,
        _: &View,
    ) -> Result<bool, Refusal> {
        if pod.claims.is_none() {
            return Ok(false);
        }
        let plan = snapshot
            .reserve_devices(pod, node)
            .map_err(|error| Refusal::Rejected(error.to_string()))?;
        if plan.claims.is_empty() {
            return Ok(false);
        }
        for claim in &plan.claims {
            self.concerned.entry(claim.clone()).or_default().push(pod.uid.clone());
        }
        let seen = vec![false; plan.claims.len()];
        self.pods.insert(pod.uid.clone(), Pending { plan, seen });
        Ok(true)
    }

    fn unreserve(&mut self, pod: &PodInfo, snapshot: &mut Snapshot) {
        let Some(pending) = self.pods.remove(&pod.uid) else { return };
        for claim in &pending.plan.claims {
            if let Some(pods) = self.concerned.get_mut(claim) {
                pods.retain(|uid| *uid != pod.uid);
                if pods.is_empty() {
                    self.concerned.remove(claim);
                }
            }
        }
        // Who may have them now hears that the pod is gone.
        snapshot.release_devices(&pod.uid);
    }

    fn bound(&mut self, pod: &PodInfo, snapshot: &mut Snapshot) {
        self.unreserve(pod, snapshot);
    }

    fn pre_bind(
        &mut self,
        pod: &PodInfo,
        _: &str,
        _: &mut Snapshot,
        view: &View,
        _: Time,
    ) -> PreBind {
        let Some(pending) = self.pods.get_mut(&pod.uid) else { return PreBind::Done };
        match pending.go_on(pod, view) {
            Ok(None) => PreBind::Done,
            Ok(Some(writes)) => PreBind::Waits(writes),
            Err(error) => PreBind::Failed(Refusal::Error(error)),
        }
    }

    fn patience(&self, profile: &Profile) -> Duration {
        profile.arguments.device_binding_timeout
    }

    fn concerned(&self, kind: Kind, key: &ObjectKey) -> Vec<CompactString> {
        if self.concerned.is_empty() || kind != Kind::of::<ResourceClaim>() {
            return Vec::new();
        }
        self.concerned.get(key).cloned().unwrap_or_default()
    }

    fn renew(&mut self, snapshot: &mut Snapshot) {
        for (uid, pending) in &self.pods {
            snapshot.set_devices_aside(uid, &pending.plan);
        }
    }
}

impl Pending {
    /// What is to be written now; `None` when every claim has its devices and is reserved for the
    /// pod.
    fn go_on(&mut self, pod: &PodInfo, view: &View) -> Result<Option<Vec<Write>>, String> {
        let mut writes = Vec::new();
        for (key, seen) in self.plan.claims.iter().zip(&mut self.seen) {
            let planned = self.plan.allocations.iter().find(|(claim, _)| claim == key);
            let name = key.name.as_str();
            let Some(claim) = view.get::<ResourceClaim>(key) else {
                return Err(format!("resourceclaim {name:?} not found"));
            };
            let status = claim.status.as_ref();
            let users = status.and_then(|status| status.reserved_for.as_deref());
            let users = users.unwrap_or_default();
            let allocation = status.and_then(|status| status.allocation.as_ref());
            let is_reserved = users.iter().any(|user| user.uid == pod.uid);
            if allocation.is_some() && is_reserved {
                if planned.is_some_and(|(_, planned)| allocation != Some(planned)) {
                    return Err(format!("claim {name:?} has been allocated other devices"));
                }
                *seen = true;
                continue;
            }
            if *seen {
                return Err(format!("claim {name:?} lost its devices or its reservation"));
            }
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("claim {name:?} got deleted in the meantime"));
            }
            if users.len() >= CONSUMERS_MAX {
                return Err(format!("claim {name:?} has too many consumers"));
            }
            let mut claim = claim.clone();
            let status = claim.status.get_or_insert_default();
            match (planned, allocation) {
                (None, None) => return Err(format!("claim {name:?} lost its devices")),
                (Some(_), Some(_)) => {
                    return Err(format!("claim {name:?} got allocated elsewhere in the meantime"));
                }
                (Some((_, planned)), None) => {
                    status.allocation = Some(planned.clone());
                    let finalizers = claim.metadata.finalizers.get_or_insert_default();
                    if finalizers.iter().all(|one| one != FINALIZER) {
                        finalizers.push(FINALIZER.to_owned());
                    }
                }
                (None, Some(_)) => {}
            }
            status.reserved_for.get_or_insert_default().push(ResourceClaimConsumerReference {
                api_group: None,
                resource: "pods".to_owned(),
                name: pod.key.name.to_string(),
                uid: pod.uid.to_string(),
            });
            let part = if planned.is_some() { Part::All } else { Part::Status };
            writes.push(Write::Update { object: Box::new(claim), part });
        }
        let all = self.seen.iter().all(|seen| *seen);
        Ok((!all).then_some(writes))
    }
}
