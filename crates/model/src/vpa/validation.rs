//! What the autoscaler's admission webhook refuses of a `VerticalPodAutoscaler`, and what it warns
//! of, in upstream's words. It looks at an object before the definition's schema does.
//!
//! Fields behind a feature gate that is off are refused unless the stored object has them already.

use serde_json::Value;

use super::{
    ContainerPolicy, StartupBoost, UpdateMode, UpdatePolicy, VerticalPodAutoscaler, amount,
};
use crate::custom::{FieldError, FieldErrorKind, IntOrQuantity};
use crate::quantity::Quantity;

/// The resources that can be recommended.
const RESOURCES: [&str; 2] = ["cpu", "memory"];
/// What cpu is counted in: powers of ten.
const MILLI: i32 = -3;

/// Upstream's feature gates; all are alpha and off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    /// `InPlace`.
    pub in_place: bool,
    /// `PerVPAConfig`.
    pub per_vpa_config: bool,
    /// `CPUStartupBoost`.
    pub cpu_startup_boost: bool,
}

/// What the webhook says.
#[derive(Debug, Default, PartialEq)]
pub struct Review {
    /// Why the object is refused; empty if it is not.
    pub errors: Vec<FieldError>,
    /// What its author should know all the same.
    pub warnings: Vec<String>,
}

/// Looks at a new object, or at a change of a stored one.
pub fn review(
    new: &VerticalPodAutoscaler,
    old: Option<&VerticalPodAutoscaler>,
    gates: Gates,
) -> Review {
    let mut review = Review::default();
    let allowed = Allowed::of(old, gates);
    let spec = &new.spec;
    if spec.target_ref.is_none() && old.is_none() {
        let detail = "If you're using v1beta1 version of the API, please migrate to v1";
        review.required("spec.targetRef", detail);
    }
    if let Some(policy) = &spec.update_policy {
        review.update_policy(policy, &allowed);
    }
    let policies = spec.resource_policy.iter().flat_map(|policy| policy.container_policies.iter());
    for (index, policy) in policies.flatten().enumerate() {
        let path = format!("spec.resourcePolicy.containerPolicies[{index}]");
        review.container_policy(&path, policy, &allowed);
    }
    if let Some(boost) = &spec.startup_boost {
        review.startup_boost("spec.startupBoost", boost, &allowed);
    }
    let recommenders = spec.recommenders.as_ref().map_or(0, Vec::len);
    if recommenders > 1 {
        let detail = "must have at most 1 item".to_owned();
        let shown = Some(recommenders.into());
        review.error("spec.recommenders", FieldErrorKind::TooMany, shown, detail);
    }
    review
}

/// What may be used: what a gate opens, and what the stored object has already.
struct Allowed {
    gates: Gates,
    controlled: Vec<String>,
}

impl Allowed {
    fn of(old: Option<&VerticalPodAutoscaler>, mut gates: Gates) -> Self {
        let Some(old) = old.map(|old| &old.spec) else {
            return Self { gates, controlled: Vec::new() };
        };
        let policies: Vec<&ContainerPolicy> = old
            .resource_policy
            .iter()
            .flat_map(|policy| policy.container_policies.iter().flatten())
            .collect();
        let update = old.update_policy.as_ref();
        gates.in_place |=
            update.is_some_and(|policy| policy.update_mode.as_deref() == Some("InPlace"));
        gates.per_vpa_config |= update
            .is_some_and(|policy| policy.evict_after_oom_seconds.is_some())
            || policies.iter().any(|policy| {
                policy.oom_bump_up_ratio.is_some()
                    || policy.oom_min_bump_up.is_some()
                    || policy.memory_aggregation_interval_count.is_some()
                    || policy.memory_aggregation_interval_seconds.is_some()
            });
        gates.cpu_startup_boost |= old.startup_boost.as_ref().is_some_and(|b| b.cpu.is_some())
            || policies.iter().any(|policy| policy.startup_boost.is_some());
        let controlled = policies.iter().filter_map(|policy| policy.controlled_resources.clone());
        Self { gates, controlled: controlled.flatten().collect() }
    }
}

impl Review {
    fn error(
        &mut self,
        field: impl Into<String>,
        kind: FieldErrorKind,
        bad_value: Option<Value>,
        detail: impl Into<String>,
    ) {
        self.errors.push(FieldError {
            field: field.into(),
            kind,
            bad_value,
            detail: detail.into(),
        });
    }

    fn required(&mut self, field: impl Into<String>, detail: &str) {
        self.error(field, FieldErrorKind::Required, None, detail);
    }

    fn forbidden(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.error(field, FieldErrorKind::Forbidden, None, detail);
    }

    fn invalid(&mut self, field: impl Into<String>, value: impl Into<Value>, detail: &str) {
        self.error(field, FieldErrorKind::Invalid, Some(value.into()), detail);
    }

