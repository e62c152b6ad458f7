//! What the process of a container does, as far as it uses anything.

use std::time::Duration;

use compact_str::CompactString;
use wharf_model::curve::Curve;

/// What the process of a container does.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Cores wanted in the background.
    pub cpu: Curve,
    /// Bytes in use.
    pub memory: Curve,
    /// What happens besides for a while.
    pub windows: Vec<Window>,
    /// What it repeats, each on a thread of its own.
    pub cycles: Vec<Cycle>,
    /// Requests a second that it makes without waiting for answers, and to whom.
    pub open: Option<(Curve, Target)>,
    /// What a request costs, if it answers any.
    pub serve: Option<Serve>,
}

/// Work for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Time since the start at which it begins.
    pub from: Duration,
    /// And ends; `None` if the process goes on with it.
    pub until: Option<Duration>,
    /// Cores wanted.
    pub cores: f64,
    /// Bytes in use.
    pub memory: f64,
}

/// What an endless loop does in one round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cycle {
    /// In this order.
    pub phases: Vec<Phase>,
}

/// A part of a round.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Nothing for so many seconds.
    Pause(f64),
    /// As much of one core as there is, for so many seconds.
    Burn(f64),
    /// So many seconds of processor time.
    Work(f64),
    /// A request, and waiting for its answer.
    Request(Target),
}

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The host, as the client's namespace resolves it.
    pub host: CompactString,
    /// The port.
    pub port: u16,
}

/// What a request costs who answers it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Serve {
    /// Seconds of processor time.
    pub cpu: f64,
    /// Seconds of waiting for something else.
    pub wait: f64,
    /// Bytes held while it is answered.
    pub memory: f64,
}

impl Profile {
    /// A process that does nothing but hold memory.
    pub fn idle(cores: f64, memory: f64) -> Self {
        Self {
            cpu: Curve::Constant(cores),
            memory: Curve::Constant(memory),
            windows: Vec::new(),
            cycles: Vec::new(),
            open: None,
            serve: None,
        }
    }

    /// Cores wanted and bytes in use so long after the start, but for cycles and requests.
    pub fn background(&self, since: Duration) -> (f64, f64) {
        let open = self.windows.iter().filter(|window| window.holds(since));
        open.fold((self.cpu.at(since), self.memory.at(since)), |(cpu, memory), window| {
            (cpu + window.cores, memory + window.memory)
        })
    }

    /// When, as time since the start, something changes by itself next.
    pub fn changes(&self, since: Duration) -> Option<Duration> {
        let windows = self.windows.iter().flat_map(|window| [Some(window.from), window.until]);
        let curves = [self.cpu.changes(since), self.memory.changes(since)];
        let open = self.open.as_ref().map(|(rate, _)| rate.changes(since));
        let all = windows.chain(curves).chain(open).flatten();
        all.filter(|at| *at > since).min()
    }

    /// Whom it makes requests to.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        let phases = self.cycles.iter().flat_map(|cycle| &cycle.phases);
        let asked = phases.filter_map(|phase| match phase {
            Phase::Request(target) => Some(target),
            _ => None,
        });
        asked.chain(self.open.iter().map(|(_, target)| target))
    }
}

impl Window {
    fn holds(&self, since: Duration) -> bool {
        self.from <= since && self.until.is_none_or(|until| since < until)
    }
}

impl Cycle {
    /// Seconds that a round takes but for its requests.
    pub(crate) fn own_seconds(&self) -> f64 {
        let own = self.phases.iter().map(|phase| match phase {
            Phase::Pause(seconds) | Phase::Burn(seconds) | Phase::Work(seconds) => *seconds,
            Phase::Request(_) => 0.0,
        });
        // A round that takes no time at all would be made infinitely often.
        own.sum::<f64>().max(1e-6)
    }

    /// Seconds of processor time that a round takes where nobody else wants any.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let cpu = self.phases.iter().map(|phase| match phase {
            Phase::Burn(seconds) | Phase::Work(seconds) => *seconds,
            Phase::Pause(_) | Phase::Request(_) => 0.0,
        });
        cpu.sum()
    }

    /// The requests of a round.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &Target> {
        self.phases.iter().filter_map(|phase| match phase {
            Phase::Request(target) => Some(target),
            _ => None,
        })
    }
}
