//! Pure core of provisioning and disruption: pods, pools and a catalogue in; machines out.
//!
//! Nothing here knows a clock, a network, a store or randomness: a decision is a function of the
//! snapshot and the time it is given. Start with [`solve::Solver`], which places pods on nodes and
//! plans new ones; [`disruption`] asks it what would happen if nodes were gone. Words and rules are
//! Karpenter's (<https://karpenter.sh/docs/concepts/>).

pub mod cases;
pub mod catalog;
pub mod claim;
mod cost;
pub mod disruption;
pub mod failure;
pub mod node;
pub mod pod;
pub mod pool;
pub mod repair;
pub mod review;
mod shapes;
pub mod solve;
pub mod terms;
mod topology;

pub use shapes::ShapeId;
