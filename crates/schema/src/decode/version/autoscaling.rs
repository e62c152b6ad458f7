//! `autoscaling/v1`: an autoscaler as it was before `v2`. What that form has no fields for is
//! carried in annotations, which are gone again in the stored form.

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const UP_TOLERANCE: &str = "autoscaling.alpha.kubernetes.io/scale-up-tolerance";
const DOWN_TOLERANCE: &str = "autoscaling.alpha.kubernetes.io/scale-down-tolerance";
const ANNOTATIONS: [&str; 6] =
    [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR, UP_TOLERANCE, DOWN_TOLERANCE];
const PERCENT: &str = "targetCPUUtilizationPercentage";
const CURRENT_PERCENT: &str = "currentCPUUtilizationPercentage";

/// An object of `v2` in the form of `v1`.
pub(super) fn from_stored(mut object: Value) -> Value {
    take_annotations(&mut object);
    let mut kept: Vec<(&str, String)> = Vec::new();
    let text = |value: &Value| value.to_string();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let metrics = list(spec.remove("metrics"));
        // The first cpu metric speaks for the percentage, and only if it has one.
        let cpu = metrics.iter().find(|metric| is_cpu(metric));
        if let Some(percent) = cpu.and_then(|metric| utilization(metric, "target")) {
            spec.insert(PERCENT.to_owned(), percent);
        }
        let others: Vec<Value> = metrics
            .iter()
            .filter(|metric| !(is_cpu(metric) && utilization(metric, "target").is_some()))
            .map(|metric| rewrite_metric(metric, &old_source))
            .collect();
        if !others.is_empty() {
            kept.push((METRICS, text(&others.into())));
        }
        if let Some(mut behavior) = spec.remove("behavior") {
            for (rules, name) in [("scaleUp", UP_TOLERANCE), ("scaleDown", DOWN_TOLERANCE)] {
                let rules = behavior.get_mut(rules).and_then(Value::as_object_mut);
                let tolerance = rules.and_then(|rules| rules.remove("tolerance"));
                if let Some(Value::String(tolerance)) = tolerance {
                    kept.push((name, tolerance));
                }
            }
            kept.push((BEHAVIOR, text(&behavior)));
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.entry("currentReplicas").or_insert(json!(0));
        let current = list(status.remove("currentMetrics"));
        let cpu = current.iter().filter(|metric| is_cpu(metric));
        if let Some(percent) = cpu.filter_map(|metric| utilization(metric, "current")).next_back() {
            status.insert(CURRENT_PERCENT.to_owned(), percent);
        }
        if !current.is_empty() {
            let current = current.iter().map(|metric| rewrite_metric(metric, &old_status));
            kept.push((CURRENT_METRICS, text(&current.collect::<Value>())));
        }
        let conditions = list(status.remove("conditions"));
        if !conditions.is_empty() {
            kept.push((CONDITIONS, text(&conditions.into())));
        }
    }
    if !kept.is_empty()
        && let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && let Some(annotations) =
            meta.entry("annotations").or_insert_with(|| json!({})).as_object_mut()
    {
        for (name, text) in kept {
            annotations.insert(name.to_owned(), text.into());
        }
    }
    object["apiVersion"] = json!("autoscaling/v1");
    object
}

