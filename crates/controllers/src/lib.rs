//! The event loop and the controllers: step functions on one deterministic queue, one folder per
//! system. A controller here drives a core (`wharf-scheduler`, `wharf-provision`,
//! `wharf-autoscale`): it gathers the
//! snapshot, asks the core, and turns the decision into writes, events and reasons. Nothing here
//! awaits, reads a clock or draws randomness of its own.

pub mod cpa;
pub mod elb;
pub mod event_loop;
pub mod fargate;
pub mod hpa;
pub mod journal;
pub mod karpenter;
pub mod metrics;
pub mod nodegroups;
pub mod scheduler;
pub mod storage;
pub mod vpa;
pub mod workloads;
