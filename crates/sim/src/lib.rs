//! Rehearsals: a scenario on a virtual clock, the timeline of what happened, and what it cost.
//!
//! [`world`] puts together the same registry, controllers and simulated cloud that the lab runs;
//! [`rehearsal`] drives them by jumping from wake-up to wake-up. No API server, no sockets, no JSON.
//! Start with [`scenario`] for the input and [`timeline`] for the output; [`compute`] rehearses one
//! workload on every way of computing.

mod addons;
pub mod cluster;
pub mod compute;
pub mod config;
mod kube_system;
pub mod ledger;
pub mod rehearsal;
pub mod scenario;
pub mod timeline;
pub mod why;
pub mod world;
