//! What Karpenter checks of a NodePool after the API server accepted it, and reports as the
//! condition ValidationSucceeded with the reason NodePoolValidationFailed.

use std::collections::BTreeSet;

use super::super::{NodeClaimTemplateSpec, NodePool, NodeSelectorRequirementWithMinValues};
use crate::labels;

/// What is wrong with a pool, in upstream's order: labels, taints, requirements. Joined with `"; "`
/// they are the condition's message.
pub fn errors(pool: &NodePool) -> Vec<String> {
    let template = &pool.spec.template;
    let mut errors = Vec::new();
    for (key, value) in &template.metadata.labels {
        if key == labels::NODEPOOL {
            errors.push(format!("invalid key name {key:?} in labels, restricted"));
        }
        errors.extend(
            label_value_problems(value)
                .map(|problem| format!("invalid value: {value} for label[{key}], {problem}")),
        );
        if let Some(restriction) = labels::restriction(key) {
            errors.push(format!("invalid key name {key:?} in labels, {restriction}"));
        }
    }
    errors.extend(taint_errors(&template.spec));
    for requirement in &template.spec.requirements {
        let problems = requirement_problems(requirement);
        if !problems.is_empty() {
            errors.push(format!(
                "invalid value: {} in requirements, restricted",
                problems.join("; ")
            ));
        }
    }
    for requirement in &template.spec.requirements {
        if requirement.key == labels::NODEPOOL {
            errors.push(format!("invalid key: {:?} in requirements, restricted", requirement.key));
        }
    }
    errors
}

/// A node cannot have two taints of one key and effect, wherever the template puts them.
fn taint_errors(spec: &NodeClaimTemplateSpec) -> Vec<String> {
    let mut seen = BTreeSet::new();
    spec.taints
        .iter()
        .chain(&spec.startup_taints)
        .filter(|taint| !seen.insert((&taint.key, &taint.effect)))
        .map(|taint| format!("duplicate taint Key/Effect pair {}={}", taint.key, taint.effect))
        .collect()
}

fn requirement_problems(requirement: &NodeSelectorRequirementWithMinValues) -> Vec<String> {
    let NodeSelectorRequirementWithMinValues { operator, values, min_values, .. } = requirement;
    let key = labels::normalize(&requirement.key);
    let least = min_values.map_or(0, |least| least as usize);
    let mut problems = Vec::new();
    if let Some(restriction) = labels::restriction(key) {
        problems.push(restriction.into_owned());
    }
    problems.extend(known_value_problem(key, operator, values, least));
    for value in values {
        problems.extend(
            label_value_problems(value)
                .map(|problem| format!("invalid value {value} for key {key}, {problem}")),
        );
    }
    if operator == "In" && values.is_empty() {
        problems.push(format!("key {key} with operator {operator} must have a value defined"));
    }
    if operator == "In" && values.len() < least {
        problems.push(format!(
            "key {key} with operator {operator} must have at least minimum number of values defined \
             in 'values' field"
        ));
    }
    let is_bound = matches!(operator.as_str(), "Gt" | "Lt" | "Gte" | "Lte");
    let is_number = |value: &String| value.parse::<i64>().is_ok_and(|number| number >= 0);
    if is_bound && !(values.len() == 1 && values.iter().all(is_number)) {
        problems.push(format!(
            "key {key} with operator {operator} must have a single positive integer value"
        ));
    }
    problems
}

/// Two labels have a closed set of values. Unknown ones are let pass as long as enough known ones
/// remain.
fn known_value_problem(
    key: &str,
    operator: &str,
    values: &[String],
    least: usize,
) -> Option<String> {
    let known: &[&str] = match key {
        labels::CAPACITY_TYPE => &["on-demand", "reserved", "spot"],
        labels::INSTANCE_TENANCY => &["dedicated", "default"],
        _ => return None,
    };
    if operator != "In" {
        return None;
    }
    let valid = values.iter().filter(|value| known.contains(&value.as_str())).count();
    let (listed, known) = (values.join(" "), known.join(" "));
    if valid == 0 {
        Some(format!(
            "no valid values found in [{listed}] for {key}, expected one of: [{known}], got: \
             [{listed}]"
        ))
    } else if valid < least {
        Some(format!(
            "not enough valid values found in [{listed}] for {key}, expected at least {least} valid \
             values from: [{known}], got: {valid}"
        ))
    } else {
        None
    }
}

