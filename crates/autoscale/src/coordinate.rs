//! A Horizontal and a Vertical Pod Autoscaler on one workload and one resource, without fighting.
//!
//! Upstream forbids the pair: utilisation is usage over requests, the one autoscaler changes the
//! requests, the other answers with a count, usage per pod moves, and so on without end. The loop
//! is cut at the requests:
//!
//! - **How many** is decided against the requests in the workload's template, which the Vertical
//!   Pod Autoscaler leaves alone. A target of 50% of a template's 200m is a target of 100m a pod,
//!   whatever the pods ask for by now: the count follows the load alone.
//! - **How large** is decided while the count stands still. As long as it moves, and for the
//!   stabilisation window after, usage per pod says more of the move than of the need, and running
//!   pods are not updated. New pods are sized as ever.
//!
//! Each decision depends on the load and not on the other one, so that both come to rest.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricTarget,
};
use k8s_openapi::api::core::v1::PodSpec;
use wharf_model::time::Time;
use wharf_model::vpa::{UpdateMode, VerticalPodAutoscaler};

/// For how long after a change of the count running pods keep their size: the stabilisation
/// window, within which the count may be taken back.
pub const SETTLE: Duration = Duration::from_secs(300);

/// The resources by which the first autoscaler counts and which the second one sizes.
pub fn shared(
    horizontal: &HorizontalPodAutoscalerSpec,
    vertical: &VerticalPodAutoscaler,
    template: &PodSpec,
) -> Vec<&'static str> {
    if vertical.update_mode() == UpdateMode::Off {
        return Vec::new();
    }
    ["cpu", "memory"]
        .into_iter()
        .filter(|resource| {
            let containers = template.containers.iter().map(|container| container.name.as_str());
            let mut sized = containers.filter(|container| is_sized(vertical, container, resource));
            sized.any(|container| counts_by(horizontal, resource, container))
        })
        .collect()
}

/// Whether a share of what a container requests of a resource decides the count.
fn counts_by(spec: &HorizontalPodAutoscalerSpec, resource: &str, container: &str) -> bool {
    let is_share = |target: &MetricTarget| target.average_utilization.is_some();
    spec.metrics.iter().flatten().any(|metric| {
        let whole = metric.resource.as_ref();
        let one = metric.container_resource.as_ref();
        whole.is_some_and(|source| source.name == resource && is_share(&source.target))
            || one.is_some_and(|source| {
                source.name == resource && source.container == container && is_share(&source.target)
            })
    })
}

fn is_sized(vertical: &VerticalPodAutoscaler, container: &str, resource: &str) -> bool {
    let Some(policy) = vertical.policy_of(container) else { return true };
    policy.mode.as_deref() != Some("Off")
        && policy
            .controlled_resources
            .as_ref()
            .is_none_or(|controlled| controlled.iter().any(|name| name == resource))
}

/// Why running pods keep their size for now; `None` if they may change it.
pub fn holds_size(horizontal: &HorizontalPodAutoscaler, now: Time) -> Option<String> {
    let status = horizontal.status.as_ref()?;
    let current = status.current_replicas.unwrap_or(0);
    if status.desired_replicas != current {
        return Some(format!("the count is moving from {current} to {}", status.desired_replicas));
    }
    let scaled = status.last_scale_time.as_ref().map(Time::from)?;
    let still = now.since(scaled);
    (still < SETTLE).then(|| {
        format!(
            "the count moved to {current} {} s ago; sizes may change after {} s",
            still.as_secs(),
            SETTLE.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn horizontal(metrics: Value) -> HorizontalPodAutoscaler {
        serde_json::from_value(json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 9,
            "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "metrics": metrics}}))
        .unwrap()
    }

    fn vertical(spec: Value) -> VerticalPodAutoscaler {
        serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap()
    }

    #[test]
    fn what_both_act_on_is_shared() {
        let template: PodSpec =
            serde_json::from_value(json!({"containers": [{"name": "a"}, {"name": "b"}]})).unwrap();
        let share = |name: &str| {
            json!({"type": "Resource", "resource": {"name": name,
            "target": {"type": "Utilization", "averageUtilization": 50}}})
        };
        let amount = json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "AverageValue", "averageValue": "100m"}}});
        let of_b = json!({"type": "ContainerResource", "containerResource": {"name": "cpu",
            "container": "b", "target": {"type": "Utilization", "averageUtilization": 50}}});
        let not_b = json!({"resourcePolicy": {"containerPolicies": [
            {"containerName": "b", "mode": "Off"}]}});
        let memory_only = json!({"resourcePolicy": {"containerPolicies": [
            {"containerName": "*", "controlledResources": ["memory"]}]}});
        for (metrics, spec, expected) in [
            (json!([share("cpu")]), json!({}), vec!["cpu"]),
            (json!([share("cpu"), share("memory")]), json!({}), vec!["cpu", "memory"]),
            (json!([share("cpu"), share("memory")]), memory_only, vec!["memory"]),
            (json!([share("cpu")]), json!({"updatePolicy": {"updateMode": "Off"}}), vec![]),
            (json!([amount]), json!({}), vec![]),
            (json!([of_b]), json!({}), vec!["cpu"]),
            (json!([of_b]), not_b.clone(), vec![]),
            (json!([share("cpu")]), not_b, vec!["cpu"]),
        ] {
            let found = shared(&horizontal(metrics).spec, &vertical(spec.clone()), &template);
            assert_eq!(found, expected, "{spec}");
        }
    }

    #[test]
    fn sizes_are_held_while_the_count_moves() {
        let mut autoscaler = horizontal(json!([]));
        let now = Time::from_seconds(10_000);
        assert_eq!(holds_size(&autoscaler, now), None, "it has never looked");
        let status = autoscaler.status.get_or_insert_default();
        status.current_replicas = Some(2);
        status.desired_replicas = 4;
        status.last_scale_time = Some(Time::from_seconds(9_000).to_meta());
        let held = holds_size(&autoscaler, now);
        assert_eq!(held.as_deref(), Some("the count is moving from 2 to 4"));
        let status = autoscaler.status.get_or_insert_default();
        status.current_replicas = Some(4);
        assert_eq!(holds_size(&autoscaler, now), None);
        let status = autoscaler.status.get_or_insert_default();
        status.last_scale_time = Some(Time::from_seconds(9_800).to_meta());
        let held = holds_size(&autoscaler, now).unwrap();
        assert_eq!(held, "the count moved to 4 200 s ago; sizes may change after 300 s");
    }
}
