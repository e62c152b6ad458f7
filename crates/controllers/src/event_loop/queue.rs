//! The work queue of all controllers: each key once, the earliest wake-up wins, ties in the order
//! of arrival.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;
use wharf_model::time::Time;
use wharf_ports::controller::WorkKey;

type Entry = (usize, WorkKey);

/// The work queue. Entries in the heap that were overtaken by an earlier one are skipped.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<(Time, u64, usize, WorkKey)>>,
    /// The valid heap entry of each key that waits.
    waiting: FxHashMap<Entry, (Time, u64)>,
    /// Keys whose step is being carried out, with the wake-up asked for meanwhile.
    held: FxHashMap<Entry, Option<Time>>,
    sequence: u64,
}

impl Queue {
    /// Makes the key wait until `at`, unless it already waits for an earlier moment.
    pub(super) fn add(&mut self, controller: usize, key: WorkKey, at: Time) {
        let entry = (controller, key);
        if let Some(asked) = self.held.get_mut(&entry) {
            *asked = Some(asked.map_or(at, |earlier| earlier.min(at)));
            return;
        }
        if self.waiting.get(&entry).is_some_and(|(waiting, _)| *waiting <= at) {
            return;
        }
        self.sequence += 1;
        self.waiting.insert(entry.clone(), (at, self.sequence));
        self.heap.push(Reverse((at, self.sequence, entry.0, entry.1)));
    }

    /// The next key that is due.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<Entry> {
        self.drop_overtaken();
        if self.heap.peek().is_none_or(|Reverse((at, ..))| *at > now) {
            return None;
        }
        let Reverse((_, _, controller, key)) = self.heap.pop()?;
        let entry = (controller, key);
        self.waiting.remove(&entry);
        self.drop_overtaken();
        Some(entry)
    }

    /// When the next key is due.
    pub(super) fn next_wake(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Keeps the key from being given out until [`Queue::release`].
    pub(super) fn hold(&mut self, controller: usize, key: &WorkKey) {
        let entry = (controller, key.clone());
        let asked = self.waiting.remove(&entry).map(|(at, _)| at);
        self.held.insert(entry, asked);
        self.drop_overtaken();
    }

    /// Ends a hold; a wake-up asked for meanwhile takes effect.
    pub(super) fn release(&mut self, controller: usize, key: &WorkKey, now: Time) {
        if let Some(Some(at)) = self.held.remove(&(controller, key.clone())) {
            self.add(controller, key.clone(), at.max(now));
        }
    }

    /// Keeps the top of the heap a valid entry, so that `next_wake` can be read off it.
    fn drop_overtaken(&mut self) {
        while let Some(Reverse((_, sequence, controller, key))) = self.heap.peek() {
            // The pair must be built for the look-up; only overtaken entries pay for it twice.
            let entry = (*controller, key.clone());
            if self.waiting.get(&entry).is_some_and(|(_, valid)| valid == sequence) {
                return;
            }
            self.heap.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use wharf_model::object::ObjectKey;

    use super::*;

    fn key(name: &str) -> WorkKey {
        WorkKey { kind: None, key: ObjectKey::cluster(name) }
    }

    fn at(seconds: i64) -> Time {
        Time::from_seconds(seconds)
    }

    fn popped(queue: &mut Queue, now: i64) -> Vec<String> {
        std::iter::from_fn(|| queue.pop_due(at(now))).map(|(_, key)| key.key.to_string()).collect()
    }

    #[test]
    fn the_earliest_wake_wins_and_each_key_waits_once() {
        let mut queue = Queue::default();
        queue.add(0, key("a"), at(10));
        queue.add(0, key("b"), at(5));
        queue.add(0, key("a"), at(3));
        queue.add(0, key("a"), at(7));
        assert_eq!(queue.next_wake(), Some(at(3)));
        assert_eq!(popped(&mut queue, 4), ["a"]);
        assert_eq!(popped(&mut queue, 100), ["b"]);
        assert_eq!(queue.next_wake(), None);
    }

    #[test]
    fn ties_go_in_the_order_of_arrival() {
        let mut queue = Queue::default();
        for name in ["c", "a", "b"] {
            queue.add(0, key(name), at(1));
        }
        assert_eq!(popped(&mut queue, 1), ["c", "a", "b"]);
    }

    #[test]
    fn a_held_key_comes_back_only_if_asked_for() {
        let mut queue = Queue::default();
        queue.add(0, key("a"), at(1));
        assert_eq!(popped(&mut queue, 1), ["a"]);
        queue.hold(0, &key("a"));
        queue.add(0, key("a"), at(2));
        assert_eq!(popped(&mut queue, 9), Vec::<String>::new());
        queue.release(0, &key("a"), at(3));
        assert_eq!(popped(&mut queue, 3), ["a"]);
        queue.hold(0, &key("a"));
        queue.release(0, &key("a"), at(4));
        assert_eq!(popped(&mut queue, 9), Vec::<String>::new());
    }
}
