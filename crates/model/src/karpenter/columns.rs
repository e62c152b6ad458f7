//! What `kubectl get` prints of each kind, and the names kubectl accepts for it.

use crate::custom::{Column, column};

/// The columns of a kind by its name.
pub fn by_kind(kind: &str) -> Option<&'static [Column]> {
    match kind {
        "NodePool" => Some(NODE_POOL),
        "NodeClaim" => Some(NODE_CLAIM),
        "EC2NodeClass" => Some(EC2_NODE_CLASS),
        _ => None,
    }
}

const READY: Column =
    column("Ready", "string", r#".status.conditions[?(@.type=="Ready")].status"#, 0);
const AGE: Column = column("Age", "date", ".metadata.creationTimestamp", 0);

/// The columns of `kubectl get nodepools`.
pub const NODE_POOL: &[Column] = &[
    column("NodeClass", "string", ".spec.template.spec.nodeClassRef.name", 0),
    column("Nodes", "string", ".status.nodes", 0),
    READY,
    AGE,
    column("Weight", "integer", ".spec.weight", 1),
    column("CPU", "string", ".status.resources.cpu", 1),
    column("Memory", "string", ".status.resources.memory", 1),
];

/// The columns of `kubectl get nodeclaims`.
pub const NODE_CLAIM: &[Column] = &[
    column("Type", "string", r".metadata.labels.node\.kubernetes\.io/instance-type", 0),
    column("Capacity", "string", r".metadata.labels.karpenter\.sh/capacity-type", 0),
    column("Zone", "string", r".metadata.labels.topology\.kubernetes\.io/zone", 0),
    column("Node", "string", ".status.nodeName", 0),
    READY,
    AGE,
    column("ImageID", "string", ".status.imageID", 1),
    column("ID", "string", ".status.providerID", 1),
    column("NodePool", "string", r".metadata.labels.karpenter\.sh/nodepool", 1),
    column("NodeClass", "string", ".spec.nodeClassRef.name", 1),
    column("Drifted", "string", r#".status.conditions[?(@.type=="Drifted")].status"#, 1),
];

/// The columns of `kubectl get ec2nodeclasses`.
pub const EC2_NODE_CLASS: &[Column] = &[READY, AGE, column("Role", "string", ".spec.role", 1)];

/// kubectl's short names of EC2NodeClass; the other two kinds have none.
pub const EC2_NODE_CLASS_SHORT_NAMES: &[&str] = &["ec2nc", "ec2ncs"];

/// The category that all three kinds are in: `kubectl get karpenter`.
pub const CATEGORIES: &[&str] = &["karpenter"];

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(columns: &[Column], priority: i32) -> String {
        columns
            .iter()
            .filter(|column| column.priority <= priority)
            .map(|column| column.name.to_uppercase())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn headers_are_upstreams() {
        assert_eq!(headers(NODE_POOL, 0), "NODECLASS NODES READY AGE");
        assert_eq!(headers(NODE_POOL, 1), "NODECLASS NODES READY AGE WEIGHT CPU MEMORY");
        assert_eq!(headers(NODE_CLAIM, 0), "TYPE CAPACITY ZONE NODE READY AGE");
        assert_eq!(
            headers(NODE_CLAIM, 1),
            "TYPE CAPACITY ZONE NODE READY AGE IMAGEID ID NODEPOOL NODECLASS DRIFTED"
        );
        assert_eq!(headers(EC2_NODE_CLASS, 1), "READY AGE ROLE");
    }
}
