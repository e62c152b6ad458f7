//! The autoscalers' core: what a workload's count of replicas should be, and why.
//!
//! Pure functions over what was observed: no clock, no I/O, no Kubernetes client. Rules, rounding
//! and texts are upstream's.

pub mod coordinate;
pub mod cpa;
pub mod hpa;
pub mod predict;
pub mod vpa;
