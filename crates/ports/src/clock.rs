//! The Clock port: what time it is in the cluster.

use std::sync::atomic::{AtomicI64, Ordering};

use wharf_model::time::Time;

/// Tells cluster time. Never goes backwards.
pub trait Clock: Send + Sync {
    /// The present moment in cluster time.
    fn now(&self) -> Time;
}

/// A clock that moves only when told to: the clock of rehearsals and tests.
#[derive(Debug, Default)]
pub struct VirtualClock(AtomicI64);

impl VirtualClock {
    /// A virtual clock that stands at `start`.
    pub fn starting_at(start: Time) -> Self {
        Self(AtomicI64::new(start.as_nanos()))
    }

    /// Moves to `time`; a time in the past leaves the clock where it is.
    pub fn advance_to(&self, time: Time) {
        self.0.fetch_max(time.as_nanos(), Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Time {
        Time::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_clock_never_goes_back() {
        let clock = VirtualClock::starting_at(Time::from_seconds(10));
        clock.advance_to(Time::from_seconds(20));
        clock.advance_to(Time::from_seconds(15));
        assert_eq!(clock.now(), Time::from_seconds(20));
    }
}
