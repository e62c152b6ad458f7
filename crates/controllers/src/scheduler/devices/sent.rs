//! The writes that give claims their devices, from when they are asked for until their effect is
//! seen.
//!
//! Over a network the answer to a write and the watch that shows its effect come late and in any
//! order. As long as either is missing the devices may be gone: should the pod for which they were
//! asked go away meanwhile, they stay set aside until it is known that the write was refused, or
//! until the claim shows what it did.
//!
//! An answer may leave open what happened. Then the claim is written once more, only to change its
//! revision: if that succeeds, what came before it is over, and is seen no later than it.

use std::collections::BTreeMap;

use compact_str::CompactString;
use k8s_openapi::api::resource::v1::ResourceClaim;
use wharf_model::kinds::Kind;
use wharf_model::object::{ObjectKey, Revision};
use wharf_model::time::Time;
use wharf_ports::cluster::{Part, Write};
use wharf_ports::view::View;
use wharf_scheduler::{DeviceNews, DevicePlan, Snapshot};

use super::super::assumed::{BINDING_MAX, DOUBTED_MAX};
use super::super::reserve::{Settled, WriteOutcome};
use super::binder::FINALIZER;

/// Who keeps what a pod left behind, in place of the pod; no uid looks like this.
const KEEPER: &str = "claim/";

/// The writes under way, by claim and by the uid of the pod for which they were asked.
#[derive(Debug, Default)]
pub(super) struct SentWrites {
    writes: BTreeMap<(ObjectKey, CompactString), Sent>,
    /// Of those, the ones whose pod has gone, with what stays set aside.
    abandoned: BTreeMap<(ObjectKey, CompactString), DevicePlan>,
}

#[derive(Debug)]
struct Sent {
    /// The claim that was written: another of the same name is not meant.
    claim: String,
    /// When its answer is given up for lost; `None` once it has been answered.
    asked: Option<Time>,
    /// Whether an answer has left open what happened.
    doubted: bool,
    /// When the claim is written again to find out; `None` before the first time.
    fence_at: Option<Time>,
    /// The revision it left behind.
    done: Option<Revision>,
}

/// What is to become of what a pod has left behind.
enum Fate {
    /// It is known what became of the write.
    Settled,
    /// Not yet.
    Open,
    /// It takes a write to find out.
    Fence(Box<ResourceClaim>),
}

/// How a pod's write to a claim stands which the claim does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is none, or it was refused.
    Free,
    /// It has not been answered, or its effect has not been seen.
    UnderWay,
    /// It was carried out, and somebody has taken it back since.
    Undone,
}

impl SentWrites {
    /// A write is asked for: this form of the claim, for a pod.
    pub(super) fn ask(&mut self, claim: &ResourceClaim, pod: &CompactString, now: Time) {
        let key = (ObjectKey::of(&claim.metadata), pod.clone());
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        let before = self.writes.remove(&key).filter(|sent| sent.claim == uid);
        let doubted = before.is_some_and(|sent| sent.doubted);
        let asked = Some(now + BINDING_MAX);
        let sent = Sent { claim: uid, asked, doubted, fence_at: None, done: None };
        self.writes.insert(key, sent);
    }

    /// The claim shows what was written.
    pub(super) fn forget(&mut self, claim: &ObjectKey, pod: &CompactString) {
        self.writes.remove(&(claim.clone(), pod.clone()));
    }

    /// How the write stands, for a claim that does not show it.
    pub(super) fn standing(&self, claim: &ObjectKey, pod: &CompactString, view: &View) -> Standing {
        match self.writes.get(&(claim.clone(), pod.clone())) {
            None => Standing::Free,
            Some(sent) if sent.asked.is_some() => Standing::UnderWay,
            Some(sent) => match sent.done {
                None => Standing::Free,
                Some(done) if seen(claim, view) >= Some(done) => Standing::Undone,
                Some(_) => Standing::UnderWay,
            },
        }
    }

    /// A write was answered. Returns whether somebody waits for that.
    pub(super) fn told(&mut self, write: &Write, outcome: WriteOutcome) -> bool {
        let Write::Update { object, part } = write else { return false };
        let Some(claim) = object.as_any().downcast_ref::<ResourceClaim>() else { return false };
        let written = ObjectKey::of(&claim.metadata);
        let key = if *part == Part::Main {
            self.abandoned.keys().find(|(claim, _)| *claim == written).cloned()
        } else {
            let users = claim.status.as_ref().and_then(|status| status.reserved_for.as_deref());
            // The one for whom it was written comes last.
            let user = users.and_then(<[_]>::last);
            user.map(|user| (written, CompactString::from(&user.uid)))
        };
        let Some(key) = key else { return false };
        let Some(sent) = self.writes.get_mut(&key) else { return false };
        if Some(&sent.claim) != claim.metadata.uid.as_ref() {
            return false;
        }
        sent.asked = None;
        match outcome {
            WriteOutcome::Done(revision) => {
                sent.doubted = false;
                sent.done = revision;
            }
            WriteOutcome::Doubted => sent.doubted = true,
            WriteOutcome::Refused => {}
        }
        // A write that leaves no revision behind has nothing that could be waited for.
        if sent.done.is_none() && !sent.doubted && !self.abandoned.contains_key(&key) {
            self.writes.remove(&key);
        }
        true
    }

