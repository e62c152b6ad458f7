//! InterPodAffinity: what pods want of each other: near these, away from those.
//!
//! `filter` heeds the pod's required terms and the required anti-affinity of the pods that are
//! placed; `score` adds up the preferred terms of both sides, and what pods require that would
//! like this one near.

mod filter;
mod hints;
mod score;

pub(crate) use filter::{State, explain, reason};
pub(crate) use hints::{
    wakes_on_namespace, wakes_on_node, wakes_on_node_gone, wakes_on_pod_added, wakes_on_pod_change,
    wakes_on_pod_gone, wakes_on_self,
};
pub(crate) use score::{Scores, normalize};

#[cfg(test)]
mod tests;
