//! What `kubectl get nodegroups` prints.

use crate::custom::{Column, column};

/// The columns of a group.
pub const NODEGROUP: &[Column] = &[
    column("CLUSTER", "string", ".spec.clusterName", 0),
    column("STATUS", "string", ".status.status", 0),
    column("DESIREDSIZE", "integer", ".spec.scalingConfig.desiredSize", 0),
    column("MINSIZE", "integer", ".spec.scalingConfig.minSize", 0),
    column("MAXSIZE", "integer", ".spec.scalingConfig.maxSize", 0),
    column("CAPACITYTYPE", "string", ".spec.capacityType", 1),
    column("AMITYPE", "string", ".spec.amiType", 1),
    column("Synced", "string", r#".status.conditions[?(@.type=="ACK.ResourceSynced")].status"#, 0),
    column("Age", "date", ".metadata.creationTimestamp", 0),
];

/// The columns of a kind by its name.
pub fn by_kind(kind: &str) -> Option<&'static [Column]> {
    (kind == "Nodegroup").then_some(NODEGROUP)
}
