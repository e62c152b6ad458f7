//! What `kubectl get` prints of load balancing's kinds.

use crate::custom::{Column, column};

/// The columns of a kind by its name.
pub fn by_kind(kind: &str) -> Option<&'static [Column]> {
    const BINDING: &[Column] = &[
        column("SERVICE-NAME", "string", ".spec.serviceRef.name", 0),
        column("SERVICE-PORT", "string", ".spec.serviceRef.port", 0),
        column("TARGET-TYPE", "string", ".spec.targetType", 0),
        column("ARN", "string", ".spec.targetGroupARN", 1),
        column("NAME", "string", ".spec.targetGroupName", 1),
        column("AGE", "date", ".metadata.creationTimestamp", 0),
    ];
    const PARAMS: &[Column] = &[
        column("GROUP-NAME", "string", ".spec.group.name", 0),
        column("SCHEME", "string", ".spec.scheme", 0),
        column("IP-ADDRESS-TYPE", "string", ".spec.ipAddressType", 0),
        column("AGE", "date", ".metadata.creationTimestamp", 0),
    ];
    const BALANCER: &[Column] = &[
        column("Type", "string", ".spec.type", 0),
        column("Scheme", "string", ".spec.scheme", 0),
        column("State", "string", ".status.state", 0),
        column("DNS", "string", ".spec.dnsName", 0),
        column("Age", "date", ".metadata.creationTimestamp", 0),
    ];
    const GROUP: &[Column] = &[
        column("Protocol", "string", ".spec.protocol", 0),
        column("Port", "integer", ".spec.port", 0),
        column("Target-Type", "string", ".spec.targetType", 0),
        column("Age", "date", ".metadata.creationTimestamp", 0),
    ];
    match kind {
        "TargetGroupBinding" => Some(BINDING),
        "IngressClassParams" => Some(PARAMS),
        "LoadBalancer" => Some(BALANCER),
        "TargetGroup" => Some(GROUP),
        _ => None,
    }
}
