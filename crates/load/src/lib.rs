//! The load model: what containers use of cpu and memory as a result of what happens to them.
//!
//! A fluid model, solved for one moment at a time: background work, requests of closed loops
//! spread evenly over the ready endpoints of Services, cpu throttled at limits and shared on full
//! nodes by weight, memory that grows with what is served. [`Load::tick`] says what is used from
//! now on, who is killed for memory, and when to ask again; what does not change costs nothing.
//!
//! It knows no cluster: the kubelet's crate tells it of nodes, containers and routes, and what
//! their processes do ([`Profile`]). Which numbers are modelled is in `docs/load.md`.

mod closed;
mod profile;
mod share;
mod solve;
mod world;

pub use profile::{Cycle, Phase, Profile, Serve, Target, Window};
pub use world::{Container, Id, Load, Node, Outcome, Usage};

#[cfg(test)]
mod tests;
