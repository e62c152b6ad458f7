//! The plugin's part between decision and binding. What a pod takes is set aside in the snapshot,
//! then written into its claims, and the pod waits until they show it.
//!
//! A pod may be gone before that. What was set aside for it stays so as long as its claim may yet
//! show it ([`super::sent`]): others would be given the same devices.

use std::collections::BTreeMap;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Pod, PodExtendedResourceClaimStatus};
use k8s_openapi::api::resource::v1::{
    AllocationResult, ResourceClaim, ResourceClaimConsumerReference,
};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::cluster::{Part, Write};
use wharf_ports::view::View;
use wharf_scheduler::{
    DevicePlan, Plugin, PodInfo, Profile, Snapshot, binding_conditions, extended_resource_claim,
    is_extended_resource_claim,
};

use super::super::reserve::{
    Concerned, PreBind, Refusal, Reserver, Settled, Waiting, WriteOutcome,
};
use super::sent::{SentWrites, Standing};

/// Keeps a claim as long as devices are allocated for it.
pub(super) const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// As many may share a claim.
const CONSUMERS_MAX: usize = 256;

/// The plugin's part between decision and binding.
#[derive(Debug, Default)]
pub(in super::super) struct DeviceBinder {
    /// Pods with claims, by uid.
    pods: BTreeMap<CompactString, Pending>,
    /// Which of them a claim concerns.
    concerned: Concerned<ObjectKey>,
    /// What has been written of it.
    sent: SentWrites,
}

/// A pod on its way to its devices.
#[derive(Debug)]
struct Pending {
    plan: DevicePlan,
    /// Whether the claim shows what was planned, by claim. Then a difference means that somebody
    /// took it back.
    seen: Vec<bool>,
    /// Whether all claims had their devices once, so that these only had to be ready.
    allocated: bool,
    /// Whether it has been told that they are waited for.
    told: bool,
    /// The claim for the pod's extended resources, while it has to be made.
    making: Making,
    /// What the pod is to say of that claim.
    says: Option<PodExtendedResourceClaimStatus>,
}

