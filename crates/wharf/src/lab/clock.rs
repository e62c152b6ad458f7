//! The lab's clock: real time, made faster, stopped or stepped. The one place in Wharf that reads
//! the machine's clocks.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use wharf_model::time::Time;
use wharf_ports::clock::Clock;

/// The fastest a lab may run: beyond this the machine, not the clock, sets the pace.
pub(crate) const SPEED_MAX: u32 = 1_000;

/// The lab's clock.
pub(crate) struct ScaledClock {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct State {
    /// Cluster time at `since`.
    base: Time,
    since: Instant,
    speed: u32,
    paused: bool,
    /// While set, cluster time moves from wake-up to wake-up until it is reached.
    stepping_to: Option<Time>,
    /// Where it waits for what is due then to be done.
    held_at: Option<Time>,
}

/// What the clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Cluster time.
    pub(crate) now: Time,
    /// Cluster seconds per second.
    pub(crate) speed: u32,
    /// Whether it stands still.
    pub(crate) paused: bool,
    /// Where a step under way leads.
    pub(crate) stepping_to: Option<Time>,
}

impl ScaledClock {
    /// A running clock.
    pub(crate) fn starting_at(base: Time, speed: u32) -> Self {
        let state = State {
            base,
            since: machine_instant(),
            speed,
            paused: false,
            stepping_to: None,
            held_at: None,
        };
        Self { state: Mutex::new(state), changed: watch::channel(0).0 }
    }

    /// What the clock shows.
    pub(crate) fn read(&self) -> Reading {
        let state = self.state.lock();
        Reading {
            now: state.now(),
            speed: state.speed,
            paused: state.paused,
            stepping_to: state.stepping_to,
        }
    }

    /// Stands still, or goes on.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.change(|state| state.paused = paused);
    }

    /// Goes at another speed from now on.
    pub(crate) fn set_speed(&self, speed: u32) {
        self.change(|state| state.speed = speed.clamp(1, SPEED_MAX));
    }

    /// Moves ahead by `by`, doing on the way what falls due in its own time. Returns where to.
    pub(crate) fn step(&self, by: Duration) -> Time {
        let mut target = Time::EPOCH;
        self.change(|state| {
            target = state.stepping_to.unwrap_or(state.base) + by;
            state.stepping_to = Some(target);
        });
        target
    }

    /// During a step: moves to `time`, and ends the step if that is where it leads.
    pub(crate) fn advance_to(&self, time: Time) {
        self.change(|state| {
            state.base = state.base.max(time);
            if state.stepping_to.is_some_and(|target| target <= state.base) {
                state.stepping_to = None;
            }
        });
    }

    /// Goes no further than `wake`, when something is due, until this is called again: what is due is
    /// done at its time even by a machine that comes late to it, and cluster time catches up
    /// afterwards. So the same happens at any speed.
    pub(crate) fn hold_at(&self, wake: Option<Time>) {
        let mut state = self.state.lock();
        // Never backwards.
        let now = state.now();
        state.held_at = wake.map(|wake| wake.max(now));
    }

    /// Waits until a step under way is done.
    pub(crate) async fn stepped(&self) {
        let mut changed = self.changed.subscribe();
        while self.read().stepping_to.is_some() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// How long in real time until the clock shows `time`; `None` while it stands still.
    pub(crate) fn real_time_until(&self, time: Time) -> Option<Duration> {
        let state = self.state.lock();
        if state.paused || state.stepping_to.is_some() {
            return None;
        }
        // One nanosecond more than the exact quotient, so that the clock has really got there.
        Some(time.since(state.unheld()) / state.speed + Duration::from_nanos(1))
    }

    /// Told of every change of speed, pause and step.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn change(&self, apply: impl FnOnce(&mut State)) {
        {
            let mut state = self.state.lock();
            let (shown, unheld) = (state.now(), state.unheld());
            state.base = shown;
            state.since = machine_instant();
            apply(&mut state);
            let is_at_shown = state.base == shown && !state.paused && state.stepping_to.is_none();
            if is_at_shown {
                // What it is behind is still to be caught up with.
                state.base = unheld;
            }
        }
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Clock for ScaledClock {
    fn now(&self) -> Time {
        self.state.lock().now()
    }
}

impl State {
    fn now(&self) -> Time {
        let unheld = self.unheld();
        match self.held_at {
            Some(held) if !self.paused && self.stepping_to.is_none() => unheld.min(held),
            _ => unheld,
        }
    }

    fn unheld(&self) -> Time {
        if self.paused || self.stepping_to.is_some() {
            return self.base;
        }
        self.base + machine_instant().saturating_duration_since(self.since) * self.speed
    }
}

/// The machine's wall clock as a port: for what happens in real time, such as the life of tokens.
pub(crate) struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Time {
        machine_time()
    }
}

/// The machine's monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the adapter that the rule points to")]
pub(crate) fn machine_instant() -> Instant {
    Instant::now()
}

/// The machine's wall clock: where a new lab's cluster time begins.
#[expect(clippy::disallowed_methods, reason = "this is the adapter that the rule points to")]
pub(crate) fn machine_time() -> Time {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Time::EPOCH + since_epoch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paused_clock_stands_and_a_step_moves_it() {
        let clock = ScaledClock::starting_at(Time::from_seconds(100), 60);
        clock.set_paused(true);
        let paused = clock.now();
        assert_eq!(clock.now(), paused);
        assert_eq!(clock.real_time_until(paused + Duration::from_secs(60)), None);
        let target = clock.step(Duration::from_secs(600));
        assert_eq!(target, paused + Duration::from_secs(600));
        clock.advance_to(paused + Duration::from_secs(10));
        assert_eq!(clock.read().stepping_to, Some(target));
        assert_eq!(clock.now(), paused + Duration::from_secs(10));
        clock.advance_to(target);
        assert_eq!(clock.read().stepping_to, None);
        assert_eq!(clock.now(), target);
        assert!(clock.read().paused, "a step does not end a pause");
    }

    #[test]
    fn a_held_clock_waits_and_catches_up() {
        let clock = ScaledClock::starting_at(Time::from_seconds(100), 1);
        let wake = Time::from_seconds(110);
        clock.hold_at(Some(wake));
        // Only now fast: the hold has to come before what it holds at.
        clock.set_speed(SPEED_MAX);
        while clock.real_time_until(wake) != Some(Duration::from_nanos(1)) {
            std::hint::spin_loop();
        }
        assert_eq!(clock.now(), wake, "whatever time has passed");
        clock.set_speed(1);
        assert_eq!(clock.now(), wake, "another speed ends no wait");
        clock.hold_at(Some(Time::from_seconds(109)));
        assert_eq!(clock.now(), wake, "it never goes back");
        clock.hold_at(None);
        assert!(clock.now() > wake);
        clock.hold_at(Some(clock.now()));
        clock.set_paused(true);
        let paused = clock.now();
        assert_eq!(clock.step(Duration::from_secs(5)), paused + Duration::from_secs(5));
        clock.advance_to(paused + Duration::from_secs(5));
        assert_eq!(clock.now(), paused + Duration::from_secs(5), "a step is held by nothing");
    }

    #[test]
    fn speed_divides_the_wait() {
        let clock = ScaledClock::starting_at(Time::from_seconds(100), 60);
        let wait = clock.real_time_until(clock.now() + Duration::from_secs(60));
        assert!(wait.is_some_and(|wait| wait <= Duration::from_millis(1_001)), "{wait:?}");
        clock.set_speed(5_000);
        assert_eq!(clock.read().speed, SPEED_MAX);
    }
}
