//! The scheduling queue: which pod is tried next, and which wait for what.
//!
//! As upstream's: an active queue by priority, then by time of waiting; pods that failed wait out a
//! backoff once something happened that could help them, or sleep until it does. With nothing
//! active, a pod is taken out of its backoff early.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use rustc_hash::FxHashMap;
use wharf_model::time::Time;
use wharf_scheduler::{PluginSet, PodInfo, admits};

/// Backoff after the first failure; doubles with each one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest backoff.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Backoffs end by the second: pods whose backoff ends within the same one leave together.
const WINDOW: Duration = Duration::from_secs(1);
/// How long a pod sleeps at most: a net under the hints.
const SLEEP_MAX: Duration = Duration::from_secs(300);

/// A pod that waits, with its history.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) pod: Arc<PodInfo>,
    /// When it was queued, or last tried.
    timestamp: Time,
    /// Order of arrival among equals.
    sequence: u64,
    /// How often no node would take it.
    failures: u32,
    /// How often in a row something else went wrong.
    errors: u32,
    /// Who turned it down last; nobody if something else went wrong.
    rejected_by: PluginSet,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Arrived, but not stamped with a time yet.
    New,
    Active,
    Backoff(Time),
    ErrorBackoff(Time),
    Asleep,
    Gated,
}

/// How the active queue sorts: higher priority, then longer waiting.
type Rank = (Reverse<i32>, Time, u64, CompactString);

/// The queue. Every pod is in it once, by uid.
#[derive(Debug, Default)]
pub(super) struct SchedulingQueue {
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
    sequence: u64,
}

impl SchedulingQueue {
    /// Takes in a pending pod, or what it is now. `woken` says whether its change is worth
    /// another try. Returns whether anything is to be tried.
    pub(super) fn set(&mut self, pod: Arc<PodInfo>, woken: impl FnOnce(&Entry) -> bool) -> bool {
        let gated = !admits(&pod);
        let Some(mut entry) = self.take(&pod.uid) else {
            self.sequence += 1;
            let place = if gated { Place::Gated } else { Place::New };
            self.put(Entry {
                pod,
                timestamp: Time::EPOCH,
                sequence: self.sequence,
                failures: 0,
                errors: 0,
                rejected_by: PluginSet::default(),
                place,
            });
            return !gated;
        };
        let woken = entry.place == Place::Asleep && woken(&entry);
        let opened = entry.place == Place::Gated && !gated;
        entry.pod = pod;
        entry.place = match entry.place {
            _ if gated => Place::Gated,
            // The last gate is gone: it enters as if new.
            Place::Gated => Place::New,
            Place::Asleep if woken => Place::Backoff(entry.backoff_end()),
            place => place,
        };
        self.put(entry);
        woken || opened
    }

    /// Whether the pod waits here; what was last known of it.
    pub(super) fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.entries.get(uid).map(|entry| &entry.pod)
    }

    /// Who turned the pod down last.
    pub(super) fn rejected_by(&self, uid: &str) -> Option<PluginSet> {
        self.entries.get(uid).map(|entry| entry.rejected_by)
    }

    /// Forgets a pod.
    pub(super) fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.take(uid).map(|entry| entry.pod)
    }

    /// Wakes those sleepers for which `helps` holds. Returns whether there were any.
    pub(super) fn wake(&mut self, helps: impl Fn(PluginSet, &PodInfo) -> bool) -> bool {
        let woken: Vec<_> = self
            .asleep
            .iter()
            .filter(|uid| {
                let entry = &self.entries[*uid];
                helps(entry.rejected_by, &entry.pod)
            })
            .cloned()
            .collect();
        for uid in &woken {
            self.move_to(uid, |entry| Place::Backoff(entry.backoff_end()));
        }
        !woken.is_empty()
    }

    /// The next pod to try. It is no longer here: it comes back by [`SchedulingQueue::fail`] or
    /// [`SchedulingQueue::error`].
    pub(super) fn pop(&mut self, now: Time) -> Option<Entry> {
        self.flush(now);
        let uid = match self.active.first() {
            Some((.., uid)) => uid.clone(),
            None => self.backoff.first()?.1.3.clone(),
        };
        self.take(&uid)
    }

    /// Takes back a pod that no node would take: it sleeps until something helps.
    pub(super) fn fail(&mut self, mut entry: Entry, rejected_by: PluginSet, now: Time) {
        entry.timestamp = now;
        entry.failures = entry.failures.saturating_add(1);
        entry.errors = 0;
        entry.rejected_by = rejected_by;
        entry.place = Place::Asleep;
        self.put(entry);
    }

    /// Takes back a pod for which something went wrong: it is tried again after its backoff.
    pub(super) fn error(&mut self, mut entry: Entry, now: Time) {
        entry.timestamp = now;
        entry.errors = entry.errors.saturating_add(1);
        entry.rejected_by = PluginSet::default();
        entry.place = Place::ErrorBackoff(entry.backoff_end());
        self.put(entry);
    }

    /// How long until there is something to try; `None` if nothing waits for a time.
    pub(super) fn next(&self, now: Time) -> Option<Duration> {
        if !(self.new.is_empty() && self.active.is_empty() && self.backoff.is_empty()) {
            return Some(Duration::ZERO);
        }
        let error = self.error_backoff.first().map(|(end, _)| *end + WINDOW);
        let sleep = self.asleep_since.first().map(|(since, _)| *since + SLEEP_MAX);
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

    /// How many pods wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Stamps arrivals, and moves what has waited long enough.
    fn flush(&mut self, now: Time) {
        while let Some((_, uid)) = self.new.first_key_value() {
            let uid = uid.clone();
            self.move_to(&uid, |entry| {
                entry.timestamp = now;
                Place::Active
            });
        }
        while let Some((since, uid)) = self.asleep_since.first()
            && *since + SLEEP_MAX <= now
        {
            let uid = uid.clone();
            self.move_to(&uid, |entry| Place::Backoff(entry.backoff_end()));
        }
        // A backoff that ends within this second is not over yet.
        let second = now.truncate_to_second();
        let over: Vec<_> = [&self.backoff, &self.error_backoff]
            .into_iter()
            .flat_map(|queue| queue.iter().take_while(|(end, _)| *end < second))
            .map(|(_, rank)| rank.3.clone())
            .collect();
        for uid in over {
            self.move_to(&uid, |_| Place::Active);
        }
    }

    fn move_to(&mut self, uid: &str, place: impl FnOnce(&mut Entry) -> Place) {
        if let Some(mut entry) = self.take(uid) {
            entry.place = place(&mut entry);
            self.put(entry);
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
                self.asleep.remove(uid);
                self.asleep_since.remove(&(entry.timestamp, uid.into()));
            }
            Place::Gated => {}
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
                self.asleep.insert(uid.clone());
                self.asleep_since.insert((entry.timestamp, uid.clone()));
            }
            Place::Gated => {}
        }
        self.entries.insert(uid, entry);
    }
}