    fn not_supported(&mut self, field: impl Into<String>, value: &str, supported: &[&str]) {
        let names: Vec<String> = supported.iter().map(|name| format!("{name:?}")).collect();
        let detail = format!("supported values: {}", names.join(", "));
        self.error(field, FieldErrorKind::NotSupported, Some(value.into()), detail);
    }

    /// A number behind the gate `PerVPAConfig`, with its least.
    fn gated(&mut self, field: String, value: Option<i64>, least: i64, allowed: &Allowed) {
        let Some(value) = value else { return };
        if !allowed.gates.per_vpa_config {
            self.forbidden(field, PER_VPA_CONFIG_OFF);
        } else if value < least {
            let detail = format!("must be greater than or equal to {least}");
            self.invalid(field, value, &detail);
        }
    }

    fn update_policy(&mut self, policy: &UpdatePolicy, allowed: &Allowed) {
        let path = "spec.updatePolicy.updateMode";
        match policy.update_mode.as_deref() {
            None => self.required(path, "updateMode is required if UpdatePolicy is used"),
            Some("Auto") => self.warnings.push(format!(
                "spec.updatePolicy: \"Auto\" mode is deprecated and will be removed in a future API version. Use explicit update modes like: [{}]. See https://github.com/kubernetes/autoscaler/issues/8424 for more details.",
                UpdateMode::NAMES.join(" ")
            )),
            Some("InPlace") if !allowed.gates.in_place => self.forbidden(
                path,
                "in order to use UpdateMode InPlace, you must enable feature gate InPlace in the admission-controller args",
            ),
            Some(mode) if UpdateMode::parse(mode).is_none() => {
                self.not_supported(path, mode, &UpdateMode::NAMES);
            }
            Some(_) => {}
        }
        if let Some(replicas) = policy.min_replicas.filter(|replicas| *replicas <= 0) {
            let path = "spec.updatePolicy.minReplicas";
            self.invalid(path, replicas, "minReplicas has to be positive");
        }
        let path = "spec.updatePolicy.evictAfterOOMSeconds".to_owned();
        self.gated(path, policy.evict_after_oom_seconds.map(i64::from), 1, allowed);
    }

    fn container_policy(&mut self, path: &str, policy: &ContainerPolicy, allowed: &Allowed) {
        if policy.container_name.is_empty() {
            self.required(format!("{path}.containerName"), "");
        }
        if let Some(mode) = policy.mode.as_deref().filter(|mode| !matches!(*mode, "Auto" | "Off")) {
            self.not_supported(format!("{path}.mode"), mode, &["Auto", "Off"]);
        }
        for resource in policy.min_allowed.keys() {
            let Some(least) = amount(&policy.min_allowed, resource) else { continue };
            self.resolution(&format!("{path}.minAllowed[{resource}]"), resource, least);
            if let Some(most) = amount(&policy.max_allowed, resource).filter(|most| *most < least) {
                let detail =
                    format!("max resource for {resource} is lower than min of \"{least}\"");
                let field = format!("{path}.maxAllowed[{resource}]");
                self.invalid(field, most.to_string(), &detail);
            }
        }
        for resource in policy.max_allowed.keys() {
            if let Some(most) = amount(&policy.max_allowed, resource) {
                self.resolution(&format!("{path}.maxAllowed[{resource}]"), resource, most);
            }
        }
        if policy.is_off() && policy.controlled_values.as_deref() == Some("RequestsAndLimits") {
            let detail = "controlledValues shouldn't be specified if container scaling mode is off";
            self.forbidden(format!("{path}.controlledValues"), detail);
        }
        for (index, resource) in policy.controlled_resources.iter().flatten().enumerate() {
            let field = format!("{path}.controlledResources[{index}]");
            if RESOURCES.contains(&resource.as_str()) {
            } else if allowed.controlled.contains(resource) {
                self.warnings.push(format!(
                    "{field}: unsupported value {resource:?} is allowed only because it is present in the existing VPA object; supported values: \"cpu\", \"memory\""
                ));
            } else {
                self.not_supported(field, resource, &RESOURCES);
            }
        }
        self.memory(path, policy, allowed);
        if let Some(boost) = &policy.startup_boost {
            self.startup_boost(&format!("{path}.startupBoost"), boost, allowed);
        }
    }

