//! What `kubectl get fargateprofiles` prints.

use crate::custom::{Column, column};

/// The columns of a profile.
pub const FARGATE_PROFILE: &[Column] = &[
    column("CLUSTER", "string", ".spec.clusterName", 0),
    column("STATUS", "string", ".status.status", 0),
    column("PODEXECUTIONROLEARN", "string", ".spec.podExecutionRoleARN", 1),
    column("Synced", "string", r#".status.conditions[?(@.type=="ACK.ResourceSynced")].status"#, 0),
    column("Age", "date", ".metadata.creationTimestamp", 0),
];

/// The columns of a kind by its name.
pub fn by_kind(kind: &str) -> Option<&'static [Column]> {
    (kind == "FargateProfile").then_some(FARGATE_PROFILE)
}