/// What keeps a text from being a label's value. The schema does not look at requirement values.
fn label_value_problems(value: &str) -> impl Iterator<Item = &'static str> {
    const LENGTH: &str = "must be no more than 63 bytes";
    const FORM: &str = "a valid label must be an empty string or consist of alphanumeric characters, \
        '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
        'my_value',  or '12345', regex used for validation is \
        '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
    let is_outer = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    let bytes = value.as_bytes();
    let is_formed = is_outer(bytes.first().copied())
        && is_outer(bytes.last().copied())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
    [(bytes.len() > 63, LENGTH), (!is_formed, FORM)]
        .into_iter()
        .filter_map(|(is_wrong, problem)| is_wrong.then_some(problem))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(template: Value) -> Vec<String> {
        let pool = json!({"metadata": {"name": "default"}, "spec": {"template": template}});
        errors(&serde_json::from_value(pool).unwrap())
    }

    fn requirement(requirement: Value) -> Vec<String> {
        check(json!({"spec": {"requirements": [requirement]}}))
    }

    #[test]
    fn a_usual_pool_has_no_errors() {
        assert_eq!(
            check(json!({
                "metadata": {"labels": {"team": "a"}},
                "spec": {
                    "taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}],
                    "requirements": [
                        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "on-demand"], "minValues": 2},
                        {"key": "karpenter.k8s.aws/instance-generation", "operator": "Gt", "values": ["2"]}
                    ]
                }
            })),
            [""; 0]
        );
    }

    #[test]
    fn taints_may_not_be_given_twice() {
        assert_eq!(
            check(json!({"spec": {
                "taints": [{"key": "a", "effect": "NoSchedule", "value": "1"}],
                "startupTaints": [{"key": "a", "effect": "NoSchedule", "value": "2"}]
            }})),
            ["duplicate taint Key/Effect pair a=NoSchedule"]
        );
    }

    #[test]
    fn the_capacity_type_must_keep_a_known_value() {
        let capacity = |values: Value, least: Value| {
            requirement(
                json!({"key": "karpenter.sh/capacity-type", "operator": "In", "values": values, "minValues": least}),
            )
        };
        assert_eq!(capacity(json!(["spot", "cheap"]), Value::Null), [""; 0]);
        assert_eq!(
            capacity(json!(["cheap"]), Value::Null),
            [
                "invalid value: no valid values found in [cheap] for karpenter.sh/capacity-type, expected one of: [on-demand reserved spot], got: [cheap] in requirements, restricted"
            ]
        );
        assert_eq!(
            capacity(json!(["spot", "cheap"]), json!(2)),
            [
                "invalid value: not enough valid values found in [spot cheap] for karpenter.sh/capacity-type, expected at least 2 valid values from: [on-demand reserved spot], got: 1 in requirements, restricted"
            ]
        );
    }

    #[test]
    fn requirements_are_looked_at_once_more() {
        let cases = [
            (
                json!({"key": "a", "operator": "In"}),
                "key a with operator In must have a value defined",
            ),
            (
                json!({"key": "beta.kubernetes.io/arch", "operator": "In", "values": ["amd64"], "minValues": 2}),
                "key kubernetes.io/arch with operator In must have at least minimum number of values defined in 'values' field",
            ),
            (
                json!({"key": "a", "operator": "Gt", "values": ["x"]}),
                "key a with operator Gt must have a single positive integer value",
            ),
            (
                json!({"key": "a", "operator": "NotIn", "values": ["v".repeat(64)]}),
                "must be no more than 63 bytes",
            ),
            (
                json!({"key": "a", "operator": "NotIn", "values": ["-"]}),
                "invalid value - for key a, a valid label must be an empty string",
            ),
            (json!({"key": "sub.karpenter.sh/x", "operator": "Exists"}), "sub.karpenter.sh/x"),
        ];
        for (value, part) in cases {
            let errors = requirement(value.clone());
            assert!(errors.len() == 1 && errors[0].contains(part), "{value}: {errors:?}");
        }
        assert!(
            requirement(json!({"key": "karpenter.sh/nodepool", "operator": "DoesNotExist"}))
                .contains(
                    &"invalid key: \"karpenter.sh/nodepool\" in requirements, restricted"
                        .to_owned()
                )
        );
        assert_eq!(
            check(json!({"metadata": {"labels": {"karpenter.sh/nodepool": "x"}}})),
            ["invalid key name \"karpenter.sh/nodepool\" in labels, restricted"]
        );
    }
}
