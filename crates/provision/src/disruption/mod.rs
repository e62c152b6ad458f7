//! Which nodes to give up, and what to put in their place.

pub mod budget;
pub mod cost;
pub mod cron;
