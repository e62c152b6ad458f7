//! The scheduling queue: which pod is tried next, and which wait for what.
//!
//! As upstream's: an active queue by priority, then by time of waiting; pods that failed wait out a
//! backoff once something happened that could help them, or sleep until it does. With nothing
//! active, a pod is taken out of its backoff early, unless it is there after an error. Pods that a
//! PreEnqueue plugin keeps out are gated: nothing but that plugin lets them in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use rustc_hash::FxHashMap;
use wharf_model::time::Time;
use wharf_scheduler::{Plugin, PluginSet, PodInfo};

/// Backoffs end by the second: pods whose backoff ends within the same one leave together.
const WINDOW: Duration = Duration::from_secs(1);
/// How long a pod sleeps at most: a net under the hints.
pub(super) const SLEEP_MAX: Duration = Duration::from_secs(300);
/// How often it is looked for pods that have slept so long.
const SLEEP_CHECK: Duration = Duration::from_secs(30);
/// What upstream calls it when a pod comes back from a try in vain.
const FAILURE: &str = "ScheduleAttemptFailure";

/// How long pods wait after failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backoff {
    /// After the first failure; it doubles with each one.
    pub(super) first: Duration,
    /// The longest.
    pub(super) max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), max: Duration::from_secs(10) }
    }
}

impl Backoff {
    fn after(self, failures: u32) -> Duration {
        match failures.checked_sub(1) {
            None => Duration::ZERO,
            // The largest i32 of seconds is reached after 31 doublings of one.
            Some(doublings) => self.first.saturating_mul(1 << doublings.min(31)).min(self.max),
        }
    }
}

/// What news means for a sleeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wake {
    /// Nothing.
    No,
    /// It is worth another try once its backoff is over.
    AfterBackoff,
    /// At once: it has only waited for this.
    Now,
}

/// A pod that waits, with its history.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) pod: Arc<PodInfo>,
    /// The profile whose pod it is, by its place in the configuration.
    pub(super) profile: usize,
    /// When it was first free to be tried; what came before is not the scheduler's delay.
    pub(super) ready_since: Option<Time>,
    /// How often it was tried.
    pub(super) attempts: u32,
    /// Who turned it down last; nobody if something else went wrong.
    pub(super) rejected_by: PluginSet,
    /// Who of them only waits for something that is under way.
    pub(super) pending_by: PluginSet,
    /// When it was queued, or last tried.
    timestamp: Time,
    /// Order of arrival among equals.
    sequence: u64,
    /// How often no node would take it.
    failures: u32,
    /// How often in a row something else went wrong.
    errors: u32,
    place: Place,
    /// A sleeper that is not to be tried before the pods that go for it have been told to, and
    /// what happened meanwhile would have meant for it.
    held: Option<Wake>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Arrived, but not stamped with a time yet.
    New,
    Active,
    Backoff(Time),
    ErrorBackoff(Time),
    Asleep,
    /// Kept out by a plugin; whether it has been stamped with a time.
    Gated(Plugin, bool),
}

/// How many pods wait in each part of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depth {
    pub(super) active: usize,
    pub(super) backoff: usize,
    pub(super) unschedulable: usize,
    pub(super) gated: usize,
}

/// How the active queue sorts: higher priority, then longer waiting.
pub(super) type Rank = (Reverse<i32>, Time, u64, CompactString);

/// The queue. Every pod is in it once, by uid.
#[derive(Debug, Default)]
pub(super) struct SchedulingQueue {
    backoff_of: Backoff,
    entries: FxHashMap<CompactString, Entry>,
    /// In order of arrival.
    new: BTreeMap<u64, CompactString>,
    active: BTreeSet<Rank>,
    /// By the second in which the backoff ends, then as the active queue.
    backoff: BTreeSet<(Time, Rank)>,
    error_backoff: BTreeSet<(Time, Rank)>,
    asleep: BTreeSet<CompactString>,
    /// The same pods by when their sleep began.
    asleep_since: BTreeSet<(Time, CompactString)>,
    gated: usize,
    sequence: u64,
    /// How many pods have come to which part, and by what.
    incoming: BTreeMap<(&'static str, &'static str), u64>,
    /// How many sleepers each plugin has turned down, by profile.
    turned_down: BTreeMap<(usize, Plugin), usize>,
    /// When it was first looked for pods that have slept long; the next looks follow at steps.
    first_check: Option<Time>,
}

