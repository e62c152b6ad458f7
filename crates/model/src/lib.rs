//! The vocabulary of Wharf: Kubernetes kinds, quantities, selectors, requirements, resources,
//! money and time. Everything here is a value or a pure function; this crate knows no clock, no
//! network, no store and no randomness but the seeded generator it defines.
//!
//! Start with [`object`] (how an object is held), [`kinds`] (which kinds there are) and
//! [`resources`] (what a pod asks for and what a node offers).

pub mod auto_mode;
pub mod balancing;
pub mod cron;
pub mod curve;
pub mod custom;
pub mod duration;
pub mod ebs;
pub mod fargate;
pub mod gates;
pub mod indexes;
pub mod instance;
pub mod instance_type;
pub mod karpenter;
pub mod kinds;
pub mod labels;
pub mod metrics;
pub mod money;
pub mod names;
pub mod node_health;
pub mod nodegroup;
pub mod object;
pub mod pod;
pub mod quantity;
pub mod random;
pub mod requirements;
pub mod resources;
pub mod scale;
pub mod selector;
pub mod storage;
pub mod subnet;
pub mod taints;
pub mod time;
mod unset;
pub mod vpa;
