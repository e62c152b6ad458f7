//! One running container: which of its samples count.

use std::time::Duration;

use wharf_model::time::Time;

use super::state::State;
use super::{Amount, amount};

/// A container with its current peak of memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Container {
    last_cpu: Option<Time>,
    last_memory: Option<Time>,
    /// The end of the interval of the current peak.
    window_end: Option<Time>,
    peak: Amount,
    oom_peak: Amount,
}

/// How much memory a container killed for it is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bump {
    pub(super) interval: Duration,
    pub(super) ratio: f64,
    pub(super) least: f64,
}

impl Container {
    /// A sample of cpu, unless it is no newer than the last.
    pub(super) fn add_cpu(&mut self, state: &mut State, millicores: Amount, at: Time) {
        if millicores >= 0 && self.last_cpu.is_none_or(|last| at > last) {
            state.add_cpu(millicores, at);
            self.last_cpu = Some(at);
        }
    }

    /// A sample of memory: only the highest of each interval counts, dated to the interval's end.
    pub(super) fn add_memory(
        &mut self,
        state: &mut State,
        bytes: Amount,
        at: Time,
        oom: bool,
        interval: Duration,
    ) {
        if bytes < 0 || (!oom && self.last_memory.is_some_and(|last| at < last)) {
            return;
        }
        self.last_memory = Some(at);
        let end = *self.window_end.get_or_insert(at);
        let end = if at < end {
            let highest = self.highest();
            if highest == 0 || bytes <= highest {
                return;
            }
            state.subtract_peak(highest, end);
            end
        } else {
            let past = at.since(end).as_nanos() / interval.as_nanos().max(1);
            let steps = u32::try_from(past + 1).unwrap_or(u32::MAX);
            let end = end + interval.saturating_mul(steps);
            self.window_end = Some(end);
            (self.peak, self.oom_peak) = (0, 0);
            end
        };
        state.add_peak(bytes, end);
        *(if oom { &mut self.oom_peak } else { &mut self.peak }) = bytes;
    }

    /// A kill for memory: a sample of what would have been enough.
    pub(super) fn add_oom(&mut self, state: &mut State, request: Amount, at: Time, bump: Bump) {
        if self.window_end.is_some_and(|end| at < end - bump.interval) {
            return;
        }
        // Earlier kills are not fed back.
        let used = request.max(self.peak);
        let needed = amount(used as f64 * bump.ratio).max(used.saturating_add(amount(bump.least)));
        self.add_memory(state, needed, at, true, bump.interval);
    }

    /// The peak of an interval that is still open.
    pub(super) fn open_peak(&self, now: Time) -> Option<(Amount, Time)> {
        self.window_end.filter(|end| now < *end).map(|end| (self.highest(), end))
    }

    fn highest(&self) -> Amount {
        self.peak.max(self.oom_peak)
    }
}
