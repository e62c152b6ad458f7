//! The status of an autoscaler: what is recommended, and the conditions.

use wharf_autoscale::vpa::{Recommendation, api};
use wharf_model::time::Time;
use wharf_model::vpa::{Condition, VerticalPodAutoscaler, VerticalPodAutoscalerStatus};

/// What a round found of one autoscaler.
pub(super) struct Found<'a> {
    /// What is recommended.
    pub(super) recommendations: &'a [Recommendation],
    /// Whether there are pods.
    pub(super) has_pods: bool,
    /// Why its target cannot be used.
    pub(super) unsupported: Option<&'a str>,
}

/// The status that says so. Conditions that stay as they were keep their time.
pub(super) fn report(
    autoscaler: &VerticalPodAutoscaler,
    found: &Found<'_>,
    now: Time,
) -> VerticalPodAutoscalerStatus {
    let condition = |type_: &str, holds: bool, reason: &str, message: &str| {
        let status = if holds { "True" } else { "False" };
        let since = autoscaler
            .condition(type_)
            .filter(|before| before.status == status)
            .and_then(|before| before.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since.unwrap_or_else(|| now.to_meta())),
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    };
    let (reason, message) =
        if found.has_pods { ("", "") } else { ("NoPodsMatched", "No pods match this VPA object") };
    // In the order of their types.
    let mut conditions = Vec::new();
    if let Some(why) = found.unsupported {
        conditions.push(condition("ConfigUnsupported", true, "", why));
    }
    if !found.has_pods {
        conditions.push(condition("NoPodsMatched", true, reason, message));
    }
    if found.recommendations.is_empty() {
        conditions.push(condition("RecommendationProvided", false, reason, message));
    } else {
        conditions.push(condition("RecommendationProvided", true, "", ""));
    }
    VerticalPodAutoscalerStatus {
        observed_generation: autoscaler.metadata.generation,
        recommendation: Some(api::recommendation(found.recommendations)),
        conditions,
    }
}