/// How far the claim is that is made for a pod's extended resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Making {
    /// There is nothing to make, or it is there.
    Done,
    Todo,
    Asked,
    /// The answer leaves open whether it was made.
    Doubted,
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
        if pod.claims.is_none() && pod.extended.is_none() {
            return Ok(false);
        }
        let plan = snapshot
            .reserve_devices(pod, node)
            .map_err(|error| Refusal::Rejected(error.to_string()))?;
        if plan.claims.is_empty() && plan.extended.is_none() {
            return Ok(false);
        }
        for claim in &plan.claims {
            self.concerned.add(claim.clone(), &pod.uid);
        }
        let seen = vec![false; plan.claims.len()];
        let making = if plan.extended.is_some() { Making::Todo } else { Making::Done };
        let (allocated, told, says) = (false, false, None);
        let pending = Pending { plan, seen, allocated, told, making, says };
        self.pods.insert(pod.uid.clone(), pending);
        Ok(true)
    }

    fn unreserve(&mut self, pod: &PodInfo, snapshot: &mut Snapshot) {
        let Some(pending) = self.pods.remove(&pod.uid) else { return };
        for claim in &pending.plan.claims {
            self.concerned.remove(claim, &pod.uid);
        }
        // Who may have them now hears that the pod is gone.
        snapshot.release_devices(&pod.uid);
        self.sent.abandon(&pod.uid, &pending.plan, snapshot);
    }

    fn bound(&mut self, pod: &PodInfo, snapshot: &mut Snapshot) {
        self.unreserve(pod, snapshot);
    }

    fn pre_bind(
        &mut self,
        pod: &PodInfo,
        node: &str,
        snapshot: &mut Snapshot,
        view: &View,
        now: Time,
    ) -> PreBind {
        let Some(pending) = self.pods.get_mut(&pod.uid) else { return PreBind::Done };
        match pending.make(pod, snapshot, view) {
            Ok(Made::Here(claim)) => {
                self.concerned.add(claim, &pod.uid);
            }
            Ok(Made::Waits(writes)) => {
                return PreBind::Waits(Waiting { writes, ..Waiting::default() });
            }
            Ok(Made::Nothing) => {}
            Err(error) => return PreBind::Failed(Refusal::Error(error)),
        }
        let done = match pending.go_on(pod, view, &mut self.sent, now) {
            Ok(None) => match pending.say(pod, view) {
                Some(write) => Ok(Some(Waiting { writes: vec![write], ..Waiting::default() })),
                None => pending.is_ready(node, view),
            },
            Ok(Some(writes)) => Ok(Some(Waiting { writes, ..Waiting::default() })),
            Err(error) => Err(error),
        };
        match done {
            Ok(None) => PreBind::Done,
            Ok(Some(waiting)) => PreBind::Waits(waiting),
            Err(error) => PreBind::Failed(Refusal::Error(error)),
        }
    }

    fn give_up(&mut self, pod: &PodInfo, snapshot: &mut Snapshot) -> Option<&'static str> {
        for claim in &self.pods.get(&pod.uid)?.plan.claims {
            snapshot.give_up_binding(claim);
        }
        Some("device binding timeout")
    }

    fn patience(&self, profile: &Profile) -> Duration {
        profile.arguments.device_binding_timeout
    }

    fn drivers_awaited(&self, pod: &PodInfo, view: &View) -> Vec<CompactString> {
        let pending = self.pods.get(&pod.uid).filter(|pending| pending.allocated);
        let claims = pending.into_iter().flat_map(|pending| &pending.plan.claims);
        let claims: Vec<&ResourceClaim> = claims.filter_map(|key| view.get(key)).collect();
        let mut drivers: Vec<CompactString> = claims
            .into_iter()
            .filter_map(|claim| claim.status.as_ref()?.allocation.as_ref()?.devices.as_ref())
            .flat_map(|devices| devices.results.iter().flatten())
            .filter(|result| result.binding_conditions.as_ref().is_some_and(|all| !all.is_empty()))
            .map(|result| result.driver.as_str().into())
            .collect();
        drivers.sort_unstable();
        drivers.dedup();
        drivers
    }

    fn concerned(&self, kind: Kind, key: &ObjectKey) -> Vec<CompactString> {
        if kind == Kind::of::<Pod>() {
            // It may be waiting to say something of itself.
            let saying = self.pods.iter().filter(|(_, pending)| pending.says.is_some());
            return saying.map(|(uid, _)| uid.clone()).collect();
        }
        if kind != Kind::of::<ResourceClaim>() {
            return Vec::new();
        }
        // What a claim is called that is being made is not known before it is there.
        let making = self.pods.iter().filter(|(_, pending)| pending.making != Making::Done);
        let mut concerned: Vec<_> = making.map(|(uid, _)| uid.clone()).collect();
        concerned.extend(self.concerned.of(key).iter().cloned());
        concerned
    }

    fn renew(&mut self, snapshot: &mut Snapshot) {
        for (uid, pending) in &self.pods {
            snapshot.set_devices_aside(uid, &pending.plan);
        }
        self.sent.renew(snapshot);
    }

    fn written(&mut self, write: &Write, outcome: WriteOutcome) -> bool {
        let Write::Create(object) = write else { return self.sent.told(write, outcome) };
        let owner = object.meta().owner_references.iter().flatten().next();
        let pending = owner.and_then(|owner| self.pods.get_mut(owner.uid.as_str()));
        let Some(pending) = pending.filter(|pending| pending.making == Making::Asked) else {
            return false;
        };
        pending.making = match outcome {
            WriteOutcome::Done(_) => Making::Asked,
            WriteOutcome::Refused => Making::Todo,
            WriteOutcome::Doubted => Making::Doubted,
        };
        true
    }

    fn settle(&mut self, snapshot: &mut Snapshot, view: &View, now: Time) -> Settled {
        self.sent.settle(snapshot, view, now)
    }

    fn settles_at(&self) -> Option<Time> {
        self.sent.settles_at()
    }

    fn is_unsettled(&self) -> bool {
        self.sent.has_abandoned()
    }
}

/// What has become of the claim for extended resources.
enum Made {
    Nothing,
    Waits(Vec<Write>),
    /// It has come, and is called this.
    Here(ObjectKey),
}

