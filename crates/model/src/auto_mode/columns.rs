//! What `kubectl get nodeclasses` and `kubectl get clusters` print.

use crate::custom::{Column, column};

/// The columns of a NodeClass.
pub const NODE_CLASS: &[Column] = &[
    column("Role", "string", ".spec.role", 0),
    column("Ready", "string", r#".status.conditions[?(@.type=="Ready")].status"#, 0),
    column("Age", "date", ".metadata.creationTimestamp", 0),
];

/// The columns of a Cluster.
pub const CLUSTER: &[Column] = &[
    column("VERSION", "string", ".spec.version", 0),
    column("STATUS", "string", ".status.status", 0),
    column("AUTOMODE", "boolean", ".spec.computeConfig.enabled", 0),
    column("Age", "date", ".metadata.creationTimestamp", 0),
];

/// The columns of a kind by its name.
pub fn by_kind(kind: &str) -> Option<&'static [Column]> {
    match kind {
        "NodeClass" => Some(NODE_CLASS),
        "Cluster" => Some(CLUSTER),
        _ => None,
    }
}