impl SchedulingQueue {
    /// An empty queue.
    pub(super) fn new(backoff_of: Backoff) -> Self {
        Self { backoff_of, ..Self::default() }
    }

    /// Takes in a pending pod, or what it is now. `gate` is who keeps it out; `woken` says whether
    /// its change is worth another try. Returns whether there is something to do.
    pub(super) fn set(
        &mut self,
        pod: Arc<PodInfo>,
        profile: usize,
        gate: Option<Plugin>,
        woken: impl FnOnce(&Entry) -> Wake,
    ) -> bool {
        let Some(mut entry) = self.take(&pod.uid) else {
            self.sequence += 1;
            let place = gate.map_or(Place::New, |plugin| Place::Gated(plugin, false));
            self.count(place, "UnschedulablePodAdd");
            self.put(Entry {
                pod,
                profile,
                ready_since: None,
                attempts: 0,
                rejected_by: PluginSet::default(),
                pending_by: PluginSet::default(),
                timestamp: Time::EPOCH,
                sequence: self.sequence,
                failures: 0,
                errors: 0,
                place,
                held: None,
            });
            return true;
        };
        let before = entry.place;
        let woken = if before == Place::Asleep { woken(&entry) } else { Wake::No };
        entry.pod = pod;
        entry.regate(gate);
        if entry.place == Place::Asleep {
            self.awaken(&mut entry, woken);
        }
        let moved = entry.place != before;
        if moved {
            self.count(entry.place, "UnschedulablePodUpdate");
        }
        self.put(entry);
        moved
    }

    /// Lets a pod in, or keeps it out, as its plugins now say. Returns whether there is something
    /// to do.
    pub(super) fn regate(&mut self, uid: &str, gate: Option<Plugin>) -> bool {
        let Some(mut entry) = self.take(uid) else { return false };
        let before = entry.place;
        entry.regate(gate);
        let opened = entry.place != before && gate.is_none();
        self.put(entry);
        opened
    }

    /// The profile of a pod that waits here.
    pub(super) fn profile_of(&self, uid: &str) -> Option<usize> {
        self.entries.get(uid).map(|entry| entry.profile)
    }

    /// Whether a pod sleeps because this plugin turned it down.
    pub(super) fn is_turned_down_by(&self, uid: &str, plugin: Plugin) -> bool {
        let sleeper = self.entries.get(uid).filter(|entry| entry.place == Place::Asleep);
        sleeper.is_some_and(|entry| entry.rejected_by.contains(plugin))
    }

