//! One workload on every way of computing that EKS offers: what it costs there a month, how long its
//! pods wait, and what of it cannot run.
//!
//! Nothing is estimated by a formula of its own: for each way a cluster is rehearsed with the same
//! workload, by the same controllers as everywhere, and read off. Start with [`compare`]; [`way`] says
//! how each cluster is set up, [`measure`] what is read off.

mod html;
mod measure;
mod report;
mod way;
mod workload;

use std::time::Duration;

use wharf_model::money::Money;

use crate::config::ConfigError;
use crate::rehearsal::RehearsalError;

pub use self::measure::{Delays, Machines, Refused, Share};
pub use self::way::Way;
pub use self::workload::{Workload, WorkloadError};

/// Hours that price calculators count for a month.
pub const HOURS_OF_MONTH: u32 = 730;

/// What may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The region whose prices and zones are used.
    pub region: String,
    /// The seed of everything random.
    pub seed: u64,
    /// The ways to look at, in this order.
    pub ways: Vec<Way>,
    /// The machines of the managed node group; none chooses the smallest of the m5 that holds every pod.
    pub instance_type: Option<String>,
}

/// The same workload by every way.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The workload's name.
    pub workload: String,
    /// Region.
    pub region: String,
    /// Seed.
    pub seed: u64,
    /// Pods of the workload, as the cluster where most of them came to be has them.
    pub pods: usize,
    /// What the workload's files say that was left out, a line each.
    pub left_out: Vec<String>,
    /// What came of each way.
    pub outcomes: Vec<Outcome>,
}

/// What came of one way.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The way.
    pub way: Way,
    /// What a month costs, at the rate of the time that was looked at.
    pub per_month: Money,
    /// What of that is paid for the machines.
    pub machines_per_month: Money,
    /// What of that is paid for others to run the machines.
    pub fees_per_month: Money,
    /// The machines at the end, alike ones together.
    pub machines: Vec<Machines>,
    /// From the creation of a pod until its containers ran.
    pub start: Option<Delays>,
    /// Pods that ran, or run.
    pub ran: usize,
    /// What could not run, and why.
    pub refused: Vec<Refused>,
    /// How much of the machines the pods ask for.
    pub used: Option<Share>,
    /// What has to be known of the numbers.
    pub notes: Vec<String>,
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A cluster could not be rehearsed.
    #[error(transparent)]
    Rehearsal(#[from] RehearsalError),
    /// A cluster could not be set up.
    #[error("the cluster of {way} cannot be set up: {error}")]
    Cluster {
        /// The way.
        way: Way,
        /// Why.
        error: ConfigError,
    },
    /// The machines asked for are not sold.
    #[error("there is no instance type {0:?} in {1}; `wharf catalog --region {1}` lists them")]
    InstanceType(String, String),
}

/// Rehearses the workload by each way. `progress` is told which way comes next.
///
/// # Errors
/// If a manifest is refused, or a cluster cannot be set up.
pub fn compare(
    workload: &Workload,
    options: &Options,
    progress: &mut dyn FnMut(Way),
) -> Result<Comparison, CompareError> {
    let mut outcomes = Vec::with_capacity(options.ways.len());
    let mut pods = 0;
    for way in &options.ways {
        progress(*way);
        let (outcome, seen) = way::rehearse(*way, workload, options)?;
        pods = pods.max(seen);
        outcomes.push(outcome);
    }
    Ok(Comparison {
        workload: workload.name.clone(),
        region: options.region.clone(),
        seed: options.seed,
        pods,
        left_out: workload.left_out.clone(),
        outcomes,
    })
}

/// What so much in a span is in a month.
fn of_month(cost: Money, span: Duration) -> Money {
    let month = i128::from(HOURS_OF_MONTH) * 3_600;
    let seconds = i128::from(span.as_secs()).max(1);
    Money::from_nano_dollars(cost.nano_dollars() * month / seconds)
}

#[cfg(test)]
mod tests;
