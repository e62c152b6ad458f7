//! The scheduler's core: which node a pending pod goes to, or why none will take it.
//!
//! Pure functions over a [`Snapshot`]: no clock, no I/O, no randomness, no Kubernetes client.
//! Rules, weights, rounding and texts are those of kube-scheduler 1.36; where it leaves a tie to
//! chance, the first node in order wins here, so that the same snapshot always gives the same
//! decision. Start with [`schedule`]; the rules are in the plugins, one file each.
//!
//! Who drives it keeps the snapshot up to date ([`Snapshot::set_node`], [`Snapshot::place`], …),
//! compiles each pending pod once ([`Snapshot::compile`]), and places a pod in the snapshot as
//! soon as it is decided, not only when the cluster confirms it. [`schedule_with`] decides the same
//! as [`schedule`] many times faster, since it remembers what nodes have answered.
//!
//! ```
#![doc = include_str!("../examples/place.rs")]
//! ```

pub mod cases;
pub mod config;
mod cycle;
mod devices;
mod diagnosis;
mod hints;
mod images;
mod journal;
mod measure;
mod memo;
mod namespaces;
mod node;
mod plugins;
mod pod;
mod preemption;
mod profile;
mod refusals;
pub mod remedy;
mod requests;
pub mod review;
mod scores;
mod selector;
mod shape;
mod snapshot;
mod storage;
mod symbols;
#[cfg(test)]
mod testing;
mod topology;
mod workloads;

pub use cycle::{
    Candidate, Choice, Decision, Evaluation, Placement, Rotation, Survey, Verdicts, Veto, conclude,
    evaluate, fits, schedule, schedule_measured, schedule_with, survey,
};
pub use devices::{
    DeviceNews, DevicePlan, ExtendedClaim, ExtendedResources, NoDevices, PodClaim, PodClaims,
    binding_conditions, extended_resource_claim, is_extended_resource_claim,
};
pub use diagnosis::{Diagnosis, Explanation, Preemption, Unschedulable};
pub use hints::{News, concerns, wakes, wakes_itself};
pub use measure::{ExtensionPoint, Measure, Status};
pub use memo::Memo;
pub use node::{Effect, NodeFacts, NodeInfo, Taint};
pub use plugins::{Code, MAX_SCORE, PreFilterRejection, Rejection};
pub use pod::{HostPort, NodeAffinity, PodInfo, Toleration};
pub use preemption::{Nomination, candidates, cheapest};
pub use profile::{
    FitRule, FitStrategy, PLUGINS, Plugin, PluginArguments, PluginSet, Profile, SpreadDefaults,
};
pub use refusals::Refusals;
pub use requests::{NonZero, PodRequests};
pub use selector::{Expression, Selector, Term};
pub use shape::Shape;
pub use snapshot::{Budget, NodeChange, NodeIndex, Snapshot};
pub use storage::{NoLongerFits, PodVolumes, StorageNews, VolumePlan};
pub use symbols::{Labels, Symbol, Symbols};
pub use workloads::{Owner, OwnerKind};

/// Whether a pod may enter the queue: it has no scheduling gates.
pub fn admits(pod: &PodInfo) -> bool {
    plugins::scheduling_gates::admits(pod)
}
