//! Which nodes to give up, and what to put in their place.
//!
//! [`candidate`] says which nodes may be touched at all, [`budget`] how many, [`consolidate`] which
//! of them are worth it, and the answer is a [`command::Command`]. [`drift`] tells nodes that are no
//! longer what their pool asks for.

pub mod budget;
pub mod candidate;
pub mod command;
pub mod consolidate;
pub mod cost;
pub mod cron;
pub mod drift;