    /// The pod has gone, and with it what it set aside; what may be written already stays.
    pub(super) fn abandon(
        &mut self,
        pod: &CompactString,
        plan: &DevicePlan,
        snapshot: &mut Snapshot,
    ) {
        for claim in &plan.claims {
            let key = (claim.clone(), pod.clone());
            if !self.writes.contains_key(&key) {
                continue;
            }
            let own = plan.allocations.iter().find(|(planned, _)| planned == claim);
            let Some(own) = own else {
                // A reservation alone takes nothing from others.
                self.writes.remove(&key);
                continue;
            };
            let kept = DevicePlan {
                allocations: vec![own.clone()],
                claims: vec![claim.clone()],
                extended: None,
            };
            snapshot.set_devices_aside(&keeper(claim), &kept);
            self.abandoned.insert(key, kept);
        }
    }

    /// Gives back what was left behind, where the claim shows what has become of it or the write is
    /// known to have come to nothing.
    pub(super) fn settle(&mut self, snapshot: &mut Snapshot, view: &View, now: Time) -> Settled {
        let mut settled = Settled::default();
        let Self { writes, abandoned } = self;
        abandoned.retain(|key, _| {
            let claim = &key.0;
            match writes.get_mut(key).map_or(Fate::Settled, |sent| sent.fate(claim, view, now)) {
                Fate::Open => return true,
                Fate::Fence(claim) => {
                    settled.writes.push(Write::Update { object: claim, part: Part::Main });
                    return true;
                }
                Fate::Settled => {}
            }
            writes.remove(key);
            snapshot.release_devices(&keeper(claim));
            settled.news.push(DeviceNews::Claim { key: claim.clone(), freed: true });
            false
        });
        settled
    }

    /// When something is settled by time alone.
    pub(super) fn settles_at(&self) -> Option<Time> {
        let writes = self.abandoned.keys().filter_map(|key| self.writes.get(key));
        let waits = writes.filter(|sent| sent.asked.is_some() || sent.done.is_none());
        waits.filter_map(|sent| sent.asked.or(sent.fence_at)).min()
    }

    /// Whether a pod has left something behind.
    pub(super) fn has_abandoned(&self) -> bool {
        !self.abandoned.is_empty()
    }

    /// The snapshot was built anew.
    pub(super) fn renew(&self, snapshot: &mut Snapshot) {
        for ((claim, _), kept) in &self.abandoned {
            snapshot.set_devices_aside(&keeper(claim), kept);
        }
    }
}

impl Sent {
    /// Whether the claim may yet show devices that it does not show now.
    fn fate(&mut self, key: &ObjectKey, view: &View, now: Time) -> Fate {
        let Some(claim) = view.get::<ResourceClaim>(key) else { return Fate::Settled };
        let shows = claim.status.as_ref().is_some_and(|status| status.allocation.is_some());
        // What it shows counts by itself, be it this or what made this be refused.
        if shows || claim.metadata.uid.as_ref() != Some(&self.claim) {
            return Fate::Settled;
        }
        match self.asked {
            Some(lost) if now < lost => return Fate::Open,
            Some(_) => (self.asked, self.doubted) = (None, true),
            None => {}
        }
        if let Some(done) = self.done {
            return if seen(key, view) < Some(done) { Fate::Open } else { Fate::Settled };
        }
        if !self.doubted {
            return Fate::Settled;
        }
        if self.fence_at.is_some_and(|at| now < at) {
            return Fate::Open;
        }
        self.fence_at = Some(now + DOUBTED_MAX);
        match fence(claim) {
            Some(claim) => {
                self.asked = Some(now + BINDING_MAX);
                Fate::Fence(Box::new(claim))
            }
            None => Fate::Open,
        }
    }
}

/// The claim with a change that harms nobody. `None` if it is on its way out.
fn fence(claim: &ResourceClaim) -> Option<ResourceClaim> {
    let mut claim = claim.clone();
    let finalizers = claim.metadata.finalizers.get_or_insert_default();
    // Whoever allocates it adds the finalizer if it is missing, and without devices it has nothing
    // to protect.
    let before = finalizers.len();
    finalizers.retain(|one| one != FINALIZER);
    if finalizers.len() == before {
        if claim.metadata.deletion_timestamp.is_some() {
            return None;
        }
        finalizers.push(FINALIZER.to_owned());
    }
    Some(claim)
}

fn keeper(claim: &ObjectKey) -> String {
    format!("{KEEPER}{claim}")
}

/// The revision of the claim that is known.
fn seen(claim: &ObjectKey, view: &View) -> Option<Revision> {
    view.object(Kind::of::<ResourceClaim>(), claim).map(|object| object.revision())
}
