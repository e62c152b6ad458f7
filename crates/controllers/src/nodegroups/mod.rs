//! Managed node groups of EKS: an Auto Scaling group of machines for each `Nodegroup`, kept at the size
//! that its spec asks for.
//!
//! `asg` plans launches and what is given up, `launch` says with what a machine is asked for, `drain`
//! empties nodes, `repair` finds the broken ones, `status` tells how a group is doing, `controller` puts them together. All that counts is
//! in objects: a machine is a group's by its tag, and one that is given up by its annotations. Karpenter
//! leaves these machines alone, as they have no NodeClaim, and counts the room on their nodes.
//! <https://docs.aws.amazon.com/eks/latest/userguide/managed-node-groups.html>

mod asg;
mod controller;
mod drain;
mod launch;
mod repair;
mod status;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use wharf_cloud::catalog::Catalog;
use wharf_model::instance::Instance;
use wharf_model::nodegroup::{LABEL, NAME_TAG, Nodegroup};
use wharf_ports::controller::Controller;
use wharf_ports::view::View;

pub use controller::NAME;

/// What the controller of node groups has to know of its cluster.
#[derive(Clone, Debug)]
pub struct NodegroupSettings {
    /// The cluster's name.
    pub cluster_name: String,
    /// The account.
    pub account: String,
    /// What the region sells.
    pub catalog: Arc<Catalog>,
}

/// The controllers of managed node groups.
pub fn controllers(settings: NodegroupSettings) -> Vec<Box<dyn Controller>> {
    vec![Box::new(controller::Nodegroups::new(settings))]
}

/// The group that a machine is of.
pub fn group_of(machine: &Instance) -> Option<&str> {
    machine.spec.tags.get(NAME_TAG).map(String::as_str)
}

/// The group that a node is of.
pub fn group_of_node(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(LABEL).map(String::as_str)
}

/// Nodes as new machines of a group would be, one in each of its zones: what the Cluster Autoscaler calls
/// templates. None for a group whose types are not there.
pub fn template_nodes(
    group: &Nodegroup,
    catalog: &Catalog,
    cluster: &str,
    view: &View,
) -> Vec<Node> {
    let Ok(offer) = launch::offer(group, catalog) else { return Vec::new() };
    let zones = launch::zones(group, catalog, view);
    zones.iter().filter_map(|zone| launch::template(group, &offer, zone, cluster)).collect()
}