impl Pending {
    /// Makes the claim for the pod's extended resources. When it is there, what was set aside for
    /// it is set aside for the claim by its name.
    fn make(
        &mut self,
        pod: &PodInfo,
        snapshot: &mut Snapshot,
        view: &View,
    ) -> Result<Made, String> {
        let Some(extended) = self.plan.extended.as_ref() else { return Ok(Made::Nothing) };
        let claims = view.owned_by(&pod.uid, Kind::of::<ResourceClaim>());
        let made = claims.filter_map(|object| object.typed::<ResourceClaim>()).find(|claim| {
            is_extended_resource_claim(claim) && claim.metadata.deletion_timestamp.is_none()
        });
        let Some(claim) = made else {
            return match self.making {
                Making::Todo => {
                    self.making = Making::Asked;
                    let claim = extended_resource_claim(pod, extended);
                    Ok(Made::Waits(vec![Write::Create(Box::new(claim))]))
                }
                Making::Doubted => {
                    Err("create claim for extended resources: it is not known whether it was made"
                        .to_owned())
                }
                Making::Asked | Making::Done => Ok(Made::Waits(Vec::new())),
            };
        };
        let requests = claim.spec.devices.as_ref().and_then(|devices| devices.requests.as_ref());
        if requests != Some(&extended.requests) {
            return Err("the claim for extended resources asks for something else".to_owned());
        }
        let key = ObjectKey::of(&claim.metadata);
        self.says = Some(PodExtendedResourceClaimStatus {
            request_mappings: extended.mappings.clone(),
            resource_claim_name: key.name.to_string(),
        });
        for (planned, _) in &mut self.plan.allocations {
            if *planned == extended.key {
                *planned = key.clone();
            }
        }
        self.plan.claims.push(key.clone());
        self.plan.extended = None;
        self.seen.push(false);
        self.making = Making::Done;
        snapshot.set_devices_aside(&pod.uid, &self.plan);
        Ok(Made::Here(key))
    }

    /// Says in the pod's status which claim serves its extended resources. `None` if it says so.
    fn say(&mut self, pod: &PodInfo, view: &View) -> Option<Write> {
        let says = self.says.as_ref()?;
        let object = view.object(Kind::of::<Pod>(), &pod.key)?;
        let mut pod = object.draft::<Pod>()?;
        let status = pod.status.get_or_insert_default();
        if status.extended_resource_claim_status.as_ref() == Some(says) {
            self.says = None;
            return None;
        }
        status.extended_resource_claim_status = Some(says.clone());
        Some(Write::Update { object: Box::new(pod), part: Part::Status })
    }

    /// What is to be written now; `None` when every claim has its devices and is reserved for the
    /// pod.
    fn go_on(
        &mut self,
        pod: &PodInfo,
        view: &View,
        sent: &mut SentWrites,
        now: Time,
    ) -> Result<Option<Vec<Write>>, String> {
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
                let is_other = |planned| allocation.is_some_and(|it| !is_same(it, planned));
                if planned.is_some_and(|(_, planned)| is_other(planned)) {
                    return Err(format!("claim {name:?} has been allocated other devices"));
                }
                *seen = true;
                sent.forget(key, &pod.uid);
                continue;
            }
            match sent.standing(key, &pod.uid, view) {
                Standing::UnderWay => continue,
                Standing::Undone => *seen = true,
                Standing::Free => {}
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
            // Counts for the time in which its devices have to become ready, whoever waits for that.
            if let Some(allocation) = &mut status.allocation {
                allocation.allocation_timestamp.get_or_insert_with(|| now.to_meta());
            }
            status.reserved_for.get_or_insert_default().push(ResourceClaimConsumerReference {
                api_group: None,
                resource: "pods".to_owned(),
                name: pod.key.name.to_string(),
                uid: pod.uid.to_string(),
            });
            let part = if planned.is_some() { Part::All } else { Part::Status };
            sent.ask(&claim, &pod.uid, now);
            writes.push(Write::Update { object: Box::new(claim), part });
        }
        let all = self.seen.iter().all(|seen| *seen);
        Ok((!all).then_some(writes))
    }

    /// Whether the claims, which all have their devices, can be used; else what is to be waited for.
    fn is_ready(&mut self, node: &str, view: &View) -> Result<Option<Waiting>, String> {
        self.allocated = true;
        let mut waiting: Option<Waiting> = None;
        for claim in self.plan.claims.iter().filter_map(|key| view.get::<ResourceClaim>(key)) {
            if binding_conditions(claim)? {
                continue;
            }
            let status = claim.status.as_ref();
            let allocation = status.and_then(|status| status.allocation.as_ref());
            let since = allocation.and_then(|allocation| allocation.allocation_timestamp.as_ref());
            let since = since.map(|since| Time::from(since.0));
            let waiting = waiting.get_or_insert_default();
            waiting.since = waiting.since.into_iter().chain(since).min();
        }
        if let Some(waiting) = &mut waiting
            && !std::mem::replace(&mut self.told, true)
        {
            let note = format!("waiting for binding conditions for device on node {node}");
            waiting.event = Some(("BindingConditionsPending", note));
        }
        Ok(waiting)
    }
}

/// Whether an allocation is the one that was planned, whenever it was made.
fn is_same(allocation: &AllocationResult, planned: &AllocationResult) -> bool {
    allocation.devices == planned.devices && allocation.node_selector == planned.node_selector
}
