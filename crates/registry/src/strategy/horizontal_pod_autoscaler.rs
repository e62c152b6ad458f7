//! HorizontalPodAutoscalers:
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/>.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricIdentifier, MetricSpec,
    MetricTarget, ResourceMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use wharf_model::names;
use wharf_model::quantity::Quantity;
use wharf_model::time::Time;

use super::Rules;
use crate::field::{Errors, Path};

const SPEC: Path<'static> = Path::root("spec");
/// What an autoscaler without metrics keeps to: this share of the cpu that pods request.
const CPU_PERCENT_DEFAULT: i32 = 80;
const WINDOW_SECONDS_MAX: i32 = 3600;
const PERIOD_SECONDS_MAX: i32 = 1800;
const PERIOD_SECONDS_DEFAULT: i32 = 15;
const METRIC_TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

impl Rules for HorizontalPodAutoscaler {
    const LABELS_WITH_STATUS: bool = true;

    fn set_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.min_replicas.get_or_insert(1);
        if spec.metrics.as_ref().is_none_or(|metrics| metrics.is_empty()) {
            spec.metrics = Some(vec![cpu_metric()]);
        }
        if let Some(behavior) = &mut spec.behavior {
            let up = behavior.scale_up.get_or_insert_default();
            up.stabilization_window_seconds.get_or_insert(0);
            fill(up, &[("Pods", 4), ("Percent", 100)]);
            // Its window is the controller's flag as long as nobody names one.
            fill(behavior.scale_down.get_or_insert_default(), &[("Percent", 100)]);
        }
    }

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(HorizontalPodAutoscalerStatus::default());
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        spec(&self.spec, None, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        spec(&self.spec, Some(&old.spec), errors);
    }
}

fn cpu_metric() -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(CPU_PERCENT_DEFAULT),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn fill(rules: &mut HPAScalingRules, policies: &[(&str, i32)]) {
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    rules.policies.get_or_insert_with(|| {
        let policy = |(type_, value): &(&str, i32)| HPAScalingPolicy {
            type_: (*type_).to_owned(),
            value: *value,
            period_seconds: PERIOD_SECONDS_DEFAULT,
        };
        policies.iter().map(policy).collect()
    });
}

/// `old` is what an update changes: what was taken once is not refused now.
fn spec(
    spec: &HorizontalPodAutoscalerSpec,
    old: Option<&HorizontalPodAutoscalerSpec>,
    errors: &mut Errors,
) {
    let may_be_zero =
        errors.gates().hpa_scale_to_zero || old.is_some_and(|old| old.min_replicas == Some(0));
    let lowest = if may_be_zero { 0 } else { 1 };
    if let Some(least) = spec.min_replicas.filter(|least| *least < lowest) {
        let detail = format!("must be greater than or equal to {lowest}");
        errors.invalid(&SPEC.child("minReplicas"), &least, detail);
    }
    let most = SPEC.child("maxReplicas");
    if spec.max_replicas < 1 {
        errors.required(&most, "must be set and greater than 0");
    }
    if spec.min_replicas.is_some_and(|least| spec.max_replicas < least) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.invalid(&most, &spec.max_replicas, detail);
    }
    let target = &spec.scale_target_ref;
    let known = old.is_some_and(|old| {
        let old = &old.scale_target_ref;
        old.kind == target.kind && old.api_version == target.api_version
    });
    let group = if known {
        Group::Any
    } else if target.kind == "ReplicationController" {
        Group::MayBeEmpty
    } else {
        Group::Required
    };
    reference(&SPEC.child("scaleTargetRef"), target, group, errors);
    let path = SPEC.child("metrics");
    let metrics = spec.metrics.as_deref().unwrap_or_default();
    for (index, spec) in metrics.iter().enumerate() {
        metric(&path.index(index), spec, errors);
    }
    if spec.min_replicas == Some(0)
        && may_be_zero
        && !metrics.iter().any(|metric| matches!(&*metric.type_, "Object" | "External"))
    {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(&path, detail);
    }
    if let Some(behavior) = &spec.behavior {
        let path = SPEC.child("behavior");
        for (field, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)]
        {
            if let Some(rules) = rules {
                scaling_rules(&path.child(field), rules, errors);
            }
        }
    }
}

