//! The Vertical Pod Autoscaler's recommender: from samples of usage to requests, as VPA 1.7
//! computes them.
//!
//! [`Model`] takes in pods, samples and kills by memory; [`Model::recommend`] gives what a
//! container should ask for. What it has learned outlives it as [`Checkpoint`]s. How it reaches the
//! pods is [`admit`] (at creation) and [`update`] (later).

pub mod admit;
pub mod api;
pub mod cases;
mod container;
mod estimate;
mod histogram;
mod limit_range;
mod model;
mod policy;
mod state;
pub mod target;
pub mod update;

use std::time::Duration;

use wharf_model::quantity::Quantity;

pub use histogram::HistogramCheckpoint;
pub use limit_range::LimitRanges;
pub use model::{Model, ObservedContainer, ObservedPod, Target};
pub use policy::{Capping, Limits, Policies, Policy};
pub use state::Checkpoint;

/// An amount of a resource: millicores or bytes.
pub type Amount = i64;

/// The largest amount there is.
pub(crate) const AMOUNT_MAX: f64 = 1e14;

/// An amount of a floating-point number: cut to a whole number between nothing and the largest
/// amount. What is no number is nothing.
pub(crate) fn amount(value: f64) -> Amount {
    // The cast turns NaN into 0.
    value.clamp(0.0, AMOUNT_MAX) as Amount
}

/// The two resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// In millicores.
    Cpu,
    /// In bytes.
    Memory,
}

/// Amounts of both resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Millicores.
    pub cpu: Amount,
    /// Bytes.
    pub memory: Amount,
}

/// The recommender's flags; the defaults are upstream's.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How cpu is estimated.
    pub cpu: Estimate,
    /// How memory is estimated.
    pub memory: Estimate,
    /// What is added to every estimate, as a fraction of it.
    pub margin: f64,
    /// The least that all containers of a pod are given together.
    pub pod_minimum: Amounts,
    /// Over how long one peak of memory counts.
    pub memory_interval: Duration,
    /// How many such peaks count; usage that is older is forgotten.
    pub memory_intervals: u32,
    /// How much memory a container killed for it is given, as a multiple.
    pub oom_bump_ratio: f64,
    /// And at least so many bytes more.
    pub oom_bump_least: f64,
    /// Amounts are rounded up to multiples of these.
    pub round_to: Amounts,
    /// The most a container is given where its policy says nothing.
    pub max_allowed: Limits,
    /// Whether annotations may ask for whole cores.
    pub integer_cpu: bool,
    /// Gate `PerVPAConfig`: whether policies may set the memory interval and the bump.
    pub per_vpa_config: bool,
}

/// How one resource is estimated.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The percentile of the target.
    pub target: f64,
    /// That of the lower bound.
    pub lower: f64,
    /// That of the upper bound.
    pub upper: f64,
    /// A sample loses half its weight in this time.
    pub half_life: Duration,
    /// The history that makes for a confidence of one.
    pub confidence_interval: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for Estimate {
    fn default() -> Self {
        Self { target: 0.9, lower: 0.5, upper: 0.95, half_life: DAY, confidence_interval: DAY }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cpu: Estimate::default(),
            memory: Estimate::default(),
            margin: 0.15,
            pod_minimum: Amounts { cpu: 25, memory: 250 << 20 },
            memory_interval: DAY,
            memory_intervals: 8,
            oom_bump_ratio: 1.2,
            oom_bump_least: 100.0 * 1024.0 * 1024.0,
            round_to: Amounts { cpu: 1, memory: 1 },
            max_allowed: Limits::default(),
            integer_cpu: false,
            per_vpa_config: false,
        }
    }
}

/// What one container should ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recommendation {
    /// The container.
    pub container: compact_str::CompactString,
    /// What it should ask for.
    pub target: Recommended,
    /// Less than this is too little.
    pub lower: Recommended,
    /// More than this is too much.
    pub upper: Recommended,
    /// The target before the policy's limits.
    pub uncapped: Recommended,
}

/// Amounts of the resources that a policy controls. One that a limit cut is written as the limit
/// is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recommended {
    /// Cpu.
    pub cpu: Option<Quantity>,
    /// Memory.
    pub memory: Option<Quantity>,
}
