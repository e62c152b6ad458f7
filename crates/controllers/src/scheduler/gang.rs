//! GangScheduling: the pods of a PodGroup go to their nodes together or not at all.
//!
//! A pod of a group enters the queue once as many pods exist as the group needs (PreEnqueue). When
//! one of them has its turn, all that wait are decided in one go. Those that have a place wait
//! there (Permit) until there are enough; then all are bound. If there are not enough, the places
//! are held for a while, so that the rest may get theirs: by evictions, by new nodes.
//!
//! **Two half-placed groups never wait for each other**, because at most one group that is
//! incomplete holds places. Any other that cannot be completed in its turn gives its places back
//! in the same turn; nobody is told, since nobody has been refused for them. The one that holds
//! gives up after five minutes; its own pods do not hear of the room this makes, so that others
//! have the first go at it.
//!
//! Nothing is evicted for a group that would be incomplete all the same.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use rustc_hash::FxHashMap;
use wharf_model::object::ObjectKey;
use wharf_ports::controller::{Context, Step};
use wharf_scheduler::{News, Plugin, PodInfo, fits};

use super::assumed::Stage;
use super::cycle::{End, Ended, Progress, Refused};
use super::metrics::Outcome;
use super::queue::{Entry, Wake};
use super::reserve::Refusal;
use super::{Scheduler, reasons};

/// How long an incomplete group holds places.
pub(super) const HOLD_MAX: Duration = Duration::from_secs(300);

/// The groups there are, and who belongs to which.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: FxHashMap<ObjectKey, Group>,
    member_of: FxHashMap<CompactString, ObjectKey>,
    /// The incomplete group that holds places.
    holder: Option<ObjectKey>,
    /// The group about whose pods it is being decided.
    turn: Option<Box<Turn>>,
}

/// A group in the middle of its turn: extenders are being asked about one of its pods.
#[derive(Debug)]
struct Turn {
    key: ObjectKey,
    needed: usize,
    /// Those that have not been decided about.
    left: VecDeque<Entry>,
    refused: Vec<RefusedMember>,
    /// Whether extenders were waited for, so that nodes may have changed since the turn began.
    waited: bool,
}

/// A pod of the group that found no node.
#[derive(Debug)]
struct RefusedMember {
    entry: Entry,
    refused: Refused,
    /// Whether anything happened since that could help it.
    news: bool,
}

#[derive(Debug, Default)]
struct Group {
    policy: Policy,
    members: BTreeSet<CompactString>,
    /// Those on their nodes.
    bound: BTreeSet<CompactString>,
}

/// What a PodGroup asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Policy {
    /// There is no such object.
    #[default]
    Unknown,
    /// Nothing: its pods are scheduled one by one.
    Basic,
    /// So many pods at once.
    Gang(usize),
}

impl Groups {
    /// The group whose pods go together to which a pod belongs, and how many it needs.
    fn gang_of(&self, uid: &str) -> Option<(&ObjectKey, usize)> {
        let key = self.member_of.get(uid)?;
        match self.groups.get(key)?.policy {
            Policy::Gang(count) => Some((key, count)),
            Policy::Unknown | Policy::Basic => None,
        }
    }

    /// Whether a pod has to stay out of the queue: its group is not there, or not all of it.
    pub(super) fn keeps_out(&self, uid: &str) -> bool {
        let group = self.member_of.get(uid).and_then(|key| self.groups.get(key));
        group.is_some_and(|group| match group.policy {
            Policy::Unknown => true,
            Policy::Basic => false,
            Policy::Gang(count) => group.members.len() < count,
        })
    }

    /// Whether a group's turn has not ended.
    pub(super) fn is_open(&self) -> bool {
        self.turn.is_some()
    }

