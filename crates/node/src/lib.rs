//! The kubelet's part: simulated nodes and the pods on them.
//!
//! Two controllers, both step functions: [`kubelet::NodeAgent`] registers a Node for each simulated
//! machine and keeps it posted; [`pods::PodAgent`] runs the pods that are bound to such nodes.
//! What a container's process would do is a model ([`program`]), read from its image and command;
//! [`logs`] says from the same model what it printed, [`http`] what it answers. Nodes without an
//! `Instance` behind them are left alone: their kubelets are real. Who enters a container finds a
//! modelled [`shell`].

#[cfg(test)]
mod harness;
pub mod http;
mod image;
pub mod kubelet;
mod load;
pub mod logs;
pub mod monitor;
pub mod pods;
pub mod program;
pub mod shell;
