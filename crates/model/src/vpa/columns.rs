//! What `kubectl get` prints of each kind.

use crate::custom::{Column, column};

const AGE: Column = column("Age", "date", ".metadata.creationTimestamp", 0);

/// The columns of `kubectl get vpa`.
pub const VERTICAL_POD_AUTOSCALER: &[Column] = &[
    column("Mode", "string", ".spec.updatePolicy.updateMode", 0),
    column("CPU", "string", ".status.recommendation.containerRecommendations[0].target.cpu", 0),
    column("Mem", "string", ".status.recommendation.containerRecommendations[0].target.memory", 0),
    column(
        "Provided",
        "string",
        r#".status.conditions[?(@.type=="RecommendationProvided")].status"#,
        0,
    ),
    AGE,
    column("MinReplicas", "integer", ".spec.updatePolicy.minReplicas", 1),
    column("OOMSeconds", "integer", ".spec.updatePolicy.evictAfterOOMSeconds", 1),
];

/// The columns of `kubectl get vpacheckpoint`: those of every definition that names none.
pub const VERTICAL_POD_AUTOSCALER_CHECKPOINT: &[Column] = &[AGE];

/// The columns of a kind by its name.
pub fn by_kind(kind: &str) -> Option<&'static [Column]> {
    match kind {
        "VerticalPodAutoscaler" => Some(VERTICAL_POD_AUTOSCALER),
        "VerticalPodAutoscalerCheckpoint" => Some(VERTICAL_POD_AUTOSCALER_CHECKPOINT),
        _ => None,
    }
}