    /// The pods that are held here in the middle of their group's turn.
    fn held_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.turn.iter_mut().flat_map(|turn| {
            let refused = turn.refused.iter_mut().map(|member| &mut member.entry);
            turn.left.iter_mut().chain(refused)
        })
    }

    /// The pods (uids) that are held here in the middle of their group's turn.
    #[cfg(test)]
    pub(super) fn held(&mut self) -> Vec<CompactString> {
        self.held_mut().map(|entry| entry.pod.uid.clone()).collect()
    }

    /// Something happened that could help those that have been refused.
    pub(super) fn hear(&mut self) {
        for member in self.turn.iter_mut().flat_map(|turn| &mut turn.refused) {
            member.news = true;
        }
    }

    /// Puts a newer form of a pod in place of the one that is held here.
    pub(super) fn refresh(&mut self, pod: &Arc<PodInfo>) -> bool {
        let Some(held) = self.held_mut().find(|held| held.pod.uid == pod.uid) else { return false };
        held.pod = pod.clone();
        true
    }

    /// Puts another form of the same pods in place of all that are held here.
    pub(super) fn replace(&mut self, form: impl Fn(&str) -> Option<Arc<PodInfo>>) {
        for held in self.held_mut() {
            if let Some(pod) = form(&held.pod.uid) {
                held.pod = pod;
            }
        }
    }

    /// Forgets a pod that is held here.
    pub(super) fn cancel(&mut self, uid: &str) {
        if let Some(turn) = &mut self.turn {
            turn.left.retain(|entry| entry.pod.uid != uid);
            turn.refused.retain(|member| member.entry.pod.uid != uid);
        }
    }

    fn members(&self, key: &ObjectKey) -> Vec<CompactString> {
        self.groups.get(key).into_iter().flat_map(|group| &group.members).cloned().collect()
    }

    /// Takes note of a pod. Returns its group if that has changed.
    fn join(&mut self, uid: &CompactString, key: ObjectKey, bound: bool) -> Option<ObjectKey> {
        let group = self.groups.entry(key.clone()).or_default();
        let mut changed = group.members.insert(uid.clone());
        changed |= bound && group.bound.insert(uid.clone());
        self.member_of.insert(uid.clone(), key.clone());
        changed.then_some(key)
    }

    /// Forgets a pod. Returns its group.
    fn leave(&mut self, uid: &str) -> Option<ObjectKey> {
        let key = self.member_of.remove(uid)?;
        if let Some(group) = self.groups.get_mut(&key) {
            group.members.remove(uid);
            group.bound.remove(uid);
            if group.members.is_empty() && group.policy == Policy::Unknown {
                self.groups.remove(&key);
            }
        }
        Some(key)
    }

    fn set_policy(&mut self, key: &ObjectKey, policy: Policy) {
        let group = self.groups.entry(key.clone()).or_default();
        group.policy = policy;
        if group.members.is_empty() && policy == Policy::Unknown {
            self.groups.remove(key);
        }
    }
}

impl Scheduler {
    /// Whether any profile schedules groups.
    fn heeds_groups(&self) -> bool {
        self.profiles.iter().any(|it| it.permit.contains(&Plugin::GangScheduling))
    }

    /// Takes note of a pod's group.
    pub(super) fn observe_member(&mut self, uid: &CompactString, pod: &Pod) -> bool {
        if !self.heeds_groups() {
            return false;
        }
        let spec = pod.spec.as_ref();
        let name = spec
            .and_then(|spec| spec.scheduling_group.as_ref())
            .and_then(|group| group.pod_group_name.as_deref());
        let Some(name) = name else { return false };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let bound = spec.is_some_and(|spec| spec.node_name.is_some());
        let changed = self.groups.join(uid, ObjectKey::namespaced(namespace, name), bound);
        changed.is_some_and(|key| self.group_changed(&key))
    }

    /// A pod is gone.
    pub(super) fn forget_member(&mut self, uid: &str) -> bool {
        match self.groups.leave(uid) {
            Some(key) => self.group_changed(&key),
            None => false,
        }
    }

    /// Takes note of a PodGroup.
    pub(super) fn observe_group(&mut self, key: &ObjectKey, group: Option<&PodGroup>) -> bool {
        if !self.heeds_groups() {
            return false;
        }
        let policy = match group.map(|group| &group.spec.scheduling_policy) {
            None => Policy::Unknown,
            Some(policy) => match &policy.gang {
                Some(gang) => Policy::Gang(usize::try_from(gang.min_count).unwrap_or(0)),
                None => Policy::Basic,
            },
        };
        self.groups.set_policy(key, policy);
        self.group_changed(key)
    }

    /// Lets in or keeps out the pods of a group, and wakes those that waited for the others.
    fn group_changed(&mut self, key: &ObjectKey) -> bool {
        let mut work = false;
        for uid in self.groups.members(key) {
            let Some(pod) = self.queue.get(&uid).cloned() else { continue };
            let profile = self.queue.profile_of(&uid).unwrap_or(0);
            work |= self.queue.regate(&uid, self.gate(&pod, profile));
            if self.queue.is_turned_down_by(&uid, Plugin::GangScheduling) {
                work |= self.queue.wake_one(&uid, "PodGroupChange", Wake::AfterBackoff);
            }
        }
        work
    }

    /// Whether a pod is decided together with others.
    pub(super) fn goes_in_a_group(&self, entry: &Entry) -> bool {
        self.profiles[entry.profile].permit.contains(&Plugin::GangScheduling)
            && self.groups.gang_of(&entry.pod.uid).is_some()
    }