/// What an `apiVersion` must say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Required,
    MayBeEmpty,
    /// It is not looked at.
    Any,
}

fn reference(
    path: &Path<'_>,
    reference: &CrossVersionObjectReference,
    group: Group,
    errors: &mut Errors,
) {
    if group != Group::Any {
        let version = reference.api_version.as_deref().unwrap_or_default();
        let detail = match version.matches('/').count() {
            2.. => Some(format!("unexpected GroupVersion string: {version}")),
            0 if group == Group::Required => Some("apiVersion must specify API group".to_owned()),
            _ => None,
        };
        if let Some(detail) = detail {
            errors.invalid(&path.child("apiVersion"), version, detail);
        }
    }
    for (field, text) in [("kind", &reference.kind), ("name", &reference.name)] {
        let path = path.child(field);
        if text.is_empty() {
            errors.required(&path, "");
        } else {
            path_segment(&path, text, errors);
        }
    }
}

/// What can stand in a URL.
fn path_segment(path: &Path<'_>, text: &str, errors: &mut Errors) {
    if matches!(text, "." | "..") {
        errors.invalid(path, text, format!("may not be '{text}'"));
    }
    for forbidden in ["/", "%"] {
        if text.contains(forbidden) {
            errors.invalid(path, text, format!("may not contain '{forbidden}'"));
        }
    }
}

fn metric(path: &Path<'_>, metric: &MetricSpec, errors: &mut Errors) {
    if metric.type_.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
    }
    let present: Vec<&str> = [
        ("object", metric.object.is_some()),
        ("external", metric.external.is_some()),
        ("pods", metric.pods.is_some()),
        ("resource", metric.resource.is_some()),
        ("containerResource", metric.container_resource.is_some()),
    ]
    .into_iter()
    .filter_map(|(field, present)| present.then_some(field))
    .collect();
    // Of several sources only the first is looked into.
    if let Some(first) = present.first() {
        source(&path.child(first), metric, first, errors);
    }
    let expected = match &*metric.type_ {
        "Object" => "object",
        "External" => "external",
        "Pods" => "pods",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        other => {
            errors.not_supported(&path.child("type"), other, &METRIC_TYPES);
            ""
        }
    };
    if !expected.is_empty() && !present.contains(&expected) {
        let detail = "must populate information for the given metric source";
        errors.required(&path.child(expected), detail);
    }
    if present.len() != 1 {
        for other in present.iter().filter(|field| **field != expected) {
            errors.forbidden(&path.child(other), "must populate the given metric source only");
        }
    }
}

fn source(path: &Path<'_>, metric: &MetricSpec, field: &str, errors: &mut Errors) {
    let target_path = path.child("target");
    let average_path = target_path.child("averageValue");
    if let ("object", Some(source)) = (field, &metric.object) {
        let object = &source.described_object;
        reference(&path.child("describedObject"), object, Group::MayBeEmpty, errors);
        identifier(&path.child("metric"), &source.metric, errors);
        target(&target_path, &source.target, errors);
        if source.target.value.is_none() && source.target.average_value.is_none() {
            errors.required(&average_path, "must set either a target value or averageValue");
        }
    } else if let ("external", Some(source)) = (field, &metric.external) {
        identifier(&path.child("metric"), &source.metric, errors);
        target(&target_path, &source.target, errors);
        match (&source.target.value, &source.target.average_value) {
            (None, None) => {
                let detail = "must set either a target value for metric or a per-pod target";
                errors.required(&average_path, detail);
            }
            (Some(_), Some(_)) => {
                let detail = "may not set both a target value for metric and a per-pod target";
                errors.forbidden(&target_path.child("value"), detail);
            }
            _ => {}
        }
    } else if let ("pods", Some(source)) = (field, &metric.pods) {
        identifier(&path.child("metric"), &source.metric, errors);
        target(&target_path, &source.target, errors);
        if source.target.average_value.is_none() {
            errors.required(&average_path, "must specify a positive target averageValue");
        }
    } else if let ("resource", Some(source)) = (field, &metric.resource) {
        resource(path, &source.name, &source.target, None, errors);
    } else if let Some(source) = &metric.container_resource {
        resource(path, &source.name, &source.target, Some(&source.container), errors);
    }
}

