//! What a container or node has used, as its kernel counts: a counter of processor time and the
//! memory in use, kept as the levels in force so that what does not change costs nothing.

use std::collections::VecDeque;
use std::time::Duration;

use wharf_model::time::Time;

/// How far back levels are kept: two scrapes and some room for a reader that lags behind.
const KEPT: Duration = Duration::from_secs(90);

/// What is used at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Billionths of a core.
    pub cpu_nanos: u64,
    /// The working set.
    pub memory_bytes: u64,
}

/// One run of a container, or a node since it is watched.
#[derive(Clone, Debug)]
pub struct Meter {
    started: Time,
    known: Time,
    ended: Option<Time>,
    /// Processor time used before the first of the levels, in nanoseconds.
    before: u64,
    levels: VecDeque<(Time, Level)>,
}

impl Meter {
    /// A meter of what started at `started` and is known of from `at` on.
    pub fn new(started: Time, at: Time, level: Level) -> Self {
        Self {
            started,
            known: at.max(started),
            ended: None,
            before: 0,
            levels: VecDeque::from([(at.max(started), level)]),
        }
    }

    /// From `at` on the level is another. Times never go back: an earlier one counts as the last.
    pub fn set(&mut self, at: Time, level: Level) {
        let Some((last, present)) = self.levels.back_mut() else { return };
        let at = at.max(*last);
        if *present == level {
            return;
        }
        if *last == at {
            *present = level;
            return;
        }
        self.levels.push_back((at, level));
        while self.levels.len() > 1 && self.levels[1].0 + KEPT < at {
            self.before += used(self.levels[0], self.levels[1].0);
            self.levels.pop_front();
        }
    }

    /// It ended at `at`.
    pub fn end(&mut self, at: Time) {
        self.ended.get_or_insert(at);
    }

    /// When it started.
    pub fn started(&self) -> Time {
        self.started
    }

    /// From when on it is known what was used.
    pub fn known(&self) -> Time {
        self.known
    }

    /// When it ended.
    pub fn ended(&self) -> Option<Time> {
        self.ended
    }

    /// Whether it ran at a moment.
    pub fn ran(&self, at: Time) -> bool {
        self.known <= at && self.ended.is_none_or(|ended| ended > at)
    }

    /// Processor time used up to a moment, in nanoseconds. A moment before what is kept counts as
    /// the beginning of it.
    pub fn cpu_used(&self, until: Time) -> u64 {
        let mut sum = self.before;
        for (index, &from) in self.levels.iter().enumerate() {
            let end = self.levels.get(index + 1).map_or(until, |next| next.0.min(until));
            sum += used(from, end);
        }
        sum
    }

    /// The memory in use just before a moment.
    pub fn memory(&self, at: Time) -> u64 {
        let before = self.levels.iter().rev().find(|level| level.0 < at);
        before.or_else(|| self.levels.front()).map_or(0, |(_, level)| level.memory_bytes)
    }

    /// The level in force now.
    pub fn level(&self) -> Level {
        self.levels.back().map(|(_, level)| *level).unwrap_or_default()
    }
}

/// Nanoseconds of processor time that a level in force from its time until `end` makes.
fn used((from, level): (Time, Level), end: Time) -> u64 {
    let product = u128::from(level.cpu_nanos) * end.since(from).as_nanos() / 1_000_000_000;
    u64::try_from(product).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level(cores: u64, memory_bytes: u64) -> Level {
        Level { cpu_nanos: cores * 1_000_000_000, memory_bytes }
    }

    #[test]
    fn a_counter_is_the_sum_of_its_levels() {
        let at = Time::from_seconds;
        let mut meter = Meter::new(at(100), at(100), level(1, 10));
        meter.set(at(110), level(3, 20));
        meter.set(at(110), level(2, 20));
        meter.set(at(120), level(0, 5));
        assert_eq!(meter.cpu_used(at(100)), 0);
        assert_eq!(meter.cpu_used(at(105)), 5_000_000_000);
        assert_eq!(meter.cpu_used(at(115)), 20_000_000_000);
        assert_eq!(meter.cpu_used(at(1_000)), 30_000_000_000);
        assert_eq!((meter.memory(at(110)), meter.memory(at(111))), (10, 20));
        meter.end(at(130));
        assert!(meter.ran(at(129)) && !meter.ran(at(130)) && !meter.ran(at(99)));
    }

    proptest! {
        /// What is forgotten is in the sum.
        #[test]
        fn counters_never_go_back(steps in proptest::collection::vec((1_u64..60, 0_u64..4), 1..60)) {
            let mut now = Time::from_seconds(0);
            let mut meter = Meter::new(now, now, Level::default());
            let (mut expected, mut cores) = (0, 0);
            for (seconds, next) in steps {
                now = now + Duration::from_secs(seconds);
                expected += seconds * cores * 1_000_000_000;
                prop_assert_eq!(meter.cpu_used(now), expected);
                meter.set(now, level(next, 0));
                prop_assert_eq!(meter.cpu_used(now), expected);
                cores = next;
            }
        }
    }
}
