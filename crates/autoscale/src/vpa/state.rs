//! What is known of all containers of one name and one set of labels.

use wharf_model::time::Time;

use super::histogram::{CPU, Histogram, HistogramCheckpoint, MEMORY};
use super::{Amount, Config};

/// Samples of cpu weigh this, whatever the container asks for.
const CPU_WEIGHT: f64 = 0.1;

/// Usage of containers, aggregated.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) cpu: Histogram,
    pub(super) memory: Histogram,
    /// Only samples of cpu are counted and dated.
    pub(super) first: Option<Time>,
    pub(super) last: Option<Time>,
    pub(super) samples: u64,
}

/// What is kept of a container's usage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// Usage of cpu.
    pub cpu: HistogramCheckpoint,
    /// Peaks of memory.
    pub memory: HistogramCheckpoint,
    /// The first sample of cpu.
    pub first: Option<Time>,
    /// The last sample of cpu.
    pub last: Option<Time>,
    /// How many samples of cpu there were.
    pub samples: u64,
}

impl State {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            cpu: Histogram::new(&CPU, config.cpu.half_life),
            memory: Histogram::new(&MEMORY, config.memory.half_life),
            first: None,
            last: None,
            samples: 0,
        }
    }

    pub(super) fn add_cpu(&mut self, millicores: Amount, at: Time) {
        self.cpu.add(millicores as f64 / 1000.0, CPU_WEIGHT, at);
        self.last = self.last.max(Some(at));
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.samples += 1;
    }

    pub(super) fn add_peak(&mut self, bytes: Amount, at: Time) {
        self.memory.add(bytes as f64, 1.0, at);
    }

    pub(super) fn subtract_peak(&mut self, bytes: Amount, at: Time) {
        self.memory.subtract(bytes as f64, 1.0, at);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.cpu.merge(&other.cpu);
        self.memory.merge(&other.memory);
        self.first = match (self.first, other.first) {
            (Some(own), Some(other)) => Some(own.min(other)),
            (own, other) => own.or(other),
        };
        self.last = self.last.max(other.last);
        self.samples += other.samples;
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            cpu: self.cpu.checkpoint(),
            memory: self.memory.checkpoint(),
            first: self.first,
            last: self.last,
            samples: self.samples,
        }
    }

    pub(super) fn load(checkpoint: &Checkpoint, config: &Config) -> Self {
        Self {
            cpu: Histogram::load(&checkpoint.cpu, &CPU, config.cpu.half_life),
            memory: Histogram::load(&checkpoint.memory, &MEMORY, config.memory.half_life),
            first: checkpoint.first,
            last: checkpoint.last,
            samples: checkpoint.samples,
        }
    }
}
