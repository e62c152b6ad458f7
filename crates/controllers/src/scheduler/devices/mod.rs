//! DynamicResources outside the core: claims, classes and slices as the scheduler follows them. The
//! plugin's part between decision and binding is in `binder`, which keeps the writes that are under
//! way in `sent`.

mod binder;
mod sent;

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_ports::cluster::{Delete, Part, Write};
use wharf_ports::view::View;
use wharf_scheduler::{DeviceNews, News, Plugin, PodInfo, Snapshot, is_extended_resource_claim};

pub(super) use binder::DeviceBinder;
use binder::FINALIZER;

use super::Scheduler;

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

/// Takes the devices of an unused claim away, so that it can get others. A claim that was made for
/// extended resources goes altogether: another node may need another.
pub(super) fn deallocate(claim: &ObjectKey, view: &View) -> Vec<Write> {
    let kind = Kind::of::<ResourceClaim>();
    let Some(object) = view.object(kind, claim) else { return Vec::new() };
    let Some(mut claim) = object.draft::<ResourceClaim>() else { return Vec::new() };
    if is_extended_resource_claim(&claim) {
        let finalizers = claim.metadata.finalizers.get_or_insert_default();
        let before = finalizers.len();
        finalizers.retain(|one| one != FINALIZER);
        let is_protected = finalizers.len() < before;
        let free = Write::Update { object: Box::new(claim), part: Part::Main };
        let delete = Write::Delete(Delete::of(object));
        return is_protected.then_some(free).into_iter().chain([delete]).collect();
    }
    let Some(status) = claim.status.as_mut() else { return Vec::new() };
    status.allocation = None;
    status.reserved_for = None;
    status.devices = None;
    vec![Write::Update { object: Box::new(claim), part: Part::Status }]
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
