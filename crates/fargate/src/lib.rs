//! EKS Fargate's core: which pods it takes ([`profile`], [`admission`]), which it refuses
//! ([`refusal`]), how large a micro-VM a pod gets ([`size`], [`storage`]), what its node looks like
//! ([`node`]), how long it takes to start ([`start`]), whether its output is collected ([`logging`]),
//! and what it costs ([`price`]). Values and pure functions: it knows no store, no cloud and no clock.
//!
//! Public contract: <https://docs.aws.amazon.com/eks/latest/userguide/fargate.html>. AWS publishes
//! neither the scheduler nor its webhook; what is known from clusters alone is marked as observed.

pub mod admission;
pub mod delivery;
pub mod log_store;
pub mod logging;
pub mod node;
pub mod pattern;
pub mod price;
pub mod profile;
pub mod refusal;
pub mod size;
pub mod start;
pub mod storage;

/// The scheduler that pods of Fargate are given to, and the source of its events.
pub const SCHEDULER: &str = "fargate-scheduler";
/// The label that names the profile of a pod. A user who sets it chooses among several that match.
pub const PROFILE_LABEL: &str = "eks.amazonaws.com/fargate-profile";
/// On nodes a label and a taint, `fargate`; on pods an annotation that keeps them elsewhere, `ec2`.
pub const COMPUTE_TYPE: &str = "eks.amazonaws.com/compute-type";
/// The annotation that tells a pod's size, `0.5vCPU 1GB`.
pub const CAPACITY_PROVISIONED: &str = "CapacityProvisioned";
/// The annotation that tells whether a pod's output is collected.
pub const LOGGING: &str = "Logging";
