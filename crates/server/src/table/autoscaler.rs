//! HorizontalPodAutoscalers.

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
};
use serde_json::{Value, json};
use wharf_model::time::Time;

use super::{Column, age};

/// How many metrics are told before `+ N more...`.
const METRICS_MAX: usize = 2;

pub(super) const AUTOSCALER: &[Column] = &[
    Column::text("Name"),
    Column::text("Reference"),
    Column::text("Targets"),
    Column::text("MinPods"),
    Column::text("MaxPods"),
    Column::text("Replicas"),
    Column::text("Age"),
];

pub(super) fn autoscaler(hpa: &HorizontalPodAutoscaler, now: Time) -> Vec<Value> {
    let spec = &hpa.spec;
    let target = &spec.scale_target_ref;
    let status = hpa.status.as_ref();
    let current = status.and_then(|status| status.current_metrics.as_deref()).unwrap_or_default();
    let least = spec.min_replicas.map_or_else(|| "<unset>".to_owned(), |least| least.to_string());
    vec![
        json!(hpa.metadata.name),
        json!(format!("{}/{}", target.kind, target.name)),
        json!(targets(spec.metrics.as_deref().unwrap_or_default(), current)),
        json!(least),
        json!(spec.max_replicas),
        json!(status.and_then(|status| status.current_replicas).unwrap_or(0)),
        json!(age(hpa.metadata.creation_timestamp.as_ref(), now)),
    ]
}

fn targets(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let shown = specs.iter().take(METRICS_MAX).enumerate();
    let shown: Vec<String> = shown.map(|(place, spec)| one(spec, statuses.get(place))).collect();
    let shown = shown.join(", ");
    match specs.len().saturating_sub(METRICS_MAX) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn one(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    match &*spec.type_ {
        "External" => {
            let current = status.and_then(|status| Some(&status.external.as_ref()?.current));
            whole(spec.external.as_ref().map(|source| &source.target), current)
        }
        "Object" => {
            let current = status.and_then(|status| Some(&status.object.as_ref()?.current));
            whole(spec.object.as_ref().map(|source| &source.target), current)
        }
        "Pods" => {
            let target = spec.pods.as_ref().and_then(|source| source.target.average_value.as_ref());
            let current = status.and_then(|status| Some(&status.pods.as_ref()?.current));
            let target = target.map_or("<unknown>", |target| &target.0);
            format!("{}/{target}", average(current))
        }
        "Resource" => {
            let source = spec.resource.as_ref();
            let current = status.and_then(|status| Some(&status.resource.as_ref()?.current));
            resource(source.map(|source| (&*source.name, &source.target)), current)
        }
        "ContainerResource" => {
            let source = spec.container_resource.as_ref();
            let current =
                status.and_then(|status| Some(&status.container_resource.as_ref()?.current));
            resource(source.map(|source| (&*source.name, &source.target)), current)
        }
        _ => "<unknown type>".to_owned(),
    }
}

const UNKNOWN: &str = "<unknown>";

fn average(current: Option<&MetricValueStatus>) -> &str {
    current.and_then(|current| current.average_value.as_ref()).map_or(UNKNOWN, |value| &value.0)
}

fn whole(target: Option<&MetricTarget>, current: Option<&MetricValueStatus>) -> String {
    if let Some(target) = target.and_then(|target| target.average_value.as_ref()) {
        return format!("{}/{} (avg)", average(current), target.0);
    }
    let value = current.and_then(|current| current.value.as_ref());
    let target = target.and_then(|target| target.value.as_ref());
    let text = |value: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>| {
        value.map_or_else(|| UNKNOWN.to_owned(), |value| value.0.clone())
    };
    format!("{}/{}", text(value), text(target))
}

fn resource(source: Option<(&str, &MetricTarget)>, current: Option<&MetricValueStatus>) -> String {
    let Some((name, target)) = source else { return "<unknown type>".to_owned() };
    if let Some(target) = &target.average_value {
        return format!("{name}: {}/{}", average(current), target.0);
    }
    let percent = |percent: Option<i32>, otherwise: &str| {
        percent.map_or_else(|| otherwise.to_owned(), |percent| format!("{percent}%"))
    };
    let now = percent(current.and_then(|current| current.average_utilization), UNKNOWN);
    format!("{name}: {now}/{}", percent(target.average_utilization, "<auto>"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    #[test]
    fn autoscalers_tell_current_and_target() {
        let hpa = |metrics: Value, status: Value| {
            json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T23:59:00Z"},
                "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"},
                    "minReplicas": 1, "maxReplicas": 10, "metrics": metrics}, "status": status})
        };
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}});
        let memory = json!({"type": "ContainerResource", "containerResource": {"name": "memory",
            "container": "c", "target": {"type": "AverageValue", "averageValue": "100Mi"}}});
        let hits = json!({"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
            "metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "5"}}});
        let queue = json!({"type": "External", "external": {"metric": {"name": "q"},
            "target": {"type": "Value", "value": "30"}}});
        let nothing = json!({"desiredReplicas": 0});
        assert_eq!(
            printed("HorizontalPodAutoscaler", hpa(json!([cpu]), nothing.clone())),
            "web|Deployment/web|cpu: <unknown>/50%|1|10|0|60s"
        );
        let now = json!({"currentReplicas": 3, "desiredReplicas": 3, "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu",
                "current": {"averageUtilization": 71, "averageValue": "142m"}}},
            {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c",
                "current": {"averageValue": "64Mi"}}}]});
        assert_eq!(
            printed("HorizontalPodAutoscaler", hpa(json!([cpu, memory, hits, queue]), now)),
            "web|Deployment/web|cpu: 71%/50%, memory: 64Mi/100Mi + 2 more...|1|10|3|60s"
        );
        let now = json!({"desiredReplicas": 3, "currentMetrics": [
            {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
                "metric": {"name": "hits"}, "current": {"averageValue": "4"}}},
            {"type": "External", "external": {"metric": {"name": "q"}, "current": {"value": "12"}}}]});
        assert_eq!(
            printed("HorizontalPodAutoscaler", hpa(json!([hits, queue]), now)),
            "web|Deployment/web|4/5 (avg), 12/30|1|10|0|60s"
        );
    }
}