impl Entry {
    fn rank(&self) -> Rank {
        (Reverse(self.pod.priority), self.timestamp, self.sequence, self.pod.uid.clone())
    }

    /// The second in which the backoff ends: 1, 2, 4, 8 and then 10 s after the last try.
    fn backoff_end(&self) -> Time {
        let count = if self.errors > 0 { self.errors } else { self.failures };
        let backoff = match count.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => (BACKOFF_FIRST * 2_u32.pow(doublings.min(10))).min(BACKOFF_MAX),
        };
        (self.timestamp + backoff).truncate_to_second()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wharf_scheduler::{Plugin, Snapshot};

    use super::*;

    fn pod(name: &str, priority: i32, gated: bool) -> Arc<PodInfo> {
        let gates = if gated { json!([{"name": "g"}]) } else { json!([]) };
        let pod = json!({
            "metadata": {"name": name, "uid": name},
            "spec": {"containers": [], "priority": priority, "schedulingGates": gates}
        });
        Snapshot::new().compile(&serde_json::from_value(pod).unwrap())
    }

    fn at(millis: i64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn popped(queue: &mut SchedulingQueue, now: Time) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(now)).map(|entry| entry.pod.uid.to_string()).collect()
    }

    fn fit() -> PluginSet {
        let mut set = PluginSet::default();
        set.insert(Plugin::NodeResourcesFit);
        set
    }

    #[test]
    fn priority_then_arrival() {
        let mut queue = SchedulingQueue::default();
        for (name, priority) in [("b", 0), ("a", 0), ("high", 10)] {
            queue.set(pod(name, priority, false), |_| false);
        }
        assert_eq!(popped(&mut queue, at(0)), ["high", "b", "a"]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn sleepers_wake_only_when_it_helps_or_after_five_minutes() {
        let mut queue = SchedulingQueue::default();
        queue.set(pod("p", 0, false), |_| false);
        let entry = queue.pop(at(0)).unwrap();
        queue.fail(entry, fit(), at(0));
        assert!(queue.pop(at(200_000)).is_none());
        assert_eq!(queue.next(at(100_000)), Some(Duration::from_secs(200)));
        assert!(!queue.wake(|by, _| by.contains(Plugin::NodePorts)));
        assert!(queue.wake(|by, _| by.contains(Plugin::NodeResourcesFit)));
        let entry = queue.pop(at(10)).expect("with nothing active, the backoff is cut short");
        queue.fail(entry, fit(), at(10));
        assert!(queue.pop(at(300_009)).is_none());
        assert!(queue.pop(at(300_010)).is_some());
    }

    #[test]
    fn a_backoff_holds_while_others_are_active() {
        let mut queue = SchedulingQueue::default();
        queue.set(pod("p", 5, false), |_| false);
        let entry = queue.pop(at(100)).unwrap();
        queue.fail(entry, fit(), at(100));
        queue.wake(|_, _| true);
        queue.set(pod("q", 0, false), |_| false);
        assert_eq!(popped(&mut queue, at(200)), ["q", "p"], "p's priority does not help it");
        queue.set(pod("p", 5, false), |_| false);
        let entry = queue.pop(at(100)).unwrap();
        queue.fail(entry, fit(), at(100));
        queue.wake(|_, _| true);
        queue.set(pod("q", 0, false), |_| false);
        assert_eq!(popped(&mut queue, at(2_000)), ["p", "q"], "its backoff is over");
    }

    #[test]
    fn errors_wait_longer_each_time_and_are_never_taken_early() {
        let mut queue = SchedulingQueue::default();
        queue.set(pod("p", 0, false), |_| false);
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let entry = queue.pop(now).expect("it is due");
            queue.error(entry, now);
            assert!(queue.pop(now).is_none());
            let wait = queue.next(now).unwrap();
            waits.push(wait.as_secs());
            now = now + wait;
        }
        assert_eq!(waits, [2, 3, 5, 9, 11, 11], "1, 2, 4, 8, 10, 10 and the window");
    }

    #[test]
    fn gates_keep_a_pod_out() {
        let mut queue = SchedulingQueue::default();
        assert!(!queue.set(pod("p", 0, true), |_| false));
        assert!(queue.pop(at(1_000_000)).is_none());
        assert_eq!(queue.next(at(0)), None);
        assert!(queue.set(pod("p", 0, false), |_| false));
        assert!(queue.pop(at(0)).is_some());
    }
}