    /// What a policy says of memory; all of it is behind a gate.
    fn memory(&mut self, path: &str, policy: &ContainerPolicy, allowed: &Allowed) {
        let amount = |amount: &Option<IntOrQuantity>| {
            amount.as_ref().and_then(|amount| Quantity::try_from(amount).ok())
        };
        if let Some(ratio) = amount(&policy.oom_bump_up_ratio) {
            let field = format!("{path}.oomBumpUpRatio");
            if !allowed.gates.per_vpa_config {
                self.forbidden(field, PER_VPA_CONFIG_OFF);
            } else if ratio.milli_value_ceil() < 1000 {
                let ratio = ratio.milli_value_ceil() as f64 / 1000.0;
                self.invalid(field, ratio, "must be greater than or equal to 1.0");
            }
        }
        let bump = amount(&policy.oom_min_bump_up).map(|bump| bump.value_ceil());
        self.gated(format!("{path}.oomMinBumpUp"), bump, 0, allowed);
        for (name, value) in [
            ("memoryAggregationIntervalSeconds", policy.memory_aggregation_interval_seconds),
            ("memoryAggregationIntervalCount", policy.memory_aggregation_interval_count),
        ] {
            self.gated(format!("{path}.{name}"), value, 1, allowed);
        }
    }

    fn startup_boost(&mut self, path: &str, boost: &StartupBoost, allowed: &Allowed) {
        if !allowed.gates.cpu_startup_boost {
            let detail = "in order to use startupBoost, you must enable feature gate CPUStartupBoost in the admission-controller args";
            return self.forbidden(path, detail);
        }
        let Some(boost) = &boost.cpu else { return };
        let field = |name: &str| format!("{path}.cpu.{name}");
        match (boost.type_.as_str(), boost.factor, &boost.quantity) {
            ("", ..) => self.required(field("type"), "must be either Factor or Quantity"),
            ("Factor", None, _) => self.required(field("factor"), "required when type is Factor"),
            ("Factor", Some(factor), _) if factor < 1 => {
                self.invalid(field("factor"), factor, "must be >= 1 for type Factor");
            }
            ("Factor", ..) => {}
            ("Quantity", _, None) => {
                self.required(field("quantity"), "required when type is Quantity");
            }
            ("Quantity", _, Some(quantity)) => {
                if let Ok(quantity) = Quantity::try_from(quantity) {
                    self.resolution(&field("quantity"), "cpu", quantity);
                }
            }
            (other, ..) => self.not_supported(field("type"), other, &["Factor", "Quantity"]),
        }
    }

    /// Cpu is counted in thousandths, memory in whole bytes.
    fn resolution(&mut self, field: &str, resource: &str, amount: Quantity) {
        let (scale, detail) = match resource {
            "cpu" => (MILLI, "must be a whole number of milli CPUs"),
            "memory" => (0, "must be a whole number of bytes"),
            _ => return,
        };
        if amount.round_up(scale) != amount {
            self.invalid(field, amount.to_string(), detail);
        }
    }
}

