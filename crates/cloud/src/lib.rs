//! The Cloud port's adapters: what a cloud sells and, in a simulated one, what happens when it is
//! bought.
//!
//! Start with [`catalog`]: EC2's machine types, what nodes of them offer, and what they cost. It
//! knows nothing of pods, node pools or time.

pub mod catalog;
pub mod ec2;
pub mod none;