    /// Decides about a pod and all of its group that wait, as far as that gets without extenders.
    pub(super) fn decide_group(&mut self, first: Entry, context: &Context<'_>, step: &mut Step) {
        let Some((key, needed)) = self.groups.gang_of(&first.pod.uid) else { return };
        let key = key.clone();
        let others = self.groups.members(&key);
        let others = others.iter().filter_map(|uid| self.queue.pull(uid, context.now));
        let mut entries: Vec<_> = others.collect();
        entries.push(first);
        entries.sort_by_cached_key(Entry::rank);
        let (left, refused) = (entries.into(), Vec::new());
        self.groups.turn = Some(Box::new(Turn { key, needed, left, refused, waited: false }));
        self.go_on_with_group(context, step);
    }

    /// Decides about those of the group whose turn it is that are left, until an extender has to be
    /// waited for.
    pub(super) fn go_on_with_group(&mut self, context: &Context<'_>, step: &mut Step) {
        while !self.extenders.is_asking()
            && let Some(turn) = &mut self.groups.turn
        {
            match turn.left.pop_front() {
                Some(entry) => {
                    let progress = self.begin(entry, context, step);
                    self.take_member(progress, context, step);
                }
                None => {
                    if let Some(turn) = self.groups.turn.take() {
                        self.end_turn(*turn, context, step);
                    }
                }
            }
        }
    }

    /// What the cycle of one of a group has come to: it has a place, or waits with the refusal
    /// until it is known whether the group is complete.
    pub(super) fn take_member(
        &mut self,
        progress: Progress,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let ended = match progress {
            Progress::Ended(ended) => *ended,
            Progress::Over => return,
            Progress::Open => {
                if let Some(turn) = &mut self.groups.turn {
                    turn.waited = true;
                }
                return;
            }
        };
        let Ended { entry, end, took, news } = ended;
        let (profile, uid) = (entry.profile, entry.pod.uid.clone());
        match end {
            End::Placed(placement) => {
                let assumed = self.assume(entry, &placement, took, context, step);
                if let Some(mut assumed) = assumed {
                    assumed.wait(Stage::Permit, context.now, context.now + HOLD_MAX);
                    self.assumed.insert(assumed);
                } else if news {
                    self.hear_late(&uid);
                }
            }
            End::Refused(refused) => {
                self.metrics.attempt(profile, Outcome::Unschedulable, took);
                // The next ones of the group look for room elsewhere.
                if let Some(room) = &refused.room {
                    self.snapshot.nominate(entry.pod.clone(), &room.node);
                }
                if let Some(turn) = &mut self.groups.turn {
                    turn.refused.push(RefusedMember { entry, refused: *refused, news });
                }
            }
            End::Failed(message) => {
                self.metrics.attempt(profile, Outcome::Error, took);
                self.fail_with_error(entry, &message, context, step);
            }
        }
    }

    /// All of a group have been decided about: it goes, holds its places, or gives them back.
    fn end_turn(&mut self, turn: Turn, context: &Context<'_>, step: &mut Step) {
        let Turn { key, needed, refused, waited, .. } = turn;
        if waited || self.groups.holder.as_ref() == Some(&key) {
            self.review(&key, context, step);
        }
        let placed = self.placed(&key);
        if placed >= needed {
            self.permit(&key, context, step);
            self.turn_down_members(refused, true, context, step);
            return;
        }
        let rescued = refused.iter().filter(|member| member.refused.room.is_some()).count();
        let evict = placed + rescued >= needed;
        if self.may_hold(&key) {
            self.turn_down_members(refused, evict, context, step);
            self.hold(&key, placed, needed, context, step);
        } else {
            // Before the refused ones are back: what is given back here is no news to them.
            let message =
                format!("pod group {} has places for {placed} of {needed} pods", key.name);
            self.give_back(&key, &message, false, context, step);
            self.turn_down_members(refused, false, context, step);
        }
    }

    fn turn_down_members(
        &mut self,
        members: Vec<RefusedMember>,
        evict: bool,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        for RefusedMember { entry, mut refused, news } in members {
            if !evict && refused.room.is_some() {
                self.snapshot.withdraw_nomination(&entry.pod.uid);
                let message = "not tried, since the pod group would be incomplete.";
                refused.without_room(message, false, false);
            }
            let uid = entry.pod.uid.clone();
            self.turn_down(entry, &refused, context, step);
            if news {
                self.hear_late(&uid);
            }
        }
    }

    /// How many pods of a group are on their nodes or on their way.
    fn placed(&self, key: &ObjectKey) -> usize {
        let Some(group) = self.groups.groups.get(key) else { return 0 };
        let has_place =
            |uid: &&CompactString| group.bound.contains(*uid) || self.assumed.get(uid).is_some();
        group.members.iter().filter(has_place).count()
    }