const PER_VPA_CONFIG_OFF: &str = "not supported when feature flag PerVPAConfig is disabled";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn autoscaler(spec: Value) -> VerticalPodAutoscaler {
        let mut object = json!({"metadata": {"name": "v"}, "spec": {"targetRef":
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn errors(spec: Value, old: Option<Value>, gates: Gates) -> Vec<String> {
        let old = old.map(autoscaler);
        let review = review(&autoscaler(spec), old.as_ref(), gates);
        review.errors.iter().map(ToString::to_string).collect()
    }

    fn policy(policy: Value) -> Value {
        json!({"resourcePolicy": {"containerPolicies": [policy]}})
    }

    #[test]
    fn refusals_are_upstreams() {
        let gate = "in order to use UpdateMode InPlace, you must enable feature gate InPlace in the admission-controller args";
        let of = "spec.resourcePolicy.containerPolicies[0]";
        for (spec, expected) in [
            (json!({}), vec![]),
            (json!({"targetRef": null}), vec!["spec.targetRef: Required value: If you're using v1beta1 version of the API, please migrate to v1".to_owned()]),
            (json!({"updatePolicy": {}}), vec!["spec.updatePolicy.updateMode: Required value: updateMode is required if UpdatePolicy is used".to_owned()]),
            (json!({"updatePolicy": {"updateMode": "Sometimes"}}), vec!["spec.updatePolicy.updateMode: Unsupported value: \"Sometimes\": supported values: \"InPlace\", \"InPlaceOrRecreate\", \"Initial\", \"Off\", \"Recreate\"".to_owned()]),
            (json!({"updatePolicy": {"updateMode": "InPlaceOrRecreate"}}), vec![]),
            (json!({"updatePolicy": {"updateMode": "InPlace"}}), vec![format!("spec.updatePolicy.updateMode: Forbidden: {gate}")]),
            (json!({"updatePolicy": {"updateMode": "Off", "minReplicas": 0}}), vec!["spec.updatePolicy.minReplicas: Invalid value: 0: minReplicas has to be positive".to_owned()]),
            (json!({"updatePolicy": {"updateMode": "Off", "evictAfterOOMSeconds": 1}}), vec![format!("spec.updatePolicy.evictAfterOOMSeconds: Forbidden: {PER_VPA_CONFIG_OFF}")]),
            (policy(json!({})), vec![format!("{of}.containerName: Required value")]),
            (policy(json!({"containerName": "c", "minAllowed": {"cpu": "1"}, "maxAllowed": {"cpu": "500m"}})), vec![format!("{of}.maxAllowed[cpu]: Invalid value: \"500m\": max resource for cpu is lower than min of \"1\"")]),
            (policy(json!({"containerName": "c", "minAllowed": {"cpu": "100u", "memory": "1500m"}})), vec![
                format!("{of}.minAllowed[cpu]: Invalid value: \"100u\": must be a whole number of milli CPUs"),
                format!("{of}.minAllowed[memory]: Invalid value: \"1500m\": must be a whole number of bytes"),
            ]),
            (policy(json!({"containerName": "c", "mode": "Off", "controlledValues": "RequestsAndLimits"})), vec![format!("{of}.controlledValues: Forbidden: controlledValues shouldn't be specified if container scaling mode is off")]),
            (policy(json!({"containerName": "c", "controlledResources": ["cpu", "gpu"]})), vec![format!("{of}.controlledResources[1]: Unsupported value: \"gpu\": supported values: \"cpu\", \"memory\"")]),
            (policy(json!({"containerName": "c", "mode": "On"})), vec![format!("{of}.mode: Unsupported value: \"On\": supported values: \"Auto\", \"Off\"")]),
            (json!({"startupBoost": {}}), vec!["spec.startupBoost: Forbidden: in order to use startupBoost, you must enable feature gate CPUStartupBoost in the admission-controller args".to_owned()]),
            (json!({"recommenders": [{"name": "a"}, {"name": "b"}]}), vec!["spec.recommenders: Too many: 2: must have at most 1 item".to_owned()]),
        ] {
            assert_eq!(errors(spec.clone(), None, Gates::default()), expected, "{spec}");
        }
    }

    #[test]
    fn open_gates_leave_the_limits_of_values() {
        let open = Gates { in_place: true, per_vpa_config: true, cpu_startup_boost: true };
        let boost = |cpu: Value| json!({"startupBoost": {"cpu": cpu}});
        for (spec, expected) in [
            (json!({"updatePolicy": {"updateMode": "InPlace"}}), vec![]),
            (
                policy(
                    json!({"containerName": "c", "oomBumpUpRatio": "0.5", "oomMinBumpUp": "-1", "memoryAggregationIntervalCount": 0}),
                ),
                vec![
                    "oomBumpUpRatio: Invalid value: 0.5: must be greater than or equal to 1.0",
                    "oomMinBumpUp: Invalid value: -1: must be greater than or equal to 0",
                    "memoryAggregationIntervalCount: Invalid value: 0: must be greater than or equal to 1",
                ],
            ),
            (
                boost(json!({"type": "Factor"})),
                vec!["cpu.factor: Required value: required when type is Factor"],
            ),
            (
                boost(json!({"type": "Factor", "factor": 0})),
                vec!["cpu.factor: Invalid value: 0: must be >= 1 for type Factor"],
            ),
            (
                boost(json!({"type": "Quantity"})),
                vec!["cpu.quantity: Required value: required when type is Quantity"],
            ),
            (
                boost(json!({"type": "Much"})),
                vec![
                    "cpu.type: Unsupported value: \"Much\": supported values: \"Factor\", \"Quantity\"",
                ],
            ),
            (boost(json!({})), vec!["cpu.type: Required value: must be either Factor or Quantity"]),
        ] {
            let found = errors(spec.clone(), None, open);
            assert_eq!(found.len(), expected.len(), "{spec}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.ends_with(expected), "{found}");
            }
        }
    }

    #[test]
    fn what_is_stored_stays_allowed() {
        let in_place = json!({"updatePolicy": {"updateMode": "InPlace"}});
        assert_eq!(errors(in_place.clone(), Some(in_place), Gates::default()), [""; 0]);
        let gpu = policy(json!({"containerName": "c", "controlledResources": ["gpu"]}));
        let old = autoscaler(gpu.clone());
        let again = review(&autoscaler(gpu), Some(&old), Gates::default());
        assert!(again.errors.is_empty());
        assert!(again.warnings[0].contains("is allowed only because it is present"));
    }

    #[test]
    fn auto_is_warned_of() {
        let auto = autoscaler(json!({"updatePolicy": {"updateMode": "Auto"}}));
        let review = review(&auto, None, Gates::default());
        assert!(review.errors.is_empty());
        assert_eq!(
            review.warnings,
            [
                "spec.updatePolicy: \"Auto\" mode is deprecated and will be removed in a future API version. Use explicit update modes like: [InPlace InPlaceOrRecreate Initial Off Recreate]. See https://github.com/kubernetes/autoscaler/issues/8424 for more details."
            ]
        );
    }
}