fn resource(
    path: &Path<'_>,
    name: &str,
    wanted: &MetricTarget,
    container: Option<&str>,
    errors: &mut Errors,
) {
    if name.is_empty() {
        errors.required(&path.child("name"), "must specify a resource name");
    } else {
        errors.invalid_each(&path.child("name"), name, names::qualified_name(name));
    }
    match container {
        Some("") => errors.required(&path.child("container"), "must specify a container"),
        Some(container) => {
            let messages = names::dns_1123_label(container);
            errors.invalid_each(&path.child("container"), container, messages);
        }
        None => {}
    }
    let path = path.child("target");
    target(&path, wanted, errors);
    match (wanted.average_utilization, &wanted.average_value) {
        (None, None) => {
            let detail = "must set either a target raw value or a target utilization";
            errors.required(&path.child("averageUtilization"), detail);
        }
        (Some(_), Some(_)) => {
            let detail = "may not set both a target raw value and a target utilization";
            errors.forbidden(&path.child("averageValue"), detail);
        }
        _ => {}
    }
}

fn identifier(path: &Path<'_>, metric: &MetricIdentifier, errors: &mut Errors) {
    let path = path.child("name");
    if metric.name.is_empty() {
        errors.required(&path, "must specify a metric name");
    } else {
        path_segment(&path, &metric.name, errors);
    }
}

fn target(path: &Path<'_>, target: &MetricTarget, errors: &mut Errors) {
    let type_path = path.child("type");
    if target.type_.is_empty() {
        errors.required(&type_path, "must specify a metric target type");
    }
    if !matches!(&*target.type_, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.invalid(&type_path, &target.type_, detail);
    }
    for (field, value) in [("value", &target.value), ("averageValue", &target.average_value)] {
        if let Some(text) = value.as_ref().filter(|value| !is_positive(value)) {
            errors.invalid(&path.child(field), &text.0, "must be positive");
        }
    }
    if let Some(percent) = target.average_utilization.filter(|percent| *percent < 1) {
        errors.invalid(&path.child("averageUtilization"), &percent, "must be greater than 0");
    }
}

fn is_positive(value: &ApiQuantity) -> bool {
    Quantity::try_from(value).is_ok_and(|value| !value.is_zero() && !value.is_negative())
}

fn scaling_rules(path: &Path<'_>, rules: &HPAScalingRules, errors: &mut Errors) {
    if let Some(window) = rules.stabilization_window_seconds {
        let path = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errors.invalid(&path, &window, "must be greater than or equal to zero");
        }
        if window > WINDOW_SECONDS_MAX {
            let detail = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            errors.invalid(&path, &window, detail);
        }
    }
    const SELECT: [&str; 3] = ["Disabled", "Max", "Min"];
    if let Some(policy) = rules.select_policy.as_deref().filter(|name| !SELECT.contains(name)) {
        errors.not_supported(&path.child("selectPolicy"), policy, &SELECT);
    }
    let policies_path = path.child("policies");
    let policies = rules.policies.as_deref().unwrap_or_default();
    if policies.is_empty() {
        errors.required(&policies_path, "must specify at least one Policy");
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = policies_path.index(index);
        if !matches!(&*policy.type_, "Pods" | "Percent") {
            errors.not_supported(&path.child("type"), &policy.type_, &["Percent", "Pods"]);
        }
        if policy.value <= 0 {
            errors.invalid(&path.child("value"), &policy.value, "must be greater than zero");
        }
        let period_path = path.child("periodSeconds");
        if policy.period_seconds <= 0 {
            errors.invalid(&period_path, &policy.period_seconds, "must be greater than zero");
        }
        if policy.period_seconds > PERIOD_SECONDS_MAX {
            let detail = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            errors.invalid(&period_path, &policy.period_seconds, detail);
        }
    }
    if let Some(tolerance) = &rules.tolerance
        && Quantity::try_from(tolerance).is_ok_and(|tolerance| tolerance.is_negative())
    {
        let detail = "must be greater than or equal to 0";
        errors.invalid(&path.child("tolerance"), &tolerance.0, detail);
    }
}