    /// The pods of a group that wait for the others, each at its node.
    fn waiting_members(&self, key: &ObjectKey) -> Vec<CompactString> {
        let waits = |uid: &CompactString| {
            self.assumed.get(uid).is_some_and(|assumed| assumed.stage == Stage::Permit)
        };
        self.groups.members(key).into_iter().filter(waits).collect()
    }

    /// Whether an incomplete group may hold its places: no other does.
    fn may_hold(&self, key: &ObjectKey) -> bool {
        let holder = self.groups.holder.as_ref();
        holder.is_none_or(|holder| holder == key || self.waiting_members(holder).is_empty())
    }

    /// Takes back the places of those that waited whose nodes have changed so that they would not
    /// do any more.
    fn review(&mut self, key: &ObjectKey, context: &Context<'_>, step: &mut Step) {
        for uid in self.waiting_members(key) {
            let Some(assumed) = self.assumed.get(&uid) else { continue };
            let (node, profile) = (assumed.node.clone(), assumed.entry.profile);
            // It must not be in its own way.
            let Some(pod) = self.snapshot.displace(&uid) else { continue };
            let fits = fits(&self.snapshot, &pod, &self.profiles[profile], &node);
            self.snapshot.place(pod, &node);
            if !fits && let Some(assumed) = self.assumed.remove(&uid) {
                let refusal = Refusal::Rejected("node(s) changed while it waited".to_owned());
                self.take_back(assumed, Plugin::GangScheduling, "Permit", refusal, context, step);
            }
        }
    }

    /// There are enough: all that waited go on.
    fn permit(&mut self, key: &ObjectKey, context: &Context<'_>, step: &mut Step) {
        if self.groups.holder.as_ref() == Some(key) {
            self.groups.holder = None;
        }
        for uid in self.waiting_members(key) {
            let Some(assumed) = self.assumed.remove(&uid) else { continue };
            let waited = context.now.since(assumed.since);
            self.metrics.permit_wait(Outcome::Scheduled, waited);
            self.wake(&News::PodPlaced(&assumed.entry.pod));
            self.go_on(assumed, context, step);
        }
    }

    /// Has a group wait where it has places.
    fn hold(
        &mut self,
        key: &ObjectKey,
        placed: usize,
        needed: usize,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let members = self.waiting_members(key);
        self.groups.holder = (!members.is_empty()).then(|| key.clone());
        for uid in members {
            let Some(pod) = self.assumed.get(&uid).map(|it| it.entry.pod.clone()) else { continue };
            self.wake(&News::PodPlaced(&pod));
            let Some(assumed) = self.assumed.get(&uid) else { continue };
            let pod = &assumed.entry.pod;
            step.reasons.push(reasons::waits(pod, &assumed.node, &key.name, placed, needed));
            self.announce_node(assumed, context.view, step);
        }
    }

    /// Patience is at its end for one of a group: with it, for all.
    pub(super) fn give_up(
        &mut self,
        uid: &CompactString,
        message: &str,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let key = self.groups.member_of.get(uid).cloned();
        let alone = key.as_ref().is_none_or(|key| !self.waiting_members(key).contains(uid));
        if let Some(key) = key.filter(|_| !alone) {
            if self.groups.holder.as_ref() == Some(&key) {
                self.groups.holder = None;
            }
            self.give_back(&key, message, true, context, step);
        } else if let Some(assumed) = self.assumed.remove(uid) {
            let refusal = Refusal::Rejected(message.to_owned());
            self.take_back(assumed, Plugin::GangScheduling, "Permit", refusal, context, step);
        }
    }

    /// Takes back the places of a group's pods that wait. `tell` says whether that is news to
    /// others; it never is to the group itself.
    fn give_back(
        &mut self,
        key: &ObjectKey,
        message: &str,
        tell: bool,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let group: BTreeSet<_> = self.groups.members(key).into_iter().collect();
        let mut gone: Vec<Arc<PodInfo>> = Vec::new();
        for uid in self.waiting_members(key) {
            let Some(assumed) = self.assumed.remove(&uid) else { continue };
            self.metrics.permit_wait(Outcome::Unschedulable, context.now.since(assumed.since));
            self.metrics.attempt(assumed.entry.profile, Outcome::Unschedulable, assumed.took);
            self.unreserve(&assumed);
            gone.extend(self.snapshot.displace(&uid));
            let by = Plugin::GangScheduling.into();
            let wake = assumed.wake(by);
            self.reject(assumed.entry, by, message, wake, context, step);
        }
        if tell {
            for pod in gone {
                self.wake_besides(&pod, &group);
            }
        }
    }
}
