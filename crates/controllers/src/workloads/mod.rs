//! kube-controller-manager's part: Deployment, ReplicaSet, garbage collection, namespaces, node
//! lifecycle and what else keeps a cluster's objects in order.

mod common;
pub mod deployment;
pub mod garbage_collector;
#[cfg(test)]
mod harness;
pub mod replica_set;