/// An object of `v1` in the form of `v2`. An annotation that cannot be read is passed over, as
/// upstream does.
pub(super) fn to_stored(mut object: Value) -> Value {
    let kept = take_annotations(&mut object);
    let parsed =
        |name: &str| -> Option<Value> { serde_json::from_str(kept.get(name)?.as_str()?).ok() };
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        // What this version does not have is not taken in by the back door.
        spec.remove("behavior");
        let mut metrics: Vec<Value> = list(parsed(METRICS))
            .iter()
            .map(|metric| rewrite_metric(metric, &new_source))
            .collect();
        if let Some(percent) = spec.remove(PERCENT) {
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent}}}));
        }
        spec.insert("metrics".to_owned(), metrics.into());
        if let Some(mut behavior) = parsed(BEHAVIOR).filter(Value::is_object) {
            for (rules, name) in [("scaleUp", UP_TOLERANCE), ("scaleDown", DOWN_TOLERANCE)] {
                let tolerance = kept.get(name).cloned();
                let rules = behavior.get_mut(rules).and_then(Value::as_object_mut);
                if let (Some(rules), Some(tolerance)) = (rules, tolerance) {
                    rules.insert("tolerance".to_owned(), tolerance);
                }
            }
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let percent = status.remove(CURRENT_PERCENT);
        let mut current: Vec<Value> = list(parsed(CURRENT_METRICS))
            .iter()
            .map(|metric| rewrite_metric(metric, &new_status))
            .collect();
        if current.is_empty()
            && let Some(percent) = percent
        {
            current.push(json!({"type": "Resource", "resource": {"name": "cpu",
                "current": {"averageUtilization": percent}}}));
        }
        status.insert("currentMetrics".to_owned(), current.into());
        if let Some(conditions) = parsed(CONDITIONS).filter(Value::is_array) {
            status.insert("conditions".to_owned(), conditions);
        } else {
            status.remove("conditions");
        }
    }
    if object.get("apiVersion").is_some() {
        object["apiVersion"] = json!("autoscaling/v2");
    }
    object
}

/// Removes the annotations that stand for fields.
fn take_annotations(object: &mut Value) -> Map<String, Value> {
    let mut taken = Map::new();
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return taken;
    };
    let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) else {
        return taken;
    };
    for name in ANNOTATIONS {
        if let Some(text) = annotations.remove(name) {
            taken.insert(name.to_owned(), text);
        }
    }
    if annotations.is_empty() {
        meta.remove("annotations");
    }
    taken
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

fn utilization(metric: &Value, of: &str) -> Option<Value> {
    metric["resource"][of].get("averageUtilization").cloned()
}

/// Rewrites the source of a metric, which stands under the name of its type.
fn rewrite_metric(metric: &Value, rewrite: &dyn Fn(&str, &Value) -> Value) -> Value {
    let Some(fields) = metric.as_object() else { return metric.clone() };
    fields
        .iter()
        .map(|(name, value)| {
            let value = if name == "type" { value.clone() } else { rewrite(name, value) };
            (name.clone(), value)
        })
        .collect::<Map<_, _>>()
        .into()
}

/// Where the two forms of a source keep the same thing: the pointer in `v2`, the field in `v1`.
type Names = &'static [(&'static str, &'static str)];

fn source_names(source: &str) -> Names {
    match source {
        "resource" | "containerResource" => &[
            ("/name", "name"),
            ("/container", "container"),
            ("/target/averageUtilization", "targetAverageUtilization"),
            ("/target/averageValue", "targetAverageValue"),
        ],
        "pods" => &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/target/averageValue", "targetAverageValue"),
        ],
        "object" => &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/target/value", "targetValue"),
            ("/target/averageValue", "averageValue"),
        ],
        _ => &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/target/value", "targetValue"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    }
}

fn status_names(source: &str) -> Names {
    match source {
        "resource" | "containerResource" => &[
            ("/name", "name"),
            ("/container", "container"),
            ("/current/averageUtilization", "currentAverageUtilization"),
            ("/current/averageValue", "currentAverageValue"),
        ],
        "pods" => &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/current/averageValue", "currentAverageValue"),
        ],
        "object" => &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/current/value", "currentValue"),
            ("/current/averageValue", "averageValue"),
        ],
        _ => &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/current/value", "currentValue"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    }
}

fn old_source(name: &str, source: &Value) -> Value {
    let mut old = to_old(source_names(name), source);
    if name == "object" && old.get("targetValue").is_none() {
        // Required in that form, whatever the target.
        old["targetValue"] = json!("0");
    }
    old
}