    /// Whether the pod waits here; what was last known of it.
    pub(super) fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.entries.get(uid).map(|entry| &entry.pod)
    }

    /// Forgets a pod.
    pub(super) fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.take(uid).map(|entry| entry.pod)
    }

    /// Whether any sleeper was turned down by one of these plugins.
    pub(super) fn has_sleepers_of(&self, plugins: PluginSet) -> bool {
        self.turned_down.iter().any(|((_, by), count)| *count > 0 && plugins.contains(*by))
    }

    /// Wakes those sleepers for which the news means something. Returns whether there were any.
    pub(super) fn wake(&mut self, event: &'static str, means: impl Fn(&Entry) -> Wake) -> bool {
        let mut woken = Vec::new();
        for uid in &self.asleep {
            let Some(entry) = self.entries.get_mut(uid) else { continue };
            match entry.held {
                // While many preempt, most sleepers are held: they keep their place.
                Some(Wake::Now) => {}
                Some(held) => entry.held = Some(held.max(means(entry))),
                None => match means(entry) {
                    Wake::No => {}
                    wake => woken.push((uid.clone(), wake)),
                },
            }
        }
        let mut any = false;
        for (uid, wake) in woken {
            any |= self.wake_one(&uid, event, wake);
        }
        any
    }

    /// Wakes a sleeper. Returns whether it is to be tried.
    pub(super) fn wake_one(&mut self, uid: &str, event: &'static str, wake: Wake) -> bool {
        let Some(mut entry) = self.take(uid) else { return false };
        let asleep = entry.place == Place::Asleep;
        if asleep {
            self.awaken(&mut entry, wake);
        }
        let woken = asleep && entry.place != Place::Asleep;
        if woken {
            self.count(entry.place, event);
        }
        self.put(entry);
        woken
    }

    /// Keeps a sleeper asleep until [`SchedulingQueue::release`], whatever happens.
    pub(super) fn hold(&mut self, uid: &str) {
        if let Some(entry) = self.entries.get_mut(uid).filter(|e| e.place == Place::Asleep) {
            entry.held.get_or_insert(Wake::No);
        }
    }

    /// Whether a pod is held.
    #[cfg(test)]
    pub(super) fn is_held(&self, uid: &str) -> bool {
        self.entries.get(uid).is_some_and(|entry| entry.held.is_some())
    }

    /// No longer holds a pod; it is awake if something happened that would have woken it. Returns
    /// whether it is.
    pub(super) fn release(&mut self, uid: &str) -> bool {
        let Some(entry) = self.entries.get_mut(uid) else { return false };
        let wake = entry.held.take().unwrap_or(Wake::No);
        self.wake_one(uid, "ForceActivate", wake)
    }

    /// The next pod to try. It is no longer here: it comes back by [`SchedulingQueue::fail`] or
    /// [`SchedulingQueue::error`].
    pub(super) fn pop(&mut self, now: Time) -> Option<Entry> {
        self.flush(now);
        let uid = match self.active.first() {
            Some((.., uid)) => uid.clone(),
            None => self.backoff.first()?.1.3.clone(),
        };
        self.pull(&uid, now)
    }

    /// Takes a pod out to be tried, wherever it waits; one that is gated or held stays.
    pub(super) fn pull(&mut self, uid: &str, now: Time) -> Option<Entry> {
        let waiting = self.entries.get(uid)?;
        if matches!(waiting.place, Place::Gated(..)) || waiting.held.is_some() {
            return None;
        }
        let mut entry = self.take(uid)?;
        if entry.place == Place::New {
            entry.timestamp = now;
        }
        entry.ready_since.get_or_insert(entry.timestamp);
        entry.pending_by = PluginSet::default();
        entry.attempts = entry.attempts.saturating_add(1);
        Some(entry)
    }

    /// Takes back a pod that was turned down: it sleeps until something helps. `wake` is what the
    /// news since it was tried means for it.
    pub(super) fn fail(&mut self, mut entry: Entry, rejected_by: PluginSet, wake: Wake, now: Time) {
        entry.timestamp = now;
        entry.failures = entry.failures.saturating_add(1);
        entry.errors = 0;
        entry.rejected_by = rejected_by;
        entry.place = Place::Asleep;
        self.awaken(&mut entry, wake);
        self.count(entry.place, FAILURE);
        self.put(entry);
    }

    /// Takes back a pod for which something went wrong: it is tried again after its backoff.
    pub(super) fn error(&mut self, mut entry: Entry, now: Time) {
        entry.timestamp = now;
        entry.errors = entry.errors.saturating_add(1);
        entry.rejected_by = PluginSet::default();
        entry.place = Place::ErrorBackoff(entry.backoff_end(self.backoff_of));
        self.count(entry.place, FAILURE);
        self.put(entry);
    }

    /// How long until there is something to try; `None` if nothing waits for a time.
    pub(super) fn next(&self, now: Time) -> Option<Duration> {
        if !(self.new.is_empty() && self.active.is_empty() && self.backoff.is_empty()) {
            return Some(Duration::ZERO);
        }
        let error = self.error_backoff.first().map(|(end, _)| *end + WINDOW);
        let sleep = self.asleep_since.first().map(|(since, _)| self.sleep_end(*since, now));
        Some(error.into_iter().chain(sleep).min()?.since(now))
    }

    /// Puts another form of the same pods in place of all of them; those for which there is none
    /// go.
    pub(super) fn replace(&mut self, form: impl Fn(&PodInfo) -> Option<Arc<PodInfo>>) {
        let mut uids: Vec<_> = self.entries.keys().cloned().collect();
        uids.sort_unstable();
        for uid in uids {
            let Some(mut entry) = self.take(&uid) else { continue };
            if let Some(pod) = form(&entry.pod) {
                entry.pod = pod;
                self.put(entry);
            }
        }
    }

    /// How many pods have come to which part, and by what, in upstream's words.
    pub(super) fn incoming(&self) -> &BTreeMap<(&'static str, &'static str), u64> {
        &self.incoming
    }

    /// How many sleepers each plugin has turned down, by profile.
    pub(super) fn turned_down(&self) -> &BTreeMap<(usize, Plugin), usize> {
        &self.turned_down
    }

    /// How many pods wait where.
    pub(super) fn depth(&self) -> Depth {
        let backoff = self.backoff.len() + self.error_backoff.len();
        let (unschedulable, gated) = (self.asleep.len(), self.gated);
        let active = self.entries.len() - backoff - unschedulable - gated;
        Depth { active, backoff, unschedulable, gated }
    }

    /// How many pods wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Stamps arrivals, and moves what has waited long enough.
    fn flush(&mut self, now: Time) {
        let first_check = *self.first_check.get_or_insert(now);
        while let Some((_, uid)) = self.new.pop_first() {
            let Some(mut entry) = self.entries.remove(&uid) else { continue };
            entry.timestamp = now;
            match &mut entry.place {
                Place::Gated(_, stamped) => {
                    *stamped = true;
                    self.gated -= 1;
                }
                place => *place = Place::Active,
            }
            self.put(entry);
        }
        while let Some((since, uid)) = self.asleep_since.first()
            && self.sleep_end(*since, first_check) <= now
        {
            let uid = uid.clone();
            if let Some(mut entry) = self.take(&uid) {
                // The longest sleep ends also what has been held: nothing came of it.
                entry.held = None;
                self.awaken(&mut entry, Wake::AfterBackoff);
                self.count(entry.place, "UnschedulableTimeout");
                self.put(entry);
            }
        }
        // A backoff that ends within this second is not over yet.
        let second = now.truncate_to_second();
        let over: Vec<_> = [&self.backoff, &self.error_backoff]
            .into_iter()
            .flat_map(|queue| queue.iter().take_while(|(end, _)| *end < second))
            .map(|(_, rank)| rank.3.clone())
            .collect();
        for uid in over {
            if let Some(mut entry) = self.take(&uid) {
                entry.place = Place::Active;
                self.count(entry.place, "BackoffComplete");
                self.put(entry);
            }
        }
    }

    fn count(&mut self, place: Place, event: &'static str) {
        let queue = match place {
            Place::New | Place::Active => "active",
            Place::Backoff(_) | Place::ErrorBackoff(_) => "backoff",
            Place::Asleep => "unschedulable",
            Place::Gated(..) => "gated",
        };
        *self.incoming.entry((queue, event)).or_default() += 1;
    }

    fn count_sleeper(&mut self, entry: &Entry, by: isize) {
        for plugin in entry.rejected_by.iter() {
            let count = self.turned_down.entry((entry.profile, plugin)).or_default();
            *count = count.saturating_add_signed(by);
        }
    }

    /// The first look after a sleep has become too long.
    fn sleep_end(&self, since: Time, start: Time) -> Time {
        let start = self.first_check.unwrap_or(start);
        let slept = (since + SLEEP_MAX).since(start).as_nanos();
        let step = SLEEP_CHECK.as_nanos();
        let steps = u32::try_from(slept / step + 1).unwrap_or(u32::MAX);
        start + SLEEP_CHECK.saturating_mul(steps)
    }

    fn awaken(&self, entry: &mut Entry, wake: Wake) {
        match (&mut entry.held, wake) {
            (_, Wake::No) => {}
            (Some(held), wake) => *held = wake.max(*held),
            (None, Wake::Now) => entry.place = Place::Active,
            (None, Wake::AfterBackoff) => {
                entry.place = Place::Backoff(entry.backoff_end(self.backoff_of));
            }
        }
    }

    fn take(&mut self, uid: &str) -> Option<Entry> {
        let entry = self.entries.remove(uid)?;
        match entry.place {
            Place::New => {
                self.new.remove(&entry.sequence);
            }
            Place::Active => {
                self.active.remove(&entry.rank());
            }
            Place::Backoff(end) => {
                self.backoff.remove(&(end, entry.rank()));
            }
            Place::ErrorBackoff(end) => {
                self.error_backoff.remove(&(end, entry.rank()));
            }
            Place::Asleep => {
                self.count_sleeper(&entry, -1);
                self.asleep.remove(uid);
                self.asleep_since.remove(&(entry.timestamp, uid.into()));
            }
            Place::Gated(_, stamped) => {
                self.gated -= 1;
                if !stamped {
                    self.new.remove(&entry.sequence);
                }
            }
        }
        Some(entry)
    }

    fn put(&mut self, entry: Entry) {
        let uid = entry.pod.uid.clone();
        match entry.place {
            Place::New => {
                self.new.insert(entry.sequence, uid.clone());
            }
            Place::Active => {
                self.active.insert(entry.rank());
            }
            Place::Backoff(end) => {
                self.backoff.insert((end, entry.rank()));
            }
            Place::ErrorBackoff(end) => {
                self.error_backoff.insert((end, entry.rank()));
            }
            Place::Asleep => {
                self.count_sleeper(&entry, 1);
                self.asleep.insert(uid.clone());
                self.asleep_since.insert((entry.timestamp, uid.clone()));
            }
            Place::Gated(_, stamped) => {
                self.gated += 1;
                if !stamped {
                    self.new.insert(entry.sequence, uid.clone());
                }
            }
        }
        self.entries.insert(uid, entry);
    }
}

impl Entry {
    /// Its place in the line.
    pub(super) fn rank(&self) -> Rank {
        (Reverse(self.pod.priority), self.timestamp, self.sequence, self.pod.uid.clone())
    }

    /// The second in which the backoff ends: 1, 2, 4, 8 and then 10 s after the last try, unless
    /// configured otherwise.
    fn backoff_end(&self, backoff: Backoff) -> Time {
        let count = if self.errors > 0 { self.errors } else { self.failures };
        (self.timestamp + backoff.after(count)).truncate_to_second()
    }

    fn regate(&mut self, gate: Option<Plugin>) {
        self.place = match (self.place, gate) {
            (Place::Gated(_, stamped), Some(plugin)) => Place::Gated(plugin, stamped),
            // It has had its place in the line since it came.
            (Place::Gated(_, true), None) => Place::Active,
            (Place::Gated(_, false), None) => Place::New,
            (Place::New, Some(plugin)) => Place::Gated(plugin, false),
            (_, Some(plugin)) => Place::Gated(plugin, true),
            (place, None) => place,
        };
        if self.place != Place::Asleep {
            self.held = None;
        }
    }
}

#[cfg(test)]
mod tests;