fn old_status(name: &str, source: &Value) -> Value {
    let mut old = to_old(status_names(name), source);
    let required = match name {
        "object" | "external" => "currentValue",
        _ => "currentAverageValue",
    };
    if old.get(required).is_none() {
        old[required] = json!("0");
    }
    old
}

fn new_source(name: &str, source: &Value) -> Value {
    let mut new = to_new(source_names(name), source);
    let target = &mut new["target"];
    let type_ = if target.get("averageUtilization").is_some() {
        "Utilization"
    } else if target.get("averageValue").is_some() {
        if name == "object" {
            target.as_object_mut().map(|target| target.remove("value"));
        }
        "AverageValue"
    } else {
        "Value"
    };
    target["type"] = json!(type_);
    new
}

fn new_status(name: &str, source: &Value) -> Value {
    to_new(status_names(name), source)
}

fn to_old(names: Names, source: &Value) -> Value {
    let fields = names.iter().filter_map(|(pointer, field)| {
        Some(((*field).to_owned(), source.pointer(pointer)?.clone()))
    });
    fields.collect::<Map<_, _>>().into()
}

fn to_new(names: Names, source: &Value) -> Value {
    let mut new = json!({});
    for (pointer, field) in names {
        let Some(value) = source.get(field) else { continue };
        let mut place = &mut new;
        for part in pointer.split('/').skip(1) {
            place = &mut place[part];
        }
        *place = value.clone();
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Value {
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "annotations": {"mine": "x"}},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
                "minReplicas": 1, "maxReplicas": 9,
                "metrics": [
                    {"type": "Resource", "resource": {"name": "memory",
                        "target": {"type": "AverageValue", "averageValue": "100Mi"}}},
                    {"type": "Pods", "pods": {"metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}},
                        "target": {"type": "AverageValue", "averageValue": "5"}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
                        "metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "7"}}},
                    {"type": "External", "external": {"metric": {"name": "queue"},
                        "target": {"type": "Value", "value": "30"}}},
                    {"type": "Resource", "resource": {"name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
                "behavior": {"scaleUp": {"tolerance": "50m", "selectPolicy": "Max"}},
            },
            "status": {
                "currentReplicas": 2, "desiredReplicas": 3,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 71, "averageValue": "142m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        })
    }

    #[test]
    fn the_old_form_keeps_the_percentage_and_carries_the_rest() {
        let old = from_stored(stored());
        assert_eq!(old["apiVersion"], "autoscaling/v1");
        assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(old["status"]["currentCPUUtilizationPercentage"], 71);
        assert!(old["spec"].get("metrics").is_none() && old["spec"].get("behavior").is_none());
        let annotations = &old["metadata"]["annotations"];
        assert_eq!(annotations["mine"], "x");
        assert_eq!(annotations[UP_TOLERANCE], "50m");
        let metrics: Value = serde_json::from_str(annotations[METRICS].as_str().unwrap()).unwrap();
        assert_eq!(metrics[0]["resource"]["targetAverageValue"], "100Mi");
        assert_eq!(metrics[1]["pods"]["metricName"], "rps");
        assert_eq!(
            metrics[2]["object"],
            json!({"target": {"kind": "Service", "name": "s"},
            "metricName": "hits", "averageValue": "7", "targetValue": "0"})
        );
        assert_eq!(metrics[3]["external"]["targetValue"], "30");
    }

    #[test]
    fn both_ways_lead_back() {
        assert_eq!(to_stored(from_stored(stored())), stored());
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let object = json!({"apiVersion": "autoscaling/v1",
            "metadata": {"annotations": {METRICS: "[", BEHAVIOR: "5"}},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}});
        let new = to_stored(object);
        assert_eq!(new["spec"]["metrics"].as_array().map(Vec::len), Some(1));
        assert!(new["spec"].get("behavior").is_none());
        assert!(new["metadata"].get("annotations").is_none());
    }
}
